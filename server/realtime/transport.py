"""`chat.ports.Transport` on our Socket.IO server: an encoded packet is put on each socket's queue.

Instead of the library's emit, which starts a task for every recipient and can run a dead client's disconnect
handler inside the caller. Here nothing is awaited, so the order of calls is the order on every socket.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from engineio import packet as eio_packet
from socketio import packet as sio_packet

from server.realtime import codec
from server.realtime.server import RealtimeServer


class RoomTransport:
    """Sends to rooms of the default namespace of this process."""

    def __init__(self, server: RealtimeServer, *, goodbye_s: float) -> None:
        self._server = server
        self._goodbye_s = goodbye_s
        self._closing: set[asyncio.Task[None]] = set()

    def send(
        self,
        room: str,
        event: str,
        payload: Mapping[str, Any],
        *,
        ephemeral: bool = False,
        skip: str | None = None,
    ) -> None:
        """See the port. Encoded once, however many are in the room."""
        members = self._server.manager.members(room)
        if not members:
            return
        packet = eio_packet.Packet(eio_packet.MESSAGE, f"{sio_packet.EVENT}{codec.dumps([event, payload])}")
        for sid, eio_sid in members:
            if sid != skip:
                self._server.enqueue(eio_sid, packet, ephemeral=ephemeral)

    def occupied(self, room: str) -> bool:
        return bool(self._server.manager.members(room))

    def close(self, sid: str, *, final: bool) -> None:
        """See the port."""
        eio_sid = self._server.manager.eio_sid_from_sid(sid, "/")
        if eio_sid is not None:
            task = asyncio.create_task(self.close_socket(eio_sid, final=final))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close_socket(self, eio_sid: str, *, final: bool) -> None:
        """Send what is queued, then the library's goodbye, then close; a client that does not go is cut off."""
        socket = self._server.eio.sockets.get(eio_sid)
        if socket is None:
            return
        if final:
            # The client's library takes this for "do not come back"; a closed transport it would reconnect.
            self._server.enqueue(eio_sid, eio_packet.Packet(eio_packet.MESSAGE, str(sio_packet.DISCONNECT)))
        # No Engine.IO CLOSE packet: python-socketio's client takes it for "do not come back", whatever we
        # mean.
        await socket.close(wait=False, abort=True, reason=self._server.eio.reason.SERVER_DISCONNECT)
        socket.queue.put_nowait(None)  # after the last packet the writer ends and closes the WebSocket
        asyncio.get_running_loop().call_later(self._goodbye_s, self._server.eio.abort, eio_sid)
