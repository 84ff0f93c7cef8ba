"""The audit over one SQLite snapshot: one read-only connection, one BEGIN, beside a running server (LEDGER 6 and 7)."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import orjson

from billing_engine.consultations.model import Session, TimelineRow
from billing_engine.ledger.ports import Activity
from billing_engine.usage.audit import UsageRecords
from billing_engine.verification import Findings
from server.storage.audit import Books, audit_books
from server.storage.collection import CollectionSpec, Doc
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
from server.storage.sqlite.engine import open_readonly
from server.storage.sqlite.ledger import activity_of, all_accounts, all_rows
from server.storage.sqlite.tables import table_of


def verify_books(path: Path, *, now_ms: int, abandon_ms: int) -> Findings:
    """Recompute every balance and every bill of the database at `path`; nothing is written, nothing repaired.

    Raises:
        CannotOpen, sqlite3.Error: it cannot be read. That is no verdict.
    """
    connection = open_readonly(path)
    try:
        connection.execute("BEGIN")
        if not _exists(connection, "ledger_accounts"):
            return Findings(counted={"accounts": 0, "entries": 0, "sessions": 0, "payouts": 0, "refunds": 0})
        books = Books(
            documents=list(all_accounts(connection)),
            rows=list(all_rows(connection)),
            reported_credits=dict(
                connection.execute("SELECT credit, SUM(amount) FROM ledger_transfers GROUP BY credit")
            ),
            reported_activity=_activity(connection) if _has_reports(connection) else None,
            sessions=_sessions(connection),
            timeline=_timeline(connection),
            payments=map(payment_of, _documents(connection, PAYMENTS)),
            payer_refunds=map(refund_of, _documents(connection, PAYER_REFUNDS)),
            disputes=map(dispute_of, _documents(connection, DISPUTES)),
            payouts=map(payout_of, _documents(connection, PAYOUTS)),
            refund_books=map(refund_book_of, _documents(connection, REFUND_BOOKS)),
            refund_requests=map(refund_request_of, _documents(connection, REFUND_REQUESTS)),
            applications=map(application_of, _documents(connection, APPLICATIONS)),
            projects=map(project_of, _documents(connection, PROJECTS)),
            calls=map(call_of, _documents(connection, AI_CALLS)),
            call_days={doc["_id"]: used_of(doc) for doc in _documents(connection, AI_DAYS)},
            metered=UsageRecords(
                usages=map(usage_of, _documents(connection, USAGES)),
                counters=map(counter_of, _documents(connection, USAGE_COUNTERS)),
                counted={doc["_id"]: doc["seq"] for doc in _documents(connection, USAGE_COUNTED)},
            ),
        )
        return audit_books(books, now_ms=now_ms, abandon_ms=abandon_ms)
    finally:
        connection.close()


def _has_reports(connection: sqlite3.Connection) -> bool:
    """A database that no server of this version has opened yet has none."""
    columns = connection.execute("PRAGMA table_info(ledger_entries)")
    return any(row[1] == "quantity" for row in columns)


def _activity(connection: sqlite3.Connection) -> dict[str, Activity]:
    """All days of every asset, as reports read them."""
    assets = [
        asset
        for (asset,) in connection.execute(
            "SELECT asset FROM ledger_entries UNION SELECT asset FROM ledger_transfers"
        )
    ]
    # '~' sorts after every day.
    return {asset: activity_of(connection, asset, first_day="", last_day="~") for asset in assets}


def _sessions(connection: sqlite3.Connection) -> Iterator[Session]:
    return map(session_of, _documents(connection, SESSIONS))


def _timeline(connection: sqlite3.Connection) -> Iterator[TimelineRow]:
    return map(row_of_doc, _documents(connection, TIMELINE))


def _documents(connection: sqlite3.Connection, spec: CollectionSpec) -> Iterator[Doc]:
    table = table_of(spec)
    if not _exists(connection, table):
        return
    for (body,) in connection.execute(f'SELECT "_body" FROM "{table}"'):
        yield orjson.loads(body)


def _exists(connection: sqlite3.Connection, table: str) -> bool:
    sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return connection.execute(sql, (table,)).fetchone() is not None
