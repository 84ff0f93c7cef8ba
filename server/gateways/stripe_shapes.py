"""Stripe's objects in our words: pure functions. A field that is missing or something else is a KeyError, TypeError or ValueError.

A payment is a PaymentIntent: one of them may see several cards fail before one pays. Checkout makes it when the payer first tries.
"""

from collections.abc import Mapping
from typing import Final

from billing_engine.payments.model import (
    Attempt,
    AttemptStatus,
    DisputeStatus,
    GatewayDispute,
    GatewayRefund,
    MethodNews,
    RefundStatus,
    SavedMethod,
)
from server.gateways.stripe_fields import Json, id_of, instant_ms, number, text
from server.gateways.stripe_money import from_stripe

#: Where our own ids stand in the metadata of what we make at Stripe.
PAYMENT: Final = "payment"
REFUND: Final = "refund"

_INTENT: Final[Mapping[str, AttemptStatus]] = {
    "succeeded": AttemptStatus.COLLECTED,
    "processing": AttemptStatus.PENDING,
    "requires_action": AttemptStatus.PENDING,
    "requires_confirmation": AttemptStatus.PENDING,
    "requires_capture": AttemptStatus.AUTHORIZED,
    "canceled": AttemptStatus.FAILED,
}
_REFUND: Final[Mapping[str, RefundStatus]] = {
    "pending": RefundStatus.PENDING,
    "requires_action": RefundStatus.PENDING,
    "succeeded": RefundStatus.DONE,
    "failed": RefundStatus.FAILED,
    "canceled": RefundStatus.FAILED,
}
_DISPUTE: Final[Mapping[str, DisputeStatus]] = {
    "won": DisputeStatus.WON,
    # An inquiry that came to nothing; a dispute that was answered by a refund, which is told as one.
    "warning_closed": DisputeStatus.WON,
    "prevented": DisputeStatus.WON,
    "lost": DisputeStatus.LOST,
}
_SAVED: Final = "off_session"


def was_tried(intent: Json) -> bool:
    """Whether somebody has tried to pay: before that, an intent is no attempt."""
    return text(intent, "status") != "requires_payment_method" or _failure(intent) is not None


def attempt_of_intent(intent: Json) -> Attempt:
    """A PaymentIntent, with `latest_charge` expanded or not: without it, nothing is known of refunds and little of the card."""
    word = text(intent, "status")
    status, failure = _INTENT.get(word, AttemptStatus.PENDING), None
    if word == "requires_payment_method" and (failure := _failure(intent)):
        status = AttemptStatus.FAILED
    elif status is AttemptStatus.FAILED:
        failure = str(intent.get("cancellation_reason") or word)
    charge = intent.get("latest_charge")
    charge = charge if isinstance(charge, Mapping) else {}
    taken = "amount_received" if status is AttemptStatus.COLLECTED else "amount"
    amount_minor, currency = from_stripe(number(intent, taken), text(intent, "currency"))
    refunded = number(charge, "amount_refunded") if charge else 0
    return Attempt(
        id=text(intent, "id"),
        order_id=None,
        reference=_ours(intent, PAYMENT),
        amount_minor=amount_minor,
        currency=currency,
        status=status,
        at_ms=instant_ms(intent),
        refunded_minor=from_stripe(refunded, text(intent, "currency"))[0],
        failure=failure,
        method=_kept_by(intent, charge),
    )


def attempt_of_session(session: Json, failure: str | None) -> Attempt | None:
    """What a Checkout session tells of its payment, which it only names. None: it has none yet, or is no payment."""
    intent = id_of(session.get("payment_intent"))
    if intent is None or session.get("mode") != "payment":
        return None
    amount_minor, currency = from_stripe(number(session, "amount_total"), text(session, "currency"))
    if text(session, "payment_status") == "paid":
        status, failure = AttemptStatus.COLLECTED, None
    else:
        status = AttemptStatus.FAILED if failure else AttemptStatus.PENDING
    return Attempt(
        id=intent,
        order_id=text(session, "id"),
        reference=id_of(session.get("client_reference_id")) or _ours(session, PAYMENT),
        amount_minor=amount_minor,
        currency=currency,
        status=status,
        at_ms=instant_ms(session),
        failure=failure,
    )


def attempt_of_charge(charge: Json) -> Attempt | None:
    """A charge that was refunded, as the payment that it is of. None: it is of none, so not ours."""
    intent = id_of(charge["payment_intent"])
    if intent is None:
        return None
    word = text(charge, "status")
    if word == "succeeded":
        status = AttemptStatus.COLLECTED if charge["captured"] else AttemptStatus.AUTHORIZED
    else:
        status = AttemptStatus.FAILED if word == "failed" else AttemptStatus.PENDING
    taken = "amount_captured" if status is AttemptStatus.COLLECTED else "amount"
    amount_minor, currency = from_stripe(number(charge, taken), text(charge, "currency"))
    return Attempt(
        id=intent,
        order_id=None,
        # Stripe copies the intent's metadata to its charges.
        reference=_ours(charge, PAYMENT),
        amount_minor=amount_minor,
        currency=currency,
        status=status,
        at_ms=instant_ms(charge),
        refunded_minor=from_stripe(number(charge, "amount_refunded"), text(charge, "currency"))[0],
        failure=str(charge.get("failure_code") or "failed") if status is AttemptStatus.FAILED else None,
    )


def refund_of(refund: Json) -> GatewayRefund | None:
    """None: it is of a charge without a payment, so not ours."""
    intent = id_of(refund["payment_intent"])
    if intent is None:
        return None
    amount_minor, currency = from_stripe(number(refund, "amount"), text(refund, "currency"))
    return GatewayRefund(
        id=text(refund, "id"),
        payment_id=intent,
        reference=_ours(refund, REFUND),
        amount_minor=amount_minor,
        currency=currency,
        status=_REFUND.get(text(refund, "status"), RefundStatus.PENDING),
        at_ms=instant_ms(refund),
    )


def dispute_of(dispute: Json) -> GatewayDispute | None:
    """None: it is about a charge without a payment, so not ours. What is neither won nor lost is open, an inquiry too."""
    intent = id_of(dispute["payment_intent"])
    if intent is None:
        return None
    amount_minor, currency = from_stripe(number(dispute, "amount"), text(dispute, "currency"))
    return GatewayDispute(
        id=text(dispute, "id"),
        payment_id=intent,
        amount_minor=amount_minor,
        currency=currency,
        status=_DISPUTE.get(text(dispute, "status"), DisputeStatus.OPEN),
        reason=str(dispute.get("reason") or "general"),
        at_ms=instant_ms(dispute),
    )


def kept_by_setup(setup: Json) -> MethodNews | None:
    """The means of payment that a SetupIntent has kept, with `payment_method` expanded or not. None: not yet, or for nobody."""
    method, customer = setup.get("payment_method"), id_of(setup.get("customer"))
    method_id = id_of(method)
    if text(setup, "status") != "succeeded" or method_id is None or customer is None:
        return None
    label = _label(method) if isinstance(method, Mapping) else _first_type(setup)
    return MethodNews(
        SavedMethod(method_id, customer, label), is_usable=True, reference=_ours(setup, PAYMENT)
    )


def detached(method: Json, previous: Json) -> MethodNews:
    """A payment method that no customer has any more. `previous` are the event's earlier values: whose it was."""
    customer = id_of(previous.get("customer")) or ""
    return MethodNews(SavedMethod(text(method, "id"), customer, _label(method)), is_usable=False)


def _kept_by(intent: Json, charge: Json) -> SavedMethod | None:
    """Only what the payer has agreed to have charged again, and only once it has paid."""
    method, customer = id_of(intent.get("payment_method")), id_of(intent.get("customer"))
    tried = _INTENT.get(text(intent, "status")) in {AttemptStatus.COLLECTED, AttemptStatus.AUTHORIZED}
    if not tried or method is None or customer is None or intent.get("setup_future_usage") != _SAVED:
        return None
    details = charge.get("payment_method_details")
    label = _label(details) if isinstance(details, Mapping) else _first_type(intent)
    return SavedMethod(method, customer, label)


def _label(details: Json) -> str:
    """`visa •••• 4242`, or as much of it as there is."""
    kind = text(details, "type")
    facts = details.get(kind)
    facts = facts if isinstance(facts, Mapping) else {}
    name = str(facts.get("brand") or facts.get("bank_name") or kind)
    return f"{name} •••• {facts['last4']}" if facts.get("last4") else name


def _first_type(intent: Json) -> str:
    kinds = intent.get("payment_method_types")
    return str(kinds[0]) if isinstance(kinds, list) and len(kinds) == 1 else "saved method"


def _failure(intent: Json) -> str | None:
    error = intent.get("last_payment_error")
    if not isinstance(error, Mapping):
        return None
    return str(error.get("decline_code") or error.get("code") or error.get("type") or "failed")


def _ours(found: Json, name: str) -> str | None:
    value = (found.get("metadata") or {}).get(name)
    return value if isinstance(value, str) and value else None
