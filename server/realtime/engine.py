"""Engine.IO as this server runs it: WebSocket only, small frames, a dead peer known in under 20 s."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import engineio
from aiohttp import web

from chat.byes import NO_PONG, SLOW, Bye
from server.realtime import codec
from server.realtime.options import SocketOptions
from server.realtime.outgoing import Outgoing
from server.realtime.turnstile import Turnstile
from server.realtime.websocket import WebSocket

_WEBSOCKET_ONLY: Final = (
    "This server speaks WebSocket only. Connect with the option transports: ['websocket'], "
    "for example io(url, { transports: ['websocket'], auth: { token } })."
)
_DRAINING: Final = "The server is restarting. Connect again in a moment."


class Engine(engineio.AsyncServer):  # type: ignore[misc]  # python-engineio ships no types
    """The connections of this process, below Socket.IO."""

    def __init__(self, options: SocketOptions) -> None:
        # Its own logger at ERROR: by default the library formats every packet and adds a handler of its own.
        logger = logging.getLogger("server.realtime.engineio")
        logger.setLevel(logging.ERROR)
        super().__init__(
            async_mode="aiohttp",
            transports=["websocket"],
            allow_upgrades=False,
            http_compression=False,
            ping_interval=options.ping_interval_s,
            ping_timeout=options.ping_timeout_s,
            max_http_buffer_size=options.max_frame_bytes,
            cors_allowed_origins=self._allowed,
            cors_credentials=False,
            # Its monitor wakes up thousands of times a second with 10,000 clients; `sweep` looks at all in
            # one go.
            monitor_clients=False,
            async_handlers=False,
            logger=logger,
            json=codec,
        )
        driver: dict[str, Any] = vars(self)["_async"]  # the module's own dictionary: copied, not changed
        self._async: dict[str, Any] = {**driver, "websocket": WebSocket}
        self._options = options
        self.links: dict[str, WebSocket] = {}
        self.draining = False
        #: Who comes and who goes passes here.
        self.door = Turnstile(options.at_the_door)
        #: Parts from a client: says why, where it may still be heard, and closes.
        self.dismiss: Callable[[str, Bye | None], None] = lambda eio_sid, _bye: self.abort(eio_sid)

    def create_queue(self, *_args: Any, **_kwargs: Any) -> Outgoing:
        """Each socket's queue of packets to send."""
        return Outgoing()

    async def handle_request(self, request: web.Request) -> web.StreamResponse:
        """The HTTP request that becomes a WebSocket; anything else is told what to do instead."""
        if self.draining:
            return self._problem(request, 503, "DRAINING", _DRAINING)
        if request.query.get("transport", "polling") != "websocket":
            return self._problem(request, 400, "WEBSOCKET_ONLY", _WEBSOCKET_ONLY)
        await self.door.enter()
        if self.draining:
            return self._problem(request, 503, "DRAINING", _DRAINING)
        response: web.StreamResponse = await super().handle_request(request)
        return response

    def _problem(self, request: web.Request, status: int, code: str, detail: str) -> web.Response:
        environ = self._async["translate_request"](request)
        return web.json_response(
            {"type": "about:blank", "title": code, "status": status, "code": code, "detail": detail},
            status=status,
            content_type="application/problem+json",
            headers=dict(self._cors_headers(environ)),
        )

    def _allowed(self, origin: str | None, environ: dict[str, Any]) -> bool:
        """Whether a browser page of this origin may connect: a listed one, or one that we served ourselves."""
        if origin is None:
            return True
        listed = self._options.cors_origins
        return origin in listed or "*" in listed or urlsplit(origin).netloc == environ.get("HTTP_HOST", "")

    def pulse(self, eio_sid: str) -> Callable[[], float]:
        """Tells how long ago the connection's last frame came (s); of one that is gone by now, that it was just now."""
        link = self.links.get(eio_sid)
        now_s = asyncio.get_running_loop().time
        return (lambda: 0.0) if link is None else (lambda: now_s() - link.heard_s)

    def abort(self, eio_sid: str) -> None:
        """Cut a connection. Its handler cleans up after it."""
        if link := self.links.get(eio_sid):
            link.abort()

    def sweep(self) -> int:
        """Part from the clients that take nothing, or no longer answer pings; how many there were."""
        cut = 0
        now_s = time.time()  # the library's own measure of a ping
        for eio_sid, socket in list(self.sockets.items()):
            asked_at_s = socket.last_ping
            if socket.queue.leaving:
                continue
            silent = asked_at_s is not None and now_s - asked_at_s > self.ping_timeout and socket.connected
            slow = socket.queue.stalled_s() > self._options.stall_s
            if slow or silent:
                self.dismiss(eio_sid, SLOW if slow else NO_PONG)
                cut += 1
        return cut

    def held_bytes(self) -> int:
        """What waits to be sent, over all connections."""
        return sum(socket.queue.held_bytes for socket in self.sockets.values())

    async def flush(self, patience_s: float) -> None:
        """Wait until everything queued was taken, or until patience ends."""
        try:
            async with asyncio.timeout(patience_s):
                while self.held_bytes():  # noqa: ASYNC110  an event would cost all day
                    await asyncio.sleep(0.01)
        except TimeoutError:
            return
