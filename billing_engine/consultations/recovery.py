"""What a process does with the sessions that another one left: go on, end at the evidence, or finish what was begun.

At its start, when it sees another process die (`takeover`), and once in a while for what fell between two of them. Recovery
never concludes from absence. A start without its ACTIVE mark is aborted by writing (LEDGER 2 and 5); a session whose hold is open
is adopted by a write that moves its epoch; one whose hold is closed is settled from its entry.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

from billing_engine.clock import Clock
from billing_engine.consultations.billing import (
    Bill,
    Close,
    Fence,
    adopt,
    bill_of,
    close,
    hold_id_of,
    last_evidence_ms,
)
from billing_engine.consultations.engine import RETRY_MS, Engine
from billing_engine.consultations.errors import StillFunded, Unattended
from billing_engine.consultations.meter import Meter
from billing_engine.consultations.model import LIVE, EndReason, Session, Status, Step, states_before
from billing_engine.consultations.ports import Locks, Rooms, Sessions
from billing_engine.consultations.rules import Rules
from billing_engine.consultations.service import Consultations
from billing_engine.consultations.settlement import lock_names
from billing_engine.errors import InvariantBroken, Unavailable
from billing_engine.ledger.accounts import wallet_of
from billing_engine.ledger.model import Account, Entry, Fenced, Hold, HoldGone
from billing_engine.ledger.service import Ledger

log = logging.getLogger(__name__)


#: Of a start that did not come through: its hold is given back and not adopted.
_NOT_BEGUN: Final = frozenset({Status.STARTING, Status.ABORTED})
#: What the hold of every consultation is called.
HOLDS: Final = hold_id_of("")


class Recovery:
    """Takes up what nobody who lives is taking care of."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Clock,
        rules: Rules,
        sessions: Sessions,
        rooms: Rooms,
        locks: Locks,
        engine: Engine,
        consultations: Consultations,
        serves: bool = True,
    ) -> None:
        """A process that does not serve (a worker) bills nobody: it ends what was abandoned, and finishes what was begun."""
        self._serves = serves
        self._ledger = ledger
        self._clock = clock
        self._rules = rules
        self._sessions = sessions
        self._rooms = rooms
        self._locks = locks
        self._engine = engine
        self._consultations = consultations

    async def run(self, alive: frozenset[str] = frozenset()) -> int:
        """Take care of every unfinished session whose process is neither this one nor `alive`; how many go on here.

        Raises what the store raises: a server that cannot recover does not serve.
        """
        # Rows before holds: what is in the rows and no longer among the holds has been closed.
        unfinished = await self._sessions.unfinished()
        owners = {hold.hold_id: hold.owner for hold in await self._ledger.open_holds(HOLDS)}
        taken_up = await self.take_up(
            (
                session
                for session in unfinished
                # Without a hold a request's time is its own.
                if (session.status is not Status.ACCEPTED or hold_id_of(session.id) in owners)
                and not self._is_cared_for(session, owners.get(hold_id_of(session.id), ""), alive)
            ),
            alive,
        )
        await self._consultations.free_left_behind()
        return taken_up

    def _is_cared_for(self, session: Session, hold_owner: str, alive: frozenset[str]) -> bool:
        if session.status is Status.STARTING:
            return session.owner in alive or session.owner == self._consultations.owner
        if hold_owner == self._consultations.owner:
            return self._engine.is_live(session.id)
        return hold_owner in alive

    async def take_up(self, sessions: Iterable[Session], alive: frozenset[str] = frozenset()) -> int:
        """Adopt, settle or give back each, but for what one of `alive` owns by now; how many go on here. Raises what the store
        raises, once all have been tried.
        """
        due = list(sessions)
        live = [session for session in due if session.status not in _NOT_BEGUN]
        accounts = await self._ledger.accounts([wallet_of(session.user_id) for session in live])
        evidence = await self._rooms.evidence_ms([session.id for session in live])

        async def recover(session: Session) -> bool:
            if session.status is Status.ACCEPTED and self._is_not_held_by_others(session, accounts):
                return False
            if session.status in _NOT_BEGUN:
                await self._give_back(session)
                return False
            account = accounts.get(wallet_of(session.user_id))
            return await self._recover(session, account, evidence.get(session.id, 0), alive)

        results = await asyncio.gather(*map(recover, due), return_exceptions=True)
        adopted = [session for session, is_billed in zip(due, results, strict=True) if is_billed is True]
        # All are billed from now on. What their holds say of the pause is copied to the timeline with each one's next tick.
        await asyncio.gather(*map(self._lock, adopted))
        for result in results:
            if isinstance(result, InvariantBroken):
                # One session that contradicts itself must not keep all others from their people: `verify-ledger` names it.
                log.error("a session cannot be taken up: %r", result)
            elif isinstance(result, BaseException):
                raise result
        return len(adopted)

    def _is_not_held_by_others(self, session: Session, accounts: Mapping[str, Account]) -> bool:
        """Of a request: nobody holds for it yet, or this process does, and is about to begin it. Either is the requests' business."""
        account = accounts.get(wallet_of(session.user_id))
        hold = account.holds.get(hold_id_of(session.id)) if account is not None else None
        return hold is None or hold.owner == self._consultations.owner

    async def _give_back(self, session: Session) -> None:
        """Unless a repeat of the start, at another process, has made it its own since it was looked at. One that is being given back
        already may have been left half-way.
        """
        stored = await self._sessions.get(session.id)
        if stored is not None and stored.owner == session.owner:
            await self._consultations.give_back(session)

    async def _recover(
        self, session: Session, account: Account | None, evidence_ms: int, alive: frozenset[str]
    ) -> bool:
        """Whether the session goes on here from now on."""
        hold = account.holds.get(hold_id_of(session.id)) if account is not None else None
        if account is None or hold is None:
            await self._settle_closed(session)
            return False
        if hold.owner == self._consultations.owner:
            return self._find_again(session, bill_of(account, hold))
        begun = None if hold.owner in alive else await self._begun(session, hold)
        if begun is None:
            return False
        session = begun
        if not self._serves:
            await self._abandon_if_due(session, hold, evidence_ms)
            return False
        return await self._go_on(session, hold, evidence_ms)

    async def _begun(self, session: Session, hold: Hold) -> Session | None:
        """The session as its hold has it; None if it is over. Of an ACCEPTED one the first slice was held by a process that died
        before the record said so: the hold is what counts.
        """
        if session.status is not Status.ACCEPTED:
            return session
        begun = await self._sessions.change(
            session.id,
            expect=states_before(Step.BEGIN),
            status=Status.ACTIVE,
            started_at_ms=Meter.of_facts(hold.facts).started_at_ms,
            deadline_ms=None,
        )
        begun = begun or await self._sessions.get(session.id)
        return begun if begun is not None and begun.status in LIVE else None

    async def _go_on(self, session: Session, hold: Hold, evidence_ms: int) -> bool:
        """Adopt it and bill it here; whether that was to be."""
        try:
            bill = await self._adopt(session, hold, evidence_ms)
        except Unavailable:
            # It may be ours by now, and then nobody else looks for it: ask with the same words until it is known.
            again = partial(self._go_on_once_known, session, hold, evidence_ms)
            self._engine.see_through(f"adoption:{session.id}", again, after_ms=RETRY_MS)
            raise
        except HoldGone:
            await self._settle_closed(session)
        except StillFunded:
            log.info("session is another process's by now", extra={"session_id": session.id})
        except Unattended:
            await self._abandon(session, hold, evidence_ms)
        else:
            self._engine.launch(session, bill, announce=None)
            return True
        return False

    async def _go_on_once_known(self, session: Session, hold: Hold, evidence_ms: int) -> None:
        if await self._go_on(session, hold, evidence_ms):
            await self._lock(session)

    def _find_again(self, session: Session, bill: Bill) -> bool:
        """A session that this process has adopted without hearing so (the answer was lost) is billed by it from now on."""
        idle_ms = self._clock.now_ms() - bill.meter.evidence_at_ms
        # Younger ones may be on their way from the store to their start.
        if self._engine.is_live(session.id) or idle_ms < 5 * self._rules.store_timeout_ms:
            return False
        self._engine.launch(session, bill, announce=None)
        return True

    async def _lock(self, session: Session) -> None:
        try:
            await self._locks.acquire(lock_names(session.user_id, session.lawyer_id), session.id)
        except Unavailable as exc:
            log.warning("locks do not answer; billing goes on without them: %r", exc)

    async def _abandon_if_due(self, session: Session, hold: Hold, evidence_ms: int) -> None:
        now_ms = self._clock.now_ms()
        if now_ms - last_evidence_ms(hold, evidence_ms, now_ms) > self._rules.abandon_ms:
            await self._abandon(session, hold, evidence_ms)

    async def _adopt(self, session: Session, hold: Hold, evidence_ms: int) -> Bill:
        change = partial(
            adopt,
            session_id=session.id,
            from_epoch=hold.epoch,
            owner=self._consultations.owner,
            evidence_ms=evidence_ms,
            now_ms=self._clock.now_ms(),
            rules=self._rules,
        )
        bill: Bill = await self._ledger.change(wallet_of(session.user_id), session.currency, change)
        return bill

    async def _abandon(self, session: Session, hold: Hold, evidence_ms: int) -> None:
        now_ms = self._clock.now_ms()
        # Fenced: a process that has adopted it a moment ago serves it, and nothing is abandoned.
        fence = Fence(hold.epoch, hold.owner)
        order = Close(session.id, EndReason.ABANDONED, last_evidence_ms(hold, evidence_ms, now_ms), fence)
        day = self._ledger.day_of(order.at_ms)

        def change(account: Account, known: Entry | None) -> tuple[Account, Entry]:
            return close(account, known, order=order, day=day, booked_at_ms=self._clock.now_ms())

        source = hold_id_of(session.id)
        try:
            entry: Entry = await self._ledger.change(
                wallet_of(session.user_id), session.currency, change, source=source
            )
        except Fenced:
            log.info("session is another process's by now", extra={"session_id": session.id})
            return
        await self._engine.settle(session, entry)

    async def _settle_closed(self, session: Session) -> None:
        entry = await self._ledger.entry(wallet_of(session.user_id), hold_id_of(session.id))
        if entry is None or "status" not in entry.facts:
            raise InvariantBroken(rule="an active session has a hold or a closing entry", session=session.id)
        await self._engine.settle(session, entry)
