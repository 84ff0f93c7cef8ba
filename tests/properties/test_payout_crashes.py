"""Death, and failure, at every await of a payout. The list is generated from the calls of an undisturbed run.

Whatever the moment: earnings are paid once, set aside once or given back once; asking again finds what the first try made; and
healing alone finishes what nobody asks about again.
"""

from pathlib import Path

import pytest

from billing_engine.ledger.accounts import PAYOUTS, earnings_of
from billing_engine.payouts.errors import PayoutDecided
from billing_engine.payouts.model import PayoutStatus
from billing_engine.verification import Verdict
from tests.support.desk_paths import (
    NET,
    DeskPath,
    DeskStage,
    asked,
    cut_off,
    earned,
    trouble_at_every_await,
)

DECIDING = frozenset({"payouts.get", "news.payout_decided", "payouts.settle"})


async def healing_a_request(stage: DeskStage) -> None:
    await earned(stage)
    await cut_off(stage, DeskStage.ask, "payouts.add")


async def healing_a_decision(stage: DeskStage) -> None:
    await asked(stage)
    await cut_off(stage, DeskStage.pay, "payouts.settle")


PATHS = (
    DeskPath("request", earned, DeskStage.ask, frozenset({"payouts.add"})),
    DeskPath("paid", asked, DeskStage.pay, DECIDING),
    DeskPath("failed", asked, DeskStage.fail, DECIDING),
    DeskPath(
        "healing a request", healing_a_request, DeskStage.heal, frozenset({"payouts.queue", "payouts.add"})
    ),
    DeskPath(
        "healing a decision",
        healing_a_decision,
        DeskStage.heal,
        frozenset({"payouts.queue", "payouts.settle"}),
    ),
)


async def promises(stage: DeskStage, path: DeskPath) -> None:
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


@pytest.mark.parametrize(
    "atomic",
    [pytest.param(True, id="atomic", marks=pytest.mark.exhaustive), pytest.param(False, id="stepwise")],
)
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
@pytest.mark.parametrize("dies", [True, False], ids=["death", "failure"])
async def test_trouble_at_every_await(path: DeskPath, atomic: bool, dies: bool, tmp_path: Path) -> None:
    await trouble_at_every_await(tmp_path, path, promises, atomic=atomic, dies=dies)
