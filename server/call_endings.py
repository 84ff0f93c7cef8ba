"""A consultation has ended: so has its call, on the server's word."""

from billing_engine.consultations.model import SessionEvent
from billing_engine.consultations.ports import Announcer
from chat.calls.service import CallService

_ENDED = "session:ended"


class CallEndings:
    """An `Announcer` before another one. What is missed here, `CallService.look` finds."""

    def __init__(self, following: Announcer, calls: CallService) -> None:
        self._following = following
        self._calls = calls

    def announce(self, event: SessionEvent) -> None:
        self._following.announce(event)
        if event.name == _ENDED:
            self._calls.session_ended(event.view.session.id)

    async def stop(self) -> None:
        """Wait until what was begun is stored and told."""
        await self._calls.settled()
