"""Time that moves when the test says so."""

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count


@dataclass(order=True)
class ManualTimer:
    """A pending callback of the manual clock."""

    when_ms: int
    order: int
    callback: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


async def turns() -> None:
    """Let the loop run what is ready: enough for code that awaits nothing outside the loop."""
    for _ in range(20):
        await asyncio.sleep(0)


class ManualClock:
    """`billing_engine.clock.Clock` for tests. Starts at a fixed instant of January 2026."""

    def __init__(self, now_ms: int = 1_767_225_600_000) -> None:
        self._now_ms = now_ms
        self._timers: list[ManualTimer] = []
        self._order = count()

    def now_ms(self) -> int:
        return self._now_ms

    def call_at_ms(self, when_ms: int, callback: Callable[[], None]) -> ManualTimer:
        timer = ManualTimer(when_ms, next(self._order), callback)
        heapq.heappush(self._timers, timer)
        return timer

    async def advance_ms(self, duration_ms: int, *, idle: Callable[[], Awaitable[None]] = turns) -> None:
        """Move on by `duration_ms`, stopping at every timer on the way: each fires at its own instant, and `idle` waits until
        what it started has come to rest."""
        target_ms = self._now_ms + duration_ms
        await idle()
        while True:
            while self._timers and self._timers[0].cancelled:
                heapq.heappop(self._timers)
            if not self._timers or self._timers[0].when_ms > target_ms:
                break
            self._now_ms = max(self._now_ms, self._timers[0].when_ms)
            while self._timers and self._timers[0].when_ms <= self._now_ms:
                timer = heapq.heappop(self._timers)
                if not timer.cancelled:
                    timer.callback()
            await idle()
        self._now_ms = target_ms
        await idle()

    def jump_ms(self, duration_ms: int) -> None:
        """Move on without firing anything: the time in which no process ran."""
        self._now_ms += duration_ms
