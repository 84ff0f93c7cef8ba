"""The ledger's documents and rows in MongoDB: one conditional write on one account document decides, redo follows (LEDGER 1).

No multi-document transaction anywhere. `ledger_accounts` has a document for each account, by name; `ledger_entries` a row for each
copied-out entry, by key, with its transfers in it: a row and what reports read of it are one insert.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from bson import Int64
from pymongo import ASCENDING, IndexModel, InsertOne, UpdateOne
from pymongo.errors import BulkWriteError, OperationFailure

from billing_engine.errors import InvariantBroken
from billing_engine.ledger.model import Entry, effect_on
from billing_engine.ledger.ports import Activity, Booked, Line, Moved, OpenHold, Row, Total, Versioned, Write
from server.storage.documents import INT64_MAX, INT64_MIN
from server.storage.errors import StoreUnavailable
from server.storage.mongo.client import MongoDatabase
from server.storage.mongo.failures import is_duplicate, is_trouble, store_failures
from server.storage.mongo.integers import int64
from server.storage.mongo.ledger_documents import (
    encoded,
    new_account,
    new_row,
    row_of,
    same_entry,
    state_of,
    versioned_of,
)
from server.storage.mongo.ledger_reports import day_and_kind, on_days, summed, sums_of, unwound

ACCOUNTS: Final = "ledger_accounts"
ENTRIES: Final = "ledger_entries"


class Index(NamedTuple):
    """One index of the ledger: all fields ascending."""

    collection: str
    fields: tuple[str, ...]
    unique: bool
    serves: str


INDEXES: Final = (
    Index(ACCOUNTS, ("pending",), False, "redo: accounts with a tail or with credits to forget"),
    Index(ACCOUNTS, ("owners",), False, "takeover: accounts with holds of one owner"),
    Index(ENTRIES, ("account", "seq"), True, "an account's entries are numbered once"),
    Index(ENTRIES, ("touches", "atMs", "_id"), False, "an account's history, newest first; its balance"),
    Index(ENTRIES, ("touches", "day"), False, "what an account was credited with on a day or in a month"),
    Index(ENTRIES, ("state", "asset", "day", "kind", "quantity"), False, "reports of days"),
    Index(ENTRIES, ("atMs",), False, "the newest instant, at start"),
)

#: The server's own guard: no balance below its floor, whatever a bug above decides.
FLOOR_GUARD: Final[dict[str, Any]] = {
    "$expr": {
        "$and": [
            {"$gte": ["$held", 0]},
            {"$or": [{"$eq": ["$floor", None]}, {"$gte": [{"$subtract": ["$posted", "$held"]}, "$floor"]}]},
        ]
    }
}
#: Ids in one query.
_CHUNK: Final = 1_000
_NAMESPACE_EXISTS: Final = 48


class MongoLedgerStore:
    """`LedgerStore` on MongoDB. Reads what a majority holds; a write has happened once a majority has it."""

    atomic = False

    def __init__(self, db: MongoDatabase) -> None:
        self._db = db
        self._accounts = db.collection(ACCOUNTS)
        self._entries = db.collection(ENTRIES)

    async def prepare(self) -> None:
        """Make missing collections and indexes, and the guard of floors on a replica set. Raises `StoreUnavailable`."""
        if self._db.replicated:
            await self._guard_floors()
        for collection in (ACCOUNTS, ENTRIES):
            mine = [index for index in INDEXES if index.collection == collection]
            await self._db.make_indexes(collection, [index.fields for index in mine if not index.unique])
            unique = [
                IndexModel([(field, ASCENDING) for field in index.fields], unique=True)
                for index in mine
                if index.unique
            ]
            if unique:
                with store_failures:
                    await self._db.collection(collection).create_indexes(unique)

    async def _guard_floors(self) -> None:
        try:
            await self._db.command({"create": ACCOUNTS, "validator": FLOOR_GUARD})
        except OperationFailure as exc:
            if exc.code != _NAMESPACE_EXISTS:
                raise
            listed = await self._db.command({"listCollections": 1, "filter": {"name": ACCOUNTS}})
            (collection,) = listed["cursor"]["firstBatch"]
            # To change one takes a right that the server's account may not have: only where it differs.
            if collection["options"].get("validator") != FLOOR_GUARD:
                await self._db.command({"collMod": ACCOUNTS, "validator": FLOOR_GUARD})

    async def load(self, account_ids: Sequence[str]) -> dict[str, Versioned]:
        return {
            found.account.id: found
            for document in await self._by_id(self._accounts, account_ids)
            for found in (versioned_of(document),)
        }

    async def rows(self, keys: Sequence[str]) -> dict[str, Row]:
        documents = await self._by_id(self._entries, keys)
        return {document["_id"]: row_of(document) for document in documents}

    async def commit(self, writes: Sequence[Write]) -> list[str]:
        """All in one unordered bulk. What counts in the end is whose token stands: a write that the driver sent twice, because the
        first reply was lost, finds its own.
        """
        # All of them before any is sent: nothing of the call is written if one cannot be.
        operations = [_operation(write) for write in writes]
        if not operations:
            return []
        refused: BulkWriteError | None = None
        with store_failures:
            try:
                result = await self._accounts.bulk_write(operations, ordered=False)
                if result.matched_count + result.inserted_count == len(operations):
                    return []
            except BulkWriteError as exc:
                if is_trouble(exc):
                    raise
                if not is_duplicate(exc):
                    refused = exc
        return await self._settled(writes, refused)

    async def _settled(self, writes: Sequence[Write], refused: BulkWriteError | None) -> list[str]:
        """Read the versions back: the accounts where another token stands than the one written."""
        stored = {
            document["_id"]: document
            for document in await self._by_id(
                self._accounts, [write.account.id for write in writes], {"version": 1, "floor": 1}
            )
        }
        moved = [
            write for write in writes if stored.get(write.account.id, {}).get("version") != write.version
        ]
        # One that the guard keeps refusing is left alone by its neighbours, whose tries succeed; then it is said.
        if len(moved) == len(writes) and (
            refused is not None or any(_is_low(write, stored.get(write.account.id)) for write in moved)
        ):
            raise InvariantBroken(rule="the store refuses this write", cause=str(refused or "floor"))
        return [write.account.id for write in moved]

    async def insert_rows(self, entries: Iterable[Entry]) -> None:
        wanted = list({entry.key: entry for entry in entries}.values())
        documents = [encoded(new_row(entry)) for entry in wanted]
        if not documents:
            return
        with store_failures:
            try:
                await self._entries.insert_many(documents, ordered=False)
            except BulkWriteError as exc:
                if is_trouble(exc):
                    raise
                if not is_duplicate(exc):
                    raise InvariantBroken(rule="the store refuses this write", cause=str(exc)) from exc
                known = [wanted[error["index"]] for error in exc.details["writeErrors"]]
            else:
                return
        await self._require_same(known)

    async def _require_same(self, known: Sequence[Entry]) -> None:
        stored = await self.rows([entry.key for entry in known])
        for entry in known:
            row = stored.get(entry.key)
            if row is None:
                # Not by its key: by its number. Or a rival has just copied it out and no majority has it yet.
                with store_failures:
                    other = await self._entries.find_one({"account": entry.account, "seq": Int64(entry.seq)})
                if other is None or other["_id"] == entry.key:
                    raise StoreUnavailable(reason="a row is on its way", key=entry.key)
                raise InvariantBroken(rule="an entry's number is its own", key=entry.key, other=other["_id"])
            if not same_entry(row.entry, entry):
                raise InvariantBroken(rule="a key ends once", key=entry.key)

    async def mark_applied(self, credits_after: Mapping[str, Mapping[str, int]]) -> None:
        operations = [
            UpdateOne(
                {"_id": key, "applied": False},
                {"$set": encoded({"applied": True, "creditsAfter": sorted(after.items())})},
            )
            for key, after in credits_after.items()
        ]
        if operations:
            with store_failures:
                await self._entries.bulk_write(operations, ordered=False)

    async def pending(self) -> list[str]:
        with store_failures:
            found = await self._accounts.find({"pending": True}, {"_id": 1}).to_list(None)
        return [document["_id"] for document in found]

    async def open_holds(self, prefix: str, *, owner: str | None = None) -> list[OpenHold]:
        return [
            OpenHold(found.account.id, hold.id, hold.owner, hold.epoch)
            for found in await self._holding(owner)
            for hold in found.account.holds.values()
            if hold.id.startswith(prefix) and owner in (None, hold.owner)
        ]

    async def _holding(self, owner: str | None = None) -> list[Versioned]:
        """Accounts with a hold, or with one of this owner. Every owner is a text, so "at least the empty one" means any."""
        wanted: dict[str, Any] = {"$gte": ""} if owner is None else {"$in": [owner]}
        with store_failures:
            found = await self._accounts.find({"owners": wanted}).to_list(None)
        return [versioned_of(document) for document in found]

    async def last_instant_ms(self) -> int:
        """The newest instant that an entry or an open hold carries, 0 for an empty ledger: no clock may start before it."""
        with store_failures:
            newest = await self._entries.find_one({}, {"atMs": 1}, sort=[("atMs", -1)])
        # Holds as they are now, tails as well: an entry that is not copied out yet has an instant, too.
        with store_failures:
            left = await self._accounts.find({"pending": True}).to_list(None)
        instants = [newest["atMs"] if newest else 0]
        instants += [entry.at_ms for document in left for entry in versioned_of(document).account.tail]
        for found in await self._holding():
            instants += [hold.facts.get("evidenceAt", 0) for hold in found.account.holds.values()]
        return max(instants)

    async def lines(
        self,
        account_id: str,
        *,
        limit: int,
        before: tuple[int, str] | None = None,
        kinds: Sequence[str] | None = None,
    ) -> list[Line]:
        terms: list[dict[str, Any]] = [_touching(account_id)]
        if before is not None:
            at_ms, key = Int64(before[0]), before[1]
            # The first of the two bounds the index; the other one cuts within the millisecond.
            terms += [
                {"atMs": {"$lte": at_ms}},
                {"$or": [{"atMs": {"$lt": at_ms}}, {"atMs": at_ms, "_id": {"$lt": key}}]},
            ]
        if kinds is not None:
            some = {"$in": list(kinds)}
            sides = [
                {"transfers": {"$elemMatch": {side: account_id, "kind": some}}}
                for side in ("debit", "credit")
            ]
            terms.append({"$or": sides})
        with store_failures:
            cursor = self._entries.find({"$and": terms}, sort=[("atMs", -1), ("_id", -1)], limit=limit)
            found = await cursor.to_list(None)
        return [_line(row_of(document), account_id) for document in found]

    async def entries(
        self,
        account_id: str,
        *,
        above: int = 0,
        below: int | None = None,
        limit: int,
        newest_first: bool = False,
    ) -> list[Entry]:
        within: dict[str, Any] = {"$gt": Int64(above)}
        if below is not None:
            within["$lt"] = Int64(below)
        with store_failures:
            cursor = self._entries.find(
                {"account": account_id, "seq": within}, sort=[("seq", -1 if newest_first else 1)], limit=limit
            )
            found = await cursor.to_list(None)
        return [row_of(document).entry for document in found]

    async def total_credited(self, account_id: str, *, kinds: Sequence[str], day_prefix: str = "") -> Total:
        return await self._total("credit", account_id, kinds, day_prefix)

    async def total_debited(self, account_id: str, *, kinds: Sequence[str], day_prefix: str = "") -> Total:
        return await self._total("debit", account_id, kinds, day_prefix)

    async def _total(self, side: str, account_id: str, kinds: Sequence[str], day_prefix: str) -> Total:
        # '~' sorts after every digit and dash of a day.
        days = {"$gte": day_prefix, "$lt": day_prefix + "~"}
        stages = unwound(
            {**_touching(account_id), "day": days},
            {f"transfers.{side}": account_id, "transfers.kind": {"$in": list(kinds)}},
        )
        groups = await self._db.aggregate(ENTRIES, [*stages, *summed("$transfers.amount", account_id)])
        return Total(*next(iter(sums_of(groups).values()), (0, 0)))

    async def balance_of_rows(self, account_id: str, asset: str, *, before_day: str | None = None) -> int:
        here = [{"transfers.credit": account_id}, {"transfers.debit": account_id}]
        days = {} if before_day is None else {"day": {"$lt": before_day}}
        stages = unwound({**_touching(account_id), "asset": asset, **days}, {"$or": here})
        way = {"$cond": [{"$eq": ["$transfers.credit", account_id]}, "into", "out of"]}
        sums = sums_of(await self._db.aggregate(ENTRIES, [*stages, *summed("$transfers.amount", way)]))
        return sums.get("into", (0, 0))[0] - sums.get("out of", (0, 0))[0]

    async def activity(self, asset: str, *, first_day: str, last_day: str) -> Activity:
        """Of one snapshot on a replica set. Elsewhere the two sums are read one after the other, and what was copied out between
        them is in the second alone.
        """
        days = on_days(asset, first_day, last_day)
        async with self._db.snapshot() as session:
            moved = await self._db.aggregate(
                ENTRIES,
                [*unwound(days), *summed("$transfers.amount", day_and_kind("$transfers.kind"))],
                session=session,
            )
            booked = await self._db.aggregate(
                ENTRIES,
                [{"$match": days}, *summed("$quantity", day_and_kind("$kind"))],
                session=session,
            )
        return Activity(
            tuple(Moved(*_parted(by), *sums) for by, sums in sorted(sums_of(moved).items(), key=_in_order)),
            tuple(
                Booked(*_parted(by), number, quantity)
                for by, (quantity, number) in sorted(sums_of(booked).items(), key=_in_order)
            ),
        )

    async def _by_id(
        self, collection: Any, ids: Sequence[str], fields: dict[str, int] | None = None
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for chunk in _chunks(ids):
            with store_failures:
                found += await collection.find({"_id": {"$in": chunk}}, fields).to_list(None)
        return found


def _operation(write: Write) -> InsertOne[Any] | UpdateOne:
    if not write.expected:
        return InsertOne(encoded(new_account(write)))
    account = write.account
    spendable = min(max(account.posted - account.held, INT64_MIN), INT64_MAX)
    # The floor as it is stored: the server refuses, whatever this process believes.
    guard = [{"floor": None}, {"floor": {"$lte": int64(spendable)}}]
    # Terms of one "$and": beside a bare "$or" the tests' stand-in ignores the others.
    matching = {"$and": [{"_id": account.id}, {"version": write.expected}, {"$or": guard}]}
    return UpdateOne(encoded(matching), {"$set": encoded(state_of(write))})


def _touching(account_id: str) -> dict[str, Any]:
    # "In", not "equals": the stand-in finds nothing in an indexed list by equality.
    return {"touches": {"$in": [account_id]}}


def _is_low(write: Write, stored: Mapping[str, Any] | None) -> bool:
    """Whether only the floor can have refused the write: the version that it expected stands."""
    if stored is None or stored["version"] != write.expected or stored["floor"] is None:
        return False
    return bool(write.account.posted - write.account.held < stored["floor"])


def _line(row: Row, account_id: str) -> Line:
    entry = row.entry
    after = entry.posted_after if entry.account == account_id else row.credits_after.get(account_id)
    change = effect_on(account_id, entry.transfers)
    return Line(entry.key, entry.kind, entry.reference, entry.state, change, after, entry.at_ms, entry.facts)


def _parted(by: str) -> tuple[str, str]:
    day, _, kind = by.partition("|")
    return day, kind


def _in_order(item: tuple[str, Any]) -> tuple[str, str]:
    return _parted(item[0])


def _chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    unique = list(dict.fromkeys(ids))
    for start in range(0, len(unique), _CHUNK):
        yield unique[start : start + _CHUNK]
