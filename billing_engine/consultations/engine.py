"""One billing task per live session: wait for the next deadline, hold the next slice, tell the room, again.

The task holds no state that storage lacks. Sending is open while `now < gate`, and the gate is the paid-until of the last
write that came back in time: if the store is late, the gate shuts by itself and the time is not billed (LEDGER 3).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from billing_engine.clock import Clock
from billing_engine.consultations.attendance import NOBODY, Absence, Attendance
from billing_engine.consultations.billing import (
    Bill,
    Close,
    Tick,
    close,
    extend,
    hold_id_of,
    next_tick_ms,
    pause,
    resume,
)
from billing_engine.consultations.errors import StillFunded, Unattended
from billing_engine.consultations.live import Live
from billing_engine.consultations.model import EndReason, Session, SessionEvent
from billing_engine.consultations.ports import Announcer, Attending, Locks, NoPeers, Peers, Timeline
from billing_engine.consultations.rules import Rules
from billing_engine.consultations.settlement import Settlement, ended_record, lock_names, trail_rows
from billing_engine.consultations.views import final_view, live_view
from billing_engine.errors import BillingError, InvariantBroken, Unavailable
from billing_engine.ledger.accounts import wallet_of
from billing_engine.ledger.model import Account, Entry, Fenced, HoldGone
from billing_engine.ledger.service import Ledger
from billing_engine.stopping import stop_tasks

log = logging.getLogger(__name__)

RETRY_MS = 250
#: How often a paused session looks whether everybody is back, should no hint come.
LOOK_MS = 2_000


class Observer(Protocol):
    """Hears how punctual billing is; must not raise."""

    def ticked(self, lateness_ms: int) -> None:
        """A slice was committed this long after its deadline."""
        ...

    def cut_off(self, error_ms: int) -> None:
        """A session without money was closed, durably, this long after its paid-until."""
        ...


class Engine:
    """The live sessions of this process."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Clock,
        rules: Rules,
        timeline: Timeline,
        locks: Locks,
        settlement: Settlement,
        announcer: Announcer,
        observer: Observer | None = None,
        peers: Peers | None = None,
        attending: Attending | None = None,
    ) -> None:
        """Without `peers` there is no other process; without `attending` no session is paused or ended because somebody is lost."""
        self._peers = peers or NoPeers()
        self._attending = attending
        self._ledger = ledger
        self._clock = clock
        self._rules = rules
        self._timeline = timeline
        self._locks = locks
        self._settlement = settlement
        self._announcer = announcer
        self._observer = observer
        self._live: dict[str, Live] = {}
        self._by_user: dict[str, Live] = {}
        self._settling: dict[str, asyncio.Task[None]] = {}
        #: Sessions that another process has taken up, or that vanished here: for the metrics.
        self.let_go = 0

    # -- what the outside asks -----------------------------------------------------------------------------------

    @property
    def live_count(self) -> int:
        """Sessions that this process bills now."""
        return len(self._live)

    @property
    def paused_count(self) -> int:
        """Those of them that wait for somebody who is lost."""
        return sum(live.bill.paid_until_ms is None for live in self._live.values())

    def is_open(self, session_id: str) -> bool:
        """Whether the session is served at this very instant: running here, and paid."""
        live = self._live.get(session_id)
        return (
            live is not None
            and not live.closing
            and not live.done
            and live.bill.meter.running_since_ms is not None
            and live.gap_from_ms is None
            and self._clock.now_ms() < live.gate_ms
        )

    def is_paused(self, session_id: str) -> bool:
        """Whether the session is billed here and waits for somebody who is lost."""
        live = self._live.get(session_id)
        return live is not None and live.bill.paid_until_ms is None

    def launch(self, session: Session, bill: Bill, *, announce: str | None) -> None:
        """Begin to bill a session whose hold is open and owned by this process. Harmless when it is billed already."""
        if session.id in self._live:
            return
        now_ms = self._clock.now_ms()
        live = Live(session, bill, next_tick_ms(session.started_at_ms or 0, now_ms, self._rules), now_ms)
        proven_ms = bill.meter.evidence_at_ms
        if bill.paid_until_ms is not None and now_ms - proven_ms > self._rules.store_timeout_ms:
            # Its meter has run for long, and nobody could be served: the first write leaves the time since then out of the bill.
            # Since the evidence, never since the meter began to run: what is proven stays.
            live.gap_from_ms = live.gate_ms = proven_ms
            live.retry_at_ms = now_ms
        self._live[session.id] = live
        self._by_user[session.user_id] = live
        if announce is not None:
            self._tell(live, announce)
        self._warn(live)
        live.task = asyncio.create_task(self._run(live))

    def recharged(self, user_id: str) -> None:
        """The user's wallet has more: extend at once, without waiting for the tick, here or wherever the session is billed."""
        if not self.heard_recharged(user_id):
            self._peers.recharged(user_id)

    def heard_recharged(self, user_id: str) -> bool:
        """Another process took the recharge, or this one; whether the user's session is billed here."""
        live = self._by_user.get(user_id)
        if live is not None:
            live.poked = "session:recharged"
            live.wake()
        return live is not None

    def heard_ended(self, session_id: str) -> None:
        """Another process says that it has closed the session: ask the ledger now, not at the next tick."""
        live = self._live.get(session_id)
        if live is not None:
            self._ask_at_once(live)

    def heard_presence(self, session_id: str) -> None:
        """Somebody may have come to the session or gone from it: look now."""
        live = self._live.get(session_id)
        if live is not None and self._attending is not None:
            live.look_by(self._clock.now_ms())
            live.wake()

    def look_again(self, *, ours: Collection[str] = ()) -> None:
        """Ask the ledger of every session at once whether it is still this process's; not of those that are known to be `ours`."""
        for session_id, live in self._live.items():
            if session_id not in ours:
                self._ask_at_once(live)

    def _ask_at_once(self, live: Live) -> None:
        live.retry_at_ms = self._clock.now_ms()
        live.wake()

    def is_live(self, session_id: str) -> bool:
        """Whether this process bills the session."""
        return session_id in self._live

    async def end(self, session: Session, reason: EndReason) -> Entry:
        """Close the session for a party or an admin; the first close's outcome, for whoever asks.

        Raises:
            Unavailable: the outcome is not known, or not everything that follows it is stored yet; ask again.
        """
        live = self._live.get(session.id)
        at_ms = self._clock.now_ms()
        if live is not None:
            # What was not served is not billed: if the store was late and the gate has shut, that instant is the end.
            at_ms = (
                min(at_ms, live.gap_from_ms or live.gate_ms) if live.bill.paid_until_ms is not None else at_ms
            )
            live.closing = True
        try:
            absence = await self._absence(session, live)
            entry = await self._close(Close(session.id, reason, at_ms, absence=absence), session)
        except BillingError:
            if live is not None:
                live.closing = False
            raise
        await self._settled(session, entry)
        return entry

    def see_through(self, name: str, step: Callable[[], Awaitable[None]], *, after_ms: int) -> None:
        """Run `step` after a while, and again until the store takes it. A stop leaves it to the next start."""
        if name in self._settling:
            return

        async def later() -> None:
            await self._pause(after_ms)
            try:
                await self._until_stored(step)
            except BillingError:
                log.exception("it stays as it is until the next start", extra={"work": name})

        self._keep(name, later())

    async def settle(self, session: Session, entry: Entry) -> None:
        """Run what follows a closing entry of a session that nobody bills any more (recovery)."""
        await self._settled(session, entry)

    async def stop(self) -> None:
        """Stop billing without ending anything: one last write proves the service until now, and the hold stays open."""
        lives = list(self._live.values())
        await stop_tasks(live.task for live in lives)
        results = await asyncio.gather(
            *(self._extend(live) for live in lives if not live.done and not live.closing),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, HoldGone | Fenced | Unattended):
                log.warning("the last slice of a session was not stored: %r", result)
        # What follows a close is idempotent: the next start goes on where this one stops.
        await stop_tasks(list(self._settling.values()))
        self._live.clear()
        self._by_user.clear()

    # -- the task of one session -----------------------------------------------------------------------------------

    async def _run(self, live: Live) -> None:
        while not live.done:
            await self._wait(live)
            if live.done:
                return
            try:
                await self._serve(live)
            except BillingError as exc:
                self._retry(live, exc)
            except Exception:
                # A defect must not stop the billing of a session silently: the gate shuts at paid-until, the task goes on.
                log.exception("billing step failed", extra={"session_id": live.session.id})
                live.retry_at_ms = self._clock.now_ms() + RETRY_MS

    async def _serve(self, live: Live) -> None:
        try:
            await self._step(live)
        except (HoldGone, Fenced) as gone:
            await self._lost(live, gone)
        except Unattended:
            await self._close_unattended(live)

    async def _wait(self, live: Live) -> None:
        if live.poked is not None:
            return
        live.waiter = asyncio.get_running_loop().create_future()
        live.timer = self._clock.call_at_ms(self._deadline(live), live.wake)
        try:
            await live.waiter
        finally:
            live.timer.cancel()
            live.waiter = None

    def _deadline(self, live: Live) -> int:
        if live.retry_at_ms is not None:
            return live.retry_at_ms
        # Ticks wait for the slot's end so that many sessions meet in one commit; money's own deadlines are exact.
        slot = self._rules.slot_ms
        deadline = -(-live.next_tick_ms // slot) * slot
        bill = live.bill
        if bill.short and bill.paid_until_ms is not None:
            deadline = min(deadline, bill.paid_until_ms)
        if live.look_at_ms is not None:
            deadline = min(deadline, live.look_at_ms)
        warn_at = self._next_warning_ms(live)
        return deadline if warn_at is None else min(deadline, warn_at)

    async def _step(self, live: Live) -> None:
        now_ms = self._clock.now_ms()
        until = live.bill.paid_until_ms
        poked, live.poked = live.poked, None
        if live.closing:
            # A party's end is on its way; it either settles the session or gives it back.
            live.retry_at_ms = now_ms + RETRY_MS
            return
        if live.bill.short and until is not None and now_ms >= until and poked is None:
            await self._run_dry(live, until)
            return
        if poked is not None or now_ms >= live.next_tick_ms or live.retry_at_ms is not None:
            await self._extend_and_tell(live, poked or "session:tick")
        elif live.look_at_ms is None or now_ms < live.look_at_ms:
            self._warn(live)
            return
        # After the tick: whoever is slow to tell who is there delays no billing, and a pause begins where it began all the same.
        if self._attending is not None and live.retry_at_ms is None and not live.done:
            await self._look(live)

    async def _extend_and_tell(self, live: Live, event: str) -> None:
        due_ms = live.next_tick_ms
        await self._extend(live)
        now_ms = self._clock.now_ms()
        live.retry_at_ms = None
        if live.gap_from_ms is not None:
            # This bill still has the gap that the next write leaves out: write it now, tell nobody what will be taken back.
            live.retry_at_ms = now_ms
            live.poked = live.poked or (event if event == "session:recharged" else None)
            return
        if now_ms >= due_ms:
            if self._observer is not None:
                self._observer.ticked(now_ms - due_ms)
            live.next_tick_ms = next_tick_ms(live.session.started_at_ms or 0, now_ms, self._rules)
        await self._copy_trail(live)
        self._tell(live, event)
        self._warn(live)
        # Last: locks that do not answer keep nobody waiting for the news.
        await self._renew_locks(live)

    async def _extend(self, live: Live, *, joined: tuple[str, ...] = ()) -> None:
        gap_from_ms = live.gap_from_ms
        asked_ms = self._clock.now_ms()
        is_running = live.bill.paid_until_ms is not None
        if is_running and gap_from_ms is None and live.retry_at_ms is not None and asked_ms > live.gate_ms:
            gap_from_ms = (
                live.gate_ms
            )  # earlier tries failed until the gate had shut: the store's time, not the server's
        tick = self._next_write(live, gap_from_ms, joined)
        await self._write_meter(live, tick, partial(extend, tick=tick, rules=self._rules))

    def _next_write(self, live: Live, gap_from_ms: int | None, joined: tuple[str, ...] = ()) -> Tick:
        bill, now_ms = live.bill, self._clock.now_ms()
        return Tick(live.session.id, bill.fence, bill.n + 1, now_ms, live.copied_k, gap_from_ms, joined)

    async def _write_meter(self, live: Live, tick: Tick, change: Any) -> None:
        """One write of the hold, and what its answer means for the gate. Raises what `change` raises, and `Unavailable`."""
        session, asked_ms, before = live.session, tick.now_ms, live.bill
        bill: Bill = await self._ledger.change(wallet_of(session.user_id), self._rules.asset.code, change)
        answered_ms = self._clock.now_ms()
        gate_ms, live.bill = live.gate_ms, bill
        if bill.paid_until_ms is None:
            live.gap_from_ms, live.gate_ms = None, 0
        elif before.paid_until_ms is None:
            # It runs since its evidence. What the store took to say so nobody could use.
            is_late = answered_ms - bill.meter.evidence_at_ms > self._rules.store_timeout_ms
            live.gap_from_ms = bill.meter.evidence_at_ms if is_late else None
            live.gate_ms = bill.meter.evidence_at_ms if is_late else bill.paid_until_ms
        else:
            # An answer without evidence of now repeats an earlier write, whose answer was lost: it knows of no gap since then.
            shut_ms = gate_ms if bill.meter.evidence_at_ms < asked_ms else max(gate_ms, asked_ms)
            if answered_ms <= gate_ms or (
                shut_ms == asked_ms and answered_ms - asked_ms <= self._rules.store_timeout_ms
            ):
                live.gap_from_ms = None
                live.gate_ms = bill.paid_until_ms
            else:
                # The gate shut while the store kept us waiting. The write bills time that nobody could use, so the next one
                # records it as a pause.
                live.gap_from_ms = live.gate_ms = shut_ms
        if (bill.paid_until_ms is None) is not (before.paid_until_ms is None):
            self._tell_pause(live, before)

    # -- who is there ----------------------------------------------------------------------------------------------

    async def _look(self, live: Live) -> None:
        """Ask who is there; note who has joined, pause, resume or end. What is not known changes nothing."""
        at_ms = self._clock.now_ms()
        live.look_at_ms = None
        absence = await self._absence(live.session, live)
        if live.done or live.closing:
            return
        if joined := live.attendance.arrived(live.bill.meter):
            # At once: that somebody had joined outlives this process with the bill.
            await self._extend(live, joined=joined)
        if live.bill.paid_until_ms is not None:
            await self._look_at_running(live, absence, at_ms)
        else:
            await self._look_at_paused(live, absence, at_ms)
        if live.gap_from_ms is not None:
            live.retry_at_ms = self._clock.now_ms()

    async def _look_at_running(self, live: Live, absence: Absence, at_ms: int) -> None:
        loss = absence.loss(live.bill.meter)
        if absence.due(live.bill.meter, at_ms) is not None:
            await self._pause_meter(live, absence, at_ms)
        elif loss is not None:
            live.look_by(loss.since_ms + self._rules.peer_grace_ms)

    async def _look_at_paused(self, live: Live, absence: Absence, at_ms: int) -> None:
        loss = absence.loss(live.bill.meter)
        ends_at_ms = None if loss is None else loss.since_ms + self._rules.peer_gone_ms
        if ends_at_ms is not None and at_ms >= ends_at_ms:
            await self._end_without_peer(live, absence)
            return
        if live.attendance.is_whole(live.bill.meter):
            await self._resume_meter(live)
            return
        next_ms = at_ms + LOOK_MS
        live.look_by(next_ms if ends_at_ms is None else min(next_ms, ends_at_ms))

    async def _absence(self, session: Session, live: Live | None) -> Absence:
        """Who is known to be gone. A process that does not bill the session knows of no others than of those who left a trace."""
        if self._attending is None:
            return NOBODY
        people = (session.user_id, session.lawyer_id)
        seen = await self._attending.of(session.id, people)
        now_ms = self._clock.now_ms()
        attendance = live.attendance if live is not None else Attendance(people, now_ms)
        attendance.take(seen, now_ms)
        if live is None:
            return attendance.traced(self._rules.peer_grace_ms)
        return attendance.absence(live.bill.meter, self._rules.peer_grace_ms)

    async def _pause_meter(self, live: Live, absence: Absence, at_ms: int) -> None:
        loss = absence.loss(live.bill.meter)
        live.look_by(
            at_ms + LOOK_MS
            if loss is None
            else min(at_ms + LOOK_MS, loss.since_ms + self._rules.peer_gone_ms)
        )
        tick = replace(self._next_write(live, live.gap_from_ms), now_ms=at_ms)
        await self._write_meter(live, tick, partial(pause, tick=tick, absence=absence, rules=self._rules))
        await self._copy_trail(live)

    async def _resume_meter(self, live: Live) -> None:
        tick = self._next_write(live, None)
        await self._write_meter(live, tick, partial(resume, tick=tick, rules=self._rules))
        await self._copy_trail(live)
        self._warn(live)

    def _tell_pause(self, live: Live, before: Bill) -> None:
        """The session has begun or ceased to wait for somebody."""
        self._peers.paused_or_resumed(live.session.id)
        meter = live.bill.meter
        if meter.waiting_since_ms is None:
            self._tell(live, "session:resumed", reason=before.meter.pause_reason)
        else:
            ends_at_ms = meter.waiting_since_ms + self._rules.peer_gone_ms
            self._tell(live, "session:paused", reason=meter.pause_reason, ends_at_ms=ends_at_ms)

    async def _copy_trail(self, live: Live) -> None:
        trail = live.bill.meter.trail
        if not trail or trail[-1][0] < live.copied_k:
            return
        await self._timeline.add(trail_rows(live.session.id, trail))
        live.copied_k = trail[-1][0] + 1

    async def _renew_locks(self, live: Live) -> None:
        try:
            await self._locks.renew(lock_names(live.session.user_id, live.session.lawyer_id), live.session.id)
        except Unavailable as exc:
            log.warning("locks do not answer; billing goes on without them: %r", exc)

    def _retry(self, live: Live, exc: BillingError) -> None:
        level = logging.ERROR if isinstance(exc, InvariantBroken) else logging.WARNING
        log.log(level, "billing step will be tried again: %r", exc, extra={"session_id": live.session.id})
        live.retry_at_ms = self._clock.now_ms() + RETRY_MS

    # -- ending ----------------------------------------------------------------------------------------------------

    async def _run_dry(self, live: Live, until_ms: int) -> None:
        """The paid time is over, and nothing more can be paid as far as is known."""
        absence = await self._absence(live.session, live)
        if live.done or live.closing:
            return
        if absence.due(live.bill.meter, until_ms) is not None:
            # By then it was paused, and what was held since then pays for when they are back.
            await self._pause_meter(live, absence, until_ms)
            return
        try:
            await self._cut_off(live, until_ms, absence)
        except StillFunded:
            await self._extend_and_tell(live, "session:recharged")

    async def _cut_off(self, live: Live, until_ms: int, absence: Absence) -> None:
        fence = live.bill.fence
        order = Close(
            live.session.id,
            EndReason.WALLET_EMPTY,
            until_ms,
            fence,
            only_if_short=True,
            absence=absence,
        )
        entry = await self._close_own(live, order)
        if self._observer is not None:
            self._observer.cut_off(self._clock.now_ms() - until_ms)
        await self._settled(live.session, entry)

    async def _end_without_peer(self, live: Live, absence: Absence) -> None:
        now_ms = self._clock.now_ms()
        order = Close(live.session.id, EndReason.PEER_GONE, now_ms, live.bill.fence, absence=absence)
        await self._settled(live.session, await self._close_own(live, order))

    async def _close_own(self, live: Live, order: Close) -> Entry:
        live.closing = True
        try:
            return await self._close(order, live.session)
        except BillingError:
            live.closing = False
            raise

    async def _close_unattended(self, live: Live) -> None:
        absence = await self._absence(live.session, live)
        at_ms = live.gap_from_ms or live.gate_ms
        order = Close(live.session.id, EndReason.ABANDONED, at_ms, live.bill.fence, absence=absence)
        entry = await self._close(order, live.session)
        await self._settled(live.session, entry)

    async def _close(self, order: Close, session: Session) -> Entry:
        day = self._ledger.day_of(order.at_ms)

        def change(account: Account, known: Entry | None) -> tuple[Account, Entry]:
            # Now, and not when it was asked for: what was booked meanwhile would stand after it in the account's history.
            return close(account, known, order=order, day=day, booked_at_ms=self._clock.now_ms())

        account_id = wallet_of(session.user_id)
        source = hold_id_of(session.id)
        entry: Entry = await self._ledger.change(account_id, self._rules.asset.code, change, source=source)
        return entry

    async def _settled(self, session: Session, entry: Entry) -> None:
        """Settle once, however many callers ended the session; each waits for the same work."""
        task = self._settling.get(session.id)
        if task is None:
            task = self._keep(session.id, self._settle(session, entry))
        late = asyncio.ensure_future(self._pause(5 * self._rules.store_timeout_ms))
        try:
            await asyncio.wait({task, late}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            late.cancel()
        if not task.done():
            raise Unavailable(reason="the end is final, its record is being stored", session=session.id)
        task.result()

    def _keep(self, name: str, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._settling[name] = task
        task.add_done_callback(lambda _: self._settling.pop(name, None))
        return task

    async def _settle(self, session: Session, entry: Entry) -> None:
        news = False

        async def store() -> int:
            nonlocal news
            try:
                news |= await self._settlement.record(session, entry)
            except Unavailable:
                # It may have been stored all the same: to be told twice harms nobody, not to be told does.
                news = True
                raise
            await self._settlement.release(session)
            return (await self._ledger.account(wallet_of(session.user_id), self._rules.asset.code)).spendable

        wallet_minor = await self._until_stored(store)
        live = self._live.pop(session.id, None)
        if live is not None:
            self._forget(live)
        else:
            self._peers.ended(session.id)
        if news:
            view = final_view(ended_record(session, entry), wallet_minor)
            self._announcer.announce(SessionEvent("session:ended", view))

    def _forget(self, live: Live) -> None:
        live.done = True
        self._live.pop(live.session.id, None)
        if self._by_user.get(live.session.user_id) is live:
            del self._by_user[live.session.user_id]
        live.wake()

    async def _until_stored(self, step: Callable[[], Awaitable[Any]]) -> Any:
        """The money has moved; what follows is repeated until the store takes it, or until a restart does it."""
        while True:
            try:
                return await step()
            except Unavailable as exc:
                log.warning("settling will be tried again: %r", exc)
                await self._pause(RETRY_MS)

    async def _pause(self, duration_ms: int) -> None:
        turn = asyncio.Event()
        timer = self._clock.call_at_ms(self._clock.now_ms() + duration_ms, turn.set)
        try:
            await turn.wait()
        finally:
            timer.cancel()

    async def _lost(self, live: Live, gone: HoldGone | Fenced) -> None:
        """The hold is not ours any more: closed by another path (settle it), or owned by another process (let it go)."""
        if isinstance(gone, HoldGone):
            entry = await self._ledger.entry(wallet_of(live.session.user_id), hold_id_of(live.session.id))
            if entry is not None and "status" in entry.facts:
                await self._settled(live.session, entry)
                return
        log.warning("session let go: %r", gone, extra={"session_id": live.session.id})
        self.let_go += 1
        self._forget(live)

    # -- telling -----------------------------------------------------------------------------------------------------

    def _tell(self, live: Live, event: str, **extra: Any) -> None:
        view = live_view(live.session, live.bill, self._clock.now_ms())
        self._announcer.announce(SessionEvent(event, view, extra))

    def _remaining_s(self, live: Live) -> int:
        return max(0, live.bill.limit_s - live.bill.meter.seconds_at(self._clock.now_ms()))

    def _warn(self, live: Live) -> None:
        """Announce the lowest threshold that has been crossed, once; a recharge above it arms it again."""
        remaining_s = self._remaining_s(live)
        crossed = min((t for t in self._rules.warnings_s if remaining_s <= t), default=None)
        news = crossed is not None and (live.warned_s is None or crossed < live.warned_s)
        live.warned_s = crossed
        if news:
            self._tell(live, "session:low_balance", threshold=crossed)

    def _next_warning_ms(self, live: Live) -> int | None:
        ends_at = live.bill.ends_at_ms
        if ends_at is None:
            return None
        ahead = [t for t in self._rules.warnings_s if live.warned_s is None or t < live.warned_s]
        return ends_at - max(ahead) * 1000 if ahead else None
