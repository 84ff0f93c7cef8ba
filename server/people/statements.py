"""A lawyer's month as the ledger has it: what stood on the account when it began, every entry, what stood there when it ended.

Entries belong to the local day that they were booked on, as in every report, so months neither share an entry nor leave one out: a
month's opening balance is the closing balance of the one before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from billing_engine.consultations.billing import ENTRY_KIND
from billing_engine.ledger.accounts import earnings_of
from billing_engine.ledger.model import Entry, effect_on
from billing_engine.ledger.ports import Line, Row
from billing_engine.money import Asset
from billing_engine.payouts.model import PAYOUT
from billing_engine.refunds.model import REFUND

#: Lines that are read at once.
_PAGE: Final = 500
#: An entry's day was computed with the time zone of then; this far around a month's instants none of its entries is missed.
_MARGIN_MS: Final = 2 * 86_400_000


class RowKind(StrEnum):
    """What an entry is to the lawyer. Only the first three exist today."""

    EARNING = "EARNING"
    REFUND = "REFUND"
    PAYOUT = "PAYOUT"
    OTHER = "OTHER"


_KINDS: Final = {ENTRY_KIND: RowKind.EARNING, REFUND: RowKind.REFUND, PAYOUT: RowKind.PAYOUT}


@dataclass(frozen=True, slots=True)
class StatementRow:
    """One entry. Amounts in smallest units, signed as they change the balance; gross and commission are None for what has none."""

    key: str
    kind: RowKind
    at_ms: int
    amount_minor: int
    balance_minor: int
    gross_minor: int | None = None
    commission_minor: int | None = None
    session_id: str | None = None
    payout_id: str | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """A month (`2026-11`), its rows oldest first."""

    month: str
    opening_minor: int
    rows: tuple[StatementRow, ...]

    @property
    def closing_minor(self) -> int:
        return self.opening_minor + sum(row.amount_minor for row in self.rows)

    def total_minor(self, kind: RowKind) -> int:
        """What the rows of one kind add up to, signed."""
        return sum(row.amount_minor for row in self.rows if row.kind is kind)


class EarningsBooks(Protocol):
    """The ledger, to be read."""

    async def balance_before(self, account_id: str, asset: str, day: str) -> int: ...

    async def lines(
        self,
        account_id: str,
        *,
        limit: int,
        before: tuple[int, str] | None = None,
        kinds: Sequence[str] | None = None,
    ) -> list[Line]: ...

    async def copied_out(self, keys: Sequence[str]) -> dict[str, Row]: ...


class Statements:
    """Statements of earnings accounts."""

    def __init__(self, *, books: EarningsBooks, asset: Asset, zone: ZoneInfo) -> None:
        self._books = books
        self._asset = asset
        self._zone = zone

    @property
    def timezone(self) -> str:
        """Where a month begins."""
        return str(self._zone)

    async def of(self, lawyer_id: str, month: str) -> Statement:
        """The lawyer's statement of a month (`2026-11`); one that is not over is as of now."""
        account_id = earnings_of(lawyer_id)
        opening_minor = await self._books.balance_before(account_id, self._asset.code, f"{month}-01")
        balance_minor = opening_minor
        rows = []
        for entry in await self._entries(account_id, month):
            change_minor = effect_on(account_id, entry.transfers)
            balance_minor += change_minor
            rows.append(_row(entry, change_minor, balance_minor))
        return Statement(month, opening_minor, tuple(rows))

    async def _entries(self, account_id: str, month: str) -> list[Entry]:
        """The month's entries, oldest first."""
        begin = datetime.strptime(month, "%Y-%m").replace(tzinfo=self._zone)
        end = (begin + timedelta(days=31)).replace(day=1)
        first_ms = _epoch_ms(begin) - _MARGIN_MS
        # '~' sorts after every key.
        before: tuple[int, str] | None = (_epoch_ms(end) + _MARGIN_MS, "~")
        found: list[Entry] = []
        while before is not None:
            lines = await self._books.lines(account_id, limit=_PAGE, before=before)
            copies = await self._books.copied_out([line.key for line in lines])
            found += [copies[line.key].entry for line in lines]
            more = len(lines) == _PAGE and lines[-1].at_ms >= first_ms
            before = (lines[-1].at_ms, lines[-1].key) if more else None
        return [entry for entry in reversed(found) if entry.day.startswith(month)]


def _row(entry: Entry, change_minor: int, balance_minor: int) -> StatementRow:
    kind, facts = _KINDS.get(entry.kind, RowKind.OTHER), entry.facts
    gross_minor: int | None = None
    commission_minor: int | None = None
    if kind is RowKind.EARNING:
        gross_minor, commission_minor = facts["gross"], facts["commission"]
    elif kind is RowKind.REFUND:
        gross_minor, commission_minor = -facts["amount"], -facts["commission"]
    return StatementRow(
        key=entry.key,
        kind=kind,
        at_ms=entry.at_ms,
        amount_minor=change_minor,
        balance_minor=balance_minor,
        gross_minor=gross_minor,
        commission_minor=commission_minor,
        session_id=facts.get("sessionId"),
        payout_id=facts.get("payoutId"),
        reference=facts.get("bankReference"),
    )


def _epoch_ms(instant: datetime) -> int:
    return int(instant.timestamp()) * 1000
