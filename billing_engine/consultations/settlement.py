"""What follows the ledger's closing entry, each step idempotent: timeline, conversation, session row, claims, locks.

The entry fixed the outcome; nothing here computes money again. The order is what heals a crash between two steps: a row that is
not final yet makes recovery run all of them once more, and a claim of a final row makes it run the last ones.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from billing_engine.consultations.model import (
    LAST_STEP,
    EndReason,
    Session,
    Status,
    TimelineRow,
    states_before,
)
from billing_engine.consultations.ports import Claims, Locks, Rooms, Sessions, Timeline
from billing_engine.errors import Unavailable
from billing_engine.ledger.model import Entry

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settlement:
    """The collaborators of a session's end and of a start that is given back."""

    sessions: Sessions
    timeline: Timeline
    rooms: Rooms
    claims: Claims
    locks: Locks
    #: Called with each lawyer who was freed. A hint to look who is next: never waits, never raises.
    on_freed: list[Callable[[str], None]] = field(default_factory=list)

    async def record(self, session: Session, entry: Entry) -> bool:
        """Complete the timeline, close the conversation, then make the session's record final; whether this call did that."""
        await self.timeline.add(trail_rows(session.id, entry.facts["trail"]))
        await self.rooms.close(session.id, at_ms=entry.facts["endedAt"])
        ended = ended_record(session, entry)
        expect = states_before(LAST_STEP[ended.status])
        return await self.sessions.move(session.id, expect=expect, to=ended)

    async def release(self, session: Session) -> None:
        """Free both people: claims first, then the locks that only mirror them and expire by themselves."""
        await self.claims.release(user_claim(session.user_id), session.id)
        await self.claims.release(lawyer_claim(session.lawyer_id), session.id)
        try:
            await self.locks.release(lock_names(session.user_id, session.lawyer_id), session.id)
        except Unavailable as exc:
            log.warning("locks do not answer; they will expire: %r", exc, extra={"session_id": session.id})
        for freed in self.on_freed:
            freed(session.lawyer_id)


def ended_record(session: Session, entry: Entry) -> Session:
    """The session's record as its closing entry tells it."""
    facts = entry.facts
    return replace(
        session,
        status=Status(facts["status"]),
        started_at_ms=facts["startedAt"],
        ended_at_ms=facts["endedAt"],
        end_reason=EndReason(facts["reason"]),
        duration_s=facts["durationS"],
        total_minor=facts["gross"],
        commission_minor=facts["commission"],
    )


def trail_rows(session_id: str, trail: object) -> list[TimelineRow]:
    """Timeline rows of what a hold or an entry carries."""
    return [TimelineRow(session_id, k, at_ms, event, reason) for k, at_ms, event, reason in trail]  # type: ignore[attr-defined]


def user_claim(user_id: str) -> str:
    return f"user:{user_id}"


def lawyer_claim(lawyer_id: str) -> str:
    return f"lawyer:{lawyer_id}"


def lock_names(user_id: str, lawyer_id: str) -> tuple[str, str]:
    """The two locks of SPEC 5, taken together or not at all."""
    return f"lock:user:{user_id}", f"lock:lawyer:{lawyer_id}"
