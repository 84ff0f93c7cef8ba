"""Razorpay's objects put into our words. Amounts are paise, as ours are; instants are seconds, ours milliseconds."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from billing_engine.payments.model import (
    Attempt,
    AttemptStatus,
    DisputeStatus,
    GatewayDispute,
    GatewayRefund,
    RefundStatus,
    SavedMethod,
)

#: Where our references stand in the notes of an order, a payment or a refund.
PAYMENT_NOTE: Final = "payment"
REFUND_NOTE: Final = "refund"
#: Source: https://razorpay.com/docs/api/orders/create
RECEIPT_CHARACTERS: Final = 40
NOTE_CHARACTERS: Final = 256

_ID: Final = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)

_ATTEMPTS: Final = {
    "created": AttemptStatus.PENDING,
    "authorized": AttemptStatus.AUTHORIZED,
    "captured": AttemptStatus.COLLECTED,
    # The money came and went back, in whole. What was never captured see `_never_ours`.
    "refunded": AttemptStatus.COLLECTED,
    "failed": AttemptStatus.FAILED,
}
_REFUNDS: Final = {
    "pending": RefundStatus.PENDING,
    "processed": RefundStatus.DONE,
    "failed": RefundStatus.FAILED,
}


class ShapeError(ValueError):
    """It is not what Razorpay sends. Names the field and never its value."""


def is_id(value: object) -> bool:
    """Whether it may stand in the path of a call: it comes from a payer's callback."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def receipt_of(reference: str) -> str:
    """The receipt for a reference of ours: itself, or a hash of it where it is too long. Whole it stands in the notes."""
    return reference if len(reference) <= RECEIPT_CHARACTERS else sha256(reference.encode()).hexdigest()[:40]


def order_of(value: object) -> Mapping[str, Any]:
    """An order entity, whose id, amount, currency and receipt are what they should be."""
    found = entity(value, "order")
    name(found, "id")
    amount(found, "amount")
    text(found, "currency")
    return found


def attempt_of(payment: object, *, order: object = None, method: SavedMethod | None = None) -> Attempt:
    """A payment entity. Its notes are the checkout's; our reference may stand in its order's alone."""
    found = entity(payment, "payment")
    status = _ATTEMPTS.get(text(found, "status"))
    if status is None:
        raise ShapeError("status")
    never_ours = _never_ours(found)
    if never_ours:
        status = AttemptStatus.FAILED
    reference = _note(found, PAYMENT_NOTE)
    if reference is None and order is not None:
        reference = _note(entity(order, "order"), PAYMENT_NOTE)
    return Attempt(
        id=name(found, "id"),
        order_id=optional_name(found, "order_id"),
        reference=reference,
        amount_minor=amount(found, "amount"),
        currency=text(found, "currency"),
        status=status,
        at_ms=instant_ms(found, "created_at"),
        # Older payments have none.
        refunded_minor=amount(found, "amount_refunded") if found.get("amount_refunded") is not None else 0,
        failure=("not_captured" if never_ours else _failure(found))
        if status is AttemptStatus.FAILED
        else None,
        method=method,
    )


def refund_of(refund: object, *, status: RefundStatus | None = None) -> GatewayRefund:
    """A refund entity. `status` is what the event's name says: its entity may be older or newer."""
    found = entity(refund, "refund")
    known = _REFUNDS.get(text(found, "status"))
    if known is None:
        raise ShapeError("status")
    return GatewayRefund(
        id=name(found, "id"),
        payment_id=name(found, "payment_id"),
        reference=_note(found, REFUND_NOTE) or _optional_text(found, "receipt"),
        amount_minor=amount(found, "amount"),
        currency=text(found, "currency"),
        status=status or known,
        at_ms=instant_ms(found, "created_at"),
    )


def dispute_of(dispute: object, status: DisputeStatus | None) -> GatewayDispute:
    """A dispute entity. `status` None: it is closed, and what was deducted says for whom."""
    found = entity(dispute, "dispute")
    deducted_minor = amount(found, "amount_deducted") if found.get("amount_deducted") is not None else 0
    if status is None:
        status = DisputeStatus.LOST if deducted_minor else DisputeStatus.WON
    return GatewayDispute(
        id=name(found, "id"),
        payment_id=name(found, "payment_id"),
        amount_minor=amount(found, "amount"),
        currency=text(found, "currency"),
        status=status,
        reason=_optional_text(found, "reason_code") or "unknown",
        at_ms=instant_ms(found, "created_at"),
    )


def method_of(token: object, customer_id: str) -> SavedMethod:
    """A token entity: a card, an UPI address or a bank account."""
    found = entity(token, "token")
    return SavedMethod(id=name(found, "id"), customer_id=customer_id, label=_label(found))


def is_chargeable(token: object) -> bool:
    """Whether the token may be charged while its owner is away. A card that is only remembered may not: it wants its owner's code."""
    found = entity(token, "token")
    details = found.get("recurring_details")
    # Cards' tokens have had no details for long.
    state = details.get("status") if isinstance(details, Mapping) else "confirmed"
    return found.get("recurring") is True and state == "confirmed"


def items_of(answer: Mapping[str, Any]) -> Sequence[object]:
    """What a collection holds."""
    items = answer.get("items")
    if answer.get("entity") != "collection" or not isinstance(items, list):
        raise ShapeError("collection")
    return items


def entity(value: object, kind: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or value.get("entity") != kind:
        raise ShapeError(kind)
    return value


def text(found: Mapping[str, Any], field: str) -> str:
    value = _optional_text(found, field)
    if value is None:
        raise ShapeError(field)
    return value


def name(found: Mapping[str, Any], field: str) -> str:
    """An id of the gateway's."""
    value = found.get(field)
    if not isinstance(value, str) or not is_id(value):
        raise ShapeError(field)
    return value


def optional_name(found: Mapping[str, Any], field: str) -> str | None:
    return None if found.get(field) in {None, ""} else name(found, field)


def amount(found: Mapping[str, Any], field: str) -> int:
    """Paise. JSON's `true` is an int to Python; 500.0 is no amount."""
    value = found.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise ShapeError(field)
    return value


def instant_ms(found: Mapping[str, Any], field: str) -> int:
    value = amount(found, field)
    if value >= 1 << 40:
        raise ShapeError(field)
    return value * 1000


def _optional_text(found: Mapping[str, Any], field: str) -> str | None:
    """A short line. What JSON can say and nothing can store (lone surrogates), or what would break a line of a log, is none."""
    value = found.get(field)
    if not isinstance(value, str) or not 0 < len(value) <= NOTE_CHARACTERS or not value.isprintable():
        return None
    return value


def _note(found: Mapping[str, Any], key: str) -> str | None:
    """A note of ours. Notes are an empty list where there are none."""
    notes = found.get("notes")
    return _optional_text(notes, key) if isinstance(notes, Mapping) else None


def _never_ours(payment: Mapping[str, Any]) -> bool:
    """Whether the gateway sent it back by itself, since nobody captured it in time or the order was paid already: we never had it.

    Source: https://razorpay.com/docs/webhooks/refunds ("Identify Auto-Refunds")
    """
    return payment.get("status") == "refunded" and payment.get("captured") is False


def _failure(found: Mapping[str, Any]) -> str:
    """Why it failed, as a word: the description is prose and may name the payer's bank or card."""
    return _optional_text(found, "error_reason") or _optional_text(found, "error_code") or "unknown"


def _label(token: Mapping[str, Any]) -> str:
    card, address = token.get("card"), token.get("vpa")
    if isinstance(card, Mapping):
        return f"{_optional_text(card, 'network') or 'card'} •••• {_optional_text(card, 'last4') or '????'}"
    if isinstance(address, Mapping) and (handle := _optional_text(address, "handle")):
        return f"UPI •••• @{handle}"
    return " ".join(
        filter(None, (_optional_text(token, "method") or "method", _optional_text(token, "bank")))
    )
