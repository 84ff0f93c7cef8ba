"""Credits on MongoDB: two processes at once, MongoDB's own audit, and what is healed there."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any

from billing_engine.credits.applications import Applications
from billing_engine.credits.book import CreditBook
from billing_engine.credits.errors import (
    AlreadyApplied,
    InsufficientCredits,
    ProjectClosed,
    RefundNotEligible,
)
from billing_engine.credits.prices import CreditPrices
from billing_engine.credits.projects import Projects
from billing_engine.credits.purchases import CreditPurchases, PurchaseRules, sale_of
from billing_engine.errors import BillingError
from billing_engine.ledger.service import Ledger
from billing_engine.money import INR
from billing_engine.payments.model import Purpose
from billing_engine.payments.service import PaymentService
from billing_engine.verification import Verdict
from server.credit_packages import load_packages
from server.gateways.simulated import SimulatedGateway
from server.storage.mongo.client import MongoDatabase, MongoOptions, open_mongo
from server.storage.mongo.collection import MongoCollections
from server.storage.mongo.ledger import MongoLedgerStore
from server.storage.repositories.credits import (
    CollectionApplications,
    CollectionPriceLog,
    CollectionProjects,
)
from server.storage.repositories.payments import CollectionPayments
from tests.integration.test_mongo_books import rules, verified
from tests.support.credit_paths import COMPANY, FREELANCER, Everybody, Receipts
from tests.support.manual_clock import ManualClock


class Quiet:
    """`PaymentObserver`."""

    def credited(self, payment: Any) -> None: ...

    def trouble(self, what: str, payment: Any, **facts: Any) -> None:
        raise AssertionError((what, payment, facts))


@asynccontextmanager
async def a_room(db: MongoDatabase, clock: ManualClock, letters: dict[str, Any]) -> AsyncIterator[Any]:
    """One process's services."""
    store, collections = MongoLedgerStore(db), MongoCollections(db)
    await store.prepare()
    ledger = Ledger(store, clock, lambda _: "2026-01-01")
    await ledger.start()
    project_rows = await CollectionProjects.open(collections)
    rows = await CollectionApplications.open_in(collections)
    applications = Applications(ledger=ledger, rows=rows, projects=project_rows, clock=clock)
    gateway = SimulatedGateway()
    payment_rows = await CollectionPayments.open(collections)
    payments = PaymentService(
        ledger=ledger,
        clock=clock,
        payments=payment_rows,
        gateways={gateway.name: gateway},
        movements={Purpose.CREDITS: sale_of},
        observer=Quiet(),
    )
    prices = CreditPrices(
        log=await CollectionPriceLog.open(collections),
        clock=clock,
        asset=INR,
        first_minor=5_000,
        packages=load_packages(),
    )
    purchases = CreditPurchases(
        ledger=ledger,
        payments=payments,
        unpaid=payment_rows,
        prices=prices,
        standing=Everybody(),
        news=Receipts(letters),
        rules=PurchaseRules(gateway.name, max_unpaid=3),
    )
    payments.fulfil[Purpose.CREDITS] = purchases.fulfil
    try:
        yield SimpleNamespace(
            applications=applications,
            projects=Projects(rows=project_rows, applications=applications, clock=clock),
            book=CreditBook(ledger=ledger, clock=clock),
            prices=prices,
            purchases=purchases,
            payments=payments,
        )
    finally:
        await ledger.stop()


async def apply(room: Any, key: str, project: str) -> Any:
    return await room.applications.apply(user_id=FREELANCER, project_id=project, operation_id=key)


async def withdraw(room: Any, key: str, project: str) -> Any:
    id_ = f"{FREELANCER}:{project}:1"
    return await room.applications.withdraw(id_, user_id=FREELANCER, operation_id=key)


async def buy(room: Any, key: str) -> Any:
    return await room.purchases.initiate(user_id=FREELANCER, email="", package_id=1, operation_id=key)


async def post(room: Any, key: str) -> None:
    await room.projects.post(company_id=COMPANY, title="T", description="D", operation_id=key)


def kinds(answers: list[Any]) -> Counter[Any]:
    assert all(isinstance(one, BillingError) for one in answers if isinstance(one, BaseException)), answers
    return Counter(type(one) for one in answers if isinstance(one, BaseException))


async def test_two_processes_on_mongodb(mongo_options: MongoOptions) -> None:
    clock, letters = ManualClock(), {}
    async with AsyncExitStack() as stack:
        dbs = [await stack.enter_async_context(open_mongo(mongo_options)) for _ in range(2)]
        one, other = [await stack.enter_async_context(a_room(db, clock, letters)) for db in dbs]
        both = (one, other)
        # One purchase, asked for by both; then a price for all, set by both.
        bought = await asyncio.gather(*(buy(room, "b1") for room in both))
        assert [purchase.entry.posted_after for purchase in bought] == [5, 5]
        await asyncio.gather(*(room.prices.change(6_000, by="a") for room in both))
        assert [change.price_minor for change in await one.prices.changes(limit=9)] == [6_000]
        for number in range(8):
            await post(one, f"p{number}")
        # Five credits for eight projects, each asked for twice.
        told = await asyncio.gather(
            *(apply(both[n % 2], f"a{n}", f"p{n // 2}") for n in range(16)), return_exceptions=True
        )
        assert len([answer for answer in told if not isinstance(answer, BaseException)]) == 5
        assert set(kinds(told)) <= {AlreadyApplied, InsufficientCredits}
        made = next(answer for answer in told if not isinstance(answer, BaseException))
        told = await asyncio.gather(
            *(withdraw(both[n % 2], f"w{n}", made.project_id) for n in range(10)), return_exceptions=True
        )
        assert kinds(told) == {RefundNotEligible: 9}
        told = await asyncio.gather(
            one.projects.close(made.project_id, company_id=COMPANY),
            apply(other, "late", made.project_id),
            return_exceptions=True,
        )
        assert set(kinds(told)) <= {ProjectClosed}
        balance = await one.book.balance(FREELANCER)
        assert balance.balance == balance.purchased - balance.used + balance.refunded
        assert balance == await other.book.balance(FREELANCER)
        lines, total = await one.book.history(FREELANCER, page=1, limit=100)
        assert len(lines) == total == 1 + balance.used + balance.refunded
        assert letters == {"credits:b1": 5}
        found = await verified(dbs[0])
        assert found.verdict is Verdict.CLEAN, found
        assert found.counted["credit purchases"] == 1


async def test_what_a_crash_left_is_found_and_healed(mongo_options: MongoOptions) -> None:
    clock, letters = ManualClock(), {}
    async with open_mongo(mongo_options) as db:
        async with a_room(db, clock, letters) as room:
            await buy(room, "b1")
            await post(room, "p1")
            await post(room, "p2")
            await apply(room, "a1", "p1")
            await apply(room, "a2", "p2")
            await withdraw(room, "w2", "p2")
        # As if processes had died before the records knew what the ledger says, and before the payment was marked.
        rows = db.collection("applications")
        asked = {"status": "PENDING", "applied_at_ms": None, "credits_left": None, "is_open": True}
        await rows.update_one({"_id": f"{FREELANCER}:p1:1"}, {"$set": asked})
        active = {"status": "ACTIVE", "withdrawn_at_ms": None, "credits_after_refund": None, "is_open": True}
        await rows.update_one({"_id": f"{FREELANCER}:p2:1"}, {"$set": active})
        due = {"status": "COLLECTED", "check_at_ms": 0}
        await db.collection("payments").update_one({"_id": "b1"}, {"$set": due})
        left = await verified(db)
        assert left.verdict is Verdict.UNFINISHED
        assert rules(left.unfinished) == {
            "an application's end is written down",
            "a collected purchase is fulfilled",
        }
        async with a_room(db, clock, letters) as room:
            assert await room.applications.heal() == 2
            await room.payments.ask_about_due()
            assert await room.applications.heal() == 0
        assert (await verified(db)).verdict is Verdict.CLEAN
        # An entry whose application is gone is no unfinished work.
        await rows.delete_one({"_id": f"{FREELANCER}:p1:1"})
        assert rules((await verified(db)).broken) == {"a credit was taken for an application"}
