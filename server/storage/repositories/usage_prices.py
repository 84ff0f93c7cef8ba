"""What `billing_engine.usage` stores of its price book: dated rows, and the mark that the book has begun."""

from contextlib import suppress
from dataclasses import fields
from typing import Final

from billing_engine.usage.ports import PriceSeed
from billing_engine.usage.pricing import PriceRow
from server.storage.collection import Collection, Collections, CollectionSpec
from server.storage.errors import DuplicateId

PRICES: Final = CollectionSpec(name="usage_prices")
SEEDS: Final = CollectionSpec(name="usage_price_seeds")
_ROW: Final = tuple(field.name for field in fields(PriceRow))
_SEED: Final = tuple(field.name for field in fields(PriceSeed))
#: There is one book.
_BOOK: Final = "usage"
_PAGE: Final = 500


class CollectionPriceRows:
    """One document a row. Its `_id` is `list|type|from_ms`, so that one instant has one price; a first row's is `list|type|first`, so
    that two admins cannot both bring a type. None is ever changed.
    """

    def __init__(self, prices: Collection, seeds: Collection) -> None:
        self._prices = prices
        self._seeds = seeds

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionPriceRows":
        return cls(await collections.open(PRICES), await collections.open(SEEDS))

    async def every(self) -> list[PriceRow]:
        found: list[PriceRow] = []
        after: tuple[str] | None = None
        while True:
            page = await self._prices.find({}, limit=_PAGE, after=after)
            found += [PriceRow(**{name: doc[name] for name in _ROW}) for doc in page]
            if len(page) < _PAGE:
                return found
            after = (page[-1]["_id"],)

    async def add(self, row: PriceRow) -> bool:
        number = "first" if row.is_first else str(row.from_ms)
        facts = {name: getattr(row, name) for name in _ROW}
        try:
            await self._prices.insert({"_id": f"{row.list_name}|{row.type}|{number}", **facts})
        except DuplicateId:
            return False
        return True

    async def seed(self) -> PriceSeed | None:
        doc = await self._seeds.get(_BOOK)
        return None if doc is None else PriceSeed(**{name: doc[name] for name in _SEED})

    async def mark_seeded(self, seed: PriceSeed) -> None:
        facts = {name: getattr(seed, name) for name in _SEED}
        with suppress(DuplicateId):
            await self._seeds.insert({"_id": _BOOK, **facts})
