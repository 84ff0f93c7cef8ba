"""How long `GET /admin/metrics` counts on a file with two months of calls: `python -m bench.admin_metrics [calls a month]`."""

import asyncio
import random
import sqlite3
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import orjson

from billing_engine.ledger.service import Ledger
from billing_engine.money import USD
from server.admin.ai_metrics import AiMetrics
from server.clock import SystemClock
from server.payment_reports import day_bounds
from server.people.model import local_day
from server.settings import Settings
from server.storage.repositories.ai_calls import AI_CALLS, CollectionCalls
from server.storage.repositories.ai_days import CollectionDays
from server.storage.repositories.headcount import CollectionHeadcount
from server.storage.repositories.subscriptions import CollectionSubscriptions, CollectionTierChanges
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from server.storage.sqlite.ledger import SqliteLedgerStore
from server.storage.sqlite.tables import columns_of, table_of

_DAY_MS = 86_400_000


def _fill(path: Path, calls: int, now_ms: int, zone: ZoneInfo, models: list[tuple[str, str]]) -> None:
    rng = random.Random(3)
    columns = list(columns_of(AI_CALLS))
    connection = sqlite3.connect(path)
    names = ", ".join(f'"{name}"' for name in ("_id", *columns, "_body"))
    marks = ", ".join("?" * (len(columns) + 2))
    sql = f'INSERT INTO "{table_of(AI_CALLS)}" ({names}) VALUES ({marks})'

    def rows():  # type: ignore[no-untyped-def]
        for n in range(calls):
            at_ms = now_ms - rng.randrange(60 * _DAY_MS)
            day = local_day(at_ms, zone)
            provider, model = rng.choice(models)
            tokens = rng.randrange(100, 5_000)
            facts = {
                "user_id": f"u{rng.randrange(5_000)}",
                "outcome": "OK",
                "tally": f"{day}|{provider}|{model}",
                "started_at_ms": at_ms,
                "tokens": tokens,
                "cost_minor": tokens * 20,
                "credits_milli": tokens * 2,
                "is_open": False,
            }
            body = {"_id": f"{n:024x}", **facts, "day": day, "provider": provider, "model": model}
            yield (body["_id"], *(facts[name] for name in columns), orjson.dumps(body).decode())

    connection.executemany(sql, rows())
    connection.commit()
    connection.close()


async def main(calls_a_month: int) -> None:
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    clock, zone = SystemClock(), settings.zone
    bounds = partial(day_bounds, zone=zone)
    models = [(price.provider.value, price.model) for price in settings.model_prices()]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "metrics.db"
        for round_ in range(2):
            async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
                collections = SqliteCollections(db)
                store = SqliteLedgerStore(db)
                await store.prepare()
                ledger = Ledger(store, clock, lambda at_ms: local_day(at_ms, zone))
                calls = await CollectionCalls.open(collections)
                metrics = AiMetrics(
                    calls=await CollectionDays.open(
                        collections, calls, clock, day_of=ledger.day_of, bounds=bounds
                    ),
                    changes=await CollectionTierChanges.open(collections),
                    subscriptions=await CollectionSubscriptions.open(collections),
                    heads=await CollectionHeadcount.open(collections),
                    sales=ledger,
                    clock=clock,
                    day_of=ledger.day_of,
                    bounds=bounds,
                    rules=settings.metric_rules(),
                    targets={},
                    asset=USD,
                    timezone=settings.timezone,
                )
                if round_ == 1:
                    for look in ("first look ever", "second look", "third look"):
                        began = time.perf_counter()
                        report = await metrics._counted()
                        spent = time.perf_counter() - began
                        print(
                            f"{look}: {spent * 1000:.0f} ms, {report.month['requests'].value} requests this month"
                        )
            if round_ == 0:
                _fill(path, 2 * calls_a_month, clock.now_ms(), zone, models)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
