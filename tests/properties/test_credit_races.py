"""Many at once, from one barrier: the last credit, a withdrawal that is sent again and again, a price that changes, a project that closes."""

import asyncio
from collections import Counter
from collections.abc import Awaitable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from billing_engine.credits.errors import (
    AlreadyApplied,
    InsufficientCredits,
    ProjectClosed,
    RefundNotEligible,
)
from billing_engine.credits.model import ApplicationStatus
from billing_engine.errors import BillingError
from billing_engine.verification import Verdict
from tests.support.credit_paths import COMPANY, FREELANCER, CreditStage, a_credit_stage

ENGINES = pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "stepwise"])


async def at_once(*acts: Awaitable[Any]) -> list[Any]:
    """What each answers or raises, all let go by one barrier."""
    barrier = asyncio.Barrier(len(acts))

    async def one(act: Awaitable[Any]) -> Any:
        await barrier.wait()
        try:
            return await act
        except BillingError as refused:
            return type(refused)

    return await asyncio.gather(*map(one, acts))


async def is_clean(stage: CreditStage) -> None:
    await stage.credit_is_its_application()
    found = await stage.audit()
    assert found.verdict is Verdict.CLEAN, (found.broken[:3], found.unfinished[:3])


def second_process(stage: CreditStage) -> CreditStage:
    """Another one on the same file."""
    other = CreditStage(stage.db, atomic=stage.atomic, clock=stage.clock, told=stage.told)
    other.fuse.counting = False
    return other


@ENGINES
async def test_the_last_credit_on_a_hundred_projects_makes_one_application(
    atomic: bool, tmp_path: Path
) -> None:
    async with a_credit_stage(tmp_path / "x.db", atomic=atomic) as stage:
        await stage.boot()
        other = second_process(stage)
        await other.boot()
        await stage.adjust(1)
        for number in range(100):
            await stage.post(f"p{number}")
        answers = await at_once(*((stage if n % 2 else other).apply(f"a{n}", f"p{n}") for n in range(100)))
        refused = Counter(answer for answer in answers if isinstance(answer, type))
        assert refused == {InsufficientCredits: 99}
        (made,) = [answer for answer in answers if not isinstance(answer, type)]
        assert [one.id for one in await stage.applications.list_for(FREELANCER, limit=9, before=None)] == [
            made.id
        ]
        assert (await stage.book.balance(FREELANCER)).balance == 0
        await is_clean(stage)
        await other.world.stop()
        await stage.world.stop()


@ENGINES
async def test_a_hundred_requests_for_one_project_make_one_application(atomic: bool, tmp_path: Path) -> None:
    """An impatient thumb, or two devices."""
    async with a_credit_stage(tmp_path / "x.db", atomic=atomic) as stage:
        await stage.boot()
        other = second_process(stage)
        await other.boot()
        await stage.adjust(50)
        await stage.post()
        answers = await at_once(*((stage if n % 2 else other).apply(f"a{n}") for n in range(100)))
        refused = Counter(answer for answer in answers if isinstance(answer, type))
        assert refused == {AlreadyApplied: 99}
        assert (await stage.book.balance(FREELANCER)).balance == 49
        await is_clean(stage)
        await other.world.stop()
        await stage.world.stop()


@ENGINES
async def test_a_withdrawal_that_is_sent_a_hundred_times_refunds_once(atomic: bool, tmp_path: Path) -> None:
    async with a_credit_stage(tmp_path / "x.db", atomic=atomic) as stage:
        await stage.boot()
        other = second_process(stage)
        await other.boot()
        await stage.buy()
        await stage.post()
        await stage.apply()
        answers = await at_once(*((stage if n % 2 else other).withdraw(f"w{n}") for n in range(100)))
        refused = Counter(answer for answer in answers if isinstance(answer, type))
        assert refused == {RefundNotEligible: 99}
        told = await stage.book.balance(FREELANCER)
        assert (told.balance, told.used, told.refunded) == (5, 1, 1)
        await is_clean(stage)
        # The one that was heard, heard again: the same answer.
        (first,) = [answer for answer in answers if not isinstance(answer, type)]
        number = next(n for n, answer in enumerate(answers) if answer is first)
        assert await stage.withdraw(f"w{number}") == first
        await other.world.stop()
        await stage.world.stop()


@ENGINES
async def test_withdrawing_and_applying_again_and_again_at_once_loses_no_credit(
    atomic: bool, tmp_path: Path
) -> None:
    async with a_credit_stage(tmp_path / "x.db", atomic=atomic) as stage:
        await stage.boot()
        await stage.buy()
        await stage.post()
        other = second_process(stage)
        await other.boot()

        async def looks() -> None:
            for _ in range(5):
                told = await other.book.balance(FREELANCER)
                assert told.balance == told.purchased - told.used + told.refunded, "of two moments"

        for number in range(12):
            await at_once(
                *(stage.apply(f"a{number}.{n}") for n in range(4)),
                *(stage.withdraw(f"w{number}.{n}", attempt=number // 2 + 1) for n in range(4)),
                *(looks() for _ in range(4)),
            )
            await is_clean(stage)
        await other.world.stop()
        await stage.world.stop()


@ENGINES
async def test_a_price_that_changes_during_purchases_never_changes_an_order(
    atomic: bool, tmp_path: Path
) -> None:
    """Each order is one price times its credits, and that is what is paid."""
    async with a_credit_stage(tmp_path / "x.db", atomic=atomic) as stage:
        await stage.boot()
        prices = [5_000, *range(100, 1_100, 100)]
        answers = await at_once(
            *(stage.buy(f"b{n}", 1 + n % 4, f"f{n}") for n in range(60)),
            *(stage.price(minor) for minor in prices[1:]),
        )
        bought = [answer for answer in answers if not isinstance(answer, type)][:60]
        assert len(bought) == 60
        for purchase in bought:
            payment = purchase.payment
            assert payment.amount_minor in {price * payment.quantity for price in prices}
            entry = await stage.world.ledger.entry(
                payment.account, f"payment:simulated:{payment.collected_id}"
            )
            assert entry is not None
            assert sum(transfer.amount_minor for transfer in entry.transfers) == payment.amount_minor
        # Every change is in the log, one after the other, whoever came first.
        log = [await stage.prices.current(), *await stage.prices.changes(limit=100)][1:]
        assert [change.number for change in log] == list(range(len(log), 0, -1))
        assert sorted(change.price_minor for change in log) == prices[1:]
        for newer, older in pairwise(log):
            assert newer.from_minor == older.price_minor
        # The order of before keeps its price when it is asked for again.
        again = await stage.buy("b0", 1, "f0")
        assert again.payment == bought[0].payment
        await is_clean(stage)
        await stage.world.stop()


@ENGINES
async def test_who_is_on_the_list_when_a_close_answers_stays_and_nobody_else_comes(
    atomic: bool, tmp_path: Path
) -> None:
    """Applying while the project closes: in time or turned away, and the credit goes with it."""
    async with a_credit_stage(tmp_path / "x.db", atomic=atomic) as stage:
        await stage.boot()
        other = second_process(stage)
        await other.boot()
        seen: Counter[Any] = Counter()
        for number in range(15):
            project = f"p{number}"
            await stage.post(project)
            people = [f"f{number}.{n}" for n in range(8)]
            for person in people:
                await stage.buy(f"b{person}", 1, person)
            lists: list[set[str]] = []

            async def close_and_look(project: str = project, lists: list[set[str]] = lists) -> None:
                await other.close(project)
                there = await other.applications.of_project(
                    project, company_id=COMPANY, limit=100, before=None
                )
                lists.append({one.user_id for one in there})

            applying = [stage.apply(f"a{person}", project, person) for person in people]
            # The close comes after some have begun, and before others.
            answers = await at_once(*applying[:4], close_and_look(), *applying[4:])
            answers.pop(4)
            applied = {
                person for person, answer in zip(people, answers, strict=True) if not isinstance(answer, type)
            }
            seen.update(answer for answer in answers if isinstance(answer, type))
            there = await stage.applications.of_project(project, company_id=COMPANY, limit=100, before=None)
            assert {one.user_id for one in there} == applied
            # Also who had taken his credit and whose record did not know it yet.
            assert lists == [applied]
            for person in people:
                balance = (await stage.book.balance(person)).balance
                assert balance == (4 if person in applied else 5), person
            with pytest.raises(ProjectClosed):
                await stage.apply("late", project, f"late{number}")
            seen["in time"] += len(applied)
        # Or the test would prove nothing.
        assert set(seen) == {ProjectClosed, "in time"}, seen
        found = await stage.audit()
        assert found.verdict is Verdict.CLEAN, (found.broken[:3], found.unfinished[:3])
        await other.world.stop()
        await stage.world.stop()


async def test_a_slow_request_that_healing_took_for_dead_begins_anew(tmp_path: Path) -> None:
    """Between its record and its credit it slept, and its key was voided: no credit is taken under that key, ever."""
    async with a_credit_stage(tmp_path / "x.db", atomic=True) as stage:
        await stage.boot()
        await stage.buy()
        await stage.post()

        async def sleep_through_healing() -> None:
            stage.clock.jump_ms(5_000)
            assert await stage.applications.heal() == 1

        stage.rows.then = sleep_through_healing
        application = await stage.apply()
        assert (application.attempt, application.status) == (2, ApplicationStatus.ACTIVE)
        told = await stage.book.balance(FREELANCER)
        assert (told.balance, told.used) == (4, 1)
        await is_clean(stage)
        await stage.world.stop()
