"""Consultations (SPEC 5)."""

from typing import Annotated, Any

from pydantic import Field, RootModel

from billing_engine.consultations.errors import (
    InsufficientBalance,
    LawyerBusy,
    LawyerNotFound,
    LawyerNotVerified,
    LawyerOffline,
    MaxAmountTooSmall,
    SessionNotFound,
    StartAborted,
    UserBusy,
)
from billing_engine.consultations.model import SessionView
from billing_engine.money import ASSETS, format_minor, parse_minor
from server.auth.model import Role
from server.rate_limits.service import Limited, RateLimit
from server.routing import Audited, Call, Route, only
from server.session_views import MessageBrief, SessionOut, session_out, timeline_out
from server.wire import Id, MoneyIn, MoneyOut, Page, PageQuery, WireModel, encode_cursor, time_place

PARTIES = only(Role.USER, Role.LAWYER)
PARTIES_AND_ADMIN = only(Role.USER, Role.LAWYER, Role.ADMIN)


class StartIn(WireModel):
    """Whom to consult, and the most that it may cost."""

    lawyer_id: Id
    max_amount: MoneyIn | None = None


class QuoteQuery(WireModel):
    """For which lawyer."""

    lawyer_id: Annotated[Id, Field(description="The lawyer's id.")]


class QuoteOut(WireModel):
    """How long the wallet lasts with this lawyer at today's rate."""

    lawyer_id: str
    rate_per_minute: MoneyOut
    currency: str
    wallet_balance: MoneyOut
    affordable_seconds: int
    required_balance: MoneyOut
    can_start: bool


class ActiveOut(RootModel[SessionOut | None]):
    """The running session, or null."""


async def start(call: Call[StartIn, None]) -> SessionOut:
    services = call.services
    most = call.body.max_amount
    view = await services.consultations.start(
        user_id=call.caller.user_id,
        lawyer_id=call.body.lawyer_id,
        operation_id=call.operation_id,
        max_minor=None if most is None else parse_minor(most, services.asset, field="maxAmount"),
    )
    return session_out(view, call.caller.user_id)


async def end(call: Call[None, None]) -> SessionOut:
    view = await call.services.consultations.end(
        call.path["session_id"], caller_id=call.caller.user_id, is_admin=call.caller.role is Role.ADMIN
    )
    return session_out(view, call.caller.user_id)


async def outcome(call: Call[None, None]) -> dict[str, Any]:
    """What an end changes, for the audit log. Raises `SessionNotFound`."""
    view = await call.services.consultations.get(
        call.path["session_id"], caller_id=call.caller.user_id, is_admin=True
    )
    session = view.session
    return {
        "status": view.status.value,
        "endReason": None if session.end_reason is None else session.end_reason.value,
        "totalAmount": format_minor(view.total_minor, ASSETS[session.currency]),
        "userId": session.user_id,
        "lawyerId": session.lawyer_id,
    }


async def get(call: Call[None, None]) -> SessionOut:
    consultations = call.services.consultations
    session_id = call.path["session_id"]
    view = await consultations.get(
        session_id, caller_id=call.caller.user_id, is_admin=call.caller.role is Role.ADMIN
    )
    timeline = timeline_out(await consultations.timeline(session_id))
    given_back = await _refunded(call, [view])
    return session_out(view, call.caller.user_id, timeline=timeline, refunded_amount=given_back[session_id])


async def active(call: Call[None, None]) -> ActiveOut:
    view = await call.services.consultations.active_of(call.caller.user_id)
    return ActiveOut(None if view is None else session_out(view, call.caller.user_id))


async def mine(call: Call[None, PageQuery]) -> Page[SessionOut]:
    caller_id, limit = call.caller.user_id, call.query.limit
    views = await call.services.consultations.list_for(
        caller_id, limit=limit + 1, before=time_place(call.query.cursor)
    )
    shown = views[:limit]
    overviews = await call.services.chat.overview(caller_id, [view.session.id for view in shown])
    given_back = await _refunded(call, shown)
    last = shown[-1].session if len(views) > limit else None
    return Page[SessionOut](
        items=[
            session_out(
                view,
                caller_id,
                refunded_amount=given_back[view.session.id],
                **_overview(overviews.get(view.session.id)),
            )
            for view in shown
        ],
        next_cursor=encode_cursor(last.created_at_ms, last.id) if last is not None else None,
    )


async def quote(call: Call[None, QuoteQuery]) -> QuoteOut:
    services = call.services
    found = await services.consultations.quote(user_id=call.caller.user_id, lawyer_id=call.query.lawyer_id)
    return QuoteOut(
        lawyer_id=found.lawyer_id,
        rate_per_minute=format_minor(found.rate_minor_per_min, services.asset),
        currency=found.currency,
        wallet_balance=format_minor(found.wallet_minor, services.asset),
        affordable_seconds=found.affordable_s,
        required_balance=format_minor(found.min_needed_minor, services.asset),
        can_start=found.can_start,
    )


async def _refunded(call: Call[Any, Any], views: list[SessionView]) -> dict[str, str]:
    """What was given back of each of these sessions."""
    books = await call.services.refunds.books([view.session.id for view in views])
    return {
        view.session.id: format_minor(
            books[view.session.id].refunded_minor if view.session.id in books else 0,
            ASSETS[view.session.currency],
        )
        for view in views
    }


def _overview(overview: Any) -> dict[str, Any]:
    if overview is None:
        return {"unread_count": 0}
    last = overview.last_message
    return {
        "unread_count": overview.unread,
        "last_message": None
        if last is None
        else MessageBrief(
            seq=last.seq,
            sender_id=last.sender_id,
            body=last.body,
            created_at=last.created_at_ms,
            erased_at=last.erased_at_ms,
        ),
    }


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/consult/start",
        handler=start,
        summary="Start a paid consultation",
        access=only(Role.USER),
        body=StartIn,
        response=SessionOut,
        status=201,
        errors=(
            LawyerNotFound,
            MaxAmountTooSmall,
            InsufficientBalance,
            LawyerNotVerified,
            LawyerOffline,
            UserBusy,
            LawyerBusy,
            StartAborted,
        ),
        rate=RateLimit(Limited.START, account=lambda call: str(call.caller.user_id)),
        idempotent=True,
        tags=("consultations",),
    ),
    Route(
        method="GET",
        path="/consult/quote",
        handler=quote,
        summary="How long the wallet lasts with a lawyer",
        access=only(Role.USER),
        query=QuoteQuery,
        response=QuoteOut,
        errors=(LawyerNotFound,),
        tags=("consultations",),
    ),
    Route(
        method="GET",
        path="/consult/active",
        handler=active,
        summary="The caller's running consultation, or null",
        access=PARTIES,
        response=ActiveOut,
        tags=("consultations",),
    ),
    Route(
        method="GET",
        path="/consult",
        handler=mine,
        summary="The caller's consultations, newest first",
        access=PARTIES,
        query=PageQuery,
        response=Page[SessionOut],
        tags=("consultations",),
    ),
    Route(
        method="GET",
        path="/consult/{session_id}",
        handler=get,
        summary="One consultation with its timeline",
        access=PARTIES_AND_ADMIN,
        response=SessionOut,
        errors=(SessionNotFound,),
        tags=("consultations",),
    ),
    Route(
        method="POST",
        path="/consult/{session_id}/end",
        handler=end,
        summary="End a consultation; repeated, the same answer",
        access=PARTIES_AND_ADMIN,
        response=SessionOut,
        errors=(SessionNotFound,),
        idempotent=True,
        audit=Audited("session.end", "session_id", outcome),
        tags=("consultations",),
    ),
)
