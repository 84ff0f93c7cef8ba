"""Stand-ins for what the people room asks of others."""

from collections.abc import Callable

from billing_engine.clock import Timer


class ManualClock:
    """A clock that moves when told."""

    def __init__(self, now_ms: int = 1_760_000_000_000) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def advance(self, ms: int) -> None:
        self._now_ms += ms

    def call_at_ms(self, when_ms: int, callback: Callable[[], None]) -> Timer:
        raise NotImplementedError((when_ms, callback))  # nothing in the people room waits
