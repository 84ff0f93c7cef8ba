"""`CompanyNews` of the usage room: stored for the webhook and the mailbox, told to the sockets."""

import logging
from collections.abc import Callable, Sequence
from typing import Final

from billing_engine.clock import Clock
from billing_engine.usage.ports import CompanyEvent, EventKind
from server.company_news.live import LiveNews
from server.company_news.model import Delivery
from server.company_news.ports import DeliveryRows, WebhookRows
from server.notifications.model import Kind
from server.notifications.outbox import Outbox

log = logging.getLogger(__name__)

LETTERS: Final = {
    EventKind.LOW_BALANCE: Kind.COMPANY_LOW_BALANCE,
    EventKind.OWED: Kind.COMPANY_OWED,
    EventKind.RECHARGED: Kind.COMPANY_RECHARGED,
    EventKind.RECHARGE_FAILED: Kind.COMPANY_RECHARGE_FAILED,
    EventKind.AUTO_RECHARGE_STOPPED: Kind.COMPANY_AUTO_RECHARGE_STOPPED,
}
#: So many events are remembered as told to sockets.
_REMEMBERED: Final = 4_096


class CompanyTeller:
    """A row's id is made of the event's, so the same event again changes nothing that is stored. Sockets hear it once from each
    process that tells it; `eventId` tells a repeat.
    """

    def __init__(
        self,
        *,
        webhooks: WebhookRows,
        deliveries: DeliveryRows,
        outbox: Outbox,
        live: LiveNews,
        clock: Clock,
        on_stored: Callable[[], None],
    ) -> None:
        """`on_stored` is told that there is something to deliver."""
        self._webhooks = webhooks
        self._deliveries = deliveries
        self._outbox = outbox
        self._live = live
        self._clock = clock
        self._on_stored = on_stored
        self._told: dict[tuple[str, str], None] = {}

    async def tell(self, events: Sequence[CompanyEvent]) -> None:
        for event in events:
            await self._store(event)
            key = (event.company_id, event.id)
            if key not in self._told and await self._live.tell(event):
                self._told[key] = None
                if len(self._told) > _REMEMBERED:
                    del self._told[next(iter(self._told))]

    def changed(self, company_id: str) -> None:
        try:
            self._live.changed(company_id)
        except Exception:
            log.exception("a change is not told", extra={"company_id": company_id})

    async def _store(self, event: CompanyEvent) -> None:
        # The owner's id is the company's.
        await self._outbox.post(
            LETTERS[event.kind],
            id_=f"{event.company_id}:{event.id}:mail",
            user_id=event.company_id,
            facts={**event.facts, "companyId": event.company_id, "eventId": event.id},
        )
        webhook = await self._webhooks.get(event.company_id)
        if webhook is None or webhook.disabled_at_ms is not None:
            return
        now_ms = self._clock.now_ms()
        await self._deliveries.add(
            Delivery(
                id=f"{event.company_id}:{event.id}:webhook",
                event_id=event.id,
                company_id=event.company_id,
                type=event.kind.value,
                data=event.facts,
                at_ms=event.at_ms,
                created_at_ms=now_ms,
                next_at_ms=now_ms,
            )
        )
        self._on_stored()
