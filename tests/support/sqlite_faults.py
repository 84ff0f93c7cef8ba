"""Ways to make the engine's surroundings fail, or wait, at a chosen point."""

import asyncio
import sqlite3
import threading
from typing import Any


class Gate:
    """A piece of work that holds the writer thread until it is opened."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._open = threading.Event()

    def work(self, _connection: sqlite3.Connection) -> None:
        self._entered.set()
        if not self._open.wait(30):
            raise TimeoutError("nobody opened the gate")

    async def entered(self) -> None:
        """Once the writer stands in the gate."""
        assert await asyncio.to_thread(self._entered.wait, 30)

    def open(self) -> None:
        self._open.set()


def sqlite_error(code: int, message: str = "made to fail") -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error


def failing_connection(faults: dict[str, list[Exception]]) -> type[sqlite3.Connection]:
    """A connection class whose `execute(sql)` raises the next of `faults[sql]`, while there is one."""

    class FailingConnection(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if faults.get(sql):
                raise faults[sql].pop(0)
            return super().execute(sql, *args)

    return FailingConnection
