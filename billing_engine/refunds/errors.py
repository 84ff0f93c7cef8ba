"""Why money of a consultation is not given back, or a request for it not taken."""

from billing_engine.errors import Conflict, Invalid, NotFound


class RefundAmountInvalid(Invalid):
    """Nothing, or less; names `amount`."""


class RefundTooLarge(Conflict):
    """More than what is left of the consultation's price after earlier refunds; `available` says how much that is."""

    code = "REFUND_TOO_LARGE"
    detail = "This is more than what can still be refunded of the consultation."


class RefundRequestNotFound(NotFound):
    """No such request."""

    detail = "There is no such refund request."


class RefundRequestOpen(Conflict):
    """A session has one open request at a time."""

    code = "REFUND_REQUEST_OPEN"
    detail = "There is an open refund request for this consultation already."


class RefundRequestDecided(Conflict):
    """The request has been decided the other way."""

    code = "REFUND_REQUEST_DECIDED"
    detail = "The refund request has been decided already, and not like this."
