"""Who is connected to the sessions of one process: the real presence, on the test's clock, and a switch for what is not known."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from billing_engine.consultations.attendance import Whereabouts
from chat.presence import Presence
from server.attending import PresenceAttending
from tests.support.manual_clock import ManualClock, ManualTimer


class _Nobody:
    """Clients that hear nothing."""

    def to_session(self, *_args: Any, **_more: Any) -> None: ...


class Sockets:
    """Billing's `Attending`. People come and go by name, any number of times."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.is_known = True
        self.asked = 0

        def later(delay_s: float, callback: Callable[[], None]) -> ManualTimer:
            return clock.call_at_ms(clock.now_ms() + round(delay_s * 1000), callback)

        self.presence = Presence(push=_Nobody(), later=later, now_ms=clock.now_ms)  # type: ignore[arg-type]
        self._attending = PresenceAttending(self.presence)

    def come(self, person_id: str, session_id: str = "s1") -> None:
        self.presence.entered(session_id, person_id)

    def go(self, person_id: str, session_id: str = "s1", *, ago_s: float = 0) -> None:
        self.presence.left(session_id, person_id, ago_s=ago_s)

    async def of(self, session_id: str, people: Sequence[str]) -> Mapping[str, Whereabouts]:
        self.asked += 1
        if not self.is_known:
            return dict.fromkeys(people)
        return await self._attending.of(session_id, people)
