"""A company's saved means of payment: what its automatic recharges are charged to (SPEC 9, 14)."""

from typing import Final

from billing_engine.payments.errors import (
    GatewayRefused,
    GatewayUnavailable,
    NotSupported,
    PaymentMethodNotFound,
)
from server.auth.model import CompanyRight
from server.rate_limits.service import Limited, RateLimit
from server.routes.company_calls import company_of
from server.routes.payment_methods import (
    PaymentMethodDeletedOut,
    PaymentMethodOut,
    SetupOut,
    page_for,
    set_up_for,
)
from server.routing import Call, Route, company
from server.wire import Page, PageQuery


async def mine(call: Call[None, PageQuery]) -> Page[PaymentMethodOut]:
    return await page_for(call, company_of(call))


async def setup(call: Call[None, None]) -> SetupOut:
    room = call.services.usage
    return await set_up_for(
        call, company_of(call), gateway=room.recharges.rules.gateway, currency=room.asset.code
    )


async def forget(call: Call[None, None]) -> PaymentMethodDeletedOut:
    await call.services.payment_methods.forget(call.path["payment_method_id"], payer_id=company_of(call))
    return PaymentMethodDeletedOut()


_TAGS: Final = ("billing",)
ROUTES: Final = (
    Route(
        method="GET",
        path="/api/billing/payment-methods",
        handler=mine,
        summary="The company's saved means of payment, newest first",
        access=company(CompanyRight.READ),
        query=PageQuery,
        response=Page[PaymentMethodOut],
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/api/billing/payment-methods/setup",
        handler=setup,
        summary="Save a means of payment without paying",
        access=company(CompanyRight.MANAGE),
        response=SetupOut,
        status=201,
        errors=(NotSupported, GatewayRefused, GatewayUnavailable),
        rate=RateLimit(Limited.RECHARGE, account=company_of),
        idempotent=True,
        tags=_TAGS,
    ),
    Route(
        method="DELETE",
        path="/api/billing/payment-methods/{payment_method_id}",
        handler=forget,
        summary="Delete a saved means of payment; repeated, the same answer",
        access=company(CompanyRight.MANAGE),
        response=PaymentMethodDeletedOut,
        errors=(PaymentMethodNotFound,),
        tags=_TAGS,
    ),
)
