"""Tells people about their money: the news of the payouts, refunds and credits rooms, as notices of the outbox."""

from billing_engine.money import ASSETS, format_minor
from billing_engine.payments.model import Payment
from billing_engine.payouts.model import Payout, PayoutStatus
from billing_engine.refunds.model import Decision, RefundBook
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

    async def refund_decided(self, book: RefundBook, decision: Decision) -> None:
        """`RefundNews` of the refunds room."""
        facts = {"sessionId": book.session_id, "reason": decision.reason}
        if decision.answers_request:
            facts["requestId"] = decision.id
        if decision.is_refund:
            kind, asset = Kind.CONSULTATION_REFUNDED, ASSETS[book.currency]
            facts |= {"amount": format_minor(decision.amount_minor, asset), "currency": book.currency}
        else:
            kind = Kind.REFUND_REJECTED
        await self._outbox.post(kind, id_=f"refund:{decision.id}", user_id=book.user_id, facts=facts)

    async def credits_purchased(self, payment: Payment, *, credits_after: int) -> None:
        """`PurchaseNews` of the credits room."""
        facts = {
            "paymentId": payment.id,
            "package": payment.item,
            "credits": payment.quantity,
            "amount": format_minor(payment.amount_minor, ASSETS[payment.currency]),
            "currency": payment.currency,
            "creditsBalance": credits_after,
        }
        await self._outbox.post(
            Kind.CREDITS_PURCHASED, id_=f"credits:{payment.id}", user_id=payment.payer_id, facts=facts
        )
