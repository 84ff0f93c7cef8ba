"""Refunds, requests for them and payouts on MongoDB, with its own audit, and what is healed there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from billing_engine.ledger.accounts import earnings_of, wallet_of
from billing_engine.ledger.service import Ledger
from billing_engine.money import INR
from billing_engine.payouts.model import PayoutStatus, Verdict
from billing_engine.payouts.service import PayoutRules, Payouts
from billing_engine.refunds.errors import RefundTooLarge
from billing_engine.refunds.model import RequestStatus
from billing_engine.refunds.service import Refunds
from billing_engine.verification import Verdict as Says
from server.storage.mongo.client import MongoDatabase, MongoOptions, open_mongo
from server.storage.mongo.collection import MongoCollections
from server.storage.mongo.ledger import MongoLedgerStore
from server.storage.repositories.payouts import CollectionPayouts
from server.storage.repositories.refunds import CollectionRefundBooks, CollectionRefundRequests
from server.storage.repositories.sessions import CollectionSessions
from tests.integration.test_mongo_books import END_MS, ENDED, _make, rules, verified
from tests.support.desk_paths import Told
from tests.support.manual_clock import ManualClock

#: What the ended consultation cost, and the lawyer's part.
GROSS, NET = 3_000, 2_700


class Desk:
    """One process's services."""

    def __init__(self, ledger: Ledger, refunds: Refunds, payouts: Payouts, credited: list[str]) -> None:
        self.ledger = ledger
        self.refunds = refunds
        self.payouts = payouts
        self.credited = credited

    async def give_back(self, name: str, amount: int) -> None:
        await self.refunds.refund(ENDED, amount_minor=amount, reason="x", by="a", operation_id=name)

    async def balances(self) -> tuple[int, int, int]:
        earnings = await self.ledger.account(earnings_of("l1"), "INR")
        return await self.ledger.balance(wallet_of("u1"), "INR"), earnings.posted, earnings.held


@asynccontextmanager
async def a_desk(db: MongoDatabase) -> AsyncIterator[Desk]:
    store, collections, clock = MongoLedgerStore(db), MongoCollections(db), ManualClock()
    await store.prepare()
    clock.jump_ms(END_MS - clock.now_ms())
    ledger = Ledger(store, clock, lambda _: "2026-01-01")
    await ledger.start()
    credited: list[str] = []
    refunds = Refunds(
        ledger=ledger,
        sessions=await CollectionSessions.open(collections),
        books=await CollectionRefundBooks.opened(collections),
        requests=await CollectionRefundRequests.open(collections),
        news=Told(),
        clock=clock,
        on_credited=credited.append,
    )
    rows = await CollectionPayouts.open(collections)
    payouts = Payouts(ledger=ledger, rows=rows, news=Told(), clock=clock, rules=PayoutRules(INR, 100))
    try:
        yield Desk(ledger, refunds, payouts, credited)
    finally:
        await ledger.stop()


async def test_the_desk_on_mongodb(mongo_options: MongoOptions, tmp_path: Path) -> None:
    await _make(mongo_options.url, tmp_path / "x.db")
    async with open_mongo(mongo_options) as db, a_desk(db) as desk:
        assert await desk.balances() == (50_000 - GROSS, NET, 0)
        await asyncio.gather(*(desk.give_back(f"r{n}", 100) for n in range(5)))
        asked = await desk.refunds.ask(ENDED, user_id="u1", amount_minor=250, reason="x", operation_id="f")
        answered = await desk.refunds.approve(asked.id, amount_minor=None, reason=None, by="a")
        assert (answered.status, answered.refunded_minor) == (RequestStatus.APPROVED, 250)
        assert desk.credited == ["u1"] * 6
        assert await desk.refunds.list_for("u1", limit=5, before=None) == [answered]
        await desk.payouts.request(lawyer_id="l1", amount_minor=1_000, operation_id="p1")
        await desk.payouts.request(lawyer_id="l1", amount_minor=500, operation_id="p2")
        paid = await desk.payouts.decide("p1", Verdict(PayoutStatus.PAID, "a", reference="U"))
        back_net = 750 - 75
        assert await desk.balances() == (50_000 - GROSS + 750, NET - back_net - 1_000, 500)
        assert (await desk.payouts.open_total()).amount_minor == 500
        assert await desk.payouts.queue(PayoutStatus.PAID, limit=5, after=None) == [paid]
        total = await desk.ledger.total_debited(earnings_of("l1"), kinds=("consultation_refund_net",))
        assert (total.amount_minor, total.rows) == (back_net, 6)
        found = await verified(db)
        assert (found.verdict, found.counted["payouts"], found.counted["refunds"]) == (Says.CLEAN, 2, 6), (
            found
        )


async def test_what_two_processes_decide_at_once_is_bounded(
    mongo_options: MongoOptions, tmp_path: Path
) -> None:
    await _make(mongo_options.url, tmp_path / "x.db")
    async with open_mongo(mongo_options) as db, open_mongo(mongo_options) as second:
        async with a_desk(db) as one, a_desk(second) as other:
            told = await asyncio.gather(
                *((one if n % 2 else other).give_back(f"r{n}", 700) for n in range(10)),
                return_exceptions=True,
            )
            assert [type(answer) for answer in told if answer is not None] == [RefundTooLarge] * 6
            assert (await one.balances())[0] == 50_000 - GROSS + 4 * 700
        assert (await verified(db)).verdict is Says.CLEAN


async def test_what_a_crash_left_is_found_and_healed(mongo_options: MongoOptions, tmp_path: Path) -> None:
    await _make(mongo_options.url, tmp_path / "x.db")
    async with open_mongo(mongo_options) as db:
        async with a_desk(db) as desk:
            await desk.payouts.request(lawyer_id="l1", amount_minor=500, operation_id="p1")
            await desk.give_back("r1", 700)
        # As if the process had died before the payout's record, and before it knew that the refund was through.
        await db.collection("payouts").delete_one({"_id": "p1"})
        books = db.collection("refund_books")
        (book,) = await books.find({"_id": ENDED}).to_list(None)
        unsettled = [{**decision, "is_settled": False} for decision in book["decisions"]]
        await books.update_one({"_id": ENDED}, {"$set": {"is_open": True, "decisions": unsettled}})
        left = await verified(db)
        assert left.verdict is Says.UNFINISHED
        assert rules(left.unfinished) == {"a payout's hold has its record", "a decision is completed"}
        async with a_desk(db) as desk:
            assert (await desk.payouts.heal(), await desk.refunds.heal()) == (1, 1)
            assert (await desk.payouts.heal(), await desk.refunds.heal()) == (0, 0)
        assert (await verified(db)).verdict is Says.CLEAN
