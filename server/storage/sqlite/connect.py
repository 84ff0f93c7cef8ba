"""Opening connections: one that writes and checkpoints, any number that can do neither."""

import sqlite3
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from server.storage.errors import CannotOpen

Synchronous = Literal["FULL", "NORMAL", "OFF"]

#: 3.7.0 to 3.51.2 can corrupt a WAL that two connections write or checkpoint at once.
#: We have one; still, we warn.
FIXED_VERSION: Final = (3, 51, 3)
#: Repositories build their SQL from a few dozen shapes each; Python's default of 128 would prepare them anew.
_STATEMENTS: Final = 512
_CACHE_KIB: Final = 65_536
#: A checkpoint every 16 MB: at 1,000 pages the checkpoints' own fsyncs cost a tenth of the throughput.
_CHECKPOINT_PAGES: Final = 4_000
_WAL_KEPT_BYTES: Final = 64 * 1024 * 1024


def open_writer(
    path: Path, *, synchronous: Synchronous, factory: type[sqlite3.Connection]
) -> sqlite3.Connection:
    """The one connection that may write. Creates the file. Raises `CannotOpen`."""
    try:
        connection = sqlite3.connect(
            path,
            isolation_level=None,
            # Opened by the event loop, used by the writer thread alone.
            check_same_thread=False,
            cached_statements=_STATEMENTS,
            factory=factory,
        )
    except sqlite3.Error as exc:
        raise CannotOpen(path, str(exc)) from exc
    try:
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit={_WAL_KEPT_BYTES}")
        connection.execute("PRAGMA temp_store=MEMORY")
    except sqlite3.Error as exc:
        connection.close()
        raise CannotOpen(path, str(exc)) from exc
    if mode != "wal":
        connection.close()
        raise CannotOpen(path, f"its file system cannot hold a write-ahead log (journal mode {mode})")
    return connection


def open_reader(path: Path, *, check_same_thread: bool = True) -> sqlite3.Connection:
    """A connection that can neither write nor checkpoint. Raises `CannotOpen`."""
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro",
            uri=True,
            timeout=1.0,
            isolation_level=None,
            check_same_thread=check_same_thread,
            cached_statements=_STATEMENTS,
        )
    except sqlite3.Error as exc:
        raise CannotOpen(path, str(exc)) from exc
    try:
        connection.execute("PRAGMA query_only=1")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        # A file that is no database, or a log that cannot be read, is met here and not in a request.
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.Error as exc:
        connection.close()
        raise CannotOpen(path, str(exc)) from exc
    return connection


def open_readonly(path: str | Path) -> sqlite3.Connection:
    """For `verify-ledger` and the like, also from another process and without the lock.

    BEGIN once, read everything, close: what is seen is one committed state, however long it takes. A server
    that runs meanwhile is not held up; its log grows until the connection closes. Raises `CannotOpen`.
    """
    return open_reader(Path(path).resolve())
