"""Socket.IO as this server runs it: order kept, bad packets answered or cut, half-connected sockets closed."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import socketio
import structlog
from engineio import packet as eio_packet
from socketio import packet as sio_packet

from chat.byes import BAD_PACKET, SLOW
from server.realtime import codec
from server.realtime.engine import Engine
from server.realtime.options import SocketOptions
from server.realtime.outgoing import Outgoing
from server.realtime.rooms import IndexedManager

log = structlog.get_logger(__name__)

#: Nothing in the chat is binary. A few attachments are read, so that validation can name the field; more are
#: an attack.
_MAX_ATTACHMENTS: Final = 4
_BINARY: Final = re.compile(r"[56](\d+)-")
_EVENT_WITH_ID: Final = re.compile(r"2(?:/[^,]*,)?(\d{1,15})(?!\d)")
#: How many times the limit may wait for a client in one burst.
_BURST: Final = 4
_NOT_JSON: Final = {
    "ok": False,
    "error": {
        "code": "VALIDATION_FAILED",
        "message": "The payload is not valid JSON.",
        "retryable": False,
        "fields": [{"field": "payload", "message": "the payload is not valid JSON"}],
    },
}


class RealtimeServer(socketio.AsyncServer):  # type: ignore[misc]  # python-socketio ships no types
    """The clients of this process. Internal API of python-socketio 5.18 is overridden here and nowhere else."""

    def __init__(self, options: SocketOptions) -> None:
        self._options = options
        logger = logging.getLogger("server.realtime.socketio")
        logger.setLevel(logging.ERROR)
        super().__init__(client_manager=IndexedManager(), logger=logger, json=codec, always_connect=False)
        #: Takes an event and, once, gives its acknowledgement to the last argument.
        self.take: Callable[[str, object, object, Callable[[dict[str, Any]], None]], None] | None = None
        #: Counts an event that could not be read; the refusal, if there were too many.
        self.unreadable: Callable[[str], dict[str, Any] | None] = lambda _sid: None
        #: Waits until a connection can take another event.
        self.space: Callable[[str | None, float], Awaitable[None]] | None = None
        #: Ephemeral events that lagging clients were spared, and clients that were cut off.
        self.shed = 0
        self.cut = 0
        self._reapers: dict[str, asyncio.TimerHandle] = {}
        #: Sockets that have heard why they are not connected.
        self._told: set[str] = set()

    def _engineio_server_class(self) -> Callable[..., Engine]:
        return lambda **_kwargs: Engine(self._options)

    # --- out ---

    def enqueue(self, eio_sid: str, packet: Any, *, ephemeral: bool = False) -> None:
        """Queue an Engine.IO packet. Never waits; a client that lags too far behind is cut off."""
        socket = self.eio.sockets.get(eio_sid)
        if socket is None or socket.closed or socket.closing:
            return
        queue = socket.queue
        if queue.leaving or (ephemeral and queue.held_bytes > self._options.shed_bytes):
            self.shed += ephemeral
            return
        queue.put_nowait(packet)
        if queue.held_bytes > self._options.cut_bytes:
            self._lags(eio_sid, queue)

    def _lags(self, eio_sid: str, queue: Outgoing) -> None:
        """Too much waits. A burst is no proof: who reads has taken it a moment later. Who does not is cut
        off.
        """
        if queue.held_bytes > _BURST * self._options.cut_bytes:
            self._cut_if_lagging(eio_sid, queue)
        elif not queue.suspected:
            queue.suspected = True
            asyncio.get_running_loop().call_later(self._options.burst_s, self._cut_if_lagging, eio_sid, queue)

    def _cut_if_lagging(self, eio_sid: str, queue: Outgoing) -> None:
        queue.suspected = False
        if queue.held_bytes > self._options.cut_bytes and not queue.leaving:
            self.cut += 1
            log.info("slow_client_cut", held_bytes=queue.held_bytes)
            self.eio.dismiss(eio_sid, SLOW)

    async def _send_packet(self, eio_sid: str, pkt: Any) -> None:
        """Acknowledgements and the library's own packets go the same way as events."""
        encoded = pkt.encode()
        for part in encoded if isinstance(encoded, list) else [encoded]:
            self.enqueue(eio_sid, eio_packet.Packet(eio_packet.MESSAGE, part))

    # --- in ---

    async def _handle_eio_message(self, eio_sid: str, data: Any) -> None:
        socket = self.eio.sockets.get(eio_sid)
        if socket is None or socket.queue.leaving:
            return
        if self._breaks_protocol(eio_sid, data):
            self.eio.dismiss(eio_sid, BAD_PACKET)
            return
        try:
            await super()._handle_eio_message(eio_sid, data)
        except Exception as exc:  # noqa: BLE001  whatever a client can send must not fill our log with tracebacks
            if not await self._answer_bad_json(eio_sid, data):
                log.info("bad_packet", error=type(exc).__name__)
                self.eio.dismiss(eio_sid, BAD_PACKET)

    def _breaks_protocol(self, eio_sid: str, data: Any) -> bool:
        """Attachments by the million, and text where an announced attachment is due."""
        if isinstance(data, bytes):
            return False
        binary = _BINARY.match(data) if isinstance(data, str) else None
        return eio_sid in self._binary_packet or (
            binary is not None and int(binary[1][:9]) > _MAX_ATTACHMENTS
        )

    async def _answer_bad_json(self, eio_sid: str, data: Any) -> bool:
        """An event whose payload cannot be read is still owed its one acknowledgement."""
        event = _EVENT_WITH_ID.match(data) if isinstance(data, str) else None
        sid = self.manager.sid_from_eio_sid(eio_sid, "/")
        if event is None or sid is None:
            return False
        ack = self.unreadable(sid) or _NOT_JSON
        await self._send_packet(eio_sid, self.packet_class(sio_packet.ACK, id=int(event[1]), data=[ack]))
        return True

    async def _handle_event(self, eio_sid: str, namespace: str | None, id: int | None, data: Any) -> None:  # noqa: A002  the library's name
        if not isinstance(data, list) or not data:
            raise ValueError("an event is a list that starts with its name")
        sid = self.manager.sid_from_eio_sid(eio_sid, namespace or "/")
        if not self.manager.is_connected(sid, namespace or "/"):
            return
        if self.space is not None:
            await self.space(sid, self._options.inbox_patience_s)

        def answer(ack: dict[str, Any]) -> None:
            if id is not None:
                self.enqueue(
                    eio_sid,
                    eio_packet.Packet(eio_packet.MESSAGE, f"{sio_packet.ACK}{id}{codec.dumps([ack])}"),
                )

        if self.take is not None:
            self.take(sid, data[0], data[1] if len(data) > 1 else None, answer)

    # --- sockets that never finish connecting ---

    async def _handle_eio_connect(self, eio_sid: str, environ: dict[str, Any]) -> None:
        await super()._handle_eio_connect(eio_sid, environ)
        self._arm(eio_sid)

    async def _handle_connect(self, eio_sid: str, namespace: str | None, data: Any) -> None:
        await super()._handle_connect(eio_sid, namespace, data)
        self._told.add(eio_sid)

    async def _handle_disconnect(self, eio_sid: str, namespace: str | None, reason: Any = None) -> None:
        await super()._handle_disconnect(eio_sid, namespace, reason)
        self._arm(eio_sid)

    async def _handle_eio_disconnect(self, eio_sid: str, reason: Any) -> None:
        try:
            await super()._handle_eio_disconnect(eio_sid, reason)
        finally:
            self._binary_packet.pop(eio_sid, None)
            self._told.discard(eio_sid)
            if handle := self._reapers.pop(eio_sid, None):
                handle.cancel()

    def _arm(self, eio_sid: str) -> None:
        if handle := self._reapers.pop(eio_sid, None):
            handle.cancel()
        self._reapers[eio_sid] = asyncio.get_running_loop().call_later(
            self._options.connect_timeout_s, self._reap, eio_sid
        )

    def _reap(self, eio_sid: str) -> None:
        self._reapers.pop(eio_sid, None)
        if self.manager.sid_from_eio_sid(eio_sid, "/") is None:
            if eio_sid in self._told:
                self.eio.abort(eio_sid)
            else:
                self.eio.dismiss(eio_sid, None)
