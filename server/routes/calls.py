"""What calls need over HTTP (docs/calls.md). Everything else of a call is said over the socket."""

from typing import Annotated

from chat.errors import NotFound, SessionNotActive
from server.auth.model import Role
from server.routing import Call, Route, only
from server.wire import Instant, WireModel, one_of


class IceServerOut(WireModel):
    """An `RTCIceServer`; a STUN server has neither user nor password."""

    urls: list[str]
    username: str | None
    credential: str | None


class IceOut(WireModel):
    """What an `RTCPeerConnection` is made with. Ask again before each restart and before `expiresAt`."""

    ice_servers: list[IceServerOut]
    ice_transport_policy: Annotated[str, one_of(("all", "relay"))]
    ttl_seconds: int
    expires_at: Instant


async def ice(call: Call[None, None]) -> IceOut:
    config = await call.services.calls.ice_config(call.caller.user_id, call.path["session_id"])
    return IceOut(
        ice_servers=[IceServerOut.model_validate(server) for server in config.servers],
        ice_transport_policy=config.policy,
        ttl_seconds=config.ttl_s,
        expires_at=config.expires_at_ms,
    )


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/consult/{session_id}/ice",
        handler=ice,
        summary="STUN and TURN servers for a call, with credentials that last as long as the money",
        access=only(Role.USER, Role.LAWYER),
        response=IceOut,
        errors=(NotFound, SessionNotActive),
        tags=("calls",),
    ),
)
