"""`PaymentIndex` of the payment desk, over the payments' collection."""

from collections.abc import Sequence

from billing_engine.payments.model import Payment, PaymentStatus
from server.storage.collection import Collection, Collections, Doc
from server.storage.repositories.payments import PAYMENTS, payment_of


class CollectionPaymentIndex:
    """Reads only."""

    def __init__(self, collection: Collection) -> None:
        self._payments = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionPaymentIndex":
        return cls(await collections.open(PAYMENTS))

    async def search(
        self,
        statuses: Sequence[PaymentStatus],
        payer_id: str | None,
        *,
        limit: int,
        before: tuple[int, str] | None,
    ) -> list[Payment]:
        where: Doc = {}
        if len(statuses) == 1:
            where["status"] = statuses[0].value
        elif statuses:
            where["status"] = {"in": [status.value for status in statuses]}
        if payer_id is not None:
            where["payer_id"] = payer_id
        found = await self._payments.find(where, sort=(("created_at_ms", "desc"),), limit=limit, after=before)
        return [payment_of(doc) for doc in found]
