"""What the letters about a company's wallet say: a sentence, and what is known of it."""

from collections.abc import Mapping
from typing import Any, Final

from server.auth.model import Account
from server.notifications.model import Kind

_SAID: Final[Mapping[Kind, tuple[str, str]]] = {
    Kind.COMPANY_LOW_BALANCE: (
        "Your company's balance is low",
        "the balance of your company's wallet has fallen below a threshold of yours. Recharge it, or switch auto-recharge on.",
    ),
    Kind.COMPANY_OWED: (
        "Your company owes money for its usage",
        "your company's wallet could not pay for all of its usage. What is owed is collected by the next recharge; your work goes on.",
    ),
    Kind.COMPANY_RECHARGED: (
        "Your company's wallet was recharged",
        "your company's wallet was recharged. This is the receipt; the invoice is among your company's invoices.",
    ),
    Kind.COMPANY_RECHARGE_FAILED: (
        "A recharge of your company's wallet failed",
        "a recharge of your company's wallet failed, and nothing was credited. Look after the means of payment.",
    ),
    Kind.COMPANY_AUTO_RECHARGE_STOPPED: (
        "Auto-recharge was stopped",
        (
            "auto-recharge of your company's wallet was stopped after several payments had been declined. "
            "Look after the means of payment, then switch it on again."
        ),
    ),
}
KINDS: Final = frozenset(_SAID)
#: Fact → what it is called. Amounts have their currency in the fact `currency`.
_AMOUNTS: Final = {
    "amount": "Amount",
    "walletBalance": "Balance",
    "threshold": "Threshold",
    "owed": "Owed",
    "owedCollected": "Owed before and paid by this recharge",
}
_WORDS: Final = {
    "invoiceNumber": "Invoice",
    "invoiceId": "Invoice",
    "paymentId": "Payment",
    "reason": "Reason",
    "failures": "Declined payments in a row",
}


def company_letter(kind: Kind, account: Account, facts: Mapping[str, Any]) -> tuple[str, str]:
    """Subject and text. Facts that the event did not bring are not spoken of."""
    subject, said = _SAID[kind]
    currency = facts.get("currency", "")
    lines = [
        *(
            f"{name}: {facts[key]} {currency}".rstrip()
            for key, name in _AMOUNTS.items()
            if _is_known(facts, key)
        ),
        *(f"{name}: {facts[key]}" for key, name in _WORDS.items() if _is_known(facts, key)),
    ]
    listed = "".join(f"{line}\n" for line in dict.fromkeys(lines))
    return subject, f"Hello {account.name},\n\n{said}\n" + (f"\n{listed}" if listed else "")


def _is_known(facts: Mapping[str, Any], key: str) -> bool:
    return facts.get(key) not in {None, ""}
