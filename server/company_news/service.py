"""A company's webhook: set, seen, its secret exchanged, tried."""

from dataclasses import replace

from billing_engine.clock import Clock
from server.company_news.addresses import check_url
from server.company_news.delivery import headers_of
from server.company_news.errors import WebhookNotSet
from server.company_news.model import (
    OVERLAP_MS,
    TEST_TYPE,
    Answer,
    Delivery,
    Webhook,
    body_of,
    new_secret,
)
from server.company_news.ports import DeliveryRows, Poster, WebhookRows
from server.ids import new_id


class CompanyWebhooks:
    """The use cases. Whoever calls has checked whose company it is."""

    def __init__(
        self,
        *,
        webhooks: WebhookRows,
        deliveries: DeliveryRows,
        poster: Poster,
        clock: Clock,
        allow_private: bool,
    ) -> None:
        self._webhooks = webhooks
        self._deliveries = deliveries
        self._poster = poster
        self._clock = clock
        self._allow_private = allow_private

    async def set_webhook(self, company_id: str, url: str | None) -> Webhook | None:
        """Set it, with a new secret, also where it was disabled; None takes it away, and what was on its way is given up.

        Raises:
            WebhookUrlRefused: it may not be called.
        """
        if url is None:
            await self._webhooks.remove(company_id)
            return None
        webhook = Webhook(
            company_id=company_id,
            url=check_url(url, allow_private=self._allow_private),
            secret=new_secret(),
            created_at_ms=self._clock.now_ms(),
        )
        await self._webhooks.put(webhook)
        return webhook

    async def forget(self, company_id: str) -> None:
        """`CompanyHooks`: the company is no more."""
        await self._webhooks.remove(company_id)

    async def webhook(self, company_id: str) -> Webhook | None:
        """The company's webhook, if it has one."""
        return await self._webhooks.get(company_id)

    async def rotate_secret(self, company_id: str) -> Webhook:
        """A new secret; for a day the old one signs, too. Raises `WebhookNotSet`."""
        while True:
            old = await self._known(company_id)
            new = replace(
                old,
                secret=new_secret(),
                previous_secret=old.secret,
                previous_until_ms=self._clock.now_ms() + OVERLAP_MS,
            )
            # Somebody else was quicker: theirs is the old one now.
            if await self._webhooks.exchange(old, new):
                return new

    async def test(self, company_id: str) -> Answer:
        """Send a test event now, once, and tell what the endpoint said. Raises `WebhookNotSet`."""
        webhook = await self._known(company_id)
        event_id, now_ms = f"test-{new_id()}", self._clock.now_ms()
        body = body_of(event_id, TEST_TYPE, now_ms, company_id, {})
        return await self._poster.post(webhook.url, body, headers_of(webhook, event_id, body, now_ms=now_ms))

    async def deliveries(
        self, company_id: str, *, limit: int, before: tuple[int, str] | None
    ) -> list[Delivery]:
        """What was sent and is to be sent, newest first; `before` is (created_at_ms, id) of the last one seen."""
        return await self._deliveries.list_for(company_id, limit=limit, before=before)

    async def last_delivery(self, company_id: str) -> Delivery | None:
        """The one that was tried last."""
        return await self._deliveries.last_tried(company_id)

    async def _known(self, company_id: str) -> Webhook:
        webhook = await self._webhooks.get(company_id)
        if webhook is None:
            raise WebhookNotSet
        return webhook
