"""`MethodRows` over three collections: means of payment, who payers are at gateways, and what payers were to leave."""

from contextlib import suppress
from dataclasses import asdict
from typing import Final

from billing_engine.payments.method_records import MethodWish, PaymentMethod
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

METHODS: Final = CollectionSpec(
    name="payment_methods",
    text=("payer_id", "gateway", "gateway_id"),
    integer=("created_at_ms", "gone_at_ms", "tell_at_ms"),
    indexes=(("payer_id", "gone_at_ms", "created_at_ms"), ("gateway_id", "gateway"), ("tell_at_ms",)),
)
CUSTOMERS: Final = CollectionSpec(
    name="payment_customers",
    text=("gateway", "customer_id"),
    indexes=(("customer_id", "gateway"),),
)
WISHES: Final = CollectionSpec(
    name="payment_method_wishes",
    text=("method_id",),
    integer=("check_at_ms", "checks"),
    indexes=(("check_at_ms",),),
)
#: How many payers may have the same means of payment.
_MANY: Final = 100


class CollectionMethods:
    """A means of payment is inserted once and deleted once; a wish changes by compare-and-set on its questions."""

    def __init__(self, methods: Collection, customers: Collection, wishes: Collection) -> None:
        self._methods = methods
        self._customers = customers
        self._wishes = wishes

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionMethods":
        return cls(
            await collections.open(METHODS),
            await collections.open(CUSTOMERS),
            await collections.open(WISHES),
        )

    async def add(self, method: PaymentMethod) -> None:
        with suppress(DuplicateId):
            await self._methods.insert(_doc(method))

    async def get(self, method_id: str) -> PaymentMethod | None:
        doc = await self._methods.get(method_id)
        return None if doc is None else _method(doc)

    async def of_gateway(self, gateway: str, gateway_id: str) -> list[PaymentMethod]:
        found = await self._methods.find({"gateway_id": gateway_id, "gateway": gateway}, limit=_MANY)
        return [_method(doc) for doc in found]

    async def list_for(
        self, payer_id: str, *, limit: int, before: tuple[int, str] | None
    ) -> list[PaymentMethod]:
        found = await self._methods.find(
            {"payer_id": payer_id, "gone_at_ms": None},
            sort=(("created_at_ms", "desc"),),
            limit=limit,
            after=before,
        )
        return [_method(doc) for doc in found]

    async def mark_gone(self, method_id: str, *, at_ms: int, tell_at_ms: int | None) -> None:
        where = {"gone_at_ms": None}
        gone = {"gone_at_ms": at_ms, "tell_at_ms": tell_at_ms, "label": ""}
        await self._methods.update(method_id, where=where, set_=gone)

    async def tell_at(self, method_id: str, at_ms: int | None) -> None:
        await self._methods.update(method_id, set_={"tell_at_ms": at_ms})

    async def untold(self, now_ms: int, *, limit: int) -> list[PaymentMethod]:
        where = {"tell_at_ms": {"lte": now_ms}}
        found = await self._methods.find(where, sort=(("tell_at_ms", "asc"),), limit=limit)
        return [_method(doc) for doc in found]

    async def customer_of(self, payer_id: str, gateway: str) -> str | None:
        doc = await self._customers.get(f"{gateway}|{payer_id}")
        return None if doc is None else str(doc["customer_id"])

    async def payer_of(self, gateway: str, customer_id: str) -> str | None:
        found = await self._customers.find({"customer_id": customer_id, "gateway": gateway}, limit=1)
        return str(found[0]["payer_id"]) if found else None

    async def remember_customer(self, payer_id: str, gateway: str, customer_id: str) -> None:
        id_ = f"{gateway}|{payer_id}"
        changed = {"gateway": gateway, "payer_id": payer_id, "customer_id": customer_id}
        try:
            await self._customers.insert({"_id": id_, **changed})
        except DuplicateId:
            await self._customers.update(id_, set_=changed)

    async def forget_customer(self, payer_id: str, gateway: str, customer_id: str) -> None:
        await self._customers.delete(f"{gateway}|{payer_id}", where={"customer_id": customer_id})

    async def add_wish(self, wish: MethodWish) -> bool:
        try:
            await self._wishes.insert(_doc(wish))
        except DuplicateId:
            return False
        return True

    async def get_wish(self, wish_id: str) -> MethodWish | None:
        doc = await self._wishes.get(wish_id)
        return None if doc is None else _wish(doc)

    async def replace_wish(self, wish: MethodWish, *, expect_checks: int) -> bool:
        changed = _doc(wish)
        del changed["_id"]
        where = {"checks": expect_checks, "method_id": None}
        return await self._wishes.update(wish.id, where=where, set_=changed) is not None

    async def due_wishes(self, now_ms: int, *, limit: int) -> list[MethodWish]:
        where = {"check_at_ms": {"lte": now_ms}}
        found = await self._wishes.find(where, sort=(("check_at_ms", "asc"),), limit=limit)
        return [_wish(doc) for doc in found]


def _doc(record: PaymentMethod | MethodWish) -> Doc:
    doc = asdict(record)
    return {"_id": doc.pop("id"), **doc}


def _method(doc: Doc) -> PaymentMethod:
    return PaymentMethod(id=doc.pop("_id"), **doc)


def _wish(doc: Doc) -> MethodWish:
    return MethodWish(id=doc.pop("_id"), **doc)
