"""What can go wrong with subscriptions and AI calls."""

from billing_engine.errors import Conflict, Invalid, NotEnough, NotFound, Refused, Unavailable


class NotEnoughCredits(NotEnough):
    """The credits do not cover the most that this call can cost; nothing was asked of the provider."""

    code = "INSUFFICIENT_CREDITS"
    detail = "Your credits do not cover this call."


class LimitExceeded(Refused):
    """A limit of the tier for this cycle is reached, or would be: which, how much was used, and the next tier as `upgrade`."""

    code = "LIMIT_EXCEEDED"
    detail = "Your tier's limit for this billing cycle is reached."


class TooManyCalls(Refused):
    """As many calls of this caller are under way as the tier allows at once."""

    code = "TOO_MANY_CALLS"
    detail = "Too many calls at once. Wait for one to end."


class ProviderNotAvailable(Refused):
    """The tier does not have this provider; `upgrade` is the smallest that has."""

    code = "PROVIDER_NOT_AVAILABLE"
    detail = "Your tier does not have this provider."


class ModelNotAvailable(Refused):
    """The tier does not have this model; `upgrade` is the smallest that has."""

    code = "MODEL_NOT_AVAILABLE"
    detail = "Your tier does not have this model."


class ModelWithoutPrice(Invalid):
    """Nobody has said what this model costs, so nobody may call it."""

    code = "MODEL_WITHOUT_PRICE"
    detail = "This model has no price here."


class ProviderUnknown(NotFound):
    """There is no such provider, or its key is not set here."""

    code = "PROVIDER_UNKNOWN"
    detail = "There is no such provider here."


class AiRequestInvalid(Invalid):
    """The call says what cannot be; `field` names it."""

    code = "VALIDATION_FAILED"


class ProviderFailed(Unavailable):
    """The provider answered with a failure of its own, or refused our key; nothing was charged. Carries `provider_status`."""

    code = "PROVIDER_FAILED"
    detail = "The provider failed. Nothing was charged."


class AiUnavailable(Unavailable):
    """The provider did not answer; nothing was charged."""

    code = "PROVIDER_UNAVAILABLE"
    detail = "The provider did not answer. Nothing was charged."


class TierUnknown(Invalid):
    """There is no such tier, or it cannot be bought."""

    code = "TIER_UNKNOWN"
    detail = "There is no such tier to subscribe to."


class AlreadySubscribed(Conflict):
    """There is a subscription: it is upgraded, downgraded or cancelled, and not bought twice."""

    code = "ALREADY_SUBSCRIBED"
    detail = "You are subscribed already. Upgrade, downgrade or cancel instead."


class NotSubscribed(Conflict):
    """There is no subscription to change."""

    code = "NOT_SUBSCRIBED"
    detail = "You are not subscribed."


class NoUpgrade(Conflict):
    """The tier asked for is not higher than the one there is."""

    code = "NO_UPGRADE"
    detail = "This is no higher tier than yours."


class CycleOver(Conflict):
    """The running cycle is not paid (yet): there is nothing that an upgrade's price could be a part of."""

    code = "CYCLE_OVER"
    detail = "Your billing cycle is over and the next one is not paid yet. Upgrade when it is."
