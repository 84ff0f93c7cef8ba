"""How this server parts from a client of its own accord: a word that says why, as far as it can still be read, then the end.

Best effort: what waits for a client that does not read is dropped, so that the goodbye is next behind what the network already has.
It gets a moment to take it, and is cut off then.
"""

import asyncio
from typing import Final

from engineio import packet as eio_packet
from socketio import packet as sio_packet

from chat.byes import SLOW, Bye, view_of
from chat.errors import ConnectTimeout
from server.realtime import codec
from server.realtime.server import RealtimeServer
from server.realtime.transport import RoomTransport

#: Refused after the fact: the packet that refuses a CONNECT is the only one that a client heeds before it is connected.
_NOT_CONNECTED: Final = f"{sio_packet.CONNECT_ERROR}" + codec.dumps(
    {
        "message": ConnectTimeout.detail,
        "data": {
            "code": ConnectTimeout.code,
            "message": ConnectTimeout.detail,
            "retryable": ConnectTimeout.retryable,
        },
    }
)


def bye_text(bye: Bye) -> str:
    """`server:bye` as a Socket.IO packet of the default namespace."""
    return f"{sio_packet.EVENT}{codec.dumps(['server:bye', view_of(bye)])}"


class Farewell:
    """Says goodbye once, and closes."""

    def __init__(self, server: RealtimeServer, transport: RoomTransport) -> None:
        self._server = server
        self._transport = transport
        self._closing: set[asyncio.Task[None]] = set()

    def __call__(self, eio_sid: str, bye: Bye | None) -> None:
        """Part from a client, `None` from one that never connected. Never waits; harmless when repeated."""
        socket = self._server.eio.sockets.get(eio_sid)
        if socket is None or socket.closed or socket.closing or socket.queue.leaving:
            return
        queue = socket.queue
        queue.leaving = True
        if bye is SLOW:
            queue.drop_waiting()
        if (text := self._last_word(eio_sid, bye)) is not None:
            queue.put_nowait(eio_packet.Packet(eio_packet.MESSAGE, text))
        task = asyncio.create_task(self._transport.close_socket(eio_sid, final=False))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _last_word(self, eio_sid: str, bye: Bye | None) -> str | None:
        if bye is None:
            return _NOT_CONNECTED
        if self._server.manager.sid_from_eio_sid(eio_sid, "/") is None:
            return None  # its library throws away events that come before it is connected
        return bye_text(bye)
