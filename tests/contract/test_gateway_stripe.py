"""The Stripe adapter against the contract, talking to the fake Stripe over loopback."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

import pytest

from billing_engine.payments.model import DisputeStatus
from server.gateways.stripe import StripeGateway
from tests.contract.gateway_contract import Fault, Paid, RemoteGatewayContract, SignedEvent
from tests.support import fake_stripe
from tests.support.fake_stripe import FakeStripe

FAULTS = {
    Fault.SILENT: fake_stripe.SILENT,
    Fault.RESET: fake_stripe.RESET,
    Fault.LOST_REPLY: fake_stripe.LOST_REPLY,
    Fault.HTML_5XX: "html 502",
    Fault.JSON_5XX: "json 500",
    Fault.TOO_MANY: "429",
    Fault.HTML_200: "html 200",
    Fault.OTHER_JSON: "other json",
}
OUTCOMES = {DisputeStatus.OPEN: None, DisputeStatus.WON: "won", DisputeStatus.LOST: "lost"}


class StripeWorld:
    """`RemoteWorld` of the fake Stripe."""

    amount_minor = 25_000_000
    currency = "USD"
    step_minor = 10_000
    saves_methods = True
    faults = FAULTS
    authorises = True
    signs_callbacks = False
    unknown_attempt_id = "pi_unknown"

    def __init__(self, fake: FakeStripe) -> None:
        self.fake = fake
        self.gateway = StripeGateway(
            fake.key,
            fake.webhook_secret,
            success_url="https://example.com/paid",
            cancel_url="https://example.com/left",
            base_url=fake.url,
            timeout_s=30,
        )

    async def pay(self, order_id: str, *, save_method: bool = False) -> Paid:
        # Whether the card is kept, the order has said.
        del save_method
        return Paid(self.fake.pay(order_id), signature=None)

    async def fail(self, order_id: str) -> str:
        return str(self.fake.fail(order_id))

    async def authorise(self, order_id: str) -> str:
        return str(self.fake.authorise(order_id))

    async def dispute(self, attempt_id: str, outcome: DisputeStatus = DisputeStatus.OPEN) -> None:
        self.fake.dispute(attempt_id, OUTCOMES[outcome])

    async def finish_refund(self, refund_id: str, *, succeeds: bool = True) -> None:
        self.fake.finish_refund(refund_id, succeeds=succeeds)

    async def orders_of(self, reference: str) -> int:
        sessions = self.fake.books.sessions.values()
        return sum(session["client_reference_id"] == reference for session in sessions)

    @contextmanager
    def broken(self, fault: Fault) -> Iterator[None]:
        patient_s = self.gateway.connection.timeout_s
        if fault is Fault.SILENT:
            self.gateway.connection.timeout_s = 0.05
        try:
            with self.fake.broken(FAULTS[fault]):
                yield
        finally:
            self.gateway.connection.timeout_s = patient_s

    def events(self) -> Sequence[SignedEvent]:
        return [SignedEvent(body, headers) for body, headers in self.fake.events]

    def sign(self, body: bytes) -> SignedEvent:
        return SignedEvent(*self.fake.sign(body))


class TestStripeGateway(RemoteGatewayContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[StripeWorld]:
        async with FakeStripe() as fake:
            world = StripeWorld(fake)
            yield world
            await world.gateway.close()
