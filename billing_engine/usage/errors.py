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
