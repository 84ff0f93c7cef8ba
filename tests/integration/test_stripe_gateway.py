"""The Stripe adapter and the fake Stripe over loopback: what is Stripe's own, beside the contract of all gateways."""

import asyncio
import contextlib
import io
import logging
import socket
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import structlog
from aiohttp import web

from billing_engine.errors import BillingError
from billing_engine.payments.errors import GatewayRefused, GatewayUnavailable
from billing_engine.payments.model import AttemptStatus, DisputeStatus, Order, RefundStatus, SavedMethod, Wish
from server.gateways.stripe import StripeGateway
from server.gateways.stripe_shapes import attempt_of_intent
from server.logs import configure_logging
from tests.support.fake_stripe import FAULTS, LOST_REPLY, RESET, SILENT, FakeStripe
from tests.support.fake_stripe_books import payload
from tests.support.fake_stripe_wire import Refusal

WISH = Wish(
    reference="01K00000000000000000000001",
    amount_minor=25_000_000,
    currency="USD",
    description="Wallet recharge",
    payer_email="payer@example.com",
)


def gateway_of(fake: FakeStripe, **changes: Any) -> StripeGateway:
    facts = {
        "success_url": "https://example.com/paid",
        "cancel_url": "https://example.com/left",
        "base_url": fake.url,
        "timeout_s": 30,
    }
    return StripeGateway(changes.pop("key", fake.key), fake.webhook_secret, **{**facts, **changes})


@pytest.fixture
async def fake() -> AsyncIterator[FakeStripe]:
    async with FakeStripe() as server:
        yield server


@pytest.fixture
async def gateway(fake: FakeStripe) -> AsyncIterator[StripeGateway]:
    gateway = gateway_of(fake)
    yield gateway
    await gateway.close()


async def kept_card(fake: FakeStripe, gateway: StripeGateway) -> SavedMethod:
    order = await gateway.setup_order(replace(WISH, reference="setup", amount_minor=0))
    fake.keep(order.id)
    method = await gateway.kept_method(order.id)
    assert method is not None
    return method


# -- orders ----------------------------------------------------------------------------------------------------------


async def test_an_order_is_a_page_for_one_amount_with_our_reference_everywhere(
    fake: FakeStripe, gateway: StripeGateway
) -> None:
    order = await gateway.create_order(WISH)

    session = fake.books.sessions[order.id]
    assert dict(order.shown) == {"checkoutUrl": session["url"], "sessionId": order.id}
    assert (session["mode"], session["amount_total"], session["currency"]) == ("payment", 2_500, "usd")
    assert session["client_reference_id"] == session["metadata"]["payment"] == WISH.reference
    assert (session["success_url"], session["cancel_url"]) == (
        "https://example.com/paid",
        "https://example.com/left",
    )
    assert session["customer_email"] == WISH.payer_email
    # Else a payer abroad would pay, and we would be told of, another currency.
    assert session["adaptive_pricing"] == {"enabled": False}
    assert fake.requests == [("POST", "/v1/checkout/sessions", f"order:{WISH.reference}")]
    intent = fake.books.intents[fake.pay(order.id)]
    assert intent["metadata"] == {"payment": WISH.reference}
    assert (intent["customer"], intent["setup_future_usage"]) == (None, None)


async def test_rupees_are_paise_at_stripe(fake: FakeStripe, gateway: StripeGateway) -> None:
    order = await gateway.create_order(replace(WISH, amount_minor=50_000, currency="INR"))
    fake.pay(order.id)

    (attempt,) = await gateway.attempts(order.id)

    assert fake.books.sessions[order.id]["amount_total"] == 50_000
    assert (attempt.amount_minor, attempt.currency) == (50_000, "INR")


@pytest.mark.parametrize(
    ("amount_minor", "currency"), [(25_000_001, "USD"), (0, "USD"), (-10_000, "USD"), (500, "JPY")]
)
async def test_what_stripe_cannot_express_is_refused_before_anything_is_sent(
    fake: FakeStripe, gateway: StripeGateway, amount_minor: int, currency: str
) -> None:
    wish = replace(WISH, amount_minor=amount_minor, currency=currency)
    method = SavedMethod("pm_1", "cus_1", "a card")
    for call in (
        gateway.create_order(wish),
        gateway.charge_saved(wish, method),
        gateway.refund("pi_1", amount_minor=amount_minor, currency=currency, reference="r1"),
    ):
        with pytest.raises(GatewayRefused):
            await call

    assert fake.requests == []


async def test_less_than_stripe_takes_is_refused_by_stripe(gateway: StripeGateway) -> None:
    with pytest.raises(GatewayRefused) as caught:
        await gateway.create_order(replace(WISH, amount_minor=490_000))

    assert caught.value.facts["reason"] == "amount_too_small"


async def test_a_known_customer_pays_as_that_customer(fake: FakeStripe, gateway: StripeGateway) -> None:
    method = await kept_card(fake, gateway)

    order = await gateway.create_order(replace(WISH, customer_id=method.customer_id, save_method=True))
    fake.pay(order.id)

    session = fake.books.sessions[order.id]
    assert (session["customer"], session["customer_email"]) == (method.customer_id, None)
    (attempt,) = await gateway.attempts(order.id)
    assert attempt.method is not None
    assert attempt.method.customer_id == method.customer_id
    assert len(fake.books.customers) == 1


async def test_other_words_under_the_same_reference_are_never_another_order(
    fake: FakeStripe, gateway: StripeGateway
) -> None:
    """A deploy with another address to come back to: what was made before is not known by the one who asks now."""
    await gateway.create_order(WISH)
    other = gateway_of(fake, success_url="https://example.org/paid")

    with pytest.raises(GatewayUnavailable):
        await other.create_order(WISH)

    assert len(fake.books.sessions) == 1
    await other.close()


async def test_an_order_that_is_just_being_made_is_not_made_twice(
    fake: FakeStripe, gateway: StripeGateway
) -> None:
    fake.gate.clear()
    first = asyncio.create_task(gateway.create_order(WISH))
    await fake.waiting.wait()

    with pytest.raises(GatewayUnavailable):
        await gateway.create_order(WISH)

    fake.gate.set()
    assert (await first).id == (await gateway.create_order(WISH)).id
    assert len(fake.books.sessions) == 1


async def test_after_a_day_stripe_has_forgotten_the_order_and_its_session_is_over(
    fake: FakeStripe, gateway: StripeGateway
) -> None:
    """What the module says of it: why an order is not asked for again after a day."""
    first = await gateway.create_order(WISH)
    fake.expire(first.id)
    fake.keys.forget()

    assert (await gateway.create_order(WISH)).id != first.id
    assert list(await gateway.attempts(first.id)) == []


# -- attempts --------------------------------------------------------------------------------------------------------


async def test_a_bank_debit_is_pending_for_days(fake: FakeStripe, gateway: StripeGateway) -> None:
    orders = [await gateway.create_order(replace(WISH, reference=f"p{number}")) for number in range(2)]
    for order in orders:
        fake.begin_slowly(order.id)
    assert {(await gateway.attempts(order.id))[0].status for order in orders} == {AttemptStatus.PENDING}

    fake.end_slowly(orders[0].id)
    fake.end_slowly(orders[1].id, succeeds=False)

    (paid,), (failed,) = [await gateway.attempts(order.id) for order in orders]
    assert (paid.status, paid.amount_minor) == (AttemptStatus.COLLECTED, WISH.amount_minor)
    assert (failed.status, failed.failure) == (AttemptStatus.FAILED, "payment_intent_payment_attempt_failed")
    told = [gateway.read_webhook(body, headers) for body, headers in fake.events]
    by_payment = {
        one.id: [event.attempt.status for event in told if event.attempt and event.attempt.id == one.id]
        for one in (paid, failed)
    }
    assert by_payment[paid.id] == [AttemptStatus.PENDING] * 2 + [AttemptStatus.COLLECTED] * 2
    assert by_payment[failed.id] == [AttemptStatus.PENDING] * 2 + [AttemptStatus.FAILED] * 2


async def test_a_cancelled_payment_has_failed(fake: FakeStripe, gateway: StripeGateway) -> None:
    order = await gateway.create_order(WISH)
    name = fake.fail(order.id)
    fake.cancel(name)

    attempt = await gateway.attempt(name)

    assert (attempt.status, attempt.failure) == (AttemptStatus.FAILED, "abandoned")


async def test_a_page_that_nobody_opened_has_no_attempt(fake: FakeStripe, gateway: StripeGateway) -> None:
    order = await gateway.create_order(WISH)

    assert list(await gateway.attempts(order.id)) == []
    assert list(await gateway.attempts_between(0, 4_000_000_000_000)) == []


async def test_a_payment_in_another_currency_is_listed_and_is_not_ours(
    fake: FakeStripe, gateway: StripeGateway
) -> None:
    """Another product on the same account: the daily comparison must not fall over it."""
    order = await gateway.create_order(WISH)
    fake.books.intents[fake.pay(order.id)] |= {"currency": "jpy", "metadata": {}}

    (listed,) = await gateway.attempts_between(0, 4_000_000_000_000)

    assert (listed.amount_minor, listed.currency, listed.reference) == (2_500, "JPY", None)


# -- refunds ---------------------------------------------------------------------------------------------------------


async def test_after_a_day_a_refund_is_still_one(fake: FakeStripe, gateway: StripeGateway) -> None:
    """Stripe forgets our key; the payer would be paid twice."""
    order = await gateway.create_order(WISH)
    payment = fake.pay(order.id)
    facts = {"amount_minor": 10_000, "currency": "USD", "reference": "r1"}

    first = await gateway.refund(payment, **facts)
    fake.keys.forget()
    again = await gateway.refund(payment, **facts)

    assert again.id == first.id
    assert len(fake.books.refunds) == 1


async def test_a_refund_is_made_though_its_fellows_cannot_be_looked_through(
    fake: FakeStripe, gateway: StripeGateway
) -> None:
    """The key protects it for a day."""
    order = await gateway.create_order(WISH)
    payment = fake.pay(order.id)
    with fake.broken(RESET, times=1):
        refund = await gateway.refund(payment, amount_minor=10_000, currency="USD", reference="r1")

    assert [one.id for one in await gateway.refunds(payment)] == [refund.id]


@pytest.mark.parametrize(("succeeds", "status"), [(True, RefundStatus.DONE), (False, RefundStatus.FAILED)])
async def test_a_refund_that_takes_days_is_pending(
    fake: FakeStripe, gateway: StripeGateway, succeeds: bool, status: RefundStatus
) -> None:
    fake.books.refunds_begin_as = "pending"
    order = await gateway.create_order(WISH)
    payment = fake.pay(order.id)

    refund = await gateway.refund(payment, amount_minor=10_000, currency="USD", reference="r1")
    assert refund.status is RefundStatus.PENDING
    fake.finish_refund(refund.id, succeeds=succeeds)

    assert [one.status for one in await gateway.refunds(payment)] == [status]
    assert (await gateway.attempt(payment)).refunded_minor == (10_000 if succeeds else 0)


# -- saved methods ---------------------------------------------------------------------------------------------------


async def test_a_card_is_kept_without_paying_and_charged_later(
    fake: FakeStripe, gateway: StripeGateway
) -> None:
    wish = replace(WISH, amount_minor=0)
    order = await gateway.setup_order(wish)
    assert (await gateway.setup_order(wish)).id == order.id
    assert await gateway.kept_method(order.id) is None
    fake.keep(order.id)

    method = await gateway.kept_method(order.id)

    assert method is not None
    assert method.label == "visa •••• 4242"
    told = [gateway.read_webhook(body, headers).method for body, headers in fake.events]
    (news,) = [one for one in told if one is not None]
    assert (news.method.id, news.method.customer_id, news.reference) == (
        method.id,
        method.customer_id,
        WISH.reference,
    )
    assert list(await gateway.attempts(order.id)) == []
    attempt = await gateway.charge_saved(WISH, method)
    assert (attempt.status, attempt.method) == (AttemptStatus.COLLECTED, method)


async def test_an_order_to_pay_has_kept_no_card_without_paying(
    fake: FakeStripe, gateway: StripeGateway
) -> None:
    order = await gateway.create_order(WISH)
    fake.pay(order.id)

    assert await gateway.kept_method(order.id) is None


@pytest.mark.parametrize(
    ("code", "decline_code", "reason"),
    [
        ("card_declined", "insufficient_funds", "insufficient_funds"),
        ("card_declined", None, "card_declined"),
        ("expired_card", None, "expired_card"),
        # The bank wants its owner there; the decline code says no more than the code.
        ("authentication_required", "authentication_required", "authentication_required"),
    ],
)
async def test_a_bank_that_declines_says_why(
    fake: FakeStripe, gateway: StripeGateway, code: str, decline_code: str | None, reason: str
) -> None:
    method = await kept_card(fake, gateway)
    fake.books.declines[method.id] = (code, decline_code)

    for _ in range(2):
        with pytest.raises(GatewayRefused) as caught:
            await gateway.charge_saved(WISH, method)
        assert caught.value.facts["reason"] == reason
    fake.keys.forget()
    with pytest.raises(GatewayRefused) as caught:
        await gateway.charge_saved(WISH, method)

    assert caught.value.facts["reason"] == reason
    assert [intent["status"] for intent in fake.books.intents.values()] == ["requires_payment_method"]


async def test_after_a_day_a_charge_is_still_one(fake: FakeStripe, gateway: StripeGateway) -> None:
    """Stripe forgets our key; a repeat would take the money a second time, from somebody who is not there."""
    method = await kept_card(fake, gateway)
    first = await gateway.charge_saved(WISH, method)
    fake.keys.forget()

    again = await gateway.charge_saved(WISH, method)

    assert again == first
    assert len(fake.books.intents) == 1


async def test_a_charge_that_failed_is_found_with_its_reason(
    fake: FakeStripe, gateway: StripeGateway
) -> None:
    """A charge in doubt is looked up: a decline whose reply was lost is a decline."""
    method = await kept_card(fake, gateway)
    fake.books.declines[method.id] = ("card_declined", "stolen_card")
    with pytest.raises(GatewayRefused):
        await gateway.charge_saved(WISH, method)

    found = await gateway.find_charge(WISH, method)

    assert found is not None
    assert (found.status, found.failure) == (AttemptStatus.FAILED, "stolen_card")


async def test_what_was_charged_before_is_not_known_so_nothing_is_charged(
    fake: FakeStripe, gateway: StripeGateway
) -> None:
    method = await kept_card(fake, gateway)

    with fake.broken("html 502", times=1), pytest.raises(GatewayUnavailable):
        await gateway.charge_saved(WISH, method)

    assert fake.books.intents == {}


async def test_charges_at_the_same_time_are_one(fake: FakeStripe, gateway: StripeGateway) -> None:
    method = await kept_card(fake, gateway)

    answers = await asyncio.gather(
        *(gateway.charge_saved(WISH, method) for _ in range(6)), return_exceptions=True
    )

    assert all(not isinstance(one, BaseException) or isinstance(one, GatewayUnavailable) for one in answers)
    assert len(fake.books.intents) == 1


async def test_another_payers_card_is_not_charged(fake: FakeStripe, gateway: StripeGateway) -> None:
    method = await kept_card(fake, gateway)
    order = await gateway.create_order(replace(WISH, save_method=True))
    fake.pay(order.id)
    (attempt,) = await gateway.attempts(order.id)
    assert attempt.method is not None

    with pytest.raises(GatewayRefused):
        await gateway.charge_saved(
            replace(WISH, reference="p2"), replace(method, customer_id=attempt.method.customer_id)
        )


async def test_a_card_that_is_gone_is_forgotten_already(fake: FakeStripe, gateway: StripeGateway) -> None:
    method = await kept_card(fake, gateway)

    await gateway.forget_method(method)
    await gateway.forget_method(method)
    await gateway.forget_method(replace(method, id="pm_unknown"))

    told = [gateway.read_webhook(body, headers).method for body, headers in fake.events]
    (gone,) = [one for one in told if one is not None and not one.is_usable]
    assert gone.method == method


async def test_a_card_that_stripe_keeps_after_all_is_not_called_forgotten(
    fake: FakeStripe, gateway: StripeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = await kept_card(fake, gateway)
    # A refusal of Stripe's for a reason of its own.
    monkeypatch.setattr(fake, "_found", _refusing_detach(fake))

    with pytest.raises(GatewayRefused):
        await gateway.forget_method(method)


def _refusing_detach(fake: FakeStripe) -> Callable[..., Any]:
    found = fake._found

    def refusing(method: str, path: str, form: dict[str, Any]) -> Any:
        if path.endswith("/detach"):
            raise Refusal(400, "This payment method is used by a subscription.")
        return found(method, path, form)

    return refusing


# -- the wire --------------------------------------------------------------------------------------------------------


def calls_of(
    gateway: StripeGateway, order: Order, payment: str
) -> dict[str, Callable[[], Awaitable[object]]]:
    method = SavedMethod("pm_1", "cus_1", "a card")
    wish = replace(WISH, reference="never")
    return {
        "create_order": lambda: gateway.create_order(wish),
        "setup_order": lambda: gateway.setup_order(wish),
        "kept_method": lambda: gateway.kept_method(order.id),
        "attempts": lambda: gateway.attempts(order.id),
        "attempt": lambda: gateway.attempt(payment),
        "refund": lambda: gateway.refund(payment, amount_minor=10_000, currency="USD", reference="r1"),
        "refunds": lambda: gateway.refunds(payment),
        "charge_saved": lambda: gateway.charge_saved(wish, method),
        "forget_method": lambda: gateway.forget_method(method),
        "attempts_between": lambda: gateway.attempts_between(0, 4_000_000_000_000),
        "refunds_between": lambda: gateway.refunds_between(0, 4_000_000_000_000),
    }


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_answer_that_is_none_leaves_the_outcome_unknown(
    fake: FakeStripe, gateway: StripeGateway, fault: str
) -> None:
    order = await gateway.create_order(WISH)
    payment = fake.pay(order.id)
    if fault == SILENT:
        gateway.connection.timeout_s = 0.05
    with fake.broken(fault):
        for name, call in calls_of(gateway, order, payment).items():
            with pytest.raises(GatewayUnavailable):
                print(name, await call())

    gateway.connection.timeout_s = 30
    assert (await gateway.attempt(payment)).id == payment


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"data": None},
        {"data": {}},
        {"data": [1]},
        {"data": [{}]},
        {"data": [{}], "has_more": True},
        {"data": [{"id": 7}], "has_more": True},
        {"data": [{**payload("refund"), "amount": None}]},
        # The same page again and again.
        {"data": [payload("refund")], "has_more": True},
    ],
    ids=range(9),
)
async def test_a_list_that_is_none_is_not_taken_for_an_empty_one(
    fake: FakeStripe, gateway: StripeGateway, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
) -> None:
    """No refund on the list would mean that one more may be made."""
    monkeypatch.setattr(fake, "_found", lambda *_: {"object": "list", **answer})

    with pytest.raises(GatewayUnavailable):
        await gateway.refunds("pi_1")


async def test_a_payment_without_its_amount_is_not_one_of_nothing(
    fake: FakeStripe, gateway: StripeGateway
) -> None:
    order = await gateway.create_order(WISH)
    payment = fake.pay(order.id)
    fake.books.intents[payment]["amount_received"] = None

    for call in (gateway.attempt(payment), gateway.attempts(order.id), gateway.attempts_between(0, 10**13)):
        with pytest.raises(GatewayUnavailable):
            await call


async def test_an_order_without_a_page_to_pay_at_is_none(
    fake: FakeStripe, gateway: StripeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "_found", lambda *_: payload("checkout_session", url=None))

    with pytest.raises(GatewayUnavailable):
        await gateway.create_order(WISH)


async def test_nobody_at_the_address_is_unavailable(fake: FakeStripe) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        nobody = gateway_of(fake, base_url=f"http://127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(GatewayUnavailable):
            await nobody.attempt("pi_1")
        await nobody.close()


async def test_a_redirect_is_not_followed_with_our_key(fake: FakeStripe, gateway: StripeGateway) -> None:
    with fake.broken("redirect"), pytest.raises(GatewayUnavailable):
        await gateway.attempt("pi_1")

    assert [path for _method, path, _key in fake.requests] == ["/v1/payment_intents/pi_1"]


async def test_nothing_is_asked_twice_behind_our_back(fake: FakeStripe, gateway: StripeGateway) -> None:
    """The package repeats by itself if it is let: who asks would no longer know what is going on.

    aiohttp asks once more for what only reads, when a connection that was kept open turns out to be closed.
    """
    for fault in ("html 502", "json 500", "429", RESET, LOST_REPLY):
        fake.requests.clear()
        with fake.broken(fault), pytest.raises(GatewayUnavailable):
            await gateway.create_order(WISH)
        assert len(fake.requests) == 1


async def test_whoever_waits_can_be_told_to_stop(fake: FakeStripe, gateway: StripeGateway) -> None:
    """A deploy does not wait for Stripe."""
    with fake.broken(SILENT):
        asking = asyncio.create_task(gateway.attempt("pi_1"))
        await fake.waiting.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_it_closes_once_and_again_and_before_it_has_asked(fake: FakeStripe) -> None:
    gateway = gateway_of(fake)
    await gateway.close()
    with pytest.raises(GatewayRefused):
        await gateway.attempt("pi_unknown")
    await gateway.close()
    await gateway.close()


@pytest.mark.parametrize(
    "name", ["", "pi_1/capture", "../v1/refunds", "pi_1?expand[]=x", "pi 1", "é", "a" * 256]
)
async def test_no_call_asks_with_what_is_no_id(fake: FakeStripe, gateway: StripeGateway, name: str) -> None:
    attempt = replace(_an_attempt(), id=name)
    method = SavedMethod(name, "cus_1", "a card")
    for call in (
        gateway.capture(attempt),
        gateway.kept_method(name),
        gateway.refund(name, amount_minor=10_000, currency="USD", reference="r1"),
        gateway.charge_saved(WISH, method),
        gateway.charge_saved(WISH, replace(method, id="pm_1", customer_id=name)),
        gateway.forget_method(method),
        gateway.create_order(replace(WISH, customer_id=name)),
    ):
        with pytest.raises(GatewayRefused):
            await call

    assert fake.requests == []


def _an_attempt() -> Any:
    return attempt_of_intent(payload("payment_intent"))


# -- secrets ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def everything_logged() -> Any:
    """All that is logged, as the server would print it, at the lowest level."""
    root, kept = logging.getLogger(), (logging.getLogger().handlers, logging.getLogger().level)
    seen = io.StringIO()
    with contextlib.redirect_stderr(seen):
        configure_logging("DEBUG", "json")
        root.setLevel(logging.DEBUG)
        yield seen
    root.handlers, level = kept
    root.setLevel(level)
    structlog.reset_defaults()


async def error_of(call: Awaitable[object]) -> str:
    """An error with all that hangs on it, and what a debugger would show of every frame between here and there."""
    try:
        await call
    except BillingError as exc:
        text = "".join(traceback.TracebackException.from_exception(exc, capture_locals=True).format())
        hanging: BaseException | None = exc
        while hanging is not None:
            text += f"{hanging!r} {hanging} {hanging.args} {vars(hanging)}"
            hanging = hanging.__cause__ or hanging.__context__
        return text
    return ""


async def test_no_secret_is_in_a_log_an_error_or_an_object(
    fake: FakeStripe, everything_logged: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    """Logs and error reports are read by more people than may move money."""
    gateway = gateway_of(fake)
    order = await gateway.create_order(WISH)
    payment = fake.pay(order.id)
    body, headers = fake.events[-1]
    said = [repr(gateway), str(vars(gateway)), repr(order), repr(await gateway.attempt(payment))]
    for fault in FAULTS:
        gateway.connection.timeout_s = 0.05 if fault == SILENT else 30
        with fake.broken(fault):
            said += [await error_of(call()) for call in calls_of(gateway, order, payment).values()]
    wrong = gateway_of(fake, key=fake.key + "x")
    said += [await error_of(call) for call in (gateway.attempt("pi_unknown"), wrong.attempt(payment))]

    async def read(body: bytes) -> object:
        return gateway.read_webhook(body, headers)

    said += [await error_of(read(edited)) for edited in (body + b" ", b"", b"{}")]
    await gateway.close()
    await wrong.close()

    printed = everything_logged.getvalue() + "".join(capfd.readouterr())
    assert "stripe does not accept our key" in printed
    assert '"level":"error"' in printed
    for text in (*said, printed):
        assert fake.key not in text
        assert fake.key[-8:] not in text
        assert fake.webhook_secret not in text
    assert WISH.payer_email not in printed


# -- the fake itself -------------------------------------------------------------------------------------------------


async def test_events_are_delivered_in_any_order_and_twice(fake: FakeStripe, gateway: StripeGateway) -> None:
    order = await gateway.create_order(WISH)
    payment = fake.pay(order.id)
    fake.dispute(payment, "lost")
    heard: list[Any] = []

    async def hear(request: web.Request) -> web.Response:
        named = {name.lower(): value for name, value in request.headers.items()}
        heard.append(gateway.read_webhook(await request.read(), named))
        return web.Response()

    app = web.Application()
    app.router.add_post("/webhooks/stripe", hear)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks/stripe"
    events = fake.events[::-1]

    statuses = await fake.deliver_to(url, events, times=2)
    await runner.cleanup()

    assert statuses == [200] * 2 * len(events)
    assert heard[::2] == heard[1::2]
    assert [one.id for one in heard[::2]] == [gateway.read_webhook(*event).id for event in events]
    assert heard[0].dispute.status is DisputeStatus.LOST


def test_it_runs_in_a_thread_of_its_own_and_is_paid_from_another() -> None:
    """As the tests of the real server's process use it."""

    async def order_and_ask(fake: FakeStripe) -> AttemptStatus:
        gateway = gateway_of(fake)
        order = await gateway.create_order(WISH)
        payers = [threading.Thread(target=fake.pay, args=[order.id])]
        for payer in payers:
            payer.start()
        for payer in payers:
            payer.join()
        (attempt,) = await gateway.attempts(order.id)
        await gateway.close()
        return attempt.status

    with FakeStripe.in_thread() as fake:
        assert asyncio.run(order_and_ask(fake)) is AttemptStatus.COLLECTED


async def test_a_parameter_that_stripe_does_not_know_is_refused_by_the_fake(
    fake: FakeStripe, gateway: StripeGateway
) -> None:
    """Else a misspelt one would pass every test and fail in production."""
    with pytest.raises(GatewayRefused) as caught:
        await gateway.connection.ask(
            "refund",
            lambda it: it.v1.refunds.create_async({"payment_intention": "pi_1"}),  # type: ignore[typeddict-unknown-key]
        )

    assert caught.value.facts["reason"] == "parameter_unknown"


async def test_a_lost_reply_is_done_all_the_same(fake: FakeStripe, gateway: StripeGateway) -> None:
    with fake.broken(LOST_REPLY, times=1), pytest.raises(GatewayUnavailable):
        await gateway.create_order(WISH)

    assert len(fake.books.sessions) == 1
