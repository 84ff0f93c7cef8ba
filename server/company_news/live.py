"""What a company's members hear at once, wherever they are connected."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from billing_engine.clock import Clock
from billing_engine.errors import Unavailable
from billing_engine.stopping import stop_tasks
from billing_engine.usage.ports import CompanyEvent
from chat.push import Push
from server.company_news.ports import MemberIds
from server.wire import rfc3339

log = logging.getLogger(__name__)

UPDATED: Final = "billing:updated"
#: A company's dashboards look again at most so often.
EVERY_MS: Final = 1_000
#: How many companies' members are looked up at once.
_AT_ONCE: Final = 8
#: How long the end of the process waits for the last news.
_GOODBYE_S: Final = 1.0


def payload_of(event: CompanyEvent) -> dict[str, Any]:
    """What members hear of an event."""
    return {
        **event.facts,
        "companyId": event.company_id,
        "eventId": event.id,
        "at": rfc3339(event.at_ms),
    }


class LiveNews:
    """`changed` only notes; a task of its own looks up who is to hear it, and tells them. What is noted is one small entry for each
    company that changed within the last second.
    """

    def __init__(self, push: Push, member_ids: MemberIds, clock: Clock) -> None:
        self._push = push
        self._member_ids = member_ids
        self._clock = clock
        #: The companies that were told of less than a second ago, and whether something has changed since.
        self._told: dict[str, bool] = {}
        #: In the order of their first change (a set that keeps it).
        self._waiting: dict[str, None] = {}
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to tell; what changed before waits."""
        self._task = asyncio.create_task(self._run(), name="company changes")

    async def stop(self) -> None:
        """Tell what waits, then stop."""
        if self._task is None:
            return
        await stop_tasks((self._task,))
        self._task = None
        for company_id, again in self._told.items():
            if again:
                self._waiting[company_id] = None
        self._told.clear()
        try:
            async with asyncio.timeout(_GOODBYE_S):
                await self._tell_waiting()
        except TimeoutError:
            log.warning("some companies are not told of their last change")

    async def tell(self, event: CompanyEvent) -> bool:
        """Tell the members of an event; False if nobody knows who they are."""
        return await self._send(event.company_id, event.kind.value.replace(".", ":"), payload_of(event))

    def changed(self, company_id: str) -> None:
        """Tell the members to look again: at once, or once the second is over in which they were told before."""
        if company_id in self._told:
            self._told[company_id] = True
            return
        self._told[company_id] = False
        self._waiting[company_id] = None
        self._clock.call_at_ms(self._clock.now_ms() + EVERY_MS, lambda: self._second_over(company_id))
        self._news.set()

    def _second_over(self, company_id: str) -> None:
        if self._told.pop(company_id, False):
            self.changed(company_id)

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._tell_waiting()
            except Exception:
                log.exception("companies are not told of a change")

    async def _tell_waiting(self) -> None:
        while self._waiting:
            some = list(self._waiting)[:_AT_ONCE]
            for company_id in some:
                del self._waiting[company_id]
            try:
                await asyncio.gather(*(self._tell_change(company_id) for company_id in some))
            except asyncio.CancelledError:
                # `stop` tells them.
                self._waiting.update(dict.fromkeys(some))
                raise

    async def _tell_change(self, company_id: str) -> None:
        if not await self._send(company_id, UPDATED, {"companyId": company_id}) and self._task is not None:
            # Once more in a second: the last change must not be the one that nobody hears of.
            self.changed(company_id)

    async def _send(self, company_id: str, name: str, payload: Mapping[str, Any]) -> bool:
        try:
            members = await self._member_ids(company_id)
        except Unavailable as exc:
            log.warning("nobody knows who is to hear %s: %r", name, exc, extra={"company_id": company_id})
            return False
        except Exception:
            log.exception("the members of a company are not known", extra={"company_id": company_id})
            return False
        for member_id in members:
            self._push.post_to_user(member_id, name, payload)
        return True
