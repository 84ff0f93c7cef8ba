"""Why money does not go back to its payer."""

from billing_engine.errors import Conflict, Invalid, NotEnough


class RefundAmountInvalid(Invalid):
    """Nothing, or less, or a part of a cent; names `amount`."""


class NotRefundable(Conflict):
    """The payment has not been collected, so there is nothing to send back."""

    code = "PAYMENT_NOT_REFUNDABLE"
    detail = "Only a payment that was collected can be refunded."


class RefundExceedsPayment(Conflict):
    """More than was paid, less what was refunded or is disputed."""

    code = "REFUND_EXCEEDS_PAYMENT"
    detail = "The payment was for less, or has been refunded or disputed meanwhile."


class WalletTooLow(NotEnough):
    """The payer has spent the money; nothing was changed."""

    detail = "The payer's wallet does not cover this refund."


class PurchaseNotRefundable(Conflict):
    """The payment bought credits: what was sold for it would have to be taken back, which this cannot."""

    code = "NOT_SUPPORTED"
    detail = (
        "A purchase of credits cannot be sent back to its payer here. Take the credits back by an adjustment, and refund the payment "
        "in the gateway's dashboard."
    )
