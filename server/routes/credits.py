"""Application credits: packages, purchases, balance and history (SPEC 8). snake_case, as the product's document has it."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import Field

from billing_engine.credits.book import TYPES, CreditBalance, CreditType
from billing_engine.credits.errors import PackageNotFound, PurchaseNotAllowed, TooManyUnpaidOrders
from billing_engine.credits.model import ADJUSTED
from billing_engine.credits.purchases import Purchase
from billing_engine.ledger.ports import Line
from billing_engine.money import ASSETS, format_minor
from billing_engine.payments.errors import (
    GatewayRefused,
    GatewayUnavailable,
    PaymentNotFound,
    SignatureInvalid,
)
from billing_engine.payments.model import Payment
from server.auth.model import Role
from server.credits_room import CreditsRoom
from server.gateways.simulated import SimulatedGateway
from server.rate_limits.service import Limited, RateLimit
from server.routes.payments import PAYMENT_STATUSES, order_of, status_of
from server.routes.wallet import GatewayText
from server.routing import Call, Route, only
from server.wire import (
    FromValue,
    Instant,
    MoneyOut,
    NumberedPage,
    PageQuery,
    SnakeModel,
    SnakePage,
    encode_cursor,
    one_of,
    time_place,
)

#: The gateway's words, as this product spells the fields that hold them.
_SPELT: Final[Mapping[str, str]] = {
    "razorpaySignature": "razorpay_signature",
    "razorpayPaymentId": "razorpay_payment_id",
}


class PackageOut(SnakeModel):
    """A package at the price of now."""

    id: int
    name: str
    credits: int
    price: MoneyOut


class PackagesOut(SnakeModel):
    """All packages. Their price is `credits` times `price_per_credit`."""

    items: list[PackageOut]
    price_per_credit: MoneyOut
    currency: str


class BuyIn(SnakeModel):
    """Which package."""

    package_id: Annotated[int, Field(ge=1, le=1_000_000)]


class CreditsPaidIn(SnakeModel):
    """What Razorpay Checkout hands to its `handler`, as it is."""

    razorpay_payment_id: GatewayText
    razorpay_order_id: GatewayText
    razorpay_signature: GatewayText


class PurchaseOut(SnakeModel):
    """A purchase. While `status` is not PAID, `order_id`, `amount` (in the currency's smallest unit) and `key_id` are what Razorpay
    Checkout is opened with, and `credits_balance` is null. Once it is PAID, the credits are there, and `credits_balance` is the
    balance right after them: with the simulated gateway at once, so that there is nothing to pay.
    """

    payment_id: str
    status: Annotated[str, one_of(PAYMENT_STATUSES)]
    order_id: str | None
    amount: int
    currency: str
    key_id: str | None
    checkout_url: str | None
    package: str
    credits: int
    price: MoneyOut
    credits_balance: int | None

    @classmethod
    def of(cls, purchase: Purchase) -> Self:
        payment, entry = purchase.payment, purchase.entry
        order = order_of(payment)
        return cls(
            payment_id=payment.id,
            status=status_of(payment),
            order_id=payment.order_id,
            amount=payment.amount_minor if order is None else order.amount,
            currency=payment.currency,
            key_id=payment.shown.get("keyId"),
            checkout_url=None if order is None else order.checkout_url,
            package=payment.item,
            credits=payment.quantity,
            price=format_minor(payment.amount_minor, ASSETS[payment.currency]),
            credits_balance=None if entry is None else entry.posted_after,
        )


class ReceiptOut(SnakeModel):
    """A purchase with what was paid for it: the receipt, once it is PAID. Until then the order can be taken up again with `order_id`,
    `amount` and `key_id`, as it was told first.
    """

    payment_id: str
    status: Annotated[str, one_of(PAYMENT_STATUSES)]
    package: str
    credits: int
    price_per_credit: MoneyOut
    price: MoneyOut
    currency: str
    gateway: str
    order_id: str | None
    amount: int
    key_id: str | None
    checkout_url: str | None
    gateway_payment_id: str | None
    failure: str | None
    created_at: Instant
    paid_at: Instant | None
    credits_balance: int | None

    @classmethod
    def of(cls, purchase: Purchase) -> Self:
        payment, entry, order = purchase.payment, purchase.entry, order_of(purchase.payment)
        asset = ASSETS[payment.currency]
        return cls(
            payment_id=payment.id,
            status=status_of(payment),
            package=payment.item,
            credits=payment.quantity,
            price_per_credit=format_minor(payment.amount_minor // payment.quantity, asset),
            price=format_minor(payment.amount_minor, asset),
            currency=payment.currency,
            gateway=payment.gateway,
            order_id=payment.order_id,
            amount=payment.amount_minor if order is None else order.amount,
            key_id=payment.shown.get("keyId"),
            checkout_url=None if order is None else order.checkout_url,
            gateway_payment_id=payment.collected_id,
            failure=payment.failure if payment.status.value == "FAILED" else None,
            created_at=payment.created_at_ms,
            paid_at=None if entry is None else entry.at_ms,
            credits_balance=None if entry is None else entry.posted_after,
        )


class PurchaseBriefOut(SnakeModel):
    """A purchase in a list."""

    payment_id: str
    status: Annotated[str, one_of(PAYMENT_STATUSES)]
    package: str
    credits: int
    price: MoneyOut
    currency: str
    created_at: Instant

    @classmethod
    def of(cls, payment: Payment) -> Self:
        return cls(
            payment_id=payment.id,
            status=status_of(payment),
            package=payment.item,
            credits=payment.quantity,
            price=format_minor(payment.amount_minor, ASSETS[payment.currency]),
            currency=payment.currency,
            created_at=payment.created_at_ms,
        )


class CreditBalanceOut(SnakeModel):
    """`credits_balance` is `total_purchased` - `credits_used` + `credits_refunded` + `credits_adjusted`, always."""

    credits_balance: int
    total_purchased: int
    credits_used: int
    credits_refunded: int
    credits_adjusted: int

    @classmethod
    def of(cls, balance: CreditBalance, **more: Any) -> Self:
        return cls(
            credits_balance=balance.balance,
            total_purchased=balance.purchased,
            credits_used=balance.used,
            credits_refunded=balance.refunded,
            credits_adjusted=balance.adjusted,
            **more,
        )


class CreditHistoryQuery(SnakeModel):
    """Which page, from 1 on; with `type` only lines of that kind."""

    page: Annotated[int, Field(ge=1, le=100_000)] = 1
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    type: Annotated[CreditType, FromValue] | None = None


class CreditLineOut(SnakeModel):
    """One change of the balance: `amount` is signed, `balance_after` the balance right after it. `reference` is the payment's, the
    application's or the adjustment's id; `reason` is an admin's.
    """

    id: str
    type: Annotated[str, one_of(CreditType)]
    amount: int
    balance_after: int
    reference: str
    reason: str | None
    date: Instant

    @classmethod
    def of(cls, line: Line) -> Self:
        return cls(
            id=line.key.partition("|")[2],
            type=TYPES[line.kind].value,
            amount=line.change_minor,
            # Every credit entry commits on its own account, so the balance is known at once.
            balance_after=line.balance_after or 0,
            reference=line.reference,
            reason=line.facts["reason"] if line.kind == ADJUSTED else None,
            date=line.at_ms,
        )


def room_of(call: Call[Any, Any]) -> CreditsRoom:
    """The credits room of this process."""
    room: CreditsRoom = call.services.credits
    return room


async def packages(call: Call[None, None]) -> PackagesOut:
    prices = room_of(call).prices
    asset = prices.asset
    # One price for all of the answer, whatever an admin does meanwhile.
    price = await prices.current()
    return PackagesOut(
        items=[
            PackageOut(
                id=offer.package.id,
                name=offer.package.name,
                credits=offer.package.credits,
                price=format_minor(offer.price_minor, asset),
            )
            for offer in prices.offers_at(price)
        ],
        price_per_credit=format_minor(price.price_minor, asset),
        currency=asset.code,
    )


async def buy(call: Call[BuyIn, None]) -> PurchaseOut:
    purchases = room_of(call).purchases
    # The gateway's page knows the payer's address already; the simulated one has no page.
    account = (
        None
        if purchases.gateway == SimulatedGateway.name
        else await call.services.accounts.get(call.caller.user_id)
    )
    purchase = await purchases.initiate(
        user_id=call.caller.user_id,
        email="" if account is None else account.email,
        package_id=call.body.package_id,
        operation_id=call.operation_id,
    )
    return PurchaseOut.of(purchase)


async def verify(call: Call[CreditsPaidIn, None]) -> PurchaseOut:
    try:
        purchase = await room_of(call).purchases.verify(
            user_id=call.caller.user_id,
            order_id=call.body.razorpay_order_id,
            attempt_id=call.body.razorpay_payment_id,
            signature=call.body.razorpay_signature,
        )
    except SignatureInvalid as wrong:
        field = str(wrong.facts.get("field"))
        raise SignatureInvalid(**wrong.facts | {"field": _SPELT.get(field, field)}) from wrong
    return PurchaseOut.of(purchase)


async def receipt(call: Call[None, None]) -> ReceiptOut:
    purchase = await room_of(call).purchases.purchase(call.path["payment_id"], user_id=call.caller.user_id)
    return ReceiptOut.of(purchase)


async def purchases(call: Call[None, PageQuery]) -> SnakePage[PurchaseBriefOut]:
    limit = call.query.limit
    found = await room_of(call).purchases.list_for(
        call.caller.user_id, limit=limit + 1, before=time_place(call.query.cursor)
    )
    shown = found[:limit]
    more = len(found) > limit
    return SnakePage[PurchaseBriefOut](
        items=[PurchaseBriefOut.of(payment) for payment in shown],
        next_cursor=encode_cursor(shown[-1].created_at_ms, shown[-1].id) if more else None,
    )


async def balance(call: Call[None, None]) -> CreditBalanceOut:
    return CreditBalanceOut.of(await room_of(call).book.balance(call.caller.user_id))


async def history(call: Call[None, CreditHistoryQuery]) -> NumberedPage[CreditLineOut]:
    query = call.query
    lines, total = await room_of(call).book.history(
        call.caller.user_id, page=query.page, limit=query.limit, type_=query.type
    )
    return NumberedPage[CreditLineOut](
        items=[CreditLineOut.of(line) for line in lines], page=query.page, limit=query.limit, total=total
    )


_FREELANCER: Final = only(Role.FREELANCER)
_TAGS: Final = ("credits",)
_RATE: Final = RateLimit(Limited.RECHARGE, account=lambda call: str(call.caller.user_id))
ROUTES: Final = (
    Route(
        method="GET",
        path="/credits/packages",
        handler=packages,
        summary="The packages of credits at the price of now",
        access=_FREELANCER,
        response=PackagesOut,
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/credits/initiate-purchase",
        handler=buy,
        summary="Order a package; the order keeps its price",
        access=_FREELANCER,
        body=BuyIn,
        response=PurchaseOut,
        status=201,
        errors=(
            PackageNotFound,
            PurchaseNotAllowed,
            TooManyUnpaidOrders,
            GatewayRefused,
            GatewayUnavailable,
        ),
        rate=_RATE,
        idempotent=True,
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/credits/verify-payment",
        handler=verify,
        summary="The order was paid: check the gateway's signature, and add the credits once",
        access=_FREELANCER,
        body=CreditsPaidIn,
        response=PurchaseOut,
        errors=(PaymentNotFound, SignatureInvalid, GatewayUnavailable),
        rate=_RATE,
        idempotent=True,
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/credits/purchases",
        handler=purchases,
        summary="My purchases, newest first",
        access=_FREELANCER,
        query=PageQuery,
        response=SnakePage[PurchaseBriefOut],
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/credits/purchases/{payment_id}",
        handler=receipt,
        summary="The receipt of a purchase, or what has become of it so far",
        access=_FREELANCER,
        response=ReceiptOut,
        errors=(PaymentNotFound,),
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/credits/balance",
        handler=balance,
        summary="My credits, and how they came and went",
        access=_FREELANCER,
        response=CreditBalanceOut,
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/credits/history",
        handler=history,
        summary="Every change of the balance, newest first",
        access=_FREELANCER,
        query=CreditHistoryQuery,
        response=NumberedPage[CreditLineOut],
        tags=_TAGS,
    ),
)
