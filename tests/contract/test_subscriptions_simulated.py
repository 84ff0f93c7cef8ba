"""Subscriptions without money keep what every gateway's keep."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from billing_engine.subscriptions.ports import CheckoutPage
from server.gateways.simulated_subscriptions import SimulatedSubscriptions
from server.storage.collection import Collections
from server.storage.repositories.simulated_subscriptions import CollectionAgreements
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.contract.subscription_gateway_contract import (
    SubscriptionGatewayContract,
    found,
    paid,
    subscribed,
    upgrade,
)
from tests.support.manual_clock import ManualClock


class SimulatedSubscriptionWorld:
    """`SubscriptionWorld`: wishing is paying, so paying does nothing."""

    def __init__(self, gateway: SimulatedSubscriptions, clock: ManualClock) -> None:
        self.gateway = gateway
        self.clock = clock

    async def pay(self, page: CheckoutPage) -> None:
        assert page.url is None

    async def advance(self, duration_ms: int) -> None:
        self.clock.jump_ms(duration_ms)


@pytest.fixture
async def collections(tmp_path: Path) -> AsyncIterator[Collections]:
    async with open_database(tmp_path / "subscriptions.db", SqliteOptions(synchronous="OFF")) as database:
        yield SqliteCollections(database)


@pytest.fixture
async def world(collections: Collections) -> SimulatedSubscriptionWorld:
    clock = ManualClock()
    return SimulatedSubscriptionWorld(
        SimulatedSubscriptions(await CollectionAgreements.open(collections), clock), clock
    )


class TestSimulatedSubscriptions(SubscriptionGatewayContract):
    """Over a real file."""


async def test_after_a_restart_it_is_as_it_was(
    collections: Collections, world: SimulatedSubscriptionWorld
) -> None:
    id_ = await subscribed(world)
    await upgrade(world, id_)
    before = (await found(world, id_), await paid(world, id_))

    again = SimulatedSubscriptions(await CollectionAgreements.open(collections), world.clock)

    other = SimulatedSubscriptionWorld(again, world.clock)
    assert (await found(other, id_), await paid(other, id_)) == before


async def test_an_earlier_change_that_is_repeated_after_a_later_one_is_not_made_again(
    world: SimulatedSubscriptionWorld,
) -> None:
    id_ = await subscribed(world)
    await upgrade(world, id_)
    await upgrade(world, id_, tier="enterprise", key="change_2")

    await upgrade(world, id_)

    assert (await found(world, id_)).tier == "enterprise"
