"""A task that does what is due, and sleeps until the next is, or until somebody says that there is something new."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from billing_engine.clock import Clock
from billing_engine.errors import Unavailable
from billing_engine.stopping import stop_tasks

log = logging.getLogger(__name__)

#: How often the rows are looked at when nothing is known to be due: another process may have left some.
IDLE_MS: Final = 60_000
#: After a store that did not answer.
_RETRY_MS: Final = 1_000


class DueLoop:
    """Runs `step(now_ms)`, which does what is due, or begins it, and answers the instant of what is due next; None: of nothing."""

    def __init__(
        self, name: str, step: Callable[[int], Awaitable[int | None]], *, clock: Clock, idle_ms: int = IDLE_MS
    ) -> None:
        self._name = name
        self._step = step
        self._clock = clock
        self._idle_ms = idle_ms
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def look_now(self) -> None:
        """There is something new: do not wait."""
        self._news.set()

    def start(self) -> None:
        """Begin, with a first look at once."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """Stop, also in the middle of a step."""
        await stop_tasks((self._task,))
        self._task = None

    async def _run(self) -> None:
        while True:
            self._news.clear()
            try:
                due_ms = await self._step(self._clock.now_ms())
            except Unavailable as exc:
                log.warning("%s: the store does not answer: %r", self._name, exc)
                due_ms = self._clock.now_ms() + _RETRY_MS
            except Exception:
                # Whatever it was, the others' turn has to come.
                log.exception("%s stumbled", self._name)
                due_ms = self._clock.now_ms() + _RETRY_MS
            await self._wait(due_ms)

    async def _wait(self, due_ms: int | None) -> None:
        latest_ms = self._clock.now_ms() + self._idle_ms
        timer = self._clock.call_at_ms(latest_ms if due_ms is None else min(due_ms, latest_ms), self.look_now)
        try:
            await self._news.wait()
        finally:
            timer.cancel()
