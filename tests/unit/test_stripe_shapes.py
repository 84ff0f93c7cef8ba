"""Stripe's objects in our words."""

import copy
from typing import Any

import pytest
import stripe

from billing_engine.payments.model import (
    AttemptStatus,
    DisputeStatus,
    RefundStatus,
    SavedMethod,
)
from server.gateways.stripe_shapes import (
    attempt_of_charge,
    attempt_of_intent,
    attempt_of_session,
    detached,
    dispute_of,
    kept_by_setup,
    refund_of,
    was_tried,
)
from tests.support.fake_stripe_books import payload

KINDS = {
    "checkout_session": stripe.checkout.Session,
    "payment_intent": stripe.PaymentIntent,
    "charge": stripe.Charge,
    "refund": stripe.Refund,
    "dispute": stripe.Dispute,
    "payment_method": stripe.PaymentMethod,
    "setup_intent": stripe.SetupIntent,
    "customer": stripe.Customer,
    "event": stripe.Event,
    "card_error": stripe.PaymentIntent.LastPaymentError,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_recorded_shapes_have_only_fields_that_stripe_has(kind: str) -> None:
    """The package's classes are generated from Stripe's own description."""
    assert payload(kind).keys() <= KINDS[kind].__annotations__.keys()


@pytest.mark.parametrize(
    ("status", "ours"),
    [
        ("succeeded", AttemptStatus.COLLECTED),
        ("processing", AttemptStatus.PENDING),
        ("requires_action", AttemptStatus.PENDING),
        ("requires_confirmation", AttemptStatus.PENDING),
        ("requires_payment_method", AttemptStatus.PENDING),
        ("requires_capture", AttemptStatus.AUTHORIZED),
        ("canceled", AttemptStatus.FAILED),
        ("a status of tomorrow", AttemptStatus.PENDING),
    ],
)
def test_every_status_of_a_payment_is_one_of_ours(status: str, ours: AttemptStatus) -> None:
    intent = payload("payment_intent", status=status, metadata={"payment": "p1"})
    intent["amount_received"] = 2_500 if status == "succeeded" else 0

    attempt = attempt_of_intent(intent)

    assert attempt.status is ours
    assert (attempt.amount_minor, attempt.currency) == (25_000_000, "USD")
    assert attempt.reference == "p1"
    assert attempt.at_ms == 1_795_000_000_000


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (
            {"code": "card_declined", "decline_code": "insufficient_funds", "type": "card_error"},
            "insufficient_funds",
        ),
        ({"code": "expired_card", "type": "card_error"}, "expired_card"),
        ({"type": "api_error"}, "api_error"),
    ],
)
def test_a_payment_that_failed_says_why(error: dict[str, str], failure: str) -> None:
    intent = payload("payment_intent", status="requires_payment_method", last_payment_error=error)

    attempt = attempt_of_intent(intent)

    assert (attempt.status, attempt.failure) == (AttemptStatus.FAILED, failure)
    assert was_tried(intent)


def test_an_intent_that_nobody_tried_is_no_attempt() -> None:
    assert not was_tried(payload("payment_intent"))


def test_an_old_error_does_not_make_a_payment_that_goes_on_fail() -> None:
    """The second card is being asked while the first one's refusal still stands there."""
    intent = payload("payment_intent", status="processing", last_payment_error={"code": "card_declined"})

    attempt = attempt_of_intent(intent)

    assert (attempt.status, attempt.failure) == (AttemptStatus.PENDING, None)


def test_what_was_received_counts() -> None:
    """Of an authorised amount, a part may have been captured."""
    intent = payload("payment_intent", status="succeeded", amount_received=2_000)

    assert attempt_of_intent(intent).amount_minor == 20_000_000


def kept(**changes: Any) -> SavedMethod | None:
    facts = {
        "status": "succeeded",
        "customer": "cus_1",
        "payment_method": "pm_1",
        "setup_future_usage": "off_session",
        "latest_charge": payload("charge"),
    }
    return attempt_of_intent(payload("payment_intent", **{**facts, **changes})).method


def test_a_card_that_the_payer_left_is_told_with_a_label_for_people() -> None:
    assert kept() == SavedMethod("pm_1", "cus_1", "visa •••• 4242")
    # An event does not carry the charge.
    assert kept(latest_charge="ch_1") == SavedMethod("pm_1", "cus_1", "card")


@pytest.mark.parametrize(
    "changes",
    [
        {"setup_future_usage": None},
        {"setup_future_usage": "on_session"},
        {"customer": None},
        {"payment_method": None},
        {"status": "processing"},
        {"status": "requires_payment_method"},
    ],
)
def test_what_the_payer_has_not_left_is_none(changes: dict[str, Any]) -> None:
    """A card is charged again only if its owner agreed, and only after it has paid once."""
    assert kept(**changes) is None


@pytest.mark.parametrize(
    ("details", "label"),
    [
        (
            {
                "type": "us_bank_account",
                "us_bank_account": {"bank_name": "STRIPE TEST BANK", "last4": "6789"},
            },
            "STRIPE TEST BANK •••• 6789",
        ),
        ({"type": "sepa_debit", "sepa_debit": {"last4": "3000"}}, "sepa_debit •••• 3000"),
        ({"type": "link", "link": {"country": "US"}}, "link"),
        ({"type": "link"}, "link"),
    ],
)
def test_other_means_of_payment_have_a_label_too(details: dict[str, Any], label: str) -> None:
    charge = payload("charge", payment_method_details=details)

    method = kept(latest_charge=charge)

    assert method is not None
    assert method.label == label


@pytest.mark.parametrize(
    ("payment_status", "failure", "ours"),
    [
        ("paid", None, AttemptStatus.COLLECTED),
        # Paid is paid, whatever the event is called.
        ("paid", "expired", AttemptStatus.COLLECTED),
        ("unpaid", None, AttemptStatus.PENDING),
        ("unpaid", "async_payment_failed", AttemptStatus.FAILED),
    ],
)
def test_a_session_tells_of_its_payment(
    payment_status: str, failure: str | None, ours: AttemptStatus
) -> None:
    session = payload(
        "checkout_session", payment_intent="pi_1", client_reference_id="p1", payment_status=payment_status
    )

    attempt = attempt_of_session(session, failure)

    assert attempt is not None
    assert (attempt.id, attempt.order_id, attempt.reference) == ("pi_1", session["id"], "p1")
    assert (attempt.amount_minor, attempt.currency, attempt.status) == (25_000_000, "USD", ours)
    assert (attempt.failure is None) == (ours is not AttemptStatus.FAILED)


@pytest.mark.parametrize("changes", [{"payment_intent": None}, {"mode": "setup"}, {"mode": "subscription"}])
def test_a_session_without_a_payment_tells_of_none(changes: dict[str, Any]) -> None:
    session = payload("checkout_session", payment_intent="pi_1") | changes

    assert attempt_of_session(session, None) is None


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        ({}, AttemptStatus.COLLECTED),
        ({"captured": False}, AttemptStatus.AUTHORIZED),
        ({"status": "pending"}, AttemptStatus.PENDING),
        ({"status": "failed", "failure_code": "card_declined"}, AttemptStatus.FAILED),
    ],
)
def test_a_charge_tells_of_its_payment(changes: dict[str, Any], ours: AttemptStatus) -> None:
    charge = payload("charge", amount_refunded=1_000, metadata={"payment": "p1"}) | changes

    attempt = attempt_of_charge(charge)

    assert attempt is not None
    assert (attempt.id, attempt.reference) == (charge["payment_intent"], "p1")
    assert (attempt.amount_minor, attempt.refunded_minor, attempt.status) == (25_000_000, 10_000_000, ours)


@pytest.mark.parametrize(
    ("status", "ours"),
    [
        ("pending", RefundStatus.PENDING),
        ("requires_action", RefundStatus.PENDING),
        ("succeeded", RefundStatus.DONE),
        ("failed", RefundStatus.FAILED),
        ("canceled", RefundStatus.FAILED),
        ("a status of tomorrow", RefundStatus.PENDING),
    ],
)
def test_every_status_of_a_refund_is_one_of_ours(status: str, ours: RefundStatus) -> None:
    refund = refund_of(payload("refund", status=status, metadata={"refund": "r1"}))

    assert refund is not None
    assert (refund.status, refund.reference, refund.amount_minor) == (ours, "r1", 10_000_000)


@pytest.mark.parametrize(
    ("status", "ours"),
    [
        ("needs_response", DisputeStatus.OPEN),
        ("under_review", DisputeStatus.OPEN),
        ("warning_needs_response", DisputeStatus.OPEN),
        ("warning_under_review", DisputeStatus.OPEN),
        ("appeal_needs_response", DisputeStatus.OPEN),
        ("appeal_under_review", DisputeStatus.OPEN),
        ("a status of tomorrow", DisputeStatus.OPEN),
        ("warning_closed", DisputeStatus.WON),
        ("prevented", DisputeStatus.WON),
        ("won", DisputeStatus.WON),
        ("lost", DisputeStatus.LOST),
    ],
)
def test_every_status_of_a_dispute_is_one_of_ours(status: str, ours: DisputeStatus) -> None:
    dispute = dispute_of(payload("dispute", status=status))

    assert dispute is not None
    assert (dispute.status, dispute.reason, dispute.amount_minor) == (ours, "fraudulent", 25_000_000)


def test_what_is_of_no_payment_is_not_ours() -> None:
    """An old charge, or one that another product made without a payment."""
    assert attempt_of_charge(payload("charge", payment_intent=None)) is None
    assert refund_of(payload("refund", payment_intent=None)) is None
    assert dispute_of(payload("dispute", payment_intent=None)) is None


def test_a_card_kept_without_paying_is_told() -> None:
    setup = payload(
        "setup_intent",
        status="succeeded",
        customer="cus_1",
        payment_method="pm_1",
        metadata={"payment": "p1"},
    )

    news = kept_by_setup(setup)
    with_card = kept_by_setup(setup | {"payment_method": payload("payment_method", id="pm_1")})

    assert news is not None
    assert with_card is not None
    assert (news.method, news.is_usable, news.reference) == (SavedMethod("pm_1", "cus_1", "card"), True, "p1")
    assert with_card.method.label == "visa •••• 4242"
    for changes in ({"status": "processing"}, {"customer": None}, {"payment_method": None}):
        assert kept_by_setup(setup | changes) is None


def test_a_card_that_is_gone_is_told_with_whose_it_was() -> None:
    news = detached(payload("payment_method", id="pm_1"), {"customer": "cus_1"})

    assert news.method == SavedMethod("pm_1", "cus_1", "visa •••• 4242")
    assert not news.is_usable
    assert detached(payload("payment_method"), {}).method.customer_id == ""


SHAPES = {
    "payment_intent": (attempt_of_intent, ["id", "amount", "currency", "status", "created"]),
    "charge": (
        attempt_of_charge,
        ["amount_captured", "amount_refunded", "currency", "status", "captured", "created"],
    ),
    "refund": (refund_of, ["id", "amount", "currency", "status", "created"]),
    "dispute": (dispute_of, ["id", "amount", "currency", "status", "created"]),
}


@pytest.mark.parametrize(("kind", "field"), [(kind, name) for kind in SHAPES for name in SHAPES[kind][1]])
@pytest.mark.parametrize("value", [None, [], {}, "", -1, True, 1.5])
def test_a_field_that_is_something_else_is_an_error_and_never_a_zero(
    kind: str, field: str, value: Any
) -> None:
    """Unknown is not zero: a payment of nothing would be booked."""
    shape, _fields = SHAPES[kind]
    whole = payload(kind)
    without, other = copy.deepcopy(whole), {**whole, field: value}
    del without[field]

    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        shape(without)
    if field == "captured":
        return
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        shape(other)


@pytest.mark.parametrize("metadata", [None, {}, {"payment": ""}, {"payment": 7}, {"other": "p1"}])
def test_without_our_word_in_it_there_is_no_reference(metadata: Any) -> None:
    assert attempt_of_intent(payload("payment_intent", metadata=metadata)).reference is None
