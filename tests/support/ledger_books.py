"""The books of a ledger file, read and added up in the plainest way, without any code of the ledger's service.

Written apart from the code that it audits, so that one mistake cannot hide the other.
"""

import sqlite3
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from billing_engine.ledger.model import Account, Entry, KeyState, has_document
from billing_engine.ledger.ports import Row
from server.storage.sqlite.ledger import all_accounts, all_rows


@dataclass(frozen=True)
class Books:
    """Everything that a ledger file says, as of one instant."""

    accounts: dict[str, Account]
    rows: dict[str, Row]
    #: What the transfer rows say each account got, less what it paid.
    moved_by_rows: Counter[str]

    @property
    def entries(self) -> dict[str, Entry]:
        """Every key that has ended: copied out, or still only in a tail."""
        tails = {entry.key: entry for account in self.accounts.values() for entry in account.tail}
        return tails | {key: row.entry for key, row in self.rows.items()}

    def balances(self) -> Counter[str]:
        """Each account's balance as it will stand once redo has finished."""
        balances = Counter({id_: account.posted for id_, account in self.accounts.items()})
        for entry in self.entries.values():
            if entry.state is not KeyState.POSTED:
                continue
            row = self.rows.get(entry.key)
            for transfer in entry.transfers:
                if not has_document(transfer.debit):
                    balances[transfer.debit] -= transfer.amount_minor
                if transfer.credit == entry.account:
                    continue
                if not has_document(transfer.credit) or not (
                    (row is not None and row.applied) or self._remembers(transfer.credit, entry.key)
                ):
                    balances[transfer.credit] += transfer.amount_minor
        return Counter({id_: balance for id_, balance in balances.items() if balance})

    def _remembers(self, account_id: str, key: str) -> bool:
        account = self.accounts.get(account_id)
        return account is not None and any(known == key for known, _ in account.credited)

    def problems(self, *, at_rest: bool) -> list[str]:
        """What is wrong with the books. `at_rest`: redo has finished, so nothing may be half done either."""
        found = []
        balances = self.balances()
        if sum(balances.values()) != 0:
            found.append(f"the sum over all accounts is {sum(balances.values())}, not zero")
        for account in self.accounts.values():
            found += _problems_of(account)
            if at_rest and (account.tail or account.credited):
                found.append(f"{account.id} has work left: {account.tail} {account.credited}")
        for key, row in self.rows.items():
            if at_rest and not row.applied:
                found.append(f"{key} is not applied")
        by_entries: Counter[str] = Counter()
        for entry in self.entries.values():
            if entry.state is KeyState.POSTED:
                for transfer in entry.transfers:
                    by_entries[transfer.credit] += transfer.amount_minor
                    by_entries[transfer.debit] -= transfer.amount_minor
        if {k: v for k, v in by_entries.items() if v} != dict(balances):
            found.append(f"entries say {dict(by_entries)}, balances say {dict(balances)}")
        if at_rest and {k: v for k, v in self.moved_by_rows.items() if v} != dict(balances):
            found.append(f"transfer rows say {dict(self.moved_by_rows)}, balances say {dict(balances)}")
        found += self._broken_chains()
        return found

    def _broken_chains(self) -> list[str]:
        """Each account's entries must be numbered without a gap, and no number used twice."""
        found = []
        numbers: dict[str, list[int]] = {}
        for entry in self.entries.values():
            numbers.setdefault(entry.account, []).append(entry.seq)
        for account_id, seqs in numbers.items():
            if sorted(seqs) != list(range(1, self.accounts[account_id].seq + 1)):
                found.append(f"{account_id} numbers its entries {sorted(seqs)}")
        return found


def _problems_of(account: Account) -> list[str]:
    found = []
    if account.floor is not None and account.spendable < account.floor:
        found.append(f"{account.id} may spend {account.spendable}, below its floor")
    if account.held != sum(hold.amount_minor for hold in account.holds.values()):
        found.append(f"{account.id} counts {account.held} held, its holds are {dict(account.holds)}")
    return found


def books_of(conn: sqlite3.Connection) -> Books:
    """Read everything in the connection's one read transaction."""
    moved: Counter[str] = Counter()
    for debit, credit, amount in conn.execute("SELECT debit, credit, amount FROM ledger_transfers"):
        moved[credit] += amount
        moved[debit] -= amount
    return Books(
        {found.account.id: found.account for found in all_accounts(conn)},
        {row.entry.key: row for row in all_rows(conn)},
        moved,
    )


def read_books(path: Path) -> Books:
    """The books of a file that nobody has open, or that somebody has."""
    conn = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    try:
        conn.execute("BEGIN")
        return books_of(conn)
    finally:
        conn.close()
