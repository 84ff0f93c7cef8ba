"""Reading beside the writer: one connection on the loop, a few in threads. All see what is acknowledged."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from server.storage.errors import StoreBusy, StoreUnavailable
from server.storage.sqlite.connect import open_reader
from server.storage.sqlite.failures import is_trouble

T = TypeVar("T")


class Readers:
    """Every piece of work runs in a read transaction of its own: all its SELECTs see one committed state."""

    def __init__(self, path: Path, *, threads: int, waiting_limit: int) -> None:
        self._open = True
        self._waiting = 0
        self._waiting_limit = waiting_limit
        self._idle: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        self._connections: list[sqlite3.Connection] = []
        try:
            self._here = open_reader(path)
            self._connections.append(self._here)
            for _ in range(threads):
                connection = open_reader(path, check_same_thread=False)
                self._connections.append(connection)
                self._idle.put(connection)
        except BaseException:
            for connection in self._connections:
                connection.close()
            raise
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="sqlite-reader")

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` here and now. For point reads and short index ranges: the event loop waits."""
        self._refuse_if_closed()
        return _snapshot(self._here, work)

    async def scan(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a thread. Raises `StoreBusy` when too many wait."""
        self._refuse_if_closed()
        if self._waiting >= self._waiting_limit:
            raise StoreBusy(lane="scan")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._scan, work)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Stop running scans, close every connection. Their callers get `StoreUnavailable`."""
        self._open = False
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, self._stop)
        finally:
            self._stop()
            for connection in self._connections:
                connection.close()

    def _scan(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._idle.get()  # never waits: there is one for each thread
        try:
            self._refuse_if_closed()
            return _snapshot(connection, work)
        finally:
            self._idle.put(connection)

    def _stop(self) -> None:
        for connection in self._connections:
            connection.interrupt()
        self._pool.shutdown()

    def _refuse_if_closed(self) -> None:
        if not self._open:
            raise StoreUnavailable(reason="the database is closed")


def _snapshot(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    try:
        connection.execute("BEGIN")
        try:
            value = work(connection)
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    except sqlite3.Error as exc:
        if is_trouble(exc):
            raise StoreUnavailable from exc
        raise
    if isinstance(value, sqlite3.Cursor):
        # A statement left half read outlives the ROLLBACK: the connection would go on seeing this snapshot, and
        # every later read would miss what was committed since, without a word.
        value.close()
        raise TypeError("the work must fetch its rows, not return the cursor")
    return value
