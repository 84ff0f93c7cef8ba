"""Death, and failure, at every await of a refund to the payer and of a dispute. The list is generated from the calls of an undisturbed run.

Whatever the moment: the books are never broken; what was begun is finished without anybody asking again; and whoever does ask again, or
sends an event again, ends where an undisturbed run ends, to the paisa.
"""

import copy
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from billing_engine.errors import BillingError, Unavailable
from billing_engine.payments.model import DisputeStatus, RefundStatus
from billing_engine.payments.refund_errors import RefundExceedsPayment, WalletTooLow
from billing_engine.verification import Verdict
from server.storage.errors import StoreUnavailable
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.faults import Died, Fuse, Moment
from tests.support.manual_clock import ManualClock
from tests.support.payments import AMOUNT
from tests.support.returns import Desk, ReturningGateway, ToldPeople

pytestmark = pytest.mark.slow

Step = Callable[[Desk], Awaitable[None]]


@dataclass(frozen=True)
class Passage:
    """What is there, what is disturbed, and the calls that it must at least have made: a way that no longer reaches a port would make
    its deaths vanish without a word.
    """

    name: str
    before: Step
    act: Step
    touches: frozenset[str]

    def __str__(self) -> str:
        return self.name


# --- what is there


async def paid(desk: Desk) -> None:
    await desk.paid()


async def spent(desk: Desk) -> None:
    """Some of it is gone."""
    await desk.paid()
    await desk.spend(20_000)


async def refunds_fail(desk: Desk) -> None:
    await desk.paid()
    desk.gateway.refunds_are = RefundStatus.FAILED


async def refunds_refused(desk: Desk) -> None:
    await desk.paid()
    desk.gateway.refuses = "NO_MONEY"


async def refunds_wait(desk: Desk) -> None:
    await desk.paid()
    desk.gateway.refunds_are = RefundStatus.PENDING


async def answers_get_lost(desk: Desk) -> None:
    await desk.paid()
    desk.gateway.lost_answers = 1


async def pending(desk: Desk) -> None:
    await refunds_wait(desk)
    await desk.refund()


async def half_refunded(desk: Desk) -> None:
    await desk.paid()
    await desk.refund(20_000, key="f0")


async def sent(desk: Desk) -> None:
    await desk.paid()
    await desk.refund()


async def in_doubt(desk: Desk) -> None:
    """A refund of ours never reached the gateway, and somebody used the dashboard."""
    await desk.paid()
    desk.gateway.is_down = True
    await desk.refund()
    desk.gateway.is_down = False
    desk.gateway.refund_outside(attempt(desk), AMOUNT)


async def disputed(desk: Desk) -> None:
    await spent(desk)
    await opens(desk)


async def was_lost(desk: Desk) -> None:
    await disputed(desk)
    await loses(desk)


async def was_won(desk: Desk) -> None:
    await disputed(desk)
    await wins(desk)


async def unheard(desk: Desk) -> None:
    """It was paid, and nobody has told us."""
    payment = await desk.order()
    desk.gateway.pay(payment.order_id or "")


# --- what is disturbed


def attempt(desk: Desk) -> str:
    return next(iter(desk.gateway.tries))


async def refunding(desk: Desk) -> None:
    with suppress(WalletTooLow, RefundExceedsPayment):
        await desk.refund()


async def refunding_part(desk: Desk) -> None:
    await desk.refund(20_000)


async def chores(desk: Desk) -> None:
    """A refund that waits is looked at."""
    desk.clock.jump_ms(60_000)
    await desk.chores()


async def processed(desk: Desk) -> None:
    await desk.hears(desk.gateway.tells("e1", desk.gateway.refund_becomes("f1", RefundStatus.DONE)))


async def failed(desk: Desk) -> None:
    await desk.hears(desk.gateway.tells("e2", desk.gateway.refund_becomes("f1", RefundStatus.FAILED)))


async def outside(desk: Desk) -> None:
    gateway = desk.gateway
    refund = next((one for one in gateway.sent_back.values() if one.reference is None), None)
    await desk.hears(gateway.tells("e3", refund or gateway.refund_outside(attempt(desk), AMOUNT)))


async def opens(desk: Desk) -> None:
    await desk.hears(desk.gateway.tells("d-open", desk.gateway.dispute(attempt(desk)), 1_000))


async def loses(desk: Desk) -> None:
    await desk.hears(
        desk.gateway.tells("d-lost", desk.gateway.dispute(attempt(desk), DisputeStatus.LOST), 2_000)
    )


async def wins(desk: Desk) -> None:
    await desk.hears(
        desk.gateway.tells("d-won", desk.gateway.dispute(attempt(desk), DisputeStatus.WON), 3_000)
    )


async def loses_late(desk: Desk) -> None:
    await desk.hears(
        desk.gateway.tells("d-late", desk.gateway.dispute(attempt(desk), DisputeStatus.LOST), 4_000)
    )


REFUND: Final = frozenset(
    {"payer_refunds.get", "payer_refunds.add", "payer_refunds.replace", "payments.get", "payments.replace", "ledger.load"}
)  # fmt: skip
SENT: Final = REFUND | {"gateway.refund", "payer_refunds.of_payment", "news.refunded"}
NOT_SENT: Final = REFUND | {"gateway.refund", "disputes.of_payment", "news.refund_failed"}
HEARD: Final = frozenset(
    {"inbox.add", "inbox.settle", "payer_refunds.replace", "payments.replace", "ledger.load"}
)
DISPUTE: Final = frozenset(
    {"inbox.add", "inbox.settle", "disputes.add", "disputes.replace", "payments.replace", "ledger.load"}
)
DECIDED: Final = frozenset({"inbox.settle", "disputes.replace", "news.dispute_decided", "ledger.load"})

PATHS: Final = (
    Passage("refund", paid, refunding, SENT),
    Passage("part of it", paid, refunding_part, SENT),
    Passage("a second refund, of more than is left", half_refunded, refunding, frozenset({"payments.get"})),
    Passage("refund of what is spent", spent, refunding, REFUND),
    Passage("refund that fails at once", refunds_fail, refunding, NOT_SENT),
    Passage("refund that the gateway refuses", refunds_refused, refunding, NOT_SENT | {"gateway.refunds"}),
    Passage("refund that a bank takes its time for", refunds_wait, refunding, REFUND | {"gateway.refund"}),
    Passage("refund whose answer is lost", answers_get_lost, refunding, REFUND | {"gateway.refund"}),
    Passage("a waiting refund is done", pending, processed, HEARD | {"news.refunded"}),
    Passage("a waiting refund fails", pending, failed, HEARD | {"news.refund_failed"}),
    Passage("a waiting refund is looked at", pending, chores, frozenset({"payer_refunds.due", "gateway.refunds"})),
    Passage("what was sent comes back", sent, failed, HEARD | {"news.refund_failed"}),
    Passage("refund at the dashboard", spent, outside, HEARD | {"payer_refunds.add", "news.refunded"}),
    Passage("refund at the dashboard, not heard of before", unheard, outside, HEARD | {"gateway.attempt"}),
    Passage("refund at the dashboard of a disputed payment", disputed, outside, HEARD | {"disputes.of_payment"}),
    Passage("refund at the dashboard while ours is in doubt", in_doubt, outside, HEARD | {"gateway.refund"}),
    Passage("a dispute", spent, opens, DISPUTE),
    Passage("a dispute, not heard of before", unheard, opens, DISPUTE | {"gateway.attempt"}),
    Passage("a dispute is won", disputed, wins, DECIDED | {"payments.replace"}),
    Passage("a dispute is lost", disputed, loses, DECIDED),
    Passage("lost before it opened", spent, loses, DECIDED | {"disputes.add"}),
    Passage("won after it was lost", was_lost, wins, DECIDED | {"payments.replace"}),
    Passage("lost after it was won", was_won, loses_late, DECIDED | {"payments.replace"}),
)  # fmt: skip


@dataclass
class Scene:
    """What is there before the act, to be set up again and again."""

    file: Path
    gateway: ReturningGateway
    clock: ManualClock
    people: ToldPeople

    @classmethod
    async def of(cls, path: Passage, file: Path, *, atomic: bool) -> "Scene":
        async with open_database(file, SqliteOptions(synchronous="OFF")) as db:
            desk = Desk(db, atomic)
            await desk.boot()
            await path.before(desk)
            await desk.world.webhooks.stop()
            await desk.world.stop()
            return cls(file, desk.gateway, desk.clock, desk.people)

    @asynccontextmanager
    async def opened(self, name: str, fuse: Fuse, *, atomic: bool) -> AsyncIterator[Desk]:
        file = self.file.with_name(name)
        shutil.copy(self.file, file)
        clock = ManualClock()
        clock.jump_ms(self.clock.now_ms() - clock.now_ms())
        async with open_database(file, SqliteOptions(synchronous="OFF")) as db:
            desk = Desk(
                db, atomic, copy.deepcopy(self.gateway), clock, fuse, people=copy.deepcopy(self.people)
            )
            await desk.boot()
            try:
                yield desk
            finally:
                await desk.world.webhooks.stop()
                if not desk.world.crashed:
                    await desk.world.stop()
        for left in file.parent.glob(f"{name}*"):
            left.unlink()


async def state(desk: Desk) -> dict[str, Any]:
    """Where it all is, and who was told."""
    payment = await desk.stored()
    refunds = await desk.refunds.of_payment("r1")
    disputes = await desk.disputes.of_payment("r1")
    return {
        **await desk.money(),
        "payment": (payment.status, dict(payment.refunds), dict(payment.disputes)),
        "refunds": sorted((one.id, one.status, one.heard, one.failure) for one in refunds),
        "disputes": [(one.status, one.word_at_ms, one.frozen_minor) for one in disputes],
        "told": sorted(desk.people.letters),
    }


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize(
    ("atomic", "dies"),
    [
        pytest.param(True, True, id="death", marks=pytest.mark.exhaustive),
        pytest.param(True, False, id="failure"),
        pytest.param(False, True, id="stepwise"),
    ],
)
async def test_trouble_at_every_await(path: Passage, atomic: bool, dies: bool, tmp_path: Path) -> None:
    scene = await Scene.of(path, tmp_path / "scene.db", atomic=atomic)
    async with scene.opened("whole.db", Fuse(counting=False), atomic=atomic) as desk:
        desk.fuse.counting = True
        await path.act(desk)
        calls = list(desk.fuse.calls)
        desk.fuse.counting = False
        await desk.time_passes()
        wanted = await state(desk)
        await desk.is_clean()
    assert set(calls) >= path.touches, sorted(path.touches - set(calls))
    for at, label in enumerate(calls):
        for moment in Moment:
            try:
                await one_trouble(
                    scene, path, Fuse(at, moment, counting=False), wanted, atomic=atomic, dies=dies
                )
            except (Exception, Died) as exc:
                exc.add_note(f"{path}: {'died' if dies else 'failed'} {moment} call {at}, {label}")
                raise


async def one_trouble(
    scene: Scene, path: Passage, fuse: Fuse, wanted: dict[str, Any], *, atomic: bool, dies: bool
) -> None:
    async with scene.opened("disturbed.db", fuse, atomic=atomic) as desk:
        if not dies:
            fuse.error = StoreUnavailable
        fuse.counting = True
        # The committer tells its callers that nobody knows; who died does not hear it.
        with suppress(Died, BillingError):
            await path.act(desk)
        fuse.counting = False
        if dies and not fuse.burnt:
            # The gateway's answer was a refusal: to die after that is to die before the next call.
            assert desk.gateway.refuses or desk.gateway.lost_answers == 0
            assert (fuse.calls[fuse.at or 0], fuse.moment) == ("gateway.refund", Moment.AFTER)
            return
        if dies:
            await desk.die()
            await desk.reborn()
        else:
            await desk.world.ledger.recover()
        found = await desk.audit()
        assert found.verdict is not Verdict.BROKEN, found.broken
        await desk.time_passes()
        await desk.is_clean()
        await again(desk, path)
        await desk.time_passes()
        assert await state(desk) == wanted
        await desk.is_clean()


async def again(desk: Desk, path: Passage) -> None:
    """Whoever asked asks again, the gateway sends again."""
    with suppress(Unavailable):
        await path.act(desk)
