"""`CallRows`: the log of AI calls."""

from contextlib import suppress
from dataclasses import fields
from typing import Final

from billing_engine.subscriptions.metrics import Used
from billing_engine.subscriptions.ports import CallRow
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

#: Ids sort by creation.
AI_CALLS: Final = CollectionSpec(
    name="ai_calls",
    text=("user_id", "outcome", "tally"),
    integer=("started_at_ms", "tokens", "cost_minor", "credits_milli"),
    boolean=("is_open",),
    # The last one has all that metrics add up: they read no document.
    indexes=(
        ("user_id",),
        ("is_open", "started_at_ms"),
        ("tally", "tokens", "cost_minor", "credits_milli"),
    ),
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
        return None if doc is None else call_of(doc)

    async def open_before(self, started_before_ms: int, *, limit: int) -> list[CallRow]:
        found = await self._calls.find(
            {"is_open": True, "started_at_ms": {"lte": started_before_ms}},
            sort=(("started_at_ms", "asc"),),
            limit=limit,
        )
        return [call_of(doc) for doc in found]

    async def list_for(self, user_id: str, *, limit: int, before: str | None) -> list[CallRow]:
        where: Doc = {"user_id": user_id}
        if before is not None:
            where["_id"] = {"lt": before}
        found = await self._calls.find(where, sort=(("_id", "desc"),), limit=limit)
        return [call_of(doc) for doc in found]

    async def used_between(self, first_day: str, last_day: str) -> dict[tuple[str, str, str], Used]:
        """What answered calls used, by day, provider and model, of these local days, both included."""
        where = {"tally": days(first_day, last_day)}
        tokens, costs, taken = [
            await self._calls.sum_by(field, group_by="tally", where=where)
            for field in ("tokens", "cost_minor", "credits_milli")
        ]
        found: dict[tuple[str, str, str], Used] = {}
        # A call that ends between two readings is in some of them only; the next look has all of it.
        for tally in tokens.keys() & costs.keys() & taken.keys():
            day, provider, model = tally.split("|", 2)
            found[day, provider, model] = Used(
                tokens[tally][1], tokens[tally][0], costs[tally][0], taken[tally][0]
            )
        return found


def days(first_day: str, last_day: str) -> Doc:
    """The condition for texts that begin with one of these days and a bar."""
    # '}' is what comes after the bar.
    return {"gte": first_day, "lt": f"{last_day}}}"}


def _facts(row: CallRow) -> Doc:
    # By what metrics group: only calls that were answered, which are those that used tokens.
    tally = f"{row.day}|{row.provider}|{row.model}" if row.tokens and not row.is_open else ""
    return {**{name: getattr(row, name) for name in _FIELDS}, "tally": tally}


def call_of(doc: Doc) -> CallRow:
    """The call that a document tells."""
    return CallRow(id=doc["_id"], **{name: doc[name] for name in _FIELDS})
