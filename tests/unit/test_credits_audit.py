"""What `verify-ledger` must find of credits: each rule is broken once, and open work is told from broken books."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from billing_engine.credits.audit import audit_credits
from billing_engine.credits.model import (
    Adjustment,
    Application,
    ApplicationStatus,
    Project,
    ProjectStatus,
    adjust,
    application_id_of,
    give_back,
    settled_by,
    taking_of,
)
from billing_engine.credits.purchases import credits_of, sale_of
from billing_engine.ledger.accounts import application_credits_of, credit_sales_of
from billing_engine.ledger.model import Account, Entry, Movement, post, void
from billing_engine.payments.model import Payment, PaymentStatus, Purpose
from billing_engine.verification import Findings, Verdict

ME = "f1"
NOW = {"at_ms": 2_000, "day": "2026-01-01"}


@dataclass
class Room:
    """Books in which all is well, to be spoilt: two purchases, an adjustment; an application that stands, one that was withdrawn, one
    that was refused, and a closed project.
    """

    account: Account = field(
        default_factory=lambda: Account(application_credits_of(ME), "APPLICATION_CREDIT")
    )
    sales: Account = field(default_factory=lambda: Account(credit_sales_of(ME), "INR"))
    entries: dict[str, Entry] = field(default_factory=dict)
    applications: dict[str, Application] = field(default_factory=dict)
    projects: dict[str, Project] = field(default_factory=dict)
    payments: dict[str, Payment] = field(default_factory=dict)

    def says(self) -> Findings:
        return audit_credits(self.applications.values(), self.projects, self.payments, self.entries)

    def move(self, movement: Movement) -> Entry:
        if movement.account == self.account.id:
            self.account, entry = post(self.account, movement, **NOW)
        else:
            self.sales, entry = post(self.sales, movement, **NOW)
        self.entries[entry.key] = entry
        return entry

    def buy(self, number: int) -> None:
        payment = Payment(
            id=f"b{number}",
            purpose=Purpose.CREDITS,
            payer_id=ME,
            account=self.sales.id,
            amount_minor=25_000,
            currency="INR",
            gateway="razorpay",
            status=PaymentStatus.PAID,
            created_at_ms=1_000,
            collected_id=f"pay_{number}",
            quantity=5,
            item="Starter",
        )
        self.payments[payment.id] = payment
        self.move(sale_of(payment))
        self.move(credits_of(payment))

    def apply(self, project: str, *, refused: bool = False) -> Application:
        application = Application(application_id_of(ME, project, 1), ME, project, 1, "o", 1_500)
        if refused:
            key = f"{application.account}|{application.taking}"
            self.account, entry = void(self.account, key, **NOW)
            self.entries[key] = entry
        else:
            entry = self.move(taking_of(application))
        self.applications[application.id] = settled_by(application, entry)
        return self.applications[application.id]

    def withdraw(self, application: Application) -> None:
        taken = self.entries[f"{application.account}|{application.taking}"]
        self.account, returned = give_back(
            self.account, None, application=application, taken=taken, operation_id="w", **NOW
        )
        self.entries[returned.key] = returned
        self.applications[application.id] = settled_by(application, taken, returned)


@pytest.fixture
def room() -> Room:
    room = Room()
    for name in ("p1", "p2", "p3"):
        room.projects[name] = Project(name, "c1", "T", "D", 1_000)
    room.projects["p3"] = replace(room.projects["p3"], status=ProjectStatus.CLOSED, closed_at_ms=1_900)
    room.buy(1)
    room.buy(2)
    wanted = Adjustment("j1", ME, 3, "Because.", "an admin")
    room.account, entry = adjust(room.account, None, wanted=wanted, **NOW)
    room.entries[entry.key] = entry
    room.apply("p1")
    room.withdraw(room.apply("p2"))
    room.apply("p3", refused=True)
    assert room.says().verdict is Verdict.CLEAN, room.says()
    assert room.says().counted == {"applications": 3, "credit purchases": 2}
    return room


def key_of_kind(room: Room, kind: str) -> str:
    return next(key for key, entry in room.entries.items() if entry.kind == kind)


def record(room: Room, project: str, **changes: Any) -> None:
    id_ = application_id_of(ME, project, 1)
    room.applications[id_] = replace(room.applications[id_], **changes)


def entry(room: Room, kind: str, **changes: Any) -> None:
    key = key_of_kind(room, kind)
    room.entries[key] = replace(room.entries[key], **changes)


def drop(room: Room, kind: str) -> None:
    del room.entries[key_of_kind(room, kind)]


def twice(room: Room) -> None:
    first = room.applications[application_id_of(ME, "p1", 1)]
    second = replace(first, id=application_id_of(ME, "p1", 2), attempt=2)
    taken = room.move(taking_of(second))
    room.applications[second.id] = settled_by(second, taken)


def larger(room: Room, kind: str) -> None:
    found = room.entries[key_of_kind(room, kind)]
    (transfer,) = found.transfers
    entry(room, kind, transfers=(replace(transfer, amount_minor=transfer.amount_minor + 1),))


def payment(room: Room, **changes: Any) -> None:
    room.payments["b1"] = replace(room.payments["b1"], **changes)


#: What is done to the books, and the rule that must name it.
BROKEN: dict[str, tuple[Callable[[Room], Any], str]] = {
    "an application without its credit": (
        lambda room: drop(room, "credit_used"),
        "an application took its credit, or was refused",
    ),
    "a credit without its application": (
        lambda room: room.applications.clear(),
        "a credit was taken for an application",
    ),
    "an application of nothing": (
        lambda room: room.projects.pop("p1"),
        "an application is for a project",
    ),
    "a record that says withdrawn, and nothing came back": (
        lambda room: record(room, "p1", status=ApplicationStatus.WITHDRAWN),
        "an application is the copy of its entries",
    ),
    "a record that says refused, and a credit was taken": (
        lambda room: record(room, "p1", status=ApplicationStatus.REFUSED),
        "an application is the copy of its entries",
    ),
    "a record that stands, and its key was voided": (
        lambda room: record(room, "p3", status=ApplicationStatus.ACTIVE),
        "an application is the copy of its entries",
    ),
    "another balance": (
        lambda room: record(room, "p1", credits_left=99),
        "an application is the copy of its entries",
    ),
    "a refund that nothing was taken for": (
        lambda room: (drop(room, "credit_used"), drop(room, "credit_used")),
        "an application took its credit, or was refused",
    ),
    "two applications for one project": (twice, "nobody applies twice at once"),
    "an application that costs two": (
        lambda room: larger(room, "credit_used"),
        "an application costs its credit",
    ),
    "an application for a closed project": (
        lambda room: room.projects.update(
            p1=replace(room.projects["p1"], status=ProjectStatus.CLOSED, closed_at_ms=NOW["at_ms"] - 60_001)
        ),
        "nobody applies for a closed project",
    ),
    "a purchase without its money": (
        lambda room: drop(room, "credit_sale"),
        "a paid purchase has its money",
    ),
    "a purchase without its credits": (
        lambda room: drop(room, "credit_purchase"),
        "a paid purchase has its credits",
    ),
    "a purchase of more credits than were paid": (
        lambda room: larger(room, "credit_purchase"),
        "a purchase moves its money and its credits",
    ),
    "a purchase of another price": (
        lambda room: payment(room, amount_minor=1),
        "a purchase moves its money and its credits",
    ),
    "credits that nobody paid": (
        lambda room: room.payments.pop("b1"),
        "what was sold was paid",
    ),
    "credits of a payment that brought nothing": (
        lambda room: payment(room, collected_id=None, status=PaymentStatus.CREATED),
        "what was sold was paid",
    ),
    "an entry of two transfers": (
        lambda room: entry(
            room,
            "credit_adjustment",
            transfers=room.entries[key_of_kind(room, "credit_adjustment")].transfers * 2,
        ),
        "an entry of credits is one transfer",
    ),
    "credits in rupees": (
        lambda room: entry(room, "credit_adjustment", asset="INR"),
        "an entry of credits is one transfer",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_books_are_named(room: Room, what: str) -> None:
    spoil, rule = BROKEN[what]
    spoil(room)
    found = room.says()
    assert found.verdict is Verdict.BROKEN
    assert rule in {one.rule for one in found.broken}, found.broken


#: What a crash leaves, and what it is called until it is finished.
UNFINISHED: dict[str, tuple[Callable[[Room], Any], str]] = {
    "a record that waits for its credit": (
        lambda room: (
            drop(room, "credit_used"),
            record(room, "p1", status=ApplicationStatus.PENDING, applied_at_ms=None, credits_left=None),
        ),
        "an application is decided",
    ),
    "a credit that its record does not know": (
        lambda room: record(
            room, "p1", status=ApplicationStatus.PENDING, applied_at_ms=None, credits_left=None
        ),
        "an application's end is written down",
    ),
    "a refund that its record does not know": (
        lambda room: record(
            room, "p2", status=ApplicationStatus.ACTIVE, withdrawn_at_ms=None, credits_after_refund=None
        ),
        "an application's end is written down",
    ),
    "a close that is not through": (
        lambda room: room.projects.update(p3=replace(room.projects["p3"], is_closing=True)),
        "a closed project has turned away whoever came too late",
    ),
    "a payment whose credits are missing": (
        lambda room: (payment(room, status=PaymentStatus.COLLECTED), drop(room, "credit_purchase")),
        "a collected purchase has its credits",
    ),
    "a payment whose money is missing": (
        lambda room: (payment(room, status=PaymentStatus.COLLECTED), drop(room, "credit_sale")),
        "a collected purchase has its money",
    ),
    "a payment that is only not marked": (
        lambda room: payment(room, status=PaymentStatus.COLLECTED),
        "a collected purchase is fulfilled",
    ),
}


@pytest.mark.parametrize("what", UNFINISHED)
def test_what_a_crash_leaves_is_unfinished_and_not_broken(room: Room, what: str) -> None:
    leave, rule = UNFINISHED[what]
    leave(room)
    found = room.says()
    assert found.verdict is Verdict.UNFINISHED, found.broken
    assert rule in {one.rule for one in found.unfinished}


def test_a_wish_to_withdraw_that_was_not_carried_out_is_nothing(room: Room) -> None:
    record(room, "p1", is_open=True)
    assert room.says().verdict is Verdict.CLEAN
