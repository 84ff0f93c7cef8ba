"""The SQLite ledger store passes the contract, and what only SQLite can get wrong."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from billing_engine.errors import InvariantBroken, Unavailable
from billing_engine.ledger.model import Account
from billing_engine.ledger.ports import Booked, Write
from server.storage.sqlite.engine import Lane, SqliteDatabase, SqliteOptions, open_database
from server.storage.sqlite.ledger import BOOKED, MOVED, SqliteLedgerStore
from tests.contract.ledger_store_contract import (
    INR,
    AtomicLedgerStoreContract,
    LedgerStoreContract,
    W,
    account,
    entry,
    found,
    hold,
    made,
)

FAST = SqliteOptions(synchronous="OFF")


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    async with open_database(tmp_path / "ledger.db", FAST) as database:
        yield database


async def prepared(db: SqliteDatabase, *, atomic: bool = True) -> SqliteLedgerStore:
    store = SqliteLedgerStore(db, atomic=atomic)
    await store.prepare()
    return store


class TestSqliteLedgerStore(AtomicLedgerStoreContract):
    """As production runs it."""

    @pytest.fixture
    async def store(self, db: SqliteDatabase) -> SqliteLedgerStore:
        return await prepared(db)


class TestSqliteLedgerStoreInSteps(LedgerStoreContract):
    """As MongoDB will run: each call a commit of its own."""

    @pytest.fixture
    async def store(self, db: SqliteDatabase) -> SqliteLedgerStore:
        return await prepared(db, atomic=False)


async def test_everything_survives_the_process(tmp_path: Path) -> None:
    whole = account(W, 9, held=5, holds={"h": hold("h")}, tail=(entry("k"),), credited=(("x", 1),))
    async with open_database(tmp_path / "x.db", FAST) as db:
        store = await prepared(db)
        await made(store, whole)
        await store.insert_rows([entry("k")])
    async with open_database(tmp_path / "x.db", FAST) as db:
        store = await prepared(db)
        assert (await store.load([W]))[W].account == whole
        assert (await store.rows(["k"]))["k"].entry == entry("k")


async def test_a_negative_hold_is_refused(db: SqliteDatabase) -> None:
    """It would make money to spend out of nothing, and the floor would not notice."""
    store = await prepared(db)
    with pytest.raises(InvariantBroken):
        await store.commit([Write("", "v1", account(W, 5, held=-1))])
    assert await store.load([W]) == {}


async def test_two_keys_cannot_have_one_number(db: SqliteDatabase) -> None:
    """An account's entries are numbered; the same number twice means that history was rewritten."""
    store = await prepared(db)
    await store.insert_rows([entry("k", 1)])
    with pytest.raises(InvariantBroken):
        await store.insert_rows([entry("l", 2), entry("m", 1)])
    assert list(await store.rows(["k", "l", "m"])) == ["k"]


@pytest.mark.parametrize(
    "bad",
    [
        account(W, 5, held=5, holds={"h": hold("h", what=object())}),
        account(W, 5, held=5, holds={"h": hold("h", big=2**64)}),
        account(W, tail=(entry("k", facts={1: "a number is no name"}),)),
        account("wallet:\ud800"),
    ],
)
@pytest.mark.parametrize("expected", ["", "v1"])
async def test_what_json_cannot_say_is_refused_before_anything_is_written(
    db: SqliteDatabase, bad: Account, expected: str
) -> None:
    store = await prepared(db)
    with pytest.raises(InvariantBroken):
        await store.commit([Write("", "v1", account("wallet:v")), Write(expected, "v2", bad)])
    assert await store.load(["wallet:v"]) == {}


async def test_a_refused_write_does_not_hurt_its_neighbours_in_the_batch(db: SqliteDatabase) -> None:
    """They share a transaction and nothing else."""
    store = await prepared(db)
    results = await asyncio.gather(
        *(store.commit([Write("", "v1", account(f"wallet:{i}", i % 3 - 1))]) for i in range(30)),
        return_exceptions=True,
    )
    assert [isinstance(result, InvariantBroken) for result in results] == [i % 3 == 0 for i in range(30)]
    assert len(await found(store, *(f"wallet:{i}" for i in range(30)))) == 20


async def plan_of(db: SqliteDatabase, sql: str, *args: object) -> str:
    return db.read(
        lambda conn: "; ".join(row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}", args).fetchall())
    )


async def test_reports_and_redo_are_index_ranges(db: SqliteDatabase) -> None:
    """With a million rows a scan takes 0.2 to 0.4 s (LEDGER 6); a wallet's history is asked for on every page view."""
    store = await prepared(db)
    seen: list[str] = []

    def note(work: Any) -> Any:
        def noting(conn: sqlite3.Connection) -> Any:
            conn.set_trace_callback(seen.append)
            try:
                return work(conn)
            finally:
                conn.set_trace_callback(None)

        return noting

    real, real_read = db.scan, db.read
    db.scan = lambda work: real(note(work))  # type: ignore[method-assign]
    db.read = lambda work: real_read(note(work))  # type: ignore[method-assign]
    await store.pending()
    await store.lines(W, limit=5, before=(5, "k"), kinds=["a", "b"])
    await store.lines(W, limit=5)
    await store.total_credited(W, kinds=["a", "b"], day_prefix="2026-01")
    await store.total_debited(W, kinds=["a", "b"], day_prefix="2026-01")
    await store.balance_of_rows(W, INR)
    await store.balance_of_rows(W, INR, before_day="2026-01-01")
    await store.load([W, "wallet:v"])
    await store.rows(["k", "l"])
    db.scan, db.read = real, real_read  # type: ignore[method-assign]
    queries = [sql for sql in seen if sql.startswith("SELECT")]
    assert len(queries) >= 9
    for sql in queries:
        plan = await plan_of(db, sql)
        # The partial index of pending accounts holds nothing else: to read all of it is the point.
        rest = plan.replace("SCAN ledger_accounts USING INDEX ledger_accounts_pending", "")
        assert "SCAN ledger_" not in rest, (sql, plan)


async def test_a_closed_store_is_unavailable_never_empty(tmp_path: Path) -> None:
    """A balance that cannot be read is an error. Zero would end every session."""
    async with open_database(tmp_path / "x.db", FAST) as db:
        store = await prepared(db)
    for call in (
        store.load([W]),
        store.rows(["k"]),
        store.commit([Write("", "v1", account(W))]),
        store.commit_all([Write("", "v1", account(W))], []),
        store.insert_rows([entry("k")]),
        store.mark_applied({"k": {}}),
        store.pending(),
        store.open_holds(""),
        store.lines(W, limit=1),
        store.total_credited(W, kinds=["k"]),
        store.total_debited(W, kinds=["k"]),
        store.balance_of_rows(W, INR),
        store.activity(INR, first_day="2026-01-01", last_day="2026-01-31"),
    ):
        with pytest.raises(Unavailable):
            await call


async def test_a_full_disk_is_unavailable_and_nothing_is_half_written(tmp_path: Path) -> None:
    """LEDGER 6: SQLITE_FULL rolls the whole transaction back; every caller of the batch must hear of it."""
    async with open_database(tmp_path / "x.db", FAST) as db:
        store = await prepared(db)

        def fill(conn: sqlite3.Connection) -> None:
            pages = conn.execute("PRAGMA page_count").fetchone()[0]
            conn.execute(f"PRAGMA max_page_count = {pages + 4}")

        await db.write(Lane.REST, fill)
        heavy = [
            account(f"wallet:{i:03}", 5, held=5, holds={"h": hold("h", text="x" * 2_000)}) for i in range(40)
        ]
        results = await asyncio.gather(
            *(store.commit([Write("", "v1", one)]) for one in heavy), return_exceptions=True
        )
        assert all(isinstance(result, Unavailable) or result == [] for result in results)
        assert any(isinstance(result, Unavailable) for result in results)
        acknowledged = {one.id for one, result in zip(heavy, results, strict=True) if result == []}
        assert set(await found(store, *(one.id for one in heavy))) == acknowledged


async def test_a_database_from_before_reports_gets_its_quantities(tmp_path: Path) -> None:
    """A report that begins at the day of the update would show a company that never served anybody."""
    bill = entry("k", kind="consultation", facts={"durationS": 250})
    async with open_database(tmp_path / "x.db", FAST) as db:
        store = await prepared(db)
        await store.insert_rows([bill, entry("l", 2)])
        await db.script("DROP INDEX ledger_entries_days; ALTER TABLE ledger_entries DROP COLUMN quantity;")
    async with open_database(tmp_path / "x.db", FAST) as db:
        for _ in range(2):
            store = await prepared(db)
            found = await store.activity(INR, first_day="2026-01-01", last_day="2026-01-01")
            assert found.booked == (
                Booked("2026-01-01", "consultation", 1, 250),
                Booked("2026-01-01", "recharge", 1, 0),
            )


async def test_a_database_from_before_accounts_had_facts_opens(tmp_path: Path) -> None:
    async with open_database(tmp_path / "x.db", FAST) as db:
        await made(await prepared(db), account("wallet:w", 7))
        await db.script("ALTER TABLE ledger_accounts DROP COLUMN facts;")
    async with open_database(tmp_path / "x.db", FAST) as db:
        for _ in range(2):
            store = await prepared(db)
            assert (await store.load(["wallet:w"]))["wallet:w"].account == account("wallet:w", 7)


async def test_a_report_reads_indexes_alone(db: SqliteDatabase) -> None:
    """A year of a busy platform is millions of rows: a report that opens each of them stops the next one."""
    await prepared(db)

    def plans(conn: sqlite3.Connection) -> list[str]:
        asked = [conn.execute(f"EXPLAIN QUERY PLAN {sql}", ("", "", "")) for sql in (MOVED, BOOKED)]
        return [row[3] for rows in asked for row in rows.fetchall()]

    found = await db.scan(plans)
    assert len(found) == 2, found
    assert all("COVERING INDEX" in plan for plan in found), found
