"""A crash at every store call of every way that money takes.

The list of calls is not written down here: each path is run once on a store that takes notes, and every call that it made
goes wrong in its turn, none left out. What must come out is what came out of the run without trouble: the same answer, the
same documents, the same rows. Exactly once is then nothing to argue about.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from billing_engine.errors import NotEnough, Unavailable
from billing_engine.ledger.service import Ledger
from server.storage.sqlite.engine import SqliteDatabase, SqliteOptions, open_database
from server.storage.sqlite.ledger import SqliteLedgerStore
from tests.support.ledger_books import Books, books_of
from tests.support.ledger_moves import INR, adopt, close, extend, open_, payment, recharge
from tests.support.ledger_store_calls import Died, How, Trouble, WatchedStore
from tests.support.manual_clock import ManualClock

W, V, X = "wallet:w", "wallet:v", "wallet:x"
E = "earnings:e"
REVENUE = "revenue:consultations"

Step = Callable[[Ledger], Awaitable[Any]]


@dataclass(frozen=True)
class MoneyPath:
    """One operation and what must have happened before it. It may be repeated by its caller, as it is."""

    name: str
    before: Step
    operation: Step

    def __str__(self) -> str:
        return self.name


async def _money(ledger: Ledger) -> None:
    await ledger.post(recharge(W, "first", 1_000))


async def _held(ledger: Ledger) -> None:
    await _money(ledger)
    await open_(ledger, W, "h", 100)
    await extend(ledger, W, "h", n=2, to_minor=200)


async def _credited_has_a_hold(ledger: Ledger) -> None:
    await _held(ledger)
    await ledger.post(recharge(V, "first", 100))
    await open_(ledger, V, "h", 10)


async def _adopted(ledger: Ledger) -> None:
    await _held(ledger)
    await adopt(ledger, W, "h", from_epoch=1, owner="new")


async def _many_at_once(ledger: Ledger) -> list[Any]:
    """One batch: they are decided together, and in steps their redo follows one after another."""
    answers = await asyncio.gather(
        ledger.post(recharge(X, "r", 50)),
        ledger.post(payment(W, "p", (V, 7), (E, 3))),
        extend(ledger, V, "h", n=2, to_minor=17),
        close(ledger, W, "h", (E, 150), (X, 5), (REVENUE, 15)),
        ledger.void(X, INR, "never"),
        open_(ledger, X, "h", 50),
        return_exceptions=True,
    )
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


PATHS = [
    MoneyPath(
        "the first recharge", lambda _: asyncio.sleep(0), lambda ledger: ledger.post(recharge(W, "r", 100))
    ),
    MoneyPath("a recharge", _money, lambda ledger: ledger.post(recharge(W, "r", 100))),
    MoneyPath("a recharge of a wallet with a hold", _held, lambda ledger: ledger.post(recharge(W, "r", 100))),
    MoneyPath(
        "a payment to three",
        _money,
        lambda ledger: ledger.post(payment(W, "p", (E, 300), (V, 20), (REVENUE, 3))),
    ),
    MoneyPath(
        "a payment to a wallet with a hold",
        _credited_has_a_hold,
        lambda ledger: ledger.post(payment(W, "p", (V, 20))),
    ),
    MoneyPath("a refused payment", _money, lambda ledger: ledger.post(payment(W, "p", (E, 1_001)))),
    MoneyPath("a void of nothing", _money, lambda ledger: ledger.void(W, INR, "p")),
    MoneyPath("a void of a hold", _held, lambda ledger: ledger.void(W, INR, "h")),
    MoneyPath("open", _money, lambda ledger: open_(ledger, W, "h", 100, mark="m")),
    MoneyPath("an open that is refused", _money, lambda ledger: open_(ledger, W, "h", 1_001)),
    MoneyPath("extend", _held, lambda ledger: extend(ledger, W, "h", n=3, to_minor=300, mark="m")),
    MoneyPath("adopt", _held, lambda ledger: adopt(ledger, W, "h", from_epoch=1, owner="new")),
    MoneyPath(
        "extend by the new owner",
        _adopted,
        lambda ledger: extend(ledger, W, "h", n=4, to_minor=300, epoch=2, owner="new"),
    ),
    MoneyPath(
        "close with commission",
        _held,
        lambda ledger: close(ledger, W, "h", (E, 90), (REVENUE, 10), fence=(1, "me"), seconds=100),
    ),
    MoneyPath("close with two credits", _held, lambda ledger: close(ledger, W, "h", (E, 90), (X, 10))),
    MoneyPath("release", _held, lambda ledger: close(ledger, W, "h")),
    MoneyPath("many at once", _credited_has_a_hold, _many_at_once),
]


@dataclass
class Process:
    """A ledger over the open file, and what may go wrong between the two."""

    db: SqliteDatabase
    ledger: Ledger
    trouble: Trouble

    def books(self) -> Books:
        return self.db.read(books_of)


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    """A ledger file. It stays open while processes come and go: what they knew is in their ledgers, not in SQLite."""
    async with open_database(tmp_path / "ledger.db", SqliteOptions(synchronous="OFF")) as db:
        await SqliteLedgerStore(db).prepare()
        yield db


async def wipe(db: SqliteDatabase) -> None:
    """Make the file as new."""
    await db.script("DELETE FROM ledger_accounts; DELETE FROM ledger_entries; DELETE FROM ledger_transfers;")


@asynccontextmanager
async def process(
    db: SqliteDatabase, *, atomic: bool, trouble: Trouble | None = None
) -> AsyncIterator[Process]:
    """A process whose ledger is not yet started."""
    trouble = trouble or Trouble()
    store = WatchedStore(SqliteLedgerStore(db, atomic=atomic), trouble.around)
    ledger = Ledger(store, ManualClock(), lambda _: "2026-01-01")
    try:
        yield Process(db, ledger, trouble)
    finally:
        await ledger.stop()
        if trouble.dead and ledger.committer._worker is not None:
            assert isinstance(ledger.committer._worker.exception(), Died | None)


async def outcome_of(operation: Awaitable[Any]) -> Any:
    """The answer, or the refusal that is the answer."""
    try:
        return await operation
    except NotEnough as refused:
        return type(refused), refused.facts


def the_same(books: Books) -> tuple[Any, ...]:
    """What two runs must agree on."""
    return books.accounts, books.rows, books.moved_by_rows


async def undisturbed(
    db: SqliteDatabase, money: MoneyPath, *, atomic: bool, warm: bool
) -> tuple[list[str], Any, Books]:
    """The calls that the operation makes, its answer, and the books after it."""
    async with prepared(db, money, atomic=atomic, warm=warm) as run:
        answer = await outcome_of(money.operation(run.ledger))
        calls = list(run.trouble.calls)
        run.trouble.clear()
        assert run.books().problems(at_rest=True) == []
        return calls, answer, run.books()


@asynccontextmanager
async def prepared(
    db: SqliteDatabase, money: MoneyPath, *, atomic: bool, warm: bool
) -> AsyncIterator[Process]:
    """What comes before the operation is done, by this process (`warm`: it remembers the documents) or by one before it."""
    await wipe(db)
    if not warm:
        async with process(db, atomic=atomic) as run:
            await run.ledger.start()
            await money.before(run.ledger)
    async with process(db, atomic=atomic) as run:
        await run.ledger.start()
        if warm:
            await money.before(run.ledger)
        run.trouble.clear()
        yield run


@pytest.mark.parametrize("how", How, ids=lambda how: how.name.lower())
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "steps"])
@pytest.mark.parametrize("money", PATHS, ids=str)
async def test_trouble_at_any_store_call_changes_nothing_in_the_end(
    db: SqliteDatabase, money: MoneyPath, atomic: bool, warm: bool, how: How
) -> None:
    """Whoever pays is hurt when it happens twice, whoever is paid when it never does, both when it hangs between."""
    calls, answer, books = await undisturbed(db, money, atomic=atomic, warm=warm)
    assert calls
    for at, name in enumerate(calls):
        where = f"{how} {at}: {name} of {calls}"
        async with prepared(db, money, atomic=atomic, warm=warm) as run:
            run.trouble.plan(at, how)
            with pytest.raises((Unavailable, Died)):
                await outcome_of(money.operation(run.ledger))
            assert run.trouble.calls[: at + 1] == calls[: at + 1], where
            assert run.books().problems(at_rest=False) == [], where
            if not how.kills:
                run.trouble.clear()
                await repeated(run, money, answer, books, where)
        if how.kills:
            # The states are the same in both modes, so each must finish what the other left; `warm` no longer matters.
            async with process(db, atomic=atomic if warm else not atomic) as run:
                await run.ledger.start()
                await repeated(run, money, answer, books, where)


async def repeated(run: Process, money: MoneyPath, answer: Any, books: Books, where: str) -> None:
    """Redo, then the caller's repeat: the answer and the books are those of the run without trouble."""
    await run.ledger.recover()
    assert run.books().problems(at_rest=True) == [], where
    assert await outcome_of(money.operation(run.ledger)) == answer, where
    assert run.books().problems(at_rest=True) == [], where
    assert the_same(run.books()) == the_same(books), where


REDONE = [money for money in PATHS if money.name in ("a payment to three", "close with two credits")]


@pytest.mark.slow
@pytest.mark.parametrize("redo_atomic", [False, True], ids=["redo-steps", "redo-atomic"])
@pytest.mark.parametrize("money", REDONE, ids=str)
async def test_a_crash_at_any_call_of_the_redo_of_a_crash_at_any_call(
    db: SqliteDatabase, money: MoneyPath, redo_atomic: bool
) -> None:
    """Redo must bear being cut short anywhere, again and again, also by a process in the other mode.

    For one process that calls one thing after another, dying after call i is dying before call i + 1.
    """
    calls, answer, books = await undisturbed(db, money, atomic=False, warm=True)
    redos = 0
    for at in range(len(calls)):
        redo_at, died = 0, True
        while died:
            where = f"call {at} ({calls[at]}), then call {redo_at} of the redo"
            async with prepared(db, money, atomic=False, warm=True) as run:
                run.trouble.plan(at, How.DIES_AFTER)
                with pytest.raises((Unavailable, Died)):
                    await outcome_of(money.operation(run.ledger))
            died = await dies_in_redo(db, redo_at, atomic=redo_atomic)
            async with process(db, atomic=False) as run:
                assert run.books().problems(at_rest=False) == [], where
                await run.ledger.start()
                await repeated(run, money, answer, books, where)
            redo_at += 1
            redos += died
    assert redos > len(calls)


async def dies_in_redo(db: SqliteDatabase, at: int, *, atomic: bool) -> bool:
    """Whether the redo had that many calls to die at."""
    trouble = Trouble()
    trouble.plan(at, How.DIES_AFTER)
    async with process(db, atomic=atomic, trouble=trouble) as run:
        try:
            await run.ledger.start()
        except (Unavailable, Died):
            return True
        return False


async def test_a_tail_is_never_cut_by_length(db: SqliteDatabase) -> None:
    """One redo is cut short, another entry arrives, a second redo runs: only what is applied may go."""
    async with process(db, atomic=False) as run:
        await run.ledger.start()
        await _money(run.ledger)
        run.trouble.plan(3, How.FAILS_BEFORE)  # load, rows, commit, then the copying out
        with pytest.raises(Unavailable):
            await run.ledger.post(payment(W, "one", (E, 10)))
        assert [entry.key for entry in run.books().accounts[W].tail] == [f"{W}|one"]
        run.trouble.clear()
        await asyncio.gather(
            run.ledger.committer.redo([W]),
            run.ledger.post(payment(W, "two", (E, 20))),
            run.ledger.recover(),
        )
        assert run.books().problems(at_rest=True) == []
        assert run.books().accounts[E].posted == 30
