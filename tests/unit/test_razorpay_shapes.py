"""Razorpay's objects in our words."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_engine.payments.model import AttemptStatus
from server.gateways.razorpay_shapes import (
    ShapeError,
    attempt_of,
    is_chargeable,
    is_id,
    items_of,
    method_of,
    order_of,
    receipt_of,
)
from tests.support.fake_razorpay_books import recorded, recorded_entity


@pytest.mark.parametrize(
    ("status", "ours"),
    [
        ("created", AttemptStatus.PENDING),
        ("authorized", AttemptStatus.AUTHORIZED),
        ("captured", AttemptStatus.COLLECTED),
        ("refunded", AttemptStatus.COLLECTED),
        ("failed", AttemptStatus.FAILED),
    ],
)
def test_every_status_of_a_payment_has_one_of_ours(status: str, ours: AttemptStatus) -> None:
    payment = recorded_entity("payment.captured", "payment") | {"status": status}

    assert attempt_of(payment).status is ours


def test_a_status_that_nobody_knows_is_not_guessed() -> None:
    with pytest.raises(ShapeError, match="status"):
        attempt_of(recorded_entity("payment.captured", "payment") | {"status": "settled"})


def test_what_is_refunded_keeps_what_came() -> None:
    payment = recorded_entity("payment.captured", "payment")

    attempt = attempt_of(payment | {"status": "refunded", "amount_refunded": 50_000})

    assert (attempt.amount_minor, attempt.refunded_minor) == (50_000, 50_000)


def test_what_the_gateway_sent_back_by_itself_was_never_ours() -> None:
    """Its status is that of a refund of ours; only that it was never captured tells them apart."""
    payment = recorded_entity("payment.authorized", "payment")

    attempt = attempt_of(payment | {"status": "refunded", "amount_refunded": 50_000})

    assert (attempt.status, attempt.failure) == (AttemptStatus.FAILED, "not_captured")


def test_a_payment_through_upi_is_a_payment() -> None:
    attempt = attempt_of(recorded("payment.upi"))

    assert (attempt.id, attempt.status) == ("pay_R7kQlzNfWb3TyA", AttemptStatus.COLLECTED)


@pytest.mark.parametrize(
    ("said", "failure"), [({"error_reason": None}, "BAD_REQUEST_ERROR"), ({}, "insufficient_funds")]
)
def test_a_failure_is_a_word(said: dict[str, object], failure: str) -> None:
    """The description is prose and names the bank."""
    assert attempt_of(recorded_entity("payment.failed", "payment") | said).failure == failure


def test_a_failure_without_a_reason_is_one() -> None:
    payment = recorded_entity("payment.failed", "payment") | {"error_reason": "", "error_code": ""}

    assert attempt_of(payment).failure == "unknown"


def test_a_payment_without_an_order_is_a_payment() -> None:
    """Made in the dashboard: it is in the gateway's list, and the daily comparison names it."""
    for order_id in (None, ""):
        payment = recorded_entity("payment.captured", "payment") | {"order_id": order_id}
        assert attempt_of(payment).order_id is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"recurring": False}, False),
        ({"recurring": 1}, False),
        ({"recurring_details": {"status": "initiated", "failure_reason": None}}, False),
        ({"recurring_details": {"status": "paused", "failure_reason": None}}, False),
        ({"recurring_details": None}, True),
    ],
)
def test_only_a_confirmed_mandate_may_be_charged(changes: dict[str, object], expected: bool) -> None:
    assert is_chargeable(recorded("token") | changes) is expected


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "Visa •••• 4242"),
        ({"card": {}}, "card •••• ????"),
        (
            {"card": None, "method": "upi", "vpa": {"username": "9876543210", "handle": "okbank"}},
            "UPI •••• @okbank",
        ),
        ({"card": None, "method": "emandate", "bank": "HDFC"}, "emandate HDFC"),
        ({"card": None, "method": None}, "method"),
    ],
)
def test_a_means_of_payment_has_a_name_for_people(changes: dict[str, object], label: str) -> None:
    assert method_of(recorded("token") | changes, "cust_1").label == label


@pytest.mark.parametrize(
    "answer", [{}, {"entity": "collection"}, {"entity": "collection", "items": {}}, {"items": []}]
)
def test_a_list_that_is_none_is_not_an_empty_one(answer: dict[str, object]) -> None:
    """Whoever takes it for empty believes that nobody has paid."""
    with pytest.raises(ShapeError):
        items_of(answer)


def test_an_order_has_an_amount() -> None:
    assert order_of(recorded("order"))["amount"] == 50_000
    with pytest.raises(ShapeError, match="amount"):
        order_of(recorded("order") | {"amount": "50000"})


@pytest.mark.parametrize("value", ["", None, 7, "a/b", "..", "a b", "a\n", "ü", "%2e", "x" * 65, b"pay_1"])
def test_what_may_not_stand_in_a_path_is_no_id(value: object) -> None:
    assert not is_id(value)


@given(
    st.text(string.printable, min_size=1, max_size=120), st.text(string.printable, min_size=1, max_size=120)
)
def test_a_receipt_fits_and_is_one_references(first: str, other: str) -> None:
    assert len(receipt_of(first)) <= 40
    assert (receipt_of(first) == receipt_of(other)) is (first == other)
    assert len(first) > 40 or receipt_of(first) == first
