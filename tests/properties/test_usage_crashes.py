"""Death, and failure, at every await of recording, charging, recharging, collecting and publishing. The list is generated from the calls
of an undisturbed run: the ledger's, the collections', the gateway's and the news'.

Then a new process starts on the same store, and time passes. Every usage that was stored is charged once, the gateway has charged once per
recharge, no recharge is left open without its payment, and repeating what was asked changes nothing more.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from billing_engine.errors import BillingError
from billing_engine.payments.model import AttemptStatus
from billing_engine.usage.model import UsageStatus
from billing_engine.usage.ports import EventKind
from server.storage.errors import StoreUnavailable
from tests.support.faults import Died, Fuse, Moment
from tests.support.metering import AMOUNT, COMPANY, Metering, a_metering

Step = Callable[[Metering], Awaitable[Any]]


@dataclass(frozen=True)
class Course:
    """What comes before, what is disturbed and then repeated by its caller, the calls that it must at least have made, and what must be
    so in the end, whatever happened.
    """

    name: str
    before: Step
    act: Step
    touches: frozenset[str]
    ends: Step

    def __str__(self) -> str:
        return self.name


# -- what comes before


async def with_money(at: Metering) -> None:
    await at.pay(700, "hand-0")


async def automatic(at: Metering) -> None:
    await at.automatic()


async def declining(at: Metering) -> None:
    await at.automatic()
    at.gateway.declines = "insufficient_funds"


async def losing_answers(at: Metering) -> None:
    """The gateway charges, and its next answer is lost."""
    await at.automatic()
    at.gateway.lost_answers = 1


async def declining_and_losing_answers(at: Metering) -> None:
    await declining(at)
    at.gateway.lost_answers = 1


async def slow(at: Metering) -> None:
    """The bank takes its time over every charge."""
    await at.automatic()
    at.gateway.charges_end = AttemptStatus.PENDING


async def in_doubt(at: Metering) -> None:
    await slow(at)
    await at.use(300, "e0")
    assert (await at.rows())[0].status is UsageStatus.OWED
    at.gateway.charges_end = AttemptStatus.COLLECTED


async def in_doubt_and_then_paid(at: Metering) -> None:
    await in_doubt(at)
    await says(at, AttemptStatus.COLLECTED)


async def in_doubt_and_then_failed(at: Metering) -> None:
    await in_doubt(at)
    await says(at, AttemptStatus.FAILED, "do_not_honor")


async def failed_and_then_paid(at: Metering) -> None:
    """A bank that changes its mind: late authorisation."""
    await in_doubt_and_then_failed(at)
    await at.chores()
    assert (await at.book()).declines == 1
    await says(at, AttemptStatus.COLLECTED)


async def says(at: Metering, status: AttemptStatus, failure: str | None = None) -> None:
    (attempt,) = at.gateway.tries.values()
    at.gateway.becomes(attempt.id, status, failure)
    # Asked soon, whatever has been asked before.
    at.clock.jump_ms(24 * 3_600_000)


async def owing_more_than_one_recharge_pays(at: Metering) -> None:
    """In debt by three, with the largest recharge of one: paying opens the next, and that the next."""
    at.largest = AMOUNT
    await at.stop()
    await at.reborn()
    await slow(at)
    await at.use(AMOUNT, "e0")
    at.gateway.charges_end = AttemptStatus.COLLECTED
    await at.use(AMOUNT, "e1")
    await at.use(AMOUNT // 2, "e2")
    assert (await at.book()).owed_minor == 2 * AMOUNT + AMOUNT // 2
    await says(at, AttemptStatus.COLLECTED)


async def in_debt(at: Metering) -> None:
    await at.use(300, "e0")
    assert (await at.book()).owed_minor == 300


async def drafted(at: Metering) -> None:
    await at.pay(700, "hand-0")
    for number in range(3):
        await at.use(100, f"d{number}", job_id="j", is_draft=True)


async def card_deleted(at: Metering) -> None:
    await at.automatic()
    (card,) = await at.methods.list_for(COMPANY, limit=9, before=None)
    await at.methods.forget(card.id, payer_id=COMPANY)


# -- what is disturbed


async def using(at: Metering) -> None:
    await at.use(300, "e1", job_id="j")


async def using_up(at: Metering) -> None:
    """Three that fit in one recharge."""
    reports = [at.report(cost, f"e{number}") for number, cost in enumerate((300, 400, 200))]
    await at.meter.record_all(COMPANY, reports)


async def asking(at: Metering) -> None:
    at.clock.jump_ms(3_600_000)
    await at.chores()


async def paying(at: Metering) -> None:
    await at.pay(AMOUNT, "hand-1")


async def paying_at_a_page(at: Metering) -> None:
    await at.pay(AMOUNT, "hand-1", card=False)


async def publishing(at: Metering) -> None:
    await at.meter.publish(COMPANY, "j")


async def switching_on(at: Metering) -> None:
    await at.automatic()


# -- what must be so in the end


async def charged(at: Metering) -> None:
    await is_so(at, spent=300, owed=0, recharges=0, taken=1)


async def recharged_once(at: Metering) -> None:
    await is_so(at, spent=900, owed=0, recharges=1, taken=1)
    await told_once(at, EventKind.RECHARGED)


async def declined_once(at: Metering) -> None:
    await is_declined(at, "insufficient_funds")
    await told_once(at, EventKind.OWED)


async def collected_late(at: Metering) -> None:
    await is_so(at, spent=300, owed=0, recharges=1, taken=1)
    assert (await at.account()).spendable == AMOUNT - 300
    await told_once(at, EventKind.RECHARGED)


async def failed_late(at: Metering) -> None:
    # It was taken for a charge when it began.
    await is_so(at, spent=300, owed=300, recharges=1, taken=1)
    book = await at.book()
    assert (book.declines, book.open) == (1, None)
    await told_once(at, EventKind.RECHARGE_FAILED)


async def paid_in_the_end(at: Metering) -> None:
    await is_so(at, spent=300, owed=0, recharges=1, taken=1)
    await told_once(at, EventKind.RECHARGE_FAILED)
    await told_once(at, EventKind.RECHARGED)


async def paid_by_three(at: Metering) -> None:
    await is_so(at, spent=2 * AMOUNT + AMOUNT // 2, owed=0, recharges=3, taken=3)


async def paid_by_hand(at: Metering) -> None:
    await is_so(at, spent=300, owed=0, recharges=0)
    assert (await at.account()).spendable == AMOUNT - 300


async def published(at: Metering) -> None:
    await is_so(at, spent=300, owed=0, recharges=0, taken=1)


async def never_charged(at: Metering) -> None:
    await is_declined(at, "METHOD_DELETED")


async def is_declined(at: Metering, why: str) -> None:
    """Once; or twice, where one of the three was reported again after the pause."""
    book = await at.book()
    await is_so(at, spent=900, owed=900, recharges=book.recharges, taken=0)
    assert book.recharges in (1, 2)
    assert book.declines == book.recharges
    reasons = [event.facts["reason"] for event in at.news.of(EventKind.RECHARGE_FAILED)]
    assert reasons == [why] * book.declines


async def is_so(at: Metering, *, spent: int, owed: int, recharges: int, taken: int | None = None) -> None:
    """`taken` counts the saved cards' charges."""
    book = await at.book()
    assert (book.spent_minor, book.owed_minor, book.recharges) == (spent, owed, recharges), book
    assert taken is None or len(at.gateway.charged) == taken, at.gateway.charged


async def told_once(at: Metering, kind: EventKind) -> None:
    assert len(at.news.of(kind)) == 1, at.news.letters


STORING = frozenset({"usages.insert", "usages.update"})
RECHARGING = STORING | {"payments.insert", "payments.update", "gateway.charge_saved"}
ASKING = frozenset({"payments.find", "payments.update", "gateway.find_charge"})
PATHS = (
    Course("record and charge", with_money, using, STORING | {"company_jobs.insert"}, charged),
    Course("recharge, paid", automatic, using_up, RECHARGING | {"news.tell"}, recharged_once),
    Course("recharge, declined", declining, using_up, RECHARGING | {"news.tell"}, declined_once),
    Course("recharge, its answer lost", losing_answers, using_up, RECHARGING - {"payments.update"}, recharged_once),
    Course("recharge, the no lost", declining_and_losing_answers, using_up, RECHARGING - {"payments.update"}, declined_once),
    Course("in doubt, then paid", in_doubt_and_then_paid, asking, ASKING | {"news.tell"}, collected_late),
    Course("in doubt, then failed", in_doubt_and_then_failed, asking, ASKING | {"news.tell"}, failed_late),
    Course("failed, then paid", failed_and_then_paid, asking, ASKING | {"news.tell"}, paid_in_the_end),
    Course(
        "a credit opens the next", owing_more_than_one_recharge_pays, asking, ASKING | {"gateway.charge_saved"}, paid_by_three
    ),
    Course("by hand, by card", in_debt, paying, frozenset({"payments.insert", "gateway.charge_saved"}), paid_by_hand),
    Course("by hand, at a page", in_debt, paying_at_a_page, frozenset({"payments.insert", "gateway.create_order"}), paid_by_hand),
    Course("publish", drafted, publishing, frozenset({"usages.find", "usages.update"}), published),
    Course("switch on in debt", in_debt, switching_on, frozenset({"payments.insert", "gateway.charge_saved"}), collected_late),
    Course("the card is deleted", card_deleted, using_up, STORING | {"news.tell"}, never_charged),
)  # fmt: skip


#: Whose failures everybody sees; the others' are like them.
FAILING = frozenset({"record and charge", "recharge, paid", "a credit opens the next", "publish"})
CASES = [
    pytest.param(
        path,
        dies,
        atomic,
        id=f"{'death' if dies else 'failure'}-{'atomic' if atomic else 'stepwise'}-{path}",
        marks=pytest.mark.exhaustive if atomic or not (dies or path.name in FAILING) else (),
    )
    for path in PATHS
    for dies in (True, False)
    for atomic in (True, False)
]


@pytest.mark.parametrize(("path", "dies", "atomic"), CASES)
async def test_trouble_at_every_await(path: Course, dies: bool, atomic: bool, tmp_path: Path) -> None:
    calls = await calls_of(path, tmp_path / "whole.db", atomic=atomic)
    for number, label in enumerate(calls):
        for moment in Moment:
            async with a_metering(tmp_path / f"{number}{moment}.db", atomic=atomic) as at:
                try:
                    await one_trouble(at, path, number, moment, dies=dies)
                except Exception as exc:
                    exc.add_note(f"{path}: {'died' if dies else 'failed'} {moment} call {number}, {label}")
                    raise


async def calls_of(path: Course, file: Path, *, atomic: bool) -> list[str]:
    async with a_metering(file, atomic=atomic) as at:
        await at.boot()
        await path.before(at)
        at.fuse.counting = True
        await path.act(at)
        await at.room.stop()
        at.fuse.counting = False
        await promised(at, path)
        await at.stop()
        assert set(at.fuse.calls) >= path.touches, sorted(path.touches - set(at.fuse.calls))
        return list(at.fuse.calls)


async def one_trouble(at: Metering, path: Course, number: int, moment: Moment, *, dies: bool) -> None:
    await at.boot()
    await path.before(at)
    fuse: Fuse = at.fuse
    fuse.at, fuse.moment, fuse.counting = number, moment, True
    if dies:
        await until_dead(at, path.act)
        at.clock.jump_ms(3_000)
        await at.reborn()
        await at.meter.drain(abandoned_after_ms=0)
    else:
        fuse.error = lambda: StoreUnavailable(reason="test")
        with suppress(BillingError):
            await path.act(at)
        await at.room.stop()
        fuse.counting = False
        await at.ledger.recover()
    await at.check()
    await promised(at, path)
    await at.stop()


async def until_dead(at: Metering, act: Step) -> None:
    task = asyncio.ensure_future(act(at))
    burning = asyncio.ensure_future(at.fuse.burning.wait())
    await asyncio.wait({task, burning}, return_when=asyncio.FIRST_COMPLETED)
    if not at.fuse.burnt:
        # What goes on without its caller reaches the moment, too.
        await asyncio.wait({burning}, timeout=5)
    assert at.fuse.burnt
    burning.cancel()
    task.cancel()
    with suppress(asyncio.CancelledError, Died, BillingError):
        await task
    await at.die()


async def promised(at: Metering, path: Course) -> None:
    """Healed without anybody's asking it is sound; and whoever asks again finds what is done, or has it done."""
    await at.settle()
    await at.check()
    await path.act(at)
    await at.settle()
    await at.check_at_rest()
    await path.ends(at)
    before = await at.account()
    taken = list(at.gateway.charged)
    await path.act(at)
    await at.settle()
    after = await at.account()
    assert (after.posted, after.seq, at.gateway.charged) == (before.posted, before.seq, taken)
    await path.ends(at)
