"""How companies hear of their wallets, wired: what tells them, what delivers, and their webhooks' settings."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from billing_engine.clock import Clock
from chat.push import Push
from server.company_news.delivery import Deliverer
from server.company_news.http import WebhookHttp
from server.company_news.live import LiveNews
from server.company_news.news import CompanyTeller
from server.company_news.ports import MemberIds
from server.company_news.service import CompanyWebhooks
from server.notifications.outbox import Outbox
from server.settings import Settings
from server.storage.collection import Collections
from server.storage.repositories.company_webhooks import CollectionDeliveries, CollectionWebhooks


@dataclass(frozen=True, slots=True)
class CompanyNewsRoom:
    """One instance a process. `news` is the usage room's `CompanyNews`; `deliverer` is not started yet."""

    news: CompanyTeller
    webhooks: CompanyWebhooks
    deliverer: Deliverer


async def open_company_news(
    settings: Settings,
    collections: Collections,
    stack: AsyncExitStack,
    *,
    clock: Clock,
    push: Push,
    outbox: Outbox,
    member_ids: MemberIds,
    idle_ms: int = 60_000,
) -> CompanyNewsRoom:
    """The room; what it holds open is closed with `stack`. `idle_ms`: how often to look for what other processes have left."""
    allow_private = settings.company_webhooks_private == "on"
    webhooks = await CollectionWebhooks.open(collections)
    deliveries = await CollectionDeliveries.open(collections)
    poster = WebhookHttp(allow_private=allow_private)
    stack.push_async_callback(poster.close)
    deliverer = Deliverer(
        webhooks=webhooks, deliveries=deliveries, poster=poster, clock=clock, idle_ms=idle_ms
    )
    live = LiveNews(push, member_ids, clock)
    live.start()
    stack.push_async_callback(live.stop)
    return CompanyNewsRoom(
        news=CompanyTeller(
            webhooks=webhooks,
            deliveries=deliveries,
            outbox=outbox,
            live=live,
            clock=clock,
            on_stored=deliverer.look_now,
        ),
        webhooks=CompanyWebhooks(
            webhooks=webhooks,
            deliveries=deliveries,
            poster=poster,
            clock=clock,
            allow_private=allow_private,
        ),
        deliverer=deliverer,
    )
