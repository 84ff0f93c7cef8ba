"""What can go wrong in the engine, by kind. No HTTP here: `server/problems.py` maps kinds to statuses.

A class carries a stable upper-case `code` and its facts as keyword arguments; prose is made at the edge.
"""

from typing import Any, ClassVar


class BillingError(Exception):
    """Base of every expected failure of the billing engine."""

    code: ClassVar[str] = "BILLING_ERROR"
    detail: ClassVar[str] = "The request could not be carried out."

    def __init__(self, **facts: Any) -> None:
        self.facts = facts
        super().__init__(self.code, facts)


class NotFound(BillingError):
    """It does not exist, or not for this caller."""

    code = "NOT_FOUND"
    detail = "There is no such object."


class Conflict(BillingError):
    """The state of things does not allow it now."""

    code = "CONFLICT"
    detail = "The current state does not allow this."


class Refused(BillingError):
    """This caller may not do it."""

    code = "FORBIDDEN"
    detail = "You may not do this."


class Invalid(BillingError):
    """A value is outside what the operation accepts; `field` names it."""

    code = "VALIDATION_FAILED"
    detail = "A field is not valid."


class NotEnough(BillingError):
    """Money is short; nothing was changed."""

    code = "INSUFFICIENT_BALANCE"
    detail = "The balance does not cover this."


class Unavailable(BillingError):
    """The store did not answer, or answered with a failure: the outcome is unknown, a retry by key is safe."""

    code = "STORAGE_UNAVAILABLE"
    detail = "The storage did not answer. Try again with the same Idempotency-Key."


class InvariantBroken(BillingError):
    """A rule of the books does not hold. Nobody's input explains it; it is never swallowed."""

    code = "INTERNAL"
    detail = "An internal error occurred."
