"""Metered usage to be disturbed: companies whose usages are charged, and the processes that live on one store one after the other."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

from billing_engine.errors import NotFound
from billing_engine.ledger.accounts import REVENUE_USAGE, company_wallet_of, gateway_of, receivable_of
from billing_engine.ledger.model import Account, Entry, KeyState, effect_on
from billing_engine.ledger.service import Ledger
from billing_engine.money import USD
from billing_engine.payments.methods import PaymentMethods
from billing_engine.payments.model import Payment, PaymentStatus, Purpose
from billing_engine.payments.service import PaymentService
from billing_engine.usage.book import (
    AUTO_RECHARGE,
    OWED_COLLECTED,
    RECHARGE,
    Book,
    book_of,
    is_owed,
)
from billing_engine.usage.model import Measured, Price, Usage, UsageStatus, is_usage_kind
from billing_engine.usage.ports import CompanyEvent, CompanyTerms, EventKind, ListChoice, UsageFilter
from billing_engine.usage.recharges import RechargeRules, recharge_of
from billing_engine.usage.series import Spending
from billing_engine.usage.service import Recorded, Report
from server.storage.collection import Collection, CollectionSpec
from server.storage.repositories.payment_methods import CollectionMethods
from server.storage.repositories.payments import CollectionPayments
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from server.storage.sqlite.ledger import SqliteLedgerStore
from server.usage_room import UsageRoom, open_usage
from tests.support.consult import WatchedDatabase
from tests.support.faults import Fuse
from tests.support.manual_clock import ManualClock
from tests.support.methods import CardGateway

COMPANY: Final = "c1"
#: What is recharged where nothing else is said, and the most that one recharge may be.
AMOUNT: Final = 1_000
LARGEST: Final = 1_000_000
#: A type of usage whose quantity is its cost.
TYPE: Final = "video-interview"
_MINUTE_MS: Final = 60_000
_FOR_EVER_MS: Final = 10**15


class OnePrice:
    """`Prices`: every unit costs the smallest unit."""

    async def price_at(self, list_name: str, type_: str, at_ms: int) -> Price:
        del at_ms
        return Price(list_name, type_, "VIDEO_INTERVIEW", "minute", 1, 1, 0)


@dataclass
class Offices:
    """`Companies`: everybody whose name begins with `c`, in a time zone that may change."""

    zones: dict[str, str] = field(default_factory=lambda: defaultdict(lambda: "UTC"))

    async def terms(self, company_id: str) -> CompanyTerms:
        if not company_id.startswith("c"):
            raise NotFound(company=company_id)
        return CompanyTerms(company_id, company_id, self.zones[company_id], (ListChoice("tokens", 0),))


@dataclass
class Postbox:
    """`CompanyNews` as a durable outbox keeps it: by id, and the first telling stays."""

    letters: dict[str, CompanyEvent] = field(default_factory=dict)

    async def tell(self, events: Sequence[CompanyEvent]) -> None:
        for event in events:
            self.letters.setdefault(event.id, event)

    def changed(self, company_id: str) -> None:
        del company_id

    def of(self, kind: EventKind) -> list[CompanyEvent]:
        return [event for event in self.letters.values() if event.kind is kind]


class WatchedCollections:
    """Collections whose every call passes through `wrap`."""

    def __init__(self, collections: Any, wrap: Any) -> None:
        self._collections = collections
        self._wrap = wrap

    async def open(self, spec: CollectionSpec) -> Collection:
        watched: Collection = self._wrap(spec.name, await self._collections.open(spec))
        return watched


@dataclass
class Troubles:
    """`PaymentObserver`: nothing is ever wrong with a payment here."""

    def credited(self, payment: Payment) -> None: ...

    def trouble(self, what: str, payment: Payment, **facts: Any) -> None:
        raise AssertionError((what, payment, facts))


class Match(Fuse):
    """A fuse that burns after a call that refuses, too: the gateway has declined, and nobody has heard it."""

    async def _burn(self, label: str, call: Any) -> Any:
        async def called() -> None:
            with suppress(Exception):
                await call()

        return await super()._burn(label, called)


@dataclass
class Metering:
    """What outlives the processes: a store, a gateway, the news. `boot` starts a process; `second` is another one beside it."""

    #: A new ledger store and the collections of a process, on the same data.
    opened: Any
    #: Waits until what was handed to the store has landed.
    landed: Any
    gateway: CardGateway = field(default_factory=CardGateway)
    clock: ManualClock = field(default_factory=ManualClock)
    offices: Offices = field(default_factory=Offices)
    news: Postbox = field(default_factory=Postbox)
    fuse: Any = field(default_factory=lambda: Match(counting=False))
    wait_s: float = 10
    largest: int = LARGEST
    _older: set[Any] = field(default_factory=set)
    _names: "count[int]" = field(default_factory=count)

    async def boot(self) -> None:
        """A new process on the same store."""
        self._older = asyncio.all_tasks()
        self.gateway.clock = self.clock
        wrap = self.fuse.wrap
        store, plain = await self.opened()
        collections: Any = WatchedCollections(plain, wrap)
        self.ledger = Ledger(wrap("ledger", store), self.clock, lambda _: "2026-01-01")
        await self.ledger.start()
        rows = await CollectionPayments.open(collections)
        self.payments = PaymentService(
            ledger=self.ledger,
            clock=self.clock,
            payments=rows,
            gateways={self.gateway.name: wrap("gateway", self.gateway)},
            movements={Purpose.COMPANY: recharge_of},
            observer=Troubles(),
        )
        self.methods = PaymentMethods(
            rows=await CollectionMethods.open(collections),
            payments=rows,
            service=self.payments,
            clock=self.clock,
        )
        self.room: UsageRoom = await open_usage(
            collections,
            ledger=self.ledger,
            clock=self.clock,
            payments=self.payments,
            methods=self.methods,
            companies=self.offices,
            prices=OnePrice(),
            news=wrap("news", self.news),
            rules=RechargeRules(USD, 1, self.largest, self.gateway.name, self.wait_s),
        )
        self.meter, self.recharges, self.rollups = self.room.meter, self.room.recharges, self.room.rollups

    async def second(self) -> "Metering":
        """Another process beside this one."""
        other = Metering(
            self.opened, self.landed, self.gateway, self.clock, self.offices, self.news,
            wait_s=self.wait_s, largest=self.largest,
        )  # fmt: skip
        await other.boot()
        return other

    async def stop(self) -> None:
        await self.room.stop()
        await self.ledger.stop()

    async def die(self) -> None:
        """Everything that the process had under way ends; what it had handed to the store lands."""
        self.fuse.burnt = True
        tasks = asyncio.all_tasks() - self._older
        if (committing := self.ledger.committer._worker) is not None:
            tasks.add(committing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.landed()

    async def reborn(self) -> None:
        self.fuse = Match(counting=False)
        await self.boot()

    # -- what companies do

    async def use(self, cost: int, event: str | None = None, company: str = COMPANY, **more: Any) -> Usage:
        return (await self.meter.record(company, self.report(cost, event, **more))).usage

    async def use_all(self, costs: Sequence[int], company: str = COMPANY) -> list[Recorded]:
        return await self.meter.record_all(company, [self.report(cost) for cost in costs])

    def report(self, cost: int, event: str | None = None, **more: Any) -> Report:
        event = event or f"event-{id(self)}-{next(self._names)}"
        return Report(TYPE, Measured({"minute": cost}), event_id=event, **more)

    async def a_card(self, company: str = COMPANY) -> str:
        return await self.methods._keep(company, self.gateway.name, self.gateway.card(f"card_{company}"))

    async def automatic(self, amount: int = AMOUNT, company: str = COMPANY, *, on: bool = True) -> Book:
        card = await self.a_card(company)
        return await self.recharges.set_auto(
            company_id=company, is_enabled=on, amount_minor=amount, method_id=card
        )

    async def pay(
        self, amount: int = AMOUNT, key: str | None = None, company: str = COMPANY, card: bool = True
    ) -> Payment:
        """By hand, with the saved card, or at a page and paid there."""
        key = key or f"hand-{next(self._names)}"
        payment = await self.recharges.recharge(
            company_id=company, amount_minor=amount, operation_id=key, email="", method_id=await self.a_card(company) if card else None
        )  # fmt: skip
        if not card and payment.status is not PaymentStatus.PAID:
            attempts = [one for one in self.gateway.tries.values() if one.order_id == payment.order_id]
            attempt = attempts[0] if attempts else self.gateway.pay(payment.order_id or "")
            payment = await self.payments.learn(payment, attempt)
        return payment

    async def chores(self) -> None:
        """What the worker does every second, once."""
        await self.payments.ask_about_due()
        await self.meter.drain()

    async def settle(self) -> None:
        """Time passes, and the chores with it, until nothing is due any more that anybody still asks about."""
        deadline_ms = self.clock.now_ms() + 10 * 24 * 60 * _MINUTE_MS
        while True:
            self.clock.jump_ms(20_000)
            await self.chores()
            due = await self.payments._payments.due(_FOR_EVER_MS, limit=1)
            left = await self.meter._rows.queued(created_before_ms=_FOR_EVER_MS, limit=1)
            if not due and not left:
                return
            assert self.clock.now_ms() < deadline_ms, (due, left)
            if due:
                self.clock.jump_ms(max(0, (due[0].check_at_ms or 0) - self.clock.now_ms()))

    # -- what there is

    async def account(self, company: str = COMPANY) -> Account:
        return await self.recharges.account(company)

    async def book(self, company: str = COMPANY) -> Book:
        return book_of(await self.account(company))

    async def entries(self, company: str = COMPANY) -> list[Entry]:
        await self.account(company)
        return await self.ledger.entries(company_wallet_of(company), limit=1_000_000)

    async def rows(self, company: str = COMPANY) -> list[Usage]:
        """Oldest first."""
        found = await self.meter.list_for(company, UsageFilter(), limit=1_000_000, before=None)
        return found[::-1]

    async def recharged(self, company: str = COMPANY) -> list[Payment]:
        return await self.recharges.list_for(company, limit=1_000_000, before=None)

    async def check(self, company: str = COMPANY) -> None:
        """Whatever has happened: the book, the rows, the gateway and the sums all say the same."""
        account, entries = await self.account(company), await self.entries(company)
        await self._check_book(account, entries)
        await self._check_usages(company, entries)
        await self._check_payments(company, entries)
        await self._check_sums(company, entries)

    async def _check_book(self, account: Account, entries: list[Entry]) -> None:
        book = book_of(account)
        assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
        assert all(entry.state is KeyState.POSTED for entry in entries)
        usages = [entry for entry in entries if is_usage_kind(entry.kind)]
        assert account.spendable >= 0
        assert account.posted == sum(effect_on(account.id, entry.transfers) for entry in entries)
        assert book.spent_minor == sum(map(cost_of_entry, usages))
        assert book.month_spent_minor == sum(
            cost_of_entry(entry) for entry in usages if entry.day[:7] == book.day[:7]
        )
        company = account.id.partition(":")[2]
        assert book.owed_minor == -await self.ledger.balance(receivable_of(company), USD.code)
        assert book.owed_minor >= 0
        invoiced = [entry for entry in entries if entry.kind in (RECHARGE, AUTO_RECHARGE)]
        assert [entry.facts["invoice"] for entry in invoiced] == list(range(1, book.invoices + 1))
        collected = [entry for entry in entries if entry.kind == OWED_COLLECTED]
        assert book.collected_minor == sum(entry.transfers[0].amount_minor for entry in collected)
        assert book.owed_ever_minor == sum(map(cost_of_entry, filter(is_owed, usages)))

    async def _check_usages(self, company: str, entries: list[Entry]) -> None:
        """Each stored usage that is settled has its one entry, of its own cost, and says what it says."""
        by_usage = {entry.reference: entry for entry in entries if is_usage_kind(entry.kind)}
        assert len(by_usage) == sum(is_usage_kind(entry.kind) for entry in entries), "charged twice"
        rows = {row.id: row for row in await self.rows(company)}
        assert by_usage.keys() <= rows.keys(), "charged and not stored"
        for row in rows.values():
            entry = by_usage.get(row.id)
            if row.status in (UsageStatus.DRAFT, UsageStatus.FREE):
                assert entry is None, row
            elif row.status is not UsageStatus.QUEUED:
                assert entry is not None, row
                assert (row.status is UsageStatus.OWED) == is_owed(entry)
                assert row.balance_minor == entry.posted_after - entry.facts["held"]
            if entry is not None:
                assert cost_of_entry(entry) == row.cost_minor

    async def _check_payments(self, company: str, entries: list[Entry]) -> None:
        """Each payment that the gateway has taken is one entry of its amount and kind, and was taken once."""
        assert len(set(self.gateway.charged)) == len(self.gateway.charged), "the card was charged twice"
        credited = {entry.reference: entry for entry in entries if entry.kind in (RECHARGE, AUTO_RECHARGE)}
        payments = {payment.id: payment for payment in await self.recharged(company)}
        assert credited.keys() <= payments.keys()
        for payment in payments.values():
            entry = credited.get(payment.id)
            assert (payment.status in (PaymentStatus.PAID, PaymentStatus.REFUNDED)) <= (entry is not None), (
                payment
            )
            if entry is not None:
                assert entry.transfers[0].amount_minor == payment.amount_minor
                assert entry.kind == (RECHARGE if payment.id.startswith("hand") else AUTO_RECHARGE), payment
                assert entry.transfers[0].debit == gateway_of(self.gateway.name)

    async def _check_sums(self, company: str, entries: list[Entry]) -> None:
        """The rollups, for the company and for every job."""
        usages = [entry for entry in entries if is_usage_kind(entry.kind)]
        jobs = sorted({entry.facts["job"] for entry in usages if entry.facts["job"] is not None})
        days = [entry.day for entry in usages] or ["2026-01-01"]
        told = await self.rollups.spent(company, first_day=min(days), last_day=max(days), scopes=["", *jobs])
        for scope in ("", *jobs):
            mine = [entry for entry in usages if scope in ("", entry.facts["job"])]
            sums: dict[Any, Spending] = defaultdict(Spending)
            for entry in mine:
                cost = cost_of_entry(entry)
                cell = entry.day, entry.facts["type"]
                sums[cell] = sums[cell].plus(Spending(1, cost, cost))
            days_told = told[scope].by_day()
            assert {
                (day, kind.type): spent for day, kinds in days_told.items() for kind, spent in kinds.items()
            } == sums
            assert sum(spent.cost_minor for spent in told[scope].by_kind().values()) == sum(
                spent.cost_minor for spent in sums.values()
            )

    async def check_at_rest(self, company: str = COMPANY) -> None:
        """After everything has settled: nothing waits, nothing is open, and what the gateway took is ours."""
        await self.check(company)
        assert [row for row in await self.rows(company) if row.status is UsageStatus.QUEUED] == []
        book = await self.book(company)
        assert book.open is None, book.open
        payments = await self.recharged(company)
        assert {payment.status for payment in payments} <= {
            PaymentStatus.PAID, PaymentStatus.FAILED, PaymentStatus.EXPIRED,
        }  # fmt: skip
        paid = sum(payment.amount_minor for payment in payments if payment.status is PaymentStatus.PAID)
        credited = [one for one in await self.entries(company) if one.kind in (RECHARGE, AUTO_RECHARGE)]
        assert paid == sum(entry.transfers[0].amount_minor for entry in credited)

    async def check_gateway(self) -> None:
        """What the gateway took of everybody is what the ledger says it did."""
        taken = sum(one.amount_minor for one in self.gateway.tries.values() if one.status == "COLLECTED")
        assert await self.ledger.balance(gateway_of(self.gateway.name), USD.code) == -taken
        assert await self.ledger.balance(REVENUE_USAGE, USD.code) >= 0


def cost_of_entry(entry: Entry) -> int:
    """What the entry of a usage booked as sold."""
    (transfer,) = entry.transfers
    assert transfer.credit == REVENUE_USAGE
    return transfer.amount_minor


@asynccontextmanager
async def a_metering(path: Path, *, atomic: bool = True, **more: Any) -> AsyncIterator[Metering]:
    """Over SQLite, not booted."""
    async with open_database(path, SqliteOptions(synchronous="OFF")) as opened:
        db: Any = WatchedDatabase(opened)

        async def open_store() -> tuple[Any, Any]:
            store = SqliteLedgerStore(db, atomic=atomic)
            await store.prepare()
            return store, SqliteCollections(db)

        yield Metering(open_store, db.until_idle, **more)
