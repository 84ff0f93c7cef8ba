"""`Counters` of the usage meter's rollups, over two collections."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Self

from billing_engine.usage.rollups import Counter
from billing_engine.usage.series import Kind, Series, Spending
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

#: `_id` is `company|month|scope`.
USAGE_COUNTERS: Final = CollectionSpec(
    name="usage_counters", text=("company_id", "month"), integer=("seq",), indexes=(("company_id", "month"),)
)
#: `_id` is the company.
USAGE_COUNTED: Final = CollectionSpec(name="usage_counted", integer=("seq",))


class CollectionCounters:
    """One document a month and scope, and one a company that says how far all of them have come."""

    def __init__(self, counters: Collection, counted: Collection) -> None:
        self._counters = counters
        self._counted = counted

    @classmethod
    async def open(cls, collections: Collections) -> Self:
        return cls(await collections.open(USAGE_COUNTERS), await collections.open(USAGE_COUNTED))

    async def counted_upto(self, company_id: str) -> int:
        doc = await self._counted.get(company_id)
        return 0 if doc is None else int(doc["seq"])

    async def raise_upto(self, company_id: str, seq: int) -> None:
        if await self._counted.update(company_id, where={"seq": {"lt": seq}}, set_={"seq": seq}) is None:
            with suppress(DuplicateId):
                await self._counted.insert({"_id": company_id, "seq": seq})

    async def get_many(
        self, company_id: str, months: Sequence[str], scopes: Sequence[str]
    ) -> dict[tuple[str, str], Counter]:
        ids = [_row(company_id, month, scope) for month in months for scope in scopes]
        found = await self._counters.get_many(ids)
        counters = map(counter_of, found.values())
        return {(counter.month, counter.scope): counter for counter in counters}

    async def put(self, counter: Counter, *, expect_seq: int) -> bool:
        doc = _doc(counter)
        if expect_seq == 0:
            try:
                await self._counters.insert(doc)
            except DuplicateId:
                return False
            return True
        set_ = {"seq": counter.seq, "series": doc["series"]}
        return await self._counters.update(doc["_id"], where={"seq": expect_seq}, set_=set_) is not None


def _row(company_id: str, month: str, scope: str) -> str:
    return f"{company_id}|{month}|{scope}"


def _doc(counter: Counter) -> Doc:
    return {
        "_id": _row(counter.company_id, counter.month, counter.scope),
        "company_id": counter.company_id,
        "month": counter.month,
        "scope": counter.scope,
        "seq": counter.seq,
        "series": [[*kind, *total, days] for kind, (total, days) in counter.series.items()],
    }


def counter_of(doc: Doc) -> Counter:
    """The stored counter."""
    return Counter(
        company_id=doc["company_id"],
        month=doc["month"],
        scope=doc["scope"],
        seq=doc["seq"],
        series={
            Kind(type_, unit): Series(Spending(uses, quantity, cost_minor), days)
            for type_, unit, uses, quantity, cost_minor, days in doc["series"]
        },
    )
