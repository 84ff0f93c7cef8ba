"""A session as callers see it, from its record and its bill. Pure."""

from billing_engine.consultations.billing import Bill
from billing_engine.consultations.model import Session, SessionView, Status


def live_view(session: Session, bill: Bill, now_ms: int) -> SessionView:
    """A running session at `now_ms`; what is not paid for yet is not shown as served."""
    meter = bill.meter
    until = bill.paid_until_ms
    at_ms = now_ms if until is None else min(now_ms, until)
    return SessionView(
        session=session,
        status=Status.PAUSED if meter.running_since_ms is None else Status.ACTIVE,
        duration_s=meter.seconds_at(at_ms),
        total_minor=meter.bill_minor(at_ms),
        paid_until_ms=until,
        remaining_s=max(0, bill.limit_s - meter.seconds_at(at_ms)),
        wallet_minor=bill.spendable_minor,
        paid_ahead_s=None if until is None else max(0, until - now_ms) // 1000,
        pause_reason=meter.pause_reason,
    )


def final_view(session: Session, wallet_minor: int) -> SessionView:
    """A session that is not being served: it has ended, or its lawyer is still asked."""
    return SessionView(
        session=session,
        status=Status.REQUESTED if session.status is Status.ACCEPTED else session.status,
        duration_s=session.duration_s,
        total_minor=session.total_minor,
        paid_until_ms=None,
        remaining_s=0,
        wallet_minor=wallet_minor,
    )
