"""Usages that race, are sent again and again in any order, and meet a store that refuses, loses its answers or is gone for a while.

Whatever happens: who is answered is stored, what is stored is charged once, the sums are the ledger's, and a gateway that is slow or says no
costs nobody more than a debt.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing_engine.errors import Unavailable
from billing_engine.payments.methods import IN_FLIGHT_MS
from billing_engine.payments.model import Attempt, AttemptStatus, PaymentStatus, SavedMethod, Wish
from billing_engine.usage.book import AUTO_RECHARGE, BACK_OFF_MS, RECHARGE
from billing_engine.usage.model import Usage, UsageStatus, is_usage_kind
from billing_engine.usage.ports import EventKind
from billing_engine.usage.service import Recorded, Report
from server.storage.errors import StoreUnavailable
from server.storage.mongo.client import MongoOptions, open_mongo
from server.storage.mongo.collection import MongoCollections
from server.storage.mongo.ledger import MongoLedgerStore
from tests.support.faults import Outage
from tests.support.metering import AMOUNT, COMPANY, Metering, a_metering, cost_of_entry
from tests.support.methods import CardGateway
from tests.support.mongo_server import PATIENT_MS

ENGINES = pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "stepwise"])


def refusing(only: str = "") -> Outage:
    """A store that can be made to refuse; the gateway and the news are others'."""
    ports = ("ledger.", "usages.", "usage_counters.", "usage_counted.", "payments.", "company_jobs.")
    return Outage(
        error=lambda: StoreUnavailable(reason="test"),
        only=lambda label: label.startswith(only or ports),
    )


async def reported(at: Metering, report: Report, company: str = COMPANY) -> Recorded | None:
    """As a back end hears it: a usage, or that it may try again."""
    try:
        return await at.meter.record(company, report)
    except Unavailable:
        return None


# -- outages


@st.composite
def storms(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rounds of reports, and what is wrong meanwhile."""
    faults = st.sampled_from(
        ["", "", "ledger.", "ledger.commit", "usages.", "usages.update", "payments.", "all"]
    )
    rounds = st.fixed_dictionaries(
        {
            "events": st.lists(st.integers(0, 15), min_size=1, max_size=8),
            "fault": faults,
            "lost": st.integers(0, 3),
            "counts": st.integers(0, 2),
            "drains": st.booleans(),
            "declines": st.booleans(),
            "at_once": st.booleans(),
        }
    )
    return draw(st.lists(rounds, min_size=1, max_size=6))


def costs(event: int) -> int:
    return (event * 137) % 900 + 1


def report_of(event: int) -> Report:
    at = Metering(None, None)
    return at.report(costs(event), f"e{event}", job_id=None if event % 3 else f"j{event % 2}")


async def weather(at: Metering, storm: list[dict[str, Any]]) -> set[int]:
    """The rounds of the storm; the events whose senders were answered."""
    heard: set[int] = set()
    for now in storm:
        at.gateway.declines = "insufficient_funds" if now["declines"] else None
        at.fuse.lost_answers = now["lost"] if now["fault"] else 0
        only = "" if now["fault"] == "all" else now["fault"]
        at.fuse.only, at.fuse.failing = refusing(only).only, bool(now["fault"])

        async def send(event: int) -> None:
            if await reported(at, report_of(event)) is not None:
                heard.add(event)

        async def chores(now: dict[str, Any] = now) -> None:
            try:
                for _ in range(now["counts"]):
                    await at.rollups.count(COMPANY)
                if now["drains"]:
                    await at.meter.drain(abandoned_after_ms=0)
            except Unavailable:
                pass

        if now["at_once"]:
            await asyncio.gather(*map(send, now["events"]), chores())
        else:
            for event in now["events"]:
                await send(event)
            await chores()
        at.clock.jump_ms(60_000)
    return heard


async def after_the_storm(at: Metering, heard: set[int]) -> None:
    await at.room.stop()
    at.fuse.over()
    at.fuse.lost_answers, at.gateway.declines = 0, None
    await at.ledger.recover()
    await at.settle()
    await at.check_at_rest()
    rows = {row.event_id: row for row in await at.rows()}
    assert {f"e{event}" for event in heard} <= rows.keys(), "answered and lost"
    # Who was not answered sends it again, and so does who was.
    for event in range(16):
        recorded = await at.meter.record(COMPANY, report_of(event))
        assert recorded.is_repeat == (f"e{event}" in rows)
    await at.settle()
    await at.check_at_rest()
    await at.check_gateway()
    book = await at.book()
    assert book.spent_minor == sum(map(costs, range(16)))
    assert len(await at.rows()) == 16


def stormy(examples: int) -> Any:
    """So many storms, over both engines, by companies that have something or nothing and recharge by themselves or do not."""

    def decorated(test: Any) -> Any:
        given_these = given(
            storm=storms(), atomic=st.booleans(), funds=st.integers(0, 3_000), auto=st.booleans()
        )
        return settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.function_scoped_fixture,
                HealthCheck.data_too_large,
            ],
        )(given_these(test))

    return decorated


async def survive(path: Path, storm: list[dict[str, Any]], *, atomic: bool, funds: int, auto: bool) -> None:
    # Whoever waits for a usage that nobody settles waits for ever.
    async with asyncio.timeout(60), a_metering(path, atomic=atomic, fuse=refusing()) as at:
        await at.boot()
        if funds:
            await at.pay(funds)
        if auto:
            await at.automatic()
        heard = await weather(at, storm)
        await after_the_storm(at, heard)
        await at.stop()


@stormy(50)
def test_what_is_answered_is_kept_and_what_is_kept_is_charged_once(
    storm: Any, atomic: bool, funds: int, auto: bool, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("storm") / "x.db"
    asyncio.run(survive(path, storm, atomic=atomic, funds=funds, auto=auto))


@pytest.mark.exhaustive
@stormy(1_000)
def test_also_in_a_thousand_storms(
    storm: Any, atomic: bool, funds: int, auto: bool, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("storm") / "x.db"
    asyncio.run(survive(path, storm, atomic=atomic, funds=funds, auto=auto))


@ENGINES
async def test_after_an_outage_a_company_is_charged_in_the_order_of_its_reports(
    atomic: bool, tmp_path: Path
) -> None:
    """And those that come while the worker catches up do not overtake."""
    async with a_metering(tmp_path / "x.db", atomic=atomic, fuse=refusing("ledger.commit")) as at:
        await at.boot()
        await at.pay(100_000)
        await at.pay(100_000, company="c2")
        at.fuse.failing = True
        for number in range(30):
            company = "c2" if number % 5 == 4 else COMPANY
            usage = await at.use(number + 1, company=company)
            assert usage.status is UsageStatus.QUEUED
        with pytest.raises(Unavailable):
            await at.meter.drain()
        at.fuse.over()

        async def more() -> None:
            for _ in range(30):
                await at.use(3)

        _, count = await asyncio.gather(more(), at.meter.drain())
        assert count >= 30
        await at.meter.drain()
        assert at.meter._behind == {}
        for company in (COMPANY, "c2"):
            usages = [entry for entry in await at.entries(company) if is_usage_kind(entry.kind)]
            assert [entry.reference for entry in usages] == [row.id for row in await at.rows(company)]
            await at.check_at_rest(company)
        # All is as before: the next one is charged at once.
        assert (await at.use(1)).status is UsageStatus.CHARGED
        await at.stop()


async def test_a_process_that_does_not_drain_catches_up_with_what_it_has_left(tmp_path: Path) -> None:
    """Of several processes the worker drains; a web process that had left something would else leave everything to it for ever."""
    async with a_metering(tmp_path / "x.db", fuse=refusing("ledger.")) as at:
        await at.boot()
        await at.pay(1_000)
        at.fuse.failing = True
        assert (await at.use(100)).status is UsageStatus.QUEUED
        at.fuse.over()
        assert (await at.use(100)).status is UsageStatus.QUEUED
        worker = await at.second()
        assert await worker.meter.drain() == 0, "it leaves young ones to whoever brought them"
        assert await at.meter.catch_up() == 2
        assert (await at.use(100)).status is UsageStatus.CHARGED
        assert await at.meter.catch_up() == 0
        await at.check_at_rest()
        await worker.stop()
        await at.stop()


async def test_a_company_that_waits_for_its_recharge_does_not_hold_up_the_others(tmp_path: Path) -> None:
    gateway = Hanging()
    async with a_metering(tmp_path / "x.db", gateway=gateway, fuse=refusing("ledger.")) as at:
        await at.boot()
        await at.automatic()
        await at.pay(AMOUNT, company="c2", card=False)
        at.fuse.failing = True
        for company in (COMPANY, "c2"):
            await at.use(300, company=company)
        at.fuse.over()
        catching_up = asyncio.create_task(at.meter.drain())
        await gateway.reached.wait()
        async with asyncio.timeout(5):
            while (await at.rows("c2"))[0].status is UsageStatus.QUEUED:
                pass
        assert (await at.rows())[0].status is UsageStatus.QUEUED
        gateway.goes_on.set()
        assert await catching_up == 2
        for company in (COMPANY, "c2"):
            await at.check_at_rest(company)
        await at.stop()


# -- races


class Unwatched:
    """In the place of a fuse: nothing is between the engine and its ports."""

    def wrap(self, name: str, port: Any) -> Any:
        del name
        return port


class OneAtATime(CardGateway):
    """Notes charges that overlap."""

    async def charge_saved(self, wish: Wish, method: SavedMethod) -> Attempt:
        self.under_way = getattr(self, "under_way", 0) + 1
        assert self.under_way == 1, "two recharges at once"
        try:
            # A bank takes its time.
            for _ in range(20):
                await asyncio.sleep(0)
            return await super().charge_saved(wish, method)
        finally:
            self.under_way -= 1


async def race(at: Metering, events: int, *, seed: int, batch: int = 500) -> dict[str, int]:
    """Every event three times, shuffled over batches that are all sent at once; what each costs."""
    luck = random.Random(seed)
    costs = {f"e{number}": luck.randint(1, 400) for number in range(events)}
    sent = list(costs) * 3
    luck.shuffle(sent)
    reports = [at.report(costs[event], event, job_id=f"j{int(event[1:]) % 3}") for event in sent]
    batches = [reports[start : start + batch] for start in range(0, len(reports), batch)]
    # As many as the store takes at once: beyond that it refuses, and who reports comes again.
    turn = asyncio.Semaphore(8)

    async def sent_in_turn(some: list[Report]) -> list[Recorded]:
        async with turn:
            return await at.meter.record_all(COMPANY, some)

    answers = await asyncio.gather(*map(sent_in_turn, batches))
    told = Counter(recorded.usage.event_id for some in answers for recorded in some)
    assert told == dict.fromkeys(costs, 3)
    assert sum(not recorded.is_repeat for some in answers for recorded in some) == events
    await at.room.stop()
    return costs


async def exact(at: Metering, costs: dict[str, int]) -> None:
    """To the smallest unit, and one recharge for each time that the wallet was short."""
    await at.check_at_rest()
    await at.check_gateway()
    account, book, entries = await at.account(), await at.book(), await at.entries()
    assert book.spent_minor == sum(costs.values())
    rows = await at.rows()
    assert {row.event_id: row.cost_minor for row in rows} == costs
    assert len(rows) == len(costs)
    recharges = [entry for entry in entries if entry.kind == AUTO_RECHARGE]
    payments = await at.recharged()
    assert book.recharges == len(recharges) == len(payments) == len(at.gateway.charged) > 0
    paid = sum(payment.amount_minor for payment in payments)
    assert paid == sum(entry.transfers[0].amount_minor for entry in recharges)
    assert account.posted == paid - book.spent_minor + book.owed_minor
    # It was short each time, and never recharged twice in a row.
    largest = max(costs.values())
    assert all(entry.posted_before < largest for entry in recharges)
    kinds = [entry.kind for entry in entries]
    assert (AUTO_RECHARGE, AUTO_RECHARGE) not in set(pairwise(kinds))


@pytest.mark.parametrize(
    ("events", "atomic"),
    [
        pytest.param(10_000, True, id="ten thousand", marks=pytest.mark.slow),
        pytest.param(500, False, id="stepwise"),
        pytest.param(10_000, False, id="ten thousand, stepwise", marks=pytest.mark.exhaustive),
        pytest.param(50_000, True, id="fifty thousand", marks=pytest.mark.exhaustive),
    ],
)
async def test_ten_thousand_usages_race_on_one_wallet(events: int, atomic: bool, tmp_path: Path) -> None:
    async with a_metering(
        tmp_path / "x.db", atomic=atomic, gateway=OneAtATime(), wait_s=300, fuse=Unwatched()
    ) as at:
        await at.boot()
        await at.automatic(25_000)
        costs = await race(at, events, seed=events)
        await exact(at, costs)
        # No debt: everybody waited for the recharge.
        assert (await at.book()).owed_ever_minor == 0
        assert {row.status for row in await at.rows()} == {UsageStatus.CHARGED}
        await at.stop()


@ENGINES
async def test_two_processes_race_on_one_wallet(atomic: bool, tmp_path: Path) -> None:
    """They share nothing but the store: one opens the recharge, and the other may come to carry it out."""
    async with a_metering(tmp_path / "x.db", atomic=atomic) as at:
        await at.boot()
        await at.automatic()
        other = await at.second()
        reports = [at.report(number % 300 + 1, f"e{number}") for number in range(200)]
        senders = [(who, reports[start::4]) for who in (at, other, at) for start in range(4)]
        await asyncio.gather(*(who.meter.record_all(COMPANY, some) for who, some in senders))
        await asyncio.gather(at.room.stop(), other.room.stop())
        await at.settle()
        # What was owed when the last recharge came is paid by the next one.
        await at.check_at_rest()
        await at.check_gateway()
        book = await at.book()
        assert book.spent_minor == sum(number % 300 + 1 for number in range(200))
        assert book.recharges == len(at.gateway.charged) == len(await at.recharged())
        await other.stop()
        await at.stop()


@ENGINES
async def test_of_many_that_publish_a_job_at_once_one_charges_each_draft(
    atomic: bool, tmp_path: Path
) -> None:
    async with a_metering(tmp_path / "x.db", atomic=atomic) as at:
        await at.boot()
        await at.pay(AMOUNT)
        for number in range(12):
            await at.use(10, f"d{number}", job_id="j", is_draft=True)
        other = await at.second()
        answers = await asyncio.gather(
            *(who.meter.publish(COMPANY, "j") for who in (at, other, at, other) for _ in range(2))
        )
        published = [usage for _, usages in answers for usage in usages]
        assert sorted(usage.event_id or "" for usage in published) == sorted(f"d{n}" for n in range(12))
        assert {usage.status for usage in published} == {UsageStatus.CHARGED}
        assert (await at.book()).spent_minor == 120
        await at.check_at_rest()
        await other.stop()
        await at.stop()


@asynccontextmanager
async def over_mongo(options: MongoOptions, **more: Any) -> AsyncIterator[Metering]:
    async with open_mongo(options) as db:

        async def open_store() -> tuple[Any, Any]:
            store = MongoLedgerStore(db)
            await store.prepare()
            return store, MongoCollections(db)

        async def landed() -> None: ...

        yield Metering(open_store, landed, **more)


async def test_on_mongodb_two_processes_race_and_the_store_fails_in_between(mongo_url: str) -> None:
    async with over_mongo(MongoOptions(mongo_url, "pymongo", timeout_ms=PATIENT_MS), fuse=refusing()) as at:
        await at.boot()
        await at.automatic()
        other = await at.second()
        reports = [at.report(number % 300 + 1, f"e{number}", job_id=f"j{number % 2}") for number in range(45)]
        first, second, third = reports[:15], reports[15:30], reports[30:]
        await asyncio.gather(at.meter.record_all(COMPANY, first), other.meter.record_all(COMPANY, first))
        at.fuse.only, at.fuse.failing, at.fuse.lost_answers = refusing("ledger.").only, True, 1
        await asyncio.gather(at.meter.record_all(COMPANY, second), other.meter.record_all(COMPANY, third))
        at.fuse.over()
        await asyncio.gather(*(who.meter.record_all(COMPANY, reports) for who in (at, other)))
        await asyncio.gather(at.room.stop(), other.room.stop())
        await at.settle()
        await at.check_at_rest()
        await at.check_gateway()
        assert (await at.book()).spent_minor == sum(number % 300 + 1 for number in range(45))
        await other.stop()
        await at.stop()


# -- counting


@ENGINES
async def test_counting_at_any_time_by_anybody_counts_everything_once(atomic: bool, tmp_path: Path) -> None:
    """Also over a month's end, by a company whose days move while it is counted, and in two processes."""
    async with a_metering(tmp_path / "x.db", atomic=atomic) as at:
        await at.boot()
        await at.pay(9_000)
        other = await at.second()

        async def count(who: Metering) -> None:
            for _ in range(6):
                await who.rollups.count(COMPANY)
                await asyncio.sleep(0)

        async def use(who: Metering) -> None:
            for number in range(12):
                await who.use(number + 1, f"{id(who)}-{at.clock.now_ms()}-{number}", job_id=f"j{number % 2}")

        async def look(who: Metering) -> None:
            """What is told has everything that was charged before the question, and nothing that was not before the answer."""
            for _ in range(6):
                before = (await who.book()).spent_minor
                told = await who.rollups.spent(
                    COMPANY, first_day="2025-12-01", last_day="2026-12-31", scopes=["", "j0", "j1"]
                )
                after = (await who.book()).spent_minor
                sums = {
                    scope: sum(one.cost_minor for one in spent.by_kind().values())
                    for scope, spent in told.items()
                }
                assert before <= sums[""] == sums["j0"] + sums["j1"] <= after

        for zone in ("UTC", "Pacific/Kiritimati", "Pacific/Niue", "UTC"):
            at.offices.zones[COMPANY] = zone
            await asyncio.gather(use(at), use(other), count(at), count(other), look(at), look(other))
            at.clock.jump_ms(12 * 24 * 3_600_000)
        await at.check_at_rest()
        await other.rollups.count(COMPANY)
        assert await at.rollups.count(COMPANY) == 0
        await at.check_at_rest()
        await other.stop()
        await at.stop()


class CopyingOut:
    """A ledger of which another process is just copying out entries: that of number `late` comes after its successors."""

    def __init__(self, ledger: Any, late: int) -> None:
        self._ledger, self.late = ledger, late

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def entries(self, account_id: str, **which: Any) -> list[Any]:
        found = await self._ledger.entries(account_id, **which)
        return [entry for entry in found if entry.seq != self.late]


async def test_an_entry_that_is_copied_out_after_its_successors_is_counted_too(tmp_path: Path) -> None:
    async with a_metering(tmp_path / "x.db") as at:
        await at.boot()
        await at.pay(AMOUNT)
        await at.use_all([1, 2, 3, 4, 5])
        await at.room.stop()
        at.rollups._ledger = copying = CopyingOut(at.ledger, late=4)
        assert await at.rollups.count(COMPANY) == 3
        copying.late = 0
        assert await at.rollups.count(COMPANY) == 3
        await at.check_at_rest()
        await at.stop()


# -- slow and unwilling gateways


@ENGINES
async def test_usages_wait_for_a_slow_gateway_no_longer_than_that_and_are_collected_when_it_has_answered(
    atomic: bool, tmp_path: Path
) -> None:
    fuse = Outage(error=Unavailable, only=lambda label: label == "gateway.charge_saved")
    async with a_metering(tmp_path / "x.db", atomic=atomic, wait_s=0.02, fuse=fuse) as at:
        await at.boot()
        await at.automatic()
        fuse.hang()
        async with asyncio.timeout(2):
            answers = await at.use_all([300, 400, 200])
        assert [one.usage.status for one in answers] == [UsageStatus.OWED] * 3
        assert (await at.book()).owed_minor == 900
        opened = (await at.book()).open
        assert opened is not None
        # The next one finds it open: there is no second recharge.
        assert (await at.use(50)).status is UsageStatus.OWED
        assert (await at.book()).open == opened
        assert fuse.seen == ["gateway.charge_saved"]
        fuse.over()
        await at.recharges.stop()
        book = await at.book()
        assert (book.owed_minor, book.open) == (0, None)
        assert (await at.account()).spendable == AMOUNT - 950
        assert at.gateway.charged == [opened.id]
        await at.settle()
        await at.check_at_rest()
        await at.stop()


async def test_who_reports_hears_in_time_that_its_usage_is_queued(tmp_path: Path) -> None:
    fuse = Outage(error=Unavailable, only=lambda label: label == "gateway.charge_saved")
    async with a_metering(tmp_path / "x.db", fuse=fuse) as at:
        await at.boot()
        await at.automatic()
        at.meter._answer_within_s = 0.02
        fuse.hang()
        async with asyncio.timeout(2):
            usage = await at.use(300, "e1")
            assert usage.status is UsageStatus.QUEUED
            assert (await at.use(300, "e1")).id == usage.id
        fuse.over()
        await at.room.stop()
        assert [row.status for row in await at.rows()] == [UsageStatus.CHARGED]
        await at.check_at_rest()
        await at.stop()


async def in_doubt(at: Metering, status: AttemptStatus = AttemptStatus.PENDING) -> Usage:
    """An owed usage whose recharge's bank takes its time."""
    await at.boot()
    await at.automatic()
    at.gateway.charges_end = status
    usage = await at.use(300)
    assert usage.status is UsageStatus.OWED
    at.gateway.charges_end = AttemptStatus.COLLECTED
    return usage


async def test_a_decline_that_is_heard_later_closes_the_recharge_by_itself(tmp_path: Path) -> None:
    """Nobody uses anything meanwhile: it must not wait for that."""
    async with a_metering(tmp_path / "x.db") as at:
        await in_doubt(at)
        (attempt,) = at.gateway.tries.values()
        at.gateway.becomes(attempt.id, AttemptStatus.FAILED, "do_not_honor")
        at.clock.jump_ms(60_000)
        await at.payments.ask_about_due()
        book = await at.book()
        assert (book.open, book.declines) == (None, 1)
        (told,) = at.news.of(EventKind.RECHARGE_FAILED)
        assert told.facts["reason"] == "do_not_honor"
        # Its bank changes its mind, while there is another: both are the company's.
        at.clock.jump_ms(BACK_OFF_MS[0])
        assert (await at.use(100)).status is UsageStatus.CHARGED
        attempt = at.gateway.becomes(attempt.id, AttemptStatus.COLLECTED)
        (payment,) = [one for one in await at.recharged() if one.id == attempt.reference]
        for _ in range(3):
            payment = await at.payments.learn(payment, attempt)
        await at.settle()
        await at.check_at_rest()
        entries = await at.entries()
        assert [entry.kind for entry in entries if "recharge" in entry.kind] == [AUTO_RECHARGE] * 2
        assert (await at.account()).spendable == 2 * AMOUNT - 400
        await at.stop()


async def test_a_recharge_of_which_nobody_ever_hears_does_not_forbid_the_next_for_ever(
    tmp_path: Path,
) -> None:
    async with a_metering(tmp_path / "x.db") as at:
        await in_doubt(at)
        await at.settle()
        (payment,) = await at.recharged()
        assert payment.status is PaymentStatus.EXPIRED
        assert (await at.use(100)).status is UsageStatus.OWED
        assert (await at.book()).open is None
        at.clock.jump_ms(BACK_OFF_MS[0])
        assert (await at.use(100)).status is UsageStatus.CHARGED
        assert (await at.book()).owed_minor == 0
        await at.check()
        await at.stop()


async def test_three_declines_stop_it_until_somebody_says_so(tmp_path: Path) -> None:
    async with a_metering(tmp_path / "x.db") as at:
        await at.boot()
        await at.automatic()
        at.gateway.declines = "insufficient_funds"
        for pause_ms in (*BACK_OFF_MS, 30 * 24 * 3_600_000):
            tries = len(at.gateway.tries)
            assert (await at.use(100)).status is UsageStatus.OWED
            assert len(at.gateway.tries) == tries + 1
            at.clock.jump_ms(pause_ms - 1)
            assert (await at.use(100)).status is UsageStatus.OWED
            assert len(at.gateway.tries) == tries + 1, "the pause is kept"
            at.clock.jump_ms(1)
        assert (await at.use(100)).status is UsageStatus.OWED
        assert len(at.gateway.tries) == 3
        assert len(at.news.of(EventKind.RECHARGE_FAILED)) == 3
        assert len(at.news.of(EventKind.AUTO_RECHARGE_STOPPED)) == 1
        # One debt, told once.
        assert len(at.news.of(EventKind.OWED)) == 1
        at.gateway.declines = None
        book = await at.automatic()
        assert (book.owed_minor, book.declines) == (0, 0)
        assert len(at.gateway.charged) == 1
        await at.check()
        await at.stop()


async def test_a_card_that_is_deleted_before_the_gateway_was_asked_is_never_charged(tmp_path: Path) -> None:
    """The request never arrived, the owner deletes the card, and then we would ask again."""
    async with a_metering(tmp_path / "x.db") as at:
        await at.boot()
        await at.automatic()
        at.gateway.is_down = True
        assert (await at.use(300)).status is UsageStatus.OWED
        at.gateway.is_down = False
        (card,) = await at.methods.list_for(COMPANY, limit=9, before=None)
        await at.methods.forget(card.id, payer_id=COMPANY)
        at.clock.jump_ms(2 * IN_FLIGHT_MS)
        await at.payments.ask_about_due()
        assert (await at.book()).open is None
        assert at.gateway.charged == at.gateway.asked_to_charge == []
        (payment,) = await at.recharged()
        assert (payment.status, payment.failure) == (PaymentStatus.FAILED, "METHOD_DELETED")
        # By hand it is paid all the same, and the debt with it.
        await at.pay(AMOUNT, card=False)
        assert (await at.book()).owed_minor == 0
        assert [entry.kind for entry in await at.entries() if "recharge" in entry.kind] == [RECHARGE]
        await at.check()
        await at.stop()


class Hanging(CardGateway):
    """A charge hangs until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.goes_on = asyncio.Event(), asyncio.Event()

    async def charge_saved(self, wish: Wish, method: SavedMethod) -> Attempt:
        self.reached.set()
        await self.goes_on.wait()
        return await super().charge_saved(wish, method)


async def test_two_processes_that_pursue_the_same_recharge_charge_once(tmp_path: Path) -> None:
    gateway = Hanging()
    async with a_metering(tmp_path / "x.db", gateway=gateway) as at:
        await at.boot()
        await at.automatic()
        other = await at.second()
        first = asyncio.create_task(at.use(300))
        await gateway.reached.wait()
        # The other one cannot know what the first has asked for: its usage is owed, and nothing is asked for twice.
        assert (await other.use(200)).status is UsageStatus.OWED
        assert (await other.recharges.pursue(COMPANY)) is False
        gateway.goes_on.set()
        assert (await first).status is UsageStatus.CHARGED
        await at.settle()
        await at.check_at_rest()
        assert len(gateway.charged) == len(gateway.asked_to_charge) == (await at.book()).recharges == 1
        assert (await at.account()).spendable == AMOUNT - 500
        assert sum(map(cost_of_entry, (one for one in await at.entries() if is_usage_kind(one.kind)))) == 500
        await other.stop()
        await at.stop()


async def test_a_recharge_by_hand_is_paid_whatever_becomes_of_the_automatic_one(tmp_path: Path) -> None:
    """Its page said that it was paid; that the gateway cannot tell of another one just now is no reason to call it pending."""
    async with a_metering(tmp_path / "x.db") as at:
        await in_doubt(at)
        payment = await at.recharges.recharge(
            company_id=COMPANY, amount_minor=AMOUNT, operation_id="hand", email=""
        )
        attempt = at.gateway.pay(payment.order_id or "")
        at.gateway.is_down = True
        assert (await at.payments.learn(payment, attempt)).status is PaymentStatus.PAID
        assert (await at.book()).owed_minor == 0
        at.gateway.is_down = False
        await at.settle()
        await at.check()
        await at.stop()


async def test_who_hangs_up_loses_no_usage(tmp_path: Path) -> None:
    """The back end's connection breaks at any moment; its next try finds what there is."""
    async with a_metering(tmp_path / "x.db") as at:
        await at.boot()
        await at.automatic()
        for number in range(60):
            caller = asyncio.create_task(at.use(7, f"e{number}"))
            for _ in range(number):
                await asyncio.sleep(0)
            caller.cancel()
            await asyncio.wait({caller})
        await at.settle()
        await at.check_at_rest()
        for number in range(60):
            await at.use(7, f"e{number}")
        assert (await at.book()).spent_minor == 60 * 7
        await at.check_at_rest()
        await at.stop()
