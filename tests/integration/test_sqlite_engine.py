"""The engine's promises: one commit for many, each for itself, in order, bounded, and honest about what is lost."""

import asyncio
import fcntl
import sqlite3
import sys
import threading
from asyncio import Future
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import structlog

from server.storage.errors import StoreBusy, StoreUnavailable
from server.storage.sqlite import engine
from server.storage.sqlite.engine import (
    CannotOpen,
    Lane,
    SqliteDatabase,
    SqliteOptions,
    open_database,
    open_readonly,
)
from server.storage.sqlite.lanes import Lanes
from tests.support.sqlite_faults import Gate, sqlite_error

SCHEMA = "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE);"
#: A batch ends when nothing waits, never because a test held it up.
PATIENT = SqliteOptions(synchronous="OFF", batch_time_ms=60_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine.db"


@pytest.fixture
async def db(path: Path) -> AsyncIterator[SqliteDatabase]:
    async with open_database(path, PATIENT) as database:
        await database.script(SCHEMA)
        yield database


def insert(name: str) -> Callable[[sqlite3.Connection], int]:
    sql = "INSERT INTO t (name) VALUES (?)"
    return lambda connection: connection.execute(sql, (name,)).lastrowid or 0


def names(db: SqliteDatabase) -> list[str]:
    return db.read(lambda c: [name for (name,) in c.execute("SELECT name FROM t ORDER BY n")])


def raising(error: BaseException, *, after: str) -> Callable[[sqlite3.Connection], None]:
    def work(connection: sqlite3.Connection) -> None:
        insert(after)(connection)
        raise error

    return work


def raising_at_once(error: BaseException) -> Callable[[sqlite3.Connection], None]:
    def work(_connection: sqlite3.Connection) -> None:
        raise error

    return work


async def outcomes(futures: list[Future[Any]]) -> list[Any]:
    return await asyncio.gather(*futures, return_exceptions=True)


# --- one commit for many ---


async def test_what_a_write_returned_is_committed_and_every_reader_sees_it(
    db: SqliteDatabase, path: Path
) -> None:
    with closing(open_readonly(path)) as other:
        for n in range(1, 50):
            assert await db.write(Lane.REST, insert(f"r{n}")) == n
            assert len(names(db)) == n
            assert await db.scan(lambda c: c.execute("SELECT count(*) FROM t").fetchone()) == (n,)
            assert other.execute("SELECT count(*) FROM t").fetchone() == (n,)


async def test_what_gathers_during_a_batch_is_committed_with_it(db: SqliteDatabase) -> None:
    before = db.stats.commits
    gate = Gate()
    futures: list[Future[Any]] = [db.submit(Lane.REST, gate.work)]
    await gate.entered()
    futures += [db.submit(Lane.REST, insert(f"r{n}")) for n in range(500)]
    gate.open()
    await asyncio.gather(*futures)
    assert db.stats.commits == before + 1
    assert db.stats.lost_batches == 0
    assert len(names(db)) == 500


async def test_a_thousand_callers_get_one_order(db: SqliteDatabase) -> None:
    """The order of submission is the order of the rows and of the results, over many commits."""

    async def caller(number: int) -> list[int]:
        return [await db.write(Lane.LEDGER, insert(f"{number}-{turn}")) for turn in range(5)]

    submitted = [db.submit(Lane.MESSAGES, insert(f"s{n}")) for n in range(1_000)]
    results = await asyncio.gather(*(caller(n) for n in range(1_000)))
    order = [await future for future in submitted]
    assert order == sorted(order)
    rows = db.read(lambda c: dict(c.execute("SELECT name, n FROM t").fetchall()))
    assert len(rows) == 6_000
    for number, turns in enumerate(results):
        assert turns == sorted(turns) == [rows[f"{number}-{turn}"] for turn in range(5)]


@pytest.mark.parametrize(
    ("options", "commits"),
    [
        (SqliteOptions(synchronous="OFF", batch_limit=10, batch_time_ms=60_000), 10),
        (SqliteOptions(synchronous="OFF", batch_limit=1, batch_time_ms=60_000), 100),
        (SqliteOptions(synchronous="OFF", batch_time_ms=0), 100),
    ],
)
async def test_a_batch_is_bounded_by_number_and_by_time(
    path: Path, options: SqliteOptions, commits: int
) -> None:
    async with open_database(path, options) as db:
        await db.script(SCHEMA)
        gate = Gate()
        first = db.submit(Lane.REST, gate.work)
        await gate.entered()
        before = db.stats.commits
        futures = [db.submit(Lane.REST, insert(f"r{n}")) for n in range(100)]
        gate.open()
        await asyncio.gather(first, *futures)
        assert commits <= db.stats.commits - before <= commits + 1


# --- each for itself ---


@pytest.mark.parametrize("place", [0, 1, 2, 3])
async def test_a_refused_piece_of_work_leaves_no_trace_and_spares_its_neighbours(
    db: SqliteDatabase, place: int
) -> None:
    works: list[Callable[[sqlite3.Connection], Any]] = [insert(f"r{n}") for n in range(3)]
    works.insert(place, raising(LookupError("refused"), after="trace"))
    results = await outcomes([db.submit(Lane.REST, work) for work in works])
    assert repr(results.pop(place)) == "LookupError('refused')"
    assert all(isinstance(result, int) for result in results)
    assert names(db) == ["r0", "r1", "r2"]


async def test_a_batch_of_refusals_only_is_fine(db: SqliteDatabase) -> None:
    results = await outcomes([db.submit(Lane.REST, raising(KeyError(n), after=f"x{n}")) for n in range(5)])
    assert [repr(result) for result in results] == [f"KeyError({n})" for n in range(5)]
    assert names(db) == []
    await db.write(Lane.REST, insert("next"))
    assert names(db) == ["next"]


async def test_constraints_and_mistakes_in_the_sql_come_as_they_are(db: SqliteDatabase) -> None:
    await db.write(Lane.REST, insert("one"))
    with pytest.raises(sqlite3.IntegrityError):
        await db.write(Lane.REST, insert("one"))
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await db.write(Lane.REST, lambda c: c.execute("SELECT * FROM nowhere").fetchall())
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        db.read(lambda c: c.execute("SELECT * FROM nowhere").fetchall())


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR_READ])
async def test_the_store_s_own_trouble_is_unavailable_to_one_caller(db: SqliteDatabase, code: int) -> None:
    """The transaction is alive: only the one whose statement failed is told to come again."""
    results = await outcomes(
        [
            db.submit(Lane.REST, insert("before")),
            db.submit(Lane.REST, raising(sqlite_error(code), after="x")),
            db.submit(Lane.REST, insert("behind")),
        ]
    )
    assert type(results[1]) is StoreUnavailable
    assert names(db) == ["before", "behind"]
    with pytest.raises(StoreUnavailable):
        await db.write(Lane.REST, raising(sqlite_error(code), after="x"))
    with pytest.raises(StoreUnavailable):
        db.read(raising_at_once(sqlite_error(code)))


@pytest.mark.parametrize(
    "error", [StopIteration(), SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()]
)
async def test_an_exception_that_would_upset_the_loop_is_wrapped(
    db: SqliteDatabase, error: BaseException
) -> None:
    """One `next()` without a default must not leave a thousand callers without an answer."""
    results = await outcomes(
        [
            db.submit(Lane.REST, insert("before")),
            db.submit(Lane.REST, raising(error, after="x")),
            db.submit(Lane.REST, insert("behind")),
        ]
    )
    assert isinstance(results[1], RuntimeError)
    assert results[1].__cause__ is error
    assert names(db) == ["before", "behind"]


async def test_a_cancelled_caller_breaks_nothing_and_its_work_is_done(db: SqliteDatabase) -> None:
    gate = Gate()
    held = asyncio.ensure_future(db.write(Lane.REST, gate.work))
    tasks = [asyncio.ensure_future(db.write(Lane.REST, insert(f"r{n}"))) for n in range(9)]
    await gate.entered()
    for task in (held, tasks[0], tasks[4], tasks[8]):
        task.cancel()
    results = asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)
    gate.open()
    kinds = [type(result) for result in await results]
    assert [n for n, kind in enumerate(kinds) if kind is asyncio.CancelledError] == [0, 4, 8]
    assert kinds.count(int) == 6
    assert names(db) == [f"r{n}" for n in range(9)]


async def test_callers_cancelled_in_a_lost_batch_break_nothing_either(db: SqliteDatabase) -> None:
    gate = Gate()
    tasks = [
        asyncio.ensure_future(db.write(Lane.REST, work))
        for work in (gate.work, insert("a"), insert("b"), lambda c: c.execute("ROLLBACK") and None)
    ]
    await gate.entered()
    tasks[1].cancel()
    results = asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)
    gate.open()
    kinds = [type(result) for result in await results]
    assert kinds == [StoreUnavailable, asyncio.CancelledError, StoreUnavailable, StoreUnavailable]
    assert names(db) == []


# --- what is lost is lost for all ---


ENDINGS = ["COMMIT", "ROLLBACK", "INSERT OR ROLLBACK INTO t VALUES (1, 'one')"]


@pytest.mark.parametrize(
    ("place", "statement"),
    # The first of a batch has no savepoint: to release one is its own mistake and nobody else's.
    [
        (2, "RELEASE item"),
        (4, "RELEASE item"),
        *((place, ending) for place in (0, 2, 4) for ending in ENDINGS),
    ],
)
async def test_work_that_ends_the_transaction_fails_everybody_in_it(
    db: SqliteDatabase, place: int, statement: str
) -> None:
    """Later savepoints would commit alone: the rows before them, acknowledged, would be gone."""
    await db.write(Lane.REST, insert("one"))
    gate = Gate()
    works: list[Callable[[sqlite3.Connection], Any]] = [insert(f"r{n}") for n in range(4)]
    works.insert(place, lambda c: c.execute(statement).fetchall())
    if place:
        works.insert(0, gate.work)
    else:
        gate.open()
    futures = [db.submit(Lane.REST, work) for work in works]
    gate.open()
    results = await outcomes(futures)
    lost = [result for result in results if isinstance(result, StoreUnavailable)]
    # Those that had not begun yet go into the next transaction; everybody up to the mistake was in this one.
    assert len(lost) == place + (2 if place else 1)
    assert results[: len(lost)] == lost
    stored = names(db)
    for n, result in enumerate(results[len(lost) :], start=place):
        assert isinstance(result, int)
        assert f"r{n}" in stored
    if statement != "COMMIT":
        assert len(stored) == 1 + len(results) - len(lost)
    assert db.stats.lost_batches == 1
    assert db.fatal is None
    await db.write(Lane.REST, insert("next"))
    assert names(db)[-1] == "next"


# --- the writer's sleep ---


async def test_work_submitted_as_the_writer_falls_asleep_is_done(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looked, found nothing, and work came before it lay down: nobody would wake it again."""
    loop = asyncio.get_running_loop()
    came: Future[Future[int]] = loop.create_future()
    submitted = threading.Event()

    def submit() -> None:
        came.set_result(db.submit(Lane.REST, insert("just now")))
        submitted.set()

    looks = iter([True])

    def look(lanes: Lanes) -> bool:
        found = any(lanes._queues.values())
        falls_asleep = sys._getframe(1).f_code.co_name == "_wait"
        if not found and falls_asleep and next(looks, False):
            loop.call_soon_threadsafe(submit)
            submitted.wait(30)
        return found

    monkeypatch.setattr(Lanes, "__bool__", look)
    await db.write(Lane.REST, insert("before"))
    async with asyncio.timeout(10):
        await (await came)
    assert names(db) == ["before", "just now"]


# --- a busy event loop ---


async def test_a_busy_event_loop_does_not_starve_the_writer(db: SqliteDatabase) -> None:
    """Ten thousand sessions keep the loop busy; their holds must be committed all the same, or they are cut off."""
    future = db.submit(Lane.LEDGER, insert("tick"))
    turns = 0
    while not future.done():
        turns += 1
        assert turns < 200
        sum(range(200_000))  # about 2 ms, without giving up the interpreter
        await asyncio.sleep(0)
    assert names(db) == ["tick"]


# --- lanes and bounds ---


async def test_a_full_lane_refuses_and_writes_nothing_and_the_others_go_on(path: Path) -> None:
    async with open_database(path, SqliteOptions(synchronous="OFF", queue_limit=5)) as db:
        await db.script(SCHEMA)
        gate = Gate()
        futures: list[Future[Any]] = [db.submit(Lane.REST, gate.work)]
        await gate.entered()
        futures += [db.submit(Lane.REST, insert(f"r{n}")) for n in range(5)]
        assert db.depth(Lane.REST) == 5
        with pytest.raises(StoreBusy):
            await db.write(Lane.REST, insert("too many"))
        futures.append(db.submit(Lane.LEDGER, insert("money")))
        gate.open()
        await asyncio.gather(*futures)
        assert sorted(names(db)) == ["money", "r0", "r1", "r2", "r3", "r4"]
        await db.write(Lane.REST, insert("room again"))


async def test_money_goes_first_and_nobody_starves(path: Path) -> None:
    options = SqliteOptions(synchronous="OFF", batch_limit=10, batch_time_ms=60_000)
    async with open_database(path, options) as db:
        await db.script(SCHEMA)
        gate = Gate()
        futures: list[Future[Any]] = [db.submit(Lane.REST, gate.work)]
        await gate.entered()
        for lane in (Lane.REST, Lane.MESSAGES, Lane.LEDGER):
            futures += [db.submit(lane, insert(f"{lane}{n:02}")) for n in range(30)]
        gate.open()
        await asyncio.gather(*futures)
        done = names(db)
    assert [name.rstrip("0123456789") for name in done[:20]] == (
        ["ledger"] * 5 + ["messages"] * 3 + ["rest"] * 2
    ) * 2
    for lane in Lane:
        mine = [name for name in done if name.startswith(lane)]
        assert mine == sorted(mine)


def test_a_lane_that_is_alone_gets_the_whole_round() -> None:
    def fill(**counts: int) -> list[str]:
        lanes = Lanes(lane_limit=100, round_limit=10)
        for name, count in counts.items():
            for n in range(count):
                assert lanes.put(Lane[name], (f"{name}{n}", None))  # type: ignore[arg-type]
        return [item[0] for item in lanes.take()]  # type: ignore[misc]

    assert len(fill(REST=30)) == 10
    assert fill(REST=30, LEDGER=1) == ["LEDGER0", *(f"REST{n}" for n in range(9))]
    assert [name[0] for name in fill(REST=30, LEDGER=30, MESSAGES=1)] == list("LLLLLLLMRR")
    assert fill() == []


# --- schema ---


async def test_a_script_is_all_or_nothing_and_may_hold_triggers(db: SqliteDatabase) -> None:
    with pytest.raises(sqlite3.OperationalError):
        await db.script("CREATE TABLE half (a); CREATE TABLE half (a);")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        db.read(lambda c: c.execute("SELECT * FROM half"))
    await db.script(
        """
        -- a comment; with a semicolon
        CREATE TABLE IF NOT EXISTS log (text TEXT DEFAULT 'a;b');
        CREATE TRIGGER IF NOT EXISTS tell AFTER INSERT ON t BEGIN
            INSERT INTO log VALUES (new.name || ';');
            INSERT INTO log (rowid) VALUES (NULL);
        END;
        """
    )
    await db.write(Lane.REST, insert("x"))
    assert db.read(lambda c: c.execute("SELECT text FROM log").fetchall()) == [("x;",), ("a;b",)]
    with pytest.raises(ValueError, match="inside a statement"):
        await db.script("CREATE TABLE a (b); CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1;")
    await db.script("CREATE TABLE without (semicolon)")


# --- readers ---


async def test_a_read_is_one_snapshot(db: SqliteDatabase, path: Path) -> None:
    with closing(open_readonly(path)) as other:

        def work(connection: sqlite3.Connection) -> tuple[int, int]:
            count = "SELECT count(*) FROM t"
            first = connection.execute(count).fetchone()[0]
            db.submit(Lane.REST, insert("meanwhile"))
            for _ in range(1_000_000):
                if other.execute(count).fetchone()[0]:
                    break
            return first, connection.execute(count).fetchone()[0]

        assert db.read(work) == (0, 0)
    assert names(db) == ["meanwhile"]


async def test_a_cursor_does_not_leave_its_read(db: SqliteDatabase) -> None:
    """Half read, it would keep the reader in the past: balances read from then on would be old, silently."""
    await asyncio.gather(*(db.write(Lane.REST, insert(f"r{n}")) for n in range(10)))
    with pytest.raises(TypeError):
        db.read(lambda c: c.execute("SELECT name FROM t"))
    with pytest.raises(TypeError):
        await db.scan(lambda c: c.execute("SELECT name FROM t"))
    await db.write(Lane.REST, insert("new"))
    assert len(names(db)) == 11
    assert await db.scan(lambda c: len(c.execute("SELECT name FROM t").fetchall())) == 11


async def test_readers_cannot_write(db: SqliteDatabase) -> None:
    with pytest.raises(StoreUnavailable):
        db.read(insert("x"))
    with pytest.raises(StoreUnavailable):
        await db.scan(insert("x"))
    assert names(db) == []


async def test_scans_run_in_threads_and_are_bounded(path: Path) -> None:
    options = SqliteOptions(synchronous="OFF", reader_threads=2, scan_limit=3)
    async with open_database(path, options) as db:
        gates = [Gate(), Gate(), Gate()]
        scans = [asyncio.ensure_future(db.scan(gate.work)) for gate in gates]
        await gates[0].entered()
        await gates[1].entered()
        with pytest.raises(StoreBusy):
            await db.scan(lambda c: c.execute("SELECT 1").fetchone())
        for gate in gates:
            gate.open()
        await asyncio.gather(*scans)
        assert await db.scan(lambda c: threading.current_thread().name.split("_")[0]) == "sqlite-reader"


async def test_closing_ends_a_scan_that_would_never_end(path: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i & 1) FROM n"
    started = threading.Event()

    def work(connection: sqlite3.Connection) -> Any:
        connection.create_function("began", 0, started.set)
        return connection.execute(f"SELECT began(), ({endless} WHERE i > 0)").fetchall()

    async with open_database(path, PATIENT) as db:
        scan = asyncio.ensure_future(db.scan(work))
        assert await asyncio.to_thread(started.wait, 30)
    with pytest.raises(StoreUnavailable):
        await scan


# --- opening and closing ---


async def test_closing_finishes_what_waits(path: Path) -> None:
    async with open_database(path, PATIENT) as db:
        await db.script(SCHEMA)
        futures = [db.submit(Lane.REST, insert(f"r{n}")) for n in range(3_000)]
    assert [future.result() for future in futures] == list(range(1, 3_001))
    assert not path.with_name("engine.db-wal").exists()
    async with open_database(path, PATIENT) as db:
        assert len(names(db)) == 3_000


async def test_nothing_works_after_the_close(path: Path, tmp_path: Path) -> None:
    async with open_database(path, PATIENT) as db:
        pass
    for call in (
        db.write(Lane.REST, insert("x")),
        db.scan(lambda _: None),
        db.script(SCHEMA),
        db.ping(),
    ):
        with pytest.raises(StoreUnavailable):
            await call
    with pytest.raises(StoreUnavailable):
        db.read(lambda _: None)
    with pytest.raises(StoreUnavailable):
        db.submit(Lane.REST, insert("x"))
    with pytest.raises(StoreUnavailable):
        await db.backup(tmp_path / "copy.db")


async def test_a_close_that_is_cancelled_still_finishes_before_the_lock_goes(path: Path) -> None:
    """A lock given up while the writer still writes would let a second writer in."""
    gate = Gate()
    opened = asyncio.Event()
    futures: list[Future[Any]] = []
    was_locked: list[bool] = []

    async def serve() -> None:
        async with open_database(path, PATIENT) as db:
            await db.script(SCHEMA)
            futures.append(db.submit(Lane.REST, gate.work))
            futures.extend(db.submit(Lane.REST, insert(f"r{n}")) for n in range(100))
            opened.set()

    def let_it_finish() -> None:
        with path.with_name("engine.db.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                was_locked.append(False)
            except BlockingIOError:
                was_locked.append(True)
        gate.open()

    server = asyncio.ensure_future(serve())
    await opened.wait()
    await gate.entered()
    server.cancel()
    # From another thread: this one waits in the close, as it should.
    threading.Timer(0.2, let_it_finish).start()
    with pytest.raises(asyncio.CancelledError):
        await server
    assert was_locked == [True]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sqlite")]
    async with open_database(path, PATIENT) as db:
        assert len(names(db)) == 100


@pytest.mark.parametrize("make", ["directory", "text", "missing"])
async def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, make: str) -> None:
    path = tmp_path / "here" / "bad.db"
    if make != "missing":
        path.parent.mkdir()
    if make == "directory":
        path.mkdir()
    if make == "text":
        path.write_text("this is no database, it only looks like a file " * 100)
    for _ in range(2):  # the second time shows that the first gave up its lock
        with pytest.raises(CannotOpen, match=r"bad\.db") as refused:
            async with open_database(path, PATIENT):
                pass
        assert type(refused.value) is CannotOpen
    with pytest.raises(CannotOpen, match=r"bad\.db"):
        open_readonly(path)


async def test_a_path_is_not_read_as_a_uri(tmp_path: Path) -> None:
    """A reader that opened another file than the writer would find an empty shop."""
    path = tmp_path / "it's? mode=rw#%41&x.db"
    async with open_database(path, PATIENT) as db:
        await db.script(SCHEMA)
        await db.write(Lane.REST, insert("x"))
        assert names(db) == ["x"]
        await db.backup(tmp_path / "copy?.db")
    with closing(open_readonly(tmp_path / "copy?.db")) as copy:
        assert copy.execute("SELECT name FROM t").fetchall() == [("x",)]


async def test_an_older_sqlite_is_warned_about(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for fixed, warned in (((99, 0, 0), True), ((3, 0, 0), False)):
        monkeypatch.setattr(engine, "FIXED_VERSION", fixed)
        with structlog.testing.capture_logs() as logs:
            async with open_database(path, PATIENT):
                pass
        assert ("sqlite_has_wal_reset_bug" in [entry["event"] for entry in logs]) is warned


async def test_the_settings_are_those_of_the_decision(path: Path) -> None:
    async with open_database(path) as db:

        def pragmas(connection: sqlite3.Connection) -> dict[str, Any]:
            wanted = ("journal_mode", "synchronous", "query_only", "wal_autocheckpoint", "mmap_size")
            return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in wanted}

        writer = await db.write(Lane.REST, pragmas)
        assert (writer["journal_mode"], writer["synchronous"], writer["query_only"]) == ("wal", 2, 0)
        assert writer["wal_autocheckpoint"] > 0
        for reader in (db.read(pragmas), await db.scan(pragmas)):
            assert (reader["journal_mode"], reader["query_only"]) == ("wal", 1)
            assert (reader["wal_autocheckpoint"], reader["mmap_size"]) == (0, 0)


# --- readiness ---


async def test_ping_writes_and_reads(db: SqliteDatabase) -> None:
    before = db.stats.commits
    await db.ping()
    await db.ping()
    assert db.stats.commits == before + 2


async def test_ping_does_not_wait_for_a_writer_that_hangs(db: SqliteDatabase) -> None:
    gate = Gate()
    held = db.submit(Lane.REST, gate.work)
    await gate.entered()
    with pytest.raises(StoreUnavailable):
        await db.ping(timeout_s=0.01)
    gate.open()
    await held
    await db.ping()
