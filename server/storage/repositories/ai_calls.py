"""`CallRows`: the log of AI calls."""

from contextlib import suppress
from dataclasses import fields
from typing import Final

from billing_engine.subscriptions.ports import CallRow
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

#: Ids sort by creation.
AI_CALLS: Final = CollectionSpec(
    name="ai_calls",
    text=("user_id", "day", "provider", "model", "outcome"),
    integer=("started_at_ms", "tokens", "cost_minor", "credits_milli"),
    boolean=("is_open",),
    indexes=(("user_id",), ("is_open", "started_at_ms"), ("day", "provider", "model")),
)
_FIELDS: Final = tuple(field.name for field in fields(CallRow) if field.name != "id")


class CollectionCalls:
    """One document a call."""

    def __init__(self, collection: Collection) -> None:
        self._calls = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionCalls":
        return cls(await collections.open(AI_CALLS))

    async def add(self, row: CallRow) -> None:
        with suppress(DuplicateId):
            await self._calls.insert({"_id": row.id, **_facts(row)})

    async def finish(self, row: CallRow) -> None:
        await self._calls.update(row.id, where={"is_open": True}, set_=_facts(row))

    async def get(self, call_id: str) -> CallRow | None:
        doc = await self._calls.get(call_id)
        return None if doc is None else _row_of(doc)

    async def open_before(self, started_before_ms: int, *, limit: int) -> list[CallRow]:
        found = await self._calls.find(
            {"is_open": True, "started_at_ms": {"lte": started_before_ms}},
            sort=(("started_at_ms", "asc"),),
            limit=limit,
        )
        return [_row_of(doc) for doc in found]

    async def list_for(self, user_id: str, *, limit: int, before: str | None) -> list[CallRow]:
        where: Doc = {"user_id": user_id}
        if before is not None:
            where["_id"] = {"lt": before}
        found = await self._calls.find(where, sort=(("_id", "desc"),), limit=limit)
        return [_row_of(doc) for doc in found]


def _facts(row: CallRow) -> Doc:
    return {name: getattr(row, name) for name in _FIELDS}


def _row_of(doc: Doc) -> CallRow:
    return CallRow(id=doc["_id"], **{name: doc[name] for name in _FIELDS})
