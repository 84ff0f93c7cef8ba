"""How much a group commit saves: the engine with many callers, a commit for each row, and the bare executemany.

    python bench/sqlite_group_commit.py [--rows 200000] [--callers 1000] [--directory DIR]

All three write the same rows with `synchronous=FULL` into fresh files of one directory, in one run; compare the
ratios, not the figures of two machines.
"""

import argparse
import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import structlog
import uvloop

from server.storage.sqlite.connect import open_writer
from server.storage.sqlite.engine import Lane, SqliteOptions, open_database

TABLE = "CREATE TABLE entry (id INTEGER PRIMARY KEY, account TEXT NOT NULL, amount INTEGER NOT NULL)"
INSERT = "INSERT INTO entry VALUES (?, ?, ?)"


def row(number: int) -> tuple[int, str, int]:
    return number, f"account-{number % 997:04}", number % 10_000


def executemany(path: Path, rows: int) -> float:
    """Rows a second of one raw statement in transactions of 1,000."""
    connection = open_writer(path, synchronous="FULL", factory=sqlite3.Connection)
    connection.execute(TABLE)
    data = [row(number) for number in range(rows)]
    started_s = time.perf_counter()
    for first in range(0, rows, 1_000):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(INSERT, data[first : first + 1_000])
        connection.execute("COMMIT")
    took_s = time.perf_counter() - started_s
    connection.close()
    return rows / took_s


def commit_each(path: Path, rows: int) -> float:
    """Rows a second with a durable commit for every row."""
    connection = open_writer(path, synchronous="FULL", factory=sqlite3.Connection)
    connection.execute(TABLE)
    started_s = time.perf_counter()
    for number in range(rows):
        connection.execute(INSERT, row(number))
    took_s = time.perf_counter() - started_s
    connection.close()
    return rows / took_s


async def group_commit(path: Path, rows: int, callers: int) -> tuple[float, float]:
    """Rows a second through the engine, and rows in the average commit."""
    async with open_database(path, SqliteOptions()) as db:
        await db.script(TABLE + ";")
        before = db.stats.commits

        def insert(number: int) -> Callable[[sqlite3.Connection], object]:
            values = row(number)
            return lambda connection: connection.execute(INSERT, values).rowcount

        async def caller(first: int) -> None:
            for number in range(first, rows, callers):
                await db.write(Lane.LEDGER, insert(number))

        started_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for first in range(callers):
                group.create_task(caller(first))
        took_s = time.perf_counter() - started_s
        commits = db.stats.commits - before
        stored = db.read(lambda connection: connection.execute("SELECT count(*) FROM entry").fetchone()[0])
    if stored != rows:
        raise SystemExit(f"{rows} rows were acknowledged, {stored} are there")
    return rows / took_s, rows / commits


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--callers", type=int, default=1_000)
    parser.add_argument("--directory", type=Path, default=None, help="a directory on the disk to measure")
    args = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory(dir=args.directory) as directory:
        at = Path(directory)
        raw = executemany(at / "raw.db", args.rows)
        each = commit_each(at / "each.db", min(args.rows, 10_000))
        one, _ = uvloop.run(group_commit(at / "one.db", min(args.rows, 10_000), 1))
        many, per_commit = uvloop.run(group_commit(at / "many.db", args.rows, args.callers))
    callers = f"{args.callers:,} callers"
    print(f"SQLite {sqlite3.sqlite_version}, synchronous=FULL, {args.rows:,} rows")
    print(f"{'raw executemany':<34}{raw:>10,.0f} rows/s")
    print(f"{'a commit for each row':<34}{each:>10,.0f} rows/s")
    print(f"{'engine, 1 caller':<34}{one:>10,.0f} rows/s")
    print(f"{'engine, ' + callers:<34}{many:>10,.0f} rows/s   {per_commit:,.0f} rows a commit")
    print(
        f"engine with {callers} to a commit each: {many / each:.1f} x; to raw executemany: {many / raw:.2f} x"
    )


if __name__ == "__main__":
    main()
