"""One user's verdict on one consultation, after its end, once (SPEC 7)."""

import logging

from billing_engine.clock import Clock
from billing_engine.consultations.model import ASKED, BILLED, LIVE
from billing_engine.errors import Unavailable
from server.people.errors import AlreadyReviewed, SessionNotEnded, SessionNotFound
from server.people.model import Place, Review
from server.people.ports import Reviews, SessionBook
from server.people.ratings import Ratings

_log = logging.getLogger(__name__)


class ReviewService:
    """Takes reviews and lists them."""

    def __init__(self, *, reviews: Reviews, ratings: Ratings, sessions: SessionBook, clock: Clock) -> None:
        self._reviews = reviews
        self._ratings = ratings
        self._sessions = sessions
        self._clock = clock

    async def post(self, *, user_id: str, session_id: str, stars: int, comment: str | None) -> Review:
        """Store the review and count it.

        Raises:
            SessionNotFound: no such session, or the caller is not its user.
            SessionNotEnded: it is still going on.
            AlreadyReviewed: it has its review, the same or another; the first one stays.
        """
        session = await self._sessions.get(session_id)
        if session is None or session.user_id != user_id:
            raise SessionNotFound(session=session_id)
        if session.status in LIVE | ASKED:
            raise SessionNotEnded(session=session_id)
        if session.status not in BILLED:
            # Nobody was served.
            raise SessionNotFound(session=session_id)
        review = Review(
            session_id=session_id,
            lawyer_id=session.lawyer_id,
            user_id=user_id,
            stars=stars,
            comment=comment,
            created_at_ms=self._clock.now_ms(),
        )
        if not await self._reviews.add(review):
            raise AlreadyReviewed(session=session_id)
        try:
            await self._ratings.settle(session.lawyer_id)
        except Unavailable:
            # The review is stored and the next reader counts it; an error here would say that it is not.
            _log.warning("the review of session %s waits to be counted", session_id, exc_info=True)
        return review

    async def list_of(self, lawyer_id: str, *, limit: int, after: Place | None) -> list[Review]:
        """A lawyer's reviews, newest first. Who may see the lawyer is the caller's question."""
        return await self._reviews.list_of(lawyer_id, limit=limit, after=after)
