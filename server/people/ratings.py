"""A lawyer's rating: the exact mean of the reviews, whatever crashed and whoever reviewed at the same time.

A review is stored uncounted; that insert is its only commit point. The stored rating, which searches
filter and sort on, is then counted anew from all reviews under compare-and-set (LEDGER 8: recomputed,
never incremented). Whoever reads a rating settles what is uncounted first, so a crash between the two
writes is healed by the next reader and no reader sees the gap. Normally there is nothing to settle, and
asking costs one index lookup.
"""

from typing import Final

from server.people.ports import LawyerProfiles, Reviews

_BATCH: Final = 100


class Ratings:
    """Brings stored ratings up to date."""

    def __init__(self, *, profiles: LawyerProfiles, reviews: Reviews) -> None:
        self._profiles = profiles
        self._reviews = reviews

    async def settle(self, lawyer_id: str | None = None) -> None:
        """Count every uncounted review of one lawyer, or of all. On return the stored ratings contain all
        reviews that were stored before the call. Harmless to repeat and to run at the same time.
        """
        while True:
            pending = await self._reviews.uncounted(lawyer_id, limit=_BATCH)
            for lawyer in dict.fromkeys(review.lawyer_id for review in pending):
                await self._recount(lawyer)
            for review in pending:
                await self._reviews.mark_counted(review.session_id)
            if len(pending) < _BATCH:
                return

    async def _recount(self, lawyer_id: str) -> None:
        """The version is read before the reviews are summed: a sum that misses a review meets a version
        that has moved on, or moves the version of the one that does not.
        """
        while True:
            profile = await self._profiles.get(lawyer_id)
            if profile is None:
                return
            total = await self._reviews.total_of(lawyer_id)
            if total == profile.rating:
                return
            if await self._profiles.set_rating(lawyer_id, total, expect_version=profile.rating_version):
                return
