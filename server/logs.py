"""Structured logs: one event a line on stderr, JSON in production, readable on a developer's terminal."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal

import orjson
import structlog
from aiohttp.http_exceptions import HttpProcessingError

from server.log_repetitions import Repetitions

#: Words in a field's name that make its value nobody's business.
_SECRET: Final = ("password", "token", "secret", "authorization", "api_key", "signature")
_HIDDEN: Final = "***"


def configure_logging(level: str = "INFO", style: Literal["console", "json"] = "console") -> None:
    """Set up structlog, and pass the libraries' own log records through it."""
    number = logging.getLevelNamesMapping()[level]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_secrets,
    ]
    if style == "json":
        last: list[Any] = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_dumps),
        ]
    else:
        # Plain: the pretty tracebacks print local variables, and those hold tokens.
        pretty = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        last = [pretty]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_ToStructlog()]
    # The libraries below INFO write a line for every packet.
    root.setLevel(max(number, logging.INFO))


def hide_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blank the values of fields that sound secret: a log is read by more people than a database."""
    for name in event:
        if any(word in name.lower() for word in _SECRET):
            event[name] = _HIDDEN
    return event


#: What the standard library puts into a record by itself; `message` and `asctime` are its formatters'.
_OF_EVERY_RECORD: Final = frozenset(
    {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "event", "logger"}
)


class _ToStructlog(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self._repetitions = Repetitions()

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None and isinstance(record.exc_info[1], HttpProcessingError):
            # Bytes that are no HTTP: aiohttp has answered 400, and a scanner must not fill the disk with tracebacks.
            return
        for kind, withheld in self._repetitions.over():
            text = f"{withheld} more lines like this: {kind.text}"
            structlog.get_logger(kind.logger).log(kind.level, text, logger=kind.logger)
        if not self._repetitions.passes(record):
            return
        log = structlog.get_logger(record.name)
        # What the engines pass in `extra`, the session's id above all: a line about a session can be found by it.
        facts = {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info, **facts)


def _dumps(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
