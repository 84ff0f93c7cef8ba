"""Another process with a database: `python -m tests.support.sqlite_child MODE PATH [ARGUMENT]`.

hold    open it, say so, keep it until stdin closes
write   write for ever from 50 callers, print each acknowledged id; every row is two, which must stay together
verify  read all of it again and again in one transaction through `open_readonly`; print what was found as JSON
backup  copy it to ARGUMENT
fsize   write until the file may not grow beyond ARGUMENT bytes more; print the acknowledged ids, then what happened
"""

import asyncio
import json
import logging
import os
import resource
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import structlog

from server.storage.errors import StoreUnavailable
from server.storage.sqlite.backup import backup_to
from server.storage.sqlite.engine import (
    CannotOpen,
    Lane,
    SqliteDatabase,
    SqliteOptions,
    open_database,
    open_readonly,
)

SCHEMA = "CREATE TABLE IF NOT EXISTS entry (id TEXT PRIMARY KEY, amount INTEGER NOT NULL);"


def pair(id_: str, amount: int) -> Callable[[sqlite3.Connection], str]:
    """Two rows that sum to zero: a state with one of them was never committed."""

    def work(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO entry VALUES (?, ?)", (id_, amount))
        connection.execute("INSERT INTO entry VALUES (?, ?)", (f"{id_}-contra", -amount))
        return id_

    return work


async def hold(path: Path) -> None:
    async with open_database(path):
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def write(path: Path) -> None:
    async with open_database(path) as db:
        await db.script(SCHEMA)

        async def caller(number: int) -> None:
            count = 0
            while True:
                count += 1
                id_ = await db.write(Lane.LEDGER, pair(f"{os.getpid()}-{number}-{count}", count))
                # Only now: what stands in the pipe was acknowledged.
                os.write(1, f"{id_}\n".encode())

        await asyncio.gather(*(caller(number) for number in range(50)))


def verify(path: Path) -> None:
    connection = open_readonly(path)
    found = []
    for _ in range(20):
        connection.execute("BEGIN")
        sql = "SELECT count(*), coalesce(sum(amount), 0) FROM entry"
        found.append([connection.execute(sql).fetchone() for _ in range(5)])
        connection.execute("ROLLBACK")
    print(json.dumps(found))


async def fsize(path: Path, more_bytes: int) -> None:
    told: list[str] = []
    options = SqliteOptions(on_fatal=lambda cause: told.append(type(cause).__name__))
    async with open_database(path, options) as db:
        await db.script(SCHEMA)
        _soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = path.with_name(path.name + "-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + more_bytes, hard))
        failed = await _write_until_it_fails(db)
        # Space again; yet what the kernel made of the failed pages is unknown: writing is over.
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        try:
            await db.write(Lane.LEDGER, pair("after", 1))
            again = "written"
        except StoreUnavailable:
            again = "refused"
        print(json.dumps({"failed": failed, "fatal": told, "again": again}), flush=True)


async def _write_until_it_fails(db: SqliteDatabase) -> int:
    for batch in range(1_000):
        results = await asyncio.gather(
            *(db.write(Lane.LEDGER, pair(f"b{batch}-{n}", n)) for n in range(50)), return_exceptions=True
        )
        for result in results:
            if isinstance(result, str):
                print(result, flush=True)
        failed = [result for result in results if not isinstance(result, str)]
        if failed:
            assert all(isinstance(result, StoreUnavailable) for result in failed), failed
            return len(failed)
    raise AssertionError("the limit was never reached")


def main() -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    mode, path, *rest = sys.argv[1:]
    try:
        match mode:
            case "hold":
                asyncio.run(hold(Path(path)))
            case "write":
                asyncio.run(write(Path(path)))
            case "verify":
                verify(Path(path))
            case "backup":
                backup_to(path, Path(rest[0]))
            case "fsize":
                asyncio.run(fsize(Path(path), int(rest[0])))
    except CannotOpen as exc:
        print(exc, file=sys.stderr)
        raise SystemExit(3) from exc


if __name__ == "__main__":
    main()
