"""The socket server as the composition root sees it: build, attach, shut down."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog
from aiohttp import web

from chat.namespace import CallOf, ChatNamespace, Handler
from chat.ports import Authenticate
from chat.presence import Presence, PresenceStore
from chat.push import Push
from chat.service import ChatService
from server.http.address import client_address
from server.realtime.bus import Bus
from server.realtime.farewell import Farewell
from server.realtime.options import SocketOptions
from server.realtime.server import RealtimeServer
from server.realtime.transport import RoomTransport

log = structlog.get_logger(__name__)

#: Sockets closed in one go at shutdown before the loop may do something else.
_BATCH: Final = 200
#: Told to the other processes: close a person's sockets.
_DISCONNECT: Final = "disconnect"


class Realtime:
    """Made first, since whoever tells clients something needs `push`; `attach` gives it the services it
    serves.
    """

    def __init__(
        self,
        options: SocketOptions | None = None,
        *,
        bus: Bus | None = None,
        presence_store: PresenceStore | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        is_alone: bool = True,
    ) -> None:
        """With a bus events reach the sockets of other processes, too, and theirs ours; with a store so does presence. The caller
        starts and stops them. `is_alone`: there is no other process where there is no store.
        """
        self.options = options or SocketOptions()
        self.server = RealtimeServer(self.options)
        self.transport = RoomTransport(self.server, goodbye_s=self.options.goodbye_s, bus=bus)
        self.server.eio.dismiss = Farewell(self.server, self.transport)
        #: The only way to send events to clients.
        self.push = Push(self.transport)
        #: Who looks at which session, and who is connected.
        self.presence = Presence(
            push=self.push,
            grace_s=self.options.presence_grace_s,
            store=presence_store,
            sweep_s=self.options.presence_sweep_s,
            keep_s=self.options.presence_keep_s,
            now_ms=now_ms,
            is_alone=is_alone,
        )
        self.transport.on_facts = self.presence.heard
        self._bus = bus
        if bus is not None:
            bus.on(_DISCONNECT, self._disconnect_as_told)
        self.namespace: ChatNamespace | None = None
        self._shut = False

    def attach(
        self,
        app: web.Application,
        *,
        chat: ChatService,
        authenticate: Authenticate,
        path: str = "socket.io",
        on_event: Callable[[str, str], None] = lambda _name, _outcome: None,
        handlers: Mapping[str, Handler] | None = None,
        call_of: CallOf | None = None,
    ) -> None:
        """Serve the chat at `path` of the application, from its start until its shutdown. Call once, before
        it starts. `handlers` serve the events of the table that are not the chat's own, by name.
        """
        self.namespace = ChatNamespace(
            chat=chat,
            authenticate=authenticate,
            push=self.push,
            transport=self.transport,
            presence=self.presence,
            remote_of=self._remote_of,
            waiting=self.options.inbox_waiting,
            under_way=self.options.inbox_under_way,
            on_event=on_event,
            handlers=handlers,
            limits=self.options.limits,
            call_of=call_of,
        )
        self.server.register_namespace(self.namespace)
        self.server.take = self.namespace.take
        self.server.unreadable = self.namespace.unreadable
        self.server.space = self.namespace.space
        app.router.add_route("*", f"/{path.strip('/')}/", self.server.eio.handle_request)
        app.cleanup_ctx.append(self._sweeping)
        app.on_shutdown.append(self._on_shutdown)

    def disconnect_user(
        self, user_id: str, *, family: str | None = None, code: int, reason: str, reconnect: bool = False
    ) -> int:
        """Close the person's sockets (with `family`: those of that login) after a `server:bye`, at every process that can be
        reached; how many there were here.
        """
        if self._bus is not None:
            facts = {
                "user": user_id,
                "family": family,
                "code": code,
                "reason": reason,
                "reconnect": reconnect,
            }
            self._bus.tell(_DISCONNECT, facts)
        return self._disconnect(user_id, family=family, code=code, reason=reason, reconnect=reconnect)

    def _disconnect_as_told(self, facts: Mapping[str, Any]) -> None:
        self._disconnect(
            facts["user"],
            family=facts["family"],
            code=facts["code"],
            reason=facts["reason"],
            reconnect=facts["reconnect"],
        )

    def _disconnect(
        self, user_id: str, *, family: str | None, code: int, reason: str, reconnect: bool
    ) -> int:
        if self.namespace is None:
            return 0
        return self.namespace.disconnect_user(
            user_id, family=family, code=code, reason=reason, reconnect=reconnect
        )

    def __len__(self) -> int:
        """Open sockets, connected or still connecting."""
        return len(self.server.eio.links)

    async def shutdown(self) -> None:
        """Say goodbye, finish what was taken, flush, close in batches, cut off the rest: about three seconds
        at worst.

        Left to themselves the sockets would stay open and aiohttp would wait a minute for them. Harmless when
        repeated.
        """
        if self._shut:
            return
        self._shut = True
        engine = self.server.eio
        engine.draining = True
        self.presence.closing()
        open_at_first = len(self)
        if self.namespace is not None:
            # Whatever is not stored by then was not acknowledged either: its sender repeats it elsewhere.
            with suppress(TimeoutError):
                await asyncio.wait_for(self.namespace.drain(), 0.8)
        await engine.flush(0.5)
        for n, eio_sid in enumerate(list(engine.links)):
            await self.transport.close_socket(eio_sid, final=False)
            if n % _BATCH == _BATCH - 1:
                await asyncio.sleep(0)
        # Who has not gone by then was cut off (`RoomTransport.close_socket`).
        await self._gone(self.options.goodbye_s + 0.5)
        if open_at_first:
            log.info("sockets_closed", sockets=open_at_first, left=len(self))

    async def _gone(self, patience_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while self.server.eio.links:  # noqa: ASYNC110  as in `Engine.flush`
                    await asyncio.sleep(0.01)

    async def _on_shutdown(self, _app: web.Application) -> None:
        await self.shutdown()

    async def _sweeping(self, _app: web.Application) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._sweep()), asyncio.create_task(self.presence.run())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.presence.stop()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.options.sweep_interval_s)
            try:
                self.server.cut += self.server.eio.sweep()
            except Exception:
                log.exception("sweep_failed")

    def _remote_of(self, environ: Mapping[str, Any]) -> str:
        """The client's address. The library's own REMOTE_ADDR is always 127.0.0.1."""
        request: web.Request = environ["aiohttp.request"]
        return client_address(request, self.options.trusted_proxies)
