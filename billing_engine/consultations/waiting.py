"""A lawyer's waiting list: who is next gets a turn, for which the lawyer is kept free.

A place is one row of a unique id. A turn is first written into the row: that is its commit point, and what follows can be done again
by anybody (a TURN record of its id, which claims the lawyer as a session would; a start of that user takes the claim over). No money
is held for any of it. Whatever a process leaves half done, the next look at the list finds and goes on with.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from billing_engine.clock import Clock, Timer
from billing_engine.consultations.errors import (
    LawyerFree,
    LawyerNotFound,
    LawyerNotVerified,
    LawyerOffline,
    NotWaiting,
    UserBusy,
    WaitingListClosed,
    WaitingListFull,
)
from billing_engine.consultations.model import (
    ASKED,
    BILLED,
    FINISHED,
    LIVE,
    LawyerTerms,
    Session,
    Status,
    Step,
    states_before,
)
from billing_engine.consultations.ports import Claims, Lawyers, RequestNews, Sessions
from billing_engine.consultations.rules import Rules
from billing_engine.consultations.settlement import lawyer_claim, user_claim
from billing_engine.consultations.waiting_model import (
    Place,
    PlaceChanged,
    TurnGiven,
    Waiting,
    WaitOver,
    estimated_wait_s,
    mean_duration_s,
)
from billing_engine.errors import BillingError, Unavailable
from billing_engine.stopping import stop_tasks

log = logging.getLogger(__name__)

#: How many of a lawyer's records are looked at for an estimate.
_LOOKED_AT: Final = 50


class WaitingRows(Protocol):
    """The stored places."""

    async def add(self, waiting: Waiting) -> Waiting:
        """Insert; the row that is stored under this id, which may be an earlier one."""
        ...

    async def get(self, lawyer_id: str, user_id: str) -> Waiting | None: ...

    async def of_lawyer(self, lawyer_id: str) -> list[Waiting]:
        """All who wait for the lawyer, the first first."""
        ...

    async def of_user(self, user_id: str) -> list[Waiting]:
        """All places of the user, the oldest first."""
        ...

    async def lawyers(self) -> list[str]:
        """Every lawyer whom somebody waits for."""
        ...

    async def give_turn(self, waiting: Waiting, *, turn_id: str, until_ms: int) -> Waiting | None:
        """Compare-and-set: the row with its turn; None if it has one, or is gone."""
        ...

    async def take_turn_back(self, waiting: Waiting) -> None:
        """Clear this very turn; the place stays. Harmless otherwise."""
        ...

    async def drop(self, waiting: Waiting) -> bool:
        """Delete the row if its turn is still the same; whether this did it."""
        ...


class WaitingLists:
    """The waiting lists of all lawyers. `owner` names this process in the turns that it gives."""

    def __init__(
        self,
        *,
        rows: WaitingRows,
        sessions: Sessions,
        claims: Claims,
        lawyers: Lawyers,
        clock: Clock,
        rules: Rules,
        news: RequestNews,
        owner: str,
        new_id: Callable[[], str],
        may_live: Callable[[str], bool] = lambda _owner: False,
    ) -> None:
        self._rows = rows
        self._sessions = sessions
        self._claims = claims
        self._lawyers = lawyers
        self._clock = clock
        self._rules = rules
        self._news = news
        self._owner = owner
        self._new_id = new_id
        self._may_live = may_live
        self._timers: dict[str, Timer] = {}
        self._told: set[str] = set()
        self._turns: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- what users do -----------------------------------------------------------------------------------------------

    async def join(self, *, user_id: str, lawyer_id: str) -> Place:
        """Wait for the lawyer; repeated, the place that one has.

        Raises, changing nothing: LawyerNotFound, LawyerNotVerified, LawyerOffline, WaitingListClosed, UserBusy (with this very
        lawyer), LawyerFree, WaitingListFull.
        Unavailable: ask again.
        """
        known = await self._rows.get(lawyer_id, user_id)
        if known is None:
            terms = await self._lawyers.terms(lawyer_id)
            if terms is None:
                raise LawyerNotFound(lawyer=lawyer_id)
            if not terms.is_verified:
                raise LawyerNotVerified(lawyer=lawyer_id)
            if not terms.is_online:
                raise LawyerOffline(lawyer=lawyer_id)
            if not terms.has_waiting_list:
                raise WaitingListClosed(lawyer=lawyer_id)
            holder = await self._holder(lawyer_claim(lawyer_id))
            if holder is not None and holder.user_id == user_id and holder.status is not Status.TURN:
                raise UserBusy(session=holder.id)
            if await self.is_open_to(user_id, terms):
                raise LawyerFree(lawyer=lawyer_id)
            known = await self._rows.add(Waiting(lawyer_id, user_id, self._clock.now_ms()))
            # Looked at afterwards, by each for itself: however many come at once, no more than the limit stay.
            if await self._position(known) > self._rules.queue_limit and await self._rows.drop(known):
                raise WaitingListFull(lawyer=lawyer_id)
            # It may have become free between the two looks.
            await self.advance(lawyer_id)
        return await self.place(user_id=user_id, lawyer_id=lawyer_id)

    async def leave(self, *, user_id: str, lawyer_id: str) -> None:
        """Wait no longer. Raises `NotWaiting`."""
        waiting = await self._rows.get(lawyer_id, user_id)
        while waiting is not None:
            if await self._remove(waiting):
                await self.advance(lawyer_id)
                return
            # A turn was given in between.
            waiting = await self._rows.get(lawyer_id, user_id)
        raise NotWaiting(lawyer=lawyer_id)

    async def place(self, *, user_id: str, lawyer_id: str) -> Place:
        """Raises `NotWaiting`."""
        places = await self.of_lawyer(lawyer_id)
        found = next((place for place in places if place.waiting.user_id == user_id), None)
        if found is None:
            raise NotWaiting(lawyer=lawyer_id)
        return found

    async def of_user(self, user_id: str) -> list[Place]:
        """Everywhere the user waits."""
        places = []
        for waiting in await self._rows.of_user(user_id):
            of_lawyer = await self.of_lawyer(waiting.lawyer_id)
            places += [place for place in of_lawyer if place.waiting.user_id == user_id]
        return places

    async def of_lawyer(self, lawyer_id: str) -> list[Place]:
        """Who waits for the lawyer, in order, each with an estimate."""
        waiting = await self._rows.of_lawyer(lawyer_id)
        if not waiting:
            return []
        mean_s = mean_duration_s(await self._sessions.newest_of_lawyer(lawyer_id, limit=_LOOKED_AT))
        elapsed_s = await self._elapsed_s(lawyer_id)
        return [
            Place(one, position, estimated_wait_s(position, mean_s, elapsed_s))
            for position, one in enumerate(waiting, start=1)
        ]

    async def forget(self, user_id: str) -> None:
        """The account was shut: it waits nowhere, and nobody waits for it."""
        for waiting in await self._rows.of_user(user_id):
            if await self._remove(waiting):
                await self.advance(waiting.lawyer_id)
        await self.advance(user_id)

    # -- what a start asks -------------------------------------------------------------------------------------------

    async def is_open_to(self, user_id: str, terms: LawyerTerms) -> bool:
        """Whether a start of this user with the lawyer may go on: nobody is being served or asked, and if somebody waits it is the
        user's turn, or all who wait are busy themselves.
        """
        holder = await self._holder(lawyer_claim(terms.id))
        if holder is not None:
            return holder.status is Status.TURN and holder.user_id == user_id
        if not terms.has_waiting_list:
            return True
        ahead = []
        for waiting in await self._rows.of_lawyer(terms.id):
            if waiting.user_id == user_id:
                break
            ahead.append(user_claim(waiting.user_id))
        return len(await self._claims.held(ahead)) == len(ahead)

    async def served(self, session: Session) -> None:
        """The user of a session with the lawyer need not wait any more."""
        try:
            waiting = await self._rows.get(session.lawyer_id, session.user_id)
            if waiting is not None and await self._rows.drop(waiting):
                await self._lapse(waiting)
                await self._tell_behind(waiting)
        except Unavailable as exc:
            log.warning("a place in a waiting list stays until the next look: %r", exc)

    # -- turns -------------------------------------------------------------------------------------------------------

    def look(self, lawyer_id: str) -> None:
        """Something has happened to the lawyer: see who is next, without waiting for it."""
        self._spawn(self.advance(lawyer_id))

    async def advance(self, lawyer_id: str) -> None:
        """Bring the list up to date: end it, end a turn, give the next one. Whoever does it at the same time does no harm."""
        lock = self._turns.setdefault(lawyer_id, asyncio.Lock())
        async with lock:
            await self._advance(lawyer_id)

    async def _advance(self, lawyer_id: str) -> None:
        waiting = await self._rows.of_lawyer(lawyer_id)
        if not waiting:
            self._turns.pop(lawyer_id, None)
            return
        over = _why_over(await self._lawyers.terms(lawyer_id))
        if over is not None:
            for one in waiting:
                await self._end(one, over)
            return
        in_turn = [one for one in waiting if one.turn_id]
        for one in in_turn:
            if self._clock.now_ms() >= one.turn_until_ms:
                await self._end(one, WaitOver.TURN_MISSED)
            else:
                await self._secure(one)
                return
        holder = await self._holder(lawyer_claim(lawyer_id))
        if holder is not None and holder.status in LIVE | ASKED:
            # Its user may have been next, and whoever began it may have died before the row was gone.
            await self.served(holder)
        elif holder is None:
            await self._give_next_turn([one for one in waiting if not one.turn_id])

    async def _give_next_turn(self, waiting: list[Waiting]) -> None:
        for one in waiting:
            if await self._holder(user_claim(one.user_id)) is not None:
                # Whoever talks to somebody else keeps the place, and those behind need not wait for that.
                continue
            until_ms = self._clock.now_ms() + self._rules.turn_ms
            given = await self._rows.give_turn(one, turn_id=self._new_id(), until_ms=until_ms)
            if given is not None:
                await self._secure(given)
            return

    async def _secure(self, waiting: Waiting) -> None:
        """Keep the lawyer free for the turn that the row tells of, and tell the user; each step harmless when repeated."""
        turn = Session(
            id=waiting.turn_id,
            user_id=waiting.user_id,
            lawyer_id=waiting.lawyer_id,
            rate_minor_per_min=0,
            currency=self._rules.asset.code,
            commission_bp=0,
            max_minor=None,
            status=Status.TURN,
            created_at_ms=self._clock.now_ms(),
            owner=self._owner,
            deadline_ms=waiting.turn_until_ms,
        )
        if not await self._sessions.add(turn):
            stored = await self._sessions.get(turn.id)
            if stored is None or stored.status is not Status.TURN:
                # A start has used it, and has failed or not told the row yet. Only what took place costs the place.
                await self._rows.take_turn_back(waiting)
                self.look(waiting.lawyer_id)
                return
            turn = stored
        if not await self._claim(turn):
            await self._sessions.change(turn.id, expect=states_before(Step.LAPSE), status=Status.PASSED)
            await self._rows.take_turn_back(waiting)
            return
        self._watch(waiting)
        if turn.id not in self._told and (turn.owner == self._owner or not self._may_live(turn.owner)):
            self._told.add(turn.id)
            self._news.tell(TurnGiven(waiting))

    async def _claim(self, turn: Session) -> bool:
        person = lawyer_claim(turn.lawyer_id)
        holder = await self._claims.take(person, turn.id)
        if holder is None:
            return True
        other = await self._sessions.get(holder)
        # What was given back or never came through has more to undo, and its claim tells of it: not ours to take.
        if other is None or other.status in BILLED | {Status.PASSED}:
            return await self._claims.replace(person, finished_session_id=holder, session_id=turn.id)
        return False

    async def _end(self, waiting: Waiting, over: WaitOver) -> None:
        if await self._remove(waiting):
            self._news.tell(PlaceChanged(Place(waiting, 0, None), over))

    async def _remove(self, waiting: Waiting) -> bool:
        """Delete the row, then end its turn: a turn without a row is ended by whoever sees it."""
        if not await self._rows.drop(waiting):
            return False
        await self._lapse(waiting)
        await self._tell_behind(waiting)
        return True

    async def _lapse(self, waiting: Waiting) -> None:
        timer = self._timers.pop(waiting.turn_id, None)
        if timer is not None:
            timer.cancel()
        self._told.discard(waiting.turn_id)
        if waiting.turn_id:
            await self._free(waiting.turn_id, waiting.lawyer_id)

    async def _free(self, turn_id: str, lawyer_id: str) -> None:
        # The record last: while it is a TURN, a look ends it again.
        await self._claims.release(lawyer_claim(lawyer_id), turn_id)
        await self._sessions.change(turn_id, expect=states_before(Step.LAPSE), status=Status.PASSED)

    async def _tell_behind(self, gone: Waiting) -> None:
        """Those who came after the one who is gone are one place further."""
        for place in await self.of_lawyer(gone.lawyer_id):
            if (place.waiting.since_ms, place.waiting.id) > (gone.since_ms, gone.id):
                self._news.tell(PlaceChanged(place))

    # -- looking -----------------------------------------------------------------------------------------------------

    async def _holder(self, person: str) -> Session | None:
        """The unfinished session, or the turn, that a person is in."""
        session_id = await self._claims.holder(person)
        session = None if session_id is None else await self._sessions.get(session_id)
        return None if session is None or session.status in FINISHED else session

    async def _elapsed_s(self, lawyer_id: str) -> int | None:
        holder = await self._holder(lawyer_claim(lawyer_id))
        if holder is None or holder.status is Status.TURN:
            return None
        return max(0, self._clock.now_ms() - (holder.started_at_ms or self._clock.now_ms())) // 1000

    async def _position(self, waiting: Waiting) -> int:
        ids = [one.id for one in await self._rows.of_lawyer(waiting.lawyer_id)]
        return ids.index(waiting.id) + 1 if waiting.id in ids else 0

    # -- time --------------------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Look at every list, and at every turn that no row tells of. Raises `Unavailable`."""
        for turn in await self._sessions.in_states(frozenset({Status.TURN})):
            waiting = await self._rows.get(turn.lawyer_id, turn.user_id)
            if waiting is None or waiting.turn_id != turn.id:
                await self._free(turn.id, turn.lawyer_id)
        for lawyer_id in await self._rows.lawyers():
            try:
                await self.advance(lawyer_id)
            except BillingError as exc:
                # One list that cannot be looked at now keeps no other waiting.
                log.warning("a waiting list is left to the next look: %r", exc)

    async def stop(self) -> None:
        """Stop keeping time: the deadlines are stored."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await stop_tasks(self._tasks)

    def _watch(self, waiting: Waiting) -> None:
        if waiting.turn_id not in self._timers:
            self._timers[waiting.turn_id] = self._clock.call_at_ms(
                waiting.turn_until_ms, lambda: self._time_is_over(waiting)
            )

    def _time_is_over(self, waiting: Waiting) -> None:
        self._timers.pop(waiting.turn_id, None)
        self._told.discard(waiting.turn_id)
        self.look(waiting.lawyer_id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def logged() -> None:
            try:
                await work
            except BillingError as exc:
                log.warning("a waiting list is left to the next look: %r", exc)

        task = asyncio.create_task(logged())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _why_over(terms: LawyerTerms | None) -> WaitOver | None:
    if terms is None or not terms.has_waiting_list or not terms.is_verified:
        return WaitOver.LIST_CLOSED
    return None if terms.is_online else WaitOver.LAWYER_OFFLINE
