"""Every failure that a client can meet, from the tables."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from billing_engine.errors import InvariantBroken, NotFound
from chat.byes import BYES as ALL_BYES
from chat.errors import ChatError, ConnectTimeout, Draining, Unauthenticated, UnknownEvent
from chat.event_types import EVERY_EVENT
from chat.events import CLIENT_EVENTS
from server import errors as edge
from server.api_docs.asyncapi import INTERNAL
from server.api_docs.problems import ErrorType, errors_of
from server.problems import status_of
from server.routing import Route
from server.storage.errors import StoreBusy, StoreUnavailable

#: Who gives what every route of a kind may give.
_GENERAL: Final[Mapping[ErrorType, str]] = {
    edge.MalformedJson: "every route with a body",
    edge.BodyTooLarge: "every route with a body",
    edge.UnsupportedMediaType: "every route with a body",
    edge.ValidationFailed: "every route with a body or a query",
    edge.Unauthenticated: "every route that needs a token",
    edge.Forbidden: "every route that needs a token: for another role, a company's member or API key that may not",
    edge.IdempotencyInProgress: "every route that takes an `Idempotency-Key`",
    edge.IdempotencyKeyReused: "every route that takes an `Idempotency-Key`",
    edge.RateLimited: "log-ins, registrations, new passwords and recharges; `Retry-After` says when to come again",
    NotFound: "every route with an id in its path",
    StoreUnavailable: "every route that reads or writes",
    StoreBusy: "every route that writes",
    InvariantBroken: "every route: a defect of ours, its `requestId` is in the log",
}
#: No route gives these: they are about paths and methods that are none.
_OUTSIDE: Final[Mapping[ErrorType, str]] = {
    edge.PathNotFound: "a path that is no route's",
    edge.MethodNotAllowed: "a path with another method; `Allow` lists the right ones",
}
#: Why a server closes a connection; told in `server:bye` first.
BYES: Final = tuple((bye.code, bye.reason, bye.reconnect, bye.meaning) for bye in ALL_BYES)


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """One code of one status, with what it means and who gives it."""

    status: int
    code: str
    meaning: str
    given_by: str


@dataclass(frozen=True, slots=True)
class AckRow:
    """One code of an acknowledgement."""

    code: str
    retryable: bool
    meaning: str
    given_by: str


def http_errors(routes: Iterable[Route]) -> list[ErrorRow]:
    """What the routes can answer, one row a code: several classes may share one, with a meaning each."""
    found: dict[tuple[int, str], tuple[list[str], list[str]]] = {}
    for error, where in _places([*routes]):
        meanings, places = found.setdefault((status_of(error), _code(error)), ([], []))
        # What a class only inherits says nothing of its own.
        if (detail := vars(error).get("detail")) is not None and detail not in meanings:
            meanings.append(str(detail))
        if where not in places:
            places.append(where)
    return [
        ErrorRow(status, code, " ".join(meanings), ", ".join(places))
        for (status, code), (meanings, places) in sorted(found.items())
    ]


def _places(routes: list[Route]) -> Iterator[tuple[ErrorType, str]]:
    """Each error with each place that gives it; first what many give."""
    for route in routes:
        yield from ((error, _GENERAL[error]) for error in errors_of(route) if error in _GENERAL)
    yield from _OUTSIDE.items()
    for route in routes:
        general = {_code(error): _GENERAL[error] for error in errors_of(route) if error in _GENERAL}
        for error in route.errors:
            if error not in _GENERAL:
                yield error, general.get(_code(error), f"`{route.name}`")


def ack_errors() -> list[AckRow]:
    """What events can be refused with."""
    given: dict[type[ChatError], list[str]] = {error: ["every event"] for error in (*EVERY_EVENT, StoreBusy)}
    given[UnknownEvent] = ["an event that is in no table"]
    for event in CLIENT_EVENTS.values():
        for error in event.errors:
            given.setdefault(error, []).append(f"`{event.name}`")
    rows = [
        AckRow(error.code, error.retryable, error.detail, ", ".join(where)) for error, where in given.items()
    ]
    rows.append(AckRow(INTERNAL, True, "A defect of ours; its `errorId` is in the log.", "every event"))
    return sorted(rows, key=lambda row: (row.code, row.meaning))


def connect_errors() -> list[AckRow]:
    """What `connect_error` can carry in its `data`."""
    rows = [
        AckRow(error.code, error.retryable, error.detail, "connect")
        for error in (Unauthenticated, Draining, ConnectTimeout)
    ]
    return [*rows, AckRow(INTERNAL, True, "A defect of ours; the message names its id.", "connect")]


def _code(error: ErrorType) -> str:
    return str(getattr(error, "code", INTERNAL))
