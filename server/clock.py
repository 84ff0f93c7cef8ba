"""The server's time (LEDGER 4): starts at the wall's or at the last stored instant, never goes back, follows the wall slowly."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

#: Nanoseconds that the clock may gain or lose a second while it follows the wall: 500 ppm, as NTP slews.
_SLEW_NS_PER_S: Final = 500_000
#: How long one rate is kept. Shorter, and the division rounds the correction away.
_STRETCH_NS: Final = 100_000_000
_NS_PER_MS: Final = 1_000_000


class SystemClock:
    """`billing_engine.clock.Clock` on the machine's clocks.

    A wall that jumps (an operator's hand, a resumed machine) does not move sessions: the difference is made up at 500 ppm, and
    `offset_ms` tells how much is left, so that `/readyz` can say so.
    """

    def __init__(
        self,
        *,
        not_before_ms: int = 0,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._from_monotonic_ns = monotonic_ns()
        self._from_ns = max(wall_ns(), not_before_ms * _NS_PER_MS)
        self._slew_ns_per_s = 0
        self._slew()

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC. Never lower than an earlier answer."""
        elapsed_ns = self._monotonic_ns() - self._from_monotonic_ns
        now_ns = self._from_ns + elapsed_ns + elapsed_ns * self._slew_ns_per_s // 1_000_000_000
        if elapsed_ns >= _STRETCH_NS:
            # From here on at a new rate: the line bends and never breaks.
            self._from_ns, self._from_monotonic_ns = now_ns, self._from_monotonic_ns + elapsed_ns
            self._slew()
        return now_ns // _NS_PER_MS

    def not_before(self, ms: int) -> None:
        """Go on from `ms` if the clock is behind it: the last stored instant, known once the store is open."""
        if self.now_ms() < ms:
            self._from_ns = ms * _NS_PER_MS
            self._from_monotonic_ns = self._monotonic_ns()
            self._slew()

    def offset_ms(self) -> int:
        """How far this clock is ahead of the wall; negative when behind."""
        return self.now_ms() - self._wall_ns() // _NS_PER_MS

    def call_at_ms(self, when_ms: int, callback: Callable[[], None]) -> "SystemTimer":
        """Run `callback` on the running loop at `when_ms` or just after, never before it."""
        return SystemTimer(self, when_ms, callback)

    def _slew(self) -> None:
        ahead_ns = self._from_ns - self._wall_ns()
        # What one second at this rate corrects; less when less is missing, so that it does not swing.
        self._slew_ns_per_s = max(-_SLEW_NS_PER_S, min(_SLEW_NS_PER_S, -ahead_ns))


class SystemTimer:
    """A pending callback on the event loop."""

    __slots__ = ("_callback", "_clock", "_handle", "_loop", "_when_ms")

    def __init__(self, clock: SystemClock, when_ms: int, callback: Callable[[], None]) -> None:
        self._clock = clock
        self._when_ms = when_ms
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.Handle = self._arm()

    def cancel(self) -> None:
        """Forget the callback; harmless when it already ran."""
        self._handle.cancel()

    def _arm(self) -> asyncio.Handle:
        left_ms = self._when_ms - self._clock.now_ms()
        return (
            self._loop.call_soon(self._callback)
            if left_ms <= 0
            else self._loop.call_later(left_ms / 1000, self._fire)
        )

    def _fire(self) -> None:
        # A loop's timer may be a hair early, and ours may have been slowed meanwhile: the callback must find its time come.
        if self._clock.now_ms() < self._when_ms:
            self._handle = self._arm()
        else:
            self._callback()
