"""Whatever was consulted and recharged: the revenue report is the ledger, to the paisa, on any day and in any month."""

import asyncio
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from billing_engine.consultations.rules import Rules
from billing_engine.ledger.accounts import REVENUE_CONSULTATIONS, earnings_of, gateway_of, wallet_of
from billing_engine.money import INR
from server.admin.revenue import Period, Report, Revenue, Turnover
from server.storage.sqlite.ledger import all_rows
from tests.support.consult import World, open_world
from tests.support.manual_clock import ManualClock

PEOPLE = range(3)
#: What `World` calls days: 28 of January 2026, again and again.
FIRST, LAST = date(2026, 1, 1), date(2026, 1, 31)


@dataclass(frozen=True)
class Step:
    """A user recharges and consults a lawyer for some time; then nothing happens for hours or days."""

    who: int
    recharge_minor: int
    rate_minor: int
    seconds: float
    hours: int
    left_running: bool


STEPS = st.lists(
    st.builds(
        Step,
        who=st.sampled_from(PEOPLE),
        recharge_minor=st.integers(100, 100_000),
        rate_minor=st.integers(1, 100_000),
        seconds=st.sampled_from([0, 0.4, 1, 7, 59.999, 60, 61, 333]),
        hours=st.integers(0, 50),
        left_running=st.booleans(),
    ),
    max_size=8,
)


@settings(max_examples=30, deadline=None)
@given(steps=STEPS, commission_bp=st.sampled_from([0, 1, 1_250, 3_333, 10_000]))
def test_the_report_is_the_ledger(steps: list[Step], commission_bp: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_play(Path(directory) / "x.db", steps, commission_bp))


async def _play(path: Path, steps: list[Step], commission_bp: int) -> None:
    rules = Rules(commission_bp=commission_bp, min_balance_minor=0, min_seconds=1)
    async with open_world(path, rules=rules, clock=ManualClock()) as world:
        ended: list[Any] = []
        running: dict[int, str] = {}
        for step in steps:
            await world.recharge(f"u{step.who}", step.recharge_minor)
            if step.who in running:
                ended.append(await world.consultations.end(running.pop(step.who), caller_id=f"u{step.who}"))
            world.lawyers.add(f"l{step.who}", step.rate_minor)
            account = await world.ledger.account(wallet_of(f"u{step.who}"), INR.code)
            if account.spendable >= max(1, step.rate_minor // 60):
                session_id = await world.begin(f"u{step.who}", f"l{step.who}")
                await world.advance(step.seconds)
                if step.left_running:
                    running[step.who] = session_id
                else:
                    ended.append(await world.consultations.end(session_id, caller_id=f"u{step.who}"))
            if not running:
                world.clock.jump_ms(step.hours * 3_600_000)
        for who, session_id in running.items():
            ended.append(await world.consultations.end(session_id, caller_id=f"u{who}"))
        await _check(world, ended)


async def _check(world: World, ended: list[Any]) -> None:
    revenue = Revenue(books=world.ledger, clock=world.clock, asset=INR, zone=ZoneInfo("Asia/Kolkata"))
    report = await revenue.report(first_day=FIRST, last_day=LAST, by=Period.DAY)
    total = report.total

    # Against the accounts.
    assert total.commission_minor == await world.ledger.balance(REVENUE_CONSULTATIONS, INR.code)
    assert total.recharged_minor == -await world.ledger.balance(gateway_of("simulated"), INR.code)
    earned = [await world.ledger.account(earnings_of(f"l{who}"), INR.code) for who in PEOPLE]
    assert total.net_minor == sum(account.posted for account in earned)
    wallets = [await world.ledger.account(wallet_of(f"u{who}"), INR.code) for who in PEOPLE]
    assert total.recharged_minor - total.gross_minor == sum(account.posted for account in wallets)
    # Against what the people were told.
    views = {view.session.id: view for view in ended}
    assert (total.gross_minor, total.seconds, total.sessions) == (
        sum(view.total_minor for view in views.values()),
        sum(view.duration_s for view in views.values()),
        len(views),
    )
    # Against every row, added up by hand.
    assert {turnover.period: turnover for turnover in report.periods if _busy(turnover)} == _by_hand(world)
    # A month is its days.
    monthly = await revenue.report(first_day=FIRST, last_day=LAST, by=Period.MONTH)
    assert [turnover.period for turnover in monthly.periods] == ["2026-01"]
    assert _numbers(monthly.periods[0]) == _numbers(total) == _numbers(monthly.total)
    assert [sum(column) for column in zip(*map(_numbers, report.periods), strict=True)] == [*_numbers(total)]
    # Any split of the days is the same money.
    parts: list[Report] = [
        await revenue.report(first_day=FIRST, last_day=date(2026, 1, 9), by=Period.DAY),
        await revenue.report(first_day=date(2026, 1, 10), last_day=LAST, by=Period.DAY),
    ]
    assert [turnover for part in parts for turnover in part.periods] == report.periods


def _by_hand(world: World) -> dict[str, Turnover]:
    sums: dict[str, dict[str, int]] = {}
    for row in world.db.read(lambda conn: list(all_rows(conn))):
        entry = row.entry
        if entry.state != "posted":
            continue
        day = sums.setdefault(
            entry.day,
            dict.fromkeys(
                ("net_minor", "commission_minor", "sessions", "seconds", "recharged_minor", "recharges"), 0
            ),
        )
        for transfer in entry.transfers:
            if transfer.credit.startswith("earnings:"):
                day["net_minor"] += transfer.amount_minor
            elif transfer.credit.startswith("revenue:"):
                day["commission_minor"] += transfer.amount_minor
            else:
                day["recharged_minor"] += transfer.amount_minor
                day["recharges"] += 1
        if entry.reference.startswith("consult:"):
            day["sessions"] += 1
            day["seconds"] += entry.facts["servedMs"] // 1000
    return {name: Turnover(name, **numbers) for name, numbers in sums.items()}


def _numbers(turnover: Turnover) -> tuple[int, ...]:
    return (
        turnover.net_minor,
        turnover.commission_minor,
        turnover.sessions,
        turnover.seconds,
        turnover.recharged_minor,
        turnover.recharges,
    )


def _busy(turnover: Turnover) -> bool:
    return any(_numbers(turnover))
