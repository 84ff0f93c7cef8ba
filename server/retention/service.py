"""How long what was said in a chat is kept (SPEC 14). Money and the timeline are kept for ever.

A conversation ends with its session; so many days later the bodies of its messages are erased. Their places, senders and
instants stay: the sequence has no gap, and what was billed can be recomputed. One round is small, so that it never delays
those who are being served; the housekeeping runs rounds until there is nothing left.
"""

from typing import Final

from billing_engine.clock import Clock
from server.retention.ports import ErasableMessages

_DAY_MS: Final = 86_400_000
#: Messages of one round: some milliseconds of the writer's time.
_ROUND: Final = 200


class ChatRetention:
    """Erases what is older than it may be. `days` 0 keeps everything."""

    def __init__(self, messages: ErasableMessages, clock: Clock, *, days: int) -> None:
        self._messages = messages
        self._clock = clock
        self._days = days

    async def round(self) -> int:
        """One round of erasing; how much it did. Raises `Unavailable`."""
        now_ms = self._clock.now_ms()
        return await self._messages.erase_closed(
            # Without a limit nothing is old enough; what an earlier setting began is still finished.
            closed_before_ms=now_ms - self._days * _DAY_MS if self._days else 0,
            at_ms=now_ms,
            limit=_ROUND,
        )
