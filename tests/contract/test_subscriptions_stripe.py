"""The Stripe adapter for subscriptions against the contract, talking to the fake Stripe over loopback."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from billing_engine.subscriptions.ports import CheckoutPage
from server.gateways.stripe_client import StripeConnection
from server.gateways.stripe_subscriptions import StripeSubscriptions
from tests.contract.subscription_gateway_contract import RemoteSubscriptionGatewayContract
from tests.contract.test_gateway_stripe import FAULTS
from tests.support.fake_stripe import FakeStripe
from tests.support.gateway_faults import Fault
from tests.support.manual_clock import ManualClock


class StripeSubscriptionWorld:
    """`RemoteSubscriptionWorld` of the fake Stripe."""

    faults = FAULTS

    def __init__(self, fake: FakeStripe, clock: ManualClock) -> None:
        self.fake = fake
        self.clock = clock
        self.connection = StripeConnection(fake.key, base_url=fake.url, timeout_s=30)
        self.gateway = StripeSubscriptions(
            self.connection, success_url="https://example.com/paid", cancel_url="https://example.com/left"
        )

    async def pay(self, page: CheckoutPage) -> None:
        self.fake.pay(page.id)

    async def advance(self, duration_ms: int) -> None:
        self.clock.jump_ms(duration_ms)
        self.fake.advance()

    @contextmanager
    def broken(self, fault: Fault) -> Iterator[None]:
        patient_s = self.connection.timeout_s
        if fault is Fault.SILENT:
            self.connection.timeout_s = 0.05
        try:
            with self.fake.broken(FAULTS[fault]):
                yield
        finally:
            self.connection.timeout_s = patient_s

    def decline(self, subscription_id: str) -> None:
        self.fake.books.declining.add(subscription_id)

    def accept(self, subscription_id: str) -> None:
        self.fake.books.declining.discard(subscription_id)

    async def hesitate(self, page: CheckoutPage) -> str:
        return str(self.fake.begin(page.id))

    def end(self, subscription_id: str) -> None:
        self.fake.end(subscription_id)

    def sold(self, reference: str) -> int:
        sessions = self.fake.books.sessions.values()
        return sum(session["client_reference_id"] == reference for session in sessions)


class TestStripeSubscriptions(RemoteSubscriptionGatewayContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[StripeSubscriptionWorld]:
        clock = ManualClock()
        async with FakeStripe(lambda: clock.now_ms() / 1000) as fake:
            world = StripeSubscriptionWorld(fake, clock)
            yield world
            await world.connection.close()
