"""Check refunds against the ledger, both ways: every decided one is moved, once, in its shares, never above the price. Pure."""

from collections.abc import Iterable, Mapping

from billing_engine.consultations.model import Session
from billing_engine.ledger.accounts import earnings_of
from billing_engine.ledger.model import Entry, KeyState, key_of
from billing_engine.refunds.model import (
    REFUND,
    Decision,
    RefundBook,
    RefundRequest,
    RequestStatus,
    book_of,
    commission_back,
    decided,
    movement_of,
    source_of,
)
from billing_engine.verification import Findings


def audit_refunds(
    books: Iterable[RefundBook],
    requests: Iterable[RefundRequest],
    sessions: Mapping[str, Session],
    entries: Mapping[str, Entry],
) -> Findings:
    """Check every book and request of one snapshot; `entries` by key, from rows and tails alike."""
    found = Findings()
    by_session = {book.session_id: book for book in books}
    by_id = {request.id: request for request in requests}
    refunds = 0
    for book in by_session.values():
        _check_book(book, sessions.get(book.session_id), found)
        for decision in book.decisions:
            refunds += decision.is_refund
            _check_decision(book, decision, entries, by_id, found)
    for entry in entries.values():
        if entry.kind == REFUND:
            its_book = by_session.get(entry.facts["sessionId"])
            known = its_book is not None and its_book.decision(entry.facts["refundId"]) is not None
            found.require(known, "a refund was decided", entry.facts["refundId"], entry.key)
    for request in by_id.values():
        if request.status is not RequestStatus.OPEN:
            its_book = by_session.get(request.session_id)
            made = its_book.decision(request.id) if its_book is not None else None
            is_copy = made is not None and decided(request, made) == request
            found.require(
                is_copy, "a decided request is the copy of its decision", request.id, request.status
            )
    found.counted |= {"refunds": refunds}
    return found


def _check_book(book: RefundBook, session: Session | None, found: Findings) -> None:
    like = book_of(session) if session is not None else None
    copied = (book.user_id, book.lawyer_id, book.currency, book.gross_minor, book.commission_minor)
    found.require(
        like is not None
        and copied == (like.user_id, like.lawyer_id, like.currency, like.gross_minor, like.commission_minor),
        "refunds are of their session's bill",
        book.session_id,
        f"of {book.gross_minor}, commission {book.commission_minor}",
    )
    found.require(
        book.refunded_minor <= book.gross_minor,
        "never more is refunded than was paid",
        book.session_id,
        f"{book.refunded_minor} of {book.gross_minor}",
    )
    given_back = sum(decision.commission_minor for decision in book.decisions)
    due = commission_back(book, book.refunded_minor) if book.gross_minor else 0
    found.require(
        given_back == due,
        "the commission is given back in proportion",
        book.session_id,
        f"{given_back}, should be {due}",
    )


def _check_decision(
    book: RefundBook,
    decision: Decision,
    entries: Mapping[str, Entry],
    requests: Mapping[str, RefundRequest],
    found: Findings,
) -> None:
    entry = entries.get(key_of(earnings_of(book.lawyer_id), source_of(decision.id)))
    if entry is not None:
        found.require(
            decision.is_refund
            and entry.state is KeyState.POSTED
            and entry.transfers == movement_of(book, decision).transfers,
            "a refund moves its shares",
            decision.id,
            entry.key,
        )
    elif decision.is_refund:
        if decision.is_settled:
            found.require(False, "a settled refund has its entry", decision.id, book.session_id)
        else:
            found.waits("a decided refund is moved", decision.id, f"{decision.amount_minor} to the wallet")
    if not decision.is_settled:
        found.waits("a decision is completed", decision.id, book.session_id)
    elif decision.answers_request:
        request = requests.get(decision.id)
        answered = request is not None and request.status is not RequestStatus.OPEN
        found.require(answered, "a decision answers its request", decision.id, book.session_id)
