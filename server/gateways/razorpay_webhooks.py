"""What Razorpay signs: a payer's callback and its own events. Pure: the package's rule, and our words.

Source: https://razorpay.com/docs/webhooks/validate-test
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from razorpay.errors import SignatureVerificationError  # type: ignore[import-untyped, unused-ignore]
from razorpay.utility import Utility  # type: ignore[import-untyped, unused-ignore]

from billing_engine.payments.errors import WebhookInvalid
from billing_engine.payments.model import DisputeStatus, GatewayEvent, MethodNews, RefundStatus
from server.gateways.razorpay_shapes import (
    ShapeError,
    attempt_of,
    dispute_of,
    entity,
    instant_ms,
    is_chargeable,
    method_of,
    name,
    refund_of,
    text,
)

SIGNATURE_HEADER: Final = "x-razorpay-signature"
EVENT_ID_HEADER: Final = "x-razorpay-event-id"
#: HMAC-SHA256 in hex.
_SIGNATURE_CHARACTERS: Final = 64
_EVENT_ID_CHARACTERS: Final = 128

_ATTEMPT_EVENTS: Final = frozenset({"payment.authorized", "payment.captured", "payment.failed", "order.paid"})
#: None: what the entity says.
_REFUND_EVENTS: Final[Mapping[str, RefundStatus | None]] = {
    "refund.created": None,
    "refund.speed_changed": None,
    "refund.processed": RefundStatus.DONE,
    "refund.failed": RefundStatus.FAILED,
}
#: None: what the entity says.
_DISPUTE_EVENTS: Final[Mapping[str, DisputeStatus | None]] = {
    "payment.dispute.created": DisputeStatus.OPEN,
    "payment.dispute.under_review": DisputeStatus.OPEN,
    "payment.dispute.action_required": DisputeStatus.OPEN,
    "payment.dispute.won": DisputeStatus.WON,
    "payment.dispute.lost": DisputeStatus.LOST,
    "payment.dispute.closed": None,
}
_USABLE_EVENTS: Final = frozenset({"token.confirmed", "token.activated", "token.resumed"})
_GONE_EVENTS: Final = frozenset(
    {
        "token.rejected",
        "token.cancelled",
        "token.paused",
        "token.suspended",
        "token.deactivated",
        "token.expired",
    }
)


def is_signed(message: str, signature: object, secret: str) -> bool:
    """Whether the gateway has signed the message. False for whatever is no signature: a client may send anything."""
    if not isinstance(signature, str) or len(signature) != _SIGNATURE_CHARACTERS or not signature.isascii():
        return False
    try:
        return bool(Utility().verify_signature(message, signature, secret))
    except SignatureVerificationError:
        return False
    except ValueError:
        # Lone surrogates, which no encoding has.
        return False


def is_signed_callback(order_id: object, payment_id: object, signature: object, secret: str) -> bool:
    if not isinstance(order_id, str) or not isinstance(payment_id, str):
        return False
    return is_signed(f"{order_id}|{payment_id}", signature, secret)


def read_event(body: bytes, headers: Mapping[str, str], secret: str) -> GatewayEvent:
    """The event in a raw body. Raises `WebhookInvalid`."""
    message = _text(body)
    if message is None:
        raise WebhookInvalid(gateway="razorpay", why="encoding")
    if not is_signed(message, headers.get(SIGNATURE_HEADER), secret):
        raise WebhookInvalid(gateway="razorpay", why="signature")
    event = _json(message)
    if event is None:
        raise WebhookInvalid(gateway="razorpay", why="JSON")
    try:
        return _event(event, _event_id(body, headers))
    except ShapeError as exc:
        raise WebhookInvalid(gateway="razorpay", why="shape", what=str(exc)) from exc


# The errors of decoding and of JSON carry the whole body, in which stands the payer's card: they end here.


def _text(body: bytes) -> str | None:
    """The signature is over the bytes; what is UTF-8 is the same bytes again."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _json(message: str) -> object:
    """None for what is none, and for `null`."""
    try:
        return json.loads(message, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None


def _no_constant(_name: str) -> NoReturn:
    raise ValueError


def _event_id(body: bytes, headers: Mapping[str, str]) -> str:
    """The gateway's own, the same each time it sends it; a hash of the body, which is the same too, where it sends none."""
    given = headers.get(EVENT_ID_HEADER)
    if given and given.isascii() and given.isprintable() and len(given) <= _EVENT_ID_CHARACTERS:
        return given
    return "sha256_" + hashlib.sha256(body).hexdigest()


def _event(value: object, event_id: str) -> GatewayEvent:
    event = entity(value, "event")
    kind = text(event, "event")
    # Some have no instant (token.*).
    at_ms = instant_ms(event, "created_at") if event.get("created_at") is not None else 0
    part = _parts(event)
    if kind in _ATTEMPT_EVENTS:
        order = part("order") if kind == "order.paid" else None
        return GatewayEvent(event_id, kind, at_ms, attempt=attempt_of(part("payment"), order=order))
    if kind in _REFUND_EVENTS:
        return GatewayEvent(
            event_id, kind, at_ms, refund=refund_of(part("refund"), status=_REFUND_EVENTS[kind])
        )
    if kind in _DISPUTE_EVENTS:
        return GatewayEvent(event_id, kind, at_ms, dispute=dispute_of(part("dispute"), _DISPUTE_EVENTS[kind]))
    if kind in _USABLE_EVENTS | _GONE_EVENTS:
        return GatewayEvent(
            event_id, kind, at_ms, method=_news(part("token"), is_usable=kind in _USABLE_EVENTS)
        )
    return GatewayEvent(event_id, kind, at_ms)


def _parts(event: Mapping[str, Any]) -> Callable[[str], object]:
    """Asks for an entity of the payload: `{"payload": {"payment": {"entity": {...}}}}`."""

    def part(kind: str) -> object:
        payload = event.get("payload")
        found = payload.get(kind) if isinstance(payload, Mapping) else None
        if not isinstance(found, Mapping):
            raise ShapeError(kind)
        return found.get("entity")

    return part


def _news(token: object, *, is_usable: bool) -> MethodNews | None:
    """None where the token is not one to charge, or nobody's."""
    found = entity(token, "token")
    if not found.get("customer_id") or (is_usable and not is_chargeable(found)):
        return None
    return MethodNews(method_of(found, name(found, "customer_id")), is_usable=is_usable)
