"""A running consultation is about to end for want of money, and its user looks at no device: tell them otherwise."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from billing_engine.consultations.model import SessionEvent
from billing_engine.consultations.ports import Announcer
from billing_engine.errors import Unavailable
from server.notifications.model import Kind
from server.notifications.outbox import Outbox

log = logging.getLogger(__name__)
LOW_BALANCE: Final = "session:low_balance"
#: Later the session has ended, and the letter would only confuse.
_LIFETIME_MS: Final = 120_000


class LowBalanceNotices:
    """An `Announcer` before another one. One letter a session, and only to somebody who is not connected."""

    def __init__(
        self, following: Announcer, outbox: Outbox, is_connected: Callable[[str], Awaitable[bool]]
    ) -> None:
        self._following = following
        self._outbox = outbox
        self._is_connected = is_connected
        self._tasks: set[asyncio.Task[None]] = set()

    def announce(self, event: SessionEvent) -> None:
        self._following.announce(event)
        if event.name == LOW_BALANCE:
            task = asyncio.create_task(self._tell(event))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Wait until what was begun is stored."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _tell(self, event: SessionEvent) -> None:
        session = event.view.session
        if await self._is_connected(session.user_id):
            return
        try:
            await self._outbox.post(
                Kind.LOW_BALANCE,
                id_=f"low-balance:{session.id}",
                user_id=session.user_id,
                facts={"sessionId": session.id, "remainingSeconds": event.view.remaining_s},
                lifetime_ms=_LIFETIME_MS,
            )
        except Unavailable as exc:
            # A convenience: the session itself warns again, and ends exactly when it is paid for.
            log.warning("nobody is told of a low balance: %r", exc, extra={"session_id": session.id})
