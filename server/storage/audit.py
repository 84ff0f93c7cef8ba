"""The audit of a whole database, the same for both engines: what was read goes in, findings come out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from billing_engine.consultations.audit import audit_consultations
from billing_engine.consultations.model import Session, TimelineRow
from billing_engine.credits.audit import audit_credits
from billing_engine.credits.model import Application, Project
from billing_engine.ledger.audit import audit_activity, audit_ledger
from billing_engine.ledger.model import floor_of
from billing_engine.ledger.ports import Activity, Row, Versioned
from billing_engine.payments.model import Payment
from billing_engine.payments.refund_model import Dispute, PayerRefund
from billing_engine.payments.returns_audit import audit_returns
from billing_engine.payouts.audit import audit_payouts
from billing_engine.payouts.model import Payout
from billing_engine.refunds.audit import audit_refunds
from billing_engine.refunds.model import RefundBook, RefundRequest
from billing_engine.subscriptions.audit import audit_subscriptions
from billing_engine.subscriptions.metrics import Used
from billing_engine.subscriptions.ports import CallRow
from billing_engine.usage.audit import UsageRecords, audit_usage
from billing_engine.verification import Findings


@dataclass(frozen=True, slots=True)
class Books:
    """One consistent reading. `reported_credits` and `reported_activity` are what reports would say, read from their own columns;
    `reported_activity` is None for a database that has none yet.
    """

    documents: list[Versioned]
    rows: list[Row]
    reported_credits: Mapping[str, int]
    reported_activity: Mapping[str, Activity] | None
    sessions: Iterable[Session]
    timeline: Iterable[TimelineRow]
    payments: Iterable[Payment]
    payer_refunds: Iterable[PayerRefund]
    disputes: Iterable[Dispute]
    payouts: Iterable[Payout]
    refund_books: Iterable[RefundBook]
    refund_requests: Iterable[RefundRequest]
    applications: Iterable[Application]
    projects: Iterable[Project]
    calls: Iterable[CallRow]
    call_days: Mapping[str, Mapping[tuple[str, str], Used]]
    metered: UsageRecords


def audit_books(books: Books, *, now_ms: int, abandon_ms: int) -> Findings:
    """Every balance and every bill, recomputed."""
    found = audit_ledger(books.documents, books.rows, reported_credits=books.reported_credits, now_ms=now_ms)
    accounts = {document.account.id: document.account for document in books.documents}
    for account in accounts.values():
        # The stores refuse what goes below it: without one, a wallet may be emptied twice.
        found.require(
            account.floor == floor_of(account.id),
            "an account has its kind's floor",
            account.id,
            f"{account.floor}, it should be {floor_of(account.id)}",
        )
    entries = {row.entry.key: row.entry for row in books.rows}
    entries |= {entry.key: entry for account in accounts.values() for entry in account.tail}
    sessions = {session.id: session for session in books.sessions}
    bills = audit_consultations(
        sessions.values(), books.timeline, accounts, entries, abandon_ms=abandon_ms, now_ms=now_ms
    )
    payments = {payment.id: payment for payment in books.payments}
    gone_back = audit_returns(books.payer_refunds, books.disputes, payments, accounts, entries)
    paid_out = audit_payouts(books.payouts, accounts, entries)
    refunded = audit_refunds(books.refund_books, books.refund_requests, sessions, entries)
    projects = {project.id: project for project in books.projects}
    credited = audit_credits(books.applications, projects, payments, entries)
    subscribed = audit_subscriptions(books.calls, books.call_days, payments, accounts, entries)
    metered = audit_usage(books.metered, payments, accounts, entries, now_ms=now_ms)
    reports = Findings()
    if books.reported_activity is not None:
        reports = audit_activity(books.rows, books.reported_activity)
    for part in (bills, gone_back, paid_out, refunded, credited, subscribed, metered, reports):
        found.unfinished += part.unfinished
        found.broken += part.broken
        found.counted |= part.counted
    return found
