"""Lawyers ask for their earnings, admins pay them out (SPEC 11)."""

from typing import Annotated, Any, Final, Self

from billing_engine.money import ASSETS, format_minor, parse_minor
from billing_engine.payouts.errors import EarningsTooLow, PayoutDecided, PayoutNotFound, PayoutTooSmall
from billing_engine.payouts.model import Payout, PayoutStatus, Verdict
from billing_engine.payouts.ports import OpenPayouts
from billing_engine.payouts.service import Payouts
from server.auth.model import Role
from server.people.wire import Reason
from server.routing import Audited, Call, Route, only
from server.wire import (
    FromValue,
    Instant,
    MoneyIn,
    MoneyOut,
    Name,
    Page,
    PageQuery,
    WireModel,
    encode_cursor,
    time_place,
)


class PayoutIn(WireModel):
    """How much of the earnings to pay out."""

    amount: MoneyIn


class PaidIn(WireModel):
    """The bank's reference of the payment that was made."""

    reference: Name


class FailedIn(WireModel):
    """Why nothing was paid; the lawyer is told."""

    reason: Reason


class PayoutsQuery(PageQuery):
    """Which payouts; without a status all of them."""

    status: Annotated[PayoutStatus, FromValue] | None = None


class PayoutOut(WireModel):
    """A payout. `reference` is the bank's, once it is PAID; `reason` says why it FAILED."""

    id: str
    amount: MoneyOut
    currency: str
    status: PayoutStatus
    created_at: Instant
    decided_at: Instant | None
    reference: str | None
    reason: str | None

    @classmethod
    def of(cls, payout: Payout, **more: Any) -> Self:
        return cls(
            id=payout.id,
            amount=format_minor(payout.amount_minor, ASSETS[payout.currency]),
            currency=payout.currency,
            status=payout.status,
            created_at=payout.created_at_ms,
            decided_at=payout.decided_at_ms,
            reference=payout.reference,
            reason=payout.reason,
            **more,
        )


class AdminPayoutOut(PayoutOut):
    """A payout, to an admin: whose it is, and who decided."""

    lawyer_id: str
    decided_by: str | None

    @classmethod
    def for_admin(cls, payout: Payout) -> "AdminPayoutOut":
        return cls.of(payout, lawyer_id=payout.lawyer_id, decided_by=payout.decided_by)


class OpenPayoutsOut(WireModel):
    """What is requested and waits for a decision, of all lawyers."""

    amount: MoneyOut
    count: int
    currency: str


class AdminPayoutPage(Page[AdminPayoutOut]):
    """Payouts, and beside them what is open altogether."""

    open: OpenPayoutsOut


def _payouts(call: Call[Any, Any]) -> Payouts:
    payouts: Payouts = call.services.payouts
    return payouts


async def request(call: Call[PayoutIn, None]) -> PayoutOut:
    payouts = _payouts(call)
    payout = await payouts.request(
        lawyer_id=call.caller.user_id,
        amount_minor=parse_minor(call.body.amount, payouts.asset),
        operation_id=call.operation_id,
    )
    return PayoutOut.of(payout)


async def mine(call: Call[None, PageQuery]) -> Page[PayoutOut]:
    limit = call.query.limit
    found = await _payouts(call).list_for(
        call.caller.user_id, limit=limit + 1, before=time_place(call.query.cursor)
    )
    return Page[PayoutOut](
        items=[PayoutOut.of(payout) for payout in found[:limit]], next_cursor=_next(found, limit)
    )


async def queue(call: Call[None, PayoutsQuery]) -> AdminPayoutPage:
    payouts, limit = _payouts(call), call.query.limit
    found = await payouts.queue(call.query.status, limit=limit + 1, after=time_place(call.query.cursor))
    total: OpenPayouts = await payouts.open_total()
    return AdminPayoutPage(
        items=[AdminPayoutOut.for_admin(payout) for payout in found[:limit]],
        next_cursor=_next(found, limit),
        open=OpenPayoutsOut(
            amount=format_minor(total.amount_minor, payouts.asset),
            count=total.count,
            currency=payouts.asset.code,
        ),
    )


async def paid(call: Call[PaidIn, None]) -> AdminPayoutOut:
    verdict = Verdict(PayoutStatus.PAID, call.caller.user_id, reference=call.body.reference)
    return AdminPayoutOut.for_admin(await _payouts(call).decide(call.path["payout_id"], verdict))


async def failed(call: Call[FailedIn, None]) -> AdminPayoutOut:
    verdict = Verdict(PayoutStatus.FAILED, call.caller.user_id, reason=call.body.reason)
    return AdminPayoutOut.for_admin(await _payouts(call).decide(call.path["payout_id"], verdict))


async def standing(call: Call[Any, None]) -> dict[str, Any]:
    """What a decision changes, for the audit log. Raises `PayoutNotFound`."""
    payout = await _payouts(call).get(call.path["payout_id"])
    return {
        "status": payout.status.value,
        "lawyerId": payout.lawyer_id,
        "amount": format_minor(payout.amount_minor, ASSETS[payout.currency]),
        "reference": payout.reference,
    }


def _next(found: list[Payout], limit: int) -> str | None:
    if len(found) <= limit:
        return None
    last = found[limit - 1]
    return encode_cursor(last.created_at_ms, last.id)


_TAGS: Final = ("payouts",)
ROUTES: Final = (
    Route(
        method="POST",
        path="/lawyer/payouts",
        handler=request,
        summary="Ask for earnings to be paid out; they are set aside at once",
        access=only(Role.LAWYER),
        body=PayoutIn,
        response=PayoutOut,
        status=201,
        errors=(PayoutTooSmall, EarningsTooLow),
        idempotent=True,
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/lawyer/payouts",
        handler=mine,
        summary="My payouts, newest first",
        access=only(Role.LAWYER),
        query=PageQuery,
        response=Page[PayoutOut],
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/admin/payouts",
        handler=queue,
        summary="Payouts: requested ones oldest first, others newest first; and what is open altogether",
        access=only(Role.ADMIN),
        query=PayoutsQuery,
        response=AdminPayoutPage,
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/admin/payouts/{payout_id}/paid",
        handler=paid,
        summary="Say that a payout was paid; repeated, the same answer",
        access=only(Role.ADMIN),
        body=PaidIn,
        response=AdminPayoutOut,
        errors=(PayoutNotFound, PayoutDecided),
        idempotent=True,
        audit=Audited("payout.paid", "payout_id", standing),
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/admin/payouts/{payout_id}/failed",
        handler=failed,
        summary="Say that a payout failed: the earnings are given back; repeated, the same answer",
        access=only(Role.ADMIN),
        body=FailedIn,
        response=AdminPayoutOut,
        errors=(PayoutNotFound, PayoutDecided),
        idempotent=True,
        audit=Audited("payout.failed", "payout_id", standing),
        tags=_TAGS,
    ),
)
