"""The ledger store's promises kept in two dicts: small enough to copy, compare and explore. Not a store for production.

It passes the part of the store's contract that it has (documents and rows), so what is explored on it holds for any
adapter that passes the contract. Its calls are atomic, each for itself: the steps of MongoDB.
"""

from collections.abc import Iterable, Mapping, Sequence

from billing_engine.errors import InvariantBroken
from billing_engine.ledger.model import Account, Entry, has_document
from billing_engine.ledger.ports import OpenHold, Row, Versioned, Write

_INT64 = range(-(2**63), 2**63)


class DictLedgerStore:
    """`LedgerStore` without its reports."""

    atomic = False

    def __init__(self) -> None:
        self.accounts: dict[str, Versioned] = {}
        self.entries: dict[str, Row] = {}

    def copy(self) -> "DictLedgerStore":
        other = DictLedgerStore()
        other.accounts, other.entries = dict(self.accounts), dict(self.entries)
        return other

    async def load(self, account_ids: Sequence[str]) -> dict[str, Versioned]:
        return {id_: self.accounts[id_] for id_ in account_ids if id_ in self.accounts}

    async def rows(self, keys: Sequence[str]) -> dict[str, Row]:
        return {key: self.entries[key] for key in keys if key in self.entries}

    async def commit(self, writes: Sequence[Write]) -> list[str]:
        for write in writes:
            _guard(write.account)
        moved = []
        for write in writes:
            id_ = write.account.id
            if self._version(id_) == write.expected:
                self.accounts[id_] = Versioned(write.version, write.account)
            else:
                moved.append(id_)
        return moved

    async def commit_all(self, writes: Sequence[Write], rows: Sequence[Row]) -> list[str]:
        raise NotImplementedError

    async def insert_rows(self, entries: Iterable[Entry]) -> None:
        wanted = list(entries)
        for entry in wanted:
            if entry.key in self.entries and self.entries[entry.key].entry != entry:
                raise InvariantBroken(rule="a key ends once", key=entry.key)
        for entry in wanted:
            self.entries.setdefault(entry.key, Row(entry, applied=False, credits_after={}))

    async def mark_applied(self, credits_after: Mapping[str, Mapping[str, int]]) -> None:
        for key, after in credits_after.items():
            row = self.entries[key]
            if not row.applied:
                self.entries[key] = Row(row.entry, applied=True, credits_after=dict(after))

    async def pending(self) -> list[str]:
        return sorted(id_ for id_, (_, account) in self.accounts.items() if account.tail or account.credited)

    async def open_holds(self, prefix: str, *, owner: str | None = None) -> list[OpenHold]:
        return [
            OpenHold(id_, hold.id, hold.owner, hold.epoch)
            for id_, (_, account) in self.accounts.items()
            for hold in account.holds.values()
            if hold.id.startswith(prefix) and owner in (None, hold.owner)
        ]

    async def balance_of_rows(self, account_id: str, asset: str, *, before_day: str | None = None) -> int:
        return sum(
            transfer.amount_minor * ((transfer.credit == account_id) - (transfer.debit == account_id))
            for row in self.entries.values()
            if row.entry.state == "posted" and row.entry.asset == asset
            if before_day is None or row.entry.day < before_day
            for transfer in row.entry.transfers
        )

    def _version(self, id_: str) -> str:
        return self.accounts[id_].version if id_ in self.accounts else ""


def _guard(account: Account) -> None:
    low = account.floor is not None and account.posted - account.held < account.floor
    if low or account.posted not in _INT64 or not has_document(account.id):
        raise InvariantBroken(rule="the store refuses this write", account=account.id)
