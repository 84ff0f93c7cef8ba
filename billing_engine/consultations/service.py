"""Starting, ending and looking at consultations."""

import asyncio
import logging
import secrets
from contextlib import suppress
from dataclasses import replace
from functools import partial

from billing_engine.clock import Clock
from billing_engine.consultations.billing import bill_of, hold_id_of, needed_minor
from billing_engine.consultations.engine import Engine
from billing_engine.consultations.errors import (
    InsufficientBalance,
    LawyerBusy,
    LawyerNotFound,
    LawyerNotVerified,
    LawyerOffline,
    MaxAmountTooSmall,
    RequestClosed,
    SessionNotFound,
    StartAborted,
    UserBusy,
)
from billing_engine.consultations.model import (
    ASKED,
    FINISHED,
    LIVE,
    UNSERVED,
    VISIBLE,
    EndReason,
    LawyerTerms,
    Quote,
    Session,
    SessionView,
    Status,
    Step,
    TimelineRow,
    states_before,
)
from billing_engine.consultations.opening import hold_first_slice
from billing_engine.consultations.ports import (
    Claims,
    Lawyers,
    Locks,
    Rooms,
    Sessions,
    Standing,
    Timeline,
)
from billing_engine.consultations.requests import Requests
from billing_engine.consultations.rules import Rules
from billing_engine.consultations.served import ServedElsewhere
from billing_engine.consultations.settlement import (
    Settlement,
    ended_record,
    lawyer_claim,
    lock_names,
    trail_rows,
    user_claim,
)
from billing_engine.consultations.views import final_view, live_view
from billing_engine.consultations.waiting import WaitingLists
from billing_engine.errors import BillingError, InvariantBroken, Unavailable
from billing_engine.ledger.accounts import wallet_of
from billing_engine.ledger.model import Entry
from billing_engine.ledger.service import Ledger
from billing_engine.money import affordable_seconds, price

log = logging.getLogger(__name__)


class Consultations:
    """The use cases of SPEC 5. `owner` names this process in the holds that it writes."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Clock,
        rules: Rules,
        sessions: Sessions,
        claims: Claims,
        timeline: Timeline,
        locks: Locks,
        lawyers: Lawyers,
        rooms: Rooms,
        engine: Engine,
        settlement: Settlement,
        owner: str | None = None,
        standing: Standing | None = None,
        elsewhere: ServedElsewhere | None = None,
        requests: Requests | None = None,
        waiting: WaitingLists | None = None,
    ) -> None:
        """Without `standing` nobody's account is ever shut; without `elsewhere` no other process serves anybody; without `requests`
        no lawyer is asked first; without `waiting` nobody waits.
        """
        self._requests = requests
        self._waiting = waiting
        self._elsewhere = elsewhere
        self._ledger = ledger
        self._clock = clock
        self._rules = rules
        self._sessions = sessions
        self._claims = claims
        self._timeline = timeline
        self._locks = locks
        self._lawyers = lawyers
        self._rooms = rooms
        self._engine = engine
        self._settlement = settlement
        self._standing = standing
        self.owner = owner or secrets.token_hex(8)

    # -- starting ----------------------------------------------------------------------------------------------------

    async def start(
        self, *, user_id: str, lawyer_id: str, operation_id: str, max_minor: int | None = None
    ) -> SessionView:
        """Start a consultation, or ring a lawyer who wants to be asked; the session's id is the operation's, so that a repeat finds
        what the first run made.

        Raises, in this order and changing nothing: LawyerNotFound, MaxAmountTooSmall, InsufficientBalance,
        LawyerNotVerified, LawyerOffline, UserBusy, LawyerBusy. StartAborted: an earlier run of this operation was given back.
        Unavailable: nobody knows how far it came; a repeat finishes it, or after a while it is given back.
        """
        # Shielded: a client that hangs up half-way must not stop the start half-way.
        return await asyncio.shield(self._start_in_turn(user_id, lawyer_id, operation_id, max_minor))

    async def _start_in_turn(
        self, user_id: str, lawyer_id: str, operation_id: str, max_minor: int | None
    ) -> SessionView:
        view = await self._start(user_id, lawyer_id, operation_id, max_minor)
        if self._waiting is not None:
            await self._waiting.served(view.session)
        return view

    async def _start(
        self, user_id: str, lawyer_id: str, operation_id: str, max_minor: int | None
    ) -> SessionView:
        session = await self._sessions.get(operation_id)
        if session is None:
            terms = await self._checked_terms(user_id, lawyer_id, max_minor)
            session = Session(
                id=operation_id,
                user_id=user_id,
                lawyer_id=lawyer_id,
                rate_minor_per_min=terms.rate_minor_per_min,
                currency=self._rules.asset.code,
                commission_bp=self._rules.commission_bp,
                max_minor=max_minor,
                status=Status.STARTING,
                created_at_ms=self._clock.now_ms(),
                owner=self.owner,
                asked=not terms.auto_accept and self._requests is not None,
            )
        else:
            # The process that began it may be dead: from now on whoever gives back what the dead have left waits for this one.
            session = replace(session, owner=self.owner)
            if not await self._sessions.move(session.id, expect=states_before(Step.OPEN), to=session):
                return await self._begun(session.id)
        await self._lock(session)
        try:
            await self._reserve(session)
            if session.asked and self._requests is not None:
                return await self._ask(session, self._requests)
            bill = await hold_first_slice(
                session, ledger=self._ledger, clock=self._clock, rules=self._rules, owner=self.owner
            )
            started = replace(session, status=Status.ACTIVE, started_at_ms=bill.meter.started_at_ms)
            foreign = bill.fence.owner != self.owner
            if foreign:
                # Another process opened it and may be dead by now. Nobody bills under a name that is not his own.
                await self.give_back(session)
            if foreign or not await self._sessions.move(
                session.id, expect=states_before(Step.OPEN), to=started
            ):
                return await self._begun(session.id)
        except BillingError as failed:
            await self._fall_back(session, failed)
            raise
        self._engine.launch(started, bill, announce="session:started")
        if await self._shut_out(started):
            return await self._view(await self._sessions.get(session.id) or started)
        return live_view(started, bill, self._clock.now_ms())

    async def _ask(self, session: Session, requests: Requests) -> SessionView:
        asked = await requests.ask(session)
        return await self._begun(session.id) if asked is None else await self._view(asked)

    async def _shut_out(self, session: Session) -> bool:
        """End a session that began while one of its two accounts was being shut; whether it was.

        Whoever shuts an account looks for its session afterwards, and a start looks at the accounts once it is a session: one of
        the two sees the other. Where the store does not answer now, it is asked until it does.
        """
        try:
            return await self._end_if_shut(session)
        except Unavailable as exc:
            log.warning("accounts are looked at later: %r", exc, extra={"session_id": session.id})

        async def again() -> None:
            await self._end_if_shut(session)

        after_ms = 5 * self._rules.store_timeout_ms
        self._engine.see_through(f"standing:{session.id}", again, after_ms=after_ms)
        return False

    async def _end_if_shut(self, session: Session) -> bool:
        if self._standing is None or not await self._standing.any_shut((session.user_id, session.lawyer_id)):
            return False
        await self._engine.end(session, EndReason.ACCOUNT_DISABLED)
        return True

    async def _begun(self, session_id: str) -> SessionView:
        """What an earlier or a parallel run of the same start has made. Raises `StartAborted` if it was given back."""
        session = await self._sessions.get(session_id)
        if session is None or session.status is Status.ABORTED:
            raise StartAborted(session=session_id)
        await self._take_up(session)
        return await self._view(session)

    async def _take_up(self, session: Session) -> None:
        """Bill a running session of this process whose start never heard that it had come through; ring, if it is a request."""
        if session.status in ASKED and session.owner == self.owner and self._requests is not None:
            self._requests.take_up(session)
        if session.status not in LIVE or self._engine.is_live(session.id):
            return
        account = await self._ledger.account(wallet_of(session.user_id), session.currency)
        hold = account.holds.get(hold_id_of(session.id))
        if hold is not None and hold.owner == self.owner:
            self._engine.launch(session, bill_of(account, hold), announce="session:started")

    async def _fall_back(self, session: Session, failed: BillingError) -> None:
        """Leave nothing behind that keeps its people busy: give the start back now, or once the store answers again."""
        try:
            if not isinstance(failed, Unavailable):
                await self.give_back(session)
                return
            await self._locks.release(lock_names(session.user_id, session.lawyer_id), session.id)
        except Unavailable as exc:
            log.warning("a start will be given back later: %r", exc, extra={"session_id": session.id})
        self._engine.see_through(
            f"start:{session.id}",
            partial(self._resolve, session),
            after_ms=5 * self._rules.store_timeout_ms,
        )

    async def _resolve(self, session: Session) -> None:
        """Make sure what became of a start that nobody knows of: running, then it is billed; begun, then it is given back."""
        stored = await self._sessions.get(session.id)
        if stored is None or stored.status not in VISIBLE:
            await self.give_back(session)
        else:
            await self._take_up(stored)

    async def _checked_terms(self, user_id: str, lawyer_id: str, max_minor: int | None) -> LawyerTerms:
        terms = await self._lawyers.terms(lawyer_id)
        if terms is None:
            raise LawyerNotFound(lawyer=lawyer_id)
        least = price(terms.rate_minor_per_min, self._rules.min_seconds)
        if max_minor is not None and max_minor < max(least, 1):
            raise MaxAmountTooSmall(
                field="maxAmount", problem="does not pay the minimum time with this lawyer"
            )
        wallet = await self._ledger.account(wallet_of(user_id), self._rules.asset.code)
        needed = needed_minor(terms.rate_minor_per_min, self._rules)
        busy = await self._holder(user_claim(user_id))
        # Money held by one's own running session is not missing money: say busy, not poor.
        if wallet.spendable < needed and busy is None:
            raise InsufficientBalance(required_minor=needed, available_minor=max(0, wallet.spendable))
        if not terms.is_verified:
            raise LawyerNotVerified(lawyer=lawyer_id)
        if not terms.is_online:
            raise LawyerOffline(lawyer=lawyer_id)
        if busy is not None:
            raise UserBusy(session=busy)
        if not await self._is_open_to(user_id, terms):
            raise LawyerBusy(lawyer=lawyer_id)
        return terms

    async def _is_open_to(self, user_id: str, terms: LawyerTerms) -> bool:
        if self._waiting is not None:
            return await self._waiting.is_open_to(user_id, terms)
        return await self._holder(lawyer_claim(terms.id)) is None

    async def _holder(self, person: str) -> str | None:
        """The unfinished session that a person is in."""
        session_id = await self._claims.holder(person)
        if session_id is None:
            return None
        session = await self._sessions.get(session_id)
        return None if session is None or session.status in FINISHED else session_id

    async def _lock(self, session: Session) -> None:
        names = lock_names(session.user_id, session.lawyer_id)
        try:
            held = await self._locks.acquire(names, session.id)
            for _ in names:
                if held is None or not await self._unlock_left_behind(held):
                    break
                held = await self._locks.acquire(names, session.id)
        except Unavailable as exc:
            log.warning("locks do not answer; the claims in the store decide alone: %r", exc)
            return
        if held is not None:
            raise UserBusy if held == names[0] else LawyerBusy

    async def _unlock_left_behind(self, name: str) -> bool:
        """Free a lock that a session which is over still holds, since its release was lost; whether it is worth another try.

        A holder without a record is just starting: locks come before the record.
        """
        holder = await self._locks.holder(name)
        if holder is not None:
            session = await self._sessions.get(holder)
            if session is None or session.status not in FINISHED:
                return False
            await self._locks.release((name,), holder)
        return True

    async def _reserve(self, session: Session) -> None:
        """Row, claims, conversation, in this order, before the hold: a crash after any of them leaves a STARTING row that names the
        rest.
        """
        await self._sessions.add(session)
        await self._claim(user_claim(session.user_id), session, UserBusy)
        await self._claim(lawyer_claim(session.lawyer_id), session, LawyerBusy)
        await self._rooms.open(
            session.id, user_id=session.user_id, lawyer_id=session.lawyer_id, at_ms=session.created_at_ms
        )

    async def _claim(self, person: str, session: Session, busy: type[UserBusy | LawyerBusy]) -> None:
        session_id = session.id
        holder = await self._claims.take(person, session_id)
        if holder is None:
            return
        other = await self._sessions.get(holder)
        if other is not None and other.status is Status.ABORTED:
            # Its hold may still be open, and this claim is what tells so: finish it before the claim goes.
            await self.give_back(other)
            if await self._claims.take(person, session_id) is None:
                return
        elif other is not None and other.status in UNSERVED and self._requests is not None:
            # The same: what may have been held for it goes first.
            await self._requests.finish_left_behind(other)
            if await self._claims.take(person, session_id) is None:
                return
        elif _may_be_replaced(other, session.user_id) and await self._claims.replace(
            person, finished_session_id=holder, session_id=session_id
        ):
            if other is not None and other.status is Status.TURN:
                # It was used, and is over; if it ends in this instant, its end finds the claim gone on.
                await self._sessions.change(holder, expect=states_before(Step.LAPSE), status=Status.PASSED)
            return
        raise busy()

    async def give_back(self, session: Session) -> None:
        """Undo a start that did not come through: the record first, so that a late start cannot activate it; the claims last, so
        that they mark what is not undone yet. A start that did come through, by a parallel run, is left alone.
        """
        aborted = replace(session, status=Status.ABORTED)
        if not await self._sessions.move(session.id, expect=states_before(Step.GIVE_BACK), to=aborted):
            return
        await self._ledger.void(wallet_of(session.user_id), session.currency, hold_id_of(session.id))
        await self._settlement.release(session)

    async def free_left_behind(self) -> None:
        """Claims are the last thing that an end or an aborted start gives up: finish what those that are left over tell of."""
        claimed = sorted(set((await self._claims.everyone()).values()))
        for session in (await self._sessions.get_many(claimed)).values():
            if session.status is Status.ABORTED:
                await self.give_back(session)
            elif session.status in UNSERVED and self._requests is not None:
                await self._requests.finish_left_behind(session)
            elif session.status in FINISHED:
                await self._settlement.release(session)

    # -- ending ------------------------------------------------------------------------------------------------------

    async def end(self, session_id: str, *, caller_id: str, is_admin: bool = False) -> SessionView:
        """End it for a party or an admin. Repeated, and by whoever comes second, it answers the first outcome.

        Raises:
            SessionNotFound: no such session for this caller.
            Unavailable: ask again; the outcome will be the same.
        """
        session = await self.own(session_id, caller_id=caller_id, is_admin=is_admin)
        if session.status in ASKED and self._requests is not None:
            await self._end_request(self._requests, session, caller_id)
            session = await self.own(session_id, caller_id=caller_id, is_admin=is_admin)
        if session.status in UNSERVED:
            return await self._view(session)
        if session.status in LIVE:
            reason = EndReason.ADMIN_ENDED
            if caller_id == session.user_id:
                reason = EndReason.USER_ENDED
            elif caller_id == session.lawyer_id:
                reason = EndReason.LAWYER_ENDED
            # Shielded: a client that hangs up half-way must not stop the end half-way.
            entry: Entry | None = await asyncio.shield(self._engine.end(session, reason))
        else:
            entry = await self._ledger.entry(wallet_of(session.user_id), hold_id_of(session.id))
        if entry is None:
            raise InvariantBroken(rule="a finished session has its closing entry", session=session.id)
        # All of it from the entry, the wallet as it was too: a later recharge must not change the answer.
        return final_view(ended_record(session, entry), entry.facts["walletAfter"])

    async def _end_request(self, requests: Requests, session: Session, caller_id: str) -> None:
        """To end a request is to cancel or to decline it. One that begins in the same instant is ended as what it has become."""
        reason = EndReason.ADMIN_ENDED
        if caller_id == session.user_id:
            reason = EndReason.USER_CANCELLED
        elif caller_id == session.lawyer_id:
            reason = EndReason.LAWYER_DECLINED
        with suppress(RequestClosed):
            await requests.close(session, reason)

    async def end_for_account(self, person_id: str) -> None:
        """End the person's running session, or close their open request, because the account was disabled."""
        if self._requests is not None:
            asked = await self.request_of(person_id)
            if asked is not None:
                with suppress(RequestClosed):
                    await self._requests.close(asked.session, EndReason.ACCOUNT_DISABLED)
        if self._waiting is not None:
            await self._waiting.forget(person_id)
        view = await self.active_of(person_id)
        if view is not None:
            await asyncio.shield(self._engine.end(view.session, EndReason.ACCOUNT_DISABLED))

    def recharged(self, user_id: str) -> None:
        """The wallet has more money: a running session goes on without a gap."""
        self._engine.recharged(user_id)

    # -- looking -----------------------------------------------------------------------------------------------------

    def is_open(self, session_id: str) -> bool | None:
        """Whether messages may be sent in it at this instant. None: another process bills it, or did when somebody asked who still
        waits for the answer; `look` finds out.
        """
        if self._elsewhere is None or (
            self._engine.is_live(session_id) and not self._elsewhere.is_looking(session_id)
        ):
            return self._engine.is_open(session_id)
        return self._elsewhere.is_open(session_id)

    def is_paused(self, session_id: str) -> bool:
        """Whether what is not open waits for somebody who is lost, as this process last knew."""
        if self._elsewhere is None or self._engine.is_live(session_id):
            return self._engine.is_paused(session_id)
        return self._elsewhere.is_paused(session_id)

    async def look(self, session_id: str) -> bool:
        """`is_open` for whoever got None. Callers go on in the order in which they asked. Raises `Unavailable`."""
        if self._elsewhere is None:
            return self._engine.is_open(session_id)
        known = await self._elsewhere.look(session_id)
        # It may have been taken over meanwhile.
        return self._engine.is_open(session_id) if self._engine.is_live(session_id) else known

    async def own(self, session_id: str, *, caller_id: str, is_admin: bool = False) -> Session:
        """The session's record for one of its parties or an admin. Raises `SessionNotFound` for anyone else."""
        session = await self._sessions.get(session_id)
        visible = session is not None and session.status in VISIBLE
        if (
            session is None
            or not visible
            or not (is_admin or caller_id in (session.user_id, session.lawyer_id))
        ):
            raise SessionNotFound(session=session_id)
        return session

    async def get(self, session_id: str, *, caller_id: str, is_admin: bool = False) -> SessionView:
        """The session with its bill as of now."""
        return await self._view(await self.own(session_id, caller_id=caller_id, is_admin=is_admin))

    async def timeline(self, session_id: str) -> list[TimelineRow]:
        """The session's life so far, in order: stored rows and those that the hold still carries."""
        rows = {row.k: row for row in await self._timeline.of(session_id)}
        session = await self._sessions.get(session_id)
        if session is not None and session.status in LIVE:
            account = await self._ledger.account(wallet_of(session.user_id), session.currency)
            hold = account.holds.get(hold_id_of(session_id))
            if hold is not None:
                rows |= {row.k: row for row in trail_rows(session_id, hold.facts["trail"])}
        return [rows[k] for k in sorted(rows)]

    async def active_of(self, person_id: str) -> SessionView | None:
        """The running session of a user or a lawyer."""
        for person in (user_claim(person_id), lawyer_claim(person_id)):
            session_id = await self._claims.holder(person)
            session = await self._sessions.get(session_id) if session_id is not None else None
            if session is not None and session.status in LIVE:
                view = await self._view(session)
                return view if view.status in LIVE else None
        return None

    async def request_of(self, person_id: str) -> SessionView | None:
        """The open request of a user or to a lawyer."""
        held = await self._claims.held([user_claim(person_id), lawyer_claim(person_id)])
        found = await self._sessions.get_many(sorted(set(held.values())))
        asked = next((session for session in found.values() if session.status in ASKED), None)
        return None if asked is None else await self._view(asked)

    async def list_for(
        self, person_id: str, *, limit: int, before: tuple[int, str] | None
    ) -> list[SessionView]:
        """The person's sessions, newest first."""
        found = await self._sessions.list_for(person_id, limit=limit, before=before)
        return [await self._view(session) for session in found]

    async def quote(self, *, user_id: str, lawyer_id: str) -> Quote:
        """How long the wallet lasts with this lawyer at today's rate."""
        terms = await self._lawyers.terms(lawyer_id)
        if terms is None:
            raise LawyerNotFound(lawyer=lawyer_id)
        wallet = await self._ledger.account(wallet_of(user_id), self._rules.asset.code)
        needed = needed_minor(terms.rate_minor_per_min, self._rules)
        free = await self._is_open_to(user_id, terms) and await self._holder(user_claim(user_id)) is None
        return Quote(
            lawyer_id=lawyer_id,
            rate_minor_per_min=terms.rate_minor_per_min,
            currency=self._rules.asset.code,
            wallet_minor=wallet.spendable,
            affordable_s=affordable_seconds(terms.rate_minor_per_min, wallet.spendable),
            min_needed_minor=needed,
            can_start=wallet.spendable >= needed and terms.is_verified and terms.is_online and free,
        )

    async def _view(self, session: Session) -> SessionView:
        account = await self._ledger.account(wallet_of(session.user_id), session.currency)
        if session.status not in LIVE:
            return final_view(session, account.spendable)
        hold = account.holds.get(hold_id_of(session.id))
        if hold is not None:
            return live_view(session, bill_of(account, hold), self._clock.now_ms())
        # Closed in the ledger, its record not yet copied: the ledger's word counts.
        entry = await self._ledger.entry(wallet_of(session.user_id), hold_id_of(session.id))
        if entry is None or "status" not in entry.facts:
            raise Unavailable(reason="the session's hold cannot be read", session=session.id)
        return final_view(ended_record(session, entry), account.spendable)


def _may_be_replaced(other: Session | None, user_id: str) -> bool:
    """Whether the claim of `other` is free for a start of this user: left behind by what is over, or kept for this very user."""
    if other is None or other.status in FINISHED:
        return True
    return other.status is Status.TURN and other.user_id == user_id
