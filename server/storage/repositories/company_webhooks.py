"""What `server.company_news` stores: the companies' webhooks, and what is on its way to them."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Final

from server.company_news.model import Delivery, DeliveryState, Failure, Webhook
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

WEBHOOKS: Final = CollectionSpec(name="company_webhooks", text=("secret",), integer=("created_at_ms",))
DELIVERIES: Final = CollectionSpec(
    name="company_deliveries",
    text=("company_id", "state"),
    integer=("next_at_ms", "attempts", "created_at_ms", "last_attempt_at_ms"),
    indexes=(
        ("state", "next_at_ms"),
        ("state", "created_at_ms"),
        ("company_id", "created_at_ms"),
        ("company_id", "last_attempt_at_ms"),
    ),
)
_WEBHOOK: Final = tuple(field.name for field in fields(Webhook) if field.name != "company_id")
_DELIVERY: Final = tuple(field.name for field in fields(Delivery) if field.name != "id")


class CollectionWebhooks:
    """One document a company, named after it."""

    def __init__(self, collection: Collection) -> None:
        self._rows = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionWebhooks":
        return cls(await collections.open(WEBHOOKS))

    async def get(self, company_id: str) -> Webhook | None:
        doc = await self._rows.get(company_id)
        return None if doc is None else _webhook(doc)

    async def get_many(self, company_ids: Sequence[str]) -> dict[str, Webhook]:
        found = await self._rows.get_many(company_ids)
        return {id_: _webhook(doc) for id_, doc in found.items()}

    async def put(self, webhook: Webhook) -> None:
        await self._rows.upsert({"_id": webhook.company_id, **_facts(webhook)})

    async def exchange(self, old: Webhook, new: Webhook) -> bool:
        where = {"secret": old.secret, "created_at_ms": old.created_at_ms}
        return await self._rows.update(old.company_id, where=where, set_=_facts(new)) is not None

    async def remove(self, company_id: str) -> None:
        await self._rows.delete(company_id)


class CollectionDeliveries:
    """One document a delivery."""

    def __init__(self, collection: Collection) -> None:
        self._rows = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionDeliveries":
        return cls(await collections.open(DELIVERIES))

    async def add(self, delivery: Delivery) -> None:
        facts = {name: getattr(delivery, name) for name in _DELIVERY}
        with suppress(DuplicateId):
            await self._rows.insert(
                {"_id": delivery.id, **facts, "data": dict(delivery.data), "state": delivery.state.value}
            )

    async def due(self, now_ms: int, *, limit: int, after: tuple[int, str] | None) -> list[Delivery]:
        where = {"state": DeliveryState.PENDING.value, "next_at_ms": {"lte": now_ms}}
        found = await self._rows.find(where, sort=(("next_at_ms", "asc"),), limit=limit, after=after)
        return [_delivery(doc) for doc in found]

    async def next_after_ms(self, now_ms: int) -> int | None:
        where = {"state": DeliveryState.PENDING.value, "next_at_ms": {"gt": now_ms}}
        found = await self._rows.find(where, sort=(("next_at_ms", "asc"),), limit=1)
        return found[0]["next_at_ms"] if found else None

    async def begin(self, delivery: Delivery, *, now_ms: int, until_ms: int) -> Delivery | None:
        doc = await self._rows.update(
            delivery.id,
            where={
                "state": DeliveryState.PENDING.value,
                "next_at_ms": delivery.next_at_ms,
                "attempts": delivery.attempts,
            },
            set_={"next_at_ms": until_ms, "last_attempt_at_ms": now_ms},
            inc={"attempts": 1},
        )
        return None if doc is None else _delivery(doc)

    async def end(self, delivery: Delivery) -> None:
        await self._rows.update(
            delivery.id,
            where={"state": DeliveryState.PENDING.value, "attempts": delivery.attempts},
            set_={
                "state": delivery.state.value,
                "next_at_ms": delivery.next_at_ms,
                "last_status": delivery.last_status,
                "failure": None if delivery.failure is None else delivery.failure.value,
            },
        )

    async def list_for(
        self, company_id: str, *, limit: int, before: tuple[int, str] | None
    ) -> list[Delivery]:
        found = await self._rows.find(
            {"company_id": company_id}, sort=(("created_at_ms", "desc"),), limit=limit, after=before
        )
        return [_delivery(doc) for doc in found]

    async def last_tried(self, company_id: str) -> Delivery | None:
        where = {"company_id": company_id, "last_attempt_at_ms": {"gt": 0}}
        found = await self._rows.find(where, sort=(("last_attempt_at_ms", "desc"),), limit=1)
        return _delivery(found[0]) if found else None

    async def drop_settled(self, *, before_ms: int, limit: int) -> int:
        dropped = 0
        for state in (DeliveryState.DONE, DeliveryState.DEAD):
            if dropped >= limit:
                break
            where = {"state": state.value, "created_at_ms": {"lt": before_ms}}
            old = await self._rows.find(where, sort=(("created_at_ms", "asc"),), limit=limit - dropped)
            for doc in old:
                await self._rows.delete(doc["_id"])
            dropped += len(old)
        return dropped


def _facts(webhook: Webhook) -> Doc:
    return {name: getattr(webhook, name) for name in _WEBHOOK}


def _webhook(doc: Doc) -> Webhook:
    return Webhook(company_id=doc["_id"], **{name: doc[name] for name in _WEBHOOK})


def _delivery(doc: Doc) -> Delivery:
    facts = {name: doc[name] for name in _DELIVERY}
    failure = doc["failure"]
    return Delivery(
        id=doc["_id"],
        **facts
        | {
            "state": DeliveryState(doc["state"]),
            "failure": None if failure is None else Failure(failure),
        },
    )
