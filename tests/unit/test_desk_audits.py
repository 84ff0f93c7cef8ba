"""What `verify-ledger` must find of payouts and refunds: each rule is broken once, and open work is told from broken books."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest

from billing_engine.consultations.model import EndReason, Session, Status
from billing_engine.ledger.accounts import earnings_of
from billing_engine.ledger.model import Account, Entry, Transfer, post
from billing_engine.payouts.audit import audit_payouts
from billing_engine.payouts.model import (
    Payout,
    PayoutStatus,
    Verdict,
    decide,
    hold_id_of,
    payout_of_entry,
    reserve,
)
from billing_engine.refunds.audit import audit_refunds
from billing_engine.refunds.model import (
    Order,
    RefundBook,
    RefundRequest,
    RequestStatus,
    book_of,
    decided,
    movement_of,
    refund,
    settle,
)
from billing_engine.verification import Findings
from billing_engine.verification import Verdict as Says

EARNINGS = earnings_of("l")
NOW = {"at_ms": 2_000, "day": "2026-01-01"}


@dataclass
class Desk:
    """Books in which all is well, to be spoilt: an open, a paid and a failed payout; two refunds, one of which answers a request."""

    account: Account = field(default_factory=lambda: Account(EARNINGS, "INR", None, posted=9_000))
    entries: dict[str, Entry] = field(default_factory=dict)
    payouts: dict[str, Payout] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    books: dict[str, RefundBook] = field(default_factory=dict)
    requests: dict[str, RefundRequest] = field(default_factory=dict)

    def payouts_say(self) -> Findings:
        return audit_payouts(self.payouts.values(), {EARNINGS: self.account}, self.entries)

    def refunds_say(self) -> Findings:
        return audit_refunds(self.books.values(), self.requests.values(), self.sessions, self.entries)

    def book(self, entry: Entry) -> None:
        self.entries[entry.key] = entry

    def edit_entry(self, kind: str, **changes: Any) -> None:
        key = next(key for key, entry in self.entries.items() if entry.kind == kind)
        self.entries[key] = replace(self.entries[key], **changes)

    def edit_hold(self, **changes: Any) -> None:
        hold_id = hold_id_of("open")
        hold = self.account.holds[hold_id]._replace(**changes)
        self.account = self.account._replace(holds={**self.account.holds, hold_id: hold})


def a_desk() -> Desk:
    desk = Desk()
    for name in ("open", "paid", "failed"):
        payout = Payout(name, "l", 1_000, "INR", 1_000)
        desk.account, _ = reserve(desk.account, None, wanted=payout)
        desk.payouts[name] = payout
    for name, status in (("paid", PayoutStatus.PAID), ("failed", PayoutStatus.FAILED)):
        verdict = Verdict(status, "a", reference="U", reason="x")
        desk.account, entry = decide(desk.account, None, payout=desk.payouts[name], verdict=verdict, **NOW)  # type: ignore[arg-type]
        desk.book(entry)
        desk.payouts[name] = payout_of_entry(entry)
    session = Session(
        "s",
        "u",
        "l",
        6_000,
        "INR",
        1_250,
        None,
        Status.ENDED,
        0,
        0,
        67_000,
        EndReason.USER_ENDED,
        67,
        6_700,
        837,
    )
    desk.sessions["s"] = session
    book = book_of(session)
    for order in (
        Order("r1", 2_001, 3_000, "a", "x"),
        Order("s-1", 100, 4_000, "a", "x", answers_request=True),
    ):
        book, decision = refund(book, order)
        desk.account, entry = post(desk.account, movement_of(book, decision), **NOW)  # type: ignore[arg-type]
        desk.book(entry)
        book = settle(book, decision.id)
    desk.books["s"] = book
    request = RefundRequest("s-1", "s", 1, "u", "l", "INR", 100, "x", 3_500, "op")
    desk.requests["s-1"] = decided(request, book.decisions[1])
    return desk


def test_books_in_order_are_clean_and_counted() -> None:
    desk = a_desk()
    for found, counted in ((desk.payouts_say(), {"payouts": 3}), (desk.refunds_say(), {"refunds": 2})):
        assert (found.verdict, found.broken, found.unfinished) == (Says.CLEAN, [], [])
        assert found.counted == counted


def _spoil_payout(desk: Desk, name: str, **changes: Any) -> None:
    desk.payouts[name] = replace(desk.payouts[name], **changes)


def _spoil_book(desk: Desk, place: int | None = None, **changes: Any) -> None:
    book = desk.books["s"]
    if place is None:
        desk.books["s"] = replace(book, **changes)
        return
    decisions = list(book.decisions)
    decisions[place] = replace(decisions[place], **changes)
    desk.books["s"] = replace(book, decisions=tuple(decisions))


def _drop(of: str, name: str, desk: Desk) -> None:
    del getattr(desk, of)[name]


def _open_without_a_hold(desk: Desk) -> None:
    desk.account = desk.account._replace(holds={})


def _paid_twice_as_much(desk: Desk) -> None:
    desk.edit_entry("payout", transfers=(Transfer(EARNINGS, "gateway:payouts", 2_000, "payout"),))


def _a_failed_one_that_paid(desk: Desk) -> None:
    desk.edit_entry("payout_failed", transfers=(Transfer(EARNINGS, "gateway:payouts", 1_000, "payout"),))


PAYOUT_FAULTS: tuple[tuple[str, Callable[[Desk], None]], ...] = (
    ("a requested payout has its hold", _open_without_a_hold),
    ("a payout holds its amount of its lawyer's earnings", lambda d: d.edit_hold(amount_minor=999)),
    ("an open payout is the copy of its hold", partial(_spoil_payout, name="open", amount_minor=999)),
    ("an open payout is the copy of its hold", partial(_spoil_payout, name="open", status=PayoutStatus.PAID)),
    ("a decided payout is the copy of its entry", partial(_spoil_payout, name="paid", reference="another")),
    ("a decided payout is the copy of its entry", partial(_spoil_payout, name="failed", status=PayoutStatus.PAID)),
    ("a payout's entry has its record", partial(_drop, "payouts", "paid")),
    ("a payout takes its amount, or nothing if it failed", _paid_twice_as_much),
    ("a payout takes its amount, or nothing if it failed", _a_failed_one_that_paid),
)  # fmt: skip


@pytest.mark.parametrize(("rule", "spoil"), PAYOUT_FAULTS)
def test_a_broken_payout_is_found(rule: str, spoil: Callable[[Desk], None]) -> None:
    desk = a_desk()
    spoil(desk)
    found = desk.payouts_say()
    assert found.verdict is Says.BROKEN
    assert rule in {one.rule for one in found.broken}


def test_a_payout_that_a_crash_left_is_unfinished() -> None:
    desk = a_desk()
    del desk.payouts["open"]
    desk.payouts["paid"] = Payout("paid", "l", 1_000, "INR", 1_000)
    found = desk.payouts_say()
    assert found.verdict is Says.UNFINISHED
    assert {one.rule for one in found.unfinished} == {
        "a payout's hold has its record",
        "a decided payout is written down",
    }


def _without_the_entry(desk: Desk) -> None:
    _drop("entries", f"{EARNINGS}|refund:r1", desk)


def _with_another_share(desk: Desk) -> None:
    desk.edit_entry(
        "consultation_refund",
        transfers=(Transfer(EARNINGS, "wallet:u", 2_001, "consultation_refund_net"),),
    )


def _above_the_price(desk: Desk) -> None:
    desk.sessions["s"] = replace(desk.sessions["s"], total_minor=2_000)
    _spoil_book(desk, gross_minor=2_000)


REFUND_FAULTS: tuple[tuple[str, Callable[[Desk], None]], ...] = (
    ("a settled refund has its entry", _without_the_entry),
    ("a refund moves its shares", _with_another_share),
    ("a refund moves its shares", partial(_spoil_book, place=0, amount_minor=2_002)),
    ("a refund was decided", lambda d: _spoil_book(d, decisions=())),
    ("a refund was decided", partial(_drop, "books", "s")),
    ("never more is refunded than was paid", _above_the_price),
    ("refunds are of their session's bill", lambda d: _spoil_book(d, gross_minor=6_701)),
    ("refunds are of their session's bill", partial(_drop, "sessions", "s")),
    ("the commission is given back in proportion", partial(_spoil_book, place=1, commission_minor=0)),
    ("a decision answers its request", partial(_drop, "requests", "s-1")),
    ("a decided request is the copy of its decision", lambda d: d.requests.update(
        {"s-1": replace(d.requests["s-1"], refunded_minor=99)})),
    ("a decided request is the copy of its decision", lambda d: d.requests.update(
        {"s-1": replace(d.requests["s-1"], status=RequestStatus.REJECTED)})),
)  # fmt: skip


@pytest.mark.parametrize(("rule", "spoil"), REFUND_FAULTS)
def test_a_broken_refund_is_found(rule: str, spoil: Callable[[Desk], None]) -> None:
    desk = a_desk()
    spoil(desk)
    found = desk.refunds_say()
    assert found.verdict is Says.BROKEN
    assert rule in {one.rule for one in found.broken}


def test_a_refund_that_a_crash_left_is_unfinished() -> None:
    desk = a_desk()
    _without_the_entry(desk)
    _spoil_book(desk, 0, is_settled=False)
    _spoil_book(desk, 1, is_settled=False)
    desk.requests["s-1"] = replace(
        desk.requests["s-1"],
        status=RequestStatus.OPEN,
        decided_at_ms=None,
        decided_by=None,
        answer=None,
        refunded_minor=0,
    )
    found = desk.refunds_say()
    assert found.verdict is Says.UNFINISHED
    assert {one.rule for one in found.unfinished} == {"a decided refund is moved", "a decision is completed"}
