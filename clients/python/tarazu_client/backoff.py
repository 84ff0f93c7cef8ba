"""How long to wait before the next attempt: doubling, and drawn anew by each client, so that a crowd does not come back at once."""

import random
from collections.abc import Callable
from typing import Final

FIRST_S: Final = 0.5
CAP_S: Final = 15.0


class Backoff:
    """Full jitter: anything from nothing to the present limit, which doubles up to a cap. `draw` gives numbers in [0, 1)."""

    def __init__(
        self, first_s: float = FIRST_S, cap_s: float = CAP_S, draw: Callable[[], float] = random.random
    ) -> None:
        self._first_s = first_s
        self._cap_s = cap_s
        self._draw = draw
        self._limit_s = first_s

    def next_s(self) -> float:
        limit_s = self._limit_s
        self._limit_s = min(2 * limit_s, self._cap_s)
        return self._draw() * limit_s

    def after_s(self, retry_after_ms: float | None) -> float:
        """What the server asked for and up to as much again; without a word of it, our own next one."""
        if retry_after_ms is None:
            return self.next_s()
        return retry_after_ms / 1000 * (1 + self._draw())

    def reset(self) -> None:
        """It worked."""
        self._limit_s = self._first_s
