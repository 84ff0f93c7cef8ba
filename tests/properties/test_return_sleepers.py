"""Several runners of one refund: a lease that ran out, a healer that came early, a process that slept and wakes when all is over.

Whoever comes later finds what was decided, even if it could be decided otherwise by then.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from billing_engine.errors import BillingError
from billing_engine.payments.model import DisputeStatus, RefundStatus
from billing_engine.payments.refund_errors import RefundExceedsPayment, WalletTooLow
from billing_engine.payments.refund_model import PayerRefund, PayerRefundStatus
from tests.properties.test_return_crashes import (
    answers_get_lost,
    attempt,
    paid,
    refunds_fail,
    refunds_refused,
    refunds_wait,
    spent,
    state,
)
from tests.support.payments import AMOUNT
from tests.support.returns import Desk, a_desk

Step = Callable[[Desk], Awaitable[None]]
WAYS = (paid, spent, refunds_fail, refunds_refused, refunds_wait, answers_get_lost)


async def begun(desk: Desk, amount: int = AMOUNT) -> PayerRefund:
    """The record, as a runner has it in hand that falls asleep right after it was stored."""
    payment = await desk.stored()
    return await desk.refunds._added(payment, amount_minor=amount, reason="Why.", by="a1", id_="f1")


@pytest.mark.parametrize("before", WAYS, ids=lambda step: step.__name__)
async def test_who_wakes_when_all_is_over_changes_nothing(before: Step, tmp_path: Path) -> None:
    async with a_desk(tmp_path / "desk.db") as desk:
        await before(desk)
        asleep = await begun(desk)
        with suppress(WalletTooLow):
            await desk.refund()
        await desk.time_passes()
        # Whatever stood in the way is gone.
        desk.gateway.refuses, desk.gateway.refunds_are = None, RefundStatus.DONE
        await desk.paid("r2")
        calls = len(desk.gateway.sent_back)
        wanted = await state(desk)
        await desk.refunds._advance(asleep)
        assert await state(desk) == wanted
        assert len(desk.gateway.sent_back) == calls
        await desk.is_clean()


async def test_what_found_no_room_is_refused_though_there_is_room_later(tmp_path: Path) -> None:
    async with a_desk(tmp_path / "desk.db") as desk:
        await desk.paid()
        await desk.paid("r2")
        desk.gateway.refunds_are = RefundStatus.PENDING
        asleep = await begun(desk)
        await desk.refund(key="f0")
        with pytest.raises(RefundExceedsPayment):
            await desk.refund()
        became = desk.gateway.refund_becomes("f0", RefundStatus.FAILED)
        await desk.hears(desk.gateway.tells("e1", became))
        assert (await desk.stored()).refundable_minor == AMOUNT
        assert (await desk.refunds._advance(asleep)).status is PayerRefundStatus.REFUSED
        assert await desk.money() == {"wallet": 2 * AMOUNT, "held": 0, "gateway": 2 * AMOUNT, "loss": 0}
        await desk.is_clean()


@pytest.mark.parametrize("before", WAYS, ids=lambda step: step.__name__)
async def test_runners_at_the_same_time_send_once(before: Step, tmp_path: Path) -> None:
    async with a_desk(tmp_path / "desk.db") as desk:
        await before(desk)
        asked = await asyncio.gather(*(desk.refund() for _ in range(6)), return_exceptions=True)
        assert all(isinstance(one, PayerRefund | BillingError) for one in asked), asked
        await desk.time_passes()
        assert len(desk.gateway.sent_back) == (0 if before in (spent, refunds_refused) else 1)
        await desk.is_clean()


async def test_a_refusal_because_another_runner_was_faster_is_none(tmp_path: Path) -> None:
    async with a_desk(tmp_path / "desk.db") as desk:
        await desk.paid()
        desk.gateway.refuses_repeats = True
        asked = await asyncio.gather(*(desk.refund() for _ in range(6)))
        assert {refund.status for refund in asked} == {PayerRefundStatus.DONE}
        assert await desk.money() == {"wallet": 0, "held": 0, "gateway": 0, "loss": 0}
        await desk.is_clean()


async def test_a_lost_dispute_that_found_nothing_leaves_the_wallet_to_the_refund(tmp_path: Path) -> None:
    """Whoever books the refund from the dashboard falls asleep once the payment knows of it, and the dispute is lost meanwhile."""
    async with a_desk(tmp_path / "desk.db") as desk:
        await desk.paid()
        await desk.refund(AMOUNT // 2)
        gateway = desk.gateway
        news = gateway.refund_outside(attempt(desk), AMOUNT // 2)
        await desk.refunds._reserved(await desk.refunds._outside(await desk.stored(), news))
        lost = gateway.dispute(attempt(desk), DisputeStatus.LOST)
        await desk.hears(gateway.tells("d", lost, 1_000), gateway.tells("r", news))
        money = await desk.money()
        assert money == {"wallet": 0, "held": 0, "gateway": -AMOUNT, "loss": AMOUNT}
        await desk.is_clean()


async def test_the_same_news_side_by_side_is_booked_once(tmp_path: Path) -> None:
    async with a_desk(tmp_path / "desk.db") as desk:
        await desk.paid()
        gateway = desk.gateway
        news = gateway.refund_outside(attempt(desk), 20_000)
        dispute = gateway.dispute(attempt(desk))
        events = [
            *(gateway.tells(f"r{n}", news) for n in range(5)),
            *(gateway.tells(f"d{n}", dispute, 1_000) for n in range(5)),
        ]
        await asyncio.gather(*map(desk.hears, events))
        assert await desk.money() == {"wallet": 0, "held": 30_000, "gateway": 30_000, "loss": 0}
        assert desk.world.troubles.count("a payment is disputed") == 1
        await desk.is_clean()
