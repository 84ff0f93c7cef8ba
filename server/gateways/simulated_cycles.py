"""How a simulated subscription runs: its periods from what was agreed, pure. Instants in epoch milliseconds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from billing_engine.subscriptions.model import CYCLE_MS


@dataclass(frozen=True, slots=True)
class Terms:
    """What a period is sold at."""

    tier: str
    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class Change:
    """Agreed at `at_ms`: other terms from the next period on. `cycle_ends_ms` is where the running one ends now, if that was moved."""

    key: str
    at_ms: int
    terms: Terms
    cycle_ends_ms: int | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was agreed, in the order of time. `cancelled_at_ms`: it ends with the period that this instant is in. `revision` rises with
    every write.
    """

    id: str
    user_id: str
    created_at_ms: int
    terms: Terms
    changes: tuple[Change, ...] = ()
    cancelled_at_ms: int | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Sold:
    """A period that was begun, and paid for, as it was when it began."""

    start_ms: int
    end_ms: int
    terms: Terms


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands: what was sold so far, oldest first; the running period (or the last one); the terms of the next one."""

    sold: Sequence[Sold]
    start_ms: int
    end_ms: int
    next_terms: Terms
    is_ended: bool


def standing(agreement: Agreement, now_ms: int) -> Standing:
    """As of `now_ms`, which is not before it was made."""
    sold = [Sold(agreement.created_at_ms, agreement.created_at_ms + CYCLE_MS, agreement.terms)]
    while True:
        found = _in_period(agreement, sold[-1], now_ms)
        if found.is_ended or now_ms < found.end_ms:
            return replace(found, sold=sold)
        sold.append(Sold(found.end_ms, found.end_ms + CYCLE_MS, found.next_terms))


def _in_period(agreement: Agreement, period: Sold, now_ms: int) -> Standing:
    start_ms, end_ms, terms = period.start_ms, period.end_ms, period.terms
    for change in agreement.changes:
        if not period.start_ms <= change.at_ms < end_ms:
            continue
        terms = change.terms
        if change.cycle_ends_ms is not None:
            # As Stripe has it: a period of its own, from the move on.
            start_ms, end_ms = change.at_ms, change.cycle_ends_ms
    cancelled_at_ms = agreement.cancelled_at_ms
    cancels = cancelled_at_ms is not None and period.start_ms <= cancelled_at_ms < end_ms
    return Standing((), start_ms, end_ms, terms, is_ended=cancels and now_ms >= end_ms)
