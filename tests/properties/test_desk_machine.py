"""One machine that refunds, asks, approves, rejects and pays out in any order, again and again, beside a model of plain dicts.

The process may die at any call of a step; its successor heals, the step is asked for again, and the file is audited and compared
with the model: nothing twice, nothing lost, nothing above a consultation's price, no payout of what is not there.
"""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from billing_engine.consultations.rules import Rules
from billing_engine.errors import BillingError
from billing_engine.ledger.accounts import PAYOUTS, REVENUE_CONSULTATIONS, earnings_of, wallet_of
from billing_engine.ledger.model import KeyReused
from billing_engine.payouts.errors import EarningsTooLow, PayoutDecided, PayoutNotFound, PayoutTooSmall
from billing_engine.refunds.errors import (
    RefundRequestDecided,
    RefundRequestNotFound,
    RefundRequestOpen,
    RefundTooLarge,
)
from billing_engine.verification import Verdict
from tests.support.consult_paths import survived
from tests.support.desk_paths import DeskStage, a_desk, reborn
from tests.support.faults import Moment

COMMISSION_BP = 1_250
SESSIONS = ("s0", "s1")
RECHARGED = 100_000
#: The smallest payout of the stage.
LEAST = 100

sessions = st.sampled_from(SESSIONS)
numbers = st.integers(0, 3)


@dataclass
class Request:
    key: str
    amount: int | None
    refunded: int | None = None


@dataclass
class Bill:
    gross: int
    refunds: dict[str, int] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    @property
    def commission(self) -> int:
        return self.gross * COMMISSION_BP // 10_000

    @property
    def back(self) -> int:
        return sum(self.refunds.values()) + sum(one.refunded or 0 for one in self.requests)

    @property
    def commission_back(self) -> int:
        return self.commission * self.back // self.gross if self.gross else 0

    @property
    def left(self) -> int:
        return self.gross - self.back


@dataclass
class Model:
    """What must be so. Each step answers what its caller hears: a number, or the error's class."""

    bills: dict[str, Bill] = field(default_factory=dict)
    payouts: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def paid(self) -> int:
        return sum(amount for amount, status in self.payouts.values() if status == "PAID")

    @property
    def held(self) -> int:
        return sum(amount for amount, status in self.payouts.values() if status == "REQUESTED")

    @property
    def earnings(self) -> int:
        net = sum(b.gross - b.commission - (b.back - b.commission_back) for b in self.bills.values())
        return net - self.paid

    def refund(self, session: str, number: int, amount: int) -> Any:
        bill, key = self.bills[session], f"{session}r{number}"
        if key in bill.refunds:
            return amount if bill.refunds[key] == amount else KeyReused
        if amount > bill.left:
            return RefundTooLarge
        bill.refunds[key] = amount
        return amount

    def file(self, session: str, number: int, amount: int | None) -> Any:
        bill, key = self.bills[session], f"{session}f{number}"
        for place, one in enumerate(bill.requests, 1):
            if one.key == key:
                return place
        if bill.requests and bill.requests[-1].refunded is None:
            return RefundRequestOpen
        if (amount or 1) > bill.left:
            return RefundTooLarge
        bill.requests.append(Request(key, amount))
        return len(bill.requests)

    def approve(self, session: str, number: int, amount: int | None) -> Any:
        bill = self.bills[session]
        if not 1 <= number <= len(bill.requests):
            return RefundRequestNotFound
        one = bill.requests[number - 1]
        if one.refunded is not None:
            return one.refunded or RefundRequestDecided
        wanted = amount or one.amount or bill.left
        if not 0 < wanted <= bill.left:
            return RefundTooLarge
        one.refunded = wanted
        return wanted

    def reject(self, session: str, number: int) -> Any:
        bill = self.bills[session]
        if not 1 <= number <= len(bill.requests):
            return RefundRequestNotFound
        one = bill.requests[number - 1]
        if one.refunded:
            return RefundRequestDecided
        one.refunded = 0
        return 0

    def ask(self, number: int, amount: int) -> Any:
        key = f"p{number}"
        if amount < LEAST:
            return PayoutTooSmall
        if key in self.payouts:
            return amount if self.payouts[key][0] == amount else KeyReused
        if amount > self.earnings - self.held:
            return EarningsTooLow
        self.payouts[key] = (amount, "REQUESTED")
        return amount

    def decide(self, number: int, status: str) -> Any:
        key = f"p{number}"
        if key not in self.payouts:
            return PayoutNotFound
        amount, now = self.payouts[key]
        if now not in ("REQUESTED", status):
            return PayoutDecided
        self.payouts[key] = (amount, status)
        return amount


@dataclass(frozen=True)
class Op:
    """A step of the model by its name, which is a method's of `Model` and of `Real`."""

    name: str
    args: tuple[Any, ...]


class Real:
    """The same steps on the stage."""

    def __init__(self, stage: DeskStage) -> None:
        self.stage = stage

    async def run(self, op: Op) -> Any:
        try:
            return await getattr(self, op.name)(*op.args)
        except BillingError as refused:
            return type(refused)

    async def refund(self, session: str, number: int, amount: int) -> int:
        _, decision = await self.stage.refunds.refund(
            session, amount_minor=amount, reason="x", by="a", operation_id=f"{session}r{number}"
        )
        return decision.amount_minor

    async def file(self, session: str, number: int, amount: int | None) -> int:
        asked = await self.stage.refunds.ask(
            session, user_id="u1", amount_minor=amount, reason="x", operation_id=f"{session}f{number}"
        )
        return asked.number

    async def approve(self, session: str, number: int, amount: int | None) -> int:
        answered = await self.stage.refunds.approve(
            f"{session}-{number}", amount_minor=amount, reason=None, by="a"
        )
        return answered.refunded_minor

    async def reject(self, session: str, number: int) -> int:
        return (await self.stage.refunds.reject(f"{session}-{number}", reason="x", by="a")).refunded_minor

    async def ask(self, number: int, amount: int) -> int:
        return (await self.stage.ask(f"p{number}", amount)).amount_minor

    async def decide(self, number: int, status: str) -> int:
        decide = self.stage.pay if status == "PAID" else self.stage.fail
        return (await decide(f"p{number}")).amount_minor


def near(edge: int) -> st.SearchStrategy[int]:
    """Amounts about what is just possible, and small ones; never less than one."""
    return st.one_of(st.integers(-2, 2).map(lambda more: max(1, edge + more)), st.integers(1, max(1, edge)))


def steps(model: Model) -> st.SearchStrategy[Op]:
    """Mostly what meets something: the last paisa, a request that is there, a payout that is open or decided."""

    def of_session(session: str) -> st.SearchStrategy[Op]:
        bill = model.bills[session]
        amounts, requests = (
            near(bill.left),
            st.integers(max(1, len(bill.requests) - 1), len(bill.requests) + 1),
        )
        return st.one_of(
            st.builds(lambda *args: Op("refund", (session, *args)), numbers, amounts),
            st.builds(lambda *args: Op("file", (session, *args)), numbers, st.none() | amounts),
            st.builds(lambda *args: Op("approve", (session, *args)), requests, st.none() | amounts),
            st.builds(lambda *args: Op("reject", (session, *args)), requests),
        )

    payouts = st.builds(lambda *args: Op("ask", args), numbers, near(max(0, model.earnings - model.held)))
    known = sorted(int(key[1:]) for key in model.payouts)
    decisions = st.builds(
        lambda *args: Op("decide", args),
        st.sampled_from(known) if known else numbers,
        st.sampled_from(("PAID", "FAILED")),
    )
    return st.one_of(sessions.flatmap(of_session).map(lambda op: op), payouts, decisions)


class DeskMachine(RuleBasedStateMachine):
    """The real services on a real file, one step at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.directory = tempfile.TemporaryDirectory()
        self.model = Model()
        self.done: list[Op] = []

    @initialize(atomic=st.booleans(), seconds=st.lists(st.integers(0, 12), min_size=2, max_size=2))
    def consult(self, atomic: bool, seconds: list[int]) -> None:
        self.runner.run(self._consult(atomic, seconds))

    async def _consult(self, atomic: bool, seconds: list[int]) -> None:
        stage = await self.stack.enter_async_context(
            a_desk(Path(self.directory.name) / "x.db", atomic=atomic)
        )
        stage.rules = Rules(commission_bp=COMMISSION_BP, min_balance_minor=0, min_seconds=1)
        stage.fuse.counting = False
        await stage.boot()
        await stage.recharge(amount=RECHARGED)
        for session, length_s in zip(SESSIONS, seconds, strict=True):
            await stage.start(session)
            await stage.world.advance(length_s)
            await stage.end(key=session)
            self.model.bills[session] = Bill(gross=100 * length_s)
        self.stage = stage

    def teardown(self) -> None:
        if hasattr(self, "stage"):
            self.runner.run(self.stage.world.stop())
        self.runner.run(self.stack.aclose())
        self.runner.close()
        self.directory.cleanup()

    @rule(data=st.data())
    def do(self, data: st.DataObject) -> None:
        self.check(data.draw(steps(self.model)))

    def check(self, op: Op) -> None:
        assert self.runner.run(Real(self.stage).run(op)) == getattr(self.model, op.name)(*op.args), op
        self.done.append(op)

    @precondition(lambda self: self.done)
    @rule(data=st.data())
    def do_again(self, data: st.DataObject) -> None:
        self.check(data.draw(st.sampled_from(self.done)))

    @rule(data=st.data(), at=st.integers(0, 12), moment=st.sampled_from(Moment))
    def die_in(self, data: st.DataObject, at: int, moment: Moment) -> None:
        op = data.draw(steps(self.model))
        self.runner.run(self._die_in(op, at, moment))
        self.check(op)

    async def _die_in(self, op: Op, at: int, moment: Moment) -> None:
        stage = self.stage
        stage.fuse.at, stage.fuse.moment, stage.fuse.counting, stage.fuse.calls = at, moment, True, []

        async def act(_: Any) -> None:
            await Real(stage).run(op)

        lived = await survived(stage, act)
        stage.fuse.counting = False
        if not lived:
            await reborn(stage)

    @invariant()
    def the_books_are_the_model(self) -> None:
        if hasattr(self, "stage"):
            self.runner.run(self._compare())

    async def _compare(self) -> None:
        found = await self.stage.audit()
        assert found.verdict is Verdict.CLEAN, (found.broken, found.unfinished)
        ledger, model = self.stage.world.ledger, self.model
        bills = model.bills.values()
        wallet = RECHARGED - sum(bill.gross - bill.back for bill in bills)
        assert await ledger.balance(wallet_of("u1"), "INR") == wallet
        assert await ledger.balance(REVENUE_CONSULTATIONS, "INR") == sum(
            bill.commission - bill.commission_back for bill in bills
        )
        earnings = await ledger.account(earnings_of("l1"), "INR")
        assert (earnings.posted, earnings.held) == (model.earnings, model.held)
        assert await ledger.balance(PAYOUTS, "INR") == model.paid
        decided = sum(len(bill.refunds) for bill in bills)
        decided += sum(one.refunded is not None for bill in bills for one in bill.requests)
        decided += sum(status != "REQUESTED" for _, status in model.payouts.values())
        assert len(self.stage.told.letters) == decided


DeskMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestDeskMachine = DeskMachine.TestCase
