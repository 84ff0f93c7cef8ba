"""A consultation as each of its parties may see it: over HTTP and in `session:*` events.

The wallet belongs to the user: the lawyer sees neither the balance nor the cap, and `remainingSeconds` only from 120
downwards, since more would tell the balance (SPEC 6). So would a `paidUntil` that lies further ahead: with long ticks it is
where the wallet ends.
"""

from typing import Annotated, Any, Final

from billing_engine.consultations.model import (
    PUBLIC,
    EndReason,
    SessionEvent,
    SessionView,
    Status,
    TimelineRow,
)
from billing_engine.consultations.request_model import RequestState, state_of
from billing_engine.money import ASSETS, format_minor
from server.wire import Instant, MoneyOut, WireModel, one_of, rfc3339

StatusOut = Annotated[str, one_of(status for status in Status if status in PUBLIC)]
EndReasonOut = Annotated[str, one_of(EndReason)]
#: Of the request itself: ANSWERED_ELSEWHERE is only what a device hears.
RequestStateOut = Annotated[str, one_of(s for s in RequestState if s is not RequestState.ANSWERED_ELSEWHERE)]
LAWYER_SEES_REMAINING_FROM_S: Final = 120


class TimelineOut(WireModel):
    """One event of a session's life. `start`, `pause`, `resume`, `end`: the bill can be recomputed from them."""

    at: Instant
    event: Annotated[str, one_of(("start", "pause", "resume", "end"))]
    reason: str | None


class MessageBrief(WireModel):
    """The last message of a conversation; with `erasedAt` its body is empty."""

    seq: int
    sender_id: str
    body: str
    created_at: Instant
    erased_at: Instant | None = None


class SessionOut(WireModel):
    """A consultation. `remainingSeconds` counts the whole wallet from now; it is null where the viewer may not know it.

    `requestState` is where the request is, and null with lawyers who accept by themselves; until `deadline` the answer must be there,
    and once it is ACCEPTED both people. `remainingBalance` is the user's spendable money, for the user and admins. `refundedAmount`
    is what of `totalAmount` was given back since; lists and `GET /consult/{id}` have it.
    """

    session_id: str
    user_id: str
    lawyer_id: str
    rate_per_minute: MoneyOut
    currency: str
    status: StatusOut
    started_at: Instant | None
    paid_until: Instant | None
    remaining_seconds: int | None
    duration_seconds: int
    total_amount: MoneyOut
    ended_at: Instant | None
    end_reason: EndReasonOut | None
    request_state: RequestStateOut | None = None
    deadline: Instant | None = None
    max_amount: MoneyOut | None = None
    remaining_balance: MoneyOut | None = None
    refunded_amount: MoneyOut | None = None
    timeline: list[TimelineOut] | None = None
    last_message: MessageBrief | None = None
    unread_count: int | None = None


def session_out(view: SessionView, viewer_id: str, **more: Any) -> SessionOut:
    """The session for one viewer: its lawyer, or someone who may see the user's money (the user, an admin)."""
    session = view.session
    asset = ASSETS[session.currency]
    is_lawyer = viewer_id == session.lawyer_id
    request_state = state_of(session)
    return SessionOut(
        session_id=session.id,
        user_id=session.user_id,
        lawyer_id=session.lawyer_id,
        rate_per_minute=format_minor(session.rate_minor_per_min, asset),
        currency=session.currency,
        status=view.status.value,
        started_at=session.started_at_ms,
        paid_until=_paid_until_ms(view, is_lawyer=is_lawyer),
        remaining_seconds=_remaining(view, is_lawyer=is_lawyer),
        duration_seconds=view.duration_s,
        total_amount=format_minor(view.total_minor, asset),
        ended_at=session.ended_at_ms,
        end_reason=session.end_reason.value if session.end_reason is not None else None,
        request_state=None if request_state is None else request_state.value,
        deadline=session.deadline_ms,
        max_amount=None if is_lawyer or session.max_minor is None else format_minor(session.max_minor, asset),
        remaining_balance=None if is_lawyer else format_minor(view.wallet_minor, asset),
        **more,
    )


def timeline_out(rows: list[TimelineRow]) -> list[TimelineOut]:
    """Timeline rows for the wire."""
    return [TimelineOut(at=row.at_ms, event=row.event, reason=row.reason) for row in rows]


def event_payload(event: SessionEvent, viewer_id: str, *, last_seq: int | None) -> dict[str, Any]:
    """The payload of a `session:*` event for one of the two parties."""
    payload = billing_state(event.view, viewer_id, last_seq=last_seq)
    if "threshold" in event.extra:
        payload["thresholdSeconds"] = event.extra["threshold"]
    if "reason" in event.extra:
        payload["reason"] = event.extra["reason"]
    if "ends_at_ms" in event.extra:
        payload["endsAt"] = rfc3339(event.extra["ends_at_ms"])
    return payload


def billing_state(view: SessionView, viewer_id: str, *, last_seq: int | None) -> dict[str, Any]:
    """The bill at one instant, as events and the join acknowledgement carry it."""
    session = view.session
    asset = ASSETS[session.currency]
    is_lawyer = viewer_id == session.lawyer_id
    paid_until_ms = _paid_until_ms(view, is_lawyer=is_lawyer)
    return {
        "sessionId": session.id,
        "elapsedSeconds": view.duration_s,
        "totalAmount": format_minor(view.total_minor, asset),
        "walletBalance": None if is_lawyer else format_minor(view.wallet_minor, asset),
        "currency": session.currency,
        "ratePerMinute": format_minor(session.rate_minor_per_min, asset),
        "remainingSeconds": _remaining(view, is_lawyer=is_lawyer),
        "paidUntil": rfc3339(paid_until_ms) if paid_until_ms is not None else None,
        "status": view.status.value,
        "reason": session.end_reason.value if session.end_reason is not None else view.pause_reason,
        "lastSeq": last_seq,
    }


def _remaining(view: SessionView, *, is_lawyer: bool) -> int | None:
    if is_lawyer and view.remaining_s > LAWYER_SEES_REMAINING_FROM_S:
        return None
    return view.remaining_s


def _paid_until_ms(view: SessionView, *, is_lawyer: bool) -> int | None:
    if is_lawyer and (view.paid_ahead_s is None or view.paid_ahead_s > LAWYER_SEES_REMAINING_FROM_S):
        return None
    return view.paid_until_ms
