"""What waits for the writer: three bounded lanes, taken in order, none of them ever starved."""

from asyncio import Future
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from sqlite3 import Connection
from typing import Any, Final

#: One piece of work for the writer and the future of the caller who waits for it.
Item = tuple[Callable[[Connection], Any], Future[Any]]


class Lane(StrEnum):
    """Who goes first when the writer has more to do than one commit holds."""

    LEDGER = "ledger"
    MESSAGES = "messages"
    REST = "rest"


#: Tenths of a round that a lane is sure to get. What one lane leaves free, the next may use.
SHARES: Final = {Lane.LEDGER: 5, Lane.MESSAGES: 3, Lane.REST: 2}


class Lanes:
    """Filled by the event loop, emptied by the writer thread: a deque's two ends need no lock."""

    def __init__(self, *, lane_limit: int, round_limit: int) -> None:
        self._lane_limit = lane_limit
        self._round_limit = round_limit
        self._queues: dict[Lane, deque[Item]] = {lane: deque() for lane in Lane}
        self._shares = [
            (self._queues[lane], max(1, round_limit * tenths // 10)) for lane, tenths in SHARES.items()
        ]

    def put(self, lane: Lane, item: Item) -> bool:
        """Whether there was room for `item`."""
        queue = self._queues[lane]
        if len(queue) >= self._lane_limit:
            return False
        queue.append(item)
        return True

    def take(self) -> deque[Item]:
        """The next round: the ledger's first, each lane in order, something of every lane that waits."""
        counts = [min(len(queue), share) for queue, share in self._shares]
        spare = self._round_limit - sum(counts)
        taken: deque[Item] = deque()
        for (queue, _share), sure in zip(self._shares, counts, strict=True):
            extra = max(0, min(len(queue) - sure, spare))
            spare -= extra
            taken.extend(queue.popleft() for _ in range(sure + extra))
        return taken

    def depth(self, lane: Lane) -> int:
        """How many items wait in `lane`."""
        return len(self._queues[lane])

    def __bool__(self) -> bool:
        return any(self._queues.values())
