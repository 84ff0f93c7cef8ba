"""Asking a lawyer for a consultation, and waiting for a busy one: what clients send and are told before a session is ACTIVE."""

from typing import Annotated, Final, Literal

from pydantic import StringConstraints

from chat.buckets import Kind
from chat.consult_errors import ANSWERING, STARTING, WAITING, RequestClosed
from chat.errors import Refused
from chat.event_types import (
    Ack,
    ClientEvent,
    Instant,
    Money,
    Payload,
    ServerEvent,
    SessionId,
    SessionPayload,
    Turn,
    View,
)

State = Literal["RINGING", "ACCEPTED", "DECLINED", "MISSED", "CANCELLED", "ANSWERED_ELSEWHERE"]
Amount = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,12}(\.[0-9]{1,6})?$")]


class LawyerPayload(Payload):
    """What concerns one lawyer."""

    lawyer_id: SessionId


class RequestConsultation(LawyerPayload):
    """`maxAmount` caps what the consultation may cost."""

    max_amount: Amount | None = None


class RequestAck(Ack):
    """The session. `status` is REQUESTED while the lawyer is asked (until `deadline`), ACTIVE with a lawyer who accepts by himself."""

    session_id: str
    status: str
    request_state: State | None
    deadline: Instant | None


class PlaceAck(Ack):
    """Where one waits: 1 is next. `estimatedSeconds` is null where nothing is known. With a `turnUntil` it is one's turn."""

    lawyer_id: str
    position: int
    estimated_seconds: int | None
    turn_until: Instant | None


class RingView(View):
    """Somebody asks for a consultation. It may come twice; `sessionId` tells."""

    session_id: str
    user_id: str
    lawyer_id: str
    rate_per_minute: Money
    currency: str
    deadline: Instant


class RequestStateView(View):
    """Where the request is. Until `deadline` the lawyer may answer (RINGING), or both must have joined the session (ACCEPTED)."""

    session_id: str
    user_id: str
    lawyer_id: str
    state: State
    reason: str | None
    deadline: Instant | None


class AwayView(View):
    """The lawyer was taken offline: too many requests were not answered in a row."""

    lawyer_id: str
    reason: Literal["MISSED_RINGS"]


class PositionView(View):
    """One's place in a waiting list. With a `reason` the waiting is over: position is 0, and nothing is kept."""

    lawyer_id: str
    position: int
    estimated_seconds: int | None
    reason: str | None


class TurnView(View):
    """The lawyer is kept free until `deadline`: start the consultation now."""

    lawyer_id: str
    deadline: Instant


CLIENT_CONSULT_EVENTS: Final = (
    ClientEvent(
        "consult:request",
        RequestConsultation,
        RequestAck,
        Turn.ALONE,
        "As `POST /consult/start`: ask the lawyer for a consultation, or begin it where the lawyer accepts by himself.",
        (*STARTING, Refused),
        Kind.RING,
    ),
    ClientEvent(
        "consult:accept",
        SessionPayload,
        RequestAck,
        Turn.ALONE,
        "The lawyer says yes; the first device wins. Billing begins once both have joined the session.",
        (*ANSWERING, Refused),
    ),
    ClientEvent(
        "consult:decline",
        SessionPayload,
        RequestAck,
        Turn.ALONE,
        "The lawyer says no.",
        (RequestClosed, Refused),
    ),
    ClientEvent(
        "consult:cancel",
        SessionPayload,
        RequestAck,
        Turn.ALONE,
        "The user takes the request back.",
        (RequestClosed, Refused),
    ),
    ClientEvent(
        "consult:queue",
        LawyerPayload,
        PlaceAck,
        Turn.ALONE,
        "Wait for a busy lawyer who has a waiting list. Again: one's place.",
        (*WAITING, Refused),
        Kind.RING,
    ),
    ClientEvent("consult:unqueue", LawyerPayload, Ack, Turn.ALONE, "Wait no longer.", (Refused,)),
)

SERVER_CONSULT_EVENTS: Final = (
    ServerEvent("consult:ring", RingView, "person", "To the lawyer: somebody asks for a consultation."),
    ServerEvent(
        "consult:state",
        RequestStateView,
        "user",
        "A request is in another state. The lawyer's devices that did not accept hear ANSWERED_ELSEWHERE.",
    ),
    ServerEvent("consult:away", AwayView, "person", "To the lawyer: you were taken offline."),
    ServerEvent(
        "consult:position", PositionView, "person", "To who waits: the place in the list is another, or gone."
    ),
    ServerEvent("consult:turn", TurnView, "person", "To who waits: it is your turn."),
)
