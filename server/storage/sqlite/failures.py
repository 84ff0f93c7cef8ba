"""Which of SQLite's failures mean what."""

import sqlite3
from typing import Final

from server.storage.errors import StoreUnavailable

#: The store's trouble, not the statement's: the caller may try again by key.
_TROUBLE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def primary_code(exc: BaseException) -> int | None:
    """SQLite's result code without its extension; None for anything that SQLite did not raise."""
    code = getattr(exc, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None


def is_trouble(exc: BaseException) -> bool:
    """Whether the store failed, as opposed to a constraint or a mistake in the SQL."""
    return primary_code(exc) in _TROUBLE


def is_damage(exc: BaseException) -> bool:
    """Whether the file itself is broken: nothing more may be written to it."""
    return primary_code(exc) in _DAMAGE


def is_io_error(exc: BaseException) -> bool:
    return primary_code(exc) == sqlite3.SQLITE_IOERR


def for_caller(exc: BaseException) -> BaseException:
    """What the caller of a piece of work gets to see for `exc`."""
    if is_trouble(exc):
        return unavailable(exc)
    if isinstance(exc, StopIteration) or not isinstance(exc, Exception):
        # A future refuses StopIteration, which would cost the whole batch its answers; and work in another thread
        # cannot end the event loop or cancel a task of it.
        wrapped = RuntimeError(f"the work raised {type(exc).__name__}")
        wrapped.__cause__ = exc
        return wrapped
    return exc


def unavailable(cause: BaseException) -> StoreUnavailable:
    """A fresh `StoreUnavailable` because of `cause`; each caller needs its own."""
    error = StoreUnavailable()
    error.__cause__ = cause
    return error
