"""Death, and failure, at every await of saving, charging and deleting a means of payment, the gateway's calls included.

Then a new process starts, and time passes. Nothing is charged twice, what was charged is credited, what was agreed to be kept is kept,
and what was deleted is gone at the gateway too; asking again finds what the first try made.
"""

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from billing_engine.errors import BillingError
from billing_engine.payments.methods import IN_FLIGHT_MS
from billing_engine.payments.model import Payment, PaymentStatus
from server.storage.errors import StoreUnavailable
from tests.support.faults import Died, Fuse, Moment
from tests.support.methods import LABEL, CardTill, a_card_till
from tests.support.payments import AMOUNT

Step = Callable[[CardTill], Awaitable[object]]


@dataclass(frozen=True)
class Passage:
    """What comes before, what is disturbed, what must hold after, and the calls that it must at least have made."""

    name: str
    before: Step
    act: Step
    promises: Step
    touches: frozenset[str]

    def __str__(self) -> str:
        return self.name


# -- charging


async def with_a_card(till: CardTill) -> None:
    await till.a_card()


async def with_an_empty_card(till: CardTill) -> None:
    await till.a_card()
    till.cards.declines = "insufficient_funds"


async def with_a_charge_in_doubt(till: CardTill) -> None:
    """The gateway has charged, and its answer was lost."""
    await till.a_card()
    till.cards.lost_answers = 1
    await charging(till)
    till.clock.jump_ms(2_000)


async def with_a_charge_that_never_arrived(till: CardTill) -> None:
    await till.a_card()
    till.gateway.is_down = True
    await charging(till)
    till.gateway.is_down = False
    till.clock.jump_ms(IN_FLIGHT_MS)


async def charging(till: CardTill) -> Payment:
    (card,) = await till.methods.list_for("u1", limit=10, before=None)
    return await till.charge(card.id)


async def charged_once(till: CardTill) -> None:
    payment = await charging(till)
    if payment.status is PaymentStatus.PENDING:
        await till.pass_time(2 * IN_FLIGHT_MS)
        payment = await charging(till)
    await till.check_paid_once_of(payment)
    assert till.cards.charged == ["c1"]
    assert await till.taken() == AMOUNT


async def declined_once(till: CardTill) -> None:
    payment = await charging(till)
    if payment.status is PaymentStatus.PENDING:
        await till.pass_time(2 * IN_FLIGHT_MS)
        payment = await charging(till)
    assert (payment.status, payment.failure) == (PaymentStatus.FAILED, "insufficient_funds")
    assert (till.cards.charged, await till.taken()) == ([], 0)


# -- keeping


async def paid_and_agreed(till: CardTill) -> None:
    payment = await till.saving()
    till.cards.pay(payment.order_id or "")


async def paid_and_unnamed(till: CardTill) -> None:
    """The news names no card; the gateway does when it is asked."""
    await paid_and_agreed(till)
    (attempt,) = till.cards.tries.values()
    till.gateway.tries[attempt.id] = replace(attempt, method=None)
    await till.hear("e0", attempt)
    till.gateway.tries[attempt.id] = attempt


async def hearing(till: CardTill) -> None:
    (attempt,) = till.cards.tries.values()
    await till.hear("e1", attempt)


async def doing_chores(till: CardTill) -> None:
    await till.chores()


async def kept_and_credited(till: CardTill) -> None:
    # The webhook may be lost for good: we ask by ourselves after a quarter of an hour.
    await till.pass_time(40 * 60_000)
    await till.check_paid_once_of(await till.stored())
    assert await till.labels() == [LABEL]


async def setting_up(till: CardTill) -> None:
    wish = await till.methods.setup(
        payer_id="u1",
        email="u@example.com",
        gateway=till.gateway.name,
        currency="INR",
        operation_id="s1",
    )
    till.cards.left[wish.order_id or ""] = till.cards.card("left")


async def nothing(till: CardTill) -> None:
    del till


async def kept_from_the_page(till: CardTill) -> None:
    await setting_up(till)
    await till.pass_time(60_000)
    assert await till.labels() == [LABEL]


# -- deleting


async def deleting(till: CardTill) -> None:
    for card in await till.methods.list_for("u1", limit=10, before=None):
        await till.methods.forget(card.id, payer_id="u1")


async def gone(till: CardTill) -> None:
    await deleting(till)
    await till.pass_time(40 * 60_000)
    assert await till.labels() == []
    assert set(till.cards.forgotten) == {"card_u1"}
    assert await till._dues() == []


CREDIT: Final = frozenset({"payments.replace", "ledger.load"})
KEEP: Final = frozenset({"methods.add", "methods.remember_customer"})
PATHS: Final = (
    Passage(
        "a charge",
        with_a_card,
        charging,
        charged_once,
        CREDIT | {"methods.get", "payments.add", "gateway.charge_saved"},
    ),
    Passage(
        "a decline",
        with_an_empty_card,
        charging,
        declined_once,
        frozenset({"payments.add", "gateway.charge_saved", "payments.replace"}),
    ),
    Passage(
        "a charge looked up",
        with_a_charge_in_doubt,
        doing_chores,
        charged_once,
        CREDIT | {"gateway.find_charge"},
    ),
    Passage(
        "a charge asked for again",
        with_a_charge_that_never_arrived,
        doing_chores,
        charged_once,
        CREDIT | {"gateway.find_charge", "gateway.charge_saved"},
    ),
    Passage("a card kept with a payment", paid_and_agreed, hearing, kept_and_credited, CREDIT | KEEP),
    Passage(
        "a card asked for",
        paid_and_unnamed,
        doing_chores,
        kept_and_credited,
        KEEP | {"gateway.attempt", "methods.replace_wish"},
    ),
    Passage(
        "a page",
        nothing,
        setting_up,
        kept_from_the_page,
        frozenset({"methods.add_wish", "gateway.setup_order", "methods.replace_wish"}),
    ),
    Passage(
        "a deletion",
        with_a_card,
        deleting,
        gone,
        frozenset({"methods.mark_gone", "gateway.forget_method", "methods.tell_at"}),
    ),
)


@asynccontextmanager
async def disturbed(file: Path, path: Passage, fuse: Fuse, *, atomic: bool):
    """The act done, or cut short where the fuse burns."""
    fuse.counting = False
    async with a_card_till(file, atomic=atomic) as till:
        till.fuse = fuse
        await till.world.stop()
        await till.boot()
        await path.before(till)
        fuse.counting = True
        try:
            await path.act(till)
        except (Died, BillingError):
            assert fuse.burnt or fuse.error is not None
        fuse.counting = False
        yield till


async def calls_of(path: Passage, file: Path, *, atomic: bool) -> list[str]:
    async with disturbed(file, path, Fuse(), atomic=atomic) as till:
        calls = list(till.fuse.calls)
        await path.promises(till)
    assert set(calls) >= path.touches, sorted(path.touches - set(calls))
    return calls


@pytest.mark.parametrize(
    "atomic",
    [pytest.param(True, id="atomic", marks=pytest.mark.exhaustive), pytest.param(False, id="stepwise")],
)
@pytest.mark.parametrize("path", PATHS, ids=str)
async def test_death_at_every_await(path: Passage, atomic: bool, tmp_path: Path) -> None:
    calls = await calls_of(path, tmp_path / "whole.db", atomic=atomic)
    for at, label in enumerate(calls):
        for moment in Moment:
            file = tmp_path / f"{at}{moment}.db"
            async with disturbed(file, path, Fuse(at, moment), atomic=atomic) as till:
                if not till.fuse.burnt:
                    # A refusal is raised before the fuse can burn behind it; to die there is to die before the next call.
                    assert (label, path.name, moment) == ("gateway.charge_saved", "a decline", Moment.AFTER)
                    continue
                await till.die()
                till.clock.jump_ms(3_000)
                await till.reborn()
                await told_of(path, till, f"died {moment} call {at}, {label}")


@pytest.mark.parametrize("path", PATHS, ids=str)
async def test_a_failure_at_every_await(path: Passage, tmp_path: Path) -> None:
    """The store fails, with or without effect, and the process lives on."""
    calls = await calls_of(path, tmp_path / "whole.db", atomic=True)
    for at, label in enumerate(calls):
        for moment in Moment:
            fuse = Fuse(at, moment, error=lambda: StoreUnavailable(reason="test"))
            async with disturbed(tmp_path / f"{at}{moment}.db", path, fuse, atomic=True) as till:
                await told_of(path, till, f"failed {moment} call {at}, {label}")


async def told_of(path: Passage, till: CardTill, where: str) -> None:
    try:
        await path.promises(till)
    except BaseException as exc:
        exc.add_note(f"{path.name}: {where}")
        raise
