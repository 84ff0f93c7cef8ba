"""`chat.ports.Transport` on our Socket.IO server: an encoded packet is put on each socket's queue.

Instead of the library's emit, which starts a task for every recipient and can run a dead client's disconnect
handler inside the caller. Here nothing is awaited, so the order of calls is the order on every socket. With a
bus, what is sent to a session or a person goes to the other processes, too, encoded once; what they send is
put on our sockets and goes no further.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from engineio import packet as eio_packet
from socketio import packet as sio_packet

from chat.errors import Unavailable
from chat.push import DEVICES, PEOPLE, SESSIONS, EmptyTarget, device_room
from server.realtime import codec
from server.realtime.bus import Bus
from server.realtime.server import RealtimeServer

#: What a message on the bus is: a packet that must arrive or one that may be dropped, both after the sid that does not
#: get it and a line break; or facts for the process itself.
_KEPT: Final = b"k"
_EPHEMERAL: Final = b"e"
_FACTS: Final = b"f"
#: How long a join waits until other processes are heard. Without them it goes on: `lastSeq` in every tick heals.
_HEARS_S: Final = 0.5


class RoomTransport:
    """Sends to rooms of the default namespace."""

    def __init__(self, server: RealtimeServer, *, goodbye_s: float, bus: Bus | None = None) -> None:
        self._server = server
        self._goodbye_s = goodbye_s
        self._bus = bus
        self._closing: set[asyncio.Task[None]] = set()
        #: Hears (room, facts) of other processes' `tell_processes`.
        self.on_facts: Callable[[str, Mapping[str, Any]], None] | None = None
        if bus is not None:
            bus.take = self._take
            server.manager.on_occupied = self._occupied

    def send(
        self,
        room: str,
        event: str,
        payload: Mapping[str, Any],
        *,
        ephemeral: bool = False,
        skip: str | None = None,
        here_only: bool = False,
    ) -> None:
        """See the port. Encoded once, however many are in the room."""
        if not room:
            raise EmptyTarget("the library takes no room for every client")
        bus = self._bus if not here_only and _is_shared(room) else None
        members = self._server.manager.members(room)
        if not members and bus is None:
            return
        text = f"{sio_packet.EVENT}{codec.dumps([event, payload])}"
        self._deliver(members, text, ephemeral=ephemeral, skip=skip)
        if bus is not None:
            kind = _EPHEMERAL if ephemeral else _KEPT
            bus.publish(room, b"%b%b\n%b" % (kind, (skip or "").encode(), text.encode()))

    def _deliver(
        self, members: list[tuple[str, str]], text: str, *, ephemeral: bool, skip: str | None
    ) -> None:
        packet = eio_packet.Packet(eio_packet.MESSAGE, text)
        for sid, eio_sid in members:
            if sid != skip:
                self._server.enqueue(eio_sid, packet, ephemeral=ephemeral)

    def tell_processes(self, room: str, facts: Mapping[str, Any]) -> None:
        if self._bus is not None and _is_shared(room):
            self._bus.publish(room, _FACTS + codec.dumps(facts).encode())

    async def hears(self, room: str) -> None:
        if self._bus is not None:
            await self._bus.subscribed(room, patience_s=_HEARS_S)

    async def bind(self, sid: str) -> None:
        """`chat.calls.ports.Devices`: the socket gets a room of its own, which other processes can send to."""
        room = device_room(sid)
        try:
            await self._server.enter_room(sid, room, namespace="/")
        except (KeyError, ValueError) as exc:
            raise Unavailable(reason="the connection is gone") from exc
        await self.hears(room)

    @property
    def reaches_beyond(self) -> bool:
        return self._bus is not None

    def _take(self, room: str, message: bytes) -> None:
        """What another process sent to a room. A kind that only a newer version knows is left alone."""
        if not _is_shared(room):
            raise EmptyTarget(f"nothing but sessions, people and devices is told by others, not {room!r}")
        kind, rest = message[:1], message[1:]
        if kind in (_KEPT, _EPHEMERAL):
            skip, _, text = rest.partition(b"\n")
            members = self._server.manager.members(room)
            self._deliver(members, text.decode(), ephemeral=kind == _EPHEMERAL, skip=skip.decode() or None)
        elif kind == _FACTS and self.on_facts is not None:
            self.on_facts(room, codec.loads(rest))

    def _occupied(self, room: str, is_occupied: bool) -> None:
        if self._bus is not None and _is_shared(room):
            if is_occupied:
                self._bus.subscribe(room)
            else:
                self._bus.unsubscribe(room)

    def occupied(self, room: str) -> bool:
        return bool(self._server.manager.members(room))

    def pulse(self, sid: str) -> Callable[[], float]:
        return self._server.eio.pulse(self._server.manager.eio_sid_from_sid(sid, "/"))  # type: ignore[no-any-return]  # untyped

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


def _is_shared(room: str) -> bool:
    """Whether other processes may have sockets in it: a session, a person or a device in a call, with a name."""
    return room.startswith((SESSIONS, PEOPLE, DEVICES)) and bool(room[len(SESSIONS) :].strip())
