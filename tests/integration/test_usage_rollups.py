"""The rollups over the real store: whatever is counted when and by whom, a page adds up to the entries of the ledger."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from billing_engine.clock import Moment
from billing_engine.errors import Unavailable
from billing_engine.ledger.accounts import company_wallet_of
from billing_engine.ledger.model import Account, Entry
from billing_engine.ledger.service import Ledger
from billing_engine.money import USD
from billing_engine.usage.book import Short, charge
from billing_engine.usage.model import Usage, UsageStatus
from billing_engine.usage.rollups import WHOLE, Counter, Rollups
from billing_engine.usage.series import Kind, Series, Spending
from server.clock import SystemClock
from server.storage.repositories.usage_counters import CollectionCounters
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from server.storage.sqlite.ledger import SqliteLedgerStore

COMPANY = "acme"
KINDS = (
    Kind("cv-parsing", "cv"),
    Kind("question-generation", "token"),
    Kind("question-generation", "question"),
)
JOBS = (None, "job-1", "job-2", "job-3")
DAYS = ("2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02", "2026-03-01")


class Mortal(CollectionCounters):
    """The counters of a process that dies before its last write, if it is told to."""

    dies = False

    async def raise_upto(self, company_id: str, seq: int) -> None:
        if self.dies:
            raise Unavailable(reason="killed")
        await super().raise_upto(company_id, seq)


@dataclass
class Books:
    """A ledger, and what was put into it, in plain words."""

    ledger: Ledger
    rollups: Rollups
    other_process: Rollups
    counters: "Mortal"
    used: list[tuple[str, str | None, Kind, int, int]] = field(default_factory=list)

    async def use(self, day: str, job: str | None, kind: Kind, quantity: int, cost_minor: int) -> None:
        number = len(self.used)
        self.used.append((day, job, kind, quantity, cost_minor))
        usage = Usage(
            id=f"usage-{number:05d}",
            company_id=COMPANY,
            event_id=None,
            job_id=job,
            type=kind.type,
            entry_type=kind.type,
            unit=kind.unit,
            quantity=quantity,
            cost_minor=cost_minor,
            list_name="tokens",
            status=UsageStatus.QUEUED,
            at_ms=0,
            created_at_ms=0,
        )
        change = self._change(usage, day)
        await self.ledger.change(company_wallet_of(COMPANY), USD.code, change, source=usage.source)

    @staticmethod
    def _change(usage: Usage, day: str) -> Callable[[Account, Entry | None], tuple[Account, Entry | Short]]:
        def change(account: Account, known: Entry | None) -> tuple[Account, Entry | Short]:
            moment = Moment(0, day)
            return charge(
                account, known, usage=usage, moment=moment, recharge_id="", largest_recharge_minor=0
            )

        return change

    def expected(
        self, scope: str, first: str, last: str, type_: str | None
    ) -> dict[str, dict[Kind, Spending]]:
        days: dict[str, dict[Kind, Spending]] = {}
        for day, job, kind, quantity, cost_minor in self.used:
            if scope in (WHOLE, job) and first <= day <= last and type_ in (None, kind.type):
                one, mine = Spending(1, quantity, cost_minor), days.setdefault(day, {})
                mine[kind] = mine[kind].plus(one) if kind in mine else one
        return days

    async def check(self, first: str = DAYS[0], last: str = DAYS[-1]) -> None:
        scopes = [WHOLE, *(job for job in JOBS if job), "no-such-job"]
        spent = await self.rollups.spent(COMPANY, first_day=first, last_day=last, scopes=scopes)
        for scope in scopes:
            for type_ in (None, "question-generation"):
                days = self.expected(scope, first, last, type_)
                assert spent[scope].by_day(type_) == days
                sums: dict[Kind, Spending] = {}
                for kinds in days.values():
                    for kind, spending in kinds.items():
                        sums[kind] = sums[kind].plus(spending) if kind in sums else spending
                assert spent[scope].by_kind(type_) == sums


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    clock = SystemClock()
    async with open_database(tmp_path / "books.db", SqliteOptions(synchronous="OFF")) as db:
        store = SqliteLedgerStore(db)
        await store.prepare()
        ledger = Ledger(store, clock, lambda _ms: DAYS[0])
        await ledger.start()
        counters = await Mortal.open(SqliteCollections(db))
        rollups, other_process = (Rollups(ledger=ledger, counters=counters, asset=USD.code) for _ in range(2))
        yield Books(ledger, rollups, other_process, counters)
        await ledger.stop()


async def test_a_page_adds_up_to_the_entries_whenever_they_are_counted(books: Books) -> None:
    """Nobody could say which of the page and the ledger is right."""
    random = Random(7)
    for day in DAYS:
        for _ in range(40):
            kind, job = random.choice(KINDS), random.choice(JOBS)
            await books.use(day, job, kind, random.randint(0, 5000), random.randint(1, 10**6))
            if random.random() < 0.1:
                await books.rollups.count(COMPANY)
        await books.check()
    for first in DAYS:
        for last in DAYS:
            if first <= last:
                await books.check(first, last)
    assert await books.rollups.count(COMPANY) < 40
    assert await books.rollups.count(COMPANY) == 0
    await books.check()


async def test_several_who_count_at_once_count_nothing_twice(books: Books) -> None:
    random = Random(11)
    for round_ in range(10):
        uses = [
            books.use(DAYS[round_ // 4], random.choice(JOBS), random.choice(KINDS), 1 + n, 10 + n)
            for n in range(30)
        ]
        await asyncio.gather(
            *uses,
            books.rollups.count(COMPANY),
            books.other_process.count(COMPANY),
            books.rollups.count(COMPANY),
        )
        await asyncio.gather(books.rollups.count(COMPANY), books.other_process.count(COMPANY), books.check())
    await books.check()


async def test_a_counting_that_was_cut_short_is_neither_seen_nor_done_twice(books: Books) -> None:
    """The counters have the entries, and what says so has not: they would be added a second time."""
    for number in range(20):
        await books.use(DAYS[number // 10], JOBS[number % 4], KINDS[number % 3], number, 1 + number)
    books.counters.dies = True
    with pytest.raises(Unavailable):
        await books.rollups.count(COMPANY)
    await books.use(DAYS[2], JOBS[1], KINDS[0], 5, 7)
    await books.check()
    books.counters.dies = False
    assert await books.other_process.count(COMPANY) == 21
    await books.check()


async def test_a_counter_is_raised_from_where_it_was_read_or_not_at_all(books: Books) -> None:
    def counter(seq: int) -> Counter:
        series = Series().plus({"30": Spending(seq, seq, seq)})
        return Counter(COMPANY, DAYS[0][:7], WHOLE, seq, {KINDS[0]: series})

    assert await books.counters.put(counter(5), expect_seq=0)
    assert not await books.counters.put(counter(3), expect_seq=0)
    assert not await books.counters.put(counter(7), expect_seq=4)
    key = (DAYS[0][:7], WHOLE)
    assert (await books.counters.get_many(COMPANY, [key[0]], [key[1], "job-1"])) == {key: counter(5)}
    assert await books.counters.put(counter(9), expect_seq=5)
    assert (await books.counters.get_many(COMPANY, [key[0]], [key[1]])) == {key: counter(9)}
