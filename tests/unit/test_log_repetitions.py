"""A log that can be read in an outage: the first lines of a kind, then their number."""

import json
import logging

import pytest
import structlog

from server.log_repetitions import MOST, WINDOW_S, Repetitions
from server.logs import configure_logging


class Seconds:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def record(text: str, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("engine", level, __file__, 1, text, (object(),), None)


def test_beyond_the_first_lines_of_a_kind_their_number_is_told() -> None:
    clock = Seconds()
    repetitions = Repetitions(clock)
    passed = [repetitions.passes(record("it fails: %r")) for _ in range(500)]
    assert passed == [True] * MOST + [False] * (500 - MOST)
    # Other words, and the same words of another weight, are another matter.
    assert repetitions.passes(record("something else: %r"))
    assert repetitions.passes(record("it fails: %r", logging.ERROR))
    assert repetitions.over() == []
    clock.now = WINDOW_S
    ((kind, withheld),) = repetitions.over()
    assert (kind.text, withheld) == ("it fails: %r", 500 - MOST)
    assert repetitions.over() == []
    assert repetitions.passes(record("it fails: %r"))


def test_what_is_no_warning_always_passes() -> None:
    repetitions = Repetitions(Seconds())
    assert all(repetitions.passes(record("hello %r", logging.INFO)) for _ in range(10 * MOST))


def test_kinds_without_end_do_not_fill_the_memory() -> None:
    clock = Seconds()
    repetitions = Repetitions(clock)
    assert all(repetitions.passes(record(f"kind {number}: %r")) for number in range(5_000))
    assert len(repetitions._windows) <= 1_000


def test_the_log_of_an_outage_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        configure_logging("INFO", "json")
        for number in range(300):
            logging.getLogger("engine").warning("it fails: %r", ValueError(number))
    finally:
        root.handlers, root.level = handlers, level
        structlog.reset_defaults()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == [f"it fails: ValueError({number})" for number in range(MOST)]
