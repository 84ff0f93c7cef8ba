"""A company's usages and counters on MongoDB, as its own audit reads them; the charge and the refund are the ledger's own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from billing_engine.clock import Moment
from billing_engine.ledger.accounts import company_wallet_of
from billing_engine.ledger.model import Account, Entry
from billing_engine.ledger.service import Ledger
from billing_engine.usage.book import charge, refund, refund_source
from billing_engine.usage.model import Usage, UsageStatus
from billing_engine.usage.rollups import Rollups
from billing_engine.usage.service import settled_by
from server.storage.mongo.client import MongoDatabase, MongoOptions, open_mongo
from server.storage.mongo.collection import MongoCollections
from server.storage.mongo.ledger import MongoLedgerStore
from server.storage.repositories.usage_counters import CollectionCounters
from server.storage.repositories.usages import CollectionUsages
from tests.integration.test_mongo_books import END_MS, rules, verified
from tests.support.manual_clock import ManualClock
from tests.support.mongo_server import PATIENT_MS

US, DAY = "c1", "2026-01-01"
USAGE = Usage(
    id="u1",
    company_id=US,
    event_id="e1",
    job_id="j1",
    type="cv-parsing",
    entry_type="CV_PARSE",
    unit="cv",
    quantity=1,
    cost_minor=500_000,
    list_name="tokens",
    status=UsageStatus.QUEUED,
    at_ms=END_MS,
    created_at_ms=END_MS,
    details={"priceMinor": 500_000, "per": 1},
)


@pytest.fixture
async def db(mongo_url: str) -> AsyncIterator[MongoDatabase]:
    async with open_mongo(MongoOptions(mongo_url, timeout_ms=PATIENT_MS)) as database:
        yield database


@asynccontextmanager
async def a_ledger(db: MongoDatabase) -> AsyncIterator[Ledger]:
    store, clock = MongoLedgerStore(db), ManualClock()
    await store.prepare()
    clock.jump_ms(END_MS - clock.now_ms())
    ledger = Ledger(store, clock, lambda _: DAY)
    await ledger.start()
    try:
        yield ledger
    finally:
        await ledger.stop()


async def charged(db: MongoDatabase, ledger: Ledger) -> CollectionUsages:
    """One usage that is owed, marked and counted, and then given back."""
    collections = MongoCollections(db)
    usages = await CollectionUsages.open(collections)
    await usages.add(USAGE)
    moment, wallet = Moment(END_MS, DAY), company_wallet_of(US)

    def take(account: Account, known: Entry | None) -> Any:
        return charge(
            account, known, usage=USAGE, moment=moment, recharge_id="r", largest_recharge_minor=10**12
        )

    entry = await ledger.change(wallet, "USD", take, source=USAGE.source)
    assert await usages.move(settled_by(USAGE, entry), expect=UsageStatus.QUEUED)

    def give(account: Account, known: Entry | None) -> Any:
        return refund(account, known, charged=entry, company_id=US, reason="Why.", by="a", moment=moment)

    await ledger.change(wallet, "USD", give, source=refund_source("u1"))
    rollups = Rollups(ledger=ledger, counters=await CollectionCounters.open(collections), asset="USD")
    assert await rollups.count(US) == 3
    return usages


async def test_books_in_order_are_clean_and_what_waits_is_told(db: MongoDatabase) -> None:
    async with a_ledger(db) as ledger:
        usages = await charged(db, ledger)
    found = await verified(db)
    assert (found.broken, found.unfinished) == ([], [])
    assert found.counted.items() >= {"usages": 1, "usage counters": 2}.items()
    await usages.add(replace(USAGE, id="u2", event_id="e2"))
    assert rules((await verified(db)).unfinished) == {"a usage is charged"}


@pytest.mark.parametrize(
    ("name", "change", "rule"),
    [
        ("usages", {"status": "CHARGED"}, "a charged usage is the copy of its entry"),
        ("usages", {"company_id": "c2"}, "a usage's entry has its record"),
        ("usage_counters", {"series": []}, "a counter is the sum of its entries"),
        ("usage_counted", {"seq": 4}, "only entries are counted"),
        ("ledger_accounts", {"facts.spent_minor": 1}, "a company's totals are the sums of its entries"),
    ],
)
async def test_books_that_were_touched_are_broken(
    db: MongoDatabase, name: str, change: dict[str, Any], rule: str
) -> None:
    async with a_ledger(db) as ledger:
        await charged(db, ledger)
    touched = await db.collection(name).update_many({}, {"$set": change})
    assert touched.modified_count > 0
    assert rule in rules((await verified(db)).broken)
