"""A lawyer's earnings as the ledger tells them; today and this month are those of the business's time
zone.
"""

from datetime import tzinfo

from billing_engine.clock import Clock
from server.people.model import local_day
from server.people.ports import EarningRow, Earnings, EarningsSummary


class EarningsService:
    """Puts the calendar to the ledger's sums."""

    def __init__(self, *, earnings: Earnings, clock: Clock, zone: tzinfo) -> None:
        self._earnings = earnings
        self._clock = clock
        self._zone = zone

    async def summary(self, lawyer_id: str) -> EarningsSummary:
        day = local_day(self._clock.now_ms(), self._zone)
        return await self._earnings.summary(lawyer_id, day=day, month=day[:7])

    async def rows(self, lawyer_id: str, *, limit: int, before: tuple[int, str] | None) -> list[EarningRow]:
        """One row a consultation, newest first."""
        return await self._earnings.rows(lawyer_id, limit=limit, before=before)
