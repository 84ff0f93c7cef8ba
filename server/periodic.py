"""Work that is repeated by the clock, and must not stop because it failed once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from billing_engine.clock import Clock
from billing_engine.errors import Unavailable
from billing_engine.stopping import stop_tasks

log = logging.getLogger(__name__)


class Periodic:
    """Runs `job` every `every_ms`, and at once when it is asked to."""

    def __init__(
        self, name: str, job: Callable[[], Awaitable[object]], *, clock: Clock, every_ms: int
    ) -> None:
        self._name = name
        self._job = job
        self._clock = clock
        self._every_ms = every_ms
        self._turn = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the first run is one period away."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """Stop, also in the middle of the job."""
        await stop_tasks((self._task,))
        self._task = None

    def run_soon(self) -> None:
        """Do not wait for the period's end."""
        self._turn.set()

    async def _run(self) -> None:
        while True:
            timer = self._clock.call_at_ms(self._clock.now_ms() + self._every_ms, self._turn.set)
            try:
                await self._turn.wait()
            finally:
                timer.cancel()
            self._turn.clear()
            try:
                await self._job()
            except Unavailable as exc:
                log.warning("%s: next time: %r", self._name, exc)
            except Exception:
                log.exception("%s stumbled", self._name)
