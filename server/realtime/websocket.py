"""The WebSocket under Engine.IO: no compression, bytes counted, and a way to cut it off.

aiohttp negotiates permessage-deflate by default (about 94 KiB a connection) and Engine.IO passes no switch
through; so its driver's WebSocket is replaced by this one. Internal API of both:
`tests/integration/test_socket_wire.py` holds it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from aiohttp import WSCloseCode, WSMsgType, web

from chat.byes import BAD_PACKET, TOO_LARGE

if TYPE_CHECKING:
    from server.realtime.engine import Engine

#: Engine.IO packet types; a text frame starts with one of them.
_TYPES: Final = frozenset("0123456")
_CLOSE, _PONG, _MESSAGE = "1", "3", "4"
#: How long a client may take to answer our closing frame.
_CLOSE_TIMEOUT_S: Final = 2.0
#: How long what comes after a bad frame is read and thrown away.
_LINGER_S: Final = 0.25
#: A status that nobody will read.
_CLIENT_GONE: Final = 499


#: Why aiohttp closes by itself: what came was no frame, no text, or too much.
_FAULTS: Final = frozenset(
    {
        WSCloseCode.PROTOCOL_ERROR,
        WSCloseCode.INVALID_TEXT,
        WSCloseCode.MESSAGE_TOO_BIG,
        WSCloseCode.UNSUPPORTED_DATA,
    }
)


class BadFrame(OSError):
    """What came is a frame and means nothing."""


class _Response(web.WebSocketResponse):
    """aiohttp's, and a word before it closes because of what came."""

    def __init__(self, *, before_fault: Callable[[int], Coroutine[Any, Any, None]], **options: Any) -> None:
        super().__init__(**options)
        self._before_fault: Callable[[int], Coroutine[Any, Any, None]] | None = before_fault
        self._told: asyncio.Task[None] | None = None

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        if code in _FAULTS and not self.closed and self._before_fault is not None:
            self._told = self._told or asyncio.ensure_future(self._before_fault(code))
            await asyncio.shield(self._told)
        return await super().close(code=code, message=message, drain=drain)

    def let_go(self) -> None:
        """Forget what refers back to this: what ended it, with its frames, and who listens.

        Otherwise each connection leaves a cycle, and after a few thousand of them the collector stops the loop for a second.
        """
        self._before_fault = self._exception = None
        if self._reader is not None and (exc := self._reader.exception()) is not None:
            exc.__traceback__ = exc.__context__ = None


class WebSocket:
    """One client's WebSocket, as Engine.IO wants to see it: call, wait, send, close."""

    def __init__(self, handler: Callable[[Any], Awaitable[None]], engine: "Engine") -> None:
        self._engine = engine
        #: The Engine.IO socket that this one belongs to.
        self._socket: Any = handler.__self__  # type: ignore[attr-defined]
        self._sock: web.WebSocketResponse | None = None
        self._request: web.Request | None = None
        #: When the last frame came, of whatever kind, in seconds of the loop's clock.
        self.heard_s = asyncio.get_running_loop().time()
        self._close_code: int = WSCloseCode.OK

    async def __call__(self, environ: dict[str, Any]) -> web.StreamResponse:
        """Serve the connection until it ends, and leave nothing of it behind however it ends."""
        sid: str = self._socket.sid
        self._request = environ["aiohttp.request"]
        self._sock = _Response(
            before_fault=self._say_why,
            compress=False,
            max_msg_size=self._engine.max_http_buffer_size,
            timeout=_CLOSE_TIMEOUT_S,
        )
        try:
            await self._sock.prepare(self._request)
            self._engine.links[sid] = self
            await self._serve()
        except ConnectionResetError:
            # It left in the middle of its handshake: nobody to answer, nothing to log.
            return web.Response(status=_CLIENT_GONE)
        finally:
            self._engine.links.pop(sid, None)
            self._socket.queue.put_nowait(None)  # a writer that is still waiting would wait for ever
            if not self._socket.closed:
                await self._socket.close(wait=False, abort=True, reason=self._engine.reason.TRANSPORT_ERROR)
            self._engine.sockets.pop(sid, None)
            self._sock.let_go()
            self._request = None
        return self._sock

    async def _serve(self) -> None:
        """Read and write until one of both ends.

        Instead of the library's own loop, which starts two tasks and a timer for each frame it reads, and one of each for what
        it writes: a third of a message's whole cost. Who falls silent is found by `Engine.sweep`.
        """
        socket = self._socket
        socket.connected = socket.upgraded = True
        writing = asyncio.create_task(self._write())
        await self._read()
        # A thousand lines that break in one instant are tidied up after a few at a time.
        await self._engine.door.enter()
        socket.queue.put_nowait(None)
        await writing
        await socket.close(wait=False, abort=True, reason=self._engine.reason.TRANSPORT_CLOSE)

    async def _read(self) -> None:
        sid, take = self._socket.sid, self._engine.handlers["message"]
        now_s = asyncio.get_running_loop().time
        while True:
            try:
                frame = await self.wait()
            except BadFrame:
                self._engine.dismiss(sid, BAD_PACKET)
                return
            except (OSError, RuntimeError):
                return
            self.heard_s = now_s()
            if isinstance(frame, bytes):
                await take(sid, frame)
            elif frame[0] == _MESSAGE:
                await take(sid, frame[1:])
            elif frame[0] == _PONG:
                self._socket.schedule_ping()
            elif frame[0] == _CLOSE:
                reason = self._engine.reason.CLIENT_DISCONNECT
                await self._socket.close(wait=False, abort=True, reason=reason)
                return

    async def _write(self) -> None:
        queue = self._socket.queue
        with suppress(OSError, RuntimeError):
            while (packet := await queue.get()) is not None:
                queue.task_done()
                await self.send(packet.encode())
        await self.close()

    async def wait(self) -> str | bytes:
        """The next frame. Raises `OSError` when there will be none, `BadFrame` when it means nothing."""
        if self._sock is None:
            raise OSError("not connected")
        message = await self._sock.receive()
        data = message.data
        if message.type is WSMsgType.CLOSE:
            # The client's own closing frame, all that a closed page says. A line that breaks says nothing.
            self.heard_s = asyncio.get_running_loop().time()
        if isinstance(data, bytes) or (isinstance(data, str) and data[:1] in _TYPES and data):
            return data
        raise BadFrame("not an Engine.IO frame") if isinstance(data, str) else OSError("closed")

    async def _say_why(self, code: int) -> None:
        """It is about to be closed by aiohttp, whose closing frame has no words: ours goes first, if the client takes it soon."""
        queue = self._socket.queue
        self._close_code = code
        self._engine.dismiss(
            self._socket.sid, TOO_LARGE if code == WSCloseCode.MESSAGE_TOO_BIG else BAD_PACKET
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                while queue.held_bytes:  # noqa: ASYNC110  as in `Engine.flush`
                    await asyncio.sleep(0.005)
        # It is still sending the rest: closing now would answer that with a reset, which takes our word with it.
        await asyncio.sleep(_LINGER_S)

    async def send(self, frame: str | bytes) -> None:
        """Hand a frame to the network; returns when it was taken."""
        if self._sock is None:
            raise OSError("not connected")
        if isinstance(frame, bytes):
            await self._sock.send_bytes(frame)
        else:
            await self._sock.send_str(frame)
        self._socket.queue.sent(frame)

    async def close(self) -> None:
        if self._sock is not None:
            await self._sock.close(code=self._close_code)

    def abort(self) -> None:
        """Drop the connection without waiting for a client that does not read."""
        if self._request is not None and self._request.transport is not None:
            self._request.transport.abort()
