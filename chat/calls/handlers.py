"""The events of calls at the Socket.IO edge: parsed already, call one method, acknowledge."""

from collections.abc import Mapping
from typing import Any, Final

from chat import wire
from chat.call_events import Accept, CallPayload, Candidate, Invite, SendSignal
from chat.calls.model import Device
from chat.calls.service import CallService
from chat.calls.wire import ice_view
from chat.connections import Connection
from chat.event_types import SessionPayload
from chat.model import Conversation
from chat.namespace import Ack, Handler

#: What a signal costs on the wire beside its description or candidates.
_ENVELOPE_BYTES: Final = 512
_CANDIDATE_BYTES: Final = 128


class CallHandlers:
    """`handlers` for `ChatNamespace`."""

    def __init__(self, calls: CallService) -> None:
        self._calls = calls
        self.by_name: Mapping[str, Handler] = {
            "rtc:invite": self.invite,
            "rtc:accept": self.accept,
            "rtc:reject": self.reject,
            "rtc:hangup": self.hang_up,
            "rtc:signal": self.signal,
            "rtc:ice_config": self.ice_config,
        }

    async def invite(self, connection: Connection, request: Invite) -> Ack:
        device = Device(connection.user_id, request.party_id, connection.sid)
        return wire.ok({"call": await self._calls.invite(device, request.session_id, media=request.media)})

    async def accept(self, connection: Connection, request: Accept) -> Ack:
        device = Device(connection.user_id, request.party_id, connection.sid)
        return wire.ok({"call": await self._calls.accept(device, request.session_id, request.call_id)})

    async def reject(self, connection: Connection, request: CallPayload) -> Ack:
        await self._calls.reject(connection.user_id, request.session_id, request.call_id)
        return wire.ok()

    async def hang_up(self, connection: Connection, request: CallPayload) -> Ack:
        await self._calls.hang_up(connection.user_id, request.session_id, request.call_id)
        return wire.ok()

    async def signal(self, connection: Connection, request: SendSignal) -> Ack:
        candidates = None
        if request.candidates is not None:
            candidates = [_candidate(candidate) for candidate in request.candidates]
        duplicate = await self._calls.signal(
            connection.user_id,
            connection.sid,
            request.session_id,
            request.call_id,
            n=request.n,
            kind=request.kind,
            sdp=request.sdp,
            candidates=candidates,
            size_bytes=_size(request),
        )
        return wire.ok({"n": request.n, "duplicate": duplicate})

    async def ice_config(self, connection: Connection, request: SessionPayload) -> Ack:
        return wire.ok(ice_view(await self._calls.ice_config(connection.user_id, request.session_id)))

    async def rejoin(
        self, connection: Connection, room: Conversation, party_id: str | None
    ) -> dict[str, Any] | None:
        """What a join's answer has as `call`."""
        return await self._calls.rejoin(connection.user_id, connection.sid, room, party_id)


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return candidate.model_dump(by_alias=True)


def _size(request: SendSignal) -> int:
    if request.sdp is not None:
        return _ENVELOPE_BYTES + wire.json_bytes(request.sdp)
    texts = [
        f"{one.candidate}{one.sdp_mid or ''}{one.username_fragment or ''}" for one in request.candidates or ()
    ]
    return _ENVELOPE_BYTES + sum(_CANDIDATE_BYTES + wire.json_bytes(text) for text in texts)
