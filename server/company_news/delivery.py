"""Brings events to the companies' webhooks: at least once, for about a day, and no company waits for another's endpoint."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from yarl import URL

from billing_engine.clock import Clock
from billing_engine.errors import Unavailable
from billing_engine.stopping import stop_tasks
from server.company_news.model import (
    GONE,
    Answer,
    Delivery,
    DeliveryState,
    Failure,
    Webhook,
    body_of,
    pause_ms,
)
from server.company_news.ports import DeliveryRows, Poster, WebhookRows
from server.due_loop import IDLE_MS, DueLoop
from server.webhook_signing import standard_headers

log = logging.getLogger(__name__)

#: How long nobody else begins another attempt: well above what one may take.
LEASE_MS: Final = 60_000
#: Attempts under way at once: of this process, of one company, and to one host, which many companies may share.
AT_ONCE: Final = 64
AT_ONCE_COMPANY: Final = 2
AT_ONCE_HOST: Final = 8
_PAGE: Final = 100


def headers_of(webhook: Webhook, event_id: str, body: bytes, *, now_ms: int) -> dict[str, str]:
    """The headers of an attempt."""
    return {
        "Content-Type": "application/json",
        "User-Agent": "Tarazu-Webhooks/1",
        **standard_headers(webhook.keys(now_ms), id_=event_id, at_s=now_ms // 1000, body=body),
    }


class Deliverer:
    """A task of its own sends what is stored. Start it where the chores are done, stop it before the store closes."""

    def __init__(
        self,
        *,
        webhooks: WebhookRows,
        deliveries: DeliveryRows,
        poster: Poster,
        clock: Clock,
        idle_ms: int = IDLE_MS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`idle_ms`: how often to look for what other processes have left; `jitter` gives from 0 to 1."""
        self._webhooks = webhooks
        self._rows = deliveries
        self._poster = poster
        self._clock = clock
        self._jitter = jitter
        self._loop = DueLoop("company webhooks", self._step, clock=clock, idle_ms=idle_ms)
        self._under_way: set[asyncio.Task[None]] = set()
        self._busy: Counter[str] = Counter()
        #: For the metrics.
        self.done = 0
        self.failed = 0
        self.dead = 0

    def look_now(self) -> None:
        """Something was stored: do not wait."""
        self._loop.look_now()

    def start(self) -> None:
        """Begin to send what is stored."""
        self._loop.start()

    async def stop(self) -> None:
        """Stop sending. What was under way is sent once more after its lease."""
        await self._loop.stop()
        await stop_tasks(tuple(self._under_way))

    async def send_due(self) -> int:
        """One attempt at everything that is due; how many attempts there were."""
        attempts = 0
        while begun := await self._begin_due(self._clock.now_ms()):
            attempts += begun
            while self._under_way:
                await asyncio.wait(set(self._under_way))
        return attempts

    async def drop_settled(self, *, older_than_ms: int, limit: int = 500) -> int:
        """Housekeeping: forget what was done or given up long ago; how many there were."""
        return await self._rows.drop_settled(before_ms=self._clock.now_ms() - older_than_ms, limit=limit)

    async def _step(self, now_ms: int) -> int | None:
        await self._begin_due(now_ms)
        # What is due already and did not get its turn begins when an attempt under way has ended.
        return await self._rows.next_after_ms(now_ms)

    async def _begin_due(self, now_ms: int) -> int:
        """Begin what is due, the longest waiting first, past those whose company or host has its share under way; how many."""
        begun, after = 0, None
        while len(self._under_way) < AT_ONCE:
            page = await self._rows.due(now_ms, limit=_PAGE, after=after)
            webhooks = await self._webhooks.get_many(sorted({delivery.company_id for delivery in page}))
            for delivery in page:
                if len(self._under_way) >= AT_ONCE:
                    return begun
                begun += await self._begin(delivery, webhooks)
            if len(page) < _PAGE:
                return begun
            after = (page[-1].next_at_ms, page[-1].id)
        return begun

    async def _begin(self, delivery: Delivery, webhooks: Mapping[str, Webhook]) -> bool:
        webhook = webhooks.get(delivery.company_id)
        if webhook is not None and webhook.disabled_at_ms is not None:
            webhook = None
        company = f"company {delivery.company_id}"
        host = None if webhook is None else f"host {URL(webhook.url).host}"
        if self._busy[company] >= AT_ONCE_COMPANY or (host and self._busy[host] >= AT_ONCE_HOST):
            return False
        now_ms = self._clock.now_ms()
        claimed = await self._rows.begin(delivery, now_ms=now_ms, until_ms=now_ms + LEASE_MS)
        if claimed is None:
            return False
        keys = [company] if host is None else [company, host]
        self._busy.update(keys)
        task = asyncio.create_task(self._guarded(claimed, webhook))
        self._under_way.add(task)
        task.add_done_callback(lambda ended: self._over(ended, keys))
        return True

    def _over(self, task: asyncio.Task[None], keys: list[str]) -> None:
        self._under_way.discard(task)
        self._busy.subtract(keys)
        for key in keys:
            if self._busy[key] <= 0:
                del self._busy[key]
        self._loop.look_now()

    async def _guarded(self, delivery: Delivery, webhook: Webhook | None) -> None:
        try:
            await self._attempt(delivery, webhook)
        except Unavailable as exc:
            # It may have gone out: the row says otherwise until the lease ends, and then it goes out once more.
            log.warning("the store does not take a delivery's state: %r", exc)
        except Exception:
            log.exception("a delivery stumbled", extra={"delivery": delivery.id})

    async def _attempt(self, delivery: Delivery, webhook: Webhook | None) -> None:
        if webhook is None:
            await self._bury(delivery, Answer(failure=Failure.NO_WEBHOOK))
            return
        body = body_of(delivery.event_id, delivery.type, delivery.at_ms, delivery.company_id, delivery.data)
        headers = headers_of(webhook, delivery.event_id, body, now_ms=self._clock.now_ms())
        answer = await self._poster.post(webhook.url, body, headers)
        if answer.is_success:
            await self._rows.end(_with(delivery, answer, state=DeliveryState.DONE))
            self.done += 1
            return
        self.failed += 1
        if answer.status == GONE:
            # Unless it was set anew meanwhile.
            await self._webhooks.exchange(webhook, replace(webhook, disabled_at_ms=self._clock.now_ms()))
            await self._bury(delivery, answer)
            return
        pause = pause_ms(delivery.attempts, jitter=self._jitter())
        if pause is None:
            await self._bury(delivery, answer)
            return
        next_at_ms = self._clock.now_ms() + pause
        await self._rows.end(replace(_with(delivery, answer), next_at_ms=next_at_ms))

    async def _bury(self, delivery: Delivery, answer: Answer) -> None:
        self.dead += 1
        # The company's own affair: it sees it among its deliveries.
        log.info(
            "an event does not reach its company's webhook: %s",
            answer.failure or answer.status,
            extra={"delivery": delivery.id, "company_id": delivery.company_id},
        )
        await self._rows.end(_with(delivery, answer, state=DeliveryState.DEAD))


def _with(delivery: Delivery, answer: Answer, *, state: DeliveryState = DeliveryState.PENDING) -> Delivery:
    return replace(delivery, state=state, last_status=answer.status, failure=answer.failure)
