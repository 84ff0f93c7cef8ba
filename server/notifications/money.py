"""Tells people about their money: the news of the payouts room, as notices of the outbox."""

from billing_engine.money import ASSETS, format_minor
from billing_engine.payouts.model import Payout, PayoutStatus
from server.notifications.model import Kind
from server.notifications.outbox import Outbox


class MoneyNews:
    """A notice's id is made of what it is about: the same news again changes nothing."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def payout_decided(self, payout: Payout) -> None:
        """`PayoutNews` of the payouts room."""
        facts = {
            "payoutId": payout.id,
            "amount": format_minor(payout.amount_minor, ASSETS[payout.currency]),
            "currency": payout.currency,
        }
        if payout.status is PayoutStatus.PAID:
            kind, facts["reference"] = Kind.PAYOUT_PAID, payout.reference or ""
        else:
            kind, facts["reason"] = Kind.PAYOUT_FAILED, payout.reason or ""
        await self._outbox.post(kind, id_=f"payout:{payout.id}", user_id=payout.lawyer_id, facts=facts)
