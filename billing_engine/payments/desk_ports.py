"""What refunds to the payer and disputes need from the outside, in their own words."""

from collections.abc import Sequence
from typing import Protocol

from billing_engine.payments.model import DisputeStatus, Payment, PaymentStatus
from billing_engine.payments.refund_model import Dispute, PayerRefund


class PayerRefundRows(Protocol):
    """The stored refunds to payers. All methods raise `Unavailable`."""

    async def add(self, refund: PayerRefund) -> bool:
        """Insert; False if the id exists."""
        ...

    async def get(self, refund_id: str) -> PayerRefund | None: ...

    async def replace(self, refund: PayerRefund, *, expect_revision: int) -> bool:
        """Compare-and-set on the revision; whether it was."""
        ...

    async def of_payment(self, payment_id: str) -> list[PayerRefund]:
        """All of the payment's, oldest first."""
        ...

    async def due(self, now_ms: int, *, limit: int) -> list[PayerRefund]:
        """Those that are to be looked at by now, the longest due first."""
        ...


class DisputeRows(Protocol):
    """The stored disputes. All methods raise `Unavailable`."""

    async def add(self, dispute: Dispute) -> bool:
        """Insert; False if the id exists."""
        ...

    async def get(self, dispute_id: str) -> Dispute | None: ...

    async def replace(self, dispute: Dispute, *, expect_revision: int) -> bool:
        """Compare-and-set on the revision; whether it was."""
        ...

    async def of_payment(self, payment_id: str) -> list[Dispute]:
        """All of the payment's, oldest first."""
        ...

    async def queue(
        self, status: DisputeStatus | None, *, limit: int, after: tuple[int, str] | None
    ) -> list[Dispute]:
        """The open ones oldest first, others and all together newest first; `after` is (created_at_ms, id) of the last one of the
        previous page.
        """
        ...


class PaymentIndex(Protocol):
    """All payers' payments, for the admins. Raises `Unavailable`."""

    async def search(
        self,
        statuses: Sequence[PaymentStatus],
        payer_id: str | None,
        *,
        limit: int,
        before: tuple[int, str] | None,
    ) -> list[Payment]:
        """Newest first; without statuses those of every status. `before` is (created_at_ms, id) of the previous page's last."""
        ...


class ReturnNews(Protocol):
    """Tells people. On return they will be told, once for the same news; all methods raise `Unavailable`."""

    async def refunded(self, refund: PayerRefund) -> None:
        """The payer: the money is on its way."""
        ...

    async def refund_failed(self, refund: PayerRefund, *, was_sent: bool) -> None:
        """The admin who asked for it; and the payer, if it had been told that the money is on its way."""
        ...

    async def dispute_decided(self, dispute: Dispute) -> None:
        """The payer."""
        ...
