"""Waiting for a busy lawyer (SPEC 5)."""

from pydantic import BaseModel

from billing_engine.consultations.errors import (
    LawyerFree,
    LawyerNotFound,
    LawyerNotVerified,
    LawyerOffline,
    NotWaiting,
    UserBusy,
    WaitingListClosed,
    WaitingListFull,
)
from billing_engine.consultations.waiting_model import Place
from server.auth.model import Role
from server.rate_limits.service import Limited, RateLimit
from server.routing import Call, Route, only
from server.wire import Id, Instant, WireModel


class QueueIn(WireModel):
    """Whom to wait for."""

    lawyer_id: Id


class PlaceOut(WireModel):
    """A place in a waiting list; 1 is next. `estimatedSeconds` is null where nothing is known of how long this lawyer's consultations
    take. With a `turnUntil` the lawyer is kept free for this user until then.
    """

    lawyer_id: str
    user_id: str
    position: int
    estimated_seconds: int | None
    since: Instant
    turn_until: Instant | None

    @classmethod
    def of(cls, place: Place) -> "PlaceOut":
        waiting = place.waiting
        return cls(
            lawyer_id=waiting.lawyer_id,
            user_id=waiting.user_id,
            position=place.position,
            estimated_seconds=place.estimated_s,
            since=waiting.since_ms,
            turn_until=waiting.turn_until_ms if waiting.turn_id else None,
        )


class PlacesOut(WireModel):
    """Places, in order."""

    items: list[PlaceOut]


class LeftOut(BaseModel):
    """Nothing more to say."""


async def join(call: Call[QueueIn, None]) -> PlaceOut:
    place = await call.services.waiting.join(user_id=call.caller.user_id, lawyer_id=call.body.lawyer_id)
    return PlaceOut.of(place)


async def leave(call: Call[None, None]) -> LeftOut:
    await call.services.waiting.leave(user_id=call.caller.user_id, lawyer_id=call.path["lawyer_id"])
    return LeftOut()


async def mine(call: Call[None, None]) -> PlacesOut:
    places = await call.services.waiting.of_user(call.caller.user_id)
    return PlacesOut(items=[PlaceOut.of(place) for place in places])


async def for_me(call: Call[None, None]) -> PlacesOut:
    places = await call.services.waiting.of_lawyer(call.caller.user_id)
    return PlacesOut(items=[PlaceOut.of(place) for place in places])


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/consult/queue",
        handler=join,
        summary="Wait for a busy lawyer; repeated, the place that one has",
        access=only(Role.USER),
        body=QueueIn,
        response=PlaceOut,
        errors=(
            LawyerNotFound,
            LawyerNotVerified,
            LawyerOffline,
            WaitingListClosed,
            UserBusy,
            LawyerFree,
            WaitingListFull,
        ),
        rate=RateLimit(Limited.START, account=lambda call: str(call.caller.user_id)),
        tags=("requests",),
    ),
    Route(
        method="GET",
        path="/consult/queue",
        handler=mine,
        summary="Where the caller waits",
        access=only(Role.USER),
        response=PlacesOut,
        tags=("requests",),
    ),
    Route(
        method="DELETE",
        path="/consult/queue/{lawyer_id}",
        handler=leave,
        summary="Wait for this lawyer no longer",
        access=only(Role.USER),
        response=LeftOut,
        errors=(NotWaiting,),
        tags=("requests",),
    ),
    Route(
        method="GET",
        path="/lawyer/queue",
        handler=for_me,
        summary="Who waits for me",
        access=only(Role.LAWYER),
        response=PlacesOut,
        tags=("requests",),
    ),
)
