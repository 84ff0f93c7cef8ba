"""The events of one connection, in the order in which they came.

The library runs every event in a task of its own, so two quick messages can overtake each other. Here the
first statement of handling an event is a place in this queue; one worker takes them out. "In order" means in
order of *submission*: pipelined work is started in turn and finishes when it finishes. What must not overlap
waits for all that was started before it and holds up all that comes after.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from chat.errors import RateLimited
from chat.event_types import Turn

Work = Callable[[], Awaitable[Any]]

#: Events that may wait to be started, and that may be under way.
WAITING: Final = 64
UNDER_WAY: Final = 256
#: What the sender of a refused event is asked to wait: about what a full inbox takes.
_RETRY_AFTER_MS: Final = 500


class Inbox:
    """A bounded queue with one worker, which exists only while there is something to do."""

    def __init__(self, *, waiting: int = WAITING, under_way: int = UNDER_WAY) -> None:
        self._waiting_limit = waiting
        self._under_way_limit = under_way
        self._waiting: deque[tuple[Work, Turn, asyncio.Future[Any]]] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._worker: asyncio.Task[None] | None = None
        self._space: asyncio.Event | None = None

    def put(self, work: Work, turn: Turn) -> "asyncio.Future[Any]":
        """Queue the work; the future gets what it returns or raises. Raises `RateLimited` when too much
        waits.

        The work is done even if nobody waits for the future any more: a message that was taken is stored,
        whether or not its sender is still there to hear so.
        """
        if len(self._waiting) >= self._waiting_limit:
            raise RateLimited(waiting=len(self._waiting), retry_after_ms=_RETRY_AFTER_MS)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._worker is None and turn is Turn.PIPELINED and len(self._under_way) < self._under_way_limit:
            self._start(work, future)  # nothing is before it that it has to wait for
            return future
        self._waiting.append((work, turn, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return future

    async def space(self, patience_s: float) -> None:
        """Return once there is room, or when patience ends. Whoever reads the socket waits here, so a quick
        client is slowed down by its own connection instead of being refused.
        """
        if len(self._waiting) < self._waiting_limit:
            return
        self._space = self._space or asyncio.Event()
        try:
            async with asyncio.timeout(patience_s):
                await self._space.wait()
        except TimeoutError:
            return

    async def idle(self) -> None:
        """Return once everything that was taken is done."""
        while self._worker is not None or self._under_way:
            await asyncio.wait({*self._under_way, *([self._worker] if self._worker else [])})

    async def _work(self) -> None:
        try:
            while self._waiting:
                work, turn, future = self._waiting.popleft()
                if self._space is not None:
                    self._space.set()
                    self._space = None
                if turn is Turn.ALONE:
                    while self._under_way:
                        await asyncio.wait(self._under_way)
                    await _settle(work, future)
                    continue
                while len(self._under_way) >= self._under_way_limit:
                    await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
                self._start(work, future)
        finally:
            self._worker = None

    def _start(self, work: Work, future: "asyncio.Future[Any]") -> None:
        # Tasks start in the order of their creation, and the store queues a write before it first waits.
        task = asyncio.create_task(_settle(work, future))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)


async def _settle(work: Work, future: "asyncio.Future[Any]") -> None:
    """Run the work and tell whoever waits. Never raises, or the worker would end and its connection fall
    silent.
    """
    try:
        value = await work()
    except Exception as exc:  # noqa: BLE001  it belongs to whoever waits for the future
        if not future.done():
            future.set_exception(exc)
        # Nobody may be left to ask; it was raised to the one place that logs.
        if not future.cancelled():
            future.exception()
    else:
        if not future.done():
            future.set_result(value)
