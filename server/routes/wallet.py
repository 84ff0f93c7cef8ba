"""The user's wallet (SPEC 3)."""

from typing import Annotated, Any

from pydantic import StringConstraints

from billing_engine.consultations.billing import ENTRY_KIND
from billing_engine.ledger.ports import Line
from billing_engine.money import Asset, format_minor, parse_minor
from billing_engine.payments.errors import (
    AmountOutOfRange,
    GatewayRefused,
    GatewayUnavailable,
    PaymentNotFound,
    SignatureInvalid,
)
from billing_engine.payments.model import Payment
from billing_engine.payments.refund_model import REFUND_PREFIX
from billing_engine.payments.returns import RETURN_KINDS
from billing_engine.refunds.model import REFUND
from billing_engine.wallets.service import RECHARGE, Wallets
from server.auth.model import Role
from server.gateways.simulated import SimulatedGateway
from server.rate_limits.service import Limited, RateLimit
from server.routes.payments import PAYMENT_STATUSES, OrderOut, order_of, status_of
from server.routing import Call, Route, only
from server.wire import (
    Instant,
    MoneyIn,
    MoneyOut,
    Page,
    PageQuery,
    WireModel,
    described,
    encode_cursor,
    one_of,
    time_place,
)

#: An id or a signature of the gateway; what is none is no signature, and no reason to fail.
GatewayText = Annotated[
    str, StringConstraints(min_length=1, max_length=255), described(examples=["pay_29QQoUBi66xm2f"])
]


class RechargeIn(WireModel):
    """How much to add. With `saveMethod` the means of payment is kept for later charges, as the payer has agreed."""

    amount: MoneyIn
    save_method: bool = False


class TransactionOut(WireModel):
    """One row of the wallet. `amount` is positive, `type` says in which direction it went."""

    id: str
    type: Annotated[str, one_of(("CREDIT", "DEBIT"))]
    kind: Annotated[str, one_of(kind.upper() for kind in (RECHARGE, ENTRY_KIND, *RETURN_KINDS, REFUND))]
    amount: MoneyOut
    currency: str
    balance_before: MoneyOut
    balance_after: MoneyOut
    reference_id: str
    status: Annotated[str, one_of(("COMPLETED",))]
    created_at: Instant


class VerifyIn(WireModel):
    """What Razorpay Checkout hands to its `handler`, as it is."""

    razorpay_order_id: GatewayText
    razorpay_payment_id: GatewayText
    razorpay_signature: GatewayText


class RechargeOut(WireModel):
    """A recharge: while it is to be paid, with the `order` for the gateway's checkout; once it is `PAID`, with its transaction and the
    wallet as it was right after.
    """

    payment_id: str
    status: Annotated[str, one_of(PAYMENT_STATUSES)]
    amount: MoneyOut
    currency: str
    order: OrderOut | None
    wallet_balance: MoneyOut | None
    transaction: TransactionOut | None


class BalanceOut(WireModel):
    """`walletBalance` may be spent now; `held` is set aside for a running consultation."""

    wallet_balance: MoneyOut
    held: MoneyOut
    currency: str


async def recharge(call: Call[RechargeIn, None]) -> RechargeOut:
    wallets: Wallets = call.services.wallets
    # The gateway's page knows the payer's address already; the simulated one has no page.
    account = (
        None
        if wallets.gateway == SimulatedGateway.name
        else await call.services.accounts.get(call.caller.user_id)
    )
    payment = await wallets.recharge(
        user_id=call.caller.user_id,
        email="" if account is None else account.email,
        amount_minor=parse_minor(call.body.amount, wallets.asset),
        operation_id=call.operation_id,
        save_method=call.body.save_method,
    )
    return await _recharged(wallets, payment)


async def verify(call: Call[VerifyIn, None]) -> RechargeOut:
    wallets: Wallets = call.services.wallets
    payment = await call.services.payments.verify(
        gateway=wallets.gateway,
        payer_id=call.caller.user_id,
        order_id=call.body.razorpay_order_id,
        attempt_id=call.body.razorpay_payment_id,
        signature=call.body.razorpay_signature,
    )
    return await _recharged(wallets, payment)


async def _recharged(wallets: Wallets, payment: Payment) -> RechargeOut:
    asset = wallets.asset
    # From the entry's own record, so that a repeat answers what the first one did and not the balance of now.
    entry = await wallets.credit_of(payment)
    return RechargeOut(
        payment_id=payment.id,
        status=status_of(payment),
        amount=format_minor(payment.amount_minor, asset),
        currency=asset.code,
        order=order_of(payment),
        wallet_balance=None
        if entry is None
        else format_minor(entry.posted_after - entry.facts["held"], asset),
        transaction=None
        if entry is None
        else _transaction(
            key=entry.key,
            kind=entry.kind,
            change_minor=payment.amount_minor,
            after_minor=entry.posted_after,
            reference=entry.reference,
            at_ms=entry.at_ms,
            asset=asset,
        ),
    )


async def balance(call: Call[None, None]) -> BalanceOut:
    wallets = call.services.wallets
    found = await wallets.balance(call.caller.user_id)
    return BalanceOut(
        wallet_balance=format_minor(found.spendable_minor, wallets.asset),
        held=format_minor(found.held_minor, wallets.asset),
        currency=wallets.asset.code,
    )


async def transactions(call: Call[None, PageQuery]) -> Page[TransactionOut]:
    wallets = call.services.wallets
    limit = call.query.limit
    lines: list[Line] = await wallets.transactions(
        call.caller.user_id, limit=limit + 1, before=time_place(call.query.cursor)
    )
    shown = lines[:limit]
    return Page[TransactionOut](
        items=[
            _transaction(
                key=line.key,
                kind=line.kind,
                change_minor=line.change_minor,
                after_minor=line.balance_after or 0,
                reference=line.reference,
                at_ms=line.at_ms,
                asset=wallets.asset,
            )
            for line in shown
        ],
        next_cursor=encode_cursor(shown[-1].at_ms, shown[-1].key) if len(lines) > limit else None,
    )


def _transaction(
    *, asset: Asset, change_minor: int, after_minor: int, key: str, reference: str, **row: Any
) -> TransactionOut:
    return TransactionOut(
        id=key.partition("|")[2],
        type="CREDIT" if change_minor > 0 else "DEBIT",
        kind=row["kind"].upper(),
        amount=format_minor(abs(change_minor), asset),
        currency=asset.code,
        balance_before=format_minor(after_minor - change_minor, asset),
        balance_after=format_minor(after_minor, asset),
        reference_id=reference.removeprefix("consult:").removeprefix(REFUND_PREFIX),
        status="COMPLETED",
        created_at=row["at_ms"],
    )


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/wallet/recharge",
        handler=recharge,
        summary="Add money to the wallet",
        access=only(Role.USER),
        body=RechargeIn,
        response=RechargeOut,
        status=201,
        errors=(AmountOutOfRange, GatewayRefused, GatewayUnavailable),
        rate=RateLimit(Limited.RECHARGE, account=lambda call: str(call.caller.user_id)),
        idempotent=True,
        tags=("wallet",),
    ),
    Route(
        method="POST",
        path="/wallet/recharge/verify",
        handler=verify,
        summary="The payer has paid: check the gateway's signature, and credit",
        access=only(Role.USER),
        body=VerifyIn,
        response=RechargeOut,
        errors=(PaymentNotFound, SignatureInvalid, GatewayUnavailable),
        rate=RateLimit(Limited.RECHARGE, account=lambda call: str(call.caller.user_id)),
        idempotent=True,
        tags=("wallet",),
    ),
    Route(
        method="GET",
        path="/wallet/balance",
        handler=balance,
        summary="What may be spent now, and what is held",
        access=only(Role.USER),
        response=BalanceOut,
        tags=("wallet",),
    ),
    Route(
        method="GET",
        path="/wallet/transactions",
        handler=transactions,
        summary="The wallet's history, newest first",
        access=only(Role.USER),
        query=PageQuery,
        response=Page[TransactionOut],
        tags=("wallet",),
    ),
)
