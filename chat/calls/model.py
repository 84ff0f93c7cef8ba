"""What a call is: who rings, which device answers, how it ends. Pure: no clock, no I/O.

A session has at most one call at a time, and a call at most one device on each side. A device is named by its `party_id`,
which it keeps when it connects again, and reached by its socket, which changes then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from chat.calls.errors import AnsweredElsewhere, CallNotFound, CallOver, CallRunning, NotBound, OwnCall

#: How long a call rings, by the server's clock.
LIFETIME_MS: Final = 45_000
#: How often a running call is looked at: is its session still there, and do both sides know that they are connected.
LOOK_MS: Final = 30_000
#: When the end of a call is told once more, and its signals are forgotten.
ONCE_MORE_MS: Final = 5_000
#: How far back a device that comes back hears what it missed, and how much of it.
REPLAY_MS: Final = 30_000
REPLAY_BYTES: Final = 128 * 1024
#: Signals of one device in one call. A call with many restarts needs some thirty.
MAX_SIGNALS: Final = 256


class CallState(StrEnum):
    """RINGING → CONNECTED → ENDED, or RINGING → ENDED."""

    RINGING = "RINGING"
    CONNECTED = "CONNECTED"
    ENDED = "ENDED"


class EndedBy(StrEnum):
    """Why a call is over."""

    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    MISSED = "MISSED"
    HUNG_UP = "HUNG_UP"
    SESSION_ENDED = "SESSION_ENDED"


#: Told to those devices of whoever answered that did not answer.
ANSWERED_ELSEWHERE: Final = "ANSWERED_ELSEWHERE"
AUDIO: Final = "audio"
VIDEO: Final = "video"


@dataclass(frozen=True, slots=True)
class Device:
    """One device of a person, and the socket that it has at the moment."""

    person_id: str
    party_id: str
    sid: str

    def is_same(self, other: "Device | None") -> bool:
        """Whether it is the same device, whatever its socket."""
        return other is not None and (self.person_id, self.party_id) == (other.person_id, other.party_id)


@dataclass(frozen=True, slots=True)
class Call:
    """The call of a session, the running one or the last. Instants in milliseconds.

    `caller` makes the offers; the other side gives way when both make one. `due_at_ms`: when a server has to look at it.
    """

    session_id: str
    id: str
    state: CallState
    media: str
    caller: Device
    callee_id: str
    callee: Device | None
    invited_at_ms: int
    expires_at_ms: int
    due_at_ms: int | None
    glare: bool = False
    answered_at_ms: int | None = None
    ended_at_ms: int | None = None
    reason: EndedBy | None = None
    revision: int = 1

    @property
    def is_over(self) -> bool:
        return self.state is CallState.ENDED

    @property
    def people(self) -> tuple[str, str]:
        return (self.caller.person_id, self.callee_id)

    def device_of(self, person_id: str) -> Device | None:
        """The person's device in this call."""
        return self.caller if person_id == self.caller.person_id else self.callee

    def peer_of(self, person_id: str) -> Device | None:
        """The other side's device."""
        return self.callee if person_id == self.caller.person_id else self.caller

    def has_expired(self, now_ms: int) -> bool:
        """Whether it has rung for too long, told or not."""
        return self.state is CallState.RINGING and now_ms >= self.expires_at_ms


def invite(
    last: Call | None,
    device: Device,
    *,
    session_id: str,
    call_id: str,
    peer_id: str,
    first_id: str,
    media: str,
    now_ms: int,
) -> Call:
    """The call after `device` has asked for one; `last` is what there was, expired ones ended.

    When both have asked, both want to talk: they are connected, the audio wins, and `first_id` (the session's user, whoever
    was quicker) is the caller. The device that has asked before gets the same call. Raises `CallRunning`.
    """
    if last is None or last.is_over:
        return Call(
            session_id=session_id,
            id=call_id,
            state=CallState.RINGING,
            media=media,
            caller=device,
            callee_id=peer_id,
            callee=None,
            invited_at_ms=now_ms,
            expires_at_ms=now_ms + LIFETIME_MS,
            due_at_ms=now_ms + LIFETIME_MS,
            revision=1 if last is None else last.revision + 1,
        )
    if device.is_same(last.device_of(device.person_id)):
        return moved(last, device)
    if last.state is CallState.RINGING and last.callee_id == device.person_id:
        caller, callee = (device, last.caller) if device.person_id == first_id else (last.caller, device)
        both = {media, last.media}
        return replace(
            _connected(last, now_ms),
            caller=caller,
            callee=callee,
            callee_id=callee.person_id,
            media=AUDIO if AUDIO in both else VIDEO,
            glare=True,
        )
    raise CallRunning(session_id=session_id, call_id=last.id)


def accept(call: Call, device: Device, *, now_ms: int) -> Call:
    """The call after `device` has answered; the same device may say so again. Raises `CallOver`, `OwnCall`, `AnsweredElsewhere`."""
    if call.is_over or call.has_expired(now_ms):
        raise CallOver(call_id=call.id)
    if call.state is CallState.RINGING:
        if device.person_id == call.caller.person_id:
            raise OwnCall(call_id=call.id)
        return replace(_connected(call, now_ms), callee=device)
    if device.is_same(call.device_of(device.person_id)):
        return moved(call, device)
    raise AnsweredElsewhere(call_id=call.id)


def reject(call: Call, person_id: str, *, now_ms: int) -> Call:
    """The call after the person has refused it, for all their devices. An end is final. Raises `OwnCall`, `AnsweredElsewhere`."""
    if call.is_over:
        return call
    if call.state is CallState.CONNECTED:
        raise AnsweredElsewhere(call_id=call.id)
    if person_id == call.caller.person_id:
        raise OwnCall(call_id=call.id)
    return ended(call, EndedBy.REJECTED, now_ms=now_ms)


def hang_up(call: Call, person_id: str, *, now_ms: int) -> Call:
    """The call after the person wants no more of it. An end is final."""
    if call.is_over:
        return call
    if call.state is CallState.CONNECTED:
        return ended(call, EndedBy.HUNG_UP, now_ms=now_ms)
    is_caller = person_id == call.caller.person_id
    return ended(call, EndedBy.CANCELLED if is_caller else EndedBy.REJECTED, now_ms=now_ms)


def ended(call: Call, reason: EndedBy, *, now_ms: int) -> Call:
    """The call after its end; the first end stands."""
    if call.is_over:
        return call
    return replace(
        call,
        state=CallState.ENDED,
        reason=reason,
        ended_at_ms=now_ms,
        due_at_ms=now_ms + ONCE_MORE_MS,
        revision=call.revision + 1,
    )


def moved(call: Call, device: Device) -> Call:
    """The call with the new socket of a device that is in it; the same call when nothing is new."""
    if device == call.device_of(device.person_id):
        return call
    if device.person_id == call.caller.person_id:
        return replace(call, caller=device, revision=call.revision + 1)
    return replace(call, callee=device, revision=call.revision + 1)


def looked_at(call: Call, *, now_ms: int) -> Call:
    """The call after a server has looked at it and left it as it is."""
    due_at_ms = None if call.is_over else now_ms + LOOK_MS
    return replace(call, due_at_ms=due_at_ms, revision=call.revision + 1)


def _connected(call: Call, now_ms: int) -> Call:
    return replace(
        call,
        state=CallState.CONNECTED,
        answered_at_ms=now_ms,
        due_at_ms=now_ms + LOOK_MS,
        revision=call.revision + 1,
    )


def named(call: Call | None, call_id: str) -> Call:
    """The session's call, if that is its id. Raises `CallNotFound`."""
    if call is None or call.id != call_id:
        raise CallNotFound(call_id=call_id)
    return call


def bound(call: Call, person_id: str, sid: str) -> Device:
    """The device in the call whose socket this is. Raises `CallOver`, `NotBound`."""
    if call.is_over:
        raise CallOver(call_id=call.id)
    device = call.device_of(person_id)
    if device is None or device.sid != sid:
        raise NotBound(call_id=call.id)
    return device


@dataclass(frozen=True, slots=True)
class Signal:
    """What one device of a call tells the other. `n` is the device's own count: with it, sending again is safe."""

    session_id: str
    call_id: str
    person_id: str
    party_id: str
    n: int
    kind: str
    sdp: str | None
    candidates: Sequence[Mapping[str, Any]] | None
    at_ms: int
    size_bytes: int

    def says(self, other: "Signal") -> bool:
        """Whether the other one is the same, sent again."""
        return (self.kind, self.sdp, self.candidates) == (other.kind, other.sdp, other.candidates)


def fitting(signals: Sequence[Signal]) -> list[Signal]:
    """The newest of `signals` (by rising age or not, they keep their order) that are no more than `REPLAY_BYTES`."""
    kept: list[Signal] = []
    left_bytes = REPLAY_BYTES
    for signal in reversed(signals):
        left_bytes -= signal.size_bytes
        if left_bytes < 0:
            break
        kept.append(signal)
    return kept[::-1]
