"""Billing's question to the chat: who is looking at a session."""

from collections.abc import Sequence

from chat.presence import OFFLINE, Presence
from server.realtime.bus import Bus


class SocketAttendance:
    """Billing's `Attendance` port over the presence of sockets, of this process and, over the bus, of the others."""

    def __init__(self, presence: Presence, *, bus: Bus | None, is_shared: bool) -> None:
        self._presence = presence
        self._bus = bus
        self._is_shared = is_shared

    async def absent(self, session_id: str, people: Sequence[str]) -> frozenset[str]:
        if self._is_shared and (self._bus is None or not self._bus.connected):
            # Who is at another process cannot be known.
            return frozenset()
        states = await self._presence.of(session_id, people)
        return frozenset(person for person, state in states.items() if state == OFFLINE)
