"""Whatever was earned, refunded and paid out, and whenever: a month's rows lead from its opening to its closing balance, and the next
month begins there.
"""

import asyncio
import itertools
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_engine.ledger.accounts import REVENUE_CONSULTATIONS, earnings_of, gateway_of, wallet_of
from billing_engine.ledger.model import Movement, Transfer
from billing_engine.ledger.service import Ledger
from billing_engine.money import INR
from billing_engine.payouts.errors import EarningsTooLow
from billing_engine.payouts.model import Payout, PayoutStatus, Verdict, decide, hold_id_of, reserve
from billing_engine.refunds.model import Order, RefundBook, movement_of, refund
from server.people import statements
from server.people.model import local_day
from server.people.statements import RowKind, Statement, Statements
from server.storage.sqlite.engine import SqliteOptions, open_database
from server.storage.sqlite.ledger import SqliteLedgerStore
from tests.support.manual_clock import ManualClock

EARNINGS, WALLET = earnings_of("l"), wallet_of("u")
ZONES = ("Asia/Kolkata", "UTC", "America/New_York", "Pacific/Kiritimati")
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Step:
    """Something happens, and then nothing for some hours."""

    what: str
    amount: int
    hours: int


STEPS = st.lists(
    st.builds(
        Step,
        what=st.sampled_from(["earn", "earn", "refund", "pay out", "fail to pay out"]),
        amount=st.integers(1, 100_000),
        hours=st.sampled_from([0, 0, 1, 5, 23, 24, 200, 700, 1_500]),
    ),
    max_size=14,
)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, zone=st.sampled_from(ZONES), atomic=st.booleans(), page=st.sampled_from([1, 2, 500]))
def test_rows_lead_from_one_balance_to_the_next(
    steps: list[Step], zone: str, atomic: bool, page: int
) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(statements, "_PAGE", page)
        asyncio.run(_play(Path(directory) / "x.db", steps, ZoneInfo(zone), atomic))


async def _play(path: Path, steps: list[Step], zone: ZoneInfo, atomic: bool) -> None:
    clock = ManualClock()
    async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
        store = SqliteLedgerStore(db, atomic=atomic)
        await store.prepare()
        ledger = Ledger(store, clock, lambda at_ms: local_day(at_ms, zone))
        await ledger.start()
        expected: dict[str, list[tuple[RowKind, int]]] = {}
        books: list[RefundBook] = []
        begun = local_day(clock.now_ms(), zone)[:7]
        for number, step in enumerate(steps):
            month = local_day(clock.now_ms(), zone)[:7]
            row = await _do(ledger, clock, step, f"{number:03}", books)
            if row is not None and row[1]:
                expected.setdefault(month, []).append(row)
            clock.jump_ms(step.hours * HOUR_MS)
        found = Statements(books=ledger, asset=INR, zone=zone)
        last = local_day(clock.now_ms(), zone)[:7]
        months = [await found.of("l", month) for month in _months(begun, last)]
        _check(months, expected)
        account = await ledger.account(EARNINGS, "INR")
        assert months[-1].closing_minor == account.posted
        await ledger.stop()


def _check(months: list[Statement], expected: dict[str, list[tuple[RowKind, int]]]) -> None:
    assert months[0].opening_minor == 0
    for one, following in itertools.pairwise(months):
        assert following.opening_minor == one.closing_minor
    for one in months:
        # Within one millisecond the order is the key's.
        assert sorted((row.kind, row.amount_minor) for row in one.rows) == sorted(expected.get(one.month, []))
        balances = itertools.accumulate((row.amount_minor for row in one.rows), initial=one.opening_minor)
        assert [*balances][1:] == [row.balance_minor for row in one.rows]
        assert one.closing_minor == one.opening_minor + sum(one.total_minor(kind) for kind in RowKind)
        assert [row.at_ms for row in one.rows] == sorted(row.at_ms for row in one.rows)


async def _do(
    ledger: Ledger, clock: ManualClock, step: Step, name: str, books: list[RefundBook]
) -> tuple[RowKind, int] | None:
    match step.what:
        case "earn":
            commission = step.amount // 8
            shares = (
                Transfer(WALLET, EARNINGS, step.amount - commission, "consultation_net"),
                Transfer(WALLET, REVENUE_CONSULTATIONS, commission, "consultation_commission"),
            )
            funds = Transfer(gateway_of("simulated"), WALLET, step.amount, "recharge")
            await ledger.post(Movement(WALLET, f"pay:{name}", "recharge", "INR", name, (funds,)))
            await ledger.post(
                Movement(
                    WALLET,
                    f"consult:{name}",
                    "consultation",
                    "INR",
                    name,
                    tuple(share for share in shares if share.amount_minor),
                    facts={"sessionId": name, "gross": step.amount, "commission": commission},
                )
            )
            books.append(RefundBook(name, "u", "l", "INR", step.amount, commission))
            return RowKind.EARNING, step.amount - commission
        case "refund":
            if not books or not (left := books[-1].refundable_minor):
                return None
            order = Order(name, min(left, step.amount), clock.now_ms(), "a", "x")
            books[-1], decision = refund(books[-1], order)
            await ledger.post(movement_of(books[-1], decision))
            return RowKind.REFUND, -decision.net_minor
        case _:
            status = PayoutStatus.PAID if step.what == "pay out" else PayoutStatus.FAILED
            return await _pay_out(ledger, clock, step.amount, name, status)


async def _pay_out(
    ledger: Ledger, clock: ManualClock, amount: int, name: str, status: PayoutStatus
) -> tuple[RowKind, int] | None:
    payout = Payout(name, "l", amount, "INR", clock.now_ms())
    source = hold_id_of(name)
    try:
        await ledger.change(EARNINGS, "INR", partial(reserve, wanted=payout), source=source)
    except EarningsTooLow:
        return None
    at_ms = clock.now_ms()
    verdict = Verdict(status, "a", reference="U", reason="x")
    close = partial(decide, payout=payout, verdict=verdict, at_ms=at_ms, day=ledger.day_of(at_ms))
    await ledger.change(EARNINGS, "INR", close, source=source)
    return (RowKind.PAYOUT, -amount) if status is PayoutStatus.PAID else None


def _months(first: str, last: str) -> list[str]:
    year, month = int(first[:4]), int(first[5:])
    found = []
    while f"{year}-{month:02d}" <= last:
        found.append(f"{year}-{month:02d}")
        year, month = (year + month // 12, month % 12 + 1)
    return found
