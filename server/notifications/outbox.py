"""Stored first, sent later, tried again: a crash in between loses no notification, and may send one twice."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from billing_engine.clock import Clock
from billing_engine.errors import BillingError, Unavailable
from server.due_loop import IDLE_MS, DueLoop
from server.notifications.model import Kind, Notice, pause_ms
from server.notifications.ports import Composer, NotDelivered, Notifier, OutboxRows

log = logging.getLogger(__name__)

#: How long one attempt may take, and how long nobody else begins another one.
ATTEMPT_S: Final = 30.0
LEASE_MS: Final = 60_000
#: After this time nobody wants to know any more, unless the notice says otherwise.
LIFETIME_MS: Final = 3 * 86_400_000
#: Attempts under way at once.
_AT_ONCE: Final = 8


class Outbox:
    """`post` stores; a task of its own sends. Start it once the server is up, stop it before the store closes."""

    def __init__(
        self,
        *,
        rows: OutboxRows,
        composer: Composer,
        notifier: Notifier,
        clock: Clock,
        idle_ms: int = IDLE_MS,
    ) -> None:
        """`idle_ms`: how often to look for what other processes have posted."""
        self._rows = rows
        self._composer = composer
        self._notifier = notifier
        self._clock = clock
        self._loop = DueLoop("outbox", self._step, clock=clock, idle_ms=idle_ms)
        #: For the metrics.
        self.sent = 0
        self.failed = 0
        self.dead = 0

    async def post(
        self,
        kind: Kind,
        *,
        id_: str,
        user_id: str | None = None,
        email: str | None = None,
        facts: Mapping[str, Any] | None = None,
        lifetime_ms: int = LIFETIME_MS,
    ) -> None:
        """Store a notice; on return it will be sent, whatever happens to this process. The same id again changes nothing.

        Raises:
            StoreUnavailable: it may be stored or not; post it again.
        """
        now_ms = self._clock.now_ms()
        await self._rows.add(
            Notice(
                id=id_,
                kind=kind,
                created_at_ms=now_ms,
                next_at_ms=now_ms,
                give_up_at_ms=now_ms + lifetime_ms,
                user_id=user_id,
                email=email,
                facts=facts or {},
            )
        )
        self._loop.look_now()

    def start(self) -> None:
        """Begin to send what is stored."""
        self._loop.start()

    async def stop(self) -> None:
        """Stop sending. What was under way may go out once more after the next start."""
        await self._loop.stop()

    async def send_due(self) -> int:
        """One attempt at everything that is due; how many attempts there were."""
        found = await self._rows.due(self._clock.now_ms(), limit=_AT_ONCE)
        attempts = 0
        while found:
            attempts += sum(await asyncio.gather(*(self._one(notice) for notice in found)))
            found = await self._rows.due(self._clock.now_ms(), limit=_AT_ONCE)
        return attempts

    async def drop_settled(self, *, older_than_ms: int, limit: int = 500) -> int:
        """Housekeeping: forget what was sent or given up long ago; how many there were."""
        return await self._rows.drop_settled(before_ms=self._clock.now_ms() - older_than_ms, limit=limit)

    async def _step(self, _now_ms: int) -> int | None:
        await self.send_due()
        return await self._rows.next_at_ms()

    async def _one(self, notice: Notice) -> int:
        try:
            return await self._attempt(notice)
        except Unavailable as exc:
            # It may have gone out: the row says otherwise until the lease ends, and then it goes out once more.
            log.warning("the store does not take a notification's state: %r", exc)
            return 1

    async def _attempt(self, notice: Notice) -> int:
        begun = await self._rows.begin(notice, until_ms=self._clock.now_ms() + LEASE_MS)
        if begun is None:
            return 0
        if self._clock.now_ms() >= begun.give_up_at_ms:
            await self._bury(begun, begun.problem or "too late")
            return 0
        try:
            async with asyncio.timeout(ATTEMPT_S):
                letter = await self._composer.compose(begun)
                if letter is None:
                    await self._rows.drop(begun)
                    return 0
                await self._notifier.notify(letter)
        except NotDelivered as exc:
            await self._failed(begun, exc.reason, for_good=exc.for_good)
        except (BillingError, TimeoutError) as exc:
            await self._failed(begun, repr(exc), for_good=False)
        except Exception as exc:
            log.exception("a notification could not be sent", extra={"notification": begun.id})
            await self._failed(begun, type(exc).__name__, for_good=False)
        else:
            await self._rows.sent(begun)
            self.sent += 1
        return 1

    async def _failed(self, notice: Notice, problem: str, *, for_good: bool) -> None:
        self.failed += 1
        at_ms = self._clock.now_ms() + pause_ms(notice.attempts)
        if for_good or at_ms >= notice.give_up_at_ms:
            await self._bury(notice, problem)
            return
        log.warning(
            "a notification did not go out and is tried again: %s",
            problem,
            extra={"notification": notice.id, "kind": notice.kind, "attempts": notice.attempts},
        )
        await self._rows.again(notice, at_ms=at_ms, problem=problem)

    async def _bury(self, notice: Notice, problem: str) -> None:
        self.dead += 1
        log.error(
            "a notification is given up: %s",
            problem,
            extra={"notification": notice.id, "kind": notice.kind, "user_id": notice.user_id},
        )
        await self._rows.dead(notice, problem=problem)
