"""Check applications and purchases against the ledger, both ways: never a credit without what it was for, or the reverse. Pure."""

from collections.abc import Iterable, Mapping

from billing_engine.credits.model import (
    ADJUSTED,
    PURCHASED,
    REFUNDED,
    USED,
    Application,
    ApplicationStatus,
    Project,
    ProjectStatus,
    settled_by,
    taking_of,
)
from billing_engine.credits.purchases import SALE, credits_of, sale_of
from billing_engine.ledger.model import Entry, KeyState, Movement, effect_on, key_of
from billing_engine.money import APPLICATION_CREDIT
from billing_engine.payments.model import FULFILLED, Payment, PaymentStatus, Purpose
from billing_engine.verification import Findings

_KINDS = frozenset({PURCHASED, USED, REFUNDED, ADJUSTED})


def audit_credits(
    applications: Iterable[Application],
    projects: Mapping[str, Project],
    payments: Mapping[str, Payment],
    entries: Mapping[str, Entry],
) -> Findings:
    """Check every application and every purchase of one snapshot; `entries` by key, from rows and tails alike."""
    found = Findings()
    by_id = {application.id: application for application in applications}
    for application in by_id.values():
        _check_application(application, projects.get(application.project_id), entries, found)
    for project in projects.values():
        if project.is_closing:
            found.waits("a closed project has turned away whoever came too late", project.id, project.status)
    _check_attempts(by_id.values(), found)
    bought = [payment for payment in payments.values() if payment.purpose is Purpose.CREDITS]
    for payment in bought:
        _check_purchase(payment, entries, found)
    for entry in entries.values():
        _check_entry(entry, by_id, payments, found)
    found.counted |= {"applications": len(by_id), "credit purchases": len(bought)}
    return found


def _check_application(
    application: Application, project: Project | None, entries: Mapping[str, Entry], found: Findings
) -> None:
    taken = entries.get(key_of(application.account, application.taking))
    returned = entries.get(key_of(application.account, application.returning))
    found.require(
        project is not None, "an application is for a project", application.id, application.project_id
    )
    if taken is None:
        found.require(
            application.status is ApplicationStatus.PENDING and returned is None,
            "an application took its credit, or was refused",
            application.id,
            f"{application.status}, and the ledger knows nothing of it",
        )
        found.waits("an application is decided", application.id, "its record says PENDING")
        return
    told = settled_by(application, taken, returned)
    if application.status is not told.status:
        behind = application.status is ApplicationStatus.PENDING or (
            application.status is ApplicationStatus.ACTIVE and returned is not None
        )
        if behind:
            found.waits(
                "an application's end is written down", application.id, f"{told.status} in the ledger"
            )
        else:
            found.require(
                False,
                "an application is the copy of its entries",
                application.id,
                f"{application.status}, the ledger says {told.status}",
            )
        return
    copied = (application.applied_at_ms, application.credits_left, application.withdrawn_at_ms)
    found.require(
        copied == (told.applied_at_ms, told.credits_left, told.withdrawn_at_ms),
        "an application is the copy of its entries",
        application.id,
        f"{copied}",
    )
    if project is not None and project.status is ProjectStatus.CLOSED and taken.state is KeyState.POSTED:
        # By the clocks of two processes; what counts is the order of their writes, so a little is allowed.
        late_ms = taken.at_ms - (project.closed_at_ms or 0)
        found.require(
            late_ms <= _CLOCKS_APART_MS,
            "nobody applies for a closed project",
            application.id,
            f"{late_ms} ms after it was closed",
        )


#: How far apart the clocks of two processes may be, and how long a close may wait for its own first write.
_CLOCKS_APART_MS = 60_000


def _check_attempts(applications: Iterable[Application], found: Findings) -> None:
    """One person has one application for a project at most."""
    standing: dict[tuple[str, str], str] = {}
    for application in applications:
        if application.status is not ApplicationStatus.ACTIVE:
            continue
        pair = application.user_id, application.project_id
        found.require(
            pair not in standing, "nobody applies twice at once", application.id, standing.get(pair, "")
        )
        standing[pair] = application.id


def _check_purchase(payment: Payment, entries: Mapping[str, Entry], found: Findings) -> None:
    if payment.collected_id is None:
        return
    for what, movement in (("money", sale_of(payment)), ("credits", credits_of(payment))):
        entry = entries.get(movement.key)
        if entry is not None:
            found.require(
                _is(entry, movement), "a purchase moves its money and its credits", payment.id, entry.key
            )
        elif payment.status in FULFILLED:
            found.require(False, f"a paid purchase has its {what}", payment.id, movement.key)
        else:
            found.waits(f"a collected purchase has its {what}", payment.id, movement.key)
    if payment.status is PaymentStatus.COLLECTED:
        found.waits("a collected purchase is fulfilled", payment.id, f"{payment.quantity} credits")


def _is(entry: Entry, movement: Movement) -> bool:
    return entry.state is KeyState.POSTED and entry.transfers == movement.transfers


def _check_entry(
    entry: Entry, applications: Mapping[str, Application], payments: Mapping[str, Payment], found: Findings
) -> None:
    if entry.kind not in _KINDS and entry.kind != SALE:
        return
    if entry.kind in _KINDS:
        # Sums and pages count transfers: see `credits.book`.
        change = effect_on(entry.account, entry.transfers)
        found.require(
            entry.asset == APPLICATION_CREDIT.code
            and len(entry.transfers) == 1
            and abs(change) == entry.transfers[0].amount_minor,
            "an entry of credits is one transfer",
            entry.key,
            f"{entry.asset}, {len(entry.transfers)} transfers",
        )
    if entry.kind in (USED, REFUNDED):
        application = applications.get(entry.facts["applicationId"])
        found.require(application is not None, "a credit was taken for an application", entry.key, entry.kind)
        if application is not None and entry.kind == USED:
            found.require(
                entry.transfers == taking_of(application).transfers,
                "an application costs its credit",
                application.id,
                entry.key,
            )
    if entry.kind in (PURCHASED, SALE):
        payment = payments.get(entry.reference)
        collected = payment is not None and payment.collected_id is not None
        movements = (sale_of(payment), credits_of(payment)) if payment is not None and collected else ()
        found.require(
            entry.key in {movement.key for movement in movements},
            "what was sold was paid",
            entry.key,
            entry.reference,
        )
