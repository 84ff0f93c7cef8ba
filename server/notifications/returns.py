"""Tells people about money on its way back to its payer: `ReturnNews`, as notices of the outbox."""

from billing_engine.ledger.accounts import credit_sales_of
from billing_engine.money import ASSETS, format_minor
from billing_engine.payments.model import DisputeStatus
from billing_engine.payments.refund_model import Dispute, PayerRefund
from server.notifications.model import Kind
from server.notifications.outbox import Outbox
from server.notifications.payment_letters import BOUGHT_CREDITS


class ReturnNotices:
    """A notice's id is made of what it is about: the same news again changes nothing."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def refunded(self, refund: PayerRefund) -> None:
        await self._post(Kind.PAYMENT_REFUNDED, refund, refund.payer_id)

    async def refund_failed(self, refund: PayerRefund, *, was_sent: bool) -> None:
        if refund.by is not None:
            await self._post(Kind.PAYER_REFUND_FAILED, refund, refund.by)
        if was_sent:
            await self._post(Kind.PAYMENT_REFUND_RETURNED, refund, refund.payer_id)

    async def dispute_decided(self, dispute: Dispute) -> None:
        won = dispute.status is DisputeStatus.WON
        await self._outbox.post(
            Kind.DISPUTE_WON if won else Kind.DISPUTE_LOST,
            id_=f"dispute:{dispute.id}:{dispute.status.value}",
            user_id=dispute.payer_id,
            facts={
                "disputeId": dispute.id,
                "paymentId": dispute.payment_id,
                "amount": format_minor(dispute.amount_minor, ASSETS[dispute.currency]),
                "currency": dispute.currency,
                **_bought(dispute.account, dispute.payer_id),
            },
        )

    async def _post(self, kind: Kind, refund: PayerRefund, user_id: str) -> None:
        await self._outbox.post(
            kind,
            id_=f"payer-refund:{refund.id}:{kind.value}",
            user_id=user_id,
            facts={
                "refundId": refund.id,
                "paymentId": refund.payment_id,
                "amount": format_minor(refund.amount_minor, ASSETS[refund.currency]),
                "currency": refund.currency,
                "failure": refund.failure or "",
                **_bought(refund.account, refund.payer_id),
            },
        )


def _bought(account: str, payer_id: str) -> dict[str, bool]:
    """What the letter must know of the payment beside its money."""
    return {BOUGHT_CREDITS: True} if account == credit_sales_of(payer_id) else {}
