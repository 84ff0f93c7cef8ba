"""The room of subscriptions and AI calls: its use cases, built over one database."""

from collections.abc import Mapping
from dataclasses import dataclass

from billing_engine.clock import Clock
from billing_engine.ledger.service import Ledger
from billing_engine.money import Asset
from billing_engine.payments.service import PaymentService
from billing_engine.subscriptions.calls import AiCalls
from billing_engine.subscriptions.catalogue import ModelPrices, Tiers
from billing_engine.subscriptions.model import Provider
from billing_engine.subscriptions.plans import Plans
from billing_engine.subscriptions.ports import AiProvider, PlanNews, SubscriptionGateway
from server.ids import new_id
from server.storage.collection import Collections
from server.storage.repositories.ai_calls import CollectionCalls
from server.storage.repositories.subscriptions import (
    CollectionQuotes,
    CollectionSubscriptions,
    CollectionTierChanges,
)


@dataclass(frozen=True, slots=True)
class AiRoom:
    """What routes and chores call."""

    asset: Asset
    plans: Plans
    calls: AiCalls
    rows: CollectionCalls
    subscriptions: CollectionSubscriptions
    changes: CollectionTierChanges


async def open_ai(
    collections: Collections,
    *,
    ledger: Ledger,
    clock: Clock,
    payments: PaymentService,
    gateway: SubscriptionGateway,
    providers: Mapping[Provider, AiProvider],
    tiers: Tiers,
    prices: ModelPrices,
    news: PlanNews,
    asset: Asset,
    owner: str,
) -> AiRoom:
    """Open its collections and wire it. `payments` tells it from then on of paid upgrades; `owner` names this process in holds."""
    rows = await CollectionCalls.open(collections)
    subscriptions = await CollectionSubscriptions.open(collections)
    changes = await CollectionTierChanges.open(collections)
    plans = Plans(
        ledger=ledger,
        clock=clock,
        tiers=tiers,
        gateway=gateway,
        payments=payments,
        rows=subscriptions,
        changes=changes,
        quotes=await CollectionQuotes.open(collections),
        news=news,
        asset=asset,
        new_id=new_id,
    )
    calls = AiCalls(
        ledger=ledger,
        clock=clock,
        rows=rows,
        tiers=tiers,
        prices=prices,
        providers=providers,
        owner=owner,
        new_id=new_id,
    )
    return AiRoom(asset, plans, calls, rows, subscriptions, changes)
