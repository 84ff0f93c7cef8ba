"""The list of errors, as a text and as a page."""

from collections.abc import Iterable
from typing import Final

from server.api_docs.errors_table import BYES, ack_errors, connect_errors, http_errors
from server.routing import Route

_HTTP: Final = """\
# Errors

Programs look at `code`, which is stable; people read `detail`, which may change.

## Over HTTP

`application/problem+json` (RFC 9457): `{type, title, status, code, detail, instance, requestId}`, for `VALIDATION_FAILED` also
`errors: [{field, problem}]`, for `INSUFFICIENT_BALANCE` also `required` and `available`. With 429 and 503 `Retry-After` says when to
come again. After a 503 the outcome may be unknown: repeat with the same `Idempotency-Key`, and money moves once.

"""
_ACKS: Final = """
## In acknowledgements of events

`{ok: false, error: {code, message, retryable}}`; `VALIDATION_FAILED` also has `fields: [{field, message}]`, `RATE_LIMITED` has
`retryAfterMs`. What is retryable may be sent again as it is.

"""
_CONNECT: Final = """
## When a connection is refused

`connect_error` with `data: {code, message, retryable}`.

"""
_BYE: Final = """
## Before the server closes a connection

`server:bye` with `{code, reason, reconnect}`, and `retryAfterMs` where the client may come back: after that time, not sooner.

"""


def errors_markdown(routes: Iterable[Route]) -> str:
    """The whole text."""
    http = [(str(row.status), f"`{row.code}`", row.meaning, row.given_by) for row in http_errors(routes)]
    acks = [(f"`{row.code}`", _yes(row.retryable), row.meaning, row.given_by) for row in ack_errors()]
    connects = [(f"`{row.code}`", _yes(row.retryable), row.meaning) for row in connect_errors()]
    byes = [(str(code), f"`{reason}`", _yes(again), meaning) for code, reason, again, meaning in BYES]
    return "".join(
        (
            _HTTP,
            _table(("status", "code", "meaning", "given by"), http),
            _ACKS,
            _table(("code", "retryable", "meaning", "given by"), acks),
            _CONNECT,
            _table(("code", "retryable", "meaning"), connects),
            _BYE,
            _table(("code", "reason", "reconnect", "meaning"), byes),
        )
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
