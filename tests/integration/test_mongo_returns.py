"""Refunds to the payer and disputes on MongoDB: the same steps over its ledger and its documents, and its audit of them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from billing_engine.ledger.accounts import wallet_of
from billing_engine.ledger.service import Ledger
from billing_engine.money import INR
from billing_engine.payments.model import DisputeStatus, Payment, PaymentStatus, Purpose, RefundStatus
from billing_engine.payments.service import PaymentService
from billing_engine.verification import Verdict
from billing_engine.wallets.service import WalletRules, Wallets, recharge_of
from server.notifications.outbox import Outbox
from server.payment_desk import PaymentDesk, open_payment_desk
from server.storage.mongo.books import verify_books
from server.storage.mongo.client import MongoDatabase, MongoOptions, open_mongo
from server.storage.mongo.collection import MongoCollections
from server.storage.mongo.ledger import MongoLedgerStore
from server.storage.repositories.notices import CollectionNotices
from server.storage.repositories.payments import CollectionPayments
from tests.support.manual_clock import ManualClock
from tests.support.mongo_server import PATIENT_MS
from tests.support.payments import AMOUNT
from tests.support.returns import ReturningGateway


@dataclass
class Troubles:
    """`PaymentObserver`."""

    heard: list[str] = field(default_factory=list)

    def credited(self, payment: Payment) -> None:
        del payment

    def trouble(self, what: str, payment: Payment, **facts: Any) -> None:
        del payment, facts
        self.heard.append(what)


@dataclass
class MongoDesk:
    """One process on MongoDB."""

    database: MongoDatabase
    ledger: Ledger
    clock: ManualClock
    gateway: ReturningGateway
    payments: PaymentService
    wallets: Wallets
    desk: PaymentDesk

    async def paid(self, key: str) -> Payment:
        order = await self.wallets.recharge(user_id="u1", amount_minor=AMOUNT, operation_id=key)
        return await self.payments.learn(order, self.gateway.pay(order.order_id or ""))

    async def refund(self, payment: Payment, amount: int, key: str) -> str:
        refund = await self.desk.refunds.request(
            payment_id=payment.id, amount_minor=amount, reason="Why.", by="a1", operation_id=key
        )
        return refund.status.value

    async def wallet(self) -> tuple[int, int]:
        account = await self.ledger.account(wallet_of("u1"), "INR")
        return account.spendable, account.held

    async def is_clean(self) -> None:
        found = await verify_books(self.database, now_ms=self.clock.now_ms(), abandon_ms=120_000)
        assert found.verdict is Verdict.CLEAN, (found.broken, found.unfinished)
        assert found.counted["payer refunds"] > 0


@pytest.fixture
async def mongo(mongo_url: str) -> AsyncIterator[MongoDesk]:
    clock, gateway, troubles = ManualClock(), ReturningGateway(), Troubles()
    async with open_mongo(MongoOptions(mongo_url, timeout_ms=PATIENT_MS)) as database:
        collections = MongoCollections(database)
        store = MongoLedgerStore(database)
        await store.prepare()
        ledger = Ledger(store, clock, lambda _at_ms: "2026-01-01")
        await ledger.start()
        rows = await CollectionPayments.open(collections)
        payments = PaymentService(
            ledger=ledger,
            clock=clock,
            payments=rows,
            gateways={gateway.name: gateway},
            movements={Purpose.WALLET: recharge_of},
            observer=troubles,
        )
        wallets = Wallets(
            ledger=ledger, payments=payments, gateway=gateway.name, rules=WalletRules(INR, 100, 10_000_000)
        )
        outbox = Outbox(
            rows=await CollectionNotices.open(collections),
            composer=None,  # type: ignore[arg-type]  # nothing is sent here
            notifier=None,  # type: ignore[arg-type]
            clock=clock,
        )
        desk = await open_payment_desk(
            collections,
            ledger=ledger,
            clock=clock,
            payments=payments,
            store=rows,
            observer=troubles,
            outbox=outbox,
        )
        try:
            yield MongoDesk(database, ledger, clock, gateway, payments, wallets, desk)
        finally:
            await ledger.stop()


async def test_refunds_and_disputes_on_mongodb(mongo: MongoDesk) -> None:
    gateway, desk = mongo.gateway, mongo.desk
    first, second, third = [await mongo.paid(f"r{number}") for number in range(3)]
    assert await mongo.refund(first, AMOUNT, "f1") == "DONE"
    gateway.refunds_are = RefundStatus.PENDING
    assert await mongo.refund(second, 20_000, "f2") == "PENDING"
    assert await mongo.wallet() == (2 * AMOUNT - 20_000, 20_000)
    await mongo.is_clean()

    await desk.refunds.take("razorpay", gateway.refund_becomes("f2", RefundStatus.FAILED))
    outside = gateway.refund_outside(third.collected_id or "", 10_000)
    assert await desk.refunds.take("razorpay", outside)
    assert await desk.disputes.take("razorpay", gateway.dispute(third.collected_id or ""), 1_000)
    assert await mongo.wallet() == (AMOUNT, AMOUNT - 10_000)
    await mongo.is_clean()
    lost = gateway.dispute(third.collected_id or "", DisputeStatus.LOST)
    for _ in range(2):
        assert await desk.disputes.take("razorpay", lost, 2_000)
    assert await mongo.wallet() == (AMOUNT, 0)
    await mongo.is_clean()

    refunded = await desk.index.search((PaymentStatus.REFUNDED,), None, limit=10, before=None)
    assert [payment.id for payment in refunded] == [first.id]
    paid = await desk.index.search((PaymentStatus.PAID, PaymentStatus.PENDING), "u1", limit=10, before=None)
    assert {payment.id for payment in paid} == {second.id, third.id}
    assert [one.status for one in await desk.disputes.queue(None, limit=10, after=None)] == [
        DisputeStatus.LOST
    ]
    assert await desk.disputes.queue(DisputeStatus.OPEN, limit=10, after=None) == []
    assert await desk.refunds.look_at_due() == 0
