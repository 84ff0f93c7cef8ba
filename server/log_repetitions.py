"""In an outage hundreds of sessions say the same, four times a second each: the first lines tell all, then a count does."""

import logging
import time
from collections.abc import Callable
from typing import Final, NamedTuple

#: Lines of one kind in one window; what comes beyond is counted.
MOST: Final = 20
WINDOW_S: Final = 10.0
#: Kinds remembered at once. Beyond it a line passes uncounted: better a loud log than one that grows in memory.
_KINDS: Final = 1_000


class Kind(NamedTuple):
    """Lines that say the same: their logger, level and text before the values are put in."""

    logger: str
    level: int
    text: str


class _Window:
    __slots__ = ("passed", "since_s", "withheld")

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.passed = 0
        self.withheld = 0


class Repetitions:
    """Decides which records are written. Only warnings and errors repeat themselves in an outage; what is below always passes."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._windows: dict[Kind, _Window] = {}

    def passes(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be written; if not, it is counted."""
        if record.levelno < logging.WARNING:
            return True
        kind = Kind(record.name, record.levelno, str(record.msg))
        window = self._windows.get(kind)
        if window is None:
            if len(self._windows) >= _KINDS:
                return True
            window = self._windows[kind] = _Window(self._now_s())
        if window.passed < MOST:
            window.passed += 1
            return True
        window.withheld += 1
        return False

    def over(self) -> list[tuple[Kind, int]]:
        """Windows that have ended since the last call, each with the number of lines that were withheld, if any."""
        if not self._windows:
            return []
        now_s = self._now_s()
        ended = [kind for kind, window in self._windows.items() if now_s - window.since_s >= WINDOW_S]
        counts = [(kind, self._windows.pop(kind).withheld) for kind in ended]
        return [(kind, withheld) for kind, withheld in counts if withheld]
