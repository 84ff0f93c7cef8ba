"""A payer's payments: the order to pay, and what became of it (SPEC 3, 11)."""

from typing import Annotated, Final

from billing_engine.money import ASSETS, format_minor
from billing_engine.payments.errors import PaymentNotFound
from billing_engine.payments.model import Payment, PaymentStatus, Purpose
from server.auth.model import Role
from server.routing import Call, Route, only
from server.wire import Instant, MoneyOut, Page, PageQuery, WireModel, encode_cursor, one_of, time_place

#: Collected is not credited: until it is, the payer waits.
PAYMENT_STATUSES: Final = tuple(
    status.value for status in PaymentStatus if status is not PaymentStatus.COLLECTED
)
_PAYABLE: Final = frozenset({PaymentStatus.CREATED, PaymentStatus.PENDING, PaymentStatus.FAILED})


class OrderOut(WireModel):
    """What the payer's client pays: with Razorpay Checkout the order, the key and the amount in `currency`'s smallest unit at the
    gateway; with Stripe the page at `checkoutUrl`.
    """

    gateway: str
    order_id: str
    key_id: str | None
    amount: int
    currency: str
    checkout_url: str | None


class PaymentOut(WireModel):
    """One payment. `order` is there while it can be paid; `failure` is the gateway's reason of the last try that failed."""

    payment_id: str
    purpose: Annotated[str, one_of(purpose.value.upper() for purpose in Purpose)]
    status: Annotated[str, one_of(PAYMENT_STATUSES)]
    amount: MoneyOut
    currency: str
    refunded_amount: MoneyOut
    failure: str | None
    order: OrderOut | None
    created_at: Instant


def status_of(payment: Payment) -> str:
    """As the payer is told."""
    shown = PaymentStatus.PENDING if payment.status is PaymentStatus.COLLECTED else payment.status
    return shown.value


def order_of(payment: Payment) -> OrderOut | None:
    """What there is to pay, while it can be paid."""
    if payment.order_id is None or payment.status not in _PAYABLE:
        return None
    return OrderOut(
        gateway=payment.gateway,
        order_id=payment.order_id,
        key_id=payment.shown.get("keyId"),
        amount=int(payment.shown.get("amount", payment.amount_minor)),
        currency=payment.currency,
        checkout_url=payment.shown.get("checkoutUrl"),
    )


def view_of(payment: Payment) -> PaymentOut:
    """The payment as its payer sees it."""
    asset = ASSETS[payment.currency]
    return PaymentOut(
        payment_id=payment.id,
        purpose=payment.purpose.value.upper(),
        status=status_of(payment),
        amount=format_minor(payment.amount_minor, asset),
        currency=payment.currency,
        refunded_amount=format_minor(payment.refunded_minor, asset),
        failure=payment.failure if payment.status is PaymentStatus.FAILED else None,
        order=order_of(payment),
        created_at=payment.created_at_ms,
    )


async def one(call: Call[None, None]) -> PaymentOut:
    payments = call.services.payments
    return view_of(await payments.own(call.path["payment_id"], payer_id=call.caller.user_id))


async def mine(call: Call[None, PageQuery]) -> Page[PaymentOut]:
    limit = call.query.limit
    found: list[Payment] = await call.services.payments.list_for(
        call.caller.user_id, limit=limit + 1, before=time_place(call.query.cursor)
    )
    shown = found[:limit]
    more = len(found) > limit
    return Page[PaymentOut](
        items=[view_of(payment) for payment in shown],
        next_cursor=encode_cursor(shown[-1].created_at_ms, shown[-1].id) if more else None,
    )


_TAGS: Final = ("payments",)
ROUTES: Final = (
    Route(
        method="GET",
        path="/payments",
        handler=mine,
        summary="My payments, newest first",
        access=only(Role.USER),
        query=PageQuery,
        response=Page[PaymentOut],
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/payments/{payment_id}",
        handler=one,
        summary="What became of a payment",
        access=only(Role.USER),
        response=PaymentOut,
        errors=(PaymentNotFound,),
        tags=_TAGS,
    ),
)
