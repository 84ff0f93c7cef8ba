"""Which failures a route can answer with, and how the documents show them."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from billing_engine.errors import InvariantBroken, NotEnough, NotFound
from billing_engine.money import INR
from billing_engine.subscriptions.errors import LimitExceeded, NotEnoughCredits, TooManyCalls
from server.errors import (
    BodyTooLarge,
    Forbidden,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    MalformedJson,
    RateLimited,
    Unauthenticated,
    UnsupportedMediaType,
    ValidationFailed,
)
from server.problems import CONTENT_TYPE, problem_of, status_of
from server.routing import Route
from server.storage.errors import StoreBusy, StoreUnavailable

Json = dict[str, Any]
ErrorType = type[BaseException]

#: With what facts an example of the error is made; a subclass takes those of its kind.
_FACTS: Final[Mapping[ErrorType, Mapping[str, Any]]] = {
    NotEnough: {"required_minor": 5_000, "available_minor": 1_250, "asset": INR},
    ValidationFailed: {"errors": [("amount", "must be a plain decimal number such as 500.00")]},
    RateLimited: {"retry_after_s": 30},
    NotEnoughCredits: {"required": "12.39", "available": "6.50"},
    LimitExceeded: {
        "limit": "requests",
        "used": 1_000,
        "allowed": 1_000,
        "tier": "starter",
        "upgrade": "professional",
        "resets_at_ms": 1_795_000_000_000,
        "retry_after_s": 86_400,
    },
    TooManyCalls: {"limit": 5, "retry_after_s": 1},
}
_REQUEST_ID: Final = "019aa5e4f1c97d21"
#: In every problem, whatever its code.
PROBLEM: Final[Json] = {
    "type": "object",
    "description": "A failure (RFC 9457). `code` is stable and made for programs, `detail` is made for people and may change.",
    "properties": {
        "type": {"type": "string", "description": "A URN of the code."},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "code": {"type": "string", "pattern": "^[A-Z][A-Z_]*$"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "The path of the request."},
        "requestId": {"type": "string", "description": "Also in `X-Request-Id` and in the server's log."},
        "errors": {
            "type": "array",
            "description": "The fields that are not valid, as the client wrote them.",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "problem": {"type": "string"}},
                "required": ["field", "problem"],
            },
        },
        "required": {"type": "string", "description": "`INSUFFICIENT_BALANCE`: what the wallet must hold."},
        "available": {"type": "string", "description": "`INSUFFICIENT_BALANCE`: what may be spent now."},
        "tier": {"type": "string", "description": "`LIMIT_EXCEEDED` and the like: the caller's tier."},
        "upgrade": {
            "anyOf": [{"type": "string"}, {"type": "null"}],
            "description": "The smallest tier that would do; null: there is none.",
        },
        "used": {
            "type": "integer",
            "description": "`LIMIT_EXCEEDED`: what is used and reserved in this cycle.",
        },
        "allowed": {"type": "integer", "description": "`LIMIT_EXCEEDED`: what the tier allows in a cycle."},
        "resetsAt": {
            "type": "string",
            "format": "date-time",
            "description": "`LIMIT_EXCEEDED`: when the cycle ends.",
        },
    },
    "required": ["type", "title", "status", "code", "detail", "requestId"],
}

HEADERS: Final[Json] = {
    "RequestId": {
        "description": "The request's id, the caller's own where it sent one; give it when you ask for help.",
        "schema": {"type": "string"},
    },
    "RetryAfter": {
        "description": "Seconds after which the same request may work.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "IdempotencyReplayed": {
        "description": "`true` where this is the kept answer of an earlier request with the same key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}


def touches_store(route: Route) -> bool:
    """A public route that is told nothing (health, these documents) has no store behind it."""
    return not route.access.public or route.body is not None or route.query is not None


def errors_of(route: Route) -> tuple[ErrorType, ...]:
    """Every error class that the route can answer with: its own, and those of every route of its kind."""
    found: list[ErrorType] = [*route.errors]
    if route.body is not None:
        found += [MalformedJson, BodyTooLarge, UnsupportedMediaType, ValidationFailed]
    if route.raw_limit:
        found += [MalformedJson, BodyTooLarge, ValidationFailed]
    if route.query is not None:
        found.append(ValidationFailed)
    if not route.access.public:
        # API keys are refused where even every role may call.
        found += [Unauthenticated, Forbidden]
    if "{" in route.path:
        # What cannot be anybody's id is not found either.
        found.append(NotFound)
    if route.rate is not None:
        found.append(RateLimited)
    if route.idempotent:
        found += [IdempotencyInProgress, IdempotencyKeyReused, ValidationFailed]
    if touches_store(route):
        found += [StoreUnavailable, StoreBusy]
    found.append(InvariantBroken)
    return tuple(dict.fromkeys(found))


def by_status(errors: tuple[ErrorType, ...]) -> dict[int, dict[str, list[ErrorType]]]:
    """The errors by status and code, both in order; several classes may share a code."""
    table: dict[int, dict[str, list[ErrorType]]] = defaultdict(lambda: defaultdict(list))
    for error in errors:
        table[status_of(error)][str(getattr(error, "code", "INTERNAL"))].append(error)
    return {status: dict(sorted(table[status].items())) for status in sorted(table)}


def response(status: int, errors: Mapping[str, list[ErrorType]]) -> Json:
    """The response object of one status."""
    lines = [f"`{code}`: {' '.join(_details(classes))}" for code, classes in errors.items()]
    headers: Json = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    if status in {409, 429, 503} and any(
        _waits(status, error) for found in errors.values() for error in found
    ):
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    return {
        "description": "\n\n".join(lines),
        "headers": headers,
        "content": {
            CONTENT_TYPE: {
                "schema": {
                    "allOf": [
                        {"$ref": "#/components/schemas/Problem"},
                        {"properties": {"status": {"const": status}, "code": {"enum": list(errors)}}},
                    ]
                },
                "examples": {
                    code: {"$ref": f"#/components/examples/{example_name(code, status)}"} for code in errors
                },
            }
        },
    }


def example_name(code: str, status: int) -> str:
    """Of the example among the components: products may use one code with different statuses."""
    return f"{code}-{status}"


def example(error: ErrorType) -> Json:
    """The problem document that a client would get."""
    facts = next((_FACTS[kind] for kind in error.__mro__ if kind in _FACTS), {})
    problem = problem_of(error(**facts), request_id=_REQUEST_ID)
    return {"summary": problem.body["detail"], "value": dict(problem.body)}


def _details(classes: list[ErrorType]) -> list[str]:
    # The general word of a code (an id that cannot be one) adds nothing to a particular one.
    particular = [error for error in classes if error is not NotFound] or classes
    return list(dict.fromkeys(str(getattr(error, "detail", "")) for error in particular))


def _waits(status: int, error: ErrorType) -> bool:
    return status in {429, 503} or issubclass(error, IdempotencyInProgress)
