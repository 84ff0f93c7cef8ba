"""Subscriptions over HTTP, through the simulated gateway and through Stripe's own package: the document's upgrade, cycles, ends."""

import csv
import io
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from billing_engine.ledger.accounts import REVENUE_SUBSCRIPTIONS
from billing_engine.subscriptions.account import GRACE_MS
from billing_engine.subscriptions.model import CYCLE_MS, Tokens
from tests.support.api import Api, ApiClock, Person, open_api
from tests.support.fake_ai import FakeAi, Reply, fake_ai
from tests.support.fake_stripe import FakeStripe

DAY_MS: Final = 86_400_000


@dataclass
class Shop:
    """The server; with Stripe, its events go to it when `told` says so."""

    api: Api
    ai: FakeAi
    stripe: FakeStripe | None = None
    _delivered: int = 0

    async def told(self) -> None:
        """Every event so far that was not delivered yet, twice."""
        assert self.stripe is not None
        # Signed by the clock on the wall, as the server checks it.
        events = [self.stripe.sign(body, time.time()) for body, _ in self.stripe.events[self._delivered :]]
        self._delivered += len(events)
        statuses = await self.stripe.deliver_to(f"{self.api.base_url}/webhooks/stripe", events, times=2)
        assert set(statuses) <= {200}, statuses
        for task in list(self.api.services.webhooks._working):
            await task
        await self.api.idle()

    async def pass_ms(self, duration_ms: int) -> None:
        """Time in which only Stripe is awake; then a look at what is due."""
        self.api.clock.jump_ms(duration_ms)
        if self.stripe is not None:
            self.stripe.advance()
        await self.api.services.ai.plans.work_off()
        await self.api.idle()

    async def subscriber(self, tier: str = "starter") -> Person:
        person = await self.api.register()
        asked = await person.post("/api/subscriptions/checkout", {"tier": tier})
        assert asked.status == 201, asked.text
        if self.stripe is not None:
            assert asked.json["status"] == "PENDING"
            self.pay(asked.json["checkoutUrl"])
            await self.told()
        return person

    def pay(self, url: str) -> None:
        assert self.stripe is not None
        self.stripe.pay(url.rpartition("/")[2])


async def credits_of(person: Person) -> dict[str, Any]:
    answer = await person.get("/api/credits")
    assert answer.status == 200, answer.text
    found: dict[str, Any] = answer.json
    return found


def brief(told: dict[str, Any]) -> tuple[str, str, str]:
    return told["subscriptionTier"], told["totalCredits"], told["remaining"]


@asynccontextmanager
async def a_shop(directory: Path, stripe: FakeStripe | None, clock: ApiClock) -> AsyncIterator[Shop]:
    settings: dict[str, Any] = {"access_token_minutes": 1_440}
    if stripe is not None:
        settings |= {
            "stripe_secret_key": stripe.key,
            "stripe_webhook_secret": stripe.webhook_secret,
            "stripe_url": stripe.url,
            "checkout_success_url": "https://example.com/paid",
            "checkout_cancel_url": "https://example.com/left",
        }
    async with fake_ai() as ai:
        keys = {name.lower(): value for name, value in ai.settings().items()}
        async with open_api(directory, clock=clock, **keys, **settings) as api:
            yield Shop(api, ai, stripe)
            await api.books_are_clean()


@pytest.fixture
async def simulated(tmp_path: Path) -> AsyncIterator[Shop]:
    async with a_shop(tmp_path, None, ApiClock()) as shop:
        yield shop


@pytest.fixture
async def stripe(tmp_path: Path) -> AsyncIterator[Shop]:
    clock = ApiClock()
    async with FakeStripe(lambda: clock.now_ms() / 1000) as fake, a_shop(tmp_path, fake, clock) as shop:
        yield shop


@pytest.fixture(params=["simulated", "stripe"])
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shop]:
    clock = ApiClock()
    if request.param == "simulated":
        async with a_shop(tmp_path, None, clock) as shop:
            yield shop
        return
    async with FakeStripe(lambda: clock.now_ms() / 1000) as fake, a_shop(tmp_path, fake, clock) as shop:
        yield shop


async def test_the_tiers_are_the_tables(simulated: Shop) -> None:
    me = await simulated.api.register()
    listed = (await me.get("/api/subscriptions/tiers")).json["items"]
    told = [
        tuple(one[name] for name in ("tier", "price", "credits", "monthlyTokens", "monthlyRequests"))
        for one in listed
    ]
    assert told == [
        ("free", "0.00", "100.00", 10_000, 100),
        ("starter", "19.00", "1900.00", 500_000, 1_000),
        ("professional", "99.00", "9900.00", 5_000_000, 10_000),
        ("enterprise", "499.00", "49900.00", 50_000_000, 100_000),
    ]
    assert {one["currency"] for one in listed} == {"USD"}


async def test_everybody_is_on_the_free_tier_from_the_first_look(simulated: Shop) -> None:
    me = await simulated.api.register()
    told = await credits_of(me)
    assert brief(told) == ("free", "100.00", "100.00")
    assert told["subscription"] is None
    assert told["limits"] == {"tokens": 10_000, "requests": 100, "parallelCalls": 2, "providers": ["openai"]}


async def test_nothing_is_granted_before_the_webhook_and_everything_once_after_it(stripe: Shop) -> None:
    me = await stripe.api.register()
    asked = await me.post("/api/subscriptions/checkout", {"tier": "starter"}, key="once")
    again = await me.post("/api/subscriptions/checkout", {"tier": "starter"}, key="once")
    assert again.json == asked.json
    assert brief(await credits_of(me)) == ("free", "100.00", "100.00")
    stripe.pay(asked.json["checkoutUrl"])
    assert brief(await credits_of(me)) == ("free", "100.00", "100.00")
    await stripe.told()
    told = await credits_of(me)
    assert brief(told) == ("starter", "1900.00", "1900.00")
    assert told["subscription"]["status"] == "ACTIVE"
    assert told["subscription"]["checkoutUrl"] is None
    assert told["subscription"]["cycleEndsAt"] == told["billingCycleEnd"]
    ledger = stripe.api.services.payouts._ledger
    await stripe.told()
    assert await ledger.balance(REVENUE_SUBSCRIPTIONS, "USD") == 19_000_000
    refused = await me.post("/api/subscriptions/checkout", {"tier": "professional"})
    assert (refused.status, refused.code) == (409, "ALREADY_SUBSCRIBED")


async def test_the_documents_upgrade_costs_what_its_preview_said(shop: Shop) -> None:
    """15 of 30 days left, 19 to 99: 40.00, and 4,000 credits."""
    me = await shop.subscriber()
    before = await credits_of(me)
    await shop.pass_ms(15 * DAY_MS)
    me = await shop.api.log_in(me.email)
    quoted = await me.get("/api/credits/upgrade/preview?tier=professional")
    assert {name: quoted.json[name] for name in ("amount", "currency", "credits", "currentTier")} == {
        "amount": "40.00",
        "currency": "USD",
        "credits": "4000.00",
        "currentTier": "starter",
    }
    # Ten minutes later it still holds, to the millisecond before it ends.
    shop.api.clock.jump_ms(10 * 60_000 - 1)
    upgrade = await me.post("/api/credits/upgrade", {"tier": "professional"}, key="up")
    assert upgrade.status == 201, upgrade.text
    assert upgrade.json["quote"] == quoted.json
    if shop.stripe is not None:
        assert upgrade.json["status"] == "CREATED"
        assert brief(await credits_of(me)) == ("starter", "1900.00", "1900.00")
        (session,) = [one for one in shop.stripe.books.sessions.values() if one["mode"] == "payment"]
        assert (session["amount_total"], session["currency"]) == (4_000, "usd")
        shop.pay(upgrade.json["checkoutUrl"])
        assert (await credits_of(me))["subscriptionTier"] == "starter"
        await shop.told()
    after = await credits_of(me)
    assert brief(after) == ("professional", "5900.00", "5900.00")
    assert after["limits"]["tokens"] == 5_000_000
    assert after["billingCycleEnd"] == before["billingCycleEnd"], "the cycle's end does not move"
    ledger = shop.api.services.payouts._ledger
    assert await ledger.balance(REVENUE_SUBSCRIPTIONS, "USD") == 59_000_000
    # The next invoice is the higher tier's.
    await shop.pass_ms(15 * DAY_MS + 2 * 3_600_000)
    if shop.stripe is not None:
        await shop.told()
    me = await shop.api.log_in(me.email)
    assert brief(await credits_of(me)) == ("professional", "9900.00", "9900.00")
    assert await ledger.balance(REVENUE_SUBSCRIPTIONS, "USD") == 158_000_000


async def test_a_quote_that_is_too_old_is_made_anew(simulated: Shop) -> None:
    me = await simulated.subscriber()
    await simulated.pass_ms(15 * DAY_MS)
    me = await simulated.api.log_in(me.email)
    first = (await me.get("/api/credits/upgrade/preview?tier=professional")).json
    simulated.api.clock.jump_ms(DAY_MS // 2)
    upgrade = (await me.post("/api/credits/upgrade", {"tier": "professional"})).json
    assert (first["amount"], upgrade["quote"]["amount"]) == ("40.00", "38.67")


async def test_a_new_cycle_costs_the_full_price_less_what_is_unused(simulated: Shop) -> None:
    me = await simulated.subscriber()
    await simulated.pass_ms(15 * DAY_MS)
    me = await simulated.api.log_in(me.email)
    quoted = (await me.get("/api/credits/upgrade/preview?tier=professional&resetCycle=true")).json
    assert (quoted["amount"], quoted["credits"], quoted["resetCycle"]) == ("89.50", "9900.00", True)
    done = await me.post("/api/credits/upgrade", {"tier": "professional", "resetCycle": True})
    assert (done.status, done.json["quote"]["amount"]) == (201, "89.50")
    told = await credits_of(me)
    assert brief(told) == ("professional", "9900.00", "9900.00")
    await simulated.pass_ms(29 * DAY_MS)
    me = await simulated.api.log_in(me.email)
    assert (await credits_of(me))["billingCycleEnd"] == told["billingCycleEnd"]


async def test_a_downgrade_comes_with_the_next_cycle(shop: Shop) -> None:
    me = await shop.subscriber("professional")
    answer = await me.post("/api/subscriptions/downgrade", {"tier": "starter"})
    assert (answer.status, answer.json["tier"], answer.json["nextTier"]) == (200, "professional", "starter")
    assert brief(await credits_of(me)) == ("professional", "9900.00", "9900.00")
    await shop.pass_ms(CYCLE_MS + 2 * 3_600_000)
    if shop.stripe is not None:
        await shop.told()
    me = await shop.api.log_in(me.email)
    assert brief(await credits_of(me)) == ("starter", "1900.00", "1900.00")


async def test_a_cancellation_ends_with_the_cycle_and_can_be_taken_back(shop: Shop) -> None:
    me = await shop.subscriber()
    cancelled = await me.post("/api/subscriptions/cancel")
    assert (cancelled.status, cancelled.json["cancelsAtCycleEnd"]) == (200, True)
    back = await me.post("/api/subscriptions/cancel", {"cancel": False})
    assert back.json["cancelsAtCycleEnd"] is False
    assert (await me.post("/api/subscriptions/cancel")).json["cancelsAtCycleEnd"] is True
    assert (await credits_of(me))["subscriptionTier"] == "starter"
    end = (await credits_of(me))["billingCycleEnd"]
    await shop.pass_ms(CYCLE_MS + 60_000)
    if shop.stripe is not None:
        await shop.told()
    me = await shop.api.log_in(me.email)
    told = await credits_of(me)
    assert brief(told) == ("free", "100.00", "100.00")
    assert told["billingCycleStart"] == end, "the free cycle begins where the paid one ended"
    assert told["subscription"]["status"] == "ENDED"
    assert (await me.post("/api/subscriptions/cancel")).code == "NOT_SUBSCRIBED"
    assert (await me.post("/api/subscriptions/checkout", {"tier": "starter"})).status == 201


async def test_a_cycle_resets_credits_and_counters_once(shop: Shop) -> None:
    me = await shop.subscriber()
    shop.ai.default = Reply(Tokens(500, 2_000))
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x" * 600}], "max_tokens": 2_000}
    assert (await me.post("/api/ai/openai", body)).status == 200
    used = await credits_of(me)
    assert (used["remaining"], used["usage"]["tokens"]) == ("1899.872", 2_500)
    await shop.pass_ms(CYCLE_MS + 2 * 3_600_000)
    if shop.stripe is not None:
        await shop.told()
    me = await shop.api.log_in(me.email)
    for _ in range(2):
        told = await credits_of(me)
        assert brief(told) == ("starter", "1900.00", "1900.00")
        assert told["usage"] == {"tokens": 0, "requests": 0, "cost": "0.00"}
        assert told["billingCycleStart"] == used["billingCycleEnd"]
    assert len((await me.get("/api/credits/usage")).json["items"]) == 1, "the log stays"


async def test_a_failed_payment_has_a_grace_and_then_an_end(stripe: Shop) -> None:
    me = await stripe.subscriber()
    assert stripe.stripe is not None
    (id_,) = stripe.stripe.books.subscriptions
    stripe.stripe.books.declining.add(id_)
    await stripe.pass_ms(CYCLE_MS + 2 * 3_600_000)
    await stripe.told()
    me = await stripe.api.log_in(me.email)
    told = await credits_of(me)
    assert (told["subscriptionTier"], told["subscription"]["status"]) == ("starter", "PAST_DUE")
    # Paid within the grace: a new cycle, from the old one's end on.
    await stripe.pass_ms(GRACE_MS - 3 * 3_600_000)
    me = await stripe.api.log_in(me.email)
    assert (await credits_of(me))["subscriptionTier"] == "starter"
    await stripe.pass_ms(3 * 3_600_000)
    me = await stripe.api.log_in(me.email)
    assert brief(await credits_of(me)) == ("free", "100.00", "100.00")
    # Late is not never.
    stripe.stripe.pay_invoice(id_)
    await stripe.told()
    late = await credits_of(me)
    assert brief(late) == ("starter", "1900.00", "1900.00")
    assert late["billingCycleStart"] == told["billingCycleEnd"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/api/subscriptions/checkout", {"tier": "starter"}, 409, "ALREADY_SUBSCRIBED"),
        ("POST", "/api/subscriptions/checkout", {"tier": "free"}, 422, "TIER_UNKNOWN"),
        ("POST", "/api/subscriptions/checkout", {"tier": "gold"}, 422, "TIER_UNKNOWN"),
        ("POST", "/api/subscriptions/checkout", {}, 422, "VALIDATION_FAILED"),
        ("POST", "/api/credits/upgrade", {"tier": "starter"}, 409, "NO_UPGRADE"),
        ("GET", "/api/credits/upgrade/preview?tier=starter", None, 409, "NO_UPGRADE"),
        ("GET", "/api/credits/upgrade/preview?tier=gold", None, 422, "TIER_UNKNOWN"),
        ("GET", "/api/credits/upgrade/preview", None, 422, "VALIDATION_FAILED"),
        ("POST", "/api/subscriptions/downgrade", {"tier": "enterprise"}, 422, "TIER_UNKNOWN"),
    ],
)
async def test_what_a_subscriber_cannot_do_changes_nothing(
    simulated: Shop, method: str, path: str, body: Any, status: int, code: str
) -> None:
    me = await simulated.subscriber()
    await credits_of(me)
    before = simulated.api.everything()
    refused = await me.call(method, path, json=body)
    assert (refused.status, refused.code) == (status, code), refused.text
    assert simulated.api.everything() == before


async def test_who_has_not_subscribed_can_change_nothing(simulated: Shop) -> None:
    me = await simulated.api.register()
    for method, path, body in (
        ("POST", "/api/credits/upgrade", {"tier": "professional"}),
        ("GET", "/api/credits/upgrade/preview?tier=professional", None),
        ("POST", "/api/subscriptions/downgrade", {"tier": "starter"}),
        ("POST", "/api/subscriptions/cancel", None),
    ):
        refused = await me.call(method, path, json=body)
        assert (refused.status, refused.code) == (409, "NOT_SUBSCRIBED"), (path, refused.text)


async def test_the_log_is_paged_and_exported_and_ones_own(simulated: Shop) -> None:
    me, other = await simulated.subscriber(), await simulated.subscriber()
    simulated.ai.default = Reply(Tokens(10, 5))
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
    for _ in range(5):
        assert (await me.post("/api/ai/openai", body)).status == 200
    seen, cursor = [], ""
    while True:
        page = (await me.get(f"/api/credits/usage?limit=2{cursor}")).json
        seen += [one["callId"] for one in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert len(set(seen)) == len(seen) == 5
    assert seen == sorted(seen, reverse=True)
    exported = await me.get("/api/credits/usage?format=csv")
    assert exported.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(exported.text)))
    assert [row["callId"] for row in rows] == seen
    assert {(row["inputTokens"], row["outputTokens"], row["outcome"]) for row in rows} == {("10", "5", "OK")}
    # The cursor of somebody else leads to nothing of theirs.
    assert (await other.get(f"/api/credits/usage?limit=2{cursor}")).json["items"] == []
    assert len((await other.get("/api/credits/usage?format=csv")).text.splitlines()) == 1
