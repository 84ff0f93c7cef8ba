"""What Razorpay signs: read from the recorded payloads, and from anything else."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_engine.payments.errors import WebhookInvalid
from billing_engine.payments.model import (
    AttemptStatus,
    DisputeStatus,
    GatewayEvent,
    RefundStatus,
)
from server.gateways.razorpay import RazorpayGateway
from server.gateways.razorpay_webhooks import is_signed_callback, read_event
from tests.support.fake_razorpay_books import PAYLOADS, recorded, sign

SECRET = "a-webhook-secret"
EVENTS = sorted(
    path.stem for path in PAYLOADS.glob("*.json") if json.loads(path.read_text()).get("entity") == "event"
)


def headers(body: bytes, **more: str) -> Mapping[str, str]:
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return {"x-razorpay-signature": signature, "x-razorpay-event-id": "OK4g5h6j7k8l9m", **more}


def read(event: Any) -> GatewayEvent:
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    return read_event(body, headers(body), SECRET)


# --- what they say ---


def test_there_is_a_recorded_payload_of_every_event_that_concerns_us() -> None:
    assert {
        *("payment.authorized", "payment.captured", "payment.failed", "order.paid"),
        *("refund.created", "refund.processed", "refund.failed", "refund.speed_changed"),
        *(
            f"payment.dispute.{step}"
            for step in ("created", "under_review", "action_required", "won", "lost", "closed")
        ),
        *("token.confirmed", "token.rejected", "token.cancelled", "token.paused", "token.activated"),
    } <= set(EVENTS)


@pytest.mark.parametrize(
    ("kind", "status", "failure"),
    [
        ("payment.authorized", AttemptStatus.AUTHORIZED, None),
        ("payment.captured", AttemptStatus.COLLECTED, None),
        ("order.paid", AttemptStatus.COLLECTED, None),
        ("payment.failed", AttemptStatus.FAILED, "insufficient_funds"),
    ],
)
def test_a_payment_is_an_attempt(kind: str, status: AttemptStatus, failure: str | None) -> None:
    event = read(recorded(kind))

    assert (event.id, event.kind) == ("OK4g5h6j7k8l9m", kind)
    assert event.at_ms == recorded(kind)["created_at"] * 1000
    attempt = event.attempt
    assert attempt is not None
    assert (event.refund, event.dispute, event.method) == (None, None, None)
    assert (attempt.status, attempt.failure) == (status, failure)
    assert attempt.order_id == "order_R7kQhUeD4sKm1P"
    assert (attempt.amount_minor, attempt.currency, attempt.refunded_minor) == (50_000, "INR", 0)
    assert attempt.at_ms == 1_764_315_000_000
    assert attempt.method is None


def test_an_order_says_which_payment_of_ours_it_is_for() -> None:
    """A payment alone has the notes of the checkout, and ours stand in the order."""
    order_paid, captured = read(recorded("order.paid")), read(recorded("payment.captured"))

    assert order_paid.attempt is not None
    assert order_paid.attempt.reference == "01KB3H0Z5W8N2V6Q4T7R9YXEMA"
    assert captured.attempt is not None
    assert captured.attempt.reference is None


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("refund.created", RefundStatus.PENDING),
        ("refund.speed_changed", RefundStatus.PENDING),
        ("refund.processed", RefundStatus.DONE),
        ("refund.failed", RefundStatus.FAILED),
    ],
)
def test_a_refund_is_a_refund(kind: str, status: RefundStatus) -> None:
    event = read(recorded(kind))

    assert event.refund is not None
    assert (event.attempt, event.dispute, event.method) == (None, None, None)
    assert event.refund.status is status
    assert event.refund.reference == "01KB3K4T9C2F6H8J1M3P5R7SVX"
    assert (event.refund.payment_id, event.refund.amount_minor) == ("pay_R7kQlzNfWb3TyA", 20_000)


def test_a_refund_of_the_gateway_itself_has_no_reference() -> None:
    """What nobody captured for days goes back by itself."""
    event = recorded("refund.processed")
    event["payload"]["refund"]["entity"] |= {"notes": [], "receipt": None}

    refund = read(event).refund

    assert refund is not None
    assert refund.reference is None


@pytest.mark.parametrize(
    ("kind", "deducted", "status"),
    [
        ("created", 0, DisputeStatus.OPEN),
        ("under_review", 0, DisputeStatus.OPEN),
        ("action_required", 0, DisputeStatus.OPEN),
        # Taken at once, given back if we win.
        ("under_review", 50_000, DisputeStatus.OPEN),
        ("won", 0, DisputeStatus.WON),
        ("lost", 50_000, DisputeStatus.LOST),
        ("closed", 0, DisputeStatus.WON),
        ("closed", 50_000, DisputeStatus.LOST),
    ],
)
def test_a_dispute_is_a_dispute(kind: str, deducted: int, status: DisputeStatus) -> None:
    event = recorded(f"payment.dispute.{kind}")
    event["payload"]["dispute"]["entity"]["amount_deducted"] = deducted

    dispute = read(event).dispute

    assert dispute is not None
    assert (dispute.status, dispute.payment_id, dispute.amount_minor) == (
        status,
        "pay_R7kQlzNfWb3TyA",
        50_000,
    )
    assert dispute.reason == "goods_or_services_not_received_or_partially_received"


@pytest.mark.parametrize(
    ("kind", "is_usable"), [("confirmed", True), ("cancelled", False), ("paused", False), ("rejected", False)]
)
def test_a_token_is_news_of_a_means_of_payment(kind: str, is_usable: bool) -> None:
    news = read(recorded(f"token.{kind}")).method

    assert news is not None
    assert news.is_usable is is_usable
    assert (news.method.id, news.method.customer_id) == ("token_R7kQoD5sHv1JmN", "cust_R7kQf8LbTz6YpQ")
    assert news.method.label == "Visa •••• 4242"


def test_a_card_that_is_only_remembered_is_no_news() -> None:
    """It cannot be charged without its owner's code."""
    event = read(recorded("token.activated"))

    assert event.method is None
    assert event.at_ms == 0


@pytest.mark.parametrize(
    "kind", ["settlement.processed", "payment.downtime.started", "subscription.charged", "x"]
)
def test_what_does_not_concern_us_is_an_event_all_the_same(kind: str) -> None:
    """It is answered 2xx, or the gateway turns the whole endpoint off after a day."""
    event = read(recorded("settlement.processed") | {"event": kind})

    assert event.kind == kind
    assert (event.attempt, event.refund, event.dispute, event.method) == (None, None, None, None)


# --- ids ---


@pytest.mark.parametrize("kind", EVENTS)
def test_an_event_that_comes_again_is_the_same(kind: str) -> None:
    assert read(recorded(kind)) == read(recorded(kind))


@pytest.mark.parametrize("given_id", [None, "", "\x00", "ü", "x" * 1000, "a\r\nb"])
def test_an_event_without_an_id_is_known_by_its_body(given_id: str | None) -> None:
    first, other = (json.dumps(recorded(kind)).encode() for kind in ("payment.captured", "order.paid"))

    def event_id(body: bytes) -> str:
        sent = dict(headers(body))
        del sent["x-razorpay-event-id"]
        return read_event(
            body, sent if given_id is None else {**sent, "x-razorpay-event-id": given_id}, SECRET
        ).id

    assert event_id(first) == event_id(first) == "sha256_" + hashlib.sha256(first).hexdigest()
    assert event_id(other) != event_id(first)


# --- what is none ---

BAD_AMOUNTS = [None, True, 500.0, "50000", -1, 1 << 63, [], {}]
#: "\ud800" is JSON and no text: nothing can store it.
BAD_TEXTS = [None, "", 7, True, [], {}, "\ud800", "a\nb", "x" * 300]


@pytest.mark.parametrize("kind", ["payment.captured", "refund.processed", "payment.dispute.lost"])
@pytest.mark.parametrize("field", ["amount", "created_at"])
@pytest.mark.parametrize("value", BAD_AMOUNTS, ids=repr)
def test_an_amount_is_a_whole_number(kind: str, field: str, value: Any) -> None:
    """500.0 rupees and 500 paise look alike to those who are not strict."""
    event = recorded(kind)
    part = "payment" if kind == "payment.captured" else kind.split(".")[-2]
    event["payload"][part]["entity"][field] = value

    with pytest.raises(WebhookInvalid):
        read(event)


@pytest.mark.parametrize("kind", ["payment.captured", "refund.processed", "payment.dispute.lost"])
@pytest.mark.parametrize("field", ["id", "entity", "currency", "status", "payment_id"])
@pytest.mark.parametrize("value", BAD_TEXTS, ids=repr)
def test_a_word_is_a_word(kind: str, field: str, value: Any) -> None:
    event = recorded(kind)
    part = "payment" if kind == "payment.captured" else kind.split(".")[-2]
    if field not in event["payload"][part]["entity"] or (part, field) == ("dispute", "status"):
        return  # The dispute's status stands in the event's name.
    event["payload"][part]["entity"][field] = value

    with pytest.raises(WebhookInvalid):
        read(event)


@pytest.mark.parametrize("kind", ["payment.captured", "refund.processed", "payment.dispute.won"])
@pytest.mark.parametrize("name", ["../x", "a b", "pay_1?x", "x" * 65, "pay_ü"])
def test_an_id_of_the_gateway_is_one(kind: str, name: str) -> None:
    event = recorded(kind)
    part = "payment" if kind == "payment.captured" else kind.split(".")[-2]
    event["payload"][part]["entity"]["id"] = name

    with pytest.raises(WebhookInvalid):
        read(event)


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "x",
        {},
        {"payment": None},
        {"payment": {}},
        {"payment": {"entity": None}},
        {"payment": {"entity": []}},
    ],
    ids=repr,
)
def test_an_event_has_what_its_name_says(payload: Any) -> None:
    with pytest.raises(WebhookInvalid):
        read(recorded("payment.captured") | {"payload": payload})


@pytest.mark.parametrize(
    "body",
    [
        b'{"entity": "event", "event": "x", "created_at": NaN}',
        b'{"entity": "event", "event": "x", "created_at": 1e400}',
    ],
)
def test_what_is_no_number_is_none(body: bytes) -> None:
    with pytest.raises(WebhookInvalid):
        read(body)


def test_what_is_wrong_is_named_and_not_repeated() -> None:
    """An error is logged, and the body has a card in it."""
    event = recorded("payment.captured")
    event["payload"]["payment"]["entity"]["amount"] = "4242 Asha Menon"

    with pytest.raises(WebhookInvalid) as caught:
        read(event)

    assert caught.value.facts == {"gateway": "razorpay", "why": "shape", "what": "amount"}
    with pytest.raises(WebhookInvalid) as caught:
        read(json.dumps(recorded("payment.captured")).encode()[:-1])
    assert caught.value.__cause__ is None
    assert "Asha" not in repr(caught.value)


paths = st.lists(st.integers(0, 30), min_size=1, max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(kind=st.sampled_from(EVENTS), path=paths, value=values)
def test_whatever_stands_anywhere_it_is_an_event_or_none(kind: str, path: list[int], value: Any) -> None:
    """A 500 for a signed body would be sent again for a day, and then the endpoint is off."""
    event = deepcopy(recorded(kind))
    place: Any = event
    for step in path:
        names = sorted(place)
        key = names[step % len(names)]
        if not isinstance(place[key], dict) or not place[key]:
            break
        place = place[key]
    else:
        key = min(place)
    place[key] = value

    try:
        found = read(event)
    except WebhookInvalid:
        return
    repr(found).encode()


# --- signatures ---


def test_the_package_itself_would_accept_what_is_signed() -> None:
    assert is_signed_callback("order_1", "pay_1", sign("order_1|pay_1", SECRET), SECRET)


@pytest.mark.parametrize(
    "order_id", [None, b"order_1", 1, "", "\ud800", "order_2", "ordér_1", "o" * 1_000_000]
)
def test_a_callback_of_another_order_is_none(order_id: Any) -> None:
    assert not is_signed_callback(order_id, "pay_1", sign("order_1|pay_1", SECRET), SECRET)


@pytest.mark.parametrize("payment_id", [None, b"pay_1", 1, "", "\ud800", "pay_2", "päy_1"])
def test_a_callback_of_another_payment_is_none(payment_id: Any) -> None:
    assert not is_signed_callback("order_1", payment_id, sign("order_1|pay_1", SECRET), SECRET)


def test_a_callback_signed_with_the_secret_of_the_webhooks_is_none() -> None:
    gateway = RazorpayGateway("key", "key-secret", "webhook-secret")

    assert not gateway.verify_callback("order_1", "pay_1", sign("order_1|pay_1", "webhook-secret"))
    assert gateway.verify_callback("order_1", "pay_1", sign("order_1|pay_1", "key-secret"))


def test_an_event_signed_with_the_secret_of_the_keys_is_none() -> None:
    gateway = RazorpayGateway("key", "key-secret", SECRET)
    body = json.dumps(recorded("payment.captured")).encode()

    with pytest.raises(WebhookInvalid):
        gateway.read_webhook(body, {"x-razorpay-signature": sign(body.decode(), "key-secret")})
    assert gateway.read_webhook(body, headers(body)).attempt is not None


def test_a_megabyte_that_is_signed_is_read() -> None:
    body = json.dumps(recorded("payment.captured") | {"padding": "x" * 1_000_000}).encode()

    assert read(body).attempt is not None


@pytest.mark.parametrize("secrets", [("", "k", "w"), ("i", "", "w"), ("i", "k", "")])
def test_nothing_is_opened_without_secrets(secrets: tuple[str, str, str]) -> None:
    """With an empty one everybody could sign."""
    with pytest.raises(ValueError, match="needs a key id"):
        RazorpayGateway(*secrets)
