"""What an operator watches (SPEC 1), as Prometheus reads it."""

from typing import Final

from server.metrics import CONTENT_TYPE
from server.routing import PUBLIC, Call, Document, Route
from server.wire import Empty


async def metrics(call: Call[None, None]) -> Document:
    """Figures without names: no user, no session, no amount."""
    return Document(call.services.metrics.render())


ROUTES: Final = (
    Route(
        method="GET",
        path="/metrics",
        handler=metrics,
        summary="Figures for Prometheus",
        access=PUBLIC,
        response=Empty,
        media_type=CONTENT_TYPE,
        documented=False,
        tags=("operations",),
    ),
)
