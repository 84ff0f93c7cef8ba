"""What can go wrong at the edge itself. The kinds below and the engines' kinds are mapped to statuses in `problems.py`."""

from collections.abc import Sequence
from typing import Any

from billing_engine.errors import BillingError, Conflict, Invalid, NotFound, Unavailable


class Unauthenticated(BillingError):
    """The access token is missing, malformed, expired or revoked: one answer for all."""

    code = "UNAUTHENTICATED"
    detail = "A valid access token is needed: send `Authorization: Bearer <token>`."


class Forbidden(BillingError):
    """The caller is known, and may not do this: their role, a member's access, or a key's scopes."""

    code = "FORBIDDEN"
    detail = "Your role may not do this."


class PathNotFound(NotFound):
    """No route has this path."""

    detail = "There is nothing at this path."


class MethodNotAllowed(BillingError):
    """The path exists, with other methods; `allow` lists them."""

    code = "METHOD_NOT_ALLOWED"
    detail = "This path does not take this method."


class BodyTooLarge(BillingError):
    """The body is longer than any request of this API needs."""

    code = "BODY_TOO_LARGE"
    detail = "The request body is too large."


class UnsupportedMediaType(BillingError):
    """The body is something other than UTF-8 JSON."""

    code = "UNSUPPORTED_MEDIA_TYPE"
    detail = "Send the body as `Content-Type: application/json` in UTF-8."


class MalformedJson(BillingError):
    """The body is not JSON as RFC 8259 has it, or has numbers or nesting beyond any sense."""

    code = "MALFORMED_JSON"
    detail = "The request body is not valid JSON."


class ValidationFailed(Invalid):
    """Fields of the request are not valid; `errors` is a list of (field as the client wrote it, problem)."""

    code = "VALIDATION_FAILED"
    detail = "The request has fields that are not valid."

    def __init__(self, errors: Sequence[tuple[str, str]], **facts: Any) -> None:
        super().__init__(errors=tuple(errors), **facts)


class RateLimited(BillingError):
    """Too many calls of this kind; `retry_after_s` says when to come again."""

    code = "RATE_LIMITED"
    detail = "Too many requests. Try again later."


class IdempotencyInProgress(Conflict):
    """The first request with this key still runs."""

    code = "IDEMPOTENCY_IN_PROGRESS"
    detail = "A request with this Idempotency-Key is still running. Ask again in a moment."


class IdempotencyKeyReused(Invalid):
    """The key was used by this caller on this route before, with another body."""

    code = "IDEMPOTENCY_KEY_REUSED"
    detail = "This Idempotency-Key was used before with another request."


class NotReady(Unavailable):
    """A part that the server stands on does not answer; `failed` names the parts."""

    code = "NOT_READY"
    detail = "The server is not ready to serve."
