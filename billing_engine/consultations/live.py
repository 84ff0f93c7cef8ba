"""What a process keeps of one session that it bills: nothing that storage lacks, but for when to do what next."""

import asyncio

from billing_engine.clock import Timer
from billing_engine.consultations.attendance import Attendance
from billing_engine.consultations.billing import Bill
from billing_engine.consultations.model import Session


class Live:
    """One session that this process bills."""

    __slots__ = (
        "attendance", "bill", "closing", "copied_k", "done", "gap_from_ms", "gate_ms", "look_at_ms", "next_tick_ms", "poked",
        "retry_at_ms", "session", "task", "timer", "waiter", "warned_s",
    )  # fmt: skip

    def __init__(self, session: Session, bill: Bill, next_tick: int, now_ms: int) -> None:
        self.session = session
        self.bill = bill
        self.gate_ms = bill.paid_until_ms or 0
        self.next_tick_ms = next_tick
        self.copied_k = 0
        self.attendance = Attendance((session.user_id, session.lawyer_id), now_ms)
        #: When to look who is there; ticks look, too.
        self.look_at_ms: int | None = now_ms if bill.meter.joined else None
        self.gap_from_ms: int | None = None
        self.retry_at_ms: int | None = None
        self.warned_s: int | None = None
        self.closing = False
        self.done = False
        self.poked: str | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.timer: Timer | None = None
        self.task: asyncio.Task[None] | None = None

    def look_by(self, at_ms: int) -> None:
        """Look who is there at that instant, if not sooner."""
        self.look_at_ms = at_ms if self.look_at_ms is None else min(self.look_at_ms, at_ms)

    def wake(self) -> None:
        """Let the session's task look at the time again."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
