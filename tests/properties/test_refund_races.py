"""A thousand refunds of one consultation at once, while its user spends and its lawyer is paid out.

Whoever comes first: never more is given back than was paid, nobody spends what is not there, no payout takes earnings below zero,
and every paisa is in one place.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from billing_engine.errors import BillingError
from billing_engine.ledger.accounts import REVENUE_CONSULTATIONS, earnings_of, wallet_of
from billing_engine.ledger.model import InsufficientFunds, Movement, Transfer
from billing_engine.payouts.errors import EarningsTooLow
from billing_engine.refunds.errors import RefundTooLarge
from billing_engine.verification import Verdict
from tests.support.desk_paths import DeskStage, a_desk

FUNDS = 62_000
#: 10 minutes at 60.00.
GROSS = 60_000
COMMISSION = 7_500
PART = 97


async def consulted(stage: DeskStage) -> None:
    await stage.boot()
    await stage.recharge(amount=FUNDS)
    await stage.start()
    await stage.world.advance(600)
    await stage.end()


async def spend(stage: DeskStage, number: int) -> None:
    wallet = wallet_of("u1")
    taken = (Transfer(wallet, "revenue:elsewhere", 150, "elsewhere"),)
    await stage.world.ledger.post(Movement(wallet, f"spend:{number}", "elsewhere", "INR", str(number), taken))


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "stepwise"])
async def test_a_thousand_refunds_race_with_spends_and_payouts(atomic: bool, tmp_path: Path) -> None:
    async with a_desk(tmp_path / "x.db", atomic=atomic) as stage:
        stage.fuse.counting = False
        await consulted(stage)
        start = asyncio.Event()

        async def one(act: Any) -> type[BaseException] | None:
            await start.wait()
            try:
                await act
            except BillingError as refused:
                return type(refused)
            return None

        acts: dict[str, list[Any]] = {"refund": [], "spend": [], "payout": []}
        runs: list[tuple[str, asyncio.Task[Any]]] = []
        for number in range(1_000):
            acts["refund"].append(stage.give_back(f"r{number}", PART))
            if number % 4 == 0:
                acts["spend"].append(spend(stage, number))
                acts["payout"].append(stage.ask(f"p{number}", 1_000))
        for name, several in acts.items():
            runs += [(name, asyncio.ensure_future(one(act))) for act in several]
        await asyncio.sleep(0)
        start.set()
        await asyncio.gather(*(task for _, task in runs))

        told = {name: [task.result() for kind, task in runs if kind == name] for name in acts}
        assert set(told["refund"]) == {None, RefundTooLarge}
        assert set(told["spend"]) <= {None, InsufficientFunds}
        assert set(told["payout"]) <= {None, EarningsTooLow}
        back = told["refund"].count(None) * PART
        assert GROSS - PART < back <= GROSS, "as much as fits, and no more"
        commission_back = COMMISSION * back // GROSS
        ledger = stage.world.ledger
        assert await ledger.balance(REVENUE_CONSULTATIONS, "INR") == COMMISSION - commission_back
        spent = told["spend"].count(None) * 150
        assert await ledger.balance("revenue:elsewhere", "INR") == spent
        wallet = await ledger.account(wallet_of("u1"), "INR")
        assert wallet.posted == FUNDS - GROSS + back - spent
        assert wallet.posted >= 0
        earnings = await ledger.account(earnings_of("l1"), "INR")
        assert earnings.posted == GROSS - COMMISSION - (back - commission_back)
        assert earnings.held == told["payout"].count(None) * 1_000 <= GROSS - COMMISSION
        # The last paise, and then nothing.
        if back < GROSS:
            await stage.give_back("last", GROSS - back)
        assert await ledger.balance(REVENUE_CONSULTATIONS, "INR") == 0
        assert await ledger.balance(earnings_of("l1"), "INR") == 0
        with pytest.raises(RefundTooLarge):
            await stage.give_back("more", 1)
        found = await stage.audit()
        assert found.verdict is Verdict.CLEAN, (found.broken[:3], found.unfinished[:3])
        await stage.world.stop()


async def test_two_processes_decide_at_once_and_the_bound_holds(tmp_path: Path) -> None:
    """The turns that one process takes are its own: between two, the book's revision decides."""
    async with a_desk(tmp_path / "x.db", atomic=True) as stage:
        stage.fuse.counting = False
        await consulted(stage)
        other = DeskStage(stage.db, atomic=True, clock=stage.clock, told=stage.told)
        other.fuse.counting = False
        await other.boot()
        answers = await asyncio.gather(
            *(
                (stage if n % 2 else other).refunds.refund(
                    "s1", amount_minor=7_000, reason="x", by="an admin", operation_id=f"r{n}"
                )
                for n in range(24)
            ),
            return_exceptions=True,
        )
        given = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert len(given) == GROSS // 7_000
        assert all(
            isinstance(answer, RefundTooLarge) for answer in answers if isinstance(answer, BaseException)
        )
        assert (await stage.audit()).verdict is Verdict.CLEAN
        await other.world.stop()
        await stage.world.stop()
