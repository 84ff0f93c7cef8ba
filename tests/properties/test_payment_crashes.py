"""Death at every await between a wish to be paid and its credit, before and after each call to a port, the gateway's included.

Then a new process starts, nobody repeats anything (the callback and the webhook are lost for good), and time passes: what was paid is
credited, once.
"""

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from billing_engine.errors import BillingError
from billing_engine.payments.model import AttemptStatus, PaymentStatus
from server.storage.errors import StoreUnavailable
from tests.support.faults import Died, Fuse, Moment
from tests.support.payments import AMOUNT, Till, a_till

Act = Callable[[Till], Awaitable[None]]


@dataclass(frozen=True)
class Passage:
    """What is disturbed. `paid`: how the payer's try stands at the gateway before it, if he has tried."""

    name: str
    act: Act
    paid: AttemptStatus | None
    #: Calls that it must at least have made: a way that no longer reaches a port would make its deaths vanish without a word.
    touches: frozenset[str]

    def __str__(self) -> str:
        return self.name


async def ordering(till: Till) -> None:
    await till.order()


async def verifying(till: Till) -> None:
    payment = await till.stored()
    (paid,) = till.gateway.tries.values()
    await till.verify(payment, paid.id)


async def hearing(till: Till) -> None:
    (paid,) = till.gateway.tries.values()
    await till.hear("e1", paid)


async def asking(till: Till) -> None:
    till.clock.jump_ms(15 * 60_000)
    await till.chores()


CREDIT: Final = frozenset({"payments.replace", "ledger.load"})
PATHS: Final = (
    Passage(
        "an order", ordering, None, frozenset({"payments.add", "gateway.create_order", "payments.replace"})
    ),
    Passage(
        "a callback", verifying, AttemptStatus.COLLECTED, CREDIT | {"gateway.attempt", "payments.of_order"}
    ),
    Passage(
        "a callback before the capture", verifying, AttemptStatus.AUTHORIZED, CREDIT | {"gateway.capture"}
    ),
    Passage("a webhook", hearing, AttemptStatus.COLLECTED, CREDIT | {"inbox.add", "inbox.settle"}),
    Passage("a webhook before the capture", hearing, AttemptStatus.AUTHORIZED, CREDIT | {"gateway.capture"}),
    Passage(
        "our own question", asking, AttemptStatus.COLLECTED, CREDIT | {"gateway.attempts", "payments.due"}
    ),
    Passage(
        "our own question before the capture", asking, AttemptStatus.AUTHORIZED, CREDIT | {"gateway.capture"}
    ),
)


async def before(till: Till, path: Passage) -> None:
    if path.paid is not None:
        payment = await till.order()
        assert payment.order_id is not None
        till.gateway.pay(payment.order_id, status=path.paid)


@asynccontextmanager
async def disturbed(file: Path, path: Passage, fuse: Fuse, *, atomic: bool):
    """The act done, or cut short where the fuse burns."""
    fuse.counting = False
    async with a_till(file, atomic=atomic) as till:
        till.fuse = fuse
        await till.world.stop()
        await till.boot()
        await before(till, path)
        fuse.counting = True
        try:
            await path.act(till)
        except (Died, BillingError):
            # The committer tells its callers that nobody knows; who died does not hear it.
            assert fuse.burnt or fuse.error is not None
        fuse.counting = False
        yield till


@pytest.mark.parametrize(
    "atomic",
    [pytest.param(True, id="atomic", marks=pytest.mark.exhaustive), pytest.param(False, id="stepwise")],
)
@pytest.mark.parametrize("path", PATHS, ids=str)
async def test_death_at_every_await_loses_no_payment_and_credits_none_twice(
    path: Passage, atomic: bool, tmp_path: Path
) -> None:
    async with disturbed(tmp_path / "whole.db", path, Fuse(), atomic=atomic) as till:
        calls = list(till.fuse.calls)
    assert set(calls) >= path.touches, sorted(path.touches - set(calls))
    for at, label in enumerate(calls):
        for moment in Moment:
            async with disturbed(
                tmp_path / f"{at}{moment}.db", path, Fuse(at, moment), atomic=atomic
            ) as till:
                assert till.fuse.burnt, label
                await till.die()
                till.clock.jump_ms(3_000)
                await till.reborn()
                await ends_well(till, path, f"died {moment} call {at}, {label}")


@pytest.mark.parametrize("path", PATHS, ids=str)
async def test_a_failure_at_every_await_heals_by_itself(path: Passage, tmp_path: Path) -> None:
    """A call fails, or only its answer is lost, and the process lives on."""
    async with disturbed(tmp_path / "whole.db", path, Fuse(), atomic=True) as till:
        calls = list(till.fuse.calls)
    for at, label in enumerate(calls):
        for moment in Moment:
            fuse = Fuse(at, moment, error=StoreUnavailable)
            async with disturbed(tmp_path / f"{at}{moment}.db", path, fuse, atomic=True) as till:
                await ends_well(till, path, f"failed {moment} call {at}, {label}")


async def ends_well(till: Till, path: Passage, what: str) -> None:
    try:
        if path.paid is None:
            # The payer's client repeats its request and finds the order that there is; then he pays it.
            payment = await till.order()
            assert list(till.gateway.orders) == [payment.order_id]
            till.gateway.pay(payment.order_id or "")
        await till.settle()
        await till.check_paid_once()
        assert till.world.troubles == []
    except (AssertionError, BillingError) as exc:
        exc.add_note(what)
        raise


async def test_an_order_that_nobody_repeats_expires(tmp_path: Path) -> None:
    """The process died before it could say which order it made: nobody can pay that."""
    async with a_till(tmp_path / "till.db") as till:
        till.fuse.die_at("gateway.create_order", Moment.AFTER)
        with pytest.raises(Died):
            await till.order()
        await till.die()
        await till.reborn()
        assert (await till.stored()).status is PaymentStatus.CREATED
        await till.settle()
        assert (await till.stored()).status is PaymentStatus.EXPIRED
        # Its client comes back after all: the same order, and it can be paid.
        payment = await till.order()
        till.gateway.pay(payment.order_id or "")
        assert payment.order_id is not None
        await till.hear("e1", next(iter(till.gateway.tries.values())))
        await till.check_paid_once()


async def test_a_gateway_that_is_down_or_loses_answers_leaves_the_payment_in_doubt_and_not_refused(
    tmp_path: Path,
) -> None:
    async with a_till(tmp_path / "till.db") as till:
        till.gateway.lost_answers = 1
        with pytest.raises(BillingError) as lost:
            await till.order()
        assert lost.value.code == "GATEWAY_UNAVAILABLE"
        payment = await till.order()
        assert list(till.gateway.orders) == [payment.order_id]
        paid = till.gateway.pay(payment.order_id or "", status=AttemptStatus.AUTHORIZED)
        till.gateway.is_down = True
        assert (await till.verify(payment, paid.id)).status is PaymentStatus.PENDING
        for _ in range(5):
            till.clock.jump_ms(60_000)
            await till.chores()
        assert (await till.stored()).status is PaymentStatus.PENDING
        assert await till.wallet() == 0
        till.gateway.is_down, till.gateway.lost_answers = False, 1
        # The capture is done and its answer lost: the next question finds it.
        await till.settle()
        await till.check_paid_once()


async def test_what_the_gateway_says_within_seconds_is_known_within_seconds(tmp_path: Path) -> None:
    """A callback while the gateway is down: asked for again after 2, 4, 8, 16 s, and not after a quarter of an hour."""
    async with a_till(tmp_path / "till.db") as till:
        payment = await till.order()
        paid = till.gateway.pay(payment.order_id or "")
        till.gateway.is_down = True
        await till.verify(payment, paid.id)
        asked_at = []
        for second in range(70):
            before_it = (await till.stored()).checks
            await till.chores()
            if (await till.stored()).checks > before_it:
                asked_at.append(second)
            till.clock.jump_ms(1_000)
        assert asked_at == [2, 6, 14, 30, 62]
        till.gateway.is_down = False
        till.clock.jump_ms(60_000)
        await till.chores()
        await till.check_paid_once()


async def test_a_lost_webhook_is_healed_after_a_quarter_of_an_hour(tmp_path: Path) -> None:
    """Razorpay's own advice: reconcile any order that is not final after 15 minutes."""
    async with a_till(tmp_path / "till.db") as till:
        payment = await till.order()
        till.gateway.pay(payment.order_id or "")
        till.clock.jump_ms(15 * 60_000 - 1)
        await till.chores()
        assert await till.wallet() == 0
        till.clock.jump_ms(1)
        await till.chores()
        assert await till.wallet() == AMOUNT
        await till.check_paid_once()


async def test_an_event_that_a_dead_process_left_is_worked_off_within_seconds(tmp_path: Path) -> None:
    """Its gateway has heard 200 and sends it no more; our own question comes only after a quarter of an hour."""
    async with a_till(tmp_path / "till.db") as till:
        payment = await till.order()
        paid = till.gateway.pay(payment.order_id or "")
        till.fuse.die_at("payments.replace", Moment.BEFORE)
        with pytest.raises(Died):
            await till.hear("e1", paid)
        await till.die()
        await till.reborn()
        till.clock.jump_ms(6_000)
        await till.chores()
        await till.check_paid_once()
