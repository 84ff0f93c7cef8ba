"""An allowance, and the arithmetic of using it up: no clock and no I/O.

One instant says all that a key has used: *full at*, when its allowance will be whole again. Each use moves it on by one
interval; a use that would move it further than the whole period ahead of now is refused (the generic cell rate algorithm).
So `10/minute` means ten at once, then one every six seconds, and a refusal knows to the millisecond when to come again.
"""

import re
from dataclasses import dataclass
from typing import Final

_UNITS_MS: Final = {"second": 1_000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
_TEXT: Final = re.compile(r"([0-9]{1,6})/([0-9]{1,3})?(second|minute|hour|day)s?")
#: What a setting says to switch a limit off.
OFF: Final = "off"


@dataclass(frozen=True, slots=True)
class Allowance:
    """`count` uses in `period_ms`."""

    count: int
    period_ms: int

    @property
    def interval_ms(self) -> int:
        """How long one use takes to come back."""
        return max(1, self.period_ms // self.count)

    def after_use(self, full_at_ms: int | None, now_ms: int) -> int | None:
        """The new *full at* with one more use, None if it is refused."""
        after_ms = max(now_ms, full_at_ms or 0) + self.interval_ms
        return after_ms if after_ms - now_ms <= self.interval_ms * self.count else None

    def after_return(self, full_at_ms: int) -> int:
        """The new *full at* with one use less."""
        return full_at_ms - self.interval_ms

    def wait_ms(self, full_at_ms: int, now_ms: int) -> int:
        """How long until a use that is refused now is granted."""
        return max(0, full_at_ms + self.interval_ms - self.interval_ms * self.count - now_ms)


def parse_allowance(text: str) -> Allowance | None:
    """`10/minute`, `100/2hours`; None for `off`. Raises `ValueError` for anything else."""
    if text == OFF:
        return None
    match = _TEXT.fullmatch(text)
    if match is None or int(match[1]) == 0 or match[2] == "0":
        raise ValueError(f"{text!r} is no rate such as 10/minute, 100/2hours or off")
    return Allowance(int(match[1]), int(match[2] or 1) * _UNITS_MS[match[3]])
