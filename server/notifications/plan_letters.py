"""Letters to subscribers: what posts them, and what they say."""

from collections.abc import Mapping
from typing import Any, Final

from billing_engine.money import ASSETS, format_minor
from server.auth.model import Account
from server.notifications.model import Kind
from server.notifications.outbox import Outbox
from server.wire import rfc3339

_SAID: Final[Mapping[Kind, tuple[str, str]]] = {
    Kind.SUBSCRIPTION_BEGAN: (
        "Your receipt for the {tier} tier",
        (
            "your payment of {amount} {currency} for the {tier} tier has come. Its credits are yours until {endsAt};\n"
            "what was left of the cycle before has expired. The invoice's number: {invoiceId}\n"
        ),
    ),
    Kind.SUBSCRIPTION_PAYMENT_FAILED: (
        "The payment of your subscription failed",
        (
            "the payment of the next cycle of your subscription ({tier}) failed. It is tried again; until {graceEndsAt}\n"
            "everything goes on as before, then you are on the free tier. Look after your means of payment.\n"
        ),
    ),
    Kind.SUBSCRIPTION_ENDED: (
        "Your subscription has ended",
        (
            "your subscription ({tier}) has ended, and nothing more is charged for it. You are on the free tier,\n"
            "and can subscribe again whenever you like.\n"
        ),
    ),
    Kind.SUBSCRIPTION_UPGRADED: (
        "You are on the {tier} tier",
        "your upgrade is paid: you are on the {tier} tier, with its limits and the credits that the quote named.\n",
    ),
}
KINDS: Final = frozenset(_SAID)


def plan_letter(kind: Kind, account: Account, facts: Mapping[str, Any]) -> tuple[str, str]:
    """Subject and text."""
    subject, said = _SAID[kind]
    return subject.format_map(facts), f"Hello {account.name},\n\n{said.format_map(facts)}"


class PlanLetters:
    """`PlanNews`: a notice of the outbox each. The same id again changes nothing."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def began(
        self,
        id_: str,
        user_id: str,
        *,
        tier: str,
        ends_at_ms: int,
        invoice_id: str,
        amount_minor: int,
        currency: str,
    ) -> None:
        facts = {
            "tier": tier,
            "endsAt": rfc3339(ends_at_ms),
            "invoiceId": invoice_id,
            "amount": format_minor(amount_minor, ASSETS[currency]),
            "currency": currency,
        }
        await self._outbox.post(Kind.SUBSCRIPTION_BEGAN, id_=id_, user_id=user_id, facts=facts)

    async def payment_failed(self, id_: str, user_id: str, *, tier: str, grace_ends_ms: int) -> None:
        facts = {"tier": tier, "graceEndsAt": rfc3339(grace_ends_ms)}
        await self._outbox.post(Kind.SUBSCRIPTION_PAYMENT_FAILED, id_=id_, user_id=user_id, facts=facts)

    async def ended(self, id_: str, user_id: str, *, tier: str) -> None:
        await self._outbox.post(Kind.SUBSCRIPTION_ENDED, id_=id_, user_id=user_id, facts={"tier": tier})

    async def upgraded(self, id_: str, user_id: str, *, tier: str) -> None:
        await self._outbox.post(Kind.SUBSCRIPTION_UPGRADED, id_=id_, user_id=user_id, facts={"tier": tier})
