"""Whether the process lives and whether it can serve (SPEC 1)."""

from collections.abc import Mapping
from typing import Final, Literal

from server.errors import NotReady
from server.readiness import Check, unanswered
from server.routing import PUBLIC, Call, Route
from server.wire import WireModel


class HealthView(WireModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class ReadyView(WireModel):
    """Every part answers."""

    status: Literal["ready"] = "ready"
    checks: list[str]


async def healthz(_: Call[None, None]) -> HealthView:
    """Alive, whatever else is broken: restarting would not help a store that is down."""
    return HealthView()


async def readyz(call: Call[None, None]) -> ReadyView:
    """Ready to serve. Raises `NotReady` naming the parts that do not answer."""
    checks: Mapping[str, Check] = call.services.readiness
    if failed := await unanswered(checks):
        raise NotReady(failed=failed)
    return ReadyView(checks=sorted(checks))


_TAGS: Final = ("operations",)
ROUTES: Final = (
    Route(
        method="GET",
        path="/healthz",
        handler=healthz,
        summary="Is the process alive",
        access=PUBLIC,
        response=HealthView,
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=readyz,
        summary="Can it serve",
        access=PUBLIC,
        response=ReadyView,
        errors=(NotReady,),
        tags=_TAGS,
    ),
)
