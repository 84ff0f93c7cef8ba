"""Razorpay's adapter passes the contract, with its own package, against a Razorpay over loopback HTTP."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager

import pytest

from billing_engine.payments.errors import GatewayUnavailable
from billing_engine.payments.model import AttemptStatus, DisputeStatus
from server.gateways.razorpay import RazorpayGateway
from server.gateways.razorpay_shapes import receipt_of
from tests.contract.gateway_contract import Fault, Paid, RemoteGatewayContract, SignedEvent
from tests.support.fake_razorpay import Asked, FakeRazorpay

#: Short for the tests of silence, long enough for two busy cores.
TIMEOUT_S = 2.0


class RazorpayWorld:
    """`RemoteWorld` of the fake."""

    amount_minor = 50_000
    currency = "INR"
    step_minor = 1
    saves_methods = True
    faults = frozenset(Fault)
    authorises = True
    signs_callbacks = True
    unknown_attempt_id = "pay_00000000000000"

    def __init__(self, fake: FakeRazorpay) -> None:
        self.fake = fake
        self.gateway = RazorpayGateway(
            fake.key_id, fake.key_secret, fake.webhook_secret, base_url=fake.url, timeout_s=TIMEOUT_S
        )

    async def pay(self, order_id: str, *, save_method: bool = False) -> Paid:
        callback = self.fake.pay(order_id, save_method=save_method)
        return Paid(callback["razorpay_payment_id"], callback["razorpay_signature"])

    async def fail(self, order_id: str) -> str:
        return self.fake.fail(order_id)

    async def authorise(self, order_id: str) -> str:
        return self.fake.authorize(order_id)

    async def dispute(self, attempt_id: str, outcome: DisputeStatus = DisputeStatus.OPEN) -> None:
        dispute_id = self.fake.dispute(attempt_id)
        self.fake.move_dispute(dispute_id, "under_review")
        if outcome is not DisputeStatus.OPEN:
            self.fake.move_dispute(dispute_id, outcome.lower())

    async def finish_refund(self, refund_id: str, *, succeeds: bool = True) -> None:
        self.fake.finish_refund(refund_id, succeeds=succeeds)

    async def orders_of(self, reference: str) -> int:
        return len(self.fake.orders_of(receipt_of(reference)))

    def broken(self, fault: Fault) -> AbstractContextManager[None]:
        return self.fake.broken(fault)

    def events(self) -> Sequence[SignedEvent]:
        return [SignedEvent(event.body, event.headers) for event in self.fake.events]

    def sign(self, body: bytes) -> SignedEvent:
        event = self.fake.books.signed(body)
        return SignedEvent(event.body, event.headers)


class TestRazorpay(RemoteGatewayContract):
    """Over the wire."""

    @pytest.fixture
    async def world(self) -> AsyncIterator[RazorpayWorld]:
        async with FakeRazorpay() as fake:
            world = RazorpayWorld(fake)
            try:
                yield world
            finally:
                await world.gateway.close()

    # --- what only this gateway does ---

    async def test_a_refund_that_was_made_and_not_answered_is_found_by_its_reference(
        self, world: RazorpayWorld
    ) -> None:
        wish, _order, attempt = await self.paid(world)
        facts = {"amount_minor": 1, "currency": "INR", "reference": "refund-" + wish.reference}
        with world.fake.broken(Fault.LOST_REPLY, writes), pytest.raises(GatewayUnavailable):
            await world.gateway.refund(attempt.id, **facts)

        (found,) = await world.gateway.refunds(attempt.id)

        assert found.reference == facts["reference"]
        assert (await world.gateway.refund(attempt.id, **facts)).id == found.id
        assert len(world.fake.books.refunds) == 1

    async def test_a_charge_that_was_made_and_not_answered_is_found_by_its_order(
        self, world: RazorpayWorld
    ) -> None:
        _wish, _order, attempt = await self.paid(world, save_method=True)
        assert attempt.method is not None
        wish = self.wish(world)

        def charging(asked: Asked) -> bool:
            return asked.path.endswith("/recurring")

        with world.fake.broken(Fault.LOST_REPLY, charging), pytest.raises(GatewayUnavailable):
            await world.gateway.charge_saved(wish, attempt.method)

        charged = await world.gateway.charge_saved(wish, attempt.method)

        assert charged.status is AttemptStatus.COLLECTED
        assert len(world.fake.books.payments) == 2


def writes(asked: Asked) -> bool:
    return asked.method == "POST"
