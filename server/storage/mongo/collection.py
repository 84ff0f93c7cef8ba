"""The collection port over MongoDB. One document, one conditional write: nothing here needs a transaction."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, overload

from bson.errors import InvalidDocument
from pymongo import ReturnDocument
from pymongo.errors import DocumentTooLarge, DuplicateKeyError

from server.storage.collection import CollectionSpec, Doc, Sort, Where
from server.storage.documents import INT64_MAX, INT64_MIN, changed, check_changes, check_document, check_spec
from server.storage.errors import DuplicateId
from server.storage.mongo.client import MongoDatabase
from server.storage.mongo.failures import store_failures
from server.storage.mongo.filters import Filter, filter_of, sort_of
from server.storage.mongo.integers import int64
from server.storage.query import parse_sort, parse_where, ranges_after

#: Ids in one query.
_CHUNK: Final = 1_000
#: Sums are made of two halves that cannot overflow, see `sum_by`.
_HALF: Final = 2**32


class MongoCollections:
    """Hands out collections of one database."""

    def __init__(self, db: MongoDatabase) -> None:
        self._db = db
        self._specs: dict[str, CollectionSpec] = {}

    async def open(self, spec: CollectionSpec) -> "MongoCollection":
        """The collection, with the indexes of `spec`. Indexes of an older or newer version stay: it may still be running.

        Raises:
            ValueError: the spec cannot be, or is not the one it was opened with before.
            StoreUnavailable: the server does not answer.
        """
        check_spec(spec)
        if self._specs.setdefault(spec.name, spec) != spec:
            raise ValueError(f"{spec.name} was opened with another spec")
        await self._db.make_indexes(spec.name, indexes_of(spec))
        return MongoCollection(self._db, spec)


def indexes_of(spec: CollectionSpec) -> tuple[tuple[str, ...], ...]:
    """The fields of each index, all ascending (the server reads them backwards as well). `_id` breaks ties, so it is part of each."""
    return tuple(index if "_id" in index else (*index, "_id") for index in spec.indexes)


class MongoCollection:
    """One collection; `server.storage.collection.Collection` says what each method promises.

    What a lost reply means: `insert` repeated is answered by `DuplicateId`, so a caller that repeats reads what stands there;
    `update` with `inc` is not to be repeated blindly. On a replica set the driver repeats each write once by itself, and the server
    knows the repeat; only when that fails as well the caller hears `StoreUnavailable`.
    """

    def __init__(self, db: MongoDatabase, spec: CollectionSpec) -> None:
        self._db = db
        self._spec = spec
        self._collection = db.collection(spec.name)

    async def insert(self, doc: Doc) -> None:
        check_document(self._spec, doc)
        stored = int64(doc)
        with self._writing():
            try:
                await self._collection.insert_one(stored)
            except DuplicateKeyError as exc:
                raise DuplicateId(self._spec.name, doc["_id"]) from exc

    async def get(self, id_: str) -> Doc | None:
        with store_failures:
            found: Doc | None = await self._collection.find_one({"_id": id_})
        return self._read(found)

    async def get_many(self, ids: Sequence[str]) -> dict[str, Doc]:
        wanted = list(dict.fromkeys(ids))
        found: dict[str, Doc] = {}
        for first in range(0, len(wanted), _CHUNK):
            chunk = wanted[first : first + _CHUNK]
            with store_failures:
                docs = await self._collection.find({"_id": {"$in": chunk}}).to_list(None)
            found.update((doc["_id"], doc) for doc in map(self._read, docs))
        return found

    async def find(
        self,
        where: Where,
        *,
        sort: Sort = (("_id", "asc"),),
        limit: int = 100,
        after: Sequence[Any] | None = None,
    ) -> list[Doc]:
        """As the port says. The page is no snapshot: its ranges are read one after another, and the server may let writes happen
        while it reads one. What the port promises holds without: no document comes twice, and none whose sort key stays the same is
        left out.
        """
        terms = parse_where(self._spec, where)
        order = parse_sort(self._spec, sort)
        ranges = ranges_after(self._spec, order, after)
        if limit < 1:
            raise ValueError(f"{self._spec.name}: a page of {limit}")
        found: dict[str, Doc] = {}
        for range_ in ranges:
            if len(found) >= limit:
                break
            query = filter_of(self._spec, (*terms, *range_))
            with store_failures:
                cursor = self._collection.find(query, sort=sort_of(order), limit=limit - len(found))
                docs = await cursor.to_list(None)
            for doc in map(self._read, docs):
                # It moved from a range that we have read to this one: the first reading has its place in the page.
                found.setdefault(doc["_id"], doc)
        return list(found.values())

    async def update(
        self,
        id_: str,
        *,
        where: Where | None = None,
        set_: Mapping[str, Any] | None = None,
        inc: Mapping[str, int] | None = None,
    ) -> Doc | None:
        matching = self._one(id_, where)
        check_changes(self._spec, set_, inc)
        news, steps = int64(dict(set_ or {})), dict(inc or {})
        while True:
            new = self._read(await self._change(matching, news, steps))
            if new is not None or not steps:
                return new
            # Either `where` or one of the steps did not hold: which one, only the document can tell.
            with store_failures:
                doc = await self._collection.find_one(matching)
            if doc is None:
                return None
            changed(doc, news, steps)  # raises ValueError for the step that cannot be
            # It can be by now: somebody else's write made room since. Each round follows such a write.

    async def _change(self, matching: Filter, news: Filter, steps: Mapping[str, int]) -> Doc | None:
        """One conditional write. The conditions of `steps` make the server refuse an overflow, and a field that holds no integer."""
        if not news and not steps:
            with store_failures:
                same: Doc | None = await self._collection.find_one(matching)
            return same
        conditions = [matching, *(_has_room(name, step) for name, step in steps.items())]
        change: Filter = {}
        if news:
            change["$set"] = news
        if steps:
            change["$inc"] = int64(dict(steps))
        with self._writing():
            new: Doc | None = await self._collection.find_one_and_update(
                {"$and": conditions}, change, return_document=ReturnDocument.AFTER
            )
        return new

    async def upsert(self, doc: Doc) -> None:
        check_document(self._spec, doc)
        stored = int64(doc)
        while True:
            with self._writing():
                try:
                    await self._collection.replace_one({"_id": doc["_id"]}, stored, upsert=True)
                except DuplicateKeyError:
                    continue  # another one inserted it between the server's two steps: now it is there to be replaced
            return

    async def delete(self, id_: str, *, where: Where | None = None) -> bool:
        matching = self._one(id_, where)
        with store_failures:
            result = await self._collection.delete_one(matching)
        return bool(result.deleted_count)

    async def count(self, where: Where) -> int:
        matching = filter_of(self._spec, parse_where(self._spec, where))
        with store_failures:
            return int(await self._collection.count_documents(matching))

    async def sum_by(
        self, field_name: str, *, group_by: str | None = None, where: Where | None = None
    ) -> dict[Any, tuple[int, int]]:
        if field_name not in self._spec.integer:
            raise ValueError(f"{self._spec.name}: {field_name!r} is no declared integer")
        if group_by is not None:
            parse_sort(self._spec, [(group_by, "asc")])
        matching = filter_of(self._spec, parse_where(self._spec, where))
        # The server turns a sum beyond 64 bits into a float. The lower halves are summed apart from the upper ones; these are divided
        # into a float, which is exact: at most 31 bits each, so four million of the greatest numbers fit its 53.
        low: Filter = {"$mod": [f"${field_name}", int64(_HALF)]}
        high: Filter = {"$divide": [{"$subtract": [f"${field_name}", low]}, int64(_HALF)]}
        groups = await self._db.aggregate(
            self._spec.name,
            [
                *([{"$match": matching}] if matching else []),
                {
                    "$group": {
                        "_id": None if group_by is None else f"${group_by}",
                        "low": {"$sum": low},
                        "high": {"$sum": high},
                        "number": {"$sum": 1},
                    }
                },
            ],
        )
        sums: dict[Any, tuple[int, int]] = {}
        for group in groups:
            total = _exact(group["high"]) * _HALF + _exact(group["low"])
            if not INT64_MIN <= total <= INT64_MAX:
                raise ValueError(f"{self._spec.name}: the sum of {field_name} does not fit 64 bits")
            value = group["_id"]
            key = bool(value) if group_by in self._spec.boolean and value is not None else value
            sums[key] = (total, int(group["number"]))
        return sums

    @overload
    def _read(self, doc: Doc) -> Doc: ...
    @overload
    def _read(self, doc: None) -> None: ...
    def _read(self, doc: Doc | None) -> Doc | None:
        """The document as it was written. The stand-in keeps a boolean that `$set` sets as 0 or 1 (and finds it as either)."""
        if doc is not None:
            for name in self._spec.boolean:
                if isinstance(doc.get(name), int):
                    doc[name] = bool(doc[name])
        return doc

    def _one(self, id_: str, where: Where | None) -> Filter:
        matching = filter_of(self._spec, parse_where(self._spec, where))
        return {"$and": [{"_id": {"$eq": id_}}, *matching.get("$and", ())]}

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Trouble is `StoreUnavailable`; what BSON cannot hold is the caller's mistake, as it is for every engine."""
        with store_failures:
            try:
                yield
            except (InvalidDocument, DocumentTooLarge) as exc:
                raise ValueError(f"{self._spec.name}: {exc}") from exc


def _has_room(name: str, step: int) -> Filter:
    """The field is missing, or an integer that stays one of 64 bits. (All our numbers are: `int64`.)"""
    least, most = max(INT64_MIN, INT64_MIN - step), min(INT64_MAX, INT64_MAX - step)
    return {
        "$or": [
            {name: {"$exists": False}},
            {name: {"$type": "long", "$gte": int64(least), "$lte": int64(most)}},
        ]
    }


def _exact(value: float | None) -> int:
    """A sum as an integer; null is the sum over no number at all. Raises `ValueError` for one that has lost digits."""
    if value is None:
        return 0
    if isinstance(value, float) and (abs(value) >= 2**53 or not value.is_integer()):
        raise ValueError(f"an inexact sum: {value}")
    return int(value)
