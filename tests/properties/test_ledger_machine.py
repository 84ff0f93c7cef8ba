"""One machine that does to the ledger everything that can be done to it, beside a model of plain dicts.

Recharges, payments, holds opened, extended, adopted, closed, voided; any of them again, at any later time; many in one batch;
the store failing or the process dying at any call; restarts, with the commit in one transaction or in steps. After every step
the file itself is audited and compared with the model.
"""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from billing_engine.errors import Unavailable
from billing_engine.ledger.model import Entry
from billing_engine.ledger.service import Ledger
from server.storage.sqlite.engine import SqliteDatabase, SqliteOptions, open_database
from server.storage.sqlite.ledger import SqliteLedgerStore
from tests.support.ledger_books import books_of
from tests.support.ledger_model import Adopt, Close, Extend, Model, Op, Open, Post, Void, outcome_of, summary
from tests.support.ledger_moves import payment, recharge
from tests.support.ledger_store_calls import Died, How, Trouble, WatchedStore
from tests.support.manual_clock import ManualClock

WALLETS = ("wallet:u", "wallet:v")
EARNINGS, REVENUE = "earnings:l", "revenue:consultations"
#: Few names, so that they meet: a hold's name is a source too.
SOURCES = ("s1", "s2", "s3", "s4", "s5", "s6", "h1")
HOLDS = ("h1", "h2", "h3", "h4", "h5", "h6", "h7", "s1")
OWNERS = ("one", "two")

wallets = st.sampled_from(WALLETS)
holds = st.sampled_from(HOLDS)
owners = st.sampled_from(OWNERS)
amounts = st.integers(1, 120)
slices = st.integers(1, 40)


def parts_of(wallet: str) -> st.SearchStrategy[tuple[tuple[str, int], ...]]:
    """Who gets how much: up to three transfers, the same receiver twice among them."""
    others = [account for account in (*WALLETS, EARNINGS, EARNINGS, REVENUE) if account != wallet]
    return st.lists(st.tuples(st.sampled_from(others), st.integers(1, 150)), max_size=3).map(tuple)


recharges = st.builds(
    lambda wallet, source, amount: Post(recharge(wallet, source, amount)),
    wallets,
    st.sampled_from([f"r{i}" for i in range(12)]),
    amounts,
)
payments = wallets.flatmap(
    lambda wallet: st.builds(
        lambda source, parts: Post(payment(wallet, source, *parts)),
        st.sampled_from(SOURCES),
        parts_of(wallet).filter(bool),
    )
)
opens = st.builds(Open, wallets, holds, slices, owners)
extends = st.builds(Extend, wallets, holds, st.integers(1, 8), st.integers(0, 150), st.integers(1, 3), owners)
adopts = st.builds(Adopt, wallets, holds, st.integers(1, 3), owners)
fences = st.one_of(st.none(), st.tuples(st.integers(1, 3), owners))
closes = wallets.flatmap(lambda wallet: st.builds(Close, st.just(wallet), holds, parts_of(wallet), fences))
voids = st.builds(Void, wallets, st.sampled_from((*SOURCES, *HOLDS)))
#: (Mapped, because `one_of` takes a bare one_of apart and would draw this most of the time.)
anything = st.one_of(recharges, payments, opens, extends, adopts, closes, voids).map(lambda op: op)


def by_its_owner(wallet: str, hold: tuple[str, int, int, int, str]) -> st.SearchStrategy[Op]:
    """What the owner of a hold does with it; with a random fence and number nearly everything would be refused."""
    hold_id, amount, n, epoch, owner = hold
    extend = st.builds(
        lambda more, up: Extend(wallet, hold_id, n + up, max(0, amount + more), epoch, owner),
        st.integers(-5, 60),
        st.integers(0, 2),
    )
    adopt = st.builds(lambda who: Adopt(wallet, hold_id, epoch, who), owners)
    close = parts_of(wallet).map(lambda parts: Close(wallet, hold_id, parts, (epoch, owner)))
    most = st.lists(st.sampled_from((EARNINGS, REVENUE)), min_size=1, max_size=2).map(
        lambda to: Close(wallet, hold_id, tuple((account, max(1, amount // 2)) for account in to), None)
    )
    either = [extend, extend, extend, adopt, adopt, close, most, most, st.just(Void(wallet, hold_id))]
    return st.one_of(either).map(lambda op: op)


def to_the_edge(model: Model) -> st.SearchStrategy[Op]:
    """A payment of all that may be spent, or a little less or more: what is held is not to be spent."""
    return st.builds(
        lambda wallet, source, more: Post(
            payment(wallet, source, (EARNINGS, max(1, model.spendable(wallet) + more)))
        ),
        wallets,
        st.sampled_from([f"e{i}" for i in range(9)]),
        st.integers(-3, 9),
    )


def operations(model: Model) -> st.SearchStrategy[Op]:
    """Mostly what makes sense as things stand."""
    open_holds = [(wallet, hold) for wallet, held in model.holds.items() for hold in held.values()]
    choices: list[st.SearchStrategy[Op]] = [recharges, payments, opens, opens, to_the_edge(model), anything]
    if open_holds:
        choices += [st.sampled_from(open_holds).flatmap(lambda found: by_its_owner(*found))] * 8
    return st.one_of(choices)


class LedgerMachine(RuleBasedStateMachine):
    """The real ledger on a real file, one step at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.directory = tempfile.TemporaryDirectory()
        self.model = Model()
        self.done: list[Op] = []
        self.first_told: dict[str, Entry] = {}
        self.at_rest = True

    # --- processes ---

    @initialize(atomic=st.booleans())
    def open_file(self, atomic: bool) -> None:
        self.db: SqliteDatabase = self.runner.run(
            self.stack.enter_async_context(
                open_database(Path(self.directory.name) / "ledger.db", SqliteOptions(synchronous="OFF"))
            )
        )
        self.runner.run(SqliteLedgerStore(self.db).prepare())
        self.start(atomic)
        for wallet in WALLETS:
            self.check(Post(recharge(wallet, "first", 200)))

    def start(self, atomic: bool) -> None:
        self.atomic = atomic
        self.trouble = Trouble()
        store = WatchedStore(SqliteLedgerStore(self.db, atomic=atomic), self.trouble.around)
        self.ledger = Ledger(store, ManualClock(), lambda _: "2026-01-01")
        self.runner.run(self.ledger.start())
        self.at_rest = True

    def retrieve_death(self) -> None:
        """A dead worker's exception is wanted by nobody else; asyncio would log it."""
        worker = self.ledger.committer._worker
        self.runner.run(self.ledger.stop())
        assert worker is not None
        assert isinstance(worker.exception(), Died | None)

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.runner.run(self.ledger.stop())
            self.runner.run(self.stack.aclose())
        self.runner.close()
        self.directory.cleanup()

    # --- steps ---

    def check(self, op: Op) -> None:
        answer = self.runner.run(outcome_of(op, self.ledger))
        assert answer == self.model.apply(op), op
        self.done.append(op)

    @rule(data=st.data())
    def do(self, data: st.DataObject) -> None:
        self.check(data.draw(operations(self.model)))

    @rule(op=recharges)
    def get_money(self, op: Op) -> None:
        self.check(op)

    @precondition(lambda self: self.done)
    @rule(data=st.data())
    def do_again(self, data: st.DataObject) -> None:
        """A client, a webhook or a woken process repeats something from long ago."""
        self.check(data.draw(st.sampled_from(self.done)))

    @rule(data=st.data())
    def do_at_once(self, data: st.DataObject) -> None:
        batch = data.draw(st.lists(operations(self.model), min_size=2, max_size=6))

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(outcome_of(op, self.ledger) for op in batch))

        answers = self.runner.run(all_of_them())
        assert answers == self.model.apply_batch(batch), batch
        self.done += batch

    @rule(
        data=st.data(),
        at=st.integers(0, 16),
        how=st.sampled_from(How),
        repeats=st.booleans(),
        atomic=st.booleans(),
    )
    def do_in_trouble(self, data: st.DataObject, at: int, how: How, repeats: bool, atomic: bool) -> None:
        """The store fails or the process dies at some call. A caller that repeats gets what it would have got at once;
        where nobody repeats, it has happened wholly or not at all."""
        op = data.draw(operations(self.model))
        self.trouble.plan(at, how)
        try:
            answer = self.runner.run(outcome_of(op, self.ledger))
            troubled = issubclass(answer, Unavailable) if isinstance(answer, type) else False
        except Died:
            troubled = True
        self.trouble.clear()
        if self.trouble.dead:
            self.retrieve_death()
            self.start(atomic)
        elif troubled:
            self.at_rest = False
        if not troubled:
            assert answer == self.model.apply(op), op
        elif repeats:
            self.check(op)
        else:
            after = self.model.copy()
            after.apply(op)
            keys = self.db.read(books_of).entries
            holds_now = self.holds_in_file()
            happened = set(keys) == set(after.keys) and holds_now == holds_of(after)
            if happened and any(after.spendable(w) > self.model.spendable(w) for w in WALLETS):
                # A wallet's credit waits for redo; the model's never do.
                self.redo()
            self.model = after if happened else self.model
        self.done.append(op)

    @rule()
    def redo(self) -> None:
        self.runner.run(self.ledger.recover())
        self.at_rest = True

    @rule(atomic=st.booleans())
    def restart(self, atomic: bool) -> None:
        self.runner.run(self.ledger.stop())
        self.start(atomic)

    # --- what must hold after every step ---

    def holds_in_file(self) -> dict[str, dict[str, Any]]:
        accounts = self.db.read(books_of).accounts
        return {
            id_: {hold_id: summary(hold) for hold_id, hold in account.holds.items()}
            for id_, account in accounts.items()
            if account.holds
        }

    @invariant()
    def the_file_is_what_the_model_says(self) -> None:
        if not hasattr(self, "db"):
            return
        books = self.db.read(books_of)
        assert books.problems(at_rest=self.at_rest) == []
        assert dict(books.balances()) == {id_: amount for id_, amount in self.model.posted.items() if amount}
        assert self.holds_in_file() == holds_of(self.model)
        assert {key: summary(entry) for key, entry in books.entries.items()} == self.model.keys
        for key, entry in books.entries.items():
            assert self.first_told.setdefault(key, entry) == entry

    @invariant()
    def balances_are_what_the_ledger_answers(self) -> None:
        if not hasattr(self, "db") or not self.at_rest:
            return
        for account_id in (*WALLETS, EARNINGS, REVENUE, "gateway:test"):
            balance = self.runner.run(self.ledger.balance(account_id, "INR"))
            assert balance == self.model.posted.get(account_id, 0)


def holds_of(model: Model) -> dict[str, dict[str, Any]]:
    return {wallet: dict(held) for wallet, held in model.holds.items() if held}


LedgerMachine.TestCase.settings = settings(
    max_examples=90,
    stateful_step_count=35,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestLedgerMachine = LedgerMachine.TestCase
