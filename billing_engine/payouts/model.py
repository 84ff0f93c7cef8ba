"""A payout and the changes that it makes to the lawyer's earnings account: pure, each decided inside the write that commits it.

The ledger decides and remembers: the request is a hold, which says who wants how much, and the decision is its close, which
happens once. The payout's record is a copy of what they say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from billing_engine.ledger.accounts import PAYOUTS, earnings_of
from billing_engine.ledger.model import (
    Account,
    Entry,
    Hold,
    HoldGone,
    KeyReused,
    KeyState,
    KeyVoided,
    Transfer,
    close_hold,
    open_hold,
)
from billing_engine.payouts.errors import EarningsTooLow, PayoutDecided

#: Kinds of the entry that ends a payout; a paid one's transfer has the first.
PAYOUT: Final = "payout"
PAYOUT_FAILED: Final = "payout_failed"
PREFIX: Final = "payout:"


class PayoutStatus(StrEnum):
    """REQUESTED → PAID | FAILED."""

    REQUESTED = "REQUESTED"
    PAID = "PAID"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Payout:
    """What a lawyer wants to have paid out, and what became of it. Money in smallest units, instants in epoch milliseconds.

    `reference` is the bank's word for a payment that was made, `reason` says why one failed; `decided_by` is the admin.
    """

    id: str
    lawyer_id: str
    amount_minor: int
    currency: str
    created_at_ms: int
    status: PayoutStatus = PayoutStatus.REQUESTED
    decided_at_ms: int | None = None
    decided_by: str | None = None
    reference: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """An admin's decision: PAID with the bank's reference, or FAILED with a reason."""

    status: PayoutStatus
    by: str
    reference: str | None = None
    reason: str | None = None


def hold_id_of(payout_id: str) -> str:
    """The hold's id, which is also the source of the entry that ends the payout."""
    return f"{PREFIX}{payout_id}"


def reserve(account: Account, known: Entry | None, *, wanted: Payout) -> tuple[Account, Payout]:
    """Set the payout's money aside. A repeat answers what has become of the first.

    Raises:
        EarningsTooLow: less may be paid out; nothing is changed.
        KeyReused: the id stands for another amount.
    """
    hold_id = hold_id_of(wanted.id)
    if known is not None:
        if known.state is KeyState.VOIDED:
            raise KeyVoided(key=known.key)
        return account, _same(payout_of_entry(known), wanted)
    if hold_id in account.holds:
        return account, _same(payout_of_hold(account, account.holds[hold_id]), wanted)
    if account.spendable < wanted.amount_minor:
        raise EarningsTooLow(required_minor=wanted.amount_minor, available_minor=max(0, account.spendable))
    # Nobody owns it: whichever process an admin asks may close it.
    opened, _ = open_hold(
        account, hold_id=hold_id, amount_minor=wanted.amount_minor, owner="", facts=_request_facts(wanted)
    )
    return opened, wanted


def decide(
    account: Account, known: Entry | None, *, payout: Payout, verdict: Verdict, at_ms: int, day: str
) -> tuple[Account, Entry]:
    """End the payout: pay the held money out, or give it back. The first verdict stands; the same one again answers it.

    Raises:
        PayoutDecided: it has been decided the other way.
        HoldGone: there is no such payout.
    """
    if known is not None:
        if known.facts.get("status") != verdict.status.value:
            raise PayoutDecided(payout=payout.id, status=known.facts.get("status"))
        return account, known
    hold = account.holds.get(hold_id_of(payout.id))
    if hold is None:
        raise HoldGone(hold=hold_id_of(payout.id))
    paid = verdict.status is PayoutStatus.PAID
    return close_hold(
        account,
        hold,
        kind=PAYOUT if paid else PAYOUT_FAILED,
        transfers=(Transfer(account.id, PAYOUTS, hold.amount_minor, PAYOUT),) if paid else (),
        facts={
            **hold.facts,
            "status": verdict.status.value,
            "decidedAt": at_ms,
            "by": verdict.by,
            "bankReference": verdict.reference,
            "reason": verdict.reason,
        },
        at_ms=at_ms,
        day=day,
    )


def payout_of_hold(account: Account, hold: Hold) -> Payout:
    """An open payout, as its hold tells it."""
    return Payout(currency=account.asset, **_request(hold.facts))


def payout_of_entry(entry: Entry) -> Payout:
    """A decided payout, as the entry that ended it tells it."""
    facts = entry.facts
    return Payout(
        currency=entry.asset,
        **_request(facts),
        status=PayoutStatus(facts["status"]),
        decided_at_ms=facts["decidedAt"],
        decided_by=facts["by"],
        reference=facts["bankReference"],
        reason=facts["reason"],
    )


def account_of(payout: Payout) -> str:
    """The earnings account that the payout is taken from."""
    return earnings_of(payout.lawyer_id)


def _request_facts(payout: Payout) -> dict[str, Any]:
    return {
        "payoutId": payout.id,
        "lawyer": payout.lawyer_id,
        "amount": payout.amount_minor,
        "requestedAt": payout.created_at_ms,
    }


def _request(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": facts["payoutId"],
        "lawyer_id": facts["lawyer"],
        "amount_minor": facts["amount"],
        "created_at_ms": facts["requestedAt"],
    }


def _same(stored: Payout, wanted: Payout) -> Payout:
    if stored.amount_minor != wanted.amount_minor:
        raise KeyReused(key=hold_id_of(wanted.id))
    return stored
