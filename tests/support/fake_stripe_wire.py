"""How Stripe speaks HTTP: forms with brackets, keys that are remembered, errors in JSON, lists in pages. What is paid, it does not know."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl


class Refusal(Exception):
    """An answer other than 200, in Stripe's words."""

    def __init__(
        self, status: int, message: str, *, kind: str = "invalid_request_error", **facts: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, **facts}}


def missing(kind: str, name: object, param: str = "id") -> Refusal:
    return Refusal(404, f"No such {kind}: '{name}'", code="resource_missing", param=param)


def nested(encoded: str) -> dict[str, Any]:
    """`a[b][0]=c` as objects and arrays. Every value stays a string, as it came."""
    found: dict[str, Any] = {}
    for name, value in parse_qsl(encoded, keep_blank_values=True):
        parts = re.findall(r"[^\[\]]+", name)
        place = found
        for part in parts[:-1]:
            place = place.setdefault(part, {})
        place[parts[-1]] = value
    return {name: _with_lists(value) for name, value in found.items()}


def _with_lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(name.isdigit() for name in value):
        return [_with_lists(value[name]) for name in sorted(value, key=int)]
    return {name: _with_lists(inner) for name, inner in value.items()}


def only_known(form: Mapping[str, Any], names: Any) -> None:
    """Stripe refuses a parameter that it does not know: a misspelt one is not silently left out."""
    for name in form:
        if name not in names:
            raise Refusal(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)


def page_of(items: list[dict[str, Any]], form: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Newest first; `items` are oldest first."""
    created = form.get("created") or {}
    chosen = [
        item
        for item in reversed(items)
        if item["created"] >= int(created.get("gte", 0)) and item["created"] < int(created.get("lt", 10**12))
    ]
    if (after := form.get("starting_after")) is not None:
        names = [item["id"] for item in chosen]
        if after not in names:
            raise missing("object", after, "starting_after")
        chosen = chosen[names.index(after) + 1 :]
    limit = int(form.get("limit", 10))
    if not 1 <= limit <= 100:
        raise Refusal(400, "Invalid integer: limit", param="limit")
    return {"object": "list", "data": chosen[:limit], "has_more": len(chosen) > limit, "url": url}


@dataclass
class Remembered:
    """What was asked under a key, and what was answered. `answer` is None while it is being done."""

    asked: str
    answer: tuple[int, dict[str, Any]] | None = None
    is_running: bool = False


class Keys:
    """Idempotency-Key as Stripe keeps it: the first answer again for the same request, 400 for another, 409 while it is being done.

    A refusal of the parameters is not kept, since nothing was begun; a declined card is.
    """

    def __init__(self) -> None:
        self._known: dict[str, Remembered] = {}

    def begin(self, key: str, path: str, form: Mapping[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """The answer that is known, or None: it is to be done now."""
        asked = path + "\n" + json.dumps(form, sort_keys=True)
        known = self._known.setdefault(key, Remembered(asked))
        if known.asked != asked:
            raise Refusal(
                400,
                "Keys for idempotent requests can only be used with the same parameters they were first used with. "
                f"Try using a key other than '{key}' if you meant to execute a different request.",
                kind="idempotency_error",
            )
        if known.answer is not None:
            return known.answer
        if known.is_running:
            raise Refusal(
                409,
                "There is currently another in-progress request using this Idempotency Key. Please try again later.",
                code="idempotency_key_in_use",
            )
        known.is_running = True
        return None

    def end(self, key: str, status: int, body: dict[str, Any]) -> None:
        if status in {200, 402, 500}:
            self._known[key].answer = (status, body)
        else:
            del self._known[key]

    def forget(self) -> None:
        """A day goes by."""
        self._known = {key: known for key, known in self._known.items() if known.answer is None}


#: What a request is answered instead of what was asked for: status, content type, body.
WRONG_ANSWERS: Mapping[str, Callable[[str], tuple[int, str, str]]] = {
    "html 502": lambda _key: (502, "text/html", "<html><body>502 Bad Gateway</body></html>"),
    "json 500": lambda _key: (
        500,
        "application/json",
        json.dumps({"error": {"message": "An unknown error occurred", "type": "api_error"}}),
    ),
    "429": lambda _key: (
        429,
        "application/json",
        json.dumps(
            {
                "error": {
                    "code": "rate_limit",
                    "message": "Request rate limit exceeded.",
                    "type": "invalid_request_error",
                }
            }
        ),
    ),
    "html 200": lambda _key: (200, "text/html", "<html><body>Down for maintenance</body></html>"),
    "other json": lambda _key: (200, "application/json", '{"hello": ["world"]}'),
    "json list": lambda _key: (200, "application/json", "[]"),
    "json null": lambda _key: (200, "application/json", "null"),
    "broken json": lambda _key: (200, "application/json", '{"id": "pi_1", "object": "payment_int'),
    "empty": lambda _key: (200, "application/json", ""),
    "not utf-8": lambda _key: (200, "application/json", "\udcff\udcfe"),
    "error without a body": lambda _key: (400, "application/json", "{}"),
    "error that is a word": lambda _key: (400, "application/json", '{"error": "invalid"}'),
    "error that is null": lambda _key: (400, "application/json", '{"error": null}'),
    # More than Stripe repeats of a key, which is its last four characters: what never leaves us must not even then.
    "401": lambda key: (
        401,
        "application/json",
        json.dumps(
            {"error": {"message": f"Invalid API Key provided: {key}", "type": "invalid_request_error"}}
        ),
    ),
    "403": lambda key: (
        403,
        "application/json",
        json.dumps(
            {
                "error": {
                    "code": "more_permissions_required",
                    "message": f"The provided key '{key}' does not have the required permissions.",
                    "type": "invalid_request_error",
                }
            }
        ),
    ),
    "redirect": lambda _key: (302, "text/html", ""),
}
