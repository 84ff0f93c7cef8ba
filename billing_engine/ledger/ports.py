"""What the ledger needs of a store: compare-and-set on documents, rows by key, and reports. No rule of money is in an adapter."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from billing_engine.ledger.model import Account, Entry, KeyState


class Versioned(NamedTuple):
    """An account document as the store has it, with its version."""

    version: str
    account: Account


class Write(NamedTuple):
    """Replace the account's document by `account` under `version`, if its stored version is `expected` ("": there is none yet)."""

    expected: str
    version: str
    account: Account


class OpenHold(NamedTuple):
    """Where a hold is, and who owns it at which epoch."""

    account_id: str
    hold_id: str
    owner: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Row:
    """A copied-out entry. `applied`: every credit of it has been added to its account. `credits_after`: their balances after."""

    entry: Entry
    applied: bool
    credits_after: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Line:
    """One entry as one account sees it: its signed change and the balance after it, in smallest units.

    `balance_after` is None while the credit waits for redo.
    """

    key: str
    kind: str
    reference: str
    state: KeyState
    change_minor: int
    balance_after: int | None
    at_ms: int
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Total:
    """A sum over transfer rows and how many there are."""

    amount_minor: int
    rows: int


@dataclass(frozen=True, slots=True)
class Moved:
    """What transfers of one kind moved on one local day, and how many there were."""

    day: str
    kind: str
    amount_minor: int
    transfers: int


@dataclass(frozen=True, slots=True)
class Booked:
    """How many entries of one kind were posted on one local day, and the sum of their quantities (`model.QUANTITY`)."""

    day: str
    kind: str
    entries: int
    quantity: int


@dataclass(frozen=True, slots=True)
class Activity:
    """What happened in one asset on some days, by day and kind, both lists in that order. A day without any is absent."""

    moved: tuple[Moved, ...]
    booked: tuple[Booked, ...]


class LedgerStore(Protocol):
    """Durable store of account documents and entry rows. Every adapter passes `tests/contract/ledger_store_contract.py`.

    Every method raises `Unavailable` when the store does not answer; a write's outcome is then unknown.
    """

    #: Whether it is an `AtomicLedgerStore`: documents and rows in one step. The states are the same either way.
    atomic: bool

    async def load(self, account_ids: Sequence[str]) -> dict[str, Versioned]:
        """The documents that exist, each with its version. Always read before the keys (LEDGER 1, order of reads)."""
        ...

    async def rows(self, keys: Sequence[str]) -> dict[str, Row]:
        """The rows that exist, by key."""
        ...

    async def commit(self, writes: Sequence[Write]) -> list[str]:
        """Compare-and-set each document on its own, durably; the ids of the accounts whose version had moved (those are unchanged).

        Raises:
            InvariantBroken: the store's own guard refused a balance below the account's floor; nothing of the call was written.
        """
        ...

    async def insert_rows(self, entries: Iterable[Entry]) -> None:
        """Redo, step one: copy entries out, not applied. A key that exists stays as it is.

        Raises `InvariantBroken` for other content under a known key, which stays. Others of the call may have been written, and as
        they are committed that does no harm.
        """
        ...

    async def mark_applied(self, credits_after: Mapping[str, Mapping[str, int]]) -> None:
        """Redo, step three: for each key, its credits are in their accounts, with these balances after. Repeating changes nothing."""
        ...

    async def pending(self) -> list[str]:
        """Accounts with a tail or with credits not forgotten: where redo has work."""
        ...

    async def open_holds(self, prefix: str, *, owner: str | None = None) -> list[OpenHold]:
        """Every open hold whose id starts with `prefix` (and that `owner` owns): takeover asks for a dead process's."""
        ...

    async def lines(
        self,
        account_id: str,
        *,
        limit: int,
        before: tuple[int, str] | None = None,
        kinds: Sequence[str] | None = None,
    ) -> list[Line]:
        """Posted entries that touch the account, newest first; `before` is (at_ms, key) of the last line of the previous page."""
        ...

    async def entries(
        self,
        account_id: str,
        *,
        above: int = 0,
        below: int | None = None,
        limit: int,
        newest_first: bool = False,
    ) -> list[Entry]:
        """The account's own entries, refused and voided ones too, that are copied out, by number: those above `above` and below
        `below`.
        """
        ...

    async def total_credited(self, account_id: str, *, kinds: Sequence[str], day_prefix: str = "") -> Total:
        """Sum of the transfers of these kinds into the account on days that start with `day_prefix` (a day or a month)."""
        ...

    async def total_debited(self, account_id: str, *, kinds: Sequence[str], day_prefix: str = "") -> Total:
        """The same of the transfers out of the account."""
        ...

    async def balance_of_rows(self, account_id: str, asset: str, *, before_day: str | None = None) -> int:
        """Sum of the asset's rows into the account less those out of it, of all days or of those before one: a system account's
        balance, or what stood on an account when a day began. (One gateway takes several currencies.)
        """
        ...

    async def activity(self, asset: str, *, first_day: str, last_day: str) -> Activity:
        """Sums over the rows of posted entries of the asset on these days, both included, of one snapshot."""
        ...


class AtomicLedgerStore(LedgerStore, Protocol):
    """A store with `atomic` set: documents and rows together."""

    async def commit_all(self, writes: Sequence[Write], rows: Sequence[Row]) -> list[str]:
        """Every write and every row, or nothing and the ids of the accounts whose version had moved."""
        ...
