"""Giving money of a consultation back to the wallet, and the users' requests for it.

An admin's decision is one compare-and-set on the session's book; from then on it is completed, whoever dies: the ledger's entry,
the request's record and the letter each go by the decision's id.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

from billing_engine.clock import Clock
from billing_engine.consultations.errors import SessionNotEnded, SessionNotFound
from billing_engine.consultations.model import ASKED, BILLED, LIVE, Session
from billing_engine.errors import Unavailable
from billing_engine.ledger.rivals import ATTEMPTS, let_rivals_finish
from billing_engine.ledger.service import Ledger
from billing_engine.refunds.errors import (
    RefundAmountInvalid,
    RefundRequestNotFound,
    RefundRequestOpen,
    RefundTooLarge,
)
from billing_engine.refunds.model import (
    Decision,
    Order,
    RefundBook,
    RefundRequest,
    RequestStatus,
    book_of,
    decided,
    movement_of,
    refund,
    reject,
    request_id_of,
    settle,
)
from billing_engine.refunds.ports import RefundBooks, RefundNews, RefundRequests, SessionRecords

#: A pure change of a book, and the decision that it is about.
Change = Callable[[RefundBook], tuple[RefundBook, Decision]]
#: Books that one round of healing looks at.
_PAGE: Final = 100


class Refunds:
    """The use cases of refunds to the wallet (SPEC 11, 14). `on_credited` hears of every credit of a user, after it is durable."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        sessions: SessionRecords,
        books: RefundBooks,
        requests: RefundRequests,
        news: RefundNews,
        clock: Clock,
        on_credited: Callable[[str], None],
    ) -> None:
        self._ledger = ledger
        self._sessions = sessions
        self._books = books
        self._requests = requests
        self._news = news
        self._clock = clock
        self._on_credited = on_credited
        #: Only so that many refunds of one session here do not move one another's revision; the store decides.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # -- the admins --------------------------------------------------------------------------------------------------

    async def refund(
        self, session_id: str, *, amount_minor: int, reason: str, by: str, operation_id: str
    ) -> tuple[RefundBook, Decision]:
        """Give so much of an ended session back, once per operation; a running session of the user is extended at once.

        Raises:
            RefundAmountInvalid: not more than nothing; names `amount`.
            SessionNotFound, SessionNotEnded: there is nothing to give back.
            RefundTooLarge: more than what is left; nothing is changed.
            Unavailable: it may be decided; then it will be completed. Repeat with the same operation.
        """
        require_positive(amount_minor)
        order = Order(operation_id, amount_minor, self._clock.now_ms(), by, reason)
        book, decision = await self._decide(session_id, partial(refund, order=order))
        await self._complete(book, decision)
        return book, decision

    async def approve(
        self, request_id: str, *, amount_minor: int | None, reason: str | None, by: str
    ) -> RefundRequest:
        """Give back what a request asks for, or `amount_minor`. Whoever comes first decides; again, it answers the first decision.

        Raises what `refund` raises; RefundRequestNotFound; RefundRequestDecided: it was turned down.
        """
        if amount_minor is not None:
            require_positive(amount_minor)
        request = await self.request(request_id)
        order = Order(
            id=request.id,
            amount_minor=request.amount_minor if amount_minor is None else amount_minor,
            at_ms=self._clock.now_ms(),
            by=by,
            reason=reason or request.reason,
            answers_request=True,
        )
        book, decision = await self._decide(request.session_id, partial(refund, order=order))
        await self._complete(book, decision)
        return decided(request, decision)

    async def reject(self, request_id: str, *, reason: str, by: str) -> RefundRequest:
        """Turn a request down; again, it answers the first decision. Raises RefundRequestNotFound, RefundRequestDecided."""
        request = await self.request(request_id)
        order = Order(request.id, 0, self._clock.now_ms(), by, reason, answers_request=True)
        book, decision = await self._decide(request.session_id, partial(reject, order=order))
        await self._complete(book, decision)
        return decided(request, decision)

    async def request(self, request_id: str) -> RefundRequest:
        """Raises `RefundRequestNotFound`."""
        found = await self._requests.get(request_id)
        if found is None:
            raise RefundRequestNotFound(request=request_id)
        return found

    async def queue(
        self, status: RequestStatus | None, *, limit: int, after: tuple[int, str] | None
    ) -> list[RefundRequest]:
        """Everybody's requests: open ones oldest first, others newest first."""
        return await self._requests.queue(status, limit=limit, after=after)

    # -- the user ----------------------------------------------------------------------------------------------------

    async def ask(
        self, session_id: str, *, user_id: str, amount_minor: int | None, reason: str, operation_id: str
    ) -> RefundRequest:
        """Ask for money of an ended session back, all that is left without an amount. One open request a session.

        Raises:
            RefundAmountInvalid: names `amount`.
            SessionNotFound: no such session, or not this user's.
            SessionNotEnded: it is still going on.
            RefundTooLarge: less, or nothing, can still be refunded.
            RefundRequestOpen: there is one already.
        """
        if amount_minor is not None:
            require_positive(amount_minor)
        session = await self._ended(session_id, user_id=user_id)
        earlier = await self._requests.of_session(session_id)
        if (mine := next((one for one in earlier if one.operation_id == operation_id), None)) is not None:
            return mine
        if earlier and earlier[0].status is RequestStatus.OPEN:
            raise RefundRequestOpen(session=session_id)
        left_minor = (await self._books.get(session_id) or book_of(session)).refundable_minor
        if (amount_minor or 1) > left_minor:
            raise RefundTooLarge(session=session_id, available_minor=left_minor)
        number = earlier[0].number + 1 if earlier else 1
        request = RefundRequest(
            id=request_id_of(session_id, number),
            session_id=session_id,
            number=number,
            user_id=user_id,
            lawyer_id=session.lawyer_id,
            currency=session.currency,
            amount_minor=amount_minor,
            reason=reason,
            created_at_ms=self._clock.now_ms(),
            operation_id=operation_id,
        )
        if await self._requests.add(request):
            return request
        # Another request of the same instant has taken the number.
        taken = await self._requests.get(request.id)
        if taken is None or taken.operation_id != operation_id:
            raise RefundRequestOpen(session=session_id)
        return taken

    async def list_for(
        self, user_id: str, *, limit: int, before: tuple[int, str] | None
    ) -> list[RefundRequest]:
        """The user's requests, newest first."""
        return await self._requests.list_for(user_id, limit=limit, before=before)

    # -- whoever looks at sessions -----------------------------------------------------------------------------------

    async def books(self, session_ids: Sequence[str]) -> dict[str, RefundBook]:
        """What was decided about these sessions; those without any decision are absent."""
        return await self._books.get_many(session_ids)

    # -- completing --------------------------------------------------------------------------------------------------

    async def heal(self) -> int:
        """Complete the decisions that a crash or a failing store cut short; how many there were."""
        healed = 0
        for book in await self._books.open(limit=_PAGE):
            for decision in book.decisions:
                if not decision.is_settled:
                    await self._complete(book, decision)
                    healed += 1
        return healed

    async def _ended(self, session_id: str, *, user_id: str | None = None) -> Session:
        session = await self._sessions.get(session_id)
        # One that never became a session is none to anybody.
        if (
            session is None
            or session.status not in ASKED | LIVE | BILLED
            or user_id not in (None, session.user_id)
        ):
            raise SessionNotFound(session=session_id)
        if session.status not in BILLED:
            raise SessionNotEnded(session=session_id)
        return session

    async def _decide(self, session_id: str, change: Change) -> tuple[RefundBook, Decision]:
        async with self._turns.setdefault(session_id, asyncio.Lock()):
            for attempt in range(ATTEMPTS):
                await let_rivals_finish(attempt)
                book = await self._books.get(session_id)
                if book is None:
                    book = book_of(await self._ended(session_id))
                changed, decision = change(book)
                if changed is book or await self._books.put(changed, expect_revision=book.revision):
                    return changed, decision
        raise Unavailable(reason="revisions kept moving", session=session_id)

    async def _complete(self, book: RefundBook, decision: Decision) -> None:
        """What follows a decision, each step harmless when repeated; that it is settled is written last."""
        if decision.is_settled:
            return
        if decision.is_refund:
            await self._ledger.post(movement_of(book, decision))
            self._on_credited(book.user_id)
        if decision.answers_request and (request := await self._requests.get(decision.id)) is not None:
            await self._requests.settle(decided(request, decision))
        await self._news.refund_decided(book, decision)

        def settled(newest: RefundBook) -> tuple[RefundBook, Decision]:
            return settle(newest, decision.id), decision

        await self._decide(book.session_id, settled)


def require_positive(amount_minor: int) -> None:
    """Raises `RefundAmountInvalid`."""
    if amount_minor <= 0:
        raise RefundAmountInvalid(field="amount", problem="must be more than zero")
