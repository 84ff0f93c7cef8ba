"""Time as the engine sees it: whole milliseconds since the Unix epoch, UTC, never backwards."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Timer(Protocol):
    """A pending callback."""

    def cancel(self) -> None:
        """Forget the callback; harmless when it already ran."""
        ...


class Clock(Protocol):
    """The one source of time. Tests pass `ManualClock`; the server passes `SystemClock`."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC. Never lower than an earlier answer."""
        ...

    def call_at_ms(self, when_ms: int, callback: Callable[[], None]) -> Timer:
        """Run `callback` on the event loop at `when_ms`, or on the next turn if that has passed."""
        ...


@dataclass(frozen=True, slots=True)
class Moment:
    """When something is written: the instant, and the local day of it that it is booked on."""

    at_ms: int
    day: str
