"""Stripe's signed events in our words. Nothing of an unsigned body is looked at."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import stripe

from billing_engine.payments.errors import WebhookInvalid
from billing_engine.payments.model import GatewayEvent, SubscriptionHint, SubscriptionNews
from server.gateways.stripe_fields import instant_ms, text
from server.gateways.stripe_shapes import (
    attempt_of_charge,
    attempt_of_intent,
    attempt_of_session,
    detached,
    dispute_of,
    kept_by_setup,
    refund_of,
)
from server.gateways.stripe_subscription_shapes import (
    subscription_id_of_invoice,
    subscription_id_of_session,
)

#: An older signature may be a recorded one that is sent again. Source: https://docs.stripe.com/webhooks
TOLERANCE_S: Final = 300
#: Far above any event of ours: a session with everything in it has 8 KB.
MAX_BYTES: Final = 512 * 1024

_Reader = Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]


class StripeWebhooks:
    """Reads what was signed with one endpoint's secret. `now_s` is the clock that a signature's age is measured by."""

    def __init__(self, secret: str, now_s: Callable[[], float]) -> None:
        self._secret = secret
        self._now_s = now_s

    def read(self, body: bytes, headers: Mapping[str, str]) -> GatewayEvent:
        """The event. Raises `WebhookInvalid`, which says why and repeats nothing of the body or the signature."""
        if not body or len(body) > MAX_BYTES:
            raise WebhookInvalid(reason="no body" if not body else "too long")
        if (problem := self._problem(body, headers.get("stripe-signature"))) is not None:
            raise WebhookInvalid(reason=problem)
        try:
            return _event(json.loads(body))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as exc:
            # Signed and yet unknown to us: refused aloud, Stripe keeps it and shows it, and a newer version can read it.
            problem = f"no event that is known: {type(exc).__name__}"
        raise WebhookInvalid(reason=problem)

    def _problem(self, body: bytes, header: object) -> str | None:
        if not isinstance(header, str):
            return "no signature"
        try:
            # Without its tolerance, which asks the machine's clock.
            stripe.WebhookSignature.verify_header(body, header, self._secret, tolerance=None)
            # The first one, as the package takes it: it is what was signed.
            signed_at_s = next(int(part[2:]) for part in header.split(",") if part.startswith("t="))
        except Exception:  # noqa: BLE001 - a signature that is not ASCII is a TypeError, a body that is not UTF-8 a ValueError
            return "not signed by the gateway"
        return "signed too long ago" if signed_at_s < self._now_s() - TOLERANCE_S else None


def _event(event: Any) -> GatewayEvent:
    if not isinstance(event, dict) or event["object"] != "event":
        raise TypeError("object")
    kind, identity = event["type"], event["id"]
    if not isinstance(kind, str) or not isinstance(identity, str) or not identity:
        raise TypeError("type")
    told: dict[str, Any] = {}
    if (reader := _READERS.get(kind)) is not None:
        data = event["data"]
        told = reader(data["object"], data.get("previous_attributes") or {})
    return GatewayEvent(id=identity, kind=kind, at_ms=instant_ms(event), **told)


def _session(failure: str | None = None) -> _Reader:
    return lambda found, _previous: {
        "attempt": attempt_of_session(found, failure),
        "subscription": _news(subscription_id_of_session(found), SubscriptionHint.CHANGED),
    }


def _subscription(found: Mapping[str, Any], _previous: Mapping[str, Any]) -> dict[str, Any]:
    return {"subscription": _news(text(found, "id"), SubscriptionHint.CHANGED)}


def _invoice(kind: SubscriptionHint) -> _Reader:
    return lambda found, _previous: {"subscription": _news(subscription_id_of_invoice(found), kind)}


def _news(subscription_id: str | None, kind: SubscriptionHint) -> SubscriptionNews | None:
    return None if subscription_id is None else SubscriptionNews(subscription_id, kind)


def _intent(found: Mapping[str, Any], _previous: Mapping[str, Any]) -> dict[str, Any]:
    return {"attempt": attempt_of_intent(found)}


def _refund(found: Mapping[str, Any], _previous: Mapping[str, Any]) -> dict[str, Any]:
    return {"refund": refund_of(found)}


def _dispute(found: Mapping[str, Any], _previous: Mapping[str, Any]) -> dict[str, Any]:
    return {"dispute": dispute_of(found)}


_READERS: Final[Mapping[str, _Reader]] = {
    "checkout.session.completed": _session(),
    "checkout.session.async_payment_succeeded": _session(),
    "checkout.session.async_payment_failed": _session("async_payment_failed"),
    "checkout.session.expired": _session("expired"),
    "payment_intent.succeeded": _intent,
    "payment_intent.payment_failed": _intent,
    "payment_intent.processing": _intent,
    "payment_intent.canceled": _intent,
    "payment_intent.amount_capturable_updated": _intent,
    "charge.refunded": lambda found, _previous: {"attempt": attempt_of_charge(found)},
    "refund.created": _refund,
    "refund.updated": _refund,
    "refund.failed": _refund,
    # What the three before are called at an endpoint made for an API before 2024-10-28.
    "charge.refund.updated": _refund,
    "charge.dispute.created": _dispute,
    "charge.dispute.updated": _dispute,
    "charge.dispute.closed": _dispute,
    "charge.dispute.funds_withdrawn": _dispute,
    "charge.dispute.funds_reinstated": _dispute,
    "customer.subscription.created": _subscription,
    "customer.subscription.updated": _subscription,
    "customer.subscription.deleted": _subscription,
    "customer.subscription.paused": _subscription,
    "customer.subscription.resumed": _subscription,
    "invoice.paid": _invoice(SubscriptionHint.INVOICE_PAID),
    "invoice.payment_failed": _invoice(SubscriptionHint.PAYMENT_FAILED),
    "invoice.payment_action_required": _invoice(SubscriptionHint.ACTION_REQUIRED),
    "setup_intent.succeeded": lambda found, _previous: {"method": kept_by_setup(found)},
    "payment_method.detached": lambda found, previous: {"method": detached(found, previous)},
}
