"""What the platform turned over, by local day or month: sums over the ledger's rows, to the smallest unit (SPEC 14)."""

from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from billing_engine.clock import Clock
from billing_engine.consultations.billing import COMMISSION, ENTRY_KIND, NET
from billing_engine.ledger.ports import Activity
from billing_engine.money import Asset
from billing_engine.refunds.model import REFUND, REFUND_COMMISSION, REFUND_NET
from billing_engine.wallets.service import RECHARGE
from server.admin.ports import Books
from server.errors import ValidationFailed
from server.people.model import local_day

#: The longest report, in periods; the usual one where the caller does not say.
_MOST: Final = 366
_USUAL_DAYS: Final = 30
_USUAL_MONTHS: Final = 12


class Period(StrEnum):
    """By what a report adds up."""

    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Turnover:
    """One period, or all of them together (`period` is empty). Smallest units; gross is the lawyers' net and the commission.

    All three are less what was given back in the period, whenever it was earned: `refunded_minor` says how much of gross that is.
    """

    period: str
    net_minor: int
    commission_minor: int
    sessions: int
    seconds: int
    recharged_minor: int
    recharges: int
    refunded_minor: int = 0
    refunds: int = 0

    @property
    def gross_minor(self) -> int:
        """What consultations cost their users, less what they got back."""
        return self.net_minor + self.commission_minor


@dataclass(frozen=True, slots=True)
class Report:
    """Every period from `first_day` to `last_day`, those without any business too, and their total."""

    first_day: date
    last_day: date
    by: Period
    periods: list[Turnover]
    total: Turnover


class Revenue:
    """Reports over the ledger."""

    def __init__(self, *, books: Books, clock: Clock, asset: Asset, zone: ZoneInfo) -> None:
        self._books = books
        self._clock = clock
        self._asset = asset
        self._zone = zone

    @property
    def timezone(self) -> str:
        """Where a day of the reports begins."""
        return str(self._zone)

    async def report(self, *, first_day: date | None, last_day: date | None, by: Period) -> Report:
        """The business of these local days, both included; without bounds the last thirty days or twelve months.

        Raises:
            ValidationFailed: the days are in the wrong order or too many; names `from`.
        """
        last = last_day or date.fromisoformat(local_day(self._clock.now_ms(), self._zone))
        first = first_day or _usual_start(last, by)
        if first > last:
            raise ValidationFailed([("from", "must not be after to")])
        if _length(first, last, by) > _MOST:
            raise ValidationFailed([("from", f"must be less than {_MOST} {by.value}s before to")])
        activity = await self._books.activity(
            self._asset.code, first_day=first.isoformat(), last_day=last.isoformat()
        )
        sums = _Sums(activity, by)
        return Report(first, last, by, [sums.of(name) for name in _names(first, last, by)], sums.of(""))


class _Sums:
    """Activity added up by period and kind, and by kind alone."""

    def __init__(self, activity: Activity, by: Period) -> None:
        #: Amounts, transfers, entries, quantities by (period, kind).
        self._amounts: Counter[tuple[str, str]] = Counter()
        self._transfers: Counter[tuple[str, str]] = Counter()
        self._entries: Counter[tuple[str, str]] = Counter()
        self._quantities: Counter[tuple[str, str]] = Counter()
        for moved in activity.moved:
            for period in ("", _name(moved.day, by)):
                self._amounts[period, moved.kind] += moved.amount_minor
                self._transfers[period, moved.kind] += moved.transfers
        for booked in activity.booked:
            for period in ("", _name(booked.day, by)):
                self._entries[period, booked.kind] += booked.entries
                self._quantities[period, booked.kind] += booked.quantity

    def of(self, period: str) -> Turnover:
        net_back = self._amounts[period, REFUND_NET]
        commission_back = self._amounts[period, REFUND_COMMISSION]
        return Turnover(
            period=period,
            net_minor=self._amounts[period, NET] - net_back,
            commission_minor=self._amounts[period, COMMISSION] - commission_back,
            sessions=self._entries[period, ENTRY_KIND],
            seconds=self._quantities[period, ENTRY_KIND],
            recharged_minor=self._amounts[period, RECHARGE],
            recharges=self._transfers[period, RECHARGE],
            refunded_minor=net_back + commission_back,
            refunds=self._entries[period, REFUND],
        )


def _name(day: str, by: Period) -> str:
    """`2026-01-31` or `2026-01`."""
    return day if by is Period.DAY else day[:7]


def _names(first: date, last: date, by: Period) -> list[str]:
    days = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return list(dict.fromkeys(_name(day.isoformat(), by) for day in days))


def _length(first: date, last: date, by: Period) -> int:
    if by is Period.DAY:
        return (last - first).days + 1
    return (last.year - first.year) * 12 + last.month - first.month + 1


def _usual_start(last: date, by: Period) -> date:
    if by is Period.DAY:
        return last - timedelta(days=_USUAL_DAYS - 1)
    months = last.year * 12 + last.month - _USUAL_MONTHS
    return date(months // 12, months % 12 + 1, 1)
