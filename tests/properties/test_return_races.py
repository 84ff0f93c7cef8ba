"""Refunds to the payer against everything else that wants the same wallet's money, all at once.

Whatever wins: no wallet is negative, no paisa goes back twice, and never more goes back of a payment than was paid of it.
"""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from billing_engine.consultations.errors import InsufficientBalance, LawyerBusy, UserBusy
from billing_engine.errors import BillingError, NotEnough
from billing_engine.ledger.accounts import gateway_of, wallet_of
from billing_engine.payments.model import DisputeStatus, Payment, RefundStatus
from billing_engine.payments.refund_errors import RefundExceedsPayment
from billing_engine.payments.refund_model import PayerRefundStatus
from tests.support.payments import AMOUNT
from tests.support.returns import Desk, a_desk

pytestmark = pytest.mark.slow

PAYMENTS = 20
REFUNDS = 1_000
SPENDS = 300
STARTS = 50
SPARE = 1_000_000


async def a_refund(desk: Desk, number: int, chance: random.Random) -> str:
    try:
        payment_id = f"r{chance.randrange(PAYMENTS)}"
        refund = await desk.refund(chance.randrange(1, AMOUNT // 4), key=f"f{number}", payment_id=payment_id)
    except (RefundExceedsPayment, NotEnough) as refused:
        return refused.code
    return refund.status.value


async def a_spend(desk: Desk, number: int, chance: random.Random) -> str:
    try:
        await desk.spend(chance.randrange(1, 5_000), key=f"spent-{number}")
    except NotEnough as refused:
        return refused.code
    return "SPENT"


async def a_session(desk: Desk, number: int, _chance: random.Random) -> str:
    consultations = desk.world.consultations
    try:
        view = await consultations.start(user_id="u1", lawyer_id="l1", operation_id=f"s{number}")
    except (UserBusy, LawyerBusy, InsufficientBalance) as refused:
        return refused.code
    await asyncio.sleep(0)
    await consultations.end(view.session.id, caller_id="u1")
    return "SERVED"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("outcome", [RefundStatus.DONE, RefundStatus.PENDING], ids=["at once", "later"])
async def test_a_thousand_refunds_race_with_everything(
    seed: int, outcome: RefundStatus, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    async with a_desk(tmp_path / "desk.db") as desk:
        desk.gateway.refunds_are = outcome
        payments = [await desk.paid(f"r{number}") for number in range(PAYMENTS)]
        acts = [
            *(a_refund(desk, number, chance) for number in range(REFUNDS)),
            *(a_spend(desk, number, chance) for number in range(SPENDS)),
            *(a_session(desk, number, chance) for number in range(STARTS)),
        ]
        chance.shuffle(acts)
        low: list[int] = []

        async def watch() -> None:
            while True:
                account = await desk.world.ledger.account(wallet_of("u1"), "INR")
                low.append(account.spendable)
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        said = Counter(await asyncio.gather(*acts))
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        assert min(low) >= 0
        assert said[outcome.value] > 10, said
        assert said["SPENT"] > 10, said
        if outcome is RefundStatus.PENDING:
            await the_banks_decide(desk, chance)
        await nothing_is_lost_or_doubled(desk, payments)


async def the_banks_decide(desk: Desk, chance: random.Random) -> None:
    """Half of the refunds arrive, half come back; of some we hear, of others we ask."""
    for reference in list(desk.gateway.sent_back):
        became = desk.gateway.refund_becomes(
            reference, chance.choice((RefundStatus.DONE, RefundStatus.FAILED))
        )
        if chance.random() < 0.5:
            await desk.hears(desk.gateway.tells(f"e-{reference}", became))
    await desk.time_passes()


async def nothing_is_lost_or_doubled(desk: Desk, payments: list[Payment]) -> None:
    await desk.world.idle()
    gone = 0
    for payment in payments:
        stored = await desk.stored(payment.id)
        rows = await desk.refunds.of_payment(payment.id)
        assert {row.status for row in rows} <= {
            PayerRefundStatus.DONE,
            PayerRefundStatus.FAILED,
            PayerRefundStatus.REFUSED,
        }
        done = [row for row in rows if row.status is PayerRefundStatus.DONE]
        sent = {
            refund.reference: refund.amount_minor
            for refund in desk.gateway.sent_back.values()
            if refund.payment_id == payment.collected_id and refund.status is RefundStatus.DONE
        }
        assert {row.id: row.amount_minor for row in done} == sent
        assert stored.refunded_minor == sum(sent.values()) <= AMOUNT
        gone += sum(sent.values())
    assert gone > 0
    assert await desk.world.ledger.balance(gateway_of("razorpay"), "INR") == gone - AMOUNT * len(payments)
    await desk.is_clean()


@pytest.mark.parametrize("seed", range(3))
async def test_refunds_race_with_disputes_and_the_dashboard(seed: int, tmp_path: Path) -> None:
    """One payment each, wanted back by everybody at once: of its money the wallet gives what was paid, once."""
    chance = random.Random(seed)
    async with a_desk(tmp_path / "desk.db") as desk:
        payments = [await desk.paid(f"r{number}") for number in range(PAYMENTS)]
        await desk.paid("for the spending", amount=SPARE)
        acts = []
        for number, payment in enumerate(payments):
            attempt = payment.collected_id or ""
            outside = desk.gateway.refund_outside(attempt, AMOUNT // 2)
            opened = desk.gateway.dispute(attempt, id_=f"d{number}")
            final = chance.choice((DisputeStatus.WON, DisputeStatus.LOST))
            decided = desk.gateway.dispute(attempt, final, id_=f"d{number}")
            acts += [
                desk.hears(desk.gateway.tells(f"o{number}", outside)),
                desk.hears(desk.gateway.tells(f"p{number}", opened, 1_000)),
                desk.hears(desk.gateway.tells(f"q{number}", decided, 2_000)),
                quietly(desk, f"f{number}", payment.id),
                a_spend(desk, number, chance),
            ]
        chance.shuffle(acts)
        await asyncio.gather(*acts)
        await desk.time_passes()
        await desk.is_clean()
        loss = spent = 0
        for number, payment in enumerate(payments):
            (dispute,) = await desk.disputes.of_payment(payment.id)
            rows = await desk.refunds.of_payment(payment.id)
            back = sum(row.amount_minor for row in rows if row.status is PayerRefundStatus.DONE)
            lost = dispute.amount_minor if dispute.status is DisputeStatus.LOST else 0
            assert back <= AMOUNT
            loss += max(0, back + lost - AMOUNT)
            entry = await desk.world.ledger.entry(wallet_of("u1"), f"spent-{number}")
            spent += entry.posted_before - entry.posted_after if entry is not None else 0
        money = await desk.money()
        # The wallet is never short here, so the platform pays what went back twice, and nothing else.
        assert (money["held"], money["loss"]) == (0, loss)
        assert money["wallet"] + spent == money["gateway"] + loss


async def quietly(desk: Desk, key: str, payment_id: str) -> None:
    with suppress(BillingError):
        await desk.refund(AMOUNT // 2, key=key, payment_id=payment_id)
