"""The admins' payment desk: payments, what goes back to their payers, and what banks dispute (SPEC 11, 14)."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from billing_engine.money import ASSETS, format_minor, parse_minor
from billing_engine.payments.desk_ports import PaymentIndex
from billing_engine.payments.disputes import Disputes
from billing_engine.payments.errors import PaymentNotFound
from billing_engine.payments.model import DisputeStatus, Payment, PaymentStatus, Purpose
from billing_engine.payments.payer_refunds import PayerRefunds, require_amount
from billing_engine.payments.refund_errors import (
    NotRefundable,
    PurchaseNotRefundable,
    RefundAmountInvalid,
    RefundExceedsPayment,
    WalletTooLow,
)
from billing_engine.payments.refund_model import Dispute, PayerRefund, PayerRefundStatus
from server.auth.model import Role
from server.people.wire import Reason
from server.routes.payments import PaymentOut, view_of
from server.routing import Audited, Call, Route, only
from server.wire import (
    FromValue,
    Id,
    Instant,
    MoneyIn,
    MoneyOut,
    Page,
    PageQuery,
    WireModel,
    encode_cursor,
    one_of,
    time_place,
)

#: As the admins are told: what is not known yet, whichever step is missing, is pending; what was refused by us has failed.
_REFUNDS: Final[Mapping[PayerRefundStatus, str]] = {
    PayerRefundStatus.REQUESTED: "PENDING",
    PayerRefundStatus.PENDING: "PENDING",
    PayerRefundStatus.DONE: "DONE",
    PayerRefundStatus.FAILED: "FAILED",
    PayerRefundStatus.REFUSED: "FAILED",
}


class PayerRefundIn(WireModel):
    """How much goes back to the payer, and why."""

    amount: MoneyIn
    reason: Reason


class PayerRefundOut(WireModel):
    """A refund to the payer. `failure` says why it FAILED; `requestedBy` is the admin, null for one that was begun at the gateway."""

    refund_id: str
    payment_id: str
    amount: MoneyOut
    currency: str
    status: Annotated[str, one_of(("PENDING", "DONE", "FAILED"))]
    reason: str
    failure: str | None
    gateway_refund_id: str | None
    requested_by: str | None
    created_at: Instant

    @classmethod
    def of(cls, refund: PayerRefund) -> Self:
        return cls(
            refund_id=refund.id,
            payment_id=refund.payment_id,
            amount=format_minor(refund.amount_minor, ASSETS[refund.currency]),
            currency=refund.currency,
            status=_REFUNDS[refund.status],
            reason=refund.reason,
            failure=refund.failure,
            gateway_refund_id=refund.gateway_id,
            requested_by=refund.by,
            created_at=refund.created_at_ms,
        )


class DisputeOut(WireModel):
    """A dispute. `frozenAmount` is what was taken out of the wallet for it, and is in it again once it is WON; what is missing to
    `amount` is the platform's loss should it be LOST. `gatewayDisputeId` is what the gateway's dashboard calls it.
    """

    dispute_id: str
    gateway_dispute_id: str
    gateway: str
    payment_id: str
    user_id: str
    amount: MoneyOut
    frozen_amount: MoneyOut
    currency: str
    status: DisputeStatus
    reason: str
    created_at: Instant
    decided_at: Instant | None

    @classmethod
    def of(cls, dispute: Dispute) -> Self:
        asset = ASSETS[dispute.currency]
        return cls(
            dispute_id=dispute.id,
            gateway_dispute_id=dispute.dispute_id,
            gateway=dispute.gateway,
            payment_id=dispute.payment_id,
            user_id=dispute.payer_id,
            amount=format_minor(dispute.amount_minor, asset),
            frozen_amount=format_minor(dispute.frozen_minor, asset),
            currency=dispute.currency,
            status=dispute.status,
            reason=dispute.reason,
            created_at=dispute.created_at_ms,
            decided_at=dispute.decided_at_ms,
        )


class AdminPaymentOut(PaymentOut):
    """A payment, to an admin: whose it is, and where. `refundableAmount` is what may still be sent back."""

    user_id: str
    gateway: str
    gateway_payment_id: str | None
    refundable_amount: MoneyOut

    @classmethod
    def for_admin(cls, payment: Payment, **more: Any) -> Self:
        return cls(
            **dict(view_of(payment)),
            user_id=payment.payer_id,
            gateway=payment.gateway,
            gateway_payment_id=payment.collected_id,
            refundable_amount=format_minor(_refundable_minor(payment), ASSETS[payment.currency]),
            **more,
        )


class AdminPaymentDetailOut(AdminPaymentOut):
    """A payment with what went back of it, oldest first."""

    refunds: list[PayerRefundOut]
    disputes: list[DisputeOut]


class PaymentsQuery(PageQuery):
    """Which payments; without any all of them."""

    status: Literal["CREATED", "PENDING", "FAILED", "EXPIRED", "PAID", "REFUNDED"] | None = None
    user_id: Id | None = None


class DisputesQuery(PageQuery):
    """Which disputes; without a status all of them."""

    status: Annotated[DisputeStatus, FromValue] | None = None


def _refundable_minor(payment: Payment) -> int:
    collected = payment.status in (PaymentStatus.PAID, PaymentStatus.REFUNDED)
    return payment.refundable_minor if collected and payment.purpose is not Purpose.CREDITS else 0


def _refunds(call: Call[Any, Any]) -> PayerRefunds:
    refunds: PayerRefunds = call.services.payment_desk.refunds
    return refunds


def _disputes(call: Call[Any, Any]) -> Disputes:
    disputes: Disputes = call.services.payment_desk.disputes
    return disputes


async def _payment(call: Call[Any, Any]) -> Payment:
    payment: Payment = await call.services.payments.own(call.path["payment_id"], payer_id=None)
    return payment


async def payments(call: Call[None, PaymentsQuery]) -> Page[AdminPaymentOut]:
    index: PaymentIndex = call.services.payment_desk.index
    query = call.query
    found = await index.search(
        _statuses(query.status), query.user_id, limit=query.limit + 1, before=time_place(query.cursor)
    )
    shown = found[: query.limit]
    more = len(found) > query.limit
    return Page[AdminPaymentOut](
        items=[AdminPaymentOut.for_admin(payment) for payment in shown],
        next_cursor=encode_cursor(shown[-1].created_at_ms, shown[-1].id) if more else None,
    )


def _statuses(shown: str | None) -> tuple[PaymentStatus, ...]:
    if shown is None:
        return ()
    status = PaymentStatus(shown)
    return (status, PaymentStatus.COLLECTED) if status is PaymentStatus.PENDING else (status,)


async def payment(call: Call[None, None]) -> AdminPaymentDetailOut:
    found = await _payment(call)
    return AdminPaymentDetailOut.for_admin(
        found,
        refunds=[PayerRefundOut.of(refund) for refund in await _refunds(call).of_payment(found.id)],
        disputes=[DisputeOut.of(dispute) for dispute in await _disputes(call).of_payment(found.id)],
    )


async def _refunded(call: Call[PayerRefundIn, None]) -> tuple[Payment, int]:
    """Whose money is to go back, and how much. What is no amount is said even of a payment that there is not."""
    try:
        payment = await _payment(call)
    except PaymentNotFound:
        require_amount(parse_minor(call.body.amount, call.services.asset))
        raise
    return payment, parse_minor(call.body.amount, ASSETS[payment.currency])


async def refund(call: Call[PayerRefundIn, None]) -> PayerRefundOut:
    payment, amount_minor = await _refunded(call)
    made = await _refunds(call).request(
        payment_id=payment.id,
        amount_minor=amount_minor,
        reason=call.body.reason,
        by=call.caller.user_id,
        operation_id=call.operation_id,
    )
    return PayerRefundOut.of(made)


async def standing(call: Call[Any, None]) -> dict[str, Any]:
    """What a refund changes, for the audit log. Raises `PaymentNotFound`."""
    payment, _ = await _refunded(call)
    asset = ASSETS[payment.currency]
    return {
        "status": payment.status.value,
        "userId": payment.payer_id,
        "amount": format_minor(payment.amount_minor, asset),
        "refundedAmount": format_minor(payment.refunded_minor, asset),
    }


async def disputes(call: Call[None, DisputesQuery]) -> Page[DisputeOut]:
    limit = call.query.limit
    found = await _disputes(call).queue(
        call.query.status, limit=limit + 1, after=time_place(call.query.cursor)
    )
    shown = found[:limit]
    more = len(found) > limit
    return Page[DisputeOut](
        items=[DisputeOut.of(dispute) for dispute in shown],
        next_cursor=encode_cursor(shown[-1].created_at_ms, shown[-1].id) if more else None,
    )


_ADMIN: Final = only(Role.ADMIN)
_TAGS: Final = ("payments",)
ROUTES: Final = (
    Route(
        method="GET",
        path="/admin/payments",
        handler=payments,
        summary="Payments of all users and companies, newest first",
        access=_ADMIN,
        query=PaymentsQuery,
        response=Page[AdminPaymentOut],
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/admin/payments/{payment_id}",
        handler=payment,
        summary="One payment with its refunds and disputes",
        access=_ADMIN,
        response=AdminPaymentDetailOut,
        errors=(PaymentNotFound,),
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/admin/payments/{payment_id}/refund",
        handler=refund,
        summary="Send money back to the payer, the way it was paid; never more than is left of the payment",
        access=_ADMIN,
        body=PayerRefundIn,
        response=PayerRefundOut,
        status=201,
        errors=(
            PaymentNotFound,
            RefundAmountInvalid,
            NotRefundable,
            PurchaseNotRefundable,
            RefundExceedsPayment,
            WalletTooLow,
        ),
        idempotent=True,
        audit=Audited("payment.refund", "payment_id", standing),
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/admin/disputes",
        handler=disputes,
        summary="Disputes: open ones oldest first, others newest first",
        access=_ADMIN,
        query=DisputesQuery,
        response=Page[DisputeOut],
        tags=_TAGS,
    ),
)
