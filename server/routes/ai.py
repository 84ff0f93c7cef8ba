"""AI calls, paid from credits (SPEC 10)."""

from collections.abc import AsyncIterator
from typing import Final

from billing_engine.subscriptions.calls import MeteredStream, Settled
from billing_engine.subscriptions.errors import (
    AiRequestInvalid,
    AiUnavailable,
    LimitExceeded,
    ModelNotAvailable,
    ModelWithoutPrice,
    NotEnoughCredits,
    ProviderFailed,
    ProviderNotAvailable,
    ProviderUnknown,
    TooManyCalls,
)
from server.ai_room import AiRoom
from server.ai_wire import AiOut, credits_block
from server.auth.model import Role
from server.errors import ValidationFailed
from server.json_splice import with_last_field
from server.routing import Call, Document, RawBody, Route, Stream, only

#: Pictures are sent within the body.
_BODY_LIMIT: Final = 20 * 1024 * 1024
#: What the provider says of the caller's own request is the caller's to read; the rest is between us and the provider.
_PASSED_ON: Final = frozenset({400, 404, 413, 422})


async def ask(call: Call[RawBody, None]) -> Document | Stream:
    room: AiRoom = call.services.ai
    if "idempotency-key" in call.body.headers:
        # Kept for ever, as those of other routes are, answers would be conversations of any length (ADR 0022).
        raise ValidationFailed([("Idempotency-Key", "is not taken here: each call asks the provider anew")])
    answer = await room.calls.call(
        call.caller.user_id, call.path["provider"], body=call.body.body, query=call.body.query
    )
    if isinstance(answer, MeteredStream):
        return Stream(_metered(answer, room), answer.content_type, close=answer.close)
    found, settled = answer
    if not 200 <= found.status < 300 and found.status not in _PASSED_ON:
        raise ProviderFailed(provider_status=found.status)
    body = with_last_field(found.body, "credits", _block(settled, room))
    return Document(body, found.content_type, status=found.status)


def _block(settled: Settled, room: AiRoom) -> bytes:
    return credits_block(settled, room.plans.tiers.get(settled.plan.tier), room.asset)


async def _metered(stream: MeteredStream, room: AiRoom) -> AsyncIterator[bytes]:
    """The provider's bytes as they are, and after them one event of ours."""
    pieces = stream.pieces()
    try:
        async for piece in pieces:
            yield piece
    finally:
        await pieces.aclose()
    if stream.settled is not None:
        yield b"event: credits\ndata: " + _block(stream.settled, room) + b"\n\n"


ROUTES: Final = (
    Route(
        method="POST",
        path="/api/ai/{provider}",
        handler=ask,
        summary="Call a provider of AI: the body is passed on as it is, the answer comes with what it cost",
        access=only(Role.USER),
        response=AiOut,
        raw_limit=_BODY_LIMIT,
        errors=(
            AiRequestInvalid,
            NotEnoughCredits,
            LimitExceeded,
            TooManyCalls,
            ProviderNotAvailable,
            ModelNotAvailable,
            ModelWithoutPrice,
            ProviderUnknown,
            ProviderFailed,
            AiUnavailable,
        ),
        also=("text/event-stream",),
        tags=("ai",),
    ),
)
