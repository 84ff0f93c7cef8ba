"""What can go wrong with metered usage."""

from billing_engine.errors import Conflict, Invalid, NotFound


class UsageTypeUnknown(Invalid):
    """The company's price list has no such type of usage, at that time."""

    code = "USAGE_TYPE_UNKNOWN"
    detail = "Your price list has no such type of usage."


class UsageInvalid(Invalid):
    """A field of a usage says what cannot be; `field` names it."""


class UsageNotFound(NotFound):
    """There is no such usage, or it is another company's."""

    code = "USAGE_NOT_FOUND"
    detail = "There is no such usage."


class JobNotFound(NotFound):
    """There is no such job, or it is another company's: a job is made with its first usage."""

    code = "JOB_NOT_FOUND"
    detail = "There is no such job."


class NotCharged(Conflict):
    """The usage has cost nothing yet, so there is nothing to give back."""

    code = "NOT_CHARGED"
    detail = "This usage has not been charged."


class PriceListUnknown(Invalid):
    """The price book has no such list."""

    code = "PRICE_LIST_UNKNOWN"
    detail = "The price book has no such list."


class UsagePriceInvalid(Invalid):
    """The price book cannot hold this; `field` and `problem` say why."""

    code = "USAGE_PRICE_INVALID"
    detail = "The price book cannot hold this."


class UsageTypeFixed(Conflict):
    """The type exists with another entry type or unit: what has been booked under them would mean something else."""

    code = "USAGE_TYPE_FIXED"
    detail = "The entry type and the unit of a type of usage never change. Add another type instead."


class PriceChangeExists(Conflict):
    """Another change of this price takes effect at that very instant."""

    code = "PRICE_CHANGE_EXISTS"
    detail = "Another change of this price takes effect at that instant. Choose another one."
