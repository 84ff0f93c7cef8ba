"""`PayerRefundRows` and `DisputeRows`, each over one collection."""

from dataclasses import fields
from typing import Final

from billing_engine.payments.model import DisputeStatus, RefundStatus
from billing_engine.payments.refund_model import Dispute, PayerRefund, PayerRefundStatus
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

PAYER_REFUNDS: Final = CollectionSpec(
    name="payer_refunds",
    text=("payment_id", "status"),
    integer=("created_at_ms", "check_at_ms", "revision"),
    indexes=(("payment_id", "created_at_ms"), ("check_at_ms",)),
)
DISPUTES: Final = CollectionSpec(
    name="disputes",
    text=("payment_id", "status"),
    integer=("created_at_ms", "revision"),
    indexes=(("payment_id", "created_at_ms"), ("status", "created_at_ms"), ("created_at_ms",)),
)
_REFUND: Final = tuple(field.name for field in fields(PayerRefund) if field.name != "id")
_DISPUTE: Final = tuple(field.name for field in fields(Dispute) if field.name != "id")
#: Of one payment there are a few; more than these would have to be a paisa each.
_OF_PAYMENT: Final = 1_000


class CollectionPayerRefunds:
    """One document a refund, changed by compare-and-set on its revision."""

    def __init__(self, collection: Collection) -> None:
        self._refunds = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionPayerRefunds":
        return cls(await collections.open(PAYER_REFUNDS))

    async def add(self, refund: PayerRefund) -> bool:
        try:
            await self._refunds.insert({"_id": refund.id, **_refund_facts(refund)})
        except DuplicateId:
            return False
        return True

    async def get(self, refund_id: str) -> PayerRefund | None:
        doc = await self._refunds.get(refund_id)
        return None if doc is None else refund_of(doc)

    async def replace(self, refund: PayerRefund, *, expect_revision: int) -> bool:
        where = {"revision": expect_revision}
        return await self._refunds.update(refund.id, where=where, set_=_refund_facts(refund)) is not None

    async def of_payment(self, payment_id: str) -> list[PayerRefund]:
        found = await self._refunds.find(
            {"payment_id": payment_id}, sort=(("created_at_ms", "asc"),), limit=_OF_PAYMENT
        )
        return [refund_of(doc) for doc in found]

    async def due(self, now_ms: int, *, limit: int) -> list[PayerRefund]:
        where = {"check_at_ms": {"lte": now_ms}}
        found = await self._refunds.find(where, sort=(("check_at_ms", "asc"),), limit=limit)
        return [refund_of(doc) for doc in found]


class CollectionDisputes:
    """One document a dispute, changed by compare-and-set on its revision."""

    def __init__(self, collection: Collection) -> None:
        self._disputes = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionDisputes":
        return cls(await collections.open(DISPUTES))

    async def add(self, dispute: Dispute) -> bool:
        try:
            await self._disputes.insert({"_id": dispute.id, **_dispute_facts(dispute)})
        except DuplicateId:
            return False
        return True

    async def get(self, dispute_id: str) -> Dispute | None:
        doc = await self._disputes.get(dispute_id)
        return None if doc is None else dispute_of(doc)

    async def replace(self, dispute: Dispute, *, expect_revision: int) -> bool:
        where = {"revision": expect_revision}
        return await self._disputes.update(dispute.id, where=where, set_=_dispute_facts(dispute)) is not None

    async def of_payment(self, payment_id: str) -> list[Dispute]:
        found = await self._disputes.find(
            {"payment_id": payment_id}, sort=(("created_at_ms", "asc"),), limit=_OF_PAYMENT
        )
        return [dispute_of(doc) for doc in found]

    async def queue(
        self, status: DisputeStatus | None, *, limit: int, after: tuple[int, str] | None
    ) -> list[Dispute]:
        found = await self._disputes.find(
            {} if status is None else {"status": status.value},
            sort=(("created_at_ms", "asc" if status is DisputeStatus.OPEN else "desc"),),
            limit=limit,
            after=after,
        )
        return [dispute_of(doc) for doc in found]


def _refund_facts(refund: PayerRefund) -> Doc:
    facts = {name: getattr(refund, name) for name in _REFUND}
    heard = None if refund.heard is None else refund.heard.value
    return facts | {"status": refund.status.value, "heard": heard}


def refund_of(doc: Doc) -> PayerRefund:
    """The stored document as the domain knows it."""
    facts = {name: doc[name] for name in _REFUND}
    heard = None if doc["heard"] is None else RefundStatus(doc["heard"])
    return PayerRefund(id=doc["_id"], **facts | {"status": PayerRefundStatus(doc["status"]), "heard": heard})


def _dispute_facts(dispute: Dispute) -> Doc:
    return {name: getattr(dispute, name) for name in _DISPUTE} | {"status": dispute.status.value}


def dispute_of(doc: Doc) -> Dispute:
    """The stored document as the domain knows it."""
    facts = {name: doc[name] for name in _DISPUTE}
    return Dispute(id=doc["_id"], **facts | {"status": DisputeStatus(doc["status"])})
