"""Why a payout is not made, or not decided."""

from billing_engine.errors import Conflict, Invalid, NotEnough, NotFound


class PayoutNotFound(NotFound):
    """No such payout."""

    detail = "There is no such payout."


class PayoutTooSmall(Invalid):
    """Less than the smallest payout; names `amount`."""


class EarningsTooLow(NotEnough):
    """Less than this may be paid out now."""

    detail = "Your earnings that may be paid out do not cover this."


class PayoutDecided(Conflict):
    """The payout has been decided the other way."""

    code = "PAYOUT_DECIDED"
    detail = "The payout has been decided already, and not like this."
