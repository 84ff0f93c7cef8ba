"""`Buckets` inside one process. Every step is O(1), which a stranger who makes up keys cannot change."""

from collections import OrderedDict
from typing import Final

from billing_engine.clock import Clock
from server.rate_limits.model import Allowance

#: About 20 MB. Beyond it keys are forgotten, whole or not.
MAX_KEYS: Final = 100_000
#: Keys looked at with each use, to drop those that are whole again.
_SWEPT: Final = 2


class MemoryBuckets:
    """One instant a key, in the order in which they will be looked at again."""

    def __init__(self, clock: Clock, *, max_keys: int = MAX_KEYS) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._full_at_ms: OrderedDict[str, int] = OrderedDict()

    async def take(self, key: str, allowance: Allowance) -> int:
        now_ms = self._clock.now_ms()
        known_ms = self._full_at_ms.get(key)
        after_ms = allowance.after_use(known_ms, now_ms)
        if after_ms is None:
            return allowance.wait_ms(known_ms or 0, now_ms)
        self._full_at_ms[key] = after_ms
        self._full_at_ms.move_to_end(key)
        self._forget(now_ms)
        return 0

    async def give_back(self, key: str, allowance: Allowance) -> None:
        known_ms = self._full_at_ms.get(key)
        if known_ms is not None:
            self._full_at_ms[key] = allowance.after_return(known_ms)

    async def clear(self, key: str) -> None:
        self._full_at_ms.pop(key, None)

    def __len__(self) -> int:
        """Keys that are remembered."""
        return len(self._full_at_ms)

    def _forget(self, now_ms: int) -> None:
        for _ in range(_SWEPT):
            key, full_at_ms = next(iter(self._full_at_ms.items()))
            if full_at_ms > now_ms and len(self._full_at_ms) <= self._max_keys:
                # Not whole yet: to the back, so that the next look finds another one. Whoever keeps trying stays behind it.
                self._full_at_ms.move_to_end(key)
            else:
                del self._full_at_ms[key]
            if not self._full_at_ms:
                return
