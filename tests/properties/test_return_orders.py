"""One truth under any delivery, when money goes back: every order of the same news, repeated or not, leaves the same money and the same
records. Orders are heard side by side, each about a payer and a payment of its own.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from billing_engine.ledger.accounts import REVENUE_CHARGEBACKS, gateway_of, wallet_of
from billing_engine.payments.model import (
    Attempt,
    AttemptStatus,
    DisputeStatus,
    GatewayDispute,
    GatewayRefund,
    Payment,
    PaymentStatus,
    RefundStatus,
)
from billing_engine.payments.payer_refunds import PayerRefund
from tests.support.payments import AMOUNT
from tests.support.returns import Desk, a_desk

pytestmark = pytest.mark.slow

PART: Final = 20_000
_AT_ONCE: Final = 40


@dataclass
class Case:
    """One payer's payment at the gateway, and what may be heard of it."""

    desk: Desk
    number: int
    payment: Payment
    attempt: Attempt
    other: Attempt
    refund: GatewayRefund | None = None

    async def hears(self, news: Any, at_ms: int = 0) -> None:
        event_id = f"e{self.number}-{type(news).__name__}-{news.id}-{news.status}"
        self.desk.gateway.tells(event_id, news, at_ms)
        await self.desk.hears(event_id)


News = Callable[[Case], tuple[Any, int]]


def captured(case: Case) -> tuple[Attempt, int]:
    return replace(case.attempt, refunded_minor=0), 1


def failed_late(case: Case) -> tuple[Attempt, int]:
    """The first try of the same order."""
    return case.other, 2


def refund(status: RefundStatus) -> News:
    def tell(case: Case) -> tuple[GatewayRefund, int]:
        assert case.refund is not None
        return replace(case.refund, status=status), 3

    return tell


def dispute(status: DisputeStatus, at_ms: int, amount: int | None = None) -> News:
    def tell(case: Case) -> tuple[GatewayDispute, int]:
        news = case.desk.gateway.dispute(case.attempt.id, status, id_=f"d{case.number}", amount=amount)
        return news, at_ms

    return tell


@dataclass(frozen=True)
class Story:
    """What happens at the gateway, what is heard of it, and how it ends."""

    news: Sequence[News]
    wallet: int
    loss: int
    payment: PaymentStatus
    refund: str
    dispute: str
    #: Who began the refund: us, half-way done, or somebody at the dashboard.
    ours: bool = False
    refunded: int = PART
    ends: RefundStatus = RefundStatus.DONE


OPEN, WON, LOST = DisputeStatus.OPEN, DisputeStatus.WON, DisputeStatus.LOST
CREATED, PROCESSED, FAILED = RefundStatus.PENDING, RefundStatus.DONE, RefundStatus.FAILED
PAID: Final = PaymentStatus.PAID
LATE: Final = (captured, failed_late)

STORIES: Final = {
    "sent back at the dashboard, and a dispute lost": Story(
        (*LATE, refund(CREATED), refund(PROCESSED), dispute(OPEN, 1_000), dispute(LOST, 2_000)),
        wallet=0, loss=PART, payment=PAID, refund="DONE", dispute="LOST",
    ),
    "sent back at the dashboard, and a dispute won": Story(
        (*LATE, refund(CREATED), refund(PROCESSED), dispute(OPEN, 1_000), dispute(WON, 2_000)),
        wallet=AMOUNT - PART, loss=0, payment=PAID, refund="DONE", dispute="WON",
    ),
    "all sent back at the dashboard, to answer an inquiry": Story(
        (*LATE, refund(CREATED), refund(PROCESSED), dispute(OPEN, 1_000), dispute(WON, 2_000)),
        wallet=0, loss=0, payment=PaymentStatus.REFUNDED, refund="DONE", dispute="WON", refunded=AMOUNT,
    ),
    "ours is done, and a dispute lost": Story(
        (*LATE, refund(CREATED), refund(PROCESSED), dispute(OPEN, 1_000), dispute(LOST, 2_000)),
        wallet=0, loss=PART, payment=PAID, refund="DONE", dispute="LOST", ours=True,
    ),
    "ours is done, and a dispute of the rest won": Story(
        (*LATE, refund(CREATED), refund(PROCESSED), dispute(OPEN, 1_000, AMOUNT - PART), dispute(WON, 2_000, AMOUNT - PART)),
        wallet=AMOUNT - PART, loss=0, payment=PAID, refund="DONE", dispute="WON", ours=True,
    ),
    "ours comes back": Story(
        (*LATE, refund(CREATED), refund(PROCESSED), refund(FAILED), dispute(OPEN, 1_000)),
        wallet=0, loss=0, payment=PAID, refund="FAILED", dispute="OPEN", ours=True, ends=FAILED,
    ),
    "lost, and the bank thinks better of it": Story(
        (*LATE, dispute(OPEN, 1_000), dispute(LOST, 2_000), dispute(WON, 3_000)),
        wallet=AMOUNT, loss=0, payment=PAID, refund="", dispute="WON", refunded=0,
    ),
    "won, and challenged again": Story(
        (*LATE, dispute(OPEN, 1_000), dispute(WON, 2_000), dispute(LOST, 3_000)),
        wallet=0, loss=0, payment=PAID, refund="", dispute="LOST", refunded=0,
    ),
}  # fmt: skip


def with_repeats(news: Sequence[News]) -> list[tuple[News, ...]]:
    """Every order, and every order in which each one comes twice in a row or all come again at the end."""
    orders = list(itertools.permutations(news))
    return [
        *orders,
        *(tuple(one for one in order for _ in range(2)) for order in orders[::7]),
        *(order + order for order in orders[::7]),
    ]


async def a_case(desk: Desk, number: int, story: Story) -> Case:
    """What is true at the gateway. Of a refund of ours we know as much as that it was asked for."""
    gateway = desk.gateway
    payment = await desk.order(f"r{number}", f"u{number}")
    assert payment.order_id is not None
    other = gateway.pay(payment.order_id, status=AttemptStatus.FAILED)
    attempt = gateway.pay(payment.order_id)
    case = Case(desk, number, payment, attempt, other)
    if story.ours:
        await desk.world.payments.learn(payment, attempt)
        await desk.refund(story.refunded, key=f"f{number}", payment_id=payment.id)
        case.refund = gateway.refund_becomes(f"f{number}", story.ends)
    elif story.refunded:
        case.refund = gateway.refund_outside(attempt.id, story.refunded, story.ends)
    return case


async def check(case: Case, story: Story) -> None:
    desk, number = case.desk, case.number
    account = await desk.world.ledger.account(wallet_of(f"u{number}"), "INR")
    frozen = AMOUNT - story.loss if story.dispute == "OPEN" else 0
    assert (account.spendable, account.held) == (story.wallet, frozen)
    payment = await desk.stored(f"r{number}")
    gone = story.refunded if story.refund == "DONE" else 0
    assert (payment.status, payment.refunded_minor) == (story.payment, gone)
    rows: list[PayerRefund] = await desk.refunds.of_payment(payment.id)
    assert [row.status for row in rows] == ([story.refund] if story.refund else [])
    assert all(row.check_at_ms is None for row in rows)
    assert [row.status for row in await desk.disputes.of_payment(payment.id)] == [story.dispute]


def batches(cases: list[Case]) -> Iterable[list[Case]]:
    return (cases[at : at + _AT_ONCE] for at in range(0, len(cases), _AT_ONCE))


@pytest.mark.parametrize("name", STORIES)
async def test_every_order_of_the_news_ends_the_same(name: str, tmp_path: Path) -> None:
    story = STORIES[name]
    orders = with_repeats(story.news)
    async with a_desk(tmp_path / "desk.db") as desk:
        desk.gateway.refunds_are = RefundStatus.PENDING
        cases = [await a_case(desk, number, story) for number in range(len(orders))]

        async def tell(case: Case) -> None:
            """Each is worked off before the next one comes; the other payers' go on beside it."""
            for news in orders[case.number]:
                await case.hears(*news(case))
            await check(case, story)

        for some in batches(cases):
            await asyncio.gather(*map(tell, some))
        assert await desk.world.ledger.balance(REVENUE_CHARGEBACKS, "INR") == -story.loss * len(cases)
        left = story.wallet + (AMOUNT - story.loss if story.dispute == "OPEN" else 0)
        gateway = await desk.world.ledger.balance(gateway_of("razorpay"), "INR")
        assert gateway == -(left - story.loss) * len(cases)
        await desk.is_clean()
