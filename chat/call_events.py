"""The events of calls (`rtc:*`): ring, answer, hang up, and what two devices tell each other to find a way for the media."""

from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from chat.buckets import Kind
from chat.calls.errors import (
    AnsweredElsewhere,
    CallNotAnswered,
    CallNotFound,
    CallOver,
    CallRunning,
    NotBound,
    OwnCall,
    SignalReused,
    TooManySignals,
)
from chat.errors import SessionNotActive
from chat.event_types import (
    Ack,
    ClientEvent,
    Instant,
    Payload,
    ServerEvent,
    SessionPayload,
    Turn,
    View,
    printable_ascii,
)
from chat.wire import json_bytes

#: Of a description, or of all candidates of one signal, on the wire.
MAX_SIGNAL_BYTES: Final = 32 * 1024
MAX_CANDIDATES: Final = 64

PartyId = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(printable_ascii)]
CallId = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(printable_ascii)]
Media = Literal["audio", "video"]
SignalKind = Literal["offer", "answer", "candidates", "restart"]


def _no_null(text: str) -> str:
    if "\x00" in text:
        raise PydanticCustomError("null_character", "null characters are not allowed")
    return text


Text = Annotated[str, StringConstraints(max_length=2_048), AfterValidator(_no_null)]


class Invite(SessionPayload):
    """`partyId` is the client's own name for this device (a tab, an installed app), kept when it connects again."""

    party_id: PartyId
    media: Media


class Accept(SessionPayload):
    call_id: CallId
    party_id: PartyId


class CallPayload(SessionPayload):
    call_id: CallId


class Candidate(Payload):
    """An `RTCIceCandidateInit`. `candidate: ""` ends the list."""

    candidate: Text
    sdp_mid: Text | None = None
    sdp_m_line_index: Annotated[int, Field(ge=0, le=65_535)] | None = None
    username_fragment: Text | None = None


T = TypeVar("T")


def _if_kind(value: T | None, info: ValidationInfo, kinds: tuple[str, ...]) -> T | None:
    kind = info.data.get("kind")
    if kind is not None and (value is not None) is not (kind in kinds):
        need = "is needed" if value is None else "is not allowed"
        raise PydanticCustomError("kind", "{need} with this kind", {"need": need})
    return value


class SendSignal(CallPayload):
    """`n` counts this device's signals in this call from 1. `sdp` is for offer, answer and restart (an offer
    with new ICE credentials), `candidates` for candidates: many in one signal.
    """

    n: Annotated[int, Field(ge=1, le=1_000_000)]
    kind: SignalKind
    sdp: Annotated[str, StringConstraints(min_length=1), AfterValidator(_no_null)] | None = Field(
        default=None, validate_default=True
    )
    candidates: Annotated[list[Candidate], Field(min_length=1, max_length=MAX_CANDIDATES)] | None = Field(
        default=None, validate_default=True
    )

    @field_validator("sdp")
    @classmethod
    def describes(cls, sdp: str | None, info: ValidationInfo) -> str | None:
        if sdp is not None and json_bytes(sdp) > MAX_SIGNAL_BYTES:
            raise PydanticCustomError("too_long", "more than 32 KB")
        return _if_kind(sdp, info, ("offer", "answer", "restart"))

    @field_validator("candidates")
    @classmethod
    def lists(cls, candidates: list[Candidate] | None, info: ValidationInfo) -> list[Candidate] | None:
        texts = (
            text for one in candidates or () for text in (one.candidate, one.sdp_mid, one.username_fragment)
        )
        if sum(json_bytes(text) for text in texts if text) > MAX_SIGNAL_BYTES:
            raise PydanticCustomError("too_long", "more than 32 KB")
        return _if_kind(candidates, info, ("candidates",))


class CallView(View):
    """A call. The caller makes the offers, the callee is the polite one. `lifetimeMs`: for how long it still rings, whatever the
    client's clock says; null when it does not. `glare`: both had called, and are connected without anybody's answer.
    """

    session_id: str
    call_id: str
    state: Literal["RINGING", "CONNECTED", "ENDED"]
    media: Media
    caller_id: str
    caller_party_id: str
    callee_id: str
    callee_party_id: str | None
    glare: bool
    invited_at: Instant
    expires_at: Instant
    answered_at: Instant | None
    lifetime_ms: int | None


class CandidateView(View):
    candidate: str
    sdp_mid: str | None
    sdp_m_line_index: int | None
    username_fragment: str | None


class SignalView(View):
    """What the other side's device says. Drop an `n` that you have had; `sdp` or `candidates`, as `kind` has it."""

    session_id: str
    call_id: str
    party_id: str
    n: int
    kind: SignalKind
    sdp: str | None
    candidates: list[CandidateView] | None
    at: Instant


class CallEndedView(View):
    """The call is over, for this device: close its peer connection. May come twice."""

    session_id: str
    call_id: str
    reason: Literal["REJECTED", "CANCELLED", "MISSED", "HUNG_UP", "SESSION_ENDED", "ANSWERED_ELSEWHERE"]
    at: Instant


class CallAck(Ack):
    call: CallView


class SignalAck(Ack):
    """`duplicate`: it was told before, under the same `n`, and is passed on again."""

    n: int
    duplicate: bool


class IceServerView(View):
    """An `RTCIceServer`."""

    urls: list[str]
    username: str | None
    credential: str | None


class IceAck(Ack):
    """What an `RTCPeerConnection` is made with. Ask again before each restart and before `expiresAt`."""

    ice_servers: list[IceServerView]
    ice_transport_policy: Literal["all", "relay"]
    ttl_seconds: int
    expires_at: Instant


CLIENT_CALL_EVENTS: Final = (
    ClientEvent(
        "rtc:invite",
        Invite,
        CallAck,
        Turn.ALONE,
        "Ring every device of the other side, for 45 seconds. When the other side has just done the same, both are connected.",
        (SessionNotActive, CallRunning),
        Kind.RING,
    ),
    ClientEvent(
        "rtc:accept",
        Accept,
        CallAck,
        Turn.ALONE,
        "Answer with this device. The first one is selected, and the others hear `rtc:ended` with ANSWERED_ELSEWHERE.",
        (SessionNotActive, CallNotFound, CallOver, AnsweredElsewhere, OwnCall),
    ),
    ClientEvent(
        "rtc:reject",
        CallPayload,
        Ack,
        Turn.ALONE,
        "Refuse a ringing call, for all of this person's devices.",
        (CallNotFound, AnsweredElsewhere, OwnCall),
    ),
    ClientEvent(
        "rtc:hangup",
        CallPayload,
        Ack,
        Turn.ALONE,
        "End the call, or take it back while it rings. From any device of the two; repeated, the same answer.",
        (CallNotFound,),
    ),
    ClientEvent(
        "rtc:signal",
        SendSignal,
        SignalAck,
        Turn.ALONE,
        "Tell the other side's device, and no other. Works while the session is paused, so that a lost connection can be found again.",
        (SessionNotActive, CallNotFound, CallNotAnswered, CallOver, NotBound, SignalReused, TooManySignals),
        Kind.SIGNAL,
    ),
    ClientEvent(
        "rtc:ice_config",
        SessionPayload,
        IceAck,
        Turn.PIPELINED,
        "STUN and TURN servers, with credentials that last as long as the money and a little more.",
        (SessionNotActive,),
    ),
)

SERVER_CALL_EVENTS: Final = (
    ServerEvent("rtc:ring", CallView, "person", "The other side calls."),
    ServerEvent(
        "rtc:state",
        CallView,
        "device",
        "The call was answered, or the other side's device is back with a new connection. Comes every 30 seconds, too.",
    ),
    ServerEvent("rtc:signal", SignalView, "device", "The other side's device says something."),
    ServerEvent("rtc:ended", CallEndedView, "user", "The call is over."),
)
