"""What payment gateways send us (SPEC 11). Public: the signature over the raw body is what admits an event."""

from collections.abc import Awaitable, Callable
from typing import Final, Literal

from billing_engine.payments.errors import WebhookInvalid
from server.errors import PathNotFound
from server.routing import PUBLIC, Call, RawBody, Route
from server.wire import WireModel

#: Far above any event: the largest ones that gateways send have some ten kilobytes.
_LIMIT_BYTES: Final = 256 * 1024


class ReceivedView(WireModel):
    """The event is stored; what follows from it follows."""

    received: Literal[True] = True


def _receiver(gateway: str) -> Callable[[Call[RawBody, None]], Awaitable[ReceivedView]]:
    async def receive(call: Call[RawBody, None]) -> ReceivedView:
        if gateway not in call.services.gateways:
            raise PathNotFound
        await call.services.webhooks.take(gateway, body=call.body.body, headers=call.body.headers)
        return ReceivedView()

    return receive


ROUTES: Final = tuple(
    Route(
        method="POST",
        path=f"/webhooks/{gateway}",
        handler=_receiver(gateway),
        summary=f"Events of {gateway.capitalize()}, signed by it",
        access=PUBLIC,
        response=ReceivedView,
        errors=(WebhookInvalid,),
        raw_limit=_LIMIT_BYTES,
        documented=False,
        tags=("payments",),
    )
    for gateway in ("razorpay", "stripe")
)
