"""When who has left a room gave the last sign of life: what is asked for when it counts how long somebody has been gone."""

from collections.abc import Callable
from typing import Final

#: Nobody asks for an older sign: who was gone for so long is gone.
KEEP_S: Final = 180.0

#: Is there; or gave the last sign at that instant (epoch ms; `NO_TRACE`: nobody remembers any); or nobody can tell (None).
HERE: Final = "here"
NO_TRACE: Final = 0
Whereabouts = str | int | None


class Signs:
    """The last signs of life of those who left through this process, for a while. Instants in epoch ms."""

    def __init__(self, now_ms: Callable[[], int], *, keep_s: float = KEEP_S) -> None:
        self._now_ms = now_ms
        self._keep_ms = round(keep_s * 1000)
        #: Oldest note first.
        self._signs: dict[tuple[str, str], int] = {}

    def note(self, key: tuple[str, str], ago_s: float) -> None:
        """One of the person's sockets has left, and was heard so long ago. The latest sign of all of them counts."""
        now_ms = self._now_ms()
        sign_ms = max(now_ms - round(ago_s * 1000), self._signs.pop(key, NO_TRACE))
        self._signs[key] = sign_ms
        self._forget(now_ms)

    def of(self, key: tuple[str, str]) -> int:
        """The person's last sign in the room, else `NO_TRACE`."""
        sign_ms = self._signs.get(key, NO_TRACE)
        return sign_ms if sign_ms > self._now_ms() - self._keep_ms else NO_TRACE

    def _forget(self, now_ms: int) -> None:
        """Those at the front that are old: a note is never older than its neighbours by more than a silence that is cut."""
        while self._signs:
            oldest = next(iter(self._signs))
            if self._signs[oldest] > now_ms - self._keep_ms:
                return
            del self._signs[oldest]
