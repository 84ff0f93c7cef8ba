"""Every way in which Razorpay does not do what was asked, through its own package."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs

from billing_engine.payments.errors import GatewayRefused, GatewayUnavailable
from billing_engine.payments.model import AttemptStatus, SavedMethod, Wish
from server.gateways.razorpay import RazorpayGateway
from tests.support.fake_razorpay import Asked, FakeRazorpay
from tests.support.fake_razorpay_books import recorded
from tests.support.gateway_faults import Fault

_numbers = count(1)


@pytest.fixture
async def fake() -> AsyncIterator[FakeRazorpay]:
    async with FakeRazorpay() as fake:
        yield fake


@pytest.fixture
async def gateway(fake: FakeRazorpay) -> AsyncIterator[RazorpayGateway]:
    gateway = RazorpayGateway(
        fake.key_id, fake.key_secret, fake.webhook_secret, base_url=fake.url, timeout_s=5
    )
    yield gateway
    await gateway.close()


def wish(**changes: Any) -> Wish:
    return replace(
        Wish(
            reference=f"01KREFERENCE{next(_numbers):014d}",
            amount_minor=50_000,
            currency="INR",
            description="Wallet recharge",
            payer_email="asha+menon@example.com",
        ),
        **changes,
    )


def error(code: str = "BAD_REQUEST_ERROR", **more: Any) -> Mapping[str, Any]:
    return {"error": {"code": code, "description": "Prose with a card: Asha Menon", **more}}


# --- what an answer means ---


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, error(reason="input_validation_failed"), "input_validation_failed"),
        (400, error(reason="NA"), "BAD_REQUEST_ERROR"),
        (400, error(reason=None), "BAD_REQUEST_ERROR"),
        (400, error(), "BAD_REQUEST_ERROR"),
        (400, error(reason="Prose. Of a bank!"), "BAD_REQUEST_ERROR"),
        (400, error(reason={"a": 1}), "BAD_REQUEST_ERROR"),
        (404, error(), "BAD_REQUEST_ERROR"),
        (422, error(reason="x"), "x"),
    ],
)
async def test_a_refusal_says_its_reason_as_a_word(
    fake: FakeRazorpay, gateway: RazorpayGateway, status: int, body: Mapping[str, Any], reason: str
) -> None:
    fake.answers.append((status, body))

    with pytest.raises(GatewayRefused) as caught:
        await gateway.attempt("pay_1")

    assert caught.value.facts == {"gateway": "razorpay", "reason": reason}


HTML = b"<html><body><h1>Bad Gateway</h1></body></html>"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        # Too many, still being done, too late, too early: nobody knows, or nothing was done.
        *((status, error()) for status in (408, 409, 425, 429)),
        # A bank behind it did not answer; or it failed itself.
        (400, error("GATEWAY_ERROR")),
        (502, error("GATEWAY_ERROR")),
        (400, error("SERVER_ERROR")),
        *((status, error("SERVER_ERROR")) for status in (500, 501, 502, 503, 504)),
        # 5xx and a refusal: what stands before it says what it did.
        (503, error()),
        # Pages for people, of whatever stands between.
        *((status, HTML) for status in (200, 201, 301, 302, 400, 403, 404, 413, 429, 500, 502, 503, 504, 520)),
        # No JSON, other JSON, half of it.
        *((status, body) for status in (200, 400, 500) for body in (b"", b"{", b"null", b"[]", b"7", b'"x"', b"\xff")),
        (200, b"[" * 100_000),
        (200, {}),
        (200, {"error": {"code": "BAD_REQUEST_ERROR"}}),
        (400, {}),
        (400, {"error": "no"}),
        (400, {"error": {}}),
        (400, {"error": {"code": None}}),
        (400, {"error": {"code": ["BAD_REQUEST_ERROR"]}}),
    ],
    ids=repr,
)  # fmt: skip
async def test_whatever_is_no_answer_leaves_the_outcome_unknown(
    fake: FakeRazorpay, gateway: RazorpayGateway, status: int, body: bytes | Mapping[str, Any]
) -> None:
    """Whoever takes it for a refusal gives a payer's money back who has paid."""
    fake.answers.append((status, body))

    with pytest.raises(GatewayUnavailable):
        await gateway.attempt("pay_1")


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None}, {"id": "../x"}, {"entity": "order"}, {"amount": "50000"}, {"amount": 500.0}, {"amount": True},
        {"amount": -1}, {"amount": None}, {"amount_refunded": "0"}, {"currency": None}, {"status": "settled"}, {"status": None},
        {"created_at": None}, {"created_at": "now"}, {"order_id": 7}, {"order_id": "a/b"}, {"token_id": 7},
    ],
    ids=repr,
)  # fmt: skip
async def test_a_payment_that_is_none_leaves_the_outcome_unknown(
    fake: FakeRazorpay, gateway: RazorpayGateway, changes: Mapping[str, Any]
) -> None:
    fake.answers.append((200, recorded("payment.captured")["payload"]["payment"]["entity"] | changes))

    with pytest.raises(GatewayUnavailable):
        await gateway.attempt("pay_1")


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None},
        {"entity": "x"},
        {"amount": "1"},
        {"currency": None},
        {"receipt": None},
        {"receipt": "another"},
    ],
    ids=repr,
)
async def test_an_order_that_is_none_leaves_the_outcome_unknown(
    fake: FakeRazorpay, gateway: RazorpayGateway, changes: Mapping[str, Any]
) -> None:
    asked = wish()
    fake.answers.append((200, recorded("order") | {"receipt": asked.reference} | changes))

    with pytest.raises(GatewayUnavailable):
        await gateway.create_order(asked)


@pytest.mark.parametrize(
    "answer", [{}, {"entity": "collection"}, {"items": []}, {"entity": "collection", "items": [7]}]
)
async def test_a_list_that_is_none_is_not_an_empty_one(
    fake: FakeRazorpay, gateway: RazorpayGateway, answer: Mapping[str, Any]
) -> None:
    """An order whose payments cannot be read is not an order that nobody paid."""
    for ask in (
        lambda: gateway.attempts("order_1"),
        lambda: gateway.refunds("pay_1"),
        lambda: gateway.attempts_between(0, 1),
        lambda: gateway.refunds_between(0, 1),
    ):
        fake.answers.append((200, answer))
        with pytest.raises(GatewayUnavailable):
            await ask()


# --- the wire ---


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        gateway = RazorpayGateway(
            "key", "key-secret", "secret", base_url=f"http://127.0.0.1:{taken.getsockname()[1]}", timeout_s=5
        )
        with pytest.raises(GatewayUnavailable):
            await gateway.attempt("pay_1")
        await gateway.close()


async def test_silence_ends(fake: FakeRazorpay) -> None:
    gateway = RazorpayGateway(
        fake.key_id, fake.key_secret, fake.webhook_secret, base_url=fake.url, timeout_s=0.2
    )
    with fake.broken(Fault.SILENT), pytest.raises(GatewayUnavailable) as caught:
        await gateway.attempt("pay_1")

    assert caught.value.facts["why"] in {"ReadTimeout", "timeout"}
    await gateway.close()


async def test_who_waits_for_a_thread_waits_no_longer_than_the_rest(fake: FakeRazorpay) -> None:
    """The limit of the package is for each wait of its own: an answer of single bytes, or a queue, would take for ever."""
    gateway = RazorpayGateway(
        fake.key_id, fake.key_secret, fake.webhook_secret, base_url=fake.url, timeout_s=0.3
    )
    with fake.broken(Fault.SILENT):
        answers = await asyncio.gather(*(gateway.attempt("pay_1") for _ in range(40)), return_exceptions=True)

    assert {type(answer) for answer in answers} == {GatewayUnavailable}
    # Not all of them came to the gateway: that is what the limit is for.
    assert len(fake.asked) < 40
    await gateway.close()


async def test_nothing_is_sent_twice_by_itself(fake: FakeRazorpay, gateway: RazorpayGateway) -> None:
    """A retry below us would be one that nobody decided on."""
    for fault in (Fault.LOST_REPLY, Fault.RESET, Fault.HTML_5XX, Fault.TOO_MANY):
        before = len(fake.asked)
        with fake.broken(fault), pytest.raises(GatewayUnavailable):
            await gateway.create_order(wish())
        assert len(fake.asked) == before + 1


async def test_a_redirect_is_not_followed() -> None:
    """It would be followed with the keys, or with another method."""
    seen = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        gateway = RazorpayGateway(
            "key", "key-secret", "secret", base_url=str(server.make_url("/")), timeout_s=5
        )
        with pytest.raises(GatewayUnavailable):
            await gateway.create_order(wish())
        await gateway.close()

    assert seen == ["/v1/orders"]


async def test_wrong_keys_are_our_trouble_and_told_loudly(fake: FakeRazorpay) -> None:
    """Nothing of it is about the payer: nobody may be told that the payment is refused."""
    gateway = RazorpayGateway(
        fake.key_id, "wrong-secret", fake.webhook_secret, base_url=fake.url, timeout_s=5
    )
    with capture_logs() as logs, pytest.raises(GatewayUnavailable) as caught:
        await gateway.create_order(wish())
    await gateway.close()

    assert caught.value.facts["why"] == "keys"
    assert [line["log_level"] for line in logs] == ["error"]
    assert "wrong-secret" not in repr(logs)


async def test_a_closed_gateway_is_unavailable(fake: FakeRazorpay) -> None:
    gateway = RazorpayGateway(
        fake.key_id, fake.key_secret, fake.webhook_secret, base_url=fake.url, timeout_s=1
    )
    with fake.broken(Fault.SILENT):
        # More than there are threads: some only wait.
        waiting = [asyncio.create_task(gateway.attempt("pay_1")) for _ in range(12)]
        await fake.came(8)
        closing = asyncio.create_task(gateway.close())
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        await closing

    assert {type(answer) for answer in answers} == {GatewayUnavailable}
    with pytest.raises(GatewayUnavailable):
        await gateway.attempt("pay_1")
    await gateway.close()


async def test_whoever_gives_up_is_not_kept(fake: FakeRazorpay, gateway: RazorpayGateway) -> None:
    with fake.broken(Fault.SILENT):
        asking = asyncio.create_task(gateway.attempt("pay_1"))
        await fake.came(1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_the_package_prints_nothing(
    fake: FakeRazorpay, gateway: RazorpayGateway, capfd: pytest.CaptureFixture[str]
) -> None:
    """It prints on each failure; our stdout is for the command line."""
    for fault in (Fault.RESET, Fault.HTML_5XX, Fault.HTML_200, Fault.JSON_5XX, Fault.TOO_MANY):
        with fake.broken(fault), pytest.raises(GatewayUnavailable):
            await gateway.attempt("pay_1")
    with pytest.raises(GatewayRefused):
        await gateway.attempt("pay_1")

    assert capfd.readouterr().out == ""


# --- orders ---


async def test_an_order_is_what_checkout_needs(fake: FakeRazorpay, gateway: RazorpayGateway) -> None:
    asked = wish()

    order = await gateway.create_order(asked)

    assert dict(order.shown) == {
        "orderId": order.id,
        "keyId": fake.key_id,
        "amount": "50000",
        "currency": "INR",
    }
    (sent,) = fake.asked
    assert sent.body["receipt"] == asked.reference
    assert sent.body["notes"] == {"payment": asked.reference}
    assert sent.body["payment"]["capture"] == "automatic"


async def test_an_account_that_refuses_known_receipts_is_asked_for_the_order(
    fake: FakeRazorpay, gateway: RazorpayGateway
) -> None:
    fake.books.repeats_receipts = False
    asked = wish()
    order = await gateway.create_order(asked)
    # Another's receipt that holds ours.
    fake.books.create_order({"amount": 100, "currency": "INR", "receipt": asked.reference + "-2"})

    assert (await gateway.create_order(asked)).id == order.id


async def test_a_reference_is_for_one_amount(fake: FakeRazorpay, gateway: RazorpayGateway) -> None:
    asked = wish()
    await gateway.create_order(asked)

    for repeats in (True, False):
        fake.books.repeats_receipts = repeats
        with pytest.raises(GatewayRefused) as caught:
            await gateway.create_order(replace(asked, amount_minor=60_000))
        assert caught.value.facts["reason"] == "reference_reused"


async def test_a_long_reference_is_one_order_and_comes_back_whole(
    fake: FakeRazorpay, gateway: RazorpayGateway
) -> None:
    asked = wish(reference="recharge-" + "x" * 200)

    order, again = await gateway.create_order(asked), await gateway.create_order(asked)
    fake.pay(order.id)

    assert order.id == again.id
    paid = gateway.read_webhook(fake.events[-1].body, fake.events[-1].headers)
    assert paid.kind == "order.paid"
    assert paid.attempt is not None
    assert paid.attempt.reference == asked.reference


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"currency": "USD"}, "currency"),
        ({"amount_minor": 0}, "amount"),
        ({"amount_minor": -100}, "amount"),
        ({"reference": ""}, "reference"),
        ({"reference": "x" * 257}, "reference"),
        ({"amount_minor": 99}, "amount_less_than_minimum_amount"),
    ],
)
async def test_what_cannot_be_ordered_is_refused(
    gateway: RazorpayGateway, changes: Mapping[str, Any], reason: str
) -> None:
    with pytest.raises(GatewayRefused) as caught:
        await gateway.create_order(wish(**changes))

    assert caught.value.facts["reason"] == reason


# --- late banks ---


async def test_what_failed_may_be_authorised_days_later(fake: FakeRazorpay, gateway: RazorpayGateway) -> None:
    order = await gateway.create_order(wish())
    payment_id = fake.fail(order.id)
    fake.authorize_late(payment_id)

    (attempt,) = await gateway.attempts(order.id)
    assert (attempt.id, attempt.status, attempt.failure) == (payment_id, AttemptStatus.AUTHORIZED, None)
    assert (await gateway.capture(attempt)).status is AttemptStatus.COLLECTED
    kinds = [gateway.read_webhook(event.body, event.headers).kind for event in fake.events]
    assert kinds == ["payment.failed", "payment.authorized", "payment.captured", "order.paid"]


async def test_what_went_back_by_itself_was_never_ours(fake: FakeRazorpay, gateway: RazorpayGateway) -> None:
    """Nobody captured it for days, and the payer has the money again: who credits it now gives it away."""
    order = await gateway.create_order(wish())
    payment_id = fake.authorize(order.id)
    (attempt,) = await gateway.attempts(order.id)
    fake.give_up(payment_id)

    with pytest.raises(GatewayRefused):
        await gateway.capture(attempt)

    (known,) = await gateway.attempts(order.id)
    assert (known.status, known.failure) == (AttemptStatus.FAILED, "not_captured")
    told = [gateway.read_webhook(event.body, event.headers) for event in fake.events]
    assert [
        event.attempt for event in told if event.attempt is not None and event.kind != "payment.authorized"
    ] == []
    (refund,) = await gateway.refunds(payment_id)
    assert refund.reference is None


# --- refunds ---


async def test_a_refund_that_the_gateway_no_longer_knows_by_its_key_is_found(
    fake: FakeRazorpay, gateway: RazorpayGateway
) -> None:
    """Nobody says for how long a key is remembered."""
    order = await gateway.create_order(wish())
    payment_id = fake.pay(order.id)["razorpay_payment_id"]
    first = await gateway.refund(payment_id, amount_minor=100, currency="INR", reference="refund-1")
    fake.books._keys.clear()

    again = await gateway.refund(payment_id, amount_minor=100, currency="INR", reference="refund-1")

    assert again.id == first.id
    assert fake.books.payment(payment_id)["amount_refunded"] == 100


@pytest.mark.parametrize("reference", ["refund-1", "refund-" + "x" * 100])
async def test_a_refund_whose_notes_somebody_has_edited_is_found(
    fake: FakeRazorpay, gateway: RazorpayGateway, reference: str
) -> None:
    """People edit notes in the dashboard; a receipt they cannot."""
    order = await gateway.create_order(wish())
    payment_id = fake.pay(order.id)["razorpay_payment_id"]
    first = await gateway.refund(payment_id, amount_minor=100, currency="INR", reference=reference)
    fake.books._keys.clear()
    fake.books.refunds[first.id]["notes"] = {"comment": "asked twice"}

    again = await gateway.refund(payment_id, amount_minor=100, currency="INR", reference=reference)

    assert again.id == first.id
    assert again.reference == reference


async def test_a_refunds_reference_is_for_one_amount(fake: FakeRazorpay, gateway: RazorpayGateway) -> None:
    order = await gateway.create_order(wish())
    payment_id = fake.pay(order.id)["razorpay_payment_id"]
    await gateway.refund(payment_id, amount_minor=100, currency="INR", reference="refund-1")

    with pytest.raises(GatewayRefused) as caught:
        await gateway.refund(payment_id, amount_minor=200, currency="INR", reference="refund-1")

    assert caught.value.facts["reason"] == "reference_reused"
    assert fake.books.payment(payment_id)["amount_refunded"] == 100


async def test_a_refund_beside_anothers_answer_is_found(fake: FakeRazorpay, gateway: RazorpayGateway) -> None:
    """Two processes look, both find nothing, and one is refused since nothing is left."""
    order = await gateway.create_order(wish())
    payment_id = fake.pay(order.id)["razorpay_payment_id"]
    fake.answers.append((200, {"entity": "collection", "count": 0, "items": []}))
    fake.books.refund(
        payment_id, {"amount": 50_000, "receipt": "refund-1", "notes": {"refund": "refund-1"}}, None
    )

    refund = await gateway.refund(payment_id, amount_minor=50_000, currency="INR", reference="refund-1")

    assert [refund.id] == list(fake.books.refunds)


async def test_refunds_go_on_over_pages(fake: FakeRazorpay, gateway: RazorpayGateway) -> None:
    """A refund in doubt may be the hundred and first."""
    order = await gateway.create_order(wish())
    payment_id = fake.pay(order.id)["razorpay_payment_id"]
    for number in range(205):
        fake.books.refund(payment_id, {"amount": 1, "notes": {"refund": f"refund-{number}"}}, None)

    assert len(await gateway.refunds(payment_id)) == 205
    again = await gateway.refund(payment_id, amount_minor=1, currency="INR", reference="refund-0")
    assert again.id == next(iter(fake.books.refunds))


# --- saved means of payment ---


async def saved(fake: FakeRazorpay, gateway: RazorpayGateway) -> SavedMethod:
    order = await gateway.create_order(wish(save_method=True))
    fake.pay(order.id, save_method=True)
    (attempt,) = await gateway.attempts(order.id)
    assert attempt.method is not None
    return attempt.method


async def test_a_mandate_is_of_the_payers_customer(fake: FakeRazorpay, gateway: RazorpayGateway) -> None:
    first = await gateway.create_order(wish(save_method=True))
    again = await gateway.create_order(wish(save_method=True))

    (customer,) = fake.books.customers.values()
    assert first.shown["customerId"] == again.shown["customerId"] == customer["id"]
    assert first.shown["recurring"] == "1"
    assert customer["email"] == "asha+menon@example.com"
    known = await gateway.create_order(wish(save_method=True, customer_id=customer["id"]))
    assert known.shown["customerId"] == customer["id"]


async def test_a_card_whose_mandate_is_not_confirmed_is_no_means_of_payment(
    fake: FakeRazorpay, gateway: RazorpayGateway
) -> None:
    order = await gateway.create_order(wish(save_method=True))
    fake.pay(order.id, save_method=True)
    (token,) = fake.books.tokens.values()
    token["recurring_details"]["status"] = "initiated"

    (attempt,) = await gateway.attempts(order.id)

    assert attempt.status is AttemptStatus.COLLECTED
    assert attempt.method is None


async def test_a_token_that_is_gone_leaves_the_money(fake: FakeRazorpay, gateway: RazorpayGateway) -> None:
    order = await gateway.create_order(wish(save_method=True))
    fake.pay(order.id, save_method=True)
    fake.books.tokens.clear()

    (attempt,) = await gateway.attempts(order.id)

    assert (attempt.status, attempt.method) == (AttemptStatus.COLLECTED, None)


async def test_a_charge_may_wait_for_its_owner_to_be_told(
    fake: FakeRazorpay, gateway: RazorpayGateway
) -> None:
    method = await saved(fake, gateway)
    fake.books.charges_end = "created"
    asked = wish()

    charges = [await gateway.charge_saved(asked, method) for _ in range(2)]

    assert charges[0] == charges[1]
    assert charges[0].status is AttemptStatus.PENDING
    assert charges[0].reference == asked.reference


async def test_a_charge_that_the_bank_declines_is_refused_and_not_tried_again(
    fake: FakeRazorpay, gateway: RazorpayGateway
) -> None:
    """Banks count how often a card is tried."""
    method = await saved(fake, gateway)
    fake.books.charges_end = "card_declined"
    asked = wish()

    for _ in range(3):
        with pytest.raises(GatewayRefused) as caught:
            await gateway.charge_saved(asked, method)
        assert caught.value.facts["reason"] == "card_declined"

    assert [one["status"] for one in fake.books.payments.values()].count("failed") == 1
    found = await gateway.find_charge(asked, method)
    assert found is not None
    assert (found.status, found.failure) == (AttemptStatus.FAILED, "card_declined")


async def test_an_order_for_a_charge_that_was_not_made_is_no_charge(
    fake: FakeRazorpay, gateway: RazorpayGateway
) -> None:
    """The process died between the two: the charge may be asked for."""
    method = await saved(fake, gateway)
    asked = wish()
    order = await gateway.create_order(asked)

    assert await gateway.find_charge(asked, method) is None
    assert (await gateway.charge_saved(asked, method)).order_id == order.id


async def test_charges_at_the_same_time_are_one(fake: FakeRazorpay, gateway: RazorpayGateway) -> None:
    method = await saved(fake, gateway)
    asked = wish()

    charges = await asyncio.gather(*(gateway.charge_saved(asked, method) for _ in range(6)))

    assert len({charge.id for charge in charges}) == 1
    assert [one["status"] for one in fake.books.payments.values()] == ["captured", "captured"]


async def test_a_method_that_will_not_be_forgotten_is_told(
    fake: FakeRazorpay, gateway: RazorpayGateway
) -> None:
    method = await saved(fake, gateway)
    fake.answers.append((400, error(reason="token_in_use")))

    with pytest.raises(GatewayRefused):
        await gateway.forget_method(method)


# --- events on their way ---


async def test_events_come_twice_and_in_any_order(fake: FakeRazorpay, gateway: RazorpayGateway) -> None:
    """What the fake does with them, since the tests of whole recharges lean on it."""
    order = await gateway.create_order(wish())
    fake.fail(order.id)
    fake.pay(order.id)
    came = []

    async def take(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        came.append(gateway.read_webhook(await request.read(), headers))
        return web.Response()

    app = web.Application()
    app.router.add_post("/webhooks/razorpay", take)
    async with TestServer(app) as server:
        url = str(server.make_url("/webhooks/razorpay"))
        statuses = await fake.deliver_to(url, times=2, shuffle=random.Random(7))

    assert statuses == [200] * 8
    told = [gateway.read_webhook(event.body, event.headers) for event in fake.events]
    assert sorted(came, key=lambda event: event.id) == sorted(told * 2, key=lambda event: event.id)
    assert came[:4] != told


async def test_a_fault_can_be_for_some_requests(fake: FakeRazorpay, gateway: RazorpayGateway) -> None:
    def capturing(asked: Asked) -> bool:
        return asked.path.endswith("/capture")

    order = await gateway.create_order(wish())
    fake.authorize(order.id)
    (attempt,) = await gateway.attempts(order.id)
    with fake.broken(Fault.LOST_REPLY, capturing):
        with pytest.raises(GatewayUnavailable):
            await gateway.capture(attempt)
        assert (await gateway.attempt(attempt.id)).status is AttemptStatus.COLLECTED
