"""Requests: a lawyer is asked, answers, and billing begins once both are there.

A request is a session's record before it is a consultation. Each move is one compare-and-set of its status; its deadline is a stored
instant. The process that asked keeps a timer, and every process looks once in a while for what is due, so none is lost with a process.
What follows a close is idempotent and ends with the claims, which tell whoever finds them that it is not done yet.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from billing_engine.clock import Clock, Timer
from billing_engine.consultations.attendance import GoneSince
from billing_engine.consultations.billing import bill_of, hold_id_of
from billing_engine.consultations.engine import RETRY_MS, Engine
from billing_engine.consultations.errors import (
    AnsweredElsewhere,
    InsufficientBalance,
    RequestClosed,
    SessionNotFound,
    StartAborted,
)
from billing_engine.consultations.model import (
    ASKED,
    END_STATUS,
    LAST_STEP,
    LIVE,
    UNSERVED,
    VISIBLE,
    EndReason,
    Session,
    Status,
    Step,
    states_before,
)
from billing_engine.consultations.opening import hold_first_slice
from billing_engine.consultations.ports import Attending, Lawyers, Locks, RequestNews, Sessions, Standing
from billing_engine.consultations.request_model import LawyerAway, RequestChanged
from billing_engine.consultations.rules import Rules
from billing_engine.consultations.settlement import Settlement, lock_names
from billing_engine.errors import BillingError, InvariantBroken, Unavailable
from billing_engine.ledger.accounts import wallet_of
from billing_engine.ledger.service import Ledger
from billing_engine.stopping import stop_tasks

log = logging.getLogger(__name__)

#: How many of a lawyer's records are looked at for rings that were missed in a row.
_LOOKED_AT: Final = 20


class Requests:
    """The requests of all lawyers who want to be asked. `owner` names this process in the holds that it writes."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Clock,
        rules: Rules,
        sessions: Sessions,
        locks: Locks,
        lawyers: Lawyers,
        engine: Engine,
        settlement: Settlement,
        news: RequestNews,
        owner: str,
        attending: Attending | None = None,
        standing: Standing | None = None,
        may_live: Callable[[str], bool] = lambda _owner: False,
    ) -> None:
        """Without `attending` whoever has joined once is there. `may_live`: whether another process may still be at work."""
        self._ledger = ledger
        self._clock = clock
        self._rules = rules
        self._sessions = sessions
        self._locks = locks
        self._lawyers = lawyers
        self._engine = engine
        self._settlement = settlement
        self._news = news
        self._owner = owner
        self._attending = attending
        self._standing = standing
        self._may_live = may_live
        self._timers: dict[str, Timer] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- asking ------------------------------------------------------------------------------------------------------

    async def ask(self, session: Session) -> Session | None:
        """Ring the lawyer of a start that has everything but the lawyer's yes; None if the start has gone another way."""
        asked = await self._sessions.change(
            session.id,
            expect=states_before(Step.ASK),
            status=Status.REQUESTED,
            deadline_ms=self._clock.now_ms() + self._rules.ring_ms,
        )
        if asked is None:
            return None
        self.take_up(asked)
        if not await self._is_shut(asked):
            return asked
        # It began while one of its two accounts was being shut: whoever shuts one looks for its request afterwards, and so do we.
        return await self._close(asked, EndReason.ACCOUNT_DISABLED) or await self._sessions.get(asked.id)

    def take_up(self, session: Session) -> None:
        """Keep the request's time here, and tell of it; harmless when it is done already."""
        if session.status in ASKED and session.id not in self._timers:
            self._watch(session)
            self._news.tell(RequestChanged(session))

    # -- answering ---------------------------------------------------------------------------------------------------

    async def accept(
        self, session_id: str, *, lawyer_id: str, device: str, socket: str | None = None
    ) -> Session:
        """Say yes, once: the first device wins, and the same one hears the same answer again. The news skips `socket`.

        Raises:
            SessionNotFound: no request to this lawyer.
            AnsweredElsewhere: another device was faster.
            RequestClosed: too late.
            Unavailable: ask again.
        """
        # Shielded: a client that hangs up half-way must not stop it half-way.
        return await asyncio.shield(self._accept(session_id, lawyer_id, device, socket))

    async def _accept(self, session_id: str, lawyer_id: str, device: str, socket: str | None) -> Session:
        session = await self._own(session_id, lawyer_id=lawyer_id)
        now_ms = self._clock.now_ms()
        if session.status is Status.REQUESTED and not self._is_due(session):
            accepted = await self._sessions.change(
                session_id,
                expect=states_before(Step.ACCEPT),
                status=Status.ACCEPTED,
                accepted_at_ms=now_ms,
                accepted_by=device,
                deadline_ms=now_ms + self._rules.join_ms,
            )
            if accepted is not None:
                await self._accepted(accepted, socket)
                return await self._sessions.get(session_id) or accepted
            session = await self._own(session_id, lawyer_id=lawyer_id)
        if session.accepted_at_ms is not None and session.accepted_by == device:
            if session.status is Status.ACCEPTED:
                # The answer may have been lost, and the process that stored it with its news.
                await self._accepted(session, socket)
            return await self._sessions.get(session_id) or session
        if session.accepted_at_ms is not None and session.status not in UNSERVED:
            raise AnsweredElsewhere(session=session_id)
        if self._is_due(session):
            await self._expire(session)
        raise RequestClosed(session=session_id)

    async def _accepted(self, session: Session, socket: str | None) -> None:
        self._watch(session)
        self._news.tell(RequestChanged(session, socket))
        try:
            await self._begin_if_joined(session)
        except Unavailable as exc:
            # The yes is stored: that is what was asked for. What follows comes with the next look.
            log.warning("a request goes on later: %r", exc, extra={"session_id": session.id})
            self._later(f"begin:{session.id}", partial(self._look_at, session.id))

    async def decline(self, session_id: str, *, lawyer_id: str) -> Session:
        """Say no. Repeated, the same answer.

        Raises:
            SessionNotFound: no request to this lawyer.
            RequestClosed: it was cancelled, missed or has become a consultation.
            Unavailable: ask again.
        """
        session = await self._own(session_id, lawyer_id=lawyer_id)
        return await self._closed_by(session, EndReason.LAWYER_DECLINED)

    async def cancel(self, session_id: str, *, user_id: str) -> Session:
        """Take the request back. Repeated, the same answer.

        Raises:
            SessionNotFound: no request of this user.
            RequestClosed: it was declined, missed or has become a consultation.
            Unavailable: ask again.
        """
        session = await self._own(session_id, user_id=user_id)
        return await self._closed_by(session, EndReason.USER_CANCELLED)

    async def close(self, session: Session, reason: EndReason) -> Session:
        """Close an open request for a reason that is nobody's answer: an admin, a shut account. Raises `RequestClosed`."""
        return await self._closed_by(session, reason)

    async def _closed_by(self, session: Session, reason: EndReason) -> Session:
        closed = await asyncio.shield(self._close(session, reason)) if session.status in ASKED else None
        if closed is None:
            closed = await self._sessions.get(session.id)
        if closed is None or closed.status not in UNSERVED or closed.end_reason is not reason:
            raise RequestClosed(session=session.id)
        return closed

    async def _own(
        self, session_id: str, *, user_id: str | None = None, lawyer_id: str | None = None
    ) -> Session:
        session = await self._sessions.get(session_id)
        if (
            session is None
            or not session.asked
            or session.status not in VISIBLE
            or user_id not in (None, session.user_id)
            or lawyer_id not in (None, session.lawyer_id)
        ):
            raise SessionNotFound(session=session_id)
        return session

    # -- both come ---------------------------------------------------------------------------------------------------

    def hint(self, session_id: str, person_id: str) -> None:
        """The person may have joined the session's conversation."""
        if not self._engine.is_live(session_id):
            self._spawn(self._joined_safely(session_id, person_id))

    async def joined(self, session_id: str, person_id: str) -> None:
        """The person is in the conversation: bill from now on if the lawyer has accepted and the other one is there, too."""
        session = await self._sessions.get(session_id)
        if session is None or session.status not in ASKED:
            return
        side = {session.user_id: "user_joined_at_ms", session.lawyer_id: "lawyer_joined_at_ms"}.get(person_id)
        if side is None:
            return
        if getattr(session, side) is None:
            marked = await self._sessions.change(session_id, expect=ASKED, **{side: self._clock.now_ms()})
            if marked is None:
                return
            session = marked
        await self._begin_if_joined(session)

    async def _joined_safely(self, session_id: str, person_id: str) -> None:
        try:
            await self.joined(session_id, person_id)
        except Unavailable as exc:
            log.warning("who has joined is stored later: %r", exc, extra={"session_id": session_id})
            self._later(f"joined:{session_id}:{person_id}", partial(self.joined, session_id, person_id))

    async def _begin_if_joined(self, session: Session) -> None:
        if session.status is Status.ACCEPTED and not await self._missing(session):
            await self._begin(session)

    async def _missing(self, session: Session) -> frozenset[str]:
        """Who has not come yet, or has gone again."""
        marks = {
            session.user_id: session.user_joined_at_ms,
            session.lawyer_id: session.lawyer_joined_at_ms,
        }
        missing = frozenset(person for person, at_ms in marks.items() if at_ms is None)
        if missing or self._attending is None:
            return missing
        where = await self._attending.of(session.id, list(marks))
        return frozenset(person for person in marks if isinstance(where[person], GoneSince))

    async def _begin(self, session: Session) -> None:
        """Hold the first slice, then make the record ACTIVE: whoever dies in between leaves a hold that says what is to be done."""
        try:
            bill = await hold_first_slice(
                session, ledger=self._ledger, clock=self._clock, rules=self._rules, owner=self._owner
            )
        except InsufficientBalance:
            await self._close(session, EndReason.INSUFFICIENT_BALANCE)
            return
        except StartAborted:
            # It was closed meanwhile.
            return
        except Unavailable:
            self._later(f"begin:{session.id}", partial(self._look_at, session.id))
            raise
        try:
            began = await self._sessions.change(
                session.id,
                expect=states_before(Step.BEGIN),
                status=Status.ACTIVE,
                started_at_ms=bill.meter.started_at_ms,
                deadline_ms=None,
            )
        except Unavailable:
            self._later(f"begin:{session.id}", partial(self._look_at, session.id))
            raise
        self._forget(session.id)
        if began is None:
            await self._overtaken(session.id)
            return
        await self._serve(began)

    async def _serve(self, session: Session) -> None:
        """Bill it if its hold is this process's; else its owner does, or whoever takes that one's sessions up."""
        account = await self._ledger.account(wallet_of(session.user_id), session.currency)
        hold = account.holds.get(hold_id_of(session.id))
        if hold is None or hold.owner != self._owner:
            return
        await self._lock(session)
        self._engine.launch(session, bill_of(account, hold), announce="session:started")
        try:
            await self._end_if_shut(session)
        except Unavailable as exc:
            log.warning("accounts are looked at later: %r", exc, extra={"session_id": session.id})
            self._later(f"standing:{session.id}", partial(self._end_if_shut, session))

    async def _end_if_shut(self, session: Session) -> None:
        if await self._is_shut(session):
            await self._engine.end(session, EndReason.ACCOUNT_DISABLED)

    async def _is_shut(self, session: Session) -> bool:
        return self._standing is not None and await self._standing.any_shut(
            (session.user_id, session.lawyer_id)
        )

    async def _overtaken(self, session_id: str) -> None:
        """Somebody else moved the record on while we held: serve it, or give back what was held."""
        session = await self._sessions.get(session_id)
        if session is None:
            raise InvariantBroken(rule="a record is never deleted", session=session_id)
        if session.status in LIVE and not self._engine.is_live(session_id):
            await self._serve(session)
        elif session.status in UNSERVED:
            await self.finish(session)

    async def _lock(self, session: Session) -> None:
        try:
            await self._locks.acquire(lock_names(session.user_id, session.lawyer_id), session.id)
        except Unavailable as exc:
            log.warning("locks do not answer; billing goes on without them: %r", exc)

    # -- closing -----------------------------------------------------------------------------------------------------

    async def _close(self, session: Session, reason: EndReason) -> Session | None:
        """Close the request if it is still open; the closed record if this call did it."""
        status = END_STATUS[reason] if END_STATUS[reason] in UNSERVED else Status.CANCELLED
        try:
            closed = await self._sessions.change(
                session.id,
                expect=states_before(LAST_STEP[status]),
                status=status,
                end_reason=reason,
                ended_at_ms=self._clock.now_ms(),
                deadline_ms=None,
            )
        except Unavailable:
            # It may be closed all the same, and then nobody else is about to finish it.
            self._later(f"close:{session.id}", partial(self._look_at, session.id))
            raise
        self._forget(session.id)
        if closed is None:
            return None
        try:
            await self.finish(closed)
        except Unavailable as exc:
            log.warning("a closed request is tidied up later: %r", exc, extra={"session_id": session.id})
            self._later(f"request:{session.id}", partial(self.finish, closed))
        self._news.tell(RequestChanged(closed))
        return closed

    async def finish(self, session: Session) -> None:
        """What follows a close, each step idempotent; the claims are last, so that they mark what is not done yet."""
        if session.accepted_at_ms is not None:
            # A slice may have been held in the same instant, or be held yet by whoever sleeps.
            await self._ledger.void(wallet_of(session.user_id), session.currency, hold_id_of(session.id))
        await self._settlement.rooms.close(session.id, at_ms=session.ended_at_ms or self._clock.now_ms())
        if session.end_reason is EndReason.NO_ANSWER:
            await self._away_if_missed(session.lawyer_id)
        await self._settlement.release(session)

    async def finish_left_behind(self, session: Session) -> None:
        """Whoever closed it has died before it was done, perhaps before it was told."""
        await self.finish(session)
        self._news.tell(RequestChanged(session))

    async def _away_if_missed(self, lawyer_id: str) -> None:
        """Counted from the records, so that no ring is counted twice, and none from before the lawyer came online."""
        terms = await self._lawyers.terms(lawyer_id)
        if terms is None or not terms.is_online:
            return
        missed = 0
        for session in await self._sessions.newest_of_lawyer(lawyer_id, limit=_LOOKED_AT):
            if session.created_at_ms < terms.online_at_ms:
                break
            if session.end_reason is EndReason.NO_ANSWER:
                missed += 1
            elif session.accepted_at_ms is not None or session.status in (Status.DECLINED, *LIVE):
                break
        if missed >= self._rules.missed_rings and await self._lawyers.set_away(
            lawyer_id, online_at_ms=terms.online_at_ms
        ):
            self._news.tell(LawyerAway(lawyer_id))

    # -- time --------------------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Look at every open request: what is due, what has lost its process, what may begin. Raises `Unavailable`."""
        for session in await self._sessions.in_states(ASKED):
            is_due = self._is_due(session)
            if session.owner != self._owner and not is_due and not self._may_live(session.owner):
                self.take_up(session)
            if is_due or session.status is Status.ACCEPTED:
                # One that cannot be looked at now keeps no other waiting.
                await self._look_safely(session.id)

    async def stop(self) -> None:
        """Stop keeping time: the deadlines are stored."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await stop_tasks(self._tasks)

    def _is_due(self, session: Session) -> bool:
        return (
            session.status in ASKED
            and session.deadline_ms is not None
            and self._clock.now_ms() >= session.deadline_ms
        )

    def _watch(self, session: Session) -> None:
        self._forget(session.id)
        if session.deadline_ms is not None:
            self._timers[session.id] = self._clock.call_at_ms(
                session.deadline_ms, lambda: self._time_is_over(session.id)
            )

    def _time_is_over(self, session_id: str) -> None:
        self._forget(session_id)
        self._spawn(self._look_safely(session_id))

    def _forget(self, session_id: str) -> None:
        timer = self._timers.pop(session_id, None)
        if timer is not None:
            timer.cancel()

    async def _look_safely(self, session_id: str) -> None:
        try:
            await self._look_at(session_id)
        except Unavailable as exc:
            log.warning("a request is looked at again: %r", exc, extra={"session_id": session_id})
            self._later(f"look:{session_id}", partial(self._look_at, session_id))

    async def _look_at(self, session_id: str) -> None:
        """Begin it if both are there, close it if its time is over, and see through what an earlier try has left half done."""
        session = await self._sessions.get(session_id)
        if session is None:
            return
        if session.status in ASKED:
            await self._begin_if_joined(session)
            if self._is_due(session):
                await self._expire(session)
        elif session.asked and session.status in LIVE and not self._engine.is_live(session_id):
            await self._serve(session)
        elif session.status in UNSERVED:
            await self.finish_left_behind(session)

    async def _expire(self, session: Session) -> None:
        if session.status is Status.REQUESTED:
            await self._close(session, EndReason.NO_ANSWER)
            return
        missing = await self._missing(session)
        if session.lawyer_id in missing:
            await self._close(session, EndReason.LAWYER_NOT_JOINED)
        elif missing:
            await self._close(session, EndReason.USER_NOT_JOINED)

    def _later(self, name: str, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._engine.see_through(name, step, after_ms=RETRY_MS)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def logged() -> None:
            try:
                await work
            except BillingError:
                log.exception("a request is left to the next look")

        task = asyncio.create_task(logged())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
