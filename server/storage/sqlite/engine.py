"""One SQLite file: a writer thread with group commit, readers beside it, a lock that keeps others out."""

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import structlog

from server.storage.errors import CannotOpen, StoreUnavailable
from server.storage.sqlite.backup import backup_to
from server.storage.sqlite.connect import FIXED_VERSION, Synchronous, open_readonly, open_writer
from server.storage.sqlite.filelock import DatabaseInUse, exclusive
from server.storage.sqlite.lanes import Lane
from server.storage.sqlite.readers import Readers
from server.storage.sqlite.writer import Writer, WriterStats

__all__ = [
    "CannotOpen",
    "DatabaseInUse",
    "Lane",
    "SqliteDatabase",
    "SqliteOptions",
    "WriterStats",
    "open_database",
    "open_readonly",
]

T = TypeVar("T")
log = structlog.get_logger(__name__)

_READINESS = (
    "CREATE TABLE IF NOT EXISTS readiness (one INTEGER PRIMARY KEY CHECK (one = 1), pings INTEGER NOT NULL)"
)

#: How soon the event loop must let the writer thread run. SQLite's calls give up the interpreter lock, and a busy loop
#: takes it back each time: at Python's 5 ms, callbacks of 3 ms in a row kept one write waiting for four seconds.
#: At this interval the same write takes 5 ms, and the throughput of a free loop is the same.
SWITCH_INTERVAL_S: Final = 0.0001


@dataclass(frozen=True, slots=True)
class SqliteOptions:
    """How to run the engine. The defaults are for production; tests take `synchronous="OFF"`."""

    #: FULL: acknowledged means on the disk. Anything less may lose acknowledged commits when the power fails.
    synchronous: Synchronous = "FULL"
    #: Items that may wait in each lane.
    queue_limit: int = 20_000
    #: Items in one commit, and the time after which a batch commits with what it has.
    batch_limit: int = 1_000
    batch_time_ms: int = 50
    reader_threads: int = 2
    #: Scans that may wait for a reader thread.
    scan_limit: int = 1_000
    #: Called on the event loop, once, when nothing more may be written: the process should stop.
    on_fatal: Callable[[BaseException], None] | None = None
    #: The writer's connection class, for tests that make the disk fail.
    connection_factory: type[sqlite3.Connection] = sqlite3.Connection


@asynccontextmanager
async def open_database(
    path: str | Path, options: SqliteOptions | None = None
) -> AsyncIterator["SqliteDatabase"]:
    """Open or create the database; at the end finish what waits, checkpoint, close, give up the lock.

    Raises:
        DatabaseInUse: another process has it open.
        CannotOpen: the file cannot be used; the message names it and says why.
    """
    options = options or SqliteOptions()
    # Two names of one file must meet at one lock.
    path = _one_name(path)
    if sqlite3.sqlite_version_info < FIXED_VERSION:
        log.warning(
            "sqlite_has_wal_reset_bug",
            version=sqlite3.sqlite_version,
            fixed_in=".".join(map(str, FIXED_VERSION)),
            detail="harmless with one writing connection: let no other program write to the file",
        )
    sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
    async with AsyncExitStack() as stack:
        stack.enter_context(exclusive(path))
        connection = open_writer(path, synchronous=options.synchronous, factory=options.connection_factory)
        # Closed last of all connections: SQLite's checkpoint at the end belongs to the one that may write.
        stack.callback(connection.close)
        try:
            connection.execute(_READINESS)
        except sqlite3.Error as exc:
            raise CannotOpen(path, str(exc)) from exc
        readers = Readers(path, threads=options.reader_threads, waiting_limit=options.scan_limit)
        stack.push_async_callback(readers.close)
        database = SqliteDatabase(path, connection, readers, options)
        stack.callback(_leave_the_log_if_broken, database, connection)
        stack.push_async_callback(database.close)
        yield database


def _one_name(path: str | Path) -> Path:
    return Path(path).resolve()


def _leave_the_log_if_broken(database: "SqliteDatabase", connection: sqlite3.Connection) -> None:
    """After a failing disk, close the writer while readers are open: then SQLite does not checkpoint.

    The log stays as it is on the disk, and the next start reads the truth from it.
    """
    if database.fatal is not None:
        connection.close()


class SqliteDatabase:
    """What the adapters stand on. `open_database` makes it; its methods belong to the event loop's thread."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, readers: Readers, options: SqliteOptions
    ) -> None:
        self.path = path
        self._on_fatal = options.on_fatal
        self._readers = readers
        self._writer = Writer(
            connection,
            queue_limit=options.queue_limit,
            batch_limit=options.batch_limit,
            batch_time_ms=options.batch_time_ms,
            on_fatal=self._stop_for_good,
        )

    @property
    def fatal(self) -> BaseException | None:
        """The error after which nothing more is written; None while all is well."""
        return self._writer.fatal

    @property
    def stats(self) -> WriterStats:
        """The writer's counters."""
        return self._writer.stats

    def depth(self, lane: Lane) -> int:
        """How many items wait in `lane`."""
        return self._writer.depth(lane)

    def submit(self, lane: Lane, work: Callable[[sqlite3.Connection], T]) -> "asyncio.Future[T]":
        """Like `write`, but queued before this returns: who must keep an order need not await in turn."""
        return self._writer.submit(lane, work)

    async def write(self, lane: Lane, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work(connection)` in the writer thread; its result, once it is committed durably.

        What `work` raises undoes `work` alone and is raised here. It must not begin or end transactions, must
        not keep cursors, and must not touch what belongs to the event loop. It runs even if the caller is
        cancelled.

        Raises:
            StoreBusy: too much waits already; nothing was written.
            StoreUnavailable: it was not committed, or nobody can tell (a failing disk); retry by key.
        """
        return await self._writer.submit(lane, work)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work(connection)` here: point reads and short index ranges. It sees all that was acknowledged.

        Raises `StoreUnavailable`.
        """
        return self._readers.read(work)

    async def scan(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work(connection)` in a reader thread: everything that may take longer than a point read.

        Raises `StoreBusy`, `StoreUnavailable`.
        """
        return await self._readers.scan(work)

    async def script(self, sql: str) -> None:
        """Run schema statements in one transaction, all or none; write them so that a repeat is harmless."""
        statements = split_statements(sql)

        def work(connection: sqlite3.Connection) -> None:
            for statement in statements:
                connection.execute(statement)

        await self._writer.submit(Lane.REST, work)

    async def backup(self, target: Path) -> None:
        """Write a consistent copy to the new file `target`, beside running reads and writes.

        Raises:
            FileExistsError: `target` exists.
            StoreUnavailable: the copy could not be made; nothing is left at `target`.
        """
        self.read(lambda _: None)  # raises when the database is closed
        try:
            await asyncio.to_thread(backup_to, self.path, target)
        except FileExistsError:
            raise
        except (sqlite3.Error, OSError, CannotOpen) as exc:
            raise StoreUnavailable(reason=str(exc)) from exc

    async def ping(self, *, timeout_s: float = 2.0) -> None:
        """Commit something and read it back. Raises `StoreUnavailable` when that fails or takes too long."""

        def write(connection: sqlite3.Connection) -> int:
            rows = connection.execute(
                "INSERT INTO readiness VALUES (1, 1)"
                " ON CONFLICT DO UPDATE SET pings = pings + 1 RETURNING pings"
            ).fetchall()
            return int(rows[0][0])

        def read(connection: sqlite3.Connection) -> int:
            return int(connection.execute("SELECT pings FROM readiness").fetchone()[0])

        try:
            async with asyncio.timeout(timeout_s):
                written = await self._writer.submit(Lane.LEDGER, write)
        except TimeoutError as exc:
            raise StoreUnavailable(reason=f"no commit within {timeout_s} s") from exc
        if self.read(read) < written:
            raise StoreUnavailable(reason="a committed row cannot be read")

    async def close(self) -> None:
        """Take no more work and finish what waits. `open_database` calls it."""
        await self._writer.close()

    def _stop_for_good(self, cause: BaseException) -> None:
        log.critical("sqlite_fatal", path=str(self.path), error=repr(cause))
        if self._on_fatal is not None:
            self._on_fatal(cause)


def split_statements(sql: str) -> list[str]:
    """The statements of a script. `executescript` is of no use here: it commits the batch it runs in.

    Raises `ValueError` when the last statement is not complete.
    """
    statements: list[str] = []
    open_part = ""
    for piece in sql.split(";"):
        open_part += piece + ";"
        if sqlite3.complete_statement(open_part):
            statements.append(open_part)
            open_part = ""
    rest = open_part.removesuffix(";")
    if rest.strip():
        raise ValueError(f"the script ends inside a statement: {rest.strip()[:80]!r}")
    return statements
