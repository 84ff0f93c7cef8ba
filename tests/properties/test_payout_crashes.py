"""Death, and failure, at every await of a payout. The list is generated from the calls of an undisturbed run.

Whatever the moment: earnings are paid once, set aside once or given back once; asking again finds what the first try made; and
healing alone finishes what nobody asks about again.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from billing_engine.ledger.accounts import PAYOUTS, earnings_of
from billing_engine.payouts.errors import PayoutDecided
from billing_engine.payouts.model import PayoutStatus
from billing_engine.verification import Verdict
from server.storage.errors import StoreUnavailable
from tests.support.consult_paths import survived
from tests.support.desk_paths import NET, DeskStage, a_desk, asked, earned
from tests.support.faults import Fuse, Moment

Step = Callable[[DeskStage], Awaitable[Any]]


@dataclass(frozen=True)
class MoneyPath:
    """What comes before, what is disturbed, and the calls that it must at least have made."""

    name: str
    before: Step
    act: Step
    touches: frozenset[str]


async def healing_a_request(stage: DeskStage) -> None:
    """The process died before the record; the disturbed part is the healing."""
    await earned(stage)
    stage.fuse.counting = False
    stage.fuse.die_at("payouts.add", Moment.BEFORE)
    assert not await survived(stage, DeskStage.ask)  # type: ignore[arg-type]
    await reborn(stage, heals=False)


async def healing_a_decision(stage: DeskStage) -> None:
    await asked(stage)
    stage.fuse.counting = False
    stage.fuse.die_at("payouts.settle", Moment.BEFORE)
    assert not await survived(stage, DeskStage.pay)  # type: ignore[arg-type]
    await reborn(stage, heals=False)


PATHS = (
    MoneyPath("request", earned, DeskStage.ask, frozenset({"payouts.add"})),
    MoneyPath(
        "paid", asked, DeskStage.pay, frozenset({"payouts.get", "news.payout_decided", "payouts.settle"})
    ),
    MoneyPath(
        "failed", asked, DeskStage.fail, frozenset({"payouts.get", "news.payout_decided", "payouts.settle"})
    ),
    MoneyPath(
        "healing a request", healing_a_request, DeskStage.heal, frozenset({"payouts.queue", "payouts.add"})
    ),
    MoneyPath(
        "healing a decision",
        healing_a_decision,
        DeskStage.heal,
        frozenset({"payouts.queue", "payouts.settle"}),
    ),
)


async def reborn(stage: DeskStage, *, heals: bool = True) -> None:
    await stage.die()
    stage.clock.jump_ms(3_000)
    await stage.reborn(Fuse(counting=False))
    if heals:
        await stage.heal()


async def promises(stage: DeskStage, path: MoneyPath) -> None:
    """After healing and before anybody asks again."""
    found = await stage.audit()
    assert found.verdict is Verdict.CLEAN, (found.broken, found.unfinished)
    account = await stage.world.ledger.account(earnings_of("l1"), "INR")
    rows = await stage.payouts.list_for("l1", limit=10, before=None)
    assert len(rows) <= 1
    status = rows[0].status if rows else None
    if path.name != "request":
        assert rows
    assert account.held == (NET if status is PayoutStatus.REQUESTED else 0)
    assert account.posted == (0 if status is PayoutStatus.PAID else NET)
    assert len(stage.told.letters) == (status in (PayoutStatus.PAID, PayoutStatus.FAILED))
    # Nothing is lost by asking again with the same id.
    again = await stage.ask()
    assert (again.status, again.amount_minor) == (status or PayoutStatus.REQUESTED, NET)
    wanted = PayoutStatus.FAILED if path.name == "failed" else PayoutStatus.PAID
    decide, other = (stage.fail, stage.pay) if path.name == "failed" else (stage.pay, stage.fail)
    assert (await decide()).status is wanted
    assert await decide() == await stage.payouts.get("p1")
    with pytest.raises(PayoutDecided):
        await other()
    account = await stage.world.ledger.account(earnings_of("l1"), "INR")
    left = NET if wanted is PayoutStatus.FAILED else 0
    assert (account.posted, account.held) == (left, 0)
    assert await stage.world.ledger.balance(PAYOUTS, "INR") == NET - left
    assert [letter.status for letter in stage.told.letters.values()] == [wanted]
    assert await stage.heal() == 0
    assert (await stage.audit()).verdict is Verdict.CLEAN


async def calls_of(file: Path, path: MoneyPath, *, atomic: bool) -> list[str]:
    async with a_desk(file, atomic=atomic) as stage:
        stage.fuse.counting = False
        await path.before(stage)
        stage.fuse.counting = True
        await path.act(stage)
        calls = list(stage.fuse.calls)
        stage.fuse.counting = False
        await reborn(stage)
        await promises(stage, path)
        await stage.world.stop()
    assert set(calls) >= path.touches, sorted(path.touches - set(calls))
    return calls


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "stepwise"])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
@pytest.mark.parametrize("dies", [True, False], ids=["death", "failure"])
async def test_trouble_at_every_await(path: MoneyPath, atomic: bool, dies: bool, tmp_path: Path) -> None:
    calls = await calls_of(tmp_path / "whole.db", path, atomic=atomic)
    for at, label in enumerate(calls):
        for moment in Moment:
            async with a_desk(tmp_path / f"{at}{moment}.db", atomic=atomic) as stage:
                try:
                    await one_trouble(stage, path, at, moment, dies=dies)
                except Exception as exc:
                    exc.add_note(f"{path.name}: {'died' if dies else 'failed'} {moment} call {at}, {label}")
                    raise


async def one_trouble(stage: DeskStage, path: MoneyPath, at: int, moment: Moment, *, dies: bool) -> None:
    stage.fuse.counting = False
    await path.before(stage)
    fuse = stage.fuse
    fuse.at, fuse.moment, fuse.counting, fuse.calls = at, moment, True, []
    if dies:
        assert not await survived(stage, path.act)  # type: ignore[arg-type]
        await reborn(stage)
    else:
        fuse.error = StoreUnavailable
        with pytest.raises(StoreUnavailable):
            await path.act(stage)
        fuse.counting = False
        # Stepwise, an entry may wait in its tail for whoever reads next.
        await stage.world.ledger.recover()
        await stage.heal()
    await promises(stage, path)
    await stage.world.stop()
