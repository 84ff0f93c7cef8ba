"""`Subscriptions`, `TierChanges` and `Quotes`, a collection each."""

from contextlib import suppress
from dataclasses import fields
from typing import Final

from billing_engine.subscriptions.ports import (
    LIVE,
    StoredQuote,
    Subscription,
    SubscriptionStatus,
    TierChange,
)
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId
from server.storage.repositories.ai_calls import days

#: `_id` is the user.
SUBSCRIPTIONS: Final = CollectionSpec(
    name="subscriptions",
    text=("status", "tier"),
    integer=("check_at_ms", "revision"),
    # The second one is counted, so it has all that the count reads.
    indexes=(("check_at_ms",), ("status", "tier", "revision")),
)
#: `tally` is `day|was|tier`: what metrics group by.
TIER_CHANGES: Final = CollectionSpec(
    name="tier_changes", text=("tally",), integer=("at_ms",), indexes=(("tally", "at_ms"),)
)
QUOTES: Final = CollectionSpec(
    name="upgrade_quotes",
    text=("user_id", "tier"),
    integer=("expires_at_ms",),
    boolean=("resets",),
    indexes=(("user_id", "tier", "expires_at_ms"),),
)
_SUBSCRIPTION: Final = tuple(
    field.name for field in fields(Subscription) if field.name not in ("user_id", "status")
)
_CHANGE: Final = tuple(field.name for field in fields(TierChange) if field.name != "id")
_QUOTE: Final = tuple(field.name for field in fields(StoredQuote) if field.name != "id")


class CollectionSubscriptions:
    """One document a user."""

    def __init__(self, collection: Collection) -> None:
        self._subscriptions = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionSubscriptions":
        return cls(await collections.open(SUBSCRIPTIONS))

    async def get(self, user_id: str) -> Subscription | None:
        doc = await self._subscriptions.get(user_id)
        return None if doc is None else _subscription_of(doc)

    async def put(self, subscription: Subscription, *, expect_revision: int | None) -> bool:
        facts = {name: getattr(subscription, name) for name in _SUBSCRIPTION}
        facts["status"] = subscription.status.value
        if expect_revision is None:
            try:
                await self._subscriptions.insert({"_id": subscription.user_id, **facts})
            except DuplicateId:
                return False
            return True
        changed = await self._subscriptions.update(
            subscription.user_id, where={"revision": expect_revision}, set_=facts
        )
        return changed is not None

    async def due(self, now_ms: int, *, limit: int) -> list[Subscription]:
        found = await self._subscriptions.find(
            {"check_at_ms": {"lte": now_ms}}, sort=(("check_at_ms", "asc"),), limit=limit
        )
        return [_subscription_of(doc) for doc in found]

    async def live_by_tier(self) -> dict[str, int]:
        """How many run, by the tier that they are paid for."""
        found = await self._subscriptions.sum_by(
            "revision", group_by="tier", where={"status": {"in": [status.value for status in LIVE]}}
        )
        return {tier: number for tier, (_, number) in found.items()}


class CollectionTierChanges:
    """One document a change."""

    def __init__(self, collection: Collection) -> None:
        self._changes = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionTierChanges":
        return cls(await collections.open(TIER_CHANGES))

    async def add(self, change: TierChange) -> None:
        facts = {name: getattr(change, name) for name in _CHANGE}
        tally = f"{change.day}|{change.was}|{change.tier}"
        with suppress(DuplicateId):
            await self._changes.insert({"_id": change.id, **facts, "tally": tally})

    async def counted_until(self, last_day: str) -> dict[tuple[str, str, str], int]:
        """How many there were until the end of that local day, by day, tier before and tier after."""
        found = await self._changes.sum_by("at_ms", group_by="tally", where={"tally": days("", last_day)})
        counted = {}
        for tally, (_, number) in found.items():
            day, was, tier = tally.split("|")
            counted[day, was, tier] = number
        return counted


class CollectionQuotes:
    """One document a quote."""

    def __init__(self, collection: Collection) -> None:
        self._quotes = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionQuotes":
        return cls(await collections.open(QUOTES))

    async def add(self, quote: StoredQuote) -> None:
        await self._quotes.insert({"_id": quote.id, **{name: getattr(quote, name) for name in _QUOTE}})

    async def get(self, quote_id: str) -> StoredQuote | None:
        doc = await self._quotes.get(quote_id)
        return None if doc is None else _quote_of(doc)

    async def latest(self, user_id: str, tier: str, *, resets: bool, at_ms: int) -> StoredQuote | None:
        found = await self._quotes.find(
            {"user_id": user_id, "tier": tier, "resets": resets, "expires_at_ms": {"gt": at_ms}},
            sort=(("expires_at_ms", "desc"),),
            limit=1,
        )
        return _quote_of(found[0]) if found else None


def _subscription_of(doc: Doc) -> Subscription:
    return Subscription(
        user_id=doc["_id"],
        status=SubscriptionStatus(doc["status"]),
        **{name: doc[name] for name in _SUBSCRIPTION},
    )


def _quote_of(doc: Doc) -> StoredQuote:
    return StoredQuote(id=doc["_id"], **{name: doc[name] for name in _QUOTE})
