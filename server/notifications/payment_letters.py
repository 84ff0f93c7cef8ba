"""What the letters about payments say: receipts, and money on its way back to its payer."""

from collections.abc import Mapping
from typing import Any, Final

from server.auth.model import Account
from server.notifications.model import Kind

_SAID: Final[Mapping[Kind, tuple[str, str]]] = {
    Kind.PAYMENT_REFUNDED: (
        "Your payment was refunded",
        (
            "{amount} {currency} of your payment {paymentId} go back to you, the way that you paid. Banks take some days for it.\n"
            "Your wallet no longer has this money.\n"
        ),
    ),
    Kind.PAYMENT_REFUND_RETURNED: (
        "A refund could not be delivered",
        (
            "the refund of {amount} {currency} for your payment {paymentId} came back: your bank did not take it.\n"
            "The money is in your wallet again.\n"
        ),
    ),
    Kind.PAYER_REFUND_FAILED: (
        "A refund failed",
        (
            "the refund {refundId} of {amount} {currency} for the payment {paymentId} failed: {failure}.\n"
            "The money is in the payer's wallet again.\n"
        ),
    ),
    Kind.DISPUTE_WON: (
        "The dispute about your payment is over",
        (
            "the dispute about your payment {paymentId} over {amount} {currency} was decided against you.\n"
            "What was set aside for it is in your wallet again.\n"
        ),
    ),
    Kind.DISPUTE_LOST: (
        "The dispute about your payment is over",
        (
            "the dispute about your payment {paymentId} over {amount} {currency} was decided for you: your bank returns it.\n"
            "Your wallet no longer has this money.\n"
        ),
    ),
    Kind.CREDITS_PURCHASED: (
        "Your receipt for application credits",
        (
            "you have bought {credits} application credits ({package}) for {amount} {currency}.\n"
            "The payment's number: {paymentId}. Your balance right after it: {creditsBalance} credits.\n"
        ),
    ),
}
#: The same where credits were bought: there is no wallet, and the credits stay as they are.
_SAID_OF_CREDITS: Final[Mapping[Kind, str]] = {
    Kind.PAYMENT_REFUNDED: (
        "{amount} {currency} of your payment {paymentId} for application credits go back to you, the way that you paid. "
        "Banks take some days for it.\n"
    ),
    Kind.PAYMENT_REFUND_RETURNED: (
        "the refund of {amount} {currency} for your payment {paymentId} came back: your bank did not take it. Ask us about it.\n"
    ),
    Kind.DISPUTE_WON: (
        "the dispute about your payment {paymentId} over {amount} {currency} for application credits was decided against you.\n"
    ),
    Kind.DISPUTE_LOST: (
        "the dispute about your payment {paymentId} over {amount} {currency} for application credits was decided for you: "
        "your bank returns it.\n"
    ),
}
KINDS: Final = frozenset(_SAID)
#: The fact that says that the payment bought credits.
BOUGHT_CREDITS: Final = "boughtCredits"


def payment_letter(kind: Kind, account: Account, facts: Mapping[str, Any]) -> tuple[str, str]:
    """Subject and text."""
    subject, said = _SAID[kind]
    if facts.get(BOUGHT_CREDITS):
        said = _SAID_OF_CREDITS.get(kind, said)
    return subject, f"Hello {account.name},\n\n{said.format_map(facts)}"
