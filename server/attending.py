"""Billing's question who is connected to a session, answered by the chat's presence."""

from collections.abc import Mapping, Sequence

from billing_engine.consultations.attendance import PRESENT, GoneSince, Whereabouts
from chat.presence import Presence
from chat.whereabouts import HERE, NO_TRACE
from chat.whereabouts import Whereabouts as Seen


class PresenceAttending:
    """`billing_engine.consultations.ports.Attending`."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence

    async def of(self, session_id: str, people: Sequence[str]) -> Mapping[str, Whereabouts]:
        seen = await self._presence.whereabouts(session_id, people)
        return {person: _where(where) for person, where in seen.items()}


def _where(seen: Seen) -> Whereabouts:
    if seen is None:
        return None
    if seen == HERE:
        return PRESENT
    return GoneSince(None if seen == NO_TRACE else int(seen))
