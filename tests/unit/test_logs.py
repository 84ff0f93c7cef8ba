"""Logs: machine readable, and blind to secrets."""

import json
import logging

import pytest
import structlog
from aiohttp.http_exceptions import BadHttpMessage

from server.logs import configure_logging


@pytest.fixture(autouse=True)
def _put_back():
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def _lines(capsys) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_lines_with_secrets_blanked(capsys):
    """A log is read by more people than the database."""
    configure_logging("INFO", "json")
    structlog.get_logger().info(
        "hello", user_id="u", password="hunter2", refresh_token="t", Authorization="Bearer x"
    )
    (line,) = _lines(capsys)

    assert (line["event"], line["level"], line["user_id"]) == ("hello", "info", "u")
    assert (line["password"], line["refresh_token"], line["Authorization"]) == ("***", "***", "***")
    assert str(line["timestamp"]).endswith("Z")


def test_the_level_holds(capsys):
    configure_logging("WARNING", "json")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [line["event"] for line in _lines(capsys)] == ["loud"]


def test_libraries_speak_through_it_too(capsys):
    configure_logging("INFO", "json")
    logging.getLogger("some.library").warning("a %s", "word")
    logging.getLogger("some.library").debug("chatter")
    assert [(line["event"], line["logger"]) for line in _lines(capsys)] == [("a word", "some.library")]


def test_a_line_of_the_engine_carries_its_session(capsys):
    """At 3 a.m. the operator has a session's id, and asks the log for it."""
    configure_logging("INFO", "json")
    logging.getLogger("billing_engine.consultations.engine").warning(
        "billing step will be tried again: %r",
        ValueError("x"),
        extra={"session_id": "s1", "reset_token": "t"},
    )
    (line,) = _lines(capsys)

    assert (line["session_id"], line["reset_token"]) == ("s1", "***")
    assert line["event"] == "billing step will be tried again: ValueError('x')"
    assert line["logger"] == "billing_engine.consultations.engine"


def test_bytes_that_are_no_http_leave_no_traceback(capsys):
    """Every scanner of the internet sends them."""
    configure_logging("INFO", "json")
    error = BadHttpMessage("nonsense")
    logging.getLogger("aiohttp.server").error("Error handling request", exc_info=error)
    assert _lines(capsys) == []


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_traceback_is_whole_and_shows_no_variables(capsys, style):
    """Local variables hold passwords and tokens."""
    configure_logging("INFO", style)
    password = "hunter" + "2"
    try:
        int(password[:0])
    except ValueError:
        structlog.get_logger().exception("broken")
    text = capsys.readouterr().err

    assert "ValueError" in text
    assert "test_logs.py" in text
    assert "hunter2" not in text
