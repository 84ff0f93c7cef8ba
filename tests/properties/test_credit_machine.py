"""One machine that buys, applies, withdraws, closes and adjusts in any order, again and again, beside a model of plain numbers.

The process may die at any call of a step; its successor heals, the step is asked for again, and the file is audited and compared:
balance = purchased - used + refunded + adjusted, always.
"""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from billing_engine.credits.errors import (
    AlreadyApplied,
    ApplicationNotFound,
    InsufficientCredits,
    ProjectClosed,
    RefundNotEligible,
)
from billing_engine.credits.model import REFUND_WITHIN_MS, ApplicationStatus
from billing_engine.errors import BillingError
from billing_engine.verification import Verdict
from tests.support.consult_paths import survived
from tests.support.credit_paths import FREELANCER, CreditStage, a_credit_stage
from tests.support.desk_paths import reborn
from tests.support.faults import Moment

PROJECTS = ("p0", "p1", "p2")
PACKAGES = {1: 5, 2: 10, 3: 25, 4: 50}


@dataclass
class Model:
    """What must be so. Each step answers what its caller hears: a balance, or the error's class."""

    purchased: int = 0
    used: int = 0
    refunded: int = 0
    adjusted: int = 0
    #: Of each project whose application stands: when it was made.
    standing: dict[str, int] = field(default_factory=dict)
    #: Its withdrawn ones.
    withdrawn: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)

    @property
    def balance(self) -> int:
        return self.purchased - self.used + self.refunded + self.adjusted

    def buy(self, package: int, now_ms: int) -> Any:
        del now_ms
        self.purchased += PACKAGES[package]
        return self.balance

    def adjust(self, amount: int, now_ms: int) -> Any:
        del now_ms
        if self.balance + amount < 0:
            return InsufficientCredits
        self.adjusted += amount
        return self.balance

    def apply(self, project: str, now_ms: int) -> Any:
        if project in self.standing:
            return AlreadyApplied
        if project in self.closed:
            return ProjectClosed
        if self.balance < 1:
            return InsufficientCredits
        self.used += 1
        self.standing[project] = now_ms
        return self.balance

    def withdraw(self, project: str, now_ms: int) -> Any:
        if project not in self.standing:
            return RefundNotEligible if project in self.withdrawn else ApplicationNotFound
        if now_ms >= self.standing[project] + REFUND_WITHIN_MS:
            return RefundNotEligible
        del self.standing[project]
        self.withdrawn.add(project)
        self.refunded += 1
        return self.balance

    def close(self, project: str, now_ms: int) -> Any:
        del now_ms
        self.closed.add(project)
        return None


class Real:
    """The same steps on the stage, each under its operation."""

    def __init__(self, stage: CreditStage) -> None:
        self.stage = stage

    async def run(self, name: str, what: Any, key: str) -> Any:
        try:
            return await getattr(self, name)(what, key)
        except BillingError as refused:
            return type(refused)

    async def buy(self, package: int, key: str) -> Any:
        entry = (await self.stage.buy(key, package)).entry
        assert entry is not None
        return entry.posted_after

    async def adjust(self, amount: int, key: str) -> Any:
        return (await self.stage.adjust(amount, key)).posted_after

    async def apply(self, project: str, key: str) -> Any:
        return (await self.stage.apply(key, project)).credits_left

    async def withdraw(self, project: str, key: str) -> Any:
        latest = await self.stage.rows.latest(FREELANCER, project)
        # The last one that took a credit: what was refused has nothing to withdraw.
        attempts = range(latest.attempt if latest else 0, 0, -1)
        for attempt in attempts:
            one = await self.stage.rows.get(f"{FREELANCER}:{project}:{attempt}")
            if one is not None and one.status in (ApplicationStatus.ACTIVE, ApplicationStatus.WITHDRAWN):
                return (await self.stage.withdraw(key, attempt, project)).credits_after_refund
        raise ApplicationNotFound

    async def close(self, project: str, key: str) -> Any:
        del key
        await self.stage.close(project)


STEPS = st.one_of(
    st.tuples(st.just("buy"), st.sampled_from(sorted(PACKAGES))),
    st.tuples(st.just("adjust"), st.integers(-12, 6).filter(bool)),
    st.tuples(st.just("apply"), st.sampled_from(PROJECTS)),
    st.tuples(st.just("withdraw"), st.sampled_from(PROJECTS)),
    # A closed project stays closed: rarely, or there is soon nothing to apply for.
    st.tuples(st.just("close"), st.sampled_from(PROJECTS[2:])),
)


class CreditMachine(RuleBasedStateMachine):
    """The real services on a real file, one step at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.directory = tempfile.TemporaryDirectory()
        self.model = Model()
        self.number = 0

    @initialize(atomic=st.booleans())
    def boot(self, atomic: bool) -> None:
        self.runner.run(self._boot(atomic))

    async def _boot(self, atomic: bool) -> None:
        path = Path(self.directory.name) / "x.db"
        self.stage = await self.stack.enter_async_context(a_credit_stage(path, atomic=atomic))
        await self.stage.boot()
        for project in PROJECTS:
            await self.stage.post(project)

    def teardown(self) -> None:
        if hasattr(self, "stage"):
            self.runner.run(self.stage.world.stop())
        self.runner.run(self.stack.aclose())
        self.runner.close()
        self.directory.cleanup()

    @rule(step=STEPS)
    def do(self, step: tuple[str, Any]) -> None:
        self.number += 1
        self.check(*step, f"k{self.number}")

    @rule(step=STEPS)
    def do_twice(self, step: tuple[str, Any]) -> None:
        """The same operation again: the same answer, and nothing moves; what was refused is refused again."""
        self.number += 1
        key = f"k{self.number}"
        first = self.check(*step, key)
        assert self.runner.run(Real(self.stage).run(*step, key)) == first

    def check(self, name: str, what: Any, key: str) -> Any:
        answer = self.runner.run(Real(self.stage).run(name, what, key))
        assert answer == getattr(self.model, name)(what, self.stage.clock.now_ms()), (name, what)
        return answer

    @rule(step=STEPS, at=st.integers(0, 14), moment=st.sampled_from(Moment))
    def die_in(self, step: tuple[str, Any], at: int, moment: Moment) -> None:
        self.number += 1
        key = f"k{self.number}"
        before_ms = self.stage.clock.now_ms()
        self.runner.run(self._die_in(step, key, at, moment))
        answer = self.runner.run(Real(self.stage).run(*step, key))
        assert answer == getattr(self.model, step[0])(step[1], before_ms), step
        # When it was made, the books know; a try that was given up has been made anew.
        if step[0] == "apply" and step[1] in self.model.standing:
            latest = self.runner.run(self.stage.rows.latest(FREELANCER, step[1]))
            self.model.standing[step[1]] = latest.applied_at_ms

    async def _die_in(self, step: tuple[str, Any], key: str, at: int, moment: Moment) -> None:
        stage = self.stage
        stage.fuse.at, stage.fuse.moment, stage.fuse.counting, stage.fuse.calls = at, moment, True, []

        async def act(_: Any) -> None:
            await Real(stage).run(*step, key)

        lived = await survived(stage, act)
        stage.fuse.counting = False
        if not lived:
            await reborn(stage)

    @rule(hours=st.integers(1, 23))
    def wait(self, hours: int) -> None:
        self.stage.clock.jump_ms(hours * 3_600_000)

    @invariant()
    def the_books_are_the_model(self) -> None:
        if hasattr(self, "stage"):
            self.runner.run(self._compare())

    async def _compare(self) -> None:
        found = await self.stage.audit()
        assert found.verdict is Verdict.CLEAN, (found.broken, found.unfinished)
        await self.stage.credit_is_its_application()
        told, model = await self.stage.book.balance(FREELANCER), self.model
        assert (told.balance, told.purchased, told.used, told.refunded, told.adjusted) == (
            model.balance,
            model.purchased,
            model.used,
            model.refunded,
            model.adjusted,
        )
        lines, total = await self.stage.book.history(FREELANCER, page=1, limit=10_000)
        assert len(lines) == total
        assert sum(line.change_minor for line in lines) == model.balance


CreditMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestCreditMachine = CreditMachine.TestCase
