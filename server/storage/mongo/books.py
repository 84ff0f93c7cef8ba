"""The audit of a MongoDB database, beside running servers (LEDGER 7). Nothing is written, nothing repaired.

On a replica set all is read from one snapshot. Elsewhere (the stand-in of tests) account documents are read with their versions, then
rows, then the versions again: if none has moved, what was read in between belongs together, since every movement begins and ends with
a write on an account. Else it is read again, a bounded number of times; books that never stand still are *unfinished*, not clean, and
what was broken in every reading is broken.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from billing_engine.consultations.model import Session, TimelineRow
from billing_engine.ledger.model import KeyState
from billing_engine.ledger.ports import Activity, Booked, Moved
from billing_engine.verification import Finding, Findings
from server.storage.audit import Books, audit_books
from server.storage.mongo.client import MongoDatabase
from server.storage.mongo.failures import store_failures
from server.storage.mongo.ledger import ACCOUNTS, ENTRIES
from server.storage.mongo.ledger_documents import row_of, versioned_of
from server.storage.repositories.payouts import PAYOUTS, payout_of
from server.storage.repositories.sessions import SESSIONS, session_of
from server.storage.repositories.timeline import TIMELINE, row_of_doc

Document = Mapping[str, Any]

_READINGS: Final = 12


async def verify_books(db: MongoDatabase, *, now_ms: int, abandon_ms: int) -> Findings:
    """Recompute every balance and every bill. Raises `StoreUnavailable`: it cannot be read, which is no verdict."""
    if db.replicated:
        with store_failures:
            async with db.snapshot() as snapshot:
                return audit_books(await _read(db, snapshot), now_ms=now_ms, abandon_ms=abandon_ms)
    always: set[Finding] | None = None
    for _ in range(_READINGS):
        books = await _read(db, None)
        after = {d["_id"]: d["version"] async for d in _documents(db, ACCOUNTS, None, {"version": 1})}
        found = audit_books(books, now_ms=now_ms, abandon_ms=abandon_ms)
        if after == {document.account.id: document.version for document in books.documents}:
            return found
        always = set(found.broken) if always is None else always & set(found.broken)
    moving = Findings(
        broken=[one for one in found.broken if one in (always or ())],
        counted=found.counted,
        unfinished=found.unfinished,
    )
    moving.waits(
        "the books stand still while they are read", db.name, f"they moved in each of {_READINGS} readings"
    )
    return moving


async def _read(db: MongoDatabase, snapshot: Any) -> Books:
    documents = [versioned_of(d) async for d in _documents(db, ACCOUNTS, snapshot)]
    sessions: list[Session] = [session_of(d) async for d in _documents(db, SESSIONS.name, snapshot)]
    entries = [d async for d in _documents(db, ENTRIES, snapshot)]
    timeline: list[TimelineRow] = [row_of_doc(d) async for d in _documents(db, TIMELINE.name, snapshot)]
    payouts = [payout_of(d) async for d in _documents(db, PAYOUTS.name, snapshot)]
    return Books(
        documents=documents,
        rows=[row_of(entry) for entry in entries],
        reported_credits=_credits(entries),
        reported_activity=_activity(entries),
        sessions=sessions,
        timeline=timeline,
        payouts=payouts,
    )


async def _documents(
    db: MongoDatabase, name: str, snapshot: Any, projection: dict[str, int] | None = None
) -> Any:
    with store_failures:
        async for document in db.collection(name).find({}, projection, session=snapshot):
            yield document


def _credits(entries: Iterable[Document]) -> dict[str, int]:
    """What each account was credited with, as reports find it: by the accounts that an entry touches."""
    credited: Counter[str] = Counter()
    for entry in entries:
        for transfer in entry["transfers"]:
            if transfer["credit"] in entry["touches"]:
                credited[transfer["credit"]] += transfer["amount"]
    return dict(credited)


def _activity(entries: Iterable[Document]) -> dict[str, Activity]:
    """All days of every asset, from the fields that reports group by."""
    moved: dict[str, dict[tuple[str, str], list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    booked: dict[str, dict[tuple[str, str], list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for entry in entries:
        if entry["state"] != KeyState.POSTED.value:
            continue
        day = entry["day"]
        of_entry = booked[entry["asset"]][day, entry["kind"]]
        of_entry[0] += 1
        of_entry[1] += entry["quantity"]
        for transfer in entry["transfers"]:
            of_transfer = moved[entry["asset"]][day, transfer["kind"]]
            of_transfer[0] += transfer["amount"]
            of_transfer[1] += 1
    return {
        asset: Activity(
            tuple(Moved(day, kind, amount, number) for (day, kind), (amount, number) in moved[asset].items()),
            tuple(
                Booked(day, kind, number, quantity)
                for (day, kind), (number, quantity) in booked[asset].items()
            ),
        )
        for asset in booked
    }
