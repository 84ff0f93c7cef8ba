"""Saved means of payment through the real adapters and packages, against a Razorpay and a Stripe over loopback."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from billing_engine.ledger.accounts import wallet_of
from billing_engine.payments.methods import IN_FLIGHT_MS
from billing_engine.payments.model import Payment, PaymentStatus, Purpose
from billing_engine.payments.service import Due
from tests.support import fake_stripe
from tests.support.api import Api, Person, open_api
from tests.support.fake_razorpay import FakeRazorpay
from tests.support.fake_stripe import FakeStripe

AMOUNT = 50_000


@pytest.fixture
async def stripe() -> AsyncIterator[FakeStripe]:
    async with FakeStripe() as fake:
        yield fake


@pytest.fixture
async def with_stripe(tmp_path: Path, stripe: FakeStripe) -> AsyncIterator[Api]:
    settings = {
        "payment_gateway": "stripe",
        "stripe_secret_key": stripe.key,
        "stripe_webhook_secret": stripe.webhook_secret,
        "stripe_url": stripe.url,
        "checkout_success_url": "https://example.com/paid",
        "checkout_cancel_url": "https://example.com/left",
    }
    async with open_api(tmp_path, access_token_minutes=1_440, **settings) as api:
        yield api
        await api.books_are_clean()


@pytest.fixture
async def razorpay() -> AsyncIterator[FakeRazorpay]:
    async with FakeRazorpay() as fake:
        yield fake


@pytest.fixture
async def with_razorpay(tmp_path: Path, razorpay: FakeRazorpay) -> AsyncIterator[Api]:
    settings = {
        "payment_gateway": "razorpay",
        "razorpay_key_id": razorpay.key_id,
        "razorpay_key_secret": razorpay.key_secret,
        "razorpay_webhook_secret": razorpay.webhook_secret,
        "razorpay_url": razorpay.url,
    }
    async with open_api(tmp_path, access_token_minutes=1_440, **settings) as api:
        yield api
        await api.books_are_clean()


async def chores(api: Api, after_ms: int) -> None:
    """What the worker does, once that much time has passed."""
    api.clock.jump_ms(after_ms)
    await api.services.payments.ask_about_due()
    await api.services.payment_methods.work_off()


async def order(user: Person) -> str:
    """The gateway's order of a recharge whose payer agrees that the card is kept."""
    answer = await user.post("/wallet/recharge", {"amount": "500.00", "saveMethod": True})
    assert answer.status == 201, answer.text
    return str(answer.json["order"]["orderId"])


async def saved(user: Person) -> list[str]:
    return [one["paymentMethodId"] for one in (await user.get("/payment-methods")).json["items"]]


async def charge(api: Api, user: Person, method_id: str, key: str = "c1") -> Payment:
    due = Due(
        purpose=Purpose.WALLET,
        payer_id=user.id,
        payer_email=user.email,
        account=wallet_of(user.id),
        amount_minor=AMOUNT,
        currency="INR",
        description="Wallet recharge",
    )
    return await api.services.payment_methods.charge(due, method_id=method_id, operation_id=key)


async def balance(user: Person) -> str:
    return str((await user.get("/wallet/balance")).json["walletBalance"])


async def test_stripe_keeps_a_card_with_a_recharge_and_charges_it(
    with_stripe: Api, stripe: FakeStripe
) -> None:
    api, user = with_stripe, await with_stripe.a_user()
    stripe.pay(await order(user))
    await chores(api, 15 * 60_000)
    (card,) = await saved(user)

    assert (await charge(api, user, card)).status is PaymentStatus.PAID
    assert (await charge(api, user, card)).status is PaymentStatus.PAID
    assert await balance(user) == "1000.00"

    (kept,) = stripe.books.methods
    stripe.books.declines[kept] = ("card_declined", "insufficient_funds")
    declined = await charge(api, user, card, "c2")
    assert (declined.status, declined.failure) == (PaymentStatus.FAILED, "insufficient_funds")
    assert await balance(user) == "1000.00"

    # The next order is the same customer's.
    await order(user)
    customers = {session["customer"] for session in stripe.books.sessions.values()}
    assert len(customers) == 1

    assert (await user.call("DELETE", f"/payment-methods/{card}")).status == 200
    assert stripe.books.methods[kept]["customer"] is None


async def test_stripes_lost_answer_to_a_charge_is_looked_up(with_stripe: Api, stripe: FakeStripe) -> None:
    api, user = with_stripe, await with_stripe.a_user()
    stripe.pay(await order(user))
    await chores(api, 15 * 60_000)
    (card,) = await saved(user)
    before = len(stripe.books.intents)

    # The adapter looks before it charges; both get no answer.
    with stripe.broken(fake_stripe.LOST_REPLY):
        assert (await charge(api, user, card)).status is PaymentStatus.PENDING
    await chores(api, 2_000)
    assert (await charge(api, user, card)).status is PaymentStatus.PENDING, "Stripe has never heard of it"
    await chores(api, IN_FLIGHT_MS)

    assert (await charge(api, user, card)).status is PaymentStatus.PAID
    assert (len(stripe.books.intents) - before, await balance(user)) == (1, "1000.00")


async def test_stripe_keeps_a_card_that_is_left_at_a_page(with_stripe: Api, stripe: FakeStripe) -> None:
    api, user = with_stripe, await with_stripe.a_user()
    asked = await user.post("/payment-methods/setup", key="k1")
    assert (asked.status, asked.json["status"], asked.json["paymentMethodId"]) == (201, "PENDING", None)
    assert asked.json["checkoutUrl"].startswith("http")
    await chores(api, 2_000)
    assert await saved(user) == []

    (session_id,) = stripe.books.sessions
    stripe.keep(session_id)
    await chores(api, 15 * 60_000)

    (card,) = await saved(user)
    assert (await charge(api, user, card)).status is PaymentStatus.PAID


async def test_stripes_events_keep_a_card_and_take_it_away(with_stripe: Api, stripe: FakeStripe) -> None:
    """What the owner does at Stripe shows here without any question of ours."""
    api, user = with_stripe, await with_stripe.a_user()
    await user.post("/payment-methods/setup")
    (session_id,) = stripe.books.sessions
    kept = stripe.keep(session_id)
    await told(api, stripe)
    assert len(await saved(user)) == 1

    stripe.books.detach_method(kept)
    await told(api, stripe)
    assert await saved(user) == []


async def told(api: Api, stripe: FakeStripe) -> None:
    await stripe.deliver_to(f"{api.base_url}/webhooks/stripe")
    for task in list(api.services.webhooks._working):
        await task


async def test_razorpay_keeps_a_card_with_a_recharge_and_charges_it(
    with_razorpay: Api, razorpay: FakeRazorpay
) -> None:
    api, user = with_razorpay, await with_razorpay.a_user()
    paid = razorpay.pay(await order(user), save_method=True)
    verified = await user.post("/wallet/recharge/verify", paid)
    assert (verified.status, verified.json["status"]) == (200, "PAID")
    (card,) = await saved(user)

    assert (await charge(api, user, card)).status is PaymentStatus.PAID
    assert (await charge(api, user, card)).status is PaymentStatus.PAID
    assert await balance(user) == "1000.00"

    refused = await user.post("/payment-methods/setup")
    assert (refused.status, refused.code) == (409, "NOT_SUPPORTED")
    assert (await user.call("DELETE", f"/payment-methods/{card}")).status == 200
    assert await saved(user) == []


async def test_razorpays_webhook_names_no_card_and_it_is_asked_for(
    with_razorpay: Api, razorpay: FakeRazorpay
) -> None:
    api, user = with_razorpay, await with_razorpay.a_user()
    razorpay.pay(await order(user), save_method=True)
    await razorpay.deliver_to(f"{api.base_url}/webhooks/razorpay")
    for task in list(api.services.webhooks._working):
        await task
    assert await balance(user) == "500.00"

    await chores(api, 2_000)

    assert len(await saved(user)) == 1
