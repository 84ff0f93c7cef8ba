"""What a process does with the sessions that another one left: go on, end at the evidence, or finish what was begun.

Recovery never concludes from absence. A start without its ACTIVE mark is aborted by writing (LEDGER 2 and 5); a session whose
hold is open is adopted by a write that moves its epoch; one whose hold is closed is settled from its entry.
"""

import asyncio
import logging
from functools import partial

from billing_engine.clock import Clock
from billing_engine.consultations.billing import (
    Bill,
    Close,
    Fence,
    adopt,
    close,
    hold_id_of,
    last_evidence_ms,
)
from billing_engine.consultations.engine import Engine
from billing_engine.consultations.errors import StillFunded, Unattended
from billing_engine.consultations.model import EndReason, Session, Status
from billing_engine.consultations.ports import Locks, Rooms, Sessions, Timeline
from billing_engine.consultations.rules import Rules
from billing_engine.consultations.service import Consultations
from billing_engine.consultations.settlement import lock_names, trail_rows
from billing_engine.errors import InvariantBroken, Unavailable
from billing_engine.ledger.accounts import wallet_of
from billing_engine.ledger.model import Entry, Fenced, Hold, HoldGone
from billing_engine.ledger.service import Ledger

log = logging.getLogger(__name__)


class Recovery:
    """Takes up every unfinished session at start-up."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Clock,
        rules: Rules,
        sessions: Sessions,
        timeline: Timeline,
        rooms: Rooms,
        locks: Locks,
        engine: Engine,
        consultations: Consultations,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._rules = rules
        self._sessions = sessions
        self._timeline = timeline
        self._rooms = rooms
        self._locks = locks
        self._engine = engine
        self._consultations = consultations

    async def run(self) -> int:
        """Recover all; how many sessions go on. Raises what the store raises: a server that cannot recover does not serve."""
        unfinished = await self._sessions.unfinished()
        results = await asyncio.gather(*(self._recover(session) for session in unfinished))
        await self._consultations.free_left_behind()
        return sum(results)

    async def _recover(self, session: Session) -> bool:
        if session.status is Status.STARTING:
            await self._consultations.give_back(session)
            return False
        account = await self._ledger.account(wallet_of(session.user_id), session.currency)
        hold = account.holds.get(hold_id_of(session.id))
        if hold is None:
            await self._settle_closed(session)
            return False
        evidence_ms = await self._rooms.evidence_ms(session.id)
        try:
            bill = await self._adopt(session, hold, evidence_ms)
        except HoldGone:
            await self._settle_closed(session)
            return False
        except StillFunded:
            log.info("session is another process's by now", extra={"session_id": session.id})
            return False
        except Unattended:
            await self._abandon(session, hold, evidence_ms)
            return False
        await self._timeline.add(trail_rows(session.id, bill.meter.trail))
        try:
            await self._locks.acquire(lock_names(session.user_id, session.lawyer_id), session.id)
        except Unavailable as exc:
            log.warning("locks do not answer; billing goes on without them: %r", exc)
        self._engine.launch(session, bill, announce=None)
        return True

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
        change = partial(close, order=order, day=self._ledger.day_of(order.at_ms), booked_at_ms=now_ms)
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
