"""A company with a long past, written straight into the server's SQLite file: usages, entries, transfers, jobs and counters that agree.

What stands in the file is what the server would have written: entries and the account's facts come out of the meter's own `charge`, rows
out of the stores' own code, counters out of `Rollups.count`. Only the way there is shorter: no HTTP, thousands of usages in one commit.
"""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from billing_engine.ledger.accounts import company_wallet_of
from billing_engine.ledger.model import Account, Entry
from billing_engine.ledger.ports import Row, Write
from billing_engine.ledger.service import Ledger
from billing_engine.money import USD
from billing_engine.usage import rollups
from billing_engine.usage.book import Moment, charge
from billing_engine.usage.days import day_in
from billing_engine.usage.model import (
    CV_PARSING,
    QUESTION_GENERATION,
    VIDEO_INTERVIEW,
    Price,
    Usage,
    UsageStatus,
    cost_of,
)
from billing_engine.usage.ports import Job
from billing_engine.usage.service import settled_by
from server.clock import SystemClock
from server.storage.repositories.usage_counters import CollectionCounters
from server.storage.repositories.usages import USAGES, CollectionJobs, _doc
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import Lane, SqliteDatabase, SqliteOptions, open_database
from server.storage.sqlite.ledger import SqliteLedgerStore

JOBS: Final = 200
DAYS: Final = 365
_DAY_MS: Final = 86_400_000
_AT_ONCE: Final = 20_000
_ZONE: Final = "Asia/Kolkata"
_PRICES: Final = (
    Price("tokens", CV_PARSING, "CV_PARSE", "cv", USD.scale // 2, 1, 0),
    Price("tokens", QUESTION_GENERATION, "JD_QUESTIONS", "token", USD.scale // 500, 1000, 0),
    Price("tokens", VIDEO_INTERVIEW, "VIDEO_INTERVIEW", "minute", USD.scale // 10, 1, 0),
)


def job_id(n: int) -> str:
    return f"job-{n:04d}"


async def write_history(path: Path, company_id: str, count: int) -> None:
    """`count` usages over the last 365 days, evenly over 200 jobs and three types: every job is used every day, which is the most that
    counters can have to say. The server has made the company and its money, and is stopped.
    """
    clock = SystemClock()
    async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
        store = SqliteLedgerStore(db)
        collections = SqliteCollections(db)
        first_ms = clock.now_ms() - DAYS * _DAY_MS + _DAY_MS // 2
        jobs = await CollectionJobs.open(collections)
        for n in range(JOBS):
            await jobs.make(Job(job_id(n), company_id, first_ms + n))
        usages = _usages(company_id, count, first_ms)
        began = time.monotonic()
        for done in range(0, count, _AT_ONCE):
            await _write_some(db, store, collections, company_id, usages, min(_AT_ONCE, count - done))
        print(f"{count} usages written in {time.monotonic() - began:.0f} s", flush=True)
        ledger = Ledger(store, clock, lambda at_ms: day_in(_ZONE, at_ms))
        await ledger.start()
        counting = rollups.Rollups(
            ledger=ledger, counters=await CollectionCounters.open(collections), asset=USD.code
        )
        began, rollups.CHUNK = time.monotonic(), _AT_ONCE  # type: ignore[misc]
        counted = await counting.count(company_id)
        print(f"{counted} entries counted in {time.monotonic() - began:.0f} s", flush=True)
        await ledger.stop()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _usages(company_id: str, count: int, first_ms: int) -> Iterator[Usage]:
    step_ms = (DAYS * _DAY_MS - _DAY_MS) / count
    for n in range(count):
        at_ms = first_ms + int(n * step_ms)
        price = _PRICES[n % len(_PRICES)]
        quantity = {"cv": 1, "token": 1 + n % 997, "minute": 1 + n % 61}[price.unit]
        yield Usage(
            id=f"{at_ms:012x}7{n & 0xFFF:03x}8{n:015x}",
            company_id=company_id,
            event_id=f"past-{n:09d}",
            # Not in step with the types.
            job_id=job_id((n // 3 * 7 + n) % JOBS),
            type=price.type,
            entry_type=price.entry_type,
            unit=price.unit,
            quantity=quantity,
            cost_minor=cost_of(quantity, price),
            list_name=price.list_name,
            status=UsageStatus.QUEUED,
            at_ms=at_ms,
            created_at_ms=at_ms,
            details={"candidateId": f"candidate-{n}", "priceMinor": price.price_minor, "per": price.per},
        )


async def _write_some(
    db: SqliteDatabase,
    store: SqliteLedgerStore,
    collections: SqliteCollections,
    company_id: str,
    usages: Iterator[Usage],
    count: int,
) -> None:
    wallet = company_wallet_of(company_id)
    found = (await store.load([wallet]))[wallet]
    account: Account = found.account
    rows: list[Row] = []
    docs = []
    for _ in range(count):
        usage = next(usages)
        moment = Moment(usage.at_ms, day_in(_ZONE, usage.at_ms))
        account, entry = charge(
            account, None, usage=usage, moment=moment, recharge_id="", largest_recharge_minor=0
        )
        assert isinstance(entry, Entry)
        account = account._replace(tail=())
        rows.append(Row(entry, applied=True, credits_after={}))
        docs.append(_doc(settled_by(usage, entry)))
    moved = await store.commit_all([Write(found.version, f"past-{account.seq}", account)], rows)
    assert not moved
    collection = await collections.open(USAGES)
    tuples = [collection._row(doc) for doc in docs]
    await db.write(Lane.REST, lambda connection: connection.executemany(collection._insert, tuples).rowcount)
