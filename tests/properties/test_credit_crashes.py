"""Death, and failure, at every await of applying, withdrawing, closing, buying and adjusting. The list is generated from the calls of an
undisturbed run.

Whatever the moment, healing alone leaves the step done whole or not at all: never a credit without its application, nor an application
without its credit, nor credits without their money. Asking again with the same operation finds what the first try did.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from billing_engine.credits.errors import AlreadyApplied, InsufficientCredits, ProjectClosed
from billing_engine.errors import BillingError
from billing_engine.verification import Verdict
from tests.support.credit_paths import CreditStage, Snapshot, a_credit_stage
from tests.support.desk_paths import cut_off, trouble_at_every_await
from tests.support.scripted_gateway import ScriptedGateway

Step = Callable[[CreditStage], Awaitable[Any]]


@dataclass(frozen=True)
class CreditPath:
    """What comes before, what is disturbed, and the calls that it must at least have made. `again` is what a client repeats; `refused`
    is what it hears then. A path whose failures are swallowed and tried again later only dies.
    """

    name: str
    before: Step
    act: Step
    touches: frozenset[str]
    again: Step
    refused: type[BillingError] | None = None
    fails: bool = True
    #: Paid at a gateway that outlives the processes; else at the simulated one.
    at_gateway: bool = False

    def opened(self, path: Path, *, atomic: bool) -> Any:
        return a_credit_stage(path, atomic=atomic, gateway=ScriptedGateway() if self.at_gateway else None)

    def __str__(self) -> str:
        return self.name


async def nothing(stage: CreditStage) -> None:
    await stage.boot()


async def with_credits(stage: CreditStage) -> None:
    """Five credits and an open project."""
    await stage.boot()
    await stage.buy()
    await stage.post()


async def applied(stage: CreditStage) -> None:
    await with_credits(stage)
    await stage.apply()


async def withdrawn(stage: CreditStage) -> None:
    await applied(stage)
    await stage.withdraw()


async def half_applied(stage: CreditStage) -> None:
    """A record that waits, and no credit was taken."""
    await with_credits(stage)
    await cut_off(stage, CreditStage.apply, "ledger.commit_all" if stage.atomic else "ledger.commit")


async def taken_and_not_written(stage: CreditStage) -> None:
    """The credit is taken, and the record does not know it."""
    await with_credits(stage)
    await cut_off(stage, CreditStage.apply, "applications.settle")


async def half_withdrawn(stage: CreditStage) -> None:
    await applied(stage)
    await cut_off(stage, CreditStage.withdraw, "applications.settle")


async def wants_to_withdraw(stage: CreditStage) -> None:
    await applied(stage)
    await cut_off(stage, CreditStage.withdraw, "ledger.commit_all" if stage.atomic else "ledger.commit")


async def half_closed(stage: CreditStage) -> None:
    await half_applied(stage)
    await cut_off(stage, CreditStage.close, "projects.closed")


async def half_bought(stage: CreditStage) -> None:
    """Its money is booked, its credits are not."""
    await stage.boot()
    await cut_off(stage, CreditStage.buy, "news.credits_purchased")


async def paid_and_not_told(stage: CreditStage) -> None:
    """The gateway has the money, and nobody has told us."""
    await stage.boot()
    order = (await stage.buy()).payment.order_id
    stage.gateway.pay(order)


async def apply_again(stage: CreditStage) -> None:
    await stage.apply("a2")


async def carrying_on(stage: CreditStage) -> None:
    """Another request of the same person finds what is half done, and ends it."""
    with pytest.raises(AlreadyApplied):
        await stage.apply("a2")


async def applying_as_it_closes(stage: CreditStage) -> None:
    """The company closes between the record and the credit."""
    stage.rows.then = stage.close
    with pytest.raises(ProjectClosed):
        await stage.apply()


async def applying_as_the_credits_go(stage: CreditStage) -> None:
    """An admin takes them all between the look at the balance and the credit."""

    async def take() -> None:
        await stage.adjust(-5)

    stage.rows.then = take
    with pytest.raises(InsufficientCredits):
        await stage.apply()


async def add(stage: CreditStage) -> None:
    await stage.adjust(10)


async def take(stage: CreditStage) -> None:
    await stage.adjust(-5)


async def closing_and_taking(stage: CreditStage) -> None:
    await stage.close()
    await stage.apply()


async def taking_and_applying(stage: CreditStage) -> None:
    await stage.adjust(-5)
    await stage.apply()


async def asking_the_gateway(stage: CreditStage) -> None:
    stage.clock.jump_ms(60_000)
    await stage.world.payments.ask_about_due()


APPLYING = frozenset({"applications.latest", "applications.add", "applications.settle", "projects.get"})
RETURNING = frozenset({"applications.get", "applications.begin_return", "applications.settle"})
CLOSING = frozenset({"projects.close", "applications.pending_of", "projects.closed"})
HEALING = frozenset({"applications.open", "applications.settle"})
BUYING = frozenset({"payments.add", "payments.replace", "prices.latest", "news.credits_purchased"})
PATHS = (
    CreditPath("apply", with_credits, CreditStage.apply, APPLYING, CreditStage.apply),
    CreditPath("apply after a withdrawal", withdrawn, apply_again, APPLYING, apply_again),
    CreditPath("apply where one is half done", half_applied, carrying_on, HEALING - {"applications.open"}, CreditStage.apply),
    CreditPath(
        "apply as it closes", with_credits, applying_as_it_closes, APPLYING | CLOSING, closing_and_taking, ProjectClosed
    ),
    CreditPath(
        "apply as the credits go", with_credits, applying_as_the_credits_go, APPLYING, taking_and_applying, InsufficientCredits
    ),
    CreditPath("withdraw", applied, CreditStage.withdraw, RETURNING, CreditStage.withdraw),
    CreditPath("withdraw what is half applied", taken_and_not_written, CreditStage.withdraw, RETURNING, CreditStage.withdraw),
    CreditPath("close", applied, CreditStage.close, CLOSING, CreditStage.close),
    CreditPath("close where one is half done", half_applied, CreditStage.close, CLOSING, CreditStage.close),
    CreditPath("buy", nothing, CreditStage.buy, BUYING, CreditStage.buy),
    CreditPath("asking about a purchase", half_bought, asking_the_gateway, frozenset({"payments.due", "payments.replace"}),
               CreditStage.buy, fails=False),
    CreditPath("verify", paid_and_not_told, CreditStage.verify, frozenset({"gateway.attempt", "news.credits_purchased"}),
               CreditStage.verify, at_gateway=True, fails=False),
    CreditPath("webhook", paid_and_not_told, CreditStage.hear, frozenset({"inbox.add", "inbox.settle", "news.credits_purchased"}),
               CreditStage.verify, at_gateway=True, fails=False),
    CreditPath("order", nothing, CreditStage.buy, frozenset({"payments.add", "gateway.create_order"}), CreditStage.buy,
               at_gateway=True),
    CreditPath("add", with_credits, add, frozenset(), add),
    CreditPath("take", with_credits, take, frozenset(), take),
    CreditPath("healing an application", taken_and_not_written, CreditStage.heal_credits, HEALING, CreditStage.apply),
    CreditPath("healing half an application", half_applied, CreditStage.heal_credits, HEALING, CreditStage.apply),
    CreditPath("healing a withdrawal", half_withdrawn, CreditStage.heal_credits, HEALING, CreditStage.withdraw),
    CreditPath("healing a wish to withdraw", wants_to_withdraw, CreditStage.heal_credits, frozenset({"applications.open"}),
               CreditStage.withdraw),
    CreditPath("healing a close", half_closed, CreditStage.heal_credits, frozenset({"projects.closing", "projects.closed"}),
               CreditStage.close),
)  # fmt: skip


async def ends_of(path: CreditPath, directory: Path, *, atomic: bool) -> tuple[Snapshot, Snapshot]:
    """What the world shows before the path and after it is repeated, by runs that nobody disturbs."""
    async with path.opened(directory / "ends.db", atomic=atomic) as stage:
        await path.before(stage)
        await stage.heal()
        first = await stage.snapshot()
        await stage.world.stop()
    async with path.opened(directory / "ends-2.db", atomic=atomic) as stage:
        await path.before(stage)
        await path.act(stage)
        await stage.heal()
        await repeated(stage, path)
        last = await stage.snapshot()
        await stage.world.stop()
    return first, last


async def repeated(stage: CreditStage, path: CreditPath) -> None:
    if path.refused is None:
        await path.again(stage)
    else:
        with pytest.raises(path.refused):
            await path.again(stage)


@pytest.mark.parametrize(
    "atomic",
    [pytest.param(True, id="atomic", marks=pytest.mark.exhaustive), pytest.param(False, id="stepwise")],
)
@pytest.mark.parametrize(
    ("path", "dies"),
    [
        pytest.param(path, dies, id=f"{'death' if dies else 'failure'}-{path}")
        for dies in (True, False)
        for path in PATHS
        if dies or path.fails
    ],
)
async def test_trouble_at_every_await(path: CreditPath, atomic: bool, dies: bool, tmp_path: Path) -> None:
    first, last = await ends_of(path, tmp_path, atomic=atomic)

    async def promises(stage: CreditStage, path: CreditPath) -> None:
        """After healing and before anybody asks again."""
        found = await stage.audit()
        assert found.verdict is Verdict.CLEAN, (found.broken, found.unfinished)
        await stage.credit_is_its_application()
        there = await stage.snapshot()
        # Nobody has repeated anything: it is done whole or not at all, step by step of what the path is made of.
        assert there.balance.balance in {first.balance.balance, last.balance.balance}, there
        assert there.mine in (first.mine, last.mine), there
        assert there.sold_minor == there.balance.purchased * 5_000
        assert there.letters == (there.balance.purchased > 0)
        await repeated(stage, path)
        assert await stage.snapshot() == last
        await stage.credit_is_its_application()
        assert await stage.heal() == 0
        assert await stage.snapshot() == last
        assert (await stage.audit()).verdict is Verdict.CLEAN

    await trouble_at_every_await(tmp_path, path, promises, atomic=atomic, dies=dies, opened=path.opened)
