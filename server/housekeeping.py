"""Work that nobody waits for: healing what a crash cut short every minute, throwing away what nobody needs every hour."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from billing_engine.clock import Clock
from billing_engine.errors import Unavailable
from billing_engine.stopping import stop_tasks

log = logging.getLogger(__name__)

#: One round of a job; how many things it found. Zero says that it is through.
Job = Callable[[], Awaitable[int]]
HEAL_EVERY_MS: Final = 60_000
CLEAN_EVERY_MS: Final = 3_600_000
#: Rounds of one chore in a row: what is left after them waits for the next time.
_ROUNDS: Final = 200


class Housekeeping:
    """Runs its jobs one after the other, by the clock. One that fails is logged, and keeps no other from its turn."""

    def __init__(self, clock: Clock, *, healers: Mapping[str, Job], chores: Mapping[str, Job]) -> None:
        """`healers` finish what was begun and are few and quick; `chores` delete."""
        self._clock = clock
        self._healers = healers
        self._chores = chores
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the first round of healing is a minute away, the start-up has had its own."""
        self._task = asyncio.create_task(self._run(), name="housekeeping")

    async def stop(self) -> None:
        """Stop, also in the middle of a chore: each of its steps is whole."""
        await stop_tasks((self._task,))
        self._task = None

    async def heal(self) -> None:
        """One round of all healers, for the start-up. Raises `Unavailable`: a server that cannot heal does not start."""
        for name, heal in self._healers.items():
            if found := await heal():
                log.info("healed: %s", name, extra={"found": found})

    async def clean(self) -> None:
        """All chores until they are through."""
        for name, chore in self._chores.items():
            await self._guarded(name, chore, rounds=_ROUNDS)

    async def _run(self) -> None:
        clean_at_ms = self._clock.now_ms() + CLEAN_EVERY_MS
        while True:
            await self._pause(HEAL_EVERY_MS)
            for name, heal in self._healers.items():
                await self._guarded(name, heal, rounds=1)
            if self._clock.now_ms() >= clean_at_ms:
                clean_at_ms = self._clock.now_ms() + CLEAN_EVERY_MS
                await self.clean()

    async def _guarded(self, name: str, job: Job, *, rounds: int) -> None:
        try:
            for _ in range(rounds):
                if not await job():
                    break
        except Unavailable as exc:
            log.warning("%s: next time: %r", name, exc)
        except Exception:
            # A job that stumbles over one row must not end the others.
            log.exception("housekeeping stumbled: %s", name)

    async def _pause(self, duration_ms: int) -> None:
        turn = asyncio.Event()
        timer = self._clock.call_at_ms(self._clock.now_ms() + duration_ms, turn.set)
        try:
            await turn.wait()
        finally:
            timer.cancel()
