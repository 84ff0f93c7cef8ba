"""Subscriptions at Stripe: what is Stripe's own, beside the contract of all gateways."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from billing_engine.payments.errors import GatewayRefused, GatewayUnavailable
from billing_engine.subscriptions.model import CYCLE_MS
from billing_engine.subscriptions.ports import SubscriptionStatus
from server.gateways.setup import open_gateways, open_subscriptions
from server.gateways.simulated_subscriptions import SimulatedSubscriptions
from server.gateways.stripe_subscriptions import StripeSubscriptions
from server.settings import AppEnv, Settings
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.contract.subscription_gateway_contract import DAY_MS, WISH, found, paid, subscribed, upgrade
from tests.contract.test_subscriptions_stripe import StripeSubscriptionWorld
from tests.support.fake_stripe import FakeStripe
from tests.support.fake_stripe_wire import Refusal
from tests.support.manual_clock import ManualClock


@pytest.fixture
async def world() -> AsyncIterator[StripeSubscriptionWorld]:
    clock = ManualClock()
    async with FakeStripe(lambda: clock.now_ms() / 1000) as fake:
        world = StripeSubscriptionWorld(fake, clock)
        yield world
        await world.connection.close()


def another(world: StripeSubscriptionWorld) -> StripeSubscriptions:
    """Of another process, which does not know yet what Stripe has."""
    return StripeSubscriptions(
        world.connection, success_url="https://a.example", cancel_url="https://b.example"
    )


async def test_what_is_sold_is_thirty_days_of_a_product_of_ours(world: StripeSubscriptionWorld) -> None:
    id_ = await subscribed(world)

    kept = world.fake.books.subscriptions[id_]
    price = kept["items"]["data"][0]["price"]
    assert (price["unit_amount"], price["currency"], price["product"]) == (1_900, "usd", "tarazu_starter")
    assert (price["recurring"]["interval"], price["recurring"]["interval_count"]) == ("day", 30)
    assert kept["metadata"] == {"tarazu_user": "user_1", "tarazu_tier": "starter", "tarazu_payment": "op_1"}
    (session,) = world.fake.books.sessions.values()
    assert session["metadata"] == kept["metadata"]
    assert (session["client_reference_id"], session["customer_email"]) == ("op_1", "payer@example.com")


async def test_who_is_known_there_is_named(world: StripeSubscriptionWorld) -> None:
    id_ = await subscribed(world)
    customer = world.fake.books.subscriptions[id_]["customer"]

    other = await subscribed(world, replace(WISH, reference="op_2", customer_id=customer))

    assert world.fake.books.subscriptions[other]["customer"] == customer
    assert len(world.fake.books.customers) == 1


async def test_a_tiers_product_is_made_once_whoever_sells_first(world: StripeSubscriptionWorld) -> None:
    wishes = [replace(WISH, reference=f"op_{n}") for n in range(6)]
    sellers = [another(world) for _ in wishes]

    pages = await asyncio.gather(
        *[seller.checkout(wish) for seller, wish in zip(sellers, wishes, strict=True)]
    )

    assert list(world.fake.books.products) == ["tarazu_starter"]
    assert len({page.id for page in pages}) == 6


async def test_a_page_is_not_asked_for_while_its_product_is_in_doubt(world: StripeSubscriptionWorld) -> None:
    with world.fake.broken("html 502", times=1), pytest.raises(GatewayUnavailable):
        await world.gateway.checkout(WISH)

    assert world.fake.books.sessions == {}
    assert (await world.gateway.checkout(WISH)).url is not None


@pytest.mark.parametrize("tier", ["a/b", "ü", "x" * 300])
async def test_a_tier_that_can_be_no_id_is_refused_before_stripe_is_asked(
    world: StripeSubscriptionWorld, tier: str
) -> None:
    with pytest.raises(GatewayRefused):
        await world.gateway.checkout(replace(WISH, tier=tier))

    assert world.fake.requests == []


@pytest.mark.parametrize("id_", ["", "../customers", "sub_1?x", "sub_1/cancel", "sub 1"])
async def test_an_id_that_is_none_asks_nothing(world: StripeSubscriptionWorld, id_: str) -> None:
    assert await world.gateway.subscription(id_) is None
    for call in (world.gateway.subscription_of(id_), world.gateway.set_cancels(id_, cancels=True)):
        with pytest.raises(GatewayRefused):
            await call

    assert world.fake.requests == []


async def test_an_end_by_a_date_is_seen_and_taken_back(world: StripeSubscriptionWorld) -> None:
    """Stripe's own page for customers ends a subscription so."""
    id_ = await subscribed(world)
    kept = world.fake.books.subscriptions[id_]
    kept["cancel_at"] = kept["items"]["data"][0]["current_period_end"]
    before = await found(world, id_)

    await world.gateway.set_cancels(id_, cancels=False)

    assert (before.cancels, (await found(world, id_)).cancels) == (True, False)
    await world.advance(CYCLE_MS + DAY_MS)
    assert (await found(world, id_)).status is SubscriptionStatus.ACTIVE


async def test_a_change_is_known_again_after_stripe_has_forgotten_its_key(
    world: StripeSubscriptionWorld,
) -> None:
    """A moved end that is moved again would charge at once, or be refused for ever."""
    id_ = await subscribed(world)
    ends_ms = world.clock.now_ms() + CYCLE_MS + DAY_MS
    await upgrade(world, id_, cycle_ends_ms=ends_ms)
    world.fake.keys.forget()
    updates = len([one for one in world.fake.requests if one[0] == "POST"])
    await world.advance(CYCLE_MS + 2 * DAY_MS)

    await upgrade(world, id_, cycle_ends_ms=ends_ms)

    assert len([one for one in world.fake.requests if one[0] == "POST"]) == updates
    assert [tier for tier, *_ in await paid(world, id_)] == ["starter", "professional"]


async def test_a_change_while_a_renewal_is_a_draft_is_for_the_one_after(
    world: StripeSubscriptionWorld,
) -> None:
    """For an hour Stripe only prepares the invoice: it was made for the tier that there was."""
    id_ = await subscribed(world)
    await world.advance(CYCLE_MS + 60_000)
    assert [one.is_paid for one in await world.gateway.invoices(id_)] == [True, False]

    await upgrade(world, id_)
    await world.advance(2 * 3_600_000)

    assert [tier for tier, *_ in await paid(world, id_)] == ["starter", "starter"]
    await world.advance(CYCLE_MS)
    assert [tier for tier, *_ in await paid(world, id_)] == ["starter", "starter", "professional"]


async def test_a_subscription_that_is_left_unpaid_has_ended_until_it_is_paid(
    world: StripeSubscriptionWorld,
) -> None:
    world.fake.books.after_retries = "unpaid"
    id_ = await subscribed(world)
    world.decline(id_)
    await world.advance(CYCLE_MS + 10 * DAY_MS)
    before = await found(world, id_)

    world.fake.pay_invoice(id_)

    assert before.status is SubscriptionStatus.ENDED
    assert (await found(world, id_)).status is SubscriptionStatus.ACTIVE
    assert len(await paid(world, id_)) == 2


async def test_more_invoices_than_a_page_are_all_there(world: StripeSubscriptionWorld) -> None:
    id_ = await subscribed(world)

    await world.advance(104 * CYCLE_MS + DAY_MS)

    periods = [start_ms for _, _, start_ms, _ in await paid(world, id_)]
    assert periods == [periods[0] + n * CYCLE_MS for n in range(105)]


@pytest.mark.parametrize(
    "changes",
    [{"items": {"data": []}}, {"items": None}, {"status": "of_tomorrow"}, {"created": "x"}],
)
async def test_what_cannot_be_read_is_unavailable(
    world: StripeSubscriptionWorld, changes: dict[str, Any]
) -> None:
    """Not `None`: a tier would be taken away for a word that we do not know."""
    id_ = await subscribed(world)
    world.fake.books.subscriptions[id_] |= changes

    with pytest.raises(GatewayUnavailable):
        await world.gateway.subscription(id_)


async def test_another_refusal_does_not_say_that_there_is_none(
    world: StripeSubscriptionWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = await subscribed(world)

    def refuse(_asked: object) -> None:
        raise Refusal(400, "This account is being reviewed.", code="account_under_review")

    monkeypatch.setattr(world.fake.books, "subscription", refuse)
    monkeypatch.setattr(world.fake.books, "list_invoices", refuse)

    with pytest.raises(GatewayRefused):
        await world.gateway.subscription(id_)
    with pytest.raises(GatewayRefused):
        await world.gateway.invoices(id_)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, SimulatedSubscriptions),
        (
            {
                "stripe_secret_key": "sk_test_1",
                "stripe_webhook_secret": "whsec_1",
                "checkout_success_url": "https://a.example",
                "checkout_cancel_url": "https://b.example",
            },
            StripeSubscriptions,
        ),
    ],
)
async def test_they_are_sold_through_stripe_where_its_keys_are_set(
    tmp_path: Any, settings: dict[str, str], kind: type[Any]
) -> None:
    chosen = Settings(_env_file=None, **settings)  # type: ignore[call-arg]  # pydantic's own
    async with (
        open_database(tmp_path / "t.db", SqliteOptions(synchronous="OFF")) as db,
        open_gateways(chosen) as gateways,
    ):
        opened = await open_subscriptions(chosen, gateways, SqliteCollections(db), ManualClock())

        assert isinstance(opened, kind)


async def test_in_production_nothing_is_simulated(tmp_path: Any) -> None:
    chosen = Settings.model_construct(
        app_env=AppEnv.PRODUCTION, stripe_secret_key=Settings().stripe_secret_key
    )
    async with open_database(tmp_path / "t.db", SqliteOptions(synchronous="OFF")) as db:
        assert await open_subscriptions(chosen, {}, SqliteCollections(db), ManualClock()) is None
