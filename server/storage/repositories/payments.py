"""`Payments` over one collection."""

from dataclasses import asdict
from typing import Any, Final

from billing_engine.payments.model import Charge, Payment, PaymentStatus, Purpose
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

PAYMENTS: Final = CollectionSpec(
    name="payments",
    text=("payer_id", "gateway", "order_id", "collected_id", "status"),
    integer=("created_at_ms", "check_at_ms", "revision"),
    indexes=(
        ("payer_id", "created_at_ms"),
        ("order_id",),
        ("collected_id",),
        ("check_at_ms",),
        ("gateway", "created_at_ms"),
        ("status", "created_at_ms"),
        ("created_at_ms",),
    ),
)
_PAGE: Final = 500


class CollectionPayments:
    """One document a payment, changed by compare-and-set on its revision."""

    def __init__(self, collection: Collection) -> None:
        self._payments = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionPayments":
        return cls(await collections.open(PAYMENTS))

    async def add(self, payment: Payment) -> bool:
        try:
            await self._payments.insert({"_id": payment.id, **_facts(payment)})
        except DuplicateId:
            return False
        return True

    async def get(self, payment_id: str) -> Payment | None:
        doc = await self._payments.get(payment_id)
        return None if doc is None else payment_of(doc)

    async def of_order(self, gateway: str, order_id: str) -> Payment | None:
        return await self._one({"order_id": order_id, "gateway": gateway})

    async def of_attempt(self, gateway: str, attempt_id: str) -> Payment | None:
        return await self._one({"collected_id": attempt_id, "gateway": gateway})

    async def _one(self, where: Doc) -> Payment | None:
        found = await self._payments.find(where, limit=1)
        return payment_of(found[0]) if found else None

    async def replace(self, payment: Payment, *, expect_revision: int) -> bool:
        where = {"revision": expect_revision}
        return await self._payments.update(payment.id, where=where, set_=_facts(payment)) is not None

    async def due(self, now_ms: int, *, limit: int) -> list[Payment]:
        where = {"check_at_ms": {"lte": now_ms}}
        return [
            payment_of(doc)
            for doc in await self._payments.find(where, sort=(("check_at_ms", "asc"),), limit=limit)
        ]

    async def list_for(self, payer_id: str, *, limit: int, before: tuple[int, str] | None) -> list[Payment]:
        found = await self._payments.find(
            {"payer_id": payer_id}, sort=(("created_at_ms", "desc"),), limit=limit, after=before
        )
        return [payment_of(doc) for doc in found]

    async def unpaid(self, payer_id: str) -> int:
        waiting = [PaymentStatus.CREATED.value, PaymentStatus.PENDING.value]
        return await self._payments.count({"payer_id": payer_id, "status": {"in": waiting}})

    async def between(self, gateway: str, from_ms: int, to_ms: int) -> list[Payment]:
        where = {"gateway": gateway, "created_at_ms": {"gte": from_ms, "lt": to_ms}}
        found: list[Payment] = []
        after: tuple[Any, ...] | None = None
        while True:
            page = await self._payments.find(
                where, sort=(("created_at_ms", "asc"),), limit=_PAGE, after=after
            )
            found += map(payment_of, page)
            if len(page) < _PAGE:
                return found
            after = (page[-1]["created_at_ms"], page[-1]["_id"])


def _facts(payment: Payment) -> Doc:
    return {
        "purpose": payment.purpose.value,
        "payer_id": payment.payer_id,
        "account": payment.account,
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "gateway": payment.gateway,
        "status": payment.status.value,
        "created_at_ms": payment.created_at_ms,
        "order_id": payment.order_id,
        "collected_id": payment.collected_id,
        "check_at_ms": payment.check_at_ms,
        "checks": payment.checks,
        "failure": payment.failure,
        "refunds": dict(payment.refunds),
        "disputes": dict(payment.disputes),
        "shown": dict(payment.shown),
        "customer_id": payment.customer_id,
        "save_method": payment.save_method,
        "charge": None if payment.charge is None else asdict(payment.charge),
        "quantity": payment.quantity,
        "item": payment.item,
        "revision": payment.revision,
    }


def payment_of(doc: Doc) -> Payment:
    """The payment that a document tells."""
    return Payment(
        id=doc["_id"],
        purpose=Purpose(doc["purpose"]),
        payer_id=doc["payer_id"],
        account=doc["account"],
        amount_minor=doc["amount_minor"],
        currency=doc["currency"],
        gateway=doc["gateway"],
        status=PaymentStatus(doc["status"]),
        created_at_ms=doc["created_at_ms"],
        order_id=doc["order_id"],
        collected_id=doc["collected_id"],
        check_at_ms=doc["check_at_ms"],
        checks=doc["checks"],
        failure=doc["failure"],
        refunds=doc["refunds"],
        disputes=doc.get("disputes", {}),
        shown=doc["shown"],
        customer_id=doc["customer_id"],
        save_method=doc["save_method"],
        charge=None if doc["charge"] is None else Charge(**doc["charge"]),
        # Payments from before credits have neither.
        quantity=doc.get("quantity", 0),
        item=doc.get("item", ""),
        revision=doc["revision"],
    )
