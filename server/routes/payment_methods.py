"""A payer's saved means of payment (SPEC 14). The gateway has them; here are its ids and what people call them."""

from typing import Annotated, Final, Literal

from billing_engine.payments.errors import (
    GatewayRefused,
    GatewayUnavailable,
    NotSupported,
    PaymentMethodNotFound,
)
from billing_engine.payments.method_records import PaymentMethod
from billing_engine.payments.methods import PaymentMethods
from server.auth.model import Role
from server.gateways.simulated import SimulatedGateway
from server.rate_limits.service import Limited, RateLimit
from server.routing import Call, Route, only
from server.wire import Instant, Page, PageQuery, WireModel, encode_cursor, one_of, time_place


class PaymentMethodOut(WireModel):
    """A saved means of payment. `label` is for people."""

    payment_method_id: str
    gateway: str
    label: str
    created_at: Instant


class SetupOut(WireModel):
    """`PENDING`: the payer leaves the means of payment at `checkoutUrl`; then it is among the saved ones. `SAVED`: it is there."""

    setup_id: str
    gateway: str
    status: Annotated[str, one_of(("PENDING", "SAVED"))]
    checkout_url: str | None
    payment_method_id: str | None


class PaymentMethodDeletedOut(WireModel):
    """It cannot be charged any more."""

    deleted: Literal[True] = True


def _view(method: PaymentMethod) -> PaymentMethodOut:
    return PaymentMethodOut(
        payment_method_id=method.id,
        gateway=method.gateway,
        label=method.label,
        created_at=method.created_at_ms,
    )


async def page_for(call: Call[None, PageQuery], payer_id: str) -> Page[PaymentMethodOut]:
    """One page of a payer's."""
    methods: PaymentMethods = call.services.payment_methods
    limit = call.query.limit
    found = await methods.list_for(payer_id, limit=limit + 1, before=time_place(call.query.cursor))
    shown = found[:limit]
    more = len(found) > limit
    return Page[PaymentMethodOut](
        items=[_view(method) for method in shown],
        next_cursor=encode_cursor(shown[-1].created_at_ms, shown[-1].id) if more else None,
    )


async def set_up_for(call: Call[None, None], payer_id: str, *, gateway: str, currency: str) -> SetupOut:
    """A page of the gateway's, once per request."""
    account = None if gateway == SimulatedGateway.name else await call.services.accounts.get(payer_id)
    wish = await call.services.payment_methods.setup(
        payer_id=payer_id,
        email="" if account is None else account.email,
        gateway=gateway,
        currency=currency,
        operation_id=call.operation_id,
    )
    return SetupOut(
        setup_id=wish.id,
        gateway=wish.gateway,
        status="PENDING" if wish.method_id is None else "SAVED",
        checkout_url=wish.shown.get("checkoutUrl") if wish.method_id is None else None,
        payment_method_id=wish.method_id,
    )


async def mine(call: Call[None, PageQuery]) -> Page[PaymentMethodOut]:
    return await page_for(call, call.caller.user_id)


async def setup(call: Call[None, None]) -> SetupOut:
    wallets = call.services.wallets
    return await set_up_for(call, call.caller.user_id, gateway=wallets.gateway, currency=wallets.asset.code)


async def forget(call: Call[None, None]) -> PaymentMethodDeletedOut:
    await call.services.payment_methods.forget(call.path["payment_method_id"], payer_id=call.caller.user_id)
    return PaymentMethodDeletedOut()


_TAGS: Final = ("payments",)
ROUTES: Final = (
    Route(
        method="GET",
        path="/payment-methods",
        handler=mine,
        summary="My saved means of payment, newest first",
        access=only(Role.USER),
        query=PageQuery,
        response=Page[PaymentMethodOut],
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/payment-methods/setup",
        handler=setup,
        summary="Save a means of payment without paying",
        access=only(Role.USER),
        response=SetupOut,
        status=201,
        errors=(NotSupported, GatewayRefused, GatewayUnavailable),
        rate=RateLimit(Limited.RECHARGE, account=lambda call: str(call.caller.user_id)),
        idempotent=True,
        tags=_TAGS,
    ),
    Route(
        method="DELETE",
        path="/payment-methods/{payment_method_id}",
        handler=forget,
        summary="Delete a saved means of payment; repeated, the same answer",
        access=only(Role.USER),
        response=PaymentMethodDeletedOut,
        errors=(PaymentMethodNotFound,),
        tags=_TAGS,
    ),
)
