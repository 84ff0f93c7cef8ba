"""Refunds to the payer and disputes through the gateways' own packages, over loopback HTTP: a Razorpay and a Stripe of our own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Api, Person, open_api
from tests.support.fake_razorpay import FakeRazorpay
from tests.support.fake_stripe import LOST_REPLY, FakeStripe
from tests.support.gateway_faults import Fault
from tests.support.http import Answer

PAGES = {
    "checkout_success_url": "https://app.example/paid",
    "checkout_cancel_url": "https://app.example/back",
}


@dataclass
class Shop:
    """A server, and what happens at its gateway. Amounts are in major units."""

    api: Api
    name: str
    fake: Any
    user: Person
    admin: Person

    async def paid(self, amount: str = "500.00") -> tuple[str, str]:
        """A recharge that was paid and told to us; our payment's id and the gateway's."""
        order = (await self.user.recharge(amount)).json["order"]
        paid = self.fake.pay(order["orderId"])
        attempt_id = paid["razorpay_payment_id"] if isinstance(paid, dict) else paid
        await self.hears()
        (payment,) = (await self.user.get("/payments?limit=1")).json["items"]
        assert payment["status"] == "PAID"
        return payment["paymentId"], attempt_id

    async def hears(self, times: int = 1) -> None:
        """Everything that the gateway has told so far."""
        url = f"{self.api.base_url}/webhooks/{self.name}"
        assert set(await self.fake.deliver_to(url, times=times)) == {200}
        for task in list(self.api.services.webhooks._working):
            await task
        await self.api.idle()

    async def refund(self, payment_id: str, amount: str) -> Answer:
        return await self.admin.post(
            f"/admin/payments/{payment_id}/refund", {"amount": amount, "reason": "Asked for."}
        )

    async def detail(self, payment_id: str) -> Any:
        return (await self.admin.get(f"/admin/payments/{payment_id}")).json

    async def wallet(self) -> tuple[str, str]:
        found = (await self.user.get("/wallet/balance")).json
        return found["walletBalance"], found["held"]

    def refund_waits(self) -> None:
        """Refunds from now on take a bank's time; Razorpay's always do."""
        if self.name == "stripe":
            self.fake.books.refunds_begin_as = "pending"

    def last_refund(self) -> str:
        return str(list(self.fake.books.refunds)[-1])

    def disputed(self, attempt_id: str) -> str:
        return str(self.fake.dispute(attempt_id))

    def decided(self, dispute_id: str, outcome: str) -> None:
        if self.name == "razorpay":
            self.fake.move_dispute(dispute_id, outcome)
        else:
            dispute = self.fake.books.disputes[dispute_id]
            dispute["status"] = outcome
            self.fake.books._tell("charge.dispute.closed", dispute)

    def answers_get_lost(self) -> Any:
        if self.name == "razorpay":
            return self.fake.broken(
                Fault.LOST_REPLY, lambda asked: asked.method == "POST" and asked.path.endswith("/refund")
            )
        return self.fake.broken(LOST_REPLY)


@asynccontextmanager
async def razorpay(directory: Path) -> AsyncIterator[Shop]:
    async with (
        FakeRazorpay() as fake,
        open_api(
            directory,
            payment_gateway="razorpay",
            access_token_minutes=1_440,
            razorpay_key_id=fake.key_id,
            razorpay_key_secret=fake.key_secret,
            razorpay_webhook_secret=fake.webhook_secret,
            razorpay_url=fake.url,
        ) as api,
    ):
        yield Shop(api, "razorpay", fake, await api.a_user(), await api.admin())


@asynccontextmanager
async def stripe(directory: Path) -> AsyncIterator[Shop]:
    with FakeStripe.in_thread() as fake:
        async with open_api(
            directory,
            payment_gateway="stripe",
            access_token_minutes=1_440,
            currency="USD",
            stripe_secret_key=fake.key,
            stripe_webhook_secret=fake.webhook_secret,
            stripe_url=fake.url,
            **PAGES,
        ) as api:
            yield Shop(api, "stripe", fake, await api.a_user(), await api.admin())


OPENED: dict[str, Callable[[Path], Any]] = {"razorpay": razorpay, "stripe": stripe}
Test = Callable[[Shop], Awaitable[None]]


@pytest.fixture(params=OPENED)
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shop]:
    async with OPENED[request.param](tmp_path) as shop:
        yield shop
        await shop.api.books_are_clean()


async def test_a_refund_goes_out_and_is_done_when_the_gateway_says_so(shop: Shop) -> None:
    shop.refund_waits()
    payment_id, _ = await shop.paid()
    asked = await shop.refund(payment_id, "200.00")
    assert (asked.status, asked.json["status"]) == (201, "PENDING")
    assert await shop.wallet() == ("300.00", "200.00")
    assert (await shop.refund(payment_id, "300.01")).code == "REFUND_EXCEEDS_PAYMENT"

    shop.fake.finish_refund(shop.last_refund())
    await shop.hears(times=2)
    detail = await shop.detail(payment_id)
    assert [one["status"] for one in detail["refunds"]] == ["DONE"]
    assert detail["refunds"][0]["gatewayRefundId"] == shop.last_refund()
    assert (detail["status"], detail["refundedAmount"]) == ("PAID", "200.00")
    assert await shop.wallet() == ("300.00", "0.00")


async def test_a_refund_that_fails_is_in_the_wallet_again(shop: Shop) -> None:
    shop.refund_waits()
    payment_id, _ = await shop.paid()
    await shop.refund(payment_id, "500.00")
    shop.fake.finish_refund(shop.last_refund(), succeeds=False)
    await shop.hears()
    detail = await shop.detail(payment_id)
    assert [one["status"] for one in detail["refunds"]] == ["FAILED"]
    assert (detail["status"], detail["refundableAmount"]) == ("PAID", "500.00")
    assert await shop.wallet() == ("500.00", "0.00")


async def test_a_refund_that_a_bank_sends_back_later_is_in_the_wallet_again(shop: Shop) -> None:
    shop.refund_waits()
    payment_id, _ = await shop.paid()
    await shop.refund(payment_id, "500.00")
    shop.fake.finish_refund(shop.last_refund())
    await shop.hears()
    assert (await shop.detail(payment_id))["status"] == "REFUNDED"
    assert await shop.wallet() == ("0.00", "0.00")
    shop.fake.finish_refund(shop.last_refund(), succeeds=False)
    await shop.hears(times=2)
    detail = await shop.detail(payment_id)
    assert (detail["status"], detail["refundedAmount"]) == ("PAID", "0.00")
    assert [one["status"] for one in detail["refunds"]] == ["FAILED"]
    assert await shop.wallet() == ("500.00", "0.00")
    kinds = {row["kind"] for row in (await shop.user.get("/wallet/transactions")).json["items"]}
    assert kinds == {"RECHARGE", "PAYER_REFUND", "PAYER_REFUND_RETURNED"}


async def test_a_refund_whose_answer_is_lost_is_asked_for_and_sent_once(shop: Shop) -> None:
    shop.refund_waits()
    payment_id, _ = await shop.paid()
    with shop.answers_get_lost():
        asked = await shop.refund(payment_id, "200.00")
    assert (asked.status, asked.json["status"]) == (201, "PENDING")
    assert await shop.wallet() == ("300.00", "200.00")
    shop.api.clock.jump_ms(60_000)
    await shop.api.services.payment_desk.refunds.look_at_due()
    assert len(shop.fake.books.refunds) == 1
    shop.fake.finish_refund(shop.last_refund())
    shop.api.clock.jump_ms(3_600_000)
    # No event reaches us: it is asked for.
    await shop.api.services.payment_desk.refunds.look_at_due()
    assert [one["status"] for one in (await shop.detail(payment_id))["refunds"]] == ["DONE"]
    assert await shop.wallet() == ("300.00", "0.00")


async def test_a_refund_from_the_dashboard_is_booked_once(shop: Shop) -> None:
    shop.refund_waits()
    payment_id, attempt_id = await shop.paid()
    if shop.name == "razorpay":
        shop.fake.books.refund(attempt_id, {"amount": 20_000}, None)
    else:
        shop.fake.books.create_refund({"payment_intent": attempt_id, "amount": "20000"})
    shop.fake.finish_refund(shop.last_refund())
    await shop.hears(times=3)
    (refund,) = (await shop.detail(payment_id))["refunds"]
    assert (refund["status"], refund["amount"], refund["requestedBy"]) == ("DONE", "200.00", None)
    assert await shop.wallet() == ("300.00", "0.00")


@pytest.mark.parametrize("outcome", ["won", "lost"])
async def test_a_dispute_freezes_and_then_releases_or_takes(shop: Shop, outcome: str) -> None:
    payment_id, attempt_id = await shop.paid()
    dispute_id = shop.disputed(attempt_id)
    await shop.hears()
    assert await shop.wallet() == ("0.00", "500.00")
    (waiting,) = (await shop.admin.get("/admin/disputes?status=OPEN")).json["items"]
    assert (waiting["gatewayDisputeId"], waiting["paymentId"]) == (dispute_id, payment_id)
    assert (waiting["amount"], waiting["frozenAmount"]) == ("500.00", "500.00")
    assert (await shop.refund(payment_id, "1.00")).code == "REFUND_EXCEEDS_PAYMENT"
    trouble = (await shop.api.anonymous.get("/metrics")).text
    assert "tarazu_payment_trouble_total 1.0" in trouble

    shop.decided(dispute_id, outcome)
    await shop.hears(times=2)
    assert (await shop.admin.get("/admin/disputes?status=OPEN")).json["items"] == []
    (decided,) = (await shop.detail(payment_id))["disputes"]
    assert decided["status"] == outcome.upper()
    assert await shop.wallet() == (("500.00", "0.00") if outcome == "won" else ("0.00", "0.00"))
    rows = (await shop.user.get("/wallet/transactions")).json["items"]
    assert {row["kind"] for row in rows} == ({"RECHARGE"} if outcome == "won" else {"RECHARGE", "CHARGEBACK"})


async def test_a_dispute_takes_no_more_than_was_not_refunded(shop: Shop) -> None:
    """The rest is the platform's loss, however much else the wallet has."""
    await shop.paid("700.00")
    payment_id, attempt_id = await shop.paid()
    assert (await shop.refund(payment_id, "200.00")).status == 201
    if shop.name == "razorpay":
        shop.fake.finish_refund(shop.last_refund())
    dispute_id = shop.disputed(attempt_id)
    shop.decided(dispute_id, "lost")
    await shop.hears()
    assert await shop.wallet() == ("700.00", "0.00")
    (decided,) = (await shop.detail(payment_id))["disputes"]
    assert (decided["amount"], decided["frozenAmount"]) == ("500.00", "300.00")


async def test_what_is_not_ours_is_left_alone(shop: Shop) -> None:
    """Another shop's payment on the same account."""
    payment_id, _ = await shop.paid()
    before = await shop.wallet()
    if shop.name == "razorpay":
        order = shop.fake.books.create_order(
            {"amount": 10_000, "currency": "INR", "receipt": "another shop's"}
        )
        other = shop.fake.pay(order["id"])["razorpay_payment_id"]
    else:
        session = shop.fake.books.create_session(
            {
                "mode": "payment",
                "success_url": "https://other.example",
                "line_items": [
                    {
                        "price_data": {
                            "currency": "usd",
                            "unit_amount": "10000",
                            "product_data": {"name": "Something else"},
                        },
                        "quantity": "1",
                    }
                ],
            }
        )
        other = shop.fake.pay(session["id"])
    shop.disputed(other)
    await shop.hears()
    assert await shop.wallet() == before
    assert (await shop.admin.get("/admin/disputes")).json["items"] == []
    assert (await shop.detail(payment_id))["disputes"] == []
