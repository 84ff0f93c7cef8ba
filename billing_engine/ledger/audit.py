"""Recompute every balance from the entries. Pure: documents and rows in, findings out."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from billing_engine.ledger.model import (
    Account,
    Entry,
    KeyState,
    credits_of,
    effect_on,
    has_document,
    quantity_of,
)
from billing_engine.ledger.ports import Activity, Row, Versioned
from billing_engine.verification import Findings


def audit_ledger(
    documents: Iterable[Versioned], rows: Iterable[Row], *, reported_credits: Mapping[str, int], now_ms: int
) -> Findings:
    """Check all accounts against all entries of one snapshot.

    `reported_credits`: per account, the sum that the report tables say it was credited with.
    """
    found = Findings()
    accounts = {document.account.id: document.account for document in documents}
    by_key = {row.entry.key: row for row in rows}
    entries = _all_entries(accounts, by_key, found, now_ms)
    expected: Counter[str] = Counter()
    moving: Counter[str] = Counter()
    system: Counter[str] = Counter()
    credited: Counter[str] = Counter()
    for entry in entries:
        _check_entry(entry, found)
        if entry.state is not KeyState.POSTED:
            continue
        expected[entry.account] += effect_on(entry.account, entry.transfers)
        system[entry.asset] += sum(_system_effects(entry).values())
        row = by_key.get(entry.key)
        for transfer in entry.transfers:
            credited[transfer.credit] += transfer.amount_minor if row is not None else 0
        for target_id, amount_minor in credits_of(entry).items():
            target = accounts.get(target_id)
            remembered = target is not None and any(key == entry.key for key, _ in target.credited)
            if remembered or (row is not None and row.applied):
                expected[target_id] += amount_minor
            else:
                moving[entry.asset] += amount_minor
                found.waits("a credit is applied", entry.key, f"{target_id} waits for {amount_minor}")
    _check_accounts(accounts, entries, expected, found)
    _check_zero(accounts, entries, system, moving, found)
    for account_id in sorted(credited.keys() | reported_credits.keys()):
        told, is_ = reported_credits.get(account_id, 0), credited[account_id]
        found.require(
            told == is_, "reports equal the entries", account_id, f"reports say {told}, entries {is_}"
        )
    found.counted |= {"accounts": len(accounts), "entries": len(entries)}
    return found


def audit_activity(rows: Iterable[Row], reported: Mapping[str, Activity]) -> Findings:
    """Check what reports by day add up against the entries themselves; `reported` is the store's activity of all days by asset.

    Revenue is read from columns beside the entries: a row whose day was changed would move income to another year, and every
    balance would still be right.
    """
    found = Findings()
    amounts: Counter[tuple[str, str, str]] = Counter()
    transfers: Counter[tuple[str, str, str]] = Counter()
    entries: Counter[tuple[str, str, str]] = Counter()
    quantities: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        entry = row.entry
        if entry.state is not KeyState.POSTED:
            continue
        entries[entry.asset, entry.day, entry.kind] += 1
        quantities[entry.asset, entry.day, entry.kind] += quantity_of(entry)
        for transfer in entry.transfers:
            amounts[entry.asset, entry.day, transfer.kind] += transfer.amount_minor
            transfers[entry.asset, entry.day, transfer.kind] += 1
    moved = {
        (asset, one.day, one.kind): (one.amount_minor, one.transfers)
        for asset, activity in reported.items()
        for one in activity.moved
    }
    booked = {
        (asset, one.day, one.kind): (one.entries, one.quantity)
        for asset, activity in reported.items()
        for one in activity.booked
    }
    for told, sums in ((moved, (amounts, transfers)), (booked, (entries, quantities))):
        for key in sorted(told.keys() | sums[1].keys() | sums[0].keys()):
            says, is_ = told.get(key, (0, 0)), (sums[0][key], sums[1][key])
            found.require(
                says == is_,
                "a day's report equals its entries",
                " ".join(key),
                f"reports say {says}, entries {is_}",
            )
    return found


def _all_entries(
    accounts: dict[str, Account], by_key: dict[str, Row], found: Findings, now_ms: int
) -> list[Entry]:
    entries = [row.entry for row in by_key.values()]
    for account in accounts.values():
        for entry in account.tail:
            age_s = (now_ms - entry.at_ms) // 1000
            found.waits("a tail is copied out", entry.key, f"committed {age_s} s ago on {account.id}")
            if entry.key not in by_key:
                entries.append(entry)
    return entries


def _check_entry(entry: Entry, found: Findings) -> None:
    change = effect_on(entry.account, entry.transfers) if entry.state is KeyState.POSTED else 0
    found.require(
        entry.posted_after - entry.posted_before == change,
        "an entry's balances differ by its transfers",
        entry.key,
        f"{entry.posted_before} to {entry.posted_after}, transfers {change}",
    )
    found.require(
        entry.key.startswith(f"{entry.account}|"), "a key contains its account", entry.key, entry.account
    )
    for transfer in entry.transfers:
        found.require(
            transfer.amount_minor > 0
            and (transfer.debit == entry.account or not has_document(transfer.debit)),
            "a transfer is positive and paid where it commits",
            entry.key,
            f"{transfer.debit} to {transfer.credit}: {transfer.amount_minor}",
        )


def _system_effects(entry: Entry) -> dict[str, int]:
    names = {name for t in entry.transfers for name in (t.debit, t.credit) if not has_document(name)}
    return {name: effect_on(name, entry.transfers) for name in names}


def _check_accounts(
    accounts: dict[str, Account], entries: list[Entry], expected: Counter[str], found: Findings
) -> None:
    numbers: dict[str, list[int]] = defaultdict(list)
    for entry in entries:
        numbers[entry.account].append(entry.seq)
    for account in accounts.values():
        found.require(
            account.posted == expected[account.id],
            "a balance is the sum of its entries",
            account.id,
            f"posted {account.posted}, entries {expected[account.id]}",
        )
        held = sum(hold.amount_minor for hold in account.holds.values())
        found.require(
            account.held == held, "held is the sum of the holds", account.id, f"{account.held}, {held}"
        )
        low = account.floor is not None and account.posted - account.held < account.floor
        found.require(not low, "never below the floor", account.id, f"spendable {account.spendable}")
        seqs = sorted(numbers.pop(account.id, []))
        found.require(
            seqs == list(range(1, account.seq + 1)),
            "no entry of an account is missing",
            account.id,
            f"{len(seqs)} entries, last number {account.seq}",
        )
    for account_id in numbers:
        found.require(False, "an entry's account exists", account_id, "entries without a document")


def _check_zero(
    accounts: dict[str, Account],
    entries: list[Entry],
    system: Counter[str],
    moving: Counter[str],
    found: Findings,
) -> None:
    """`system`: what all system accounts come to, by asset. One of them may have several: a gateway takes several currencies."""
    assets = {account.id: account.asset for account in accounts.values()}
    for entry in entries:
        for transfer in entry.transfers:
            for name in filter(has_document, (transfer.debit, transfer.credit)):
                other = assets.setdefault(name, entry.asset)
                found.require(
                    other == entry.asset, "an account has one asset", name, f"{other}, {entry.asset}"
                )
    totals = Counter(system)
    for account in accounts.values():
        totals[account.asset] += account.posted
    for asset, total in totals.items():
        found.require(
            total + moving[asset] == 0,
            "an asset sums to zero",
            asset,
            f"{total} and {moving[asset]} on the way",
        )
