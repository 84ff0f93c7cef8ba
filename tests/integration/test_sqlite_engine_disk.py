"""A disk that is full or fails: nothing acknowledged is lost, everybody else is told, and it goes on or stops."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from server.storage.errors import StoreUnavailable
from server.storage.sqlite.engine import Lane, SqliteDatabase, SqliteOptions, open_database, open_readonly
from tests.support.sqlite_faults import Gate, failing_connection, sqlite_error

SCHEMA = "CREATE TABLE IF NOT EXISTS t (name TEXT PRIMARY KEY, body BLOB);"
FAST = SqliteOptions(synchronous="OFF", batch_time_ms=60_000)


def insert(name: str, size: int = 2_000) -> Callable[[sqlite3.Connection], str]:
    def work(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO t VALUES (?, zeroblob(?))", (name, size))
        return name

    return work


def names(db: SqliteDatabase) -> set[str]:
    return db.read(lambda c: {name for (name,) in c.execute("SELECT name FROM t")})


async def fill_until_it_fails(db: SqliteDatabase, *, size: int = 2_000) -> set[str]:
    """What was acknowledged. Everybody else must have got StoreUnavailable."""
    acknowledged: set[str] = set()
    for round_ in range(1_000):
        results = await asyncio.gather(
            *(db.write(Lane.LEDGER, insert(f"{round_}-{n}", size)) for n in range(60)), return_exceptions=True
        )
        acknowledged |= {result for result in results if isinstance(result, str)}
        failed = [result for result in results if not isinstance(result, str)]
        assert all(isinstance(result, StoreUnavailable) for result in failed), failed
        if failed:
            return acknowledged
    raise AssertionError("the disk never filled up")


async def test_a_full_database_loses_nothing_acknowledged_and_works_again(tmp_path: Path) -> None:
    """SQLITE_FULL rolls the whole transaction back; later savepoints would commit alone (LEDGER 6)."""
    async with open_database(tmp_path / "x.db", FAST) as db:
        await db.script(SCHEMA)
        await db.write(Lane.REST, lambda c: c.execute("PRAGMA max_page_count = 200").fetchone())
        acknowledged = await fill_until_it_fails(db)
        assert acknowledged
        assert names(db) == acknowledged
        assert db.stats.lost_batches > 0
        assert db.fatal is None
        await db.write(Lane.REST, lambda c: c.execute("PRAGMA max_page_count = 100000").fetchone())
        assert await db.write(Lane.LEDGER, insert("after")) == "after"
        await db.ping()
        assert names(db) == acknowledged | {"after"}


async def test_everybody_before_the_full_disk_in_one_batch_is_told(tmp_path: Path) -> None:
    """Sixty in one transaction, one of them too big for the disk: the rows before it are gone as well."""
    async with open_database(tmp_path / "x.db", FAST) as db:
        await db.script(SCHEMA)
        await db.write(Lane.REST, lambda c: c.execute("PRAGMA max_page_count = 100").fetchone())
        gate = Gate()
        futures: list[asyncio.Future[Any]] = [db.submit(Lane.REST, gate.work)]
        await gate.entered()
        for n in range(60):
            futures.append(db.submit(Lane.REST, insert(f"r{n:02}", 10_000_000 if n == 40 else 10)))
        gate.open()
        results = await asyncio.gather(*futures, return_exceptions=True)
        lost = [n for n, result in enumerate(results) if isinstance(result, StoreUnavailable)]
        assert lost == list(range(42))  # the gate, 40 small ones, the big one
        assert names(db) == {f"r{n:02}" for n in range(41, 60)}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte."""
    at = tmp_path / "small"
    at.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tarazu-test", str(at)]
    if (
        not sys.platform.startswith("linux")
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        pytest.skip("only root may mount a small file system")
    yield at
    subprocess.run(["umount", str(at)], capture_output=True, check=True)


async def test_a_full_file_system_loses_nothing_acknowledged_and_works_again(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 300_000)
    path = small_disk / "x.db"
    options = SqliteOptions(batch_time_ms=60_000)
    async with open_database(path, options) as db:
        await db.script(SCHEMA)
        acknowledged = await fill_until_it_fails(db, size=200)
        assert acknowledged
        assert names(db) == acknowledged
        with pytest.raises(StoreUnavailable):
            await db.write(Lane.LEDGER, insert("too big", 2_000_000))
        if db.fatal is None:
            ballast.unlink()
            assert await db.write(Lane.LEDGER, insert("after", 200)) == "after"
            acknowledged.add("after")
        assert names(db) == acknowledged
    ballast.unlink(missing_ok=True)
    async with open_database(path, options) as db:
        assert names(db) == acknowledged


@pytest.mark.parametrize("more_bytes", [40_000, 200_000])
def test_a_file_that_may_not_grow_stops_the_writer_for_good(tmp_path: Path, more_bytes: int) -> None:
    """A real I/O error on COMMIT: nobody knows what reached the disk, so no further write is accepted."""
    path = tmp_path / "x.db"
    child = subprocess.run(
        [sys.executable, "-m", "tests.support.sqlite_child", "fsize", str(path), str(more_bytes)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    *acknowledged, last = child.stdout.splitlines()
    told = json.loads(last)
    # Of the fifty that wrote last, the first may have had a commit of its own before the others came: then it was acknowledged.
    assert 1 <= told.pop("failed") <= 50
    assert told == {"fatal": ["OperationalError"], "again": "refused"}
    assert acknowledged
    with closing(open_readonly(path)) as connection:
        stored = {id_ for (id_,) in connection.execute("SELECT id FROM entry")}
        assert connection.execute("SELECT coalesce(sum(amount), 0) FROM entry").fetchone() == (0,)
    assert stored >= set(acknowledged)


# --- what cannot be provoked from outside ---


async def test_an_io_error_on_commit_fails_all_and_stops_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    error = sqlite_error(sqlite3.SQLITE_IOERR_FSYNC, "disk I/O error")
    faults: dict[str, list[Exception]] = {}
    told: list[BaseException] = []
    options = SqliteOptions(
        synchronous="OFF",
        batch_limit=10,
        batch_time_ms=60_000,
        on_fatal=told.append,
        connection_factory=failing_connection(faults),
    )
    async with open_database(path, options) as db:
        await db.script(SCHEMA)
        assert await db.write(Lane.REST, insert("acknowledged")) == "acknowledged"
        gate = Gate()
        futures: list[asyncio.Future[Any]] = [db.submit(Lane.REST, gate.work)]
        await gate.entered()
        faults["COMMIT"] = [error]
        # More than one batch holds: those in it, those already taken, those still in their lanes.
        futures += [db.submit(lane, insert(f"{lane}{n}")) for n in range(20) for lane in Lane]

        async def again() -> None:
            """Hears of the loss and tries again before the engine has told everybody that it is over."""
            with pytest.raises(StoreUnavailable):
                await futures[0]
            with pytest.raises(StoreUnavailable):
                await db.write(Lane.REST, insert("again"))

        retry = asyncio.ensure_future(again())
        await asyncio.sleep(0)
        gate.open()
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert {type(result) for result in results} == {StoreUnavailable}
        await asyncio.wait_for(retry, 30)
        assert told == [error]
        assert db.fatal is error
        with pytest.raises(StoreUnavailable):
            await db.write(Lane.REST, insert("more"))
        with pytest.raises(StoreUnavailable):
            await db.ping()
        assert names(db) == {"acknowledged"}
    # The log was left as it was: the next start reads the truth from it.
    assert path.with_name("x.db-wal").stat().st_size > 0
    async with open_database(path, FAST) as db:
        assert names(db) == {"acknowledged"}


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_NOMEM])
async def test_another_error_on_commit_fails_the_batch_and_no_more(tmp_path: Path, code: int) -> None:
    faults: dict[str, list[Exception]] = {}
    options = SqliteOptions(
        synchronous="OFF", batch_time_ms=60_000, connection_factory=failing_connection(faults)
    )
    async with open_database(tmp_path / "x.db", options) as db:
        await db.script(SCHEMA)
        gate = Gate()
        futures: list[asyncio.Future[Any]] = [db.submit(Lane.REST, gate.work)]
        await gate.entered()
        faults["COMMIT"] = [sqlite_error(code)]

        def duplicate(connection: sqlite3.Connection) -> None:
            insert("r1")(connection)

        futures += [db.submit(Lane.REST, work) for work in (insert("r1"), duplicate, insert("r2"))]
        gate.open()
        results = await asyncio.gather(*futures, return_exceptions=True)
        # The duplicate as well: the row that it met does not exist.
        assert [type(result) for result in results] == [StoreUnavailable] * 4
        assert names(db) == set()
        assert await db.write(Lane.REST, insert("r1")) == "r1"
        assert db.fatal is None


async def test_a_transaction_that_cannot_begin_fails_its_round_and_no_more(tmp_path: Path) -> None:
    faults: dict[str, list[Exception]] = {}
    options = SqliteOptions(synchronous="OFF", connection_factory=failing_connection(faults))
    async with open_database(tmp_path / "x.db", options) as db:
        await db.script(SCHEMA)
        faults["BEGIN IMMEDIATE"] = [sqlite_error(sqlite3.SQLITE_BUSY)]
        with pytest.raises(StoreUnavailable):
            await db.write(Lane.REST, insert("a"))
        assert await db.write(Lane.REST, insert("b")) == "b"
        assert names(db) == {"b"}


async def test_a_transaction_that_can_be_neither_kept_nor_undone_stops_the_writer(tmp_path: Path) -> None:
    told: list[BaseException] = []
    faults: dict[str, list[Exception]] = {}
    options = SqliteOptions(
        synchronous="OFF", on_fatal=told.append, connection_factory=failing_connection(faults)
    )
    async with open_database(tmp_path / "x.db", options) as db:
        await db.script(SCHEMA)
        faults["COMMIT"] = [sqlite_error(sqlite3.SQLITE_FULL)]
        faults["ROLLBACK"] = [sqlite_error(sqlite3.SQLITE_IOERR)]
        with pytest.raises(StoreUnavailable):
            await db.write(Lane.REST, insert("a"))
        with pytest.raises(StoreUnavailable):
            await db.write(Lane.REST, insert("b"))
        assert len(told) == 1


@pytest.mark.parametrize("code", [sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB])
async def test_a_damaged_file_is_not_written_any_more(tmp_path: Path, code: int) -> None:
    told: list[BaseException] = []
    options = SqliteOptions(synchronous="OFF", on_fatal=told.append)

    def damaged(_connection: sqlite3.Connection) -> None:
        raise sqlite_error(code, "database disk image is malformed")

    async with open_database(tmp_path / "x.db", options) as db:
        await db.script(SCHEMA)
        with pytest.raises(StoreUnavailable):
            await db.write(Lane.REST, damaged)
        with pytest.raises(StoreUnavailable):
            await db.write(Lane.REST, insert("a"))
        assert len(told) == 1
