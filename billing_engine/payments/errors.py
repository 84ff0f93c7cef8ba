"""What can go wrong with payments."""

from billing_engine.errors import Conflict, Invalid, NotFound, Unavailable


class GatewayUnavailable(Unavailable):
    """The gateway did not answer, or nobody can tell what it did: the outcome is unknown, a retry by key is safe."""

    code = "GATEWAY_UNAVAILABLE"
    detail = "The payment gateway did not answer. Try again with the same Idempotency-Key."


class GatewayRefused(Conflict):
    """The gateway has understood and refuses; nothing was done. `reason` is its own code."""

    code = "GATEWAY_REFUSED"
    detail = "The payment gateway refuses this."


class NotSupported(Conflict):
    """This gateway cannot do that."""

    code = "NOT_SUPPORTED"
    detail = "The payment gateway in use cannot do this."


class WebhookInvalid(Invalid):
    """Not signed by the gateway, or no event: nothing was looked at."""

    code = "WEBHOOK_INVALID"
    detail = "This is no signed event of the payment gateway."


class SignatureInvalid(Invalid):
    """The gateway has not signed that this payment is of this order."""

    code = "SIGNATURE_INVALID"
    detail = "The signature does not belong to this payment and order."


class PaymentNotFound(NotFound):
    """No such payment, or not this caller's."""

    code = "PAYMENT_NOT_FOUND"
    detail = "There is no such payment."


class PaymentMethodNotFound(NotFound):
    """No such means of payment, deleted, or not this payer's."""

    detail = "There is no such saved payment method."


class NoSuchDay(NotFound):
    """No day, or one that has not begun."""

    detail = "There is nothing to compare on this day."


class AmountOutOfRange(Invalid):
    """A recharge below the minimum or above the maximum."""
