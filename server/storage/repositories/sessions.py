"""`Sessions` of the consultations room, over one collection."""

from collections.abc import Sequence
from dataclasses import MISSING, fields
from enum import StrEnum
from typing import Any, Final

from billing_engine.consultations.model import ASKED, LIVE, VISIBLE, EndReason, Session, Status
from billing_engine.errors import InvariantBroken
from server.admin.model import SessionFilter
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

SESSIONS: Final = CollectionSpec(
    name="consult_sessions",
    text=("user_id", "lawyer_id", "status", "end_reason"),
    integer=("created_at_ms",),
    indexes=(
        ("user_id", "created_at_ms"),
        ("lawyer_id", "created_at_ms"),
        ("status", "created_at_ms"),
        ("end_reason", "created_at_ms"),
        ("created_at_ms",),
    ),
)

_UNFINISHED: Final = frozenset({*LIVE, Status.STARTING, Status.ACCEPTED})
_VISIBLE: Final = sorted(status.value for status in VISIBLE)
_PAGE: Final = 1_000
_FIELDS: Final = tuple(field.name for field in fields(Session) if field.name != "id")
#: Fields that older records lack, and what they mean there.
_DEFAULTS: Final = {field.name: field.default for field in fields(Session) if field.default is not MISSING}


class CollectionSessions:
    """The session records. A status moves by one conditional update, never by read-then-write."""

    def __init__(self, collection: Collection) -> None:
        self._sessions = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionSessions":
        return cls(await collections.open(SESSIONS))

    async def add(self, session: Session) -> bool:
        try:
            await self._sessions.insert({"_id": session.id, **_facts(session)})
        except DuplicateId:
            return False
        return True

    async def get(self, session_id: str) -> Session | None:
        doc = await self._sessions.get(session_id)
        return None if doc is None else session_of(doc)

    async def move(self, session_id: str, *, expect: frozenset[Status], to: Session) -> bool:
        if to.id != session_id:
            raise InvariantBroken(session=session_id, moved_to=to.id)
        expected = sorted(status.value for status in expect)
        moved = await self._sessions.update(session_id, where={"status": {"in": expected}}, set_=_facts(to))
        return moved is not None

    async def change(self, session_id: str, *, expect: frozenset[Status], **changes: Any) -> Session | None:
        plain = {
            name: value.value if isinstance(value, StrEnum) else value for name, value in changes.items()
        }
        expected = sorted(status.value for status in expect)
        changed = await self._sessions.update(session_id, where={"status": {"in": expected}}, set_=plain)
        return None if changed is None else session_of(changed)

    async def get_many(self, session_ids: Sequence[str]) -> dict[str, Session]:
        found = await self._sessions.get_many(session_ids)
        return {id_: session_of(doc) for id_, doc in found.items()}

    async def unfinished(self) -> list[Session]:
        return await self.in_states(_UNFINISHED)

    async def starting(self) -> list[Session]:
        return await self.in_states(frozenset({Status.STARTING}))

    async def newest_of_lawyer(self, lawyer_id: str, *, limit: int) -> list[Session]:
        page = await self._sessions.find(
            {"lawyer_id": lawyer_id}, sort=(("created_at_ms", "desc"),), limit=limit
        )
        return [session_of(doc) for doc in page]

    async def in_states(self, statuses: frozenset[Status]) -> list[Session]:
        named = sorted(status.value for status in statuses)
        found: list[Session] = []
        after: tuple[int, str] | None = None
        while True:
            # Recovery must see every one of them, however many: page to the end.
            page = await self._sessions.find(
                {"status": {"in": named}}, sort=(("created_at_ms", "asc"),), limit=_PAGE, after=after
            )
            found += map(session_of, page)
            if len(page) < _PAGE:
                return found
            after = (found[-1].created_at_ms, found[-1].id)

    async def list_for(self, person_id: str, *, limit: int, before: tuple[int, str] | None) -> list[Session]:
        """Two indexed reads, merged: the port has no OR, and a list field would cost a row for each
        party.
        """
        mine: dict[str, Session] = {}
        for side in ("user_id", "lawyer_id"):
            page = await self._sessions.find(
                {side: person_id, "status": {"in": _VISIBLE}},
                sort=(("created_at_ms", "desc"),),
                limit=limit,
                after=before,
            )
            mine |= {doc["_id"]: session_of(doc) for doc in page}
        newest_first = sorted(mine.values(), key=lambda one: (one.created_at_ms, one.id), reverse=True)
        return newest_first[:limit]

    async def newest(
        self, wanted: SessionFilter, *, limit: int, before: tuple[int, str] | None
    ) -> list[Session]:
        """By the person, else the reason, else the status, else by time alone: one index each, whatever else is asked for."""
        where: Doc = {}
        if wanted.user_id is not None:
            where["user_id"] = wanted.user_id
        elif wanted.lawyer_id is not None:
            where["lawyer_id"] = wanted.lawyer_id
        elif wanted.reason is not None:
            where["end_reason"] = wanted.reason.value
        elif wanted.status in LIVE:
            # The record of a paused one says ACTIVE; its bill knows.
            where["status"] = {"in": sorted(status.value for status in LIVE)}
        elif wanted.status is Status.REQUESTED:
            # So is one shown whose lawyer has accepted and whose people are on their way.
            where["status"] = {"in": sorted(status.value for status in ASKED)}
        elif wanted.status is not None:
            where["status"] = wanted.status.value
        span = {"gte": wanted.from_ms, "lt": wanted.to_ms}
        if bounds := {operator: value for operator, value in span.items() if value is not None}:
            where["created_at_ms"] = bounds
        page = await self._sessions.find(where, sort=(("created_at_ms", "desc"),), limit=limit, after=before)
        return [session_of(doc) for doc in page]

    async def count_of(self, person_id: str) -> int:
        """Two indexes, one for each side; nobody is both."""
        return sum(
            [
                await self._sessions.count(
                    {side: person_id, "status": {"in": [*_VISIBLE, Status.STARTING.value]}}
                )
                for side in ("user_id", "lawyer_id")
            ]
        )


def _facts(session: Session) -> Doc:
    """The record without its id. StrEnums become plain strings, which every driver can store."""
    facts = {name: getattr(session, name) for name in _FIELDS}
    facts["status"] = session.status.value
    facts["end_reason"] = None if session.end_reason is None else session.end_reason.value
    return facts


def session_of(doc: Doc) -> Session:
    """The stored document as the domain knows it."""
    facts = {name: doc.get(name, _DEFAULTS[name]) if name in _DEFAULTS else doc[name] for name in _FIELDS}
    facts["asked"] = bool(facts["asked"])
    facts["status"] = Status(doc["status"])
    facts["end_reason"] = None if doc["end_reason"] is None else EndReason(doc["end_reason"])
    return Session(id=doc["_id"], **facts)
