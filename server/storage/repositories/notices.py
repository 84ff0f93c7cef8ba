"""`OutboxRows` over one collection."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from server.notifications.model import Kind, Notice, State
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

NOTICES: Final = CollectionSpec(
    name="notices",
    text=("state", "user_id", "kind"),
    integer=("next_at_ms", "attempts", "created_at_ms"),
    indexes=(("state", "next_at_ms"), ("state", "created_at_ms")),
)
#: How much of a failure's words is kept.
_PROBLEM: Final = 300


class CollectionNotices:
    """One document a notice."""

    def __init__(self, collection: Collection) -> None:
        self._rows = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionNotices":
        return cls(await collections.open(NOTICES))

    async def add(self, notice: Notice) -> None:
        with suppress(DuplicateId):
            await self._rows.insert(_doc(notice))

    async def due(self, now_ms: int, *, limit: int) -> list[Notice]:
        where = {"state": State.PENDING.value, "next_at_ms": {"lte": now_ms}}
        return [
            _notice(doc) for doc in await self._rows.find(where, sort=(("next_at_ms", "asc"),), limit=limit)
        ]

    async def next_at_ms(self) -> int | None:
        found = await self._rows.find({"state": State.PENDING.value}, sort=(("next_at_ms", "asc"),), limit=1)
        return found[0]["next_at_ms"] if found else None

    async def begin(self, notice: Notice, *, until_ms: int) -> Notice | None:
        doc = await self._rows.update(
            notice.id,
            where={
                "state": State.PENDING.value,
                "next_at_ms": notice.next_at_ms,
                "attempts": notice.attempts,
            },
            set_={"next_at_ms": until_ms},
            inc={"attempts": 1},
        )
        return None if doc is None else _notice(doc)

    async def again(self, notice: Notice, *, at_ms: int, problem: str) -> None:
        await self._write(notice, {"next_at_ms": at_ms, "problem": problem[:_PROBLEM]})

    async def sent(self, notice: Notice) -> None:
        await self._write(notice, {"state": State.SENT.value, "email": None, "facts": {}, "problem": None})

    async def dead(self, notice: Notice, *, problem: str) -> None:
        await self._write(
            notice, {"state": State.DEAD.value, "email": None, "facts": {}, "problem": problem[:_PROBLEM]}
        )

    async def drop(self, notice: Notice) -> None:
        await self._rows.delete(notice.id, where={"state": State.PENDING.value})

    async def drop_settled(self, *, before_ms: int, limit: int) -> int:
        dropped = 0
        for state in (State.SENT, State.DEAD):
            if dropped >= limit:
                break
            where = {"state": state.value, "created_at_ms": {"lt": before_ms}}
            old = await self._rows.find(where, sort=(("created_at_ms", "asc"),), limit=limit - dropped)
            for doc in old:
                await self._rows.delete(doc["_id"])
            dropped += len(old)
        return dropped

    async def _write(self, notice: Notice, change: Mapping[str, Any]) -> None:
        """For the attempt that `notice` is: one that was overtaken writes nothing."""
        await self._rows.update(
            notice.id, where={"state": State.PENDING.value, "attempts": notice.attempts}, set_=change
        )


def _doc(notice: Notice) -> Doc:
    return {
        "_id": notice.id,
        "kind": notice.kind.value,
        "created_at_ms": notice.created_at_ms,
        "next_at_ms": notice.next_at_ms,
        "give_up_at_ms": notice.give_up_at_ms,
        "user_id": notice.user_id,
        "email": notice.email,
        "facts": dict(notice.facts),
        "state": notice.state.value,
        "attempts": notice.attempts,
        "problem": notice.problem,
    }


def _notice(doc: Doc) -> Notice:
    return Notice(
        id=doc["_id"],
        kind=Kind(doc["kind"]),
        created_at_ms=doc["created_at_ms"],
        next_at_ms=doc["next_at_ms"],
        give_up_at_ms=doc["give_up_at_ms"],
        user_id=doc["user_id"],
        email=doc["email"],
        facts=doc["facts"],
        state=State(doc["state"]),
        attempts=doc["attempts"],
        problem=doc["problem"],
    )
