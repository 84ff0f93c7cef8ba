"""One act in the middle of another, at every await: what a second process does while the first one is between two calls.

The list is generated from the calls of an undisturbed run. Whatever comes where: a credit is taken for an application that stands, and
for nothing else; a refund comes once; and who is on a project's list when its close answers is on it for good.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from billing_engine.errors import BillingError
from billing_engine.verification import Verdict
from tests.support.credit_paths import COMPANY, FREELANCER, CreditStage, a_credit_stage
from tests.support.faults import Interruption, Moment

Step = Callable[[CreditStage], Awaitable[Any]]


async def open_project(stage: CreditStage) -> None:
    await stage.buy()
    await stage.post()


async def applied(stage: CreditStage) -> None:
    await open_project(stage)
    await stage.apply("a0")


async def apply(stage: CreditStage) -> None:
    await stage.apply("a1")


async def apply_too(stage: CreditStage) -> None:
    await stage.apply("a2")


async def withdraw(stage: CreditStage) -> None:
    await stage.withdraw("w1")


async def withdraw_too(stage: CreditStage) -> None:
    await stage.withdraw("w2")


async def heal(stage: CreditStage) -> None:
    """Housekeeping, which takes whoever has begun for dead."""
    stage.clock.jump_ms(5_000)
    await stage.heal_credits()


async def take_all(stage: CreditStage) -> None:
    await stage.adjust(-(await stage.book.balance(FREELANCER)).balance, "j2")


@dataclass(frozen=True)
class Pair:
    """What comes before, what is interrupted, and by what. `refused`: what an interrupted act may hear."""

    name: str
    before: Step
    act: Step
    other: Step
    refused: frozenset[str]
    other_refused: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.name


CLOSED = frozenset({"PROJECT_CLOSED"})
TWICE = frozenset({"ALREADY_APPLIED"})
NOT_AGAIN = frozenset({"NOT_ELIGIBLE"})
SHORT = frozenset({"INSUFFICIENT_CREDITS"})
NONE: frozenset[str] = frozenset()
PAIRS = (
    Pair("apply, and it closes", open_project, apply, CreditStage.close, CLOSED),
    Pair("close, and somebody applies", open_project, CreditStage.close, apply, NONE, CLOSED),
    Pair("apply, and apply", open_project, apply, apply_too, TWICE, TWICE),
    Pair("apply, and healing", open_project, apply, heal, NONE),
    Pair("apply, and the credits go", open_project, apply, take_all, SHORT),
    Pair("apply, and withdraw", open_project, apply, withdraw, NONE, NOT_AGAIN | {"NOT_FOUND"}),
    Pair("withdraw, and withdraw", applied, withdraw, withdraw_too, NOT_AGAIN, NOT_AGAIN),
    Pair("withdraw, and apply", applied, withdraw, apply, NONE, TWICE),
    Pair("withdraw, and healing", applied, withdraw, heal, NONE),
    Pair("withdraw, and it closes", applied, withdraw, CreditStage.close, NONE),
    Pair("close, and withdraw", applied, CreditStage.close, withdraw, NONE),
    Pair("healing, and apply", open_project, heal, apply, NONE),
)


async def said(act: Awaitable[Any]) -> str | None:
    """The code that it was refused with."""
    try:
        await act
    except BillingError as refused:
        return refused.code
    return None


async def on_the_list(stage: CreditStage) -> set[str]:
    there = await stage.applications.of_project("p1", company_id=COMPANY, limit=9, before=None)
    return {one.id for one in there}


class Run:
    """One interrupted run."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.told: str | None = None
        self.other_told: str | None = None
        #: Who was on the list as each close answered.
        self.lists: list[set[str]] = []

    async def step(self, stage: CreditStage, step: Step) -> str | None:
        code = await said(step(stage))
        if step is CreditStage.close:
            self.lists.append(await on_the_list(stage))
        return code

    async def go(self, path: Path, *, atomic: bool, at: int | None, moment: Moment) -> list[str]:
        """The calls of the act."""
        async with a_credit_stage(path, atomic=atomic) as stage:
            between = Interruption(at, moment)
            stage.fuse = between  # type: ignore[assignment]
            await stage.boot()
            other = CreditStage(stage.db, atomic, clock=stage.clock, told=stage.told)
            other.fuse.counting = False
            await other.boot()
            await self.pair.before(stage)

            async def interrupt() -> None:
                self.other_told = await self.step(other, self.pair.other)

            between.then, between.counting = interrupt, True
            self.told = await self.step(stage, self.pair.act)
            between.counting = False
            await self.check(stage)
            await other.world.stop()
            await stage.world.stop()
            return between.calls

    async def check(self, stage: CreditStage) -> None:
        await stage.heal()
        found = await stage.audit()
        assert found.verdict is Verdict.CLEAN, (found.broken, found.unfinished)
        await stage.credit_is_its_application()
        assert self.told in {None, *self.pair.refused}
        assert self.other_told in {None, *self.pair.other_refused}
        there = await on_the_list(stage)
        for seen in self.lists:
            # A withdrawal takes one off it; nothing puts one on.
            assert there <= seen, "somebody came to a closed project"
            assert there == seen or withdraw in (self.pair.act, self.pair.other), (
                "somebody was taken off the list"
            )
        told = await stage.book.balance(FREELANCER)
        made = [code for step, code in self.steps() if step in (apply, apply_too) and code is None]
        before = self.pair.before is applied
        assert told.used == len(made) + before
        withdrawn = [code for step, code in self.steps() if step in (withdraw, withdraw_too) and code is None]
        assert told.refunded == len(withdrawn) <= 1

    def steps(self) -> list[tuple[Step, str | None]]:
        return [(self.pair.act, self.told), (self.pair.other, self.other_told)]


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "stepwise"])
@pytest.mark.parametrize("pair", PAIRS, ids=str)
async def test_one_act_in_the_middle_of_another(pair: Pair, atomic: bool, tmp_path: Path) -> None:
    whole = Run(pair)
    # Interrupted behind its end: the calls of an undisturbed run.
    calls = await Run(Pair("alone", pair.before, pair.act, nothing, NONE)).go(
        tmp_path / "whole.db", atomic=atomic, at=None, moment=Moment.BEFORE
    )
    assert calls
    outcomes: Counter[tuple[str | None, str | None]] = Counter()
    for at, label in enumerate(calls):
        for moment in Moment:
            whole = Run(pair)
            try:
                await whole.go(tmp_path / f"{at}{moment}.db", atomic=atomic, at=at, moment=moment)
            except Exception as exc:
                exc.add_note(f"{pair.name}: {moment} call {at}, {label}: {whole.told}, {whole.other_told}")
                raise
            outcomes[whole.told, whole.other_told] += 1
    if pair.refused or pair.other_refused:
        assert len(outcomes) > 1, f"both must be seen: {outcomes}"


async def nothing(stage: CreditStage) -> None:
    del stage
