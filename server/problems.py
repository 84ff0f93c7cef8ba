"""Domain error → `application/problem+json` (RFC 9457). One table, looked up along the class tree."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

import billing_engine.credits.errors as application_credits
import billing_engine.errors as billing
import billing_engine.payments.errors as payments
import billing_engine.subscriptions.errors as ai
import chat.errors as chat
from billing_engine.money import INR, Asset, format_minor
from server import errors as edge
from server.wire import rfc3339

#: Kind → status. The nearest class of an error's tree decides, so a class may override its kind.
STATUS: Final[Mapping[type[BaseException], int]] = {
    edge.MalformedJson: 400,
    application_credits.InsufficientCredits: 400,
    payments.SignatureInvalid: 400,
    payments.WebhookInvalid: 400,
    edge.Unauthenticated: 401,
    chat.Unauthenticated: 401,
    billing.NotEnough: 402,
    billing.Refused: 403,
    ai.NotEnoughCredits: 403,
    edge.Forbidden: 403,
    chat.Refused: 403,
    billing.NotFound: 404,
    chat.NotFound: 404,
    edge.MethodNotAllowed: 405,
    billing.Conflict: 409,
    chat.Conflict: 409,
    edge.BodyTooLarge: 413,
    edge.UnsupportedMediaType: 415,
    billing.Invalid: 422,
    chat.Invalid: 422,
    edge.RateLimited: 429,
    ai.LimitExceeded: 429,
    ai.TooManyCalls: 429,
    chat.RateLimited: 429,
    billing.InvariantBroken: 500,
    ai.ProviderFailed: 502,
    billing.Unavailable: 503,
    chat.Unavailable: 503,
}

#: Facts that a client may see, and their names on the wire. What is not listed stays in the log.
PUBLIC_FACTS: Final[Mapping[str, str]] = {
    "required_minor": "required",
    "available_minor": "available",
    "required_credits": "required",
    "available_credits": "available",
    "missing_credits": "missing",
    "buy_at": "buy_at",
    "not_eligible": "reason",
    "session": "sessionId",
    "session_id": "sessionId",
    "lawyer": "lawyerId",
    "lawyer_id": "lawyerId",
    "message_id": "messageId",
    "client_msg_id": "clientMsgId",
    "limit": "limit",
    "failed": "failed",
    "required": "required",
    "available": "available",
    "used": "used",
    "allowed": "allowed",
    "tier": "tier",
    "upgrade": "upgrade",
    "resets_at_ms": "resetsAt",
}

#: After what time (s) a client may try again where the error does not say.
RETRY_AFTER_S: Final = 1

CONTENT_TYPE: Final = "application/problem+json"
_REALM: Final = 'Bearer realm="tarazu"'


@dataclass(frozen=True, slots=True)
class Problem:
    """A failure, ready to be sent."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The body as JSON."""
        return orjson.dumps(dict(self.body))


def status_of(error: type[BaseException]) -> int:
    """The HTTP status of an error class; 500 for one that no kind covers."""
    return next((STATUS[cls] for cls in error.__mro__ if cls in STATUS), 500)


def problem_of(
    error: BaseException, *, request_id: str, path: str | None = None, asset: Asset = INR
) -> Problem:
    """The problem document of any exception. Amounts among its facts are printed in `asset`, unless the error names one.

    What is unexpected, or is nobody's input, says nothing but its request id.
    """
    status = status_of(type(error))
    if status == 500:
        code, detail = billing.InvariantBroken.code, billing.InvariantBroken.detail
        facts: Mapping[str, Any] = {}
    else:
        code, detail = str(getattr(error, "code", "ERROR")), str(getattr(error, "detail", ""))
        facts = getattr(error, "facts", {})
    body: dict[str, Any] = {
        "type": f"urn:tarazu:problem:{code.lower().replace('_', '-')}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "code": code,
        "detail": detail,
    }
    if path is not None:
        body["instance"] = path
    body["requestId"] = request_id
    if fields := _fields_of(facts):
        body["errors"] = [{"field": name, "problem": text} for name, text in fields]
        body["detail"] = f"{detail.rstrip('.')}: {'; '.join(f'{name} {text}' for name, text in fields[:3])}."
    return Problem(status, body | _public(facts, asset), _headers_of(status, facts))


def _fields_of(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    listed = facts.get("errors") or facts.get("fields")
    if listed:
        return [(str(name), str(text)) for name, text in listed]
    if "field" in facts:
        return [(str(facts["field"]), str(facts.get("problem", "is not valid")))]
    return []


def _public(facts: Mapping[str, Any], asset: Asset) -> dict[str, Any]:
    own = facts.get("asset")
    printed_in = own if isinstance(own, Asset) else asset
    return {
        PUBLIC_FACTS[name]: _printed(name, value, printed_in)
        for name, value in facts.items()
        if name in PUBLIC_FACTS
    }


def _printed(name: str, value: Any, asset: Asset) -> Any:
    if name.endswith("_minor"):
        return format_minor(value, asset)
    return rfc3339(value) if name.endswith("_at_ms") else value


def _headers_of(status: int, facts: Mapping[str, Any]) -> dict[str, str]:
    headers = {}
    if status == 401:
        # A presented token that is refused is told apart from none at all (RFC 6750).
        headers["WWW-Authenticate"] = _REALM + (', error="invalid_token"' if facts.get("presented") else "")
    if status == 405:
        headers["Allow"] = ", ".join(sorted(facts.get("allow", ())))
    if status in {429, 503} or "retry_after_s" in facts:
        headers["Retry-After"] = str(max(1, math.ceil(facts.get("retry_after_s", RETRY_AFTER_S))))
    return headers
