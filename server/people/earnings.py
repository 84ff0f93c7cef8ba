"""A lawyer's earnings as the ledger tells them; today and this month are those of the business's time
zone.
"""

from dataclasses import replace
from datetime import tzinfo

from billing_engine.clock import Clock
from server.people.model import local_day
from server.people.ports import EarningRow, Earnings, EarningsSummary, Refunded


class EarningsService:
    """Puts the calendar to the ledger's sums."""

    def __init__(self, *, earnings: Earnings, refunded: Refunded, clock: Clock, zone: tzinfo) -> None:
        self._earnings = earnings
        self._refunded = refunded
        self._clock = clock
        self._zone = zone

    async def summary(self, lawyer_id: str) -> EarningsSummary:
        day = local_day(self._clock.now_ms(), self._zone)
        return await self._earnings.summary(lawyer_id, day=day, month=day[:7])

    async def rows(self, lawyer_id: str, *, limit: int, before: tuple[int, str] | None) -> list[EarningRow]:
        """One row a consultation, newest first, each with what was given back of it."""
        rows = await self._earnings.rows(lawyer_id, limit=limit, before=before)
        books = await self._refunded.books([row.session_id for row in rows])
        return [
            replace(row, refunded_minor=books[row.session_id].net_back_minor)
            if row.session_id in books
            else row
            for row in rows
        ]
