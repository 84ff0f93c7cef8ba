"""`Timeline` of the consultations room: rows with ids made from their place, so that redo repeats
nothing.
"""

from typing import Final

from billing_engine.consultations.model import TimelineRow
from billing_engine.errors import InvariantBroken
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

TIMELINE: Final = CollectionSpec(
    name="timeline", text=("session_id",), integer=("k",), indexes=(("session_id", "k"),)
)

_PAGE: Final = 1_000


class CollectionTimeline:
    """What happened in a session, in order. The bill can be recomputed from it, so a row never changes."""

    def __init__(self, collection: Collection) -> None:
        self._rows = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionTimeline":
        return cls(await collections.open(TIMELINE))

    async def add(self, rows: list[TimelineRow]) -> None:
        """One after the other: a crash leaves a beginning of the story, never a hole in it.

        Raises:
            InvariantBroken: the place is taken by another row; the first one stays.
        """
        for row in rows:
            doc = _doc(row)
            try:
                await self._rows.insert(doc)
            except DuplicateId as exc:
                stored = await self._rows.get(doc["_id"])
                if stored != doc:
                    raise InvariantBroken(timeline=doc["_id"], stored=stored, offered=doc) from exc

    async def of(self, session_id: str) -> list[TimelineRow]:
        found: list[TimelineRow] = []
        after: tuple[int, str] | None = None
        while True:
            page = await self._rows.find(
                {"session_id": session_id}, sort=(("k", "asc"),), limit=_PAGE, after=after
            )
            found += map(row_of_doc, page)
            if len(page) < _PAGE:
                return found
            after = (page[-1]["k"], page[-1]["_id"])


def _doc(row: TimelineRow) -> Doc:
    return {
        "_id": f"{row.session_id}:{row.k:06d}",
        "session_id": row.session_id,
        "k": row.k,
        "at_ms": row.at_ms,
        "event": row.event,
        "reason": row.reason,
    }


def row_of_doc(doc: Doc) -> TimelineRow:
    """The stored document as the domain knows it."""
    return TimelineRow(
        session_id=doc["session_id"], k=doc["k"], at_ms=doc["at_ms"], event=doc["event"], reason=doc["reason"]
    )
