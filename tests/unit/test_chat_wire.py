"""Instants, error bodies and the event table."""

from datetime import datetime

import pytest

import chat.errors
from chat import wire
from chat.errors import ChatError, Conflict, Invalid, NotFound, Refused, Unavailable
from chat.event_types import Failure
from chat.events import CLIENT_EVENTS, SERVER_EVENTS
from chat.message_events import CLIENT_CHAT_EVENTS
from chat.namespace import ChatNamespace


@pytest.mark.parametrize(
    ("at_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (999, "1970-01-01T00:00:00.999Z"),
        (1_795_226_400_005, "2026-11-21T02:00:00.005Z"),
    ],
)
def test_instants_are_rfc_3339_in_utc_with_milliseconds(at_ms: int, text: str) -> None:
    assert wire.instant(at_ms) == text
    assert datetime.fromisoformat(text).timestamp() * 1000 == pytest.approx(at_ms)


def every_error() -> list[type[ChatError]]:
    found, todo = [], [ChatError]
    while todo:
        error = todo.pop()
        if error.__module__ == chat.errors.__name__:
            found.append(error)
            todo += error.__subclasses__()
    return found


@pytest.mark.parametrize("error", every_error())
def test_every_expected_failure_has_a_code_and_a_text_for_clients(error: type[ChatError]) -> None:
    failure = wire.failure(error(session_id="ses_secret"))

    Failure.model_validate(failure)
    assert failure["error"]["code"].isupper()
    assert "ses_secret" not in str(failure), "facts are for the log"


def test_every_expected_failure_is_of_a_known_kind() -> None:
    """The HTTP edge maps kinds to statuses; one outside of them would be a 500."""
    kinds = (NotFound, Conflict, Invalid, Refused, Unavailable)

    assert [error for error in every_error() if error is not ChatError and not issubclass(error, kinds)] == []


def test_every_event_has_its_handler_and_every_handler_its_event() -> None:
    for event in CLIENT_CHAT_EVENTS:
        assert callable(getattr(ChatNamespace, event.name))
    assert all(event.doc for event in CLIENT_EVENTS.values())
    assert {event.name for event in CLIENT_CHAT_EVENTS} == {
        "join_session", "send_message", "message_delivered", "mark_seen", "typing", "leave_session",
    }  # fmt: skip
    assert {"new_message", "message_status", "typing", "presence", "server:bye"} <= set(SERVER_EVENTS)
