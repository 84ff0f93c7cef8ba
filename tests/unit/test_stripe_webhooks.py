"""Stripe's signed events: what is believed, and what is made of each."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stripe import WebhookSignature

from billing_engine.payments.errors import WebhookInvalid
from billing_engine.payments.model import (
    AttemptStatus,
    DisputeStatus,
    GatewayEvent,
    RefundStatus,
    SubscriptionHint,
    SubscriptionNews,
)
from server.gateways.stripe_webhooks import _READERS, MAX_BYTES, TOLERANCE_S, StripeWebhooks
from tests.support.fake_stripe_books import payload

SECRET = "whsec_of_this_test"
NOW_S = 1_795_000_000


def event(kind: str, found: dict[str, Any], **data: Any) -> bytes:
    return json.dumps(payload("event", type=kind, data={"object": found, **data}), indent=2).encode()


def signed(body: bytes, *, at_s: int = NOW_S, secret: str = SECRET) -> dict[str, str]:
    return {"stripe-signature": WebhookSignature.generate_signature_header(body.decode(), secret, at_s)}


def read(body: bytes, headers: dict[str, str] | None = None, *, now_s: float = NOW_S) -> GatewayEvent:
    return StripeWebhooks(SECRET, lambda: now_s).read(body, signed(body) if headers is None else headers)


PAID = event("payment_intent.succeeded", payload("payment_intent", status="succeeded", amount_received=2_500))


def test_a_signed_event_is_believed() -> None:
    found = read(PAID)

    assert (found.id, found.kind, found.at_ms) == (
        payload("event")["id"],
        "payment_intent.succeeded",
        NOW_S * 1000,
    )
    assert found.attempt is not None


@pytest.mark.parametrize(
    "kind", ["succeeded", "processing", "canceled", "payment_failed", "amount_capturable_updated"]
)
def test_payments_are_attempts(kind: str) -> None:
    intent = payload("payment_intent", status="processing")

    assert read(event(f"payment_intent.{kind}", intent)).attempt is not None


@pytest.mark.parametrize(
    ("kind", "payment_status", "status"),
    [
        ("completed", "paid", AttemptStatus.COLLECTED),
        ("completed", "unpaid", AttemptStatus.PENDING),
        ("async_payment_succeeded", "paid", AttemptStatus.COLLECTED),
        ("async_payment_failed", "unpaid", AttemptStatus.FAILED),
        ("expired", "unpaid", AttemptStatus.FAILED),
    ],
)
def test_sessions_are_attempts(kind: str, payment_status: str, status: AttemptStatus) -> None:
    session = payload("checkout_session", payment_intent="pi_1", payment_status=payment_status)

    attempt = read(event(f"checkout.session.{kind}", session)).attempt

    assert attempt is not None
    assert attempt.status is status


def test_a_session_that_nobody_tried_to_pay_expires_without_an_attempt() -> None:
    found = read(event("checkout.session.expired", payload("checkout_session", status="expired")))

    assert (found.attempt, found.refund, found.dispute, found.method) == (None, None, None, None)


@pytest.mark.parametrize(
    "kind", ["refund.created", "refund.updated", "refund.failed", "charge.refund.updated"]
)
def test_refunds_are_refunds(kind: str) -> None:
    refund = read(event(kind, payload("refund", status="succeeded"))).refund

    assert refund is not None
    assert refund.status is RefundStatus.DONE


def test_a_refunded_charge_is_an_attempt_with_what_went_back() -> None:
    attempt = read(event("charge.refunded", payload("charge", amount_refunded=100))).attempt

    assert attempt is not None
    assert attempt.refunded_minor == 1_000_000


@pytest.mark.parametrize("kind", ["created", "updated", "closed", "funds_withdrawn", "funds_reinstated"])
def test_disputes_are_disputes(kind: str) -> None:
    dispute = read(event(f"charge.dispute.{kind}", payload("dispute"))).dispute

    assert dispute is not None
    assert dispute.status is DisputeStatus.OPEN


def test_cards_that_are_kept_and_gone_are_told() -> None:
    setup = payload("setup_intent", status="succeeded", customer="cus_1", payment_method="pm_1")

    came = read(event("setup_intent.succeeded", setup)).method
    went = read(
        event(
            "payment_method.detached",
            payload("payment_method", id="pm_1"),
            previous_attributes={"customer": "cus_1"},
        )
    ).method

    assert came is not None
    assert went is not None
    assert (came.is_usable, went.is_usable) == (True, False)
    assert (came.method.id, came.method.customer_id) == (went.method.id, went.method.customer_id)


@pytest.mark.parametrize("kind", ["created", "updated", "deleted", "paused", "resumed"])
def test_subscriptions_are_hints(kind: str) -> None:
    told = read(event(f"customer.subscription.{kind}", payload("subscription", id="sub_1")))

    assert told.subscription == SubscriptionNews("sub_1", SubscriptionHint.CHANGED)


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("paid", SubscriptionHint.INVOICE_PAID),
        ("payment_failed", SubscriptionHint.PAYMENT_FAILED),
        ("payment_action_required", SubscriptionHint.ACTION_REQUIRED),
    ],
)
def test_invoices_of_subscriptions_are_hints(kind: str, hint: SubscriptionHint) -> None:
    invoice = payload("invoice")
    sub_id = invoice["parent"]["subscription_details"]["subscription"]
    of_old = {name: value for name, value in invoice.items() if name != "parent"} | {"subscription": sub_id}

    for found in (invoice, of_old):
        assert read(event(f"invoice.{kind}", found)).subscription == SubscriptionNews(sub_id, hint)
    assert read(event(f"invoice.{kind}", {**invoice, "parent": None})).subscription is None


def test_a_session_that_sold_a_subscription_is_no_attempt() -> None:
    """It has no payment of its own: taken for one, a wallet would be looked for."""
    sold = payload("checkout_session", mode="subscription", subscription="sub_1", payment_intent="pi_1")

    told = read(event("checkout.session.completed", sold))

    assert (told.attempt, told.subscription) == (None, SubscriptionNews("sub_1", SubscriptionHint.CHANGED))


@pytest.mark.parametrize(
    "kind", ["payment_intent.created", "charge.succeeded", "invoice.paid", "customer.created", "of.tomorrow"]
)
def test_what_does_not_concern_us_is_an_event_about_nothing(kind: str) -> None:
    """It is answered 200: Stripe would send it again for three days."""
    found = read(event(kind, {"object": "whatever"}))

    assert (found.kind, found.attempt, found.refund, found.dispute, found.method) == (
        kind,
        None,
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("age_s", "is_believed"),
    [
        (0, True),
        (TOLERANCE_S - 1, True),
        (TOLERANCE_S, True),
        (TOLERANCE_S + 1, False),
        (86_400 * 3, False),
        (-TOLERANCE_S, True),
    ],
)
def test_an_old_signature_is_none(age_s: int, is_believed: bool) -> None:
    """A recorded event could be sent again for ever. One from the future is our own clock that is behind."""
    if is_believed:
        read(PAID, now_s=NOW_S + age_s)
    else:
        with pytest.raises(WebhookInvalid, match="too long ago"):
            read(PAID, now_s=NOW_S + age_s)


def test_the_clock_is_the_one_that_was_given() -> None:
    long_ago_s = 1_000_000_000
    assert long_ago_s < time.time() - TOLERANCE_S

    read(PAID, signed(PAID, at_s=long_ago_s), now_s=long_ago_s)


def test_while_a_secret_is_rolled_one_of_two_signatures_is_enough() -> None:
    old = signed(PAID, secret="whsec_old")["stripe-signature"]
    new = signed(PAID)["stripe-signature"].split(",")[1]

    read(PAID, {"stripe-signature": f"{old},{new}"})


def header(**changes: str) -> str:
    parts = dict(part.split("=", 1) for part in signed(PAID)["stripe-signature"].split(","))
    return ",".join(f"{name}={value}" for name, value in {**parts, **changes}.items())


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "t",
        "t=",
        "t=,v1=",
        "t=x,v1=00",
        "v1=" + "0" * 64,
        f"t={NOW_S}",
        f"t={NOW_S},v1=",
        f"t={NOW_S},v1=" + "0" * 64,
        f"t={NOW_S},v1=é" + "0" * 63,
        f"t={NOW_S},v1=" + "\u0660" * 64,
        "☃",
        "\ud800",
        "\x00",
        header(t=str(NOW_S + 1)),
        header(t=str(-NOW_S)),
        header(t="٣"),
        header(t="9" * 5_000),
        header(v1=header().split("v1=")[1].upper()),
        header(v1=header().split("v1=")[1][:-1]),
        header().replace("v1=", "v0="),
        "t=1," * 100_000 + "v1=00",
    ],
)
def test_what_is_no_signature_of_it_is_none(value: str) -> None:
    with pytest.raises(WebhookInvalid, match="not signed"):
        read(PAID, {"stripe-signature": value})


def test_the_age_that_counts_is_the_one_that_was_signed() -> None:
    """A second `t=` in front or behind makes nothing young."""
    old = signed(PAID, at_s=NOW_S - 2 * TOLERANCE_S)["stripe-signature"]
    for value in (f"t={NOW_S},{old}", f"{old},t={NOW_S}", f" t={NOW_S},{old}"):
        with pytest.raises(WebhookInvalid):
            read(PAID, {"stripe-signature": value})


@pytest.mark.parametrize("headers", [{}, {"Stripe-Signature": header()}, {"x-razorpay-signature": header()}])
def test_without_the_header_nothing_is_believed(headers: dict[str, str]) -> None:
    with pytest.raises(WebhookInvalid):
        read(PAID, headers)


def test_another_endpoints_secret_is_no_signature() -> None:
    with pytest.raises(WebhookInvalid):
        read(PAID, signed(PAID, secret="whsec_another"))


@pytest.mark.parametrize("secret", ["", " ", "\n"])
def test_without_a_secret_nothing_is_believed(secret: str) -> None:
    """An empty setting must not make a signature with an empty key valid."""
    body = PAID
    with pytest.raises(WebhookInvalid):
        StripeWebhooks(secret, lambda: NOW_S).read(body, signed(body, secret=secret))


@pytest.mark.parametrize("length", [0, MAX_BYTES + 1, 1_000_000])
def test_an_empty_or_huge_body_is_not_even_hashed(length: int) -> None:
    body = b" " * length

    with pytest.raises(WebhookInvalid, match=r"no body|too long"):
        read(body)


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b"7",
        b"{}",
        b'{"object": "event"}',
        b'{"object": "v2.core.event", "id": "evt_1", "type": "x", "created": 1}',
        b'{"object": "event", "id": "", "type": "x", "created": 1}',
        b'{"object": "event", "id": "evt_1", "type": 7, "created": 1}',
        b'{"object": "event", "id": "evt_1", "type": "x", "created": "soon"}',
        b'{"object": "event", "id": "evt_1", "type": "x", "created": Infinity}',
        b'{"object": "event", "id": "evt_1", "type": "refund.created", "created": 1}',
        b'{"object": "event", "id": "evt_1", "type": "refund.created", "created": 1, "data": null}',
        b'{"object": "event", "id": "evt_1", "type": "refund.created", "created": 1, "data": {"object": []}}',
        b"[" * 100_000,
    ],
    ids=range(14),
)
def test_a_signed_body_that_is_no_event_is_refused_aloud(body: bytes) -> None:
    """Answered 400, Stripe keeps it and shows it: an event about money is not lost because we cannot read it."""
    with pytest.raises(WebhookInvalid, match="no event"):
        read(body)


def test_an_error_repeats_neither_the_body_nor_the_signature() -> None:
    body = b'{"object": "event", "email": "payer@example.com"}'
    for headers in (signed(body), signed(body, secret="whsec_another")):
        with pytest.raises(WebhookInvalid) as caught:
            read(body, headers)

        seen = (
            f"{caught.value!r} {caught.value.facts} {caught.value.__cause__!r} {caught.value.__context__!r}"
        )
        assert "payer@" not in seen
        assert headers["stripe-signature"].split("v1=")[1] not in seen
        assert SECRET not in seen


OBJECTS = {
    "checkout.session.": payload("checkout_session", payment_intent="pi_1", payment_status="paid"),
    "payment_intent.": payload(
        "payment_intent",
        status="succeeded",
        amount_received=2_500,
        customer="cus_1",
        payment_method="pm_1",
        setup_future_usage="off_session",
    ),
    "charge.refunded": payload("charge"),
    "charge.refund.": payload("refund"),
    "refund.": payload("refund"),
    "charge.dispute.": payload("dispute"),
    "setup_intent.": payload("setup_intent", status="succeeded", customer="cus_1", payment_method="pm_1"),
    "payment_method.": payload("payment_method"),
    "customer.subscription.": payload("subscription"),
    "invoice.": payload("invoice"),
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data(), kind=st.sampled_from(sorted(_READERS)))
def test_whatever_a_signed_event_holds_it_is_read_or_refused(data: st.DataObject, kind: str) -> None:
    """An error of another kind would be a 500, and Stripe would send it again for three days."""
    (found,) = [value for start, value in OBJECTS.items() if kind.startswith(start)]
    assert event_of(kind, found)
    names = data.draw(st.lists(st.sampled_from(sorted(found)), min_size=1, max_size=3))

    try:
        told = event_of(kind, found | {name: data.draw(json_values) for name in names})
    except WebhookInvalid:
        return

    for part in (told.attempt, told.refund, told.dispute):
        if part is not None:
            assert part.id
            assert isinstance(part.id, str)
            assert type(part.amount_minor) is int
            assert part.amount_minor >= 0
            assert isinstance(part.currency, str)
    if told.attempt is not None:
        assert told.attempt.reference is None or isinstance(told.attempt.reference, str)
    if told.subscription is not None:
        assert told.subscription.subscription_id
        assert isinstance(told.subscription.subscription_id, str)


def event_of(kind: str, found: dict[str, Any]) -> GatewayEvent:
    return read(event(kind, found, previous_attributes={}))
