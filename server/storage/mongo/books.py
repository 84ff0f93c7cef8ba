"""The audit of a MongoDB database, beside running servers (LEDGER 7). Nothing is written, nothing repaired.

On a replica set all is read from one snapshot. Elsewhere (the stand-in of tests) account documents are read, then rows, then the
accounts again: if none has moved, what was read in between belongs together, since every movement begins and ends with a write on
an account. A slice of a running session is no movement: it only holds more, and running sessions write one every few seconds. Else
it is read again, a bounded number of times. Books that never stand still are *unfinished*, not clean; broken is then what was found
of an account that stood still in that reading (whoever pays it writes on it, too), and what was found in every reading.
"""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from billing_engine.consultations.billing import hold_id_of
from billing_engine.consultations.model import Session, TimelineRow
from billing_engine.ledger.model import KeyState
from billing_engine.ledger.ports import Activity, Booked, Moved, Row, Versioned
from billing_engine.usage.audit import UsageRecords
from billing_engine.verification import Finding, Findings
from server.storage.audit import Books, audit_books
from server.storage.mongo.client import MongoDatabase
from server.storage.mongo.failures import store_failures
from server.storage.mongo.ledger import ACCOUNTS, ENTRIES
from server.storage.mongo.ledger_documents import row_of, touches_of, versioned_of
from server.storage.repositories.ai_calls import AI_CALLS, call_of
from server.storage.repositories.ai_days import AI_DAYS, used_of
from server.storage.repositories.credits import APPLICATIONS, PROJECTS, application_of, project_of
from server.storage.repositories.payer_refunds import DISPUTES, PAYER_REFUNDS, dispute_of, refund_of
from server.storage.repositories.payments import PAYMENTS, payment_of
from server.storage.repositories.payouts import PAYOUTS, payout_of
from server.storage.repositories.refunds import (
    REFUND_BOOKS,
    REFUND_REQUESTS,
    refund_book_of,
    refund_request_of,
)
from server.storage.repositories.sessions import SESSIONS, session_of
from server.storage.repositories.timeline import TIMELINE, row_of_doc
from server.storage.repositories.usage_counters import USAGE_COUNTED, USAGE_COUNTERS, counter_of
from server.storage.repositories.usages import USAGES, usage_of

Document = Mapping[str, Any]
Made = TypeVar("Made")

_READINGS: Final = 12
#: How a session's hold begins.
HOLDS: Final = hold_id_of("")
_EPOCH: Final = dt.date(1970, 1, 1)
_HOUR_MS: Final = 3_600_000
#: What a document that somebody has rewritten raises when it is read.
_MALFORMED: Final = (AttributeError, IndexError, KeyError, TypeError, ValueError)


async def verify_books(db: MongoDatabase, *, now_ms: int, abandon_ms: int) -> Findings:
    """Recompute every balance and every bill. Raises `StoreUnavailable`: it cannot be read, which is no verdict."""
    if db.replicated:
        with store_failures:
            async with db.snapshot() as snapshot:
                books, found = await _read(db, snapshot)
                return _with(found, audit_books(books, now_ms=now_ms, abandon_ms=abandon_ms))
    proven: dict[tuple[str, str], Finding] = {}
    always: set[Finding] | None = None
    for _ in range(_READINGS):
        before: dict[str, Any] = {}
        books, found = await _read(db, None, before)
        after = {d["_id"]: _standing(d) async for d in _documents(db, ACCOUNTS, None)}
        found = _with(found, audit_books(books, now_ms=now_ms, abandon_ms=abandon_ms))
        if after == before:
            return found
        still = {id_ for id_, standing in before.items() if after.get(id_) == standing}
        proven |= {(one.rule, one.subject): one for one in found.broken if one.subject in still}
        always = set(found.broken) if always is None else always & set(found.broken)
    repeated = [
        one for one in found.broken if one in (always or ()) and (one.rule, one.subject) not in proven
    ]
    moving = Findings(
        broken=[*proven.values(), *repeated],
        counted=found.counted,
        unfinished=found.unfinished,
    )
    moving.waits(
        "the books stand still while they are read", db.name, f"they moved in each of {_READINGS} readings"
    )
    return moving


def _with(found: Findings, more: Findings) -> Findings:
    return Findings(found.unfinished + more.unfinished, found.broken + more.broken, more.counted)


def _standing(document: Document) -> Any:
    """What of an account's document changes with a movement. Of a session's hold: whose it is, and how far its timeline is; more in
    it, and later evidence, are no movement.
    """
    try:
        account = versioned_of(document).account
        holds = {
            id_: (hold.owner, hold.epoch, hold.facts["k"], tuple(row[0] for row in hold.facts["trail"]))
            if id_.startswith(HOLDS)
            else hold
            for id_, hold in account.holds.items()
        }
    except _MALFORMED:
        return document.get("version")
    return account._replace(holds={}, held=0), holds


async def _read(
    db: MongoDatabase, snapshot: Any, standing: dict[str, Any] | None = None
) -> tuple[Books, Findings]:
    """All there is, and what is wrong with single documents. `standing` is filled with what the accounts were like."""
    found = Findings()

    async def all_of(name: str, make: Callable[[Document], Made]) -> list[Made]:
        made: list[Made] = []
        async for document in _documents(db, name, snapshot):
            try:
                made.append(make(document))
            except _MALFORMED as exc:
                found.require(False, "a document has its fields", f"{name} {document['_id']}", repr(exc))
        return made

    def account_of(document: Document) -> Versioned:
        if standing is not None:
            standing[document["_id"]] = _standing(document)
        return _account(document, found)

    documents = await all_of(ACCOUNTS, account_of)
    sessions: list[Session] = await all_of(SESSIONS.name, lambda document: session_of(dict(document)))
    entries = await all_of(ENTRIES, lambda document: (document, _row(document, found)))
    timeline: list[TimelineRow] = await all_of(TIMELINE.name, lambda document: row_of_doc(dict(document)))
    payments = await all_of(PAYMENTS.name, lambda document: payment_of(dict(document)))
    payer_refunds = await all_of(PAYER_REFUNDS.name, lambda document: refund_of(dict(document)))
    disputes = await all_of(DISPUTES.name, lambda document: dispute_of(dict(document)))
    payouts = await all_of(PAYOUTS.name, lambda document: payout_of(dict(document)))
    refund_books = await all_of(REFUND_BOOKS.name, lambda document: refund_book_of(dict(document)))
    requests = await all_of(REFUND_REQUESTS.name, lambda document: refund_request_of(dict(document)))
    applications = await all_of(APPLICATIONS.name, lambda document: application_of(dict(document)))
    projects = await all_of(PROJECTS.name, lambda document: project_of(dict(document)))
    calls = await all_of(AI_CALLS.name, lambda document: call_of(dict(document)))
    days = await all_of(AI_DAYS.name, lambda document: (document["_id"], used_of(dict(document))))
    # How far all count before the counters themselves: they may be raised meanwhile.
    counted = await all_of(USAGE_COUNTED.name, lambda document: (str(document["_id"]), int(document["seq"])))
    counters = await all_of(USAGE_COUNTERS.name, lambda document: counter_of(dict(document)))
    usages = await all_of(USAGES.name, lambda document: usage_of(dict(document)))
    books = Books(
        documents=documents,
        rows=[row for _, row in entries],
        reported_credits=_credits(entry for entry, _ in entries),
        reported_activity=_activity([entry for entry, _ in entries]),
        sessions=sessions,
        timeline=timeline,
        payments=payments,
        payer_refunds=payer_refunds,
        disputes=disputes,
        payouts=payouts,
        refund_books=refund_books,
        refund_requests=requests,
        applications=applications,
        projects=projects,
        calls=calls,
        call_days=dict(days),
        metered=UsageRecords(usages=usages, counters=counters, counted=dict(counted)),
    )
    return books, found


def _account(document: Document, found: Findings) -> Versioned:
    """It must be found by what is wanted of it: redo looks for `pending`, takeover for `owners`."""
    versioned = versioned_of(document)
    account = versioned.account
    left, owners = bool(account.tail or account.credited), {hold.owner for hold in account.holds.values()}
    found.require(
        (document["pending"], set(document["owners"])) == (left, owners),
        "an account is found by what it has left",
        account.id,
        f"pending {document['pending']}, owners {document['owners']}; of its holds {sorted(owners)}",
    )
    return versioned


def _row(document: Document, found: Findings) -> Row:
    """Histories look for `touches`. Reports add up by `day`, of which there is no second copy: it is held against the instant."""
    row = row_of(document)
    touches = touches_of(row.entry)
    found.require(
        document["touches"] == touches,
        "an entry is found by whom it moved",
        row.entry.key,
        f"{document['touches']}, its transfers {touches}",
    )
    since_ms = row.entry.at_ms - (dt.date.fromisoformat(row.entry.day) - _EPOCH).days * 24 * _HOUR_MS
    # From UTC+14 to UTC-12 it is a day's midnight for 26 hours.
    found.require(
        -14 * _HOUR_MS <= since_ms < 36 * _HOUR_MS,
        "an entry's day is that of its instant somewhere",
        row.entry.key,
        f"{row.entry.day}, {row.entry.at_ms}",
    )
    return row


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
