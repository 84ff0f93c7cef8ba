"""How calls look to clients."""

from collections.abc import Mapping, Sequence
from typing import Any

from chat.calls.ice import IceConfig
from chat.calls.model import Call, CallState, Signal
from chat.wire import instant


def call_view(call: Call, now_ms: int) -> dict[str, Any]:
    """`CallView`."""
    is_ringing = call.state is CallState.RINGING
    return {
        "sessionId": call.session_id,
        "callId": call.id,
        "state": call.state.value,
        "media": call.media,
        "callerId": call.caller.person_id,
        "callerPartyId": call.caller.party_id,
        "calleeId": call.callee_id,
        "calleePartyId": None if call.callee is None else call.callee.party_id,
        "glare": call.glare,
        "invitedAt": instant(call.invited_at_ms),
        "expiresAt": instant(call.expires_at_ms),
        "answeredAt": None if call.answered_at_ms is None else instant(call.answered_at_ms),
        "lifetimeMs": max(0, call.expires_at_ms - now_ms) if is_ringing else None,
    }


def signal_view(signal: Signal) -> dict[str, Any]:
    """`SignalView`."""
    return {
        "sessionId": signal.session_id,
        "callId": signal.call_id,
        "partyId": signal.party_id,
        "n": signal.n,
        "kind": signal.kind,
        "sdp": signal.sdp,
        "candidates": candidates_view(signal.candidates),
        "at": instant(signal.at_ms),
    }


def candidates_view(candidates: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """`RTCIceCandidateInit`s, with every field."""
    return None if candidates is None else [dict(candidate) for candidate in candidates]


def ice_view(config: IceConfig) -> dict[str, Any]:
    """`IceAck` without its `ok`."""
    return {
        "iceServers": config.servers,
        "iceTransportPolicy": config.policy,
        "ttlSeconds": config.ttl_s,
        "expiresAt": instant(config.expires_at_ms),
    }


def ended_view(call: Call, reason: str, at_ms: int) -> dict[str, Any]:
    """`CallEndedView`."""
    return {"sessionId": call.session_id, "callId": call.id, "reason": reason, "at": instant(at_ms)}
