"""Subscriptions, their credits, and what they were used for (SPEC 10)."""

import csv
import io
from collections.abc import AsyncIterator
from typing import Any, Final, Literal

from billing_engine.payments.errors import GatewayRefused, GatewayUnavailable
from billing_engine.subscriptions.errors import (
    AlreadySubscribed,
    CycleOver,
    NotSubscribed,
    NoUpgrade,
    TierUnknown,
)
from server.ai_room import AiRoom
from server.ai_wire import (
    CallOut,
    CancelIn,
    CreditsOut,
    PreviewQuery,
    SubscriptionOut,
    TierIn,
    TierOut,
    TiersOut,
    UpgradeIn,
    UpgradeOut,
    UpgradeQuoteOut,
)
from server.auth.model import Role
from server.csv_cells import plain
from server.rate_limits.service import Limited, RateLimit
from server.routes.payments import order_of, status_of
from server.routing import SIGNED_IN, Call, Route, Stream, only
from server.wire import Page, PageQuery, decode_cursor, encode_cursor, rfc3339


def _room(call: Call[Any, Any]) -> AiRoom:
    room: AiRoom = call.services.ai
    return room


async def _email(call: Call[Any, Any]) -> str:
    account = await call.services.accounts.get(call.caller.user_id)
    return str(account.email)


async def tiers(call: Call[None, None]) -> TiersOut:
    room = _room(call)
    return TiersOut(items=[TierOut.of(tier, room.asset) for tier in room.plans.tiers])


async def checkout(call: Call[TierIn, None]) -> SubscriptionOut:
    known = await _room(call).plans.checkout(
        user_id=call.caller.user_id,
        email=await _email(call),
        tier=call.body.tier,
        operation_id=call.operation_id,
    )
    return SubscriptionOut.of(known)


async def cancel(call: Call[CancelIn, None]) -> SubscriptionOut:
    known = await _room(call).plans.cancel(call.caller.user_id, cancels=call.body.cancel)
    return SubscriptionOut.of(known)


async def downgrade(call: Call[TierIn, None]) -> SubscriptionOut:
    known = await _room(call).plans.downgrade(
        call.caller.user_id, call.body.tier, operation_id=call.operation_id
    )
    return SubscriptionOut.of(known)


async def credits_of_mine(call: Call[None, None]) -> CreditsOut:
    room = _room(call)
    return CreditsOut.of(await room.plans.view(call.caller.user_id), room.asset)


async def preview(call: Call[None, PreviewQuery]) -> UpgradeQuoteOut:
    room = _room(call)
    quoted = await room.plans.preview(call.caller.user_id, call.query.tier, resets=call.query.reset_cycle)
    return UpgradeQuoteOut.of(quoted, room.asset)


async def upgrade(call: Call[UpgradeIn, None]) -> UpgradeOut:
    room = _room(call)
    payment, quoted = await room.plans.upgrade(
        user_id=call.caller.user_id,
        email=await _email(call),
        tier=call.body.tier,
        resets=call.body.reset_cycle,
        operation_id=call.operation_id,
    )
    order = order_of(payment)
    return UpgradeOut(
        payment_id=payment.id,
        status=status_of(payment),
        checkout_url=None if order is None else order.checkout_url,
        quote=UpgradeQuoteOut.of(quoted, room.asset),
        order=order,
    )


class UsageQuery(PageQuery):
    """As CSV it is the whole log, newest first."""

    format: Literal["json", "csv"] = "json"


async def usage(call: Call[None, UsageQuery]) -> Page[CallOut] | Stream:
    room, query = _room(call), call.query
    user_id = call.caller.user_id
    if query.format == "csv":
        saved_as = {"Content-Disposition": 'attachment; filename="ai-calls.csv"'}
        return Stream(_csv(room, user_id), "text/csv; charset=utf-8", saved_as)
    before = None if query.cursor is None else str(decode_cursor(query.cursor, str)[0])
    found = await room.rows.list_for(user_id, limit=query.limit + 1, before=before)
    shown = found[: query.limit]
    return Page[CallOut](
        items=[CallOut.of(row, room.asset) for row in shown],
        next_cursor=encode_cursor(shown[-1].id) if len(found) > query.limit else None,
    )


_COLUMNS: Final = (
    *("startedAt", "callId", "provider", "model", "tier", "inputTokens", "outputTokens", "cost"),
    *("credits", "latencyMs", "outcome"),
)
_CSV_ROWS: Final = 500


async def _csv(room: AiRoom, user_id: str) -> AsyncIterator[bytes]:
    yield _rows([_COLUMNS])
    before: str | None = None
    while found := await room.rows.list_for(user_id, limit=_CSV_ROWS, before=before):
        before = found[-1].id
        yield _rows(
            [
                (
                    *(rfc3339(one.started_at), one.call_id, one.provider, plain(one.model), one.tier),
                    *(str(one.input_tokens), str(one.output_tokens), one.cost, one.credits),
                    *(str(one.latency_ms), one.outcome),
                )
                for one in (CallOut.of(row, room.asset) for row in found)
            ]
        )


def _rows(rows: list[tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


_MINE: Final = only(Role.USER)
_TAGS: Final = ("subscriptions",)
_RATE: Final = RateLimit(Limited.RECHARGE, account=lambda call: str(call.caller.user_id))
ROUTES: Final = (
    Route(
        method="GET",
        path="/api/subscriptions/tiers",
        handler=tiers,
        summary="The tiers, from the smallest up",
        access=SIGNED_IN,
        response=TiersOut,
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/api/subscriptions/checkout",
        handler=checkout,
        summary="Subscribe: a page to pay at",
        access=_MINE,
        body=TierIn,
        response=SubscriptionOut,
        status=201,
        errors=(TierUnknown, AlreadySubscribed, GatewayRefused, GatewayUnavailable),
        rate=_RATE,
        idempotent=True,
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/api/subscriptions/cancel",
        handler=cancel,
        summary="End my subscription with its cycle",
        access=_MINE,
        body=CancelIn,
        response=SubscriptionOut,
        errors=(NotSubscribed, GatewayRefused, GatewayUnavailable),
        idempotent=True,
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/api/subscriptions/downgrade",
        handler=downgrade,
        summary="A lower tier from the next cycle on",
        access=_MINE,
        body=TierIn,
        response=SubscriptionOut,
        errors=(TierUnknown, NotSubscribed, GatewayRefused, GatewayUnavailable),
        idempotent=True,
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/api/credits",
        handler=credits_of_mine,
        summary="My AI credits, my tier and what I have used in this cycle",
        access=_MINE,
        response=CreditsOut,
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/api/credits/usage",
        handler=usage,
        summary="My AI calls, newest first; also as CSV",
        access=_MINE,
        query=UsageQuery,
        response=Page[CallOut],
        also=("text/csv",),
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/api/credits/upgrade/preview",
        handler=preview,
        summary="What an upgrade costs, good for ten minutes",
        access=_MINE,
        query=PreviewQuery,
        response=UpgradeQuoteOut,
        errors=(TierUnknown, NoUpgrade, CycleOver, NotSubscribed),
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/api/credits/upgrade",
        handler=upgrade,
        summary="Upgrade: a page to pay at; nothing changes before it is paid",
        access=_MINE,
        body=UpgradeIn,
        response=UpgradeOut,
        status=201,
        errors=(TierUnknown, NoUpgrade, CycleOver, NotSubscribed, GatewayRefused, GatewayUnavailable),
        rate=_RATE,
        idempotent=True,
        tags=_TAGS,
    ),
)
