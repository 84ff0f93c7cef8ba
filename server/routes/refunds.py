"""Money of a consultation back to its user's wallet, and the users' requests for it (SPEC 11, 14)."""

from typing import Annotated, Any, Final, Self

from billing_engine.consultations.errors import SessionNotEnded, SessionNotFound
from billing_engine.money import ASSETS, format_minor, parse_minor
from billing_engine.refunds.errors import (
    RefundAmountInvalid,
    RefundRequestDecided,
    RefundRequestNotFound,
    RefundRequestOpen,
    RefundTooLarge,
)
from billing_engine.refunds.model import Decision, RefundBook, RefundRequest, RequestStatus
from billing_engine.refunds.service import Refunds, require_positive
from server.auth.model import Role
from server.people.wire import Reason
from server.routes.consult import outcome
from server.routing import Audited, Call, Route, only
from server.wire import (
    FromValue,
    Instant,
    MoneyIn,
    MoneyOut,
    Page,
    PageQuery,
    WireModel,
    encode_cursor,
    time_place,
)


class RefundIn(WireModel):
    """How much of what the consultation cost, and why; the user is told."""

    amount: MoneyIn
    reason: Reason


class RefundRequestIn(WireModel):
    """Why, and how much; without an amount all that can still be given back."""

    reason: Reason
    amount: MoneyIn | None = None


class ApproveIn(WireModel):
    """Another amount, or another reason, than the request's own."""

    amount: MoneyIn | None = None
    reason: Reason | None = None


class RejectIn(WireModel):
    """Why not; the user is told."""

    reason: Reason


class RefundRequestsQuery(PageQuery):
    """Which requests; without a status all of them."""

    status: Annotated[RequestStatus, FromValue] | None = None


class RefundOut(WireModel):
    """A refund: who pays which share of it, and what had been given back of the consultation's price right after."""

    id: str
    session_id: str
    amount: MoneyOut
    lawyer_share: MoneyOut
    commission_share: MoneyOut
    currency: str
    reason: str
    total_amount: MoneyOut
    refunded_amount: MoneyOut
    created_at: Instant

    @classmethod
    def of(cls, book: RefundBook, decision: Decision) -> "RefundOut":
        asset = ASSETS[book.currency]
        return cls(
            id=decision.id,
            session_id=book.session_id,
            amount=format_minor(decision.amount_minor, asset),
            lawyer_share=format_minor(decision.net_minor, asset),
            commission_share=format_minor(decision.commission_minor, asset),
            currency=book.currency,
            reason=decision.reason,
            total_amount=format_minor(book.gross_minor, asset),
            refunded_amount=format_minor(book.refunded_up_to(decision), asset),
            created_at=decision.at_ms,
        )


class RefundRequestOut(WireModel):
    """A request. `amount` is what was asked for, null for all. Once it is decided, `refunded` is what was given back, and `answer`
    says why.
    """

    id: str
    session_id: str
    lawyer_id: str
    amount: MoneyOut | None
    currency: str
    reason: str
    status: RequestStatus
    created_at: Instant
    decided_at: Instant | None
    answer: str | None
    refunded: MoneyOut

    @classmethod
    def of(cls, request: RefundRequest, **more: Any) -> Self:
        asset = ASSETS[request.currency]
        return cls(
            id=request.id,
            session_id=request.session_id,
            lawyer_id=request.lawyer_id,
            amount=None if request.amount_minor is None else format_minor(request.amount_minor, asset),
            currency=request.currency,
            reason=request.reason,
            status=request.status,
            created_at=request.created_at_ms,
            decided_at=request.decided_at_ms,
            answer=request.answer,
            refunded=format_minor(request.refunded_minor, asset),
            **more,
        )


class AdminRefundRequestOut(RefundRequestOut):
    """A request, to an admin: whose it is, and who decided."""

    user_id: str
    decided_by: str | None

    @classmethod
    def for_admin(cls, request: RefundRequest) -> "AdminRefundRequestOut":
        return cls.of(request, user_id=request.user_id, decided_by=request.decided_by)


def _refunds(call: Call[Any, Any]) -> Refunds:
    refunds: Refunds = call.services.refunds
    return refunds


def _minor(call: Call[Any, Any]) -> int | None:
    """The body's amount, if it has one. What is written down of an admin's act begins with it: an amount that is none is said before
    anything is looked for.
    """
    amount = getattr(call.body, "amount", None)
    if amount is None:
        return None
    amount_minor = parse_minor(amount, call.services.asset)
    require_positive(amount_minor)
    return amount_minor


async def refund(call: Call[RefundIn, None]) -> RefundOut:
    book, decision = await _refunds(call).refund(
        call.path["session_id"],
        amount_minor=parse_minor(call.body.amount, call.services.asset),
        reason=call.body.reason,
        by=call.caller.user_id,
        operation_id=call.operation_id,
    )
    return RefundOut.of(book, decision)


async def ask(call: Call[RefundRequestIn, None]) -> RefundRequestOut:
    request = await _refunds(call).ask(
        call.path["session_id"],
        user_id=call.caller.user_id,
        amount_minor=_minor(call),
        reason=call.body.reason,
        operation_id=call.operation_id,
    )
    return RefundRequestOut.of(request)


async def mine(call: Call[None, PageQuery]) -> Page[RefundRequestOut]:
    limit = call.query.limit
    found = await _refunds(call).list_for(
        call.caller.user_id, limit=limit + 1, before=time_place(call.query.cursor)
    )
    return Page[RefundRequestOut](
        items=[RefundRequestOut.of(request) for request in found[:limit]], next_cursor=_next(found, limit)
    )


async def queue(call: Call[None, RefundRequestsQuery]) -> Page[AdminRefundRequestOut]:
    limit = call.query.limit
    found = await _refunds(call).queue(
        call.query.status, limit=limit + 1, after=time_place(call.query.cursor)
    )
    return Page[AdminRefundRequestOut](
        items=[AdminRefundRequestOut.for_admin(request) for request in found[:limit]],
        next_cursor=_next(found, limit),
    )


async def approve(call: Call[ApproveIn, None]) -> AdminRefundRequestOut:
    request = await _refunds(call).approve(
        call.path["request_id"], amount_minor=_minor(call), reason=call.body.reason, by=call.caller.user_id
    )
    return AdminRefundRequestOut.for_admin(request)


async def reject(call: Call[RejectIn, None]) -> AdminRefundRequestOut:
    request = await _refunds(call).reject(
        call.path["request_id"], reason=call.body.reason, by=call.caller.user_id
    )
    return AdminRefundRequestOut.for_admin(request)


async def refunded(call: Call[Any, None]) -> dict[str, Any]:
    """What a refund changes, for the audit log. Raises `SessionNotFound`."""
    _minor(call)
    session_id = call.path["session_id"]
    facts = await outcome(call)
    book = (await _refunds(call).books([session_id])).get(session_id)
    given_back_minor = 0 if book is None else book.refunded_minor
    return {**facts, "refundedAmount": format_minor(given_back_minor, call.services.asset)}


async def standing(call: Call[Any, None]) -> dict[str, Any]:
    """What a decision changes, for the audit log. Raises `RefundRequestNotFound`."""
    _minor(call)
    request = await _refunds(call).request(call.path["request_id"])
    asset = ASSETS[request.currency]
    return {
        "status": request.status.value,
        "sessionId": request.session_id,
        "userId": request.user_id,
        "amount": None if request.amount_minor is None else format_minor(request.amount_minor, asset),
        "refunded": format_minor(request.refunded_minor, asset),
    }


def _next(found: list[RefundRequest], limit: int) -> str | None:
    if len(found) <= limit:
        return None
    last = found[limit - 1]
    return encode_cursor(last.created_at_ms, last.id)


_TAGS: Final = ("refunds",)
ROUTES: Final = (
    Route(
        method="POST",
        path="/admin/consult/{session_id}/refund",
        handler=refund,
        summary="Give an ended consultation's price back to the user's wallet, whole or in part",
        access=only(Role.ADMIN),
        body=RefundIn,
        response=RefundOut,
        status=201,
        errors=(RefundAmountInvalid, SessionNotFound, SessionNotEnded, RefundTooLarge),
        idempotent=True,
        audit=Audited("session.refund", "session_id", refunded),
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/consult/{session_id}/refund-request",
        handler=ask,
        summary="Ask for an ended consultation's price back; one open request a consultation",
        access=only(Role.USER),
        body=RefundRequestIn,
        response=RefundRequestOut,
        status=201,
        errors=(RefundAmountInvalid, SessionNotFound, SessionNotEnded, RefundTooLarge, RefundRequestOpen),
        idempotent=True,
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/refund-requests",
        handler=mine,
        summary="My refund requests, newest first",
        access=only(Role.USER),
        query=PageQuery,
        response=Page[RefundRequestOut],
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/admin/refund-requests",
        handler=queue,
        summary="Refund requests: open ones oldest first, others newest first",
        access=only(Role.ADMIN),
        query=RefundRequestsQuery,
        response=Page[AdminRefundRequestOut],
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/admin/refund-requests/{request_id}/approve",
        handler=approve,
        summary="Give back what a request asks for, or another amount; repeated, the same answer",
        access=only(Role.ADMIN),
        body=ApproveIn,
        response=AdminRefundRequestOut,
        errors=(RefundAmountInvalid, RefundRequestNotFound, RefundRequestDecided, RefundTooLarge),
        idempotent=True,
        audit=Audited("refund_request.approve", "request_id", standing),
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/admin/refund-requests/{request_id}/reject",
        handler=reject,
        summary="Turn a request down; repeated, the same answer",
        access=only(Role.ADMIN),
        body=RejectIn,
        response=AdminRefundRequestOut,
        errors=(RefundRequestNotFound, RefundRequestDecided),
        idempotent=True,
        audit=Audited("refund_request.reject", "request_id", standing),
        tags=_TAGS,
    ),
)
