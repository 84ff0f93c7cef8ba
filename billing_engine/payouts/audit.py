"""Check payouts against the ledger, both ways. Pure. An open payout's hold lives for days and is no unfinished work."""

from collections.abc import Iterable, Mapping

from billing_engine.ledger.accounts import PAYOUTS, earnings_of
from billing_engine.ledger.model import Account, Entry, KeyState, effect_on, key_of
from billing_engine.payouts.model import (
    PAYOUT,
    PAYOUT_FAILED,
    PREFIX,
    Payout,
    PayoutStatus,
    account_of,
    hold_id_of,
    payout_of_entry,
    payout_of_hold,
)
from billing_engine.verification import Findings


def audit_payouts(
    payouts: Iterable[Payout], accounts: Mapping[str, Account], entries: Mapping[str, Entry]
) -> Findings:
    """Check every payout of one snapshot; `entries` by key, from rows and tails alike."""
    found = Findings()
    by_id = {payout.id: payout for payout in payouts}
    for account in accounts.values():
        for hold_id in account.holds:
            if hold_id.startswith(PREFIX):
                _check_hold(account, hold_id, by_id, found)
    for payout in by_id.values():
        account_id, hold_id = account_of(payout), hold_id_of(payout.id)
        owner = accounts.get(account_id)
        held = owner is not None and hold_id in owner.holds
        entry = entries.get(key_of(account_id, hold_id))
        if payout.status is not PayoutStatus.REQUESTED:
            is_copy = entry is not None and _ended(entry) and payout_of_entry(entry) == payout
            found.require(is_copy, "a decided payout is the copy of its entry", payout.id, payout.status)
        elif entry is not None:
            found.waits("a decided payout is written down", payout.id, "its record says REQUESTED")
        else:
            found.require(held, "a requested payout has its hold", payout.id, account_id)
    for entry in entries.values():
        if entry.kind in (PAYOUT, PAYOUT_FAILED):
            _check_entry(entry, by_id, found)
    found.counted |= {"payouts": len(by_id)}
    return found


def _ended(entry: Entry) -> bool:
    return entry.state is KeyState.POSTED and entry.kind in (PAYOUT, PAYOUT_FAILED)


def _check_hold(account: Account, hold_id: str, by_id: Mapping[str, Payout], found: Findings) -> None:
    hold = account.holds[hold_id]
    told = payout_of_hold(account, hold)
    payout = by_id.get(told.id)
    right = account.id == earnings_of(told.lawyer_id) and hold_id == hold_id_of(told.id)
    found.require(
        right and hold.amount_minor == told.amount_minor,
        "a payout holds its amount of its lawyer's earnings",
        hold_id,
        f"{account.id} holds {hold.amount_minor}, asked {told.amount_minor}",
    )
    if payout is None:
        found.waits("a payout's hold has its record", hold_id, f"{hold.amount_minor} held on {account.id}")
    else:
        found.require(payout == told, "an open payout is the copy of its hold", payout.id, payout.status)


def _check_entry(entry: Entry, by_id: Mapping[str, Payout], found: Findings) -> None:
    told = payout_of_entry(entry)
    found.require(told.id in by_id, "a payout's entry has its record", told.id, entry.key)
    paid = told.amount_minor if told.status is PayoutStatus.PAID else 0
    out, into = effect_on(entry.account, entry.transfers), effect_on(PAYOUTS, entry.transfers)
    found.require(
        (out, into) == (-paid, paid) and (entry.kind == PAYOUT) == (told.status is PayoutStatus.PAID),
        "a payout takes its amount, or nothing if it failed",
        told.id,
        f"{told.status}: {out} from {entry.account}, {into} to {PAYOUTS}",
    )
