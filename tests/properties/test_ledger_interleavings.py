"""Two processes on one store, step by step, in every order that there is.

Each process is the real `Ledger` with the real committer; only its worker and futures are replaced by hand-driven
coroutines, so that a scheduler decides before each store call whose turn it is. Two schedules that lead to the same store and
to the same answers so far are explored once: the code is deterministic, so its future depends on nothing else.

At every state that is reached, the books are audited; and both processes die there, a third recovers, and the books are
audited again. At the end of every schedule the scenario's own promises are checked.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any

import pytest

from billing_engine.errors import BillingError
from billing_engine.ledger.committer import Command, Committer
from billing_engine.ledger.model import (
    Entry,
    Fenced,
    Hold,
    HoldGone,
    InsufficientFunds,
    KeyReused,
    KeyState,
    KeyVoided,
)
from billing_engine.ledger.ports import LedgerStore
from billing_engine.ledger.service import Ledger
from tests.contract.ledger_store_contract import DocumentsContract, RowsContract, WorkContract
from tests.support.ledger_books import Books
from tests.support.ledger_dicts import DictLedgerStore
from tests.support.ledger_moves import INR, adopt, close, extend, open_, payment, recharge
from tests.support.ledger_store_calls import WatchedStore
from tests.support.manual_clock import ManualClock

W, V = "wallet:w", "wallet:v"
E = "earnings:e"
REVENUE = "revenue:consultations"

Operation = Callable[[Ledger], Awaitable[Any]]


class TestDictLedgerStore(DocumentsContract, RowsContract, WorkContract):
    """What is explored below keeps the promises of the stores that run in production."""

    @pytest.fixture
    async def store(self) -> DictLedgerStore:
        return DictLedgerStore()


class Turn:
    """Awaited before each store call: hands control to the scheduler."""

    def __await__(self) -> Generator["Turn", None, None]:
        yield self


class Answer:
    """As much of a future as the committer needs."""

    def __init__(self) -> None:
        self._result: Any = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        return False

    def set_result(self, result: Any) -> None:
        self._result = result

    def set_exception(self, error: BaseException) -> None:
        self._error = error

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result


class InlineCommitter(Committer):
    """The committer without its worker: a change is served by whoever awaits it."""

    def submit(self, account_id: str, asset: str, key: str | None, decide: Any) -> Any:
        async def serve() -> Any:
            answer: Any = Answer()
            await self._serve([Command(account_id, asset, key, decide, answer)])
            return answer.result()

        return serve()


class Process:
    """One process: its ledger, and an operation under way."""

    def __init__(self, name: str, store: LedgerStore) -> None:
        self.name = name
        #: A digest of what the process has been told so far. With its code this is all of its state.
        self.told = 0

        async def around(call_name: str, call: Callable[[], Awaitable[Any]]) -> Any:
            await Turn()
            answer = await call()
            self.told = hash((self.told, call_name, repr(answer)))
            return answer

        self.ledger = Ledger(WatchedStore(store, around), ManualClock(), lambda _: "2026-01-01")
        self.ledger.committer = InlineCommitter(self.ledger._store, pause=_at_once)
        self.ledger.committer._documents.prefix = name
        self.done = True
        self.outcome: Any = None

    def begin(self, operation: Operation) -> None:
        self.done = False
        self._running = _coroutine(operation(self.ledger))
        self.step()  # to its first store call

    def step(self) -> None:
        """One store call, and everything up to the next one."""
        try:
            self._running.send(None)
        except StopIteration as stop:
            self.done, self.outcome = True, stop.value
        except BillingError as refused:
            self.done, self.outcome = True, refused

    def finish(self, operation: Operation) -> Any:
        """The whole operation, undisturbed."""
        self.begin(operation)
        while not self.done:
            self.step()
        return self.outcome


def _first(*operations: Operation) -> Operation:
    """One after the other."""

    async def all_of_them(ledger: Ledger) -> Any:
        for operation in operations:
            answer = await operation(ledger)
        return answer

    return all_of_them


async def _at_once(_attempt: int) -> None:
    """Waiting a while changes no order of store calls, and here every order is tried."""


async def _coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


@dataclass(frozen=True)
class Scenario:
    """Two operations at once. `before` runs first, all of it in process A: A remembers what it wrote there."""

    name: str
    before: tuple[Operation, ...]
    a: Operation
    b: Operation
    #: (A's outcome, B's outcome, the books) when both are through.
    check: Callable[[Any, Any, Books], bool]
    #: Cut the last operation of `before` off after so many store calls: a redo is left to do.
    cut_at: int | None = None

    def __str__(self) -> str:
        return self.name


class Run:
    """One schedule of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.store = DictLedgerStore()
        self.processes = (Process("a", self.store), Process("b", self.store))
        first = self.processes[0]
        for operation in scenario.before[:-1] if scenario.cut_at is not None else scenario.before:
            assert not isinstance(first.finish(operation), BillingError)
        if scenario.cut_at is not None:
            dead = Process("dead", self.store)
            dead.begin(scenario.before[-1])
            for _ in range(scenario.cut_at):
                dead.step()
            assert not dead.done
            dead._running.close()
        first.begin(scenario.a)
        self.processes[1].begin(scenario.b)

    def state(self) -> tuple[Any, ...]:
        a, b = self.processes
        return stored(self.store), a.told, b.told

    def ready(self) -> list[int]:
        return [i for i, process in enumerate(self.processes) if not process.done]

    def close(self) -> None:
        for process in self.processes:
            if not process.done:
                process._running.close()


def stored(store: DictLedgerStore) -> int:
    return hash((repr(store.accounts), repr(store.entries)))


def explore(scenario: Scenario) -> tuple[int, int]:
    """Every schedule; how many states and how many ends there are."""
    seen: set[Any] = set()
    audited: set[int] = set()
    to_do: list[tuple[int, ...]] = [()]
    ends = 0
    while to_do:
        schedule = to_do.pop()
        run = Run(scenario)
        for who in schedule:
            run.processes[who].step()
        while (state := run.state()) not in seen:
            seen.add(state)
            if state[0] not in audited:
                audited.add(state[0])
                audit_here_and_after_a_crash(run, scenario, schedule)
            ready = run.ready()
            if not ready:
                ends += 1
                a, b = (process.outcome for process in run.processes)
                books = books_of(run.store)
                assert books.problems(at_rest=True) == [], schedule
                assert scenario.check(a, b, books), (schedule, a, b, books.balances())
                break
            if len(ready) > 1:
                to_do.append((*schedule, 1))
            schedule = (*schedule, ready[0])
            run.processes[ready[0]].step()
        run.close()
    return len(seen), ends


def audit_here_and_after_a_crash(run: Run, scenario: Scenario, schedule: tuple[int, ...]) -> None:
    """The books now; and if both died now, after a third has recovered and both callers have repeated."""
    before = books_of(run.store)
    assert before.problems(at_rest=False) == [], schedule
    store = run.store.copy()
    third = Process("c", store)
    third.finish(Ledger.recover)
    after = books_of(store)
    assert after.problems(at_rest=True) == [], schedule
    assert after.balances() == before.balances(), schedule
    assert after.entries == before.entries, schedule
    third.finish(scenario.a)
    third.finish(scenario.b)
    repeated = books_of(store)
    assert repeated.problems(at_rest=True) == [], schedule
    assert all(repeated.entries[key] == entry for key, entry in before.entries.items()), schedule


def books_of(store: DictLedgerStore) -> Books:
    moved: Counter[str] = Counter()
    for row in store.entries.values():
        if row.entry.state is KeyState.POSTED:
            for transfer in row.entry.transfers:
                moved[transfer.credit] += transfer.amount_minor
                moved[transfer.debit] -= transfer.amount_minor
    accounts = {id_: found.account for id_, found in store.accounts.items()}
    return Books(accounts, dict(store.entries), moved)


def _money(ledger: Ledger) -> Awaitable[Any]:
    return ledger.post(recharge(W, "first", 100))


def _hold(ledger: Ledger) -> Awaitable[Any]:
    return open_(ledger, W, "h", 30)


def _kinds(*outcomes: Any) -> set[type]:
    return {type(outcome) for outcome in outcomes}


def _pays(to: str, amount_minor: int, source: str = "p", *, by: str = W) -> Operation:
    return lambda ledger: ledger.post(payment(by, source, (to, amount_minor)))


def _redo(*accounts: str) -> Operation:
    return lambda ledger: ledger.committer.redo(accounts)


def _posted(books: Books) -> dict[str, int]:
    return {id_: account.posted for id_, account in books.accounts.items()}


def _one_of_two_debits(a: Any, b: Any, books: Books) -> bool:
    return _kinds(a, b) == {Entry, InsufficientFunds} and _posted(books) == {W: 30, E: 70}


#: load, rows, commit: from here on the entry is in the tail, and redo is left to do.
COMMITTED = 3

SCENARIOS = [
    Scenario("debit and debit", (_money,), _pays(E, 70, "a"), _pays(E, 70, "b"), _one_of_two_debits),
    Scenario(
        "debit and debit of a remembered wallet",
        (_money, _hold),
        _pays(E, 40, "a"),
        _pays(E, 40, "b"),
        lambda a, b, books: _kinds(a, b) == {Entry, InsufficientFunds} and _posted(books) == {W: 60, E: 40},
    ),
    Scenario(
        "one debit, twice",
        (_money,),
        _pays(E, 70),
        _pays(E, 70),
        lambda a, b, books: a == b and _posted(books) == {W: 30, E: 70},
    ),
    Scenario(
        "one key, two contents",
        (_money,),
        _pays(E, 60),
        _pays(V, 50),
        lambda a, b, books: (
            _kinds(a, b) == {Entry, KeyReused} and _posted(books) in ({W: 40, E: 60}, {W: 50, V: 50})
        ),
    ),
    Scenario(
        "two debits to one account",
        (_money, lambda ledger: ledger.post(recharge(V, "first", 100))),
        _pays(E, 70),
        _pays(E, 50, by=V),
        lambda a, b, books: _kinds(a, b) == {Entry} and _posted(books) == {W: 30, V: 50, E: 120},
    ),
    Scenario(
        "two wallets that pay each other",
        (_money, lambda ledger: ledger.post(recharge(V, "first", 100))),
        _pays(V, 70),
        _pays(W, 50, by=V),
        lambda a, b, books: _kinds(a, b) == {Entry} and _posted(books) == {W: 80, V: 120},
    ),
    Scenario(
        "the first recharge, twice",
        (),
        _money,
        _money,
        lambda a, b, books: a == b and _posted(books) == {W: 100},
    ),
    Scenario(
        "recharge and debit",
        (_money,),
        lambda ledger: ledger.post(recharge(W, "second", 100)),
        _pays(E, 150),
        lambda a, b, books: (
            isinstance(a, Entry)
            and (type(b), _posted(books).get(E, 0)) in ((Entry, 150), (InsufficientFunds, 0))
        ),
    ),
    Scenario(
        "recharge and a slice that is short",
        (_money, _hold),
        lambda ledger: extend(ledger, W, "h", n=2, to_minor=150),
        lambda ledger: ledger.post(recharge(W, "second", 100)),
        lambda a, b, books: _kinds(a) <= {Hold, InsufficientFunds} and _posted(books) == {W: 200},
    ),
    Scenario(
        "close and extend",
        (_money, _hold),
        lambda ledger: extend(ledger, W, "h", n=2, to_minor=60),
        lambda ledger: close(ledger, W, "h", (E, 20), (REVENUE, 5)),
        lambda a, b, books: (
            _kinds(a) <= {Hold, HoldGone} and _posted(books) == {W: 75, E: 20} and books.accounts[W].held == 0
        ),
    ),
    Scenario(
        "close and close",
        (_money, _hold),
        lambda ledger: close(ledger, W, "h", (E, 20), by="a"),
        lambda ledger: close(ledger, W, "h", (E, 30), by="b"),
        lambda a, b, books: a == b and _posted(books)[E] == (20 if dict(a.facts) == {"by": "a"} else 30),
    ),
    Scenario(
        "close and debit",
        (_money, _hold),
        lambda ledger: close(ledger, W, "h", (E, 20)),
        _pays(V, 75),
        lambda a, b, books: (
            isinstance(a, Entry) and (type(b), _posted(books)[W]) in ((Entry, 5), (InsufficientFunds, 80))
        ),
    ),
    Scenario(
        "adopt and extend",
        (_money, _hold),
        lambda ledger: extend(ledger, W, "h", n=2, to_minor=60),
        lambda ledger: adopt(ledger, W, "h", from_epoch=1, owner="b"),
        lambda a, b, books: (
            (type(a), b.amount_minor, b.n) in ((Hold, 60, 3), (Fenced, 30, 2))
            and books.accounts[W].holds["h"] == b
        ),
    ),
    Scenario(
        "adopt and an extend that has been made",
        (_money, _hold, lambda ledger: extend(ledger, W, "h", n=2, to_minor=60)),
        lambda ledger: extend(ledger, W, "h", n=2, to_minor=60),
        lambda ledger: adopt(ledger, W, "h", from_epoch=1, owner="b"),
        lambda a, b, books: _kinds(a) <= {Hold, Fenced} and books.accounts[W].holds["h"] == b,
    ),
    Scenario(
        "adopt and adopt",
        (_money, _hold),
        lambda ledger: adopt(ledger, W, "h", from_epoch=1, owner="a"),
        lambda ledger: adopt(ledger, W, "h", from_epoch=1, owner="b"),
        lambda a, b, books: _kinds(a, b) == {Hold, Fenced} and books.accounts[W].holds["h"] in (a, b),
    ),
    Scenario(
        "adopt and the old owner's close",
        (_money, _hold),
        lambda ledger: close(ledger, W, "h", (E, 20), fence=(1, "me")),
        lambda ledger: adopt(ledger, W, "h", from_epoch=1, owner="b"),
        lambda a, b, books: _kinds(a, b) in ({Entry, HoldGone}, {Fenced, Hold}),
    ),
    Scenario(
        "void and open",
        (_money,),
        _hold,
        lambda ledger: ledger.void(W, INR, "h"),
        lambda a, b, books: (
            _kinds(a) <= {Hold, KeyVoided}
            and b.state is KeyState.VOIDED
            and books.accounts[W].spendable == 100
        ),
    ),
    Scenario(
        "void and close",
        (_money, _hold),
        lambda ledger: close(ledger, W, "h", (E, 20)),
        lambda ledger: ledger.void(W, INR, "h"),
        lambda a, b, books: a == b and _posted(books).get(E, 0) == (20 if a.state is KeyState.POSTED else 0),
    ),
    Scenario(
        "void and debit",
        (_money,),
        _pays(E, 70),
        lambda ledger: ledger.void(W, INR, "p"),
        lambda a, b, books: (
            (type(a), b.state, _posted(books)[W])
            in ((Entry, KeyState.POSTED, 30), (KeyVoided, KeyState.VOIDED, 100))
        ),
    ),
    Scenario(
        "redo and redo of one entry",
        (_money, _pays(E, 60)),
        _redo(W),
        _redo(W),
        lambda a, b, books: _posted(books) == {W: 40, E: 60},
        cut_at=COMMITTED,
    ),
    Scenario(
        "redo of both sides of one entry",
        (_money, _pays(E, 60)),
        _redo(W),
        _redo(E, W),
        lambda a, b, books: _posted(books) == {W: 40, E: 60},
        cut_at=COMMITTED,
    ),
]

#: These have ten thousand states and more.
LONG_SCENARIOS = [
    Scenario(
        "redo, and a redo with a debit after it",
        (_money, _pays(REVENUE, 60, "left")),
        _redo(W),
        _first(_redo(W), _pays(E, 30)),
        lambda a, b, books: _kinds(b) == {Entry} and _posted(books) == {W: 10, E: 30},
        cut_at=COMMITTED,
    ),
    Scenario(
        "redo and redo of an entry with two credits",
        (_money, lambda ledger: ledger.post(payment(W, "p", (E, 60), (V, 10), (REVENUE, 1)))),
        _redo(W),
        _redo(V, W),
        lambda a, b, books: _posted(books) == {W: 29, E: 60, V: 10},
        cut_at=COMMITTED,
    ),
    Scenario(
        "redo and a debit that credits the same account",
        (_money, _pays(E, 60, "left")),
        _redo(W),
        _pays(E, 30),
        lambda a, b, books: _kinds(b) == {Entry} and _posted(books) == {W: 10, E: 90},
        cut_at=COMMITTED,
    ),
    Scenario(
        "redo and a debit by the credited wallet",
        (_money, _pays(V, 60, "left")),
        _redo(W),
        _pays(E, 60, by=V),
        lambda a, b, books: _kinds(b) <= {Entry, InsufficientFunds} and sum(_posted(books).values()) == 100,
        cut_at=COMMITTED,
    ),
]


@pytest.mark.parametrize(
    "scenario",
    [*SCENARIOS, *(pytest.param(scenario, marks=pytest.mark.slow) for scenario in LONG_SCENARIOS)],
    ids=str,
)
def test_no_order_of_two_processes_loses_or_doubles_money(scenario: Scenario) -> None:
    states, ends = explore(scenario)
    assert states > 5
    assert ends > 1
    print(f"{states} states, {ends} ends")
