"""The price book on MongoDB: two processes begin it at once, and change it at once."""

import asyncio
from contextlib import AsyncExitStack

from billing_engine.money import USD
from billing_engine.usage.price_seed import seed_prices
from billing_engine.usage.prices import PriceBook, WantedPrice, notice_ms
from server.price_file import load_price_file
from server.storage.mongo.client import MongoOptions, open_mongo
from server.storage.mongo.collection import MongoCollections
from server.storage.repositories.usage_prices import CollectionPriceRows
from tests.support.manual_clock import ManualClock


def wanted(number: int) -> WantedPrice:
    return WantedPrice(
        id=f"c{number}",
        list_name="tokens",
        type="cv-parsing",
        price_minor=number,
        by="admin",
        reason="Why",
    )


async def test_two_processes_on_mongodb(mongo_options: MongoOptions) -> None:
    clock, notice, file = ManualClock(), notice_ms(1_000), load_price_file(USD)
    async with AsyncExitStack() as stack:
        dbs = [await stack.enter_async_context(open_mongo(mongo_options)) for _ in range(2)]
        both = [await CollectionPriceRows.open(MongoCollections(db)) for db in dbs]
        await asyncio.gather(
            *(
                seed_prices(rows, clock, file.prices, version=1, currency="USD", notice_ms=notice)
                for rows in both
            )
        )
        assert len(await both[0].every()) == len(file.prices)
        books = [PriceBook(rows, clock, USD, notice_ms=notice) for rows in both]
        made = await asyncio.gather(*(books[n % 2].change(wanted(n)) for n in range(12)))
        assert len({row.from_ms for row in made}) == 12
        last = max(made, key=lambda row: row.from_ms)
        clock.jump_ms(notice + 60_000)
        for book in books:
            price = await book.price_at("tokens", "cv-parsing", clock.now_ms())
            assert price.price_minor == last.price_minor
            assert (await book.price_at("tokens", "cv-parsing", 0)).price_minor == 500_000
