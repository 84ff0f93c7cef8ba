"""A real aiohttp server with the real socket server and message store on a loopback port, and clients for it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import socketio
from aiohttp import web

from chat.calls.handlers import CallHandlers
from chat.calls.service import CallService
from chat.connections import Connection
from chat.consult_events import CLIENT_CONSULT_EVENTS
from chat.errors import NotFound, Unauthenticated, Unavailable
from chat.ports import Principal
from chat.service import ChatService
from chat.token_refresh import TokenRefresh
from server.realtime import Realtime, SocketOptions
from server.storage.sqlite.engine import SqliteOptions, open_database
from server.storage.sqlite.messages import SqliteMessageStore, open_message_store
from tests.support.calls import call_service

SESSION = "ses_1"
USER = "usr_1"
LAWYER = "law_1"
STRANGER = "usr_2"

#: Nothing here should take this long; it only ends a test that hangs.
PATIENCE_S = 5


class Gate:
    """Billing's answers, set by the test."""

    def __init__(self) -> None:
        self.open: set[str] = {SESSION}
        self.paused: set[str] = set()
        self.asked: list[tuple[str, str]] = []

    def is_open(self, session_id: str) -> bool:
        return session_id in self.open

    def is_paused(self, session_id: str) -> bool:
        return session_id in self.paused

    async def look(self, session_id: str) -> bool:
        return self.is_open(session_id)

    async def state(self, session_id: str, viewer_id: str) -> dict[str, Any]:
        self.asked.append((session_id, viewer_id))
        return {
            "sessionId": session_id,
            "elapsedSeconds": 5,
            "totalAmount": "5.00",
            "walletBalance": "95.00" if viewer_id == USER else None,
            "currency": "INR",
            "ratePerMinute": "60.00",
            "remainingSeconds": 95,
            "paidUntil": None,
            "status": "ACTIVE" if session_id in self.open else "ENDED",
            "reason": None,
            "lastSeq": 0,
        }


async def _nothing(_connection: Connection, _request: Any) -> Any:
    raise NotFound


class ManualClock:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def now_ms(self) -> int:
        self.ms += 1
        return self.ms


def authenticate(token: str) -> Principal:
    """`id` or `id/family`, for the people of this world."""
    user_id, _, family = token.partition("/")
    if user_id == "crash":
        raise RuntimeError("a broken verifier")
    if user_id == "typeerror":
        raise TypeError("which would call a handler of the library twice")
    if user_id not in {USER, LAWYER, STRANGER} and not user_id.startswith("many_"):
        raise Unauthenticated
    return Principal(user_id, "LAWYER" if user_id == LAWYER else "USER", family or None)


#: When every token of this world expires.
EXPIRES_MS = 1_767_225_600_000


async def renew(token: str) -> tuple[Principal, int]:
    if token == "away":
        raise Unavailable
    return authenticate(token), EXPIRES_MS


@dataclass
class World:
    url: str
    port: int
    realtime: Realtime
    chat: ChatService
    store: SqliteMessageStore
    gate: Gate
    clock: ManualClock
    runner: web.AppRunner
    calls: CallService
    clients: list[socketio.AsyncClient] = field(default_factory=list)

    async def connect(self, token: str, **options: Any) -> "Client":
        client = Client(socketio.AsyncClient(reconnection=False, **options))
        self.clients.append(client.sio)
        await client.sio.connect(self.url, auth={"token": token}, transports=["websocket"])
        return client

    async def joined(self, token: str, session_id: str = SESSION) -> "Client":
        client = await self.connect(token)
        ack = await client.call("join_session", {"sessionId": session_id})
        assert ack["ok"], ack
        return client

    async def open(self, session_id: str = SESSION, *, user_id: str = USER, lawyer_id: str = LAWYER) -> None:
        await self.store.open_conversation(session_id, user_id=user_id, lawyer_id=lawyer_id, at_ms=1_000)
        self.gate.open.add(session_id)


class Client:
    """A Socket.IO client that remembers what it was told."""

    def __init__(self, sio: socketio.AsyncClient) -> None:
        self.sio = sio
        self.events: list[tuple[str, Any]] = []
        self._news = asyncio.Event()
        self.gone = asyncio.Event()
        self.goodbye: Any = None
        sio.on("*", self._take)
        sio.on("disconnect", self._left)

    async def _take(self, event: str, *args: Any) -> None:
        self.events.append((event, args[0] if args else None))
        self._news.set()

    async def _left(self, reason: Any = None) -> None:
        self.goodbye = reason
        self.gone.set()

    async def call(self, event: str, payload: Any = None) -> Any:
        return await self.sio.call(event, payload, timeout=PATIENCE_S)

    async def tell(self, event: str, payload: Any = None) -> None:
        """Without asking for an acknowledgement."""
        await self.sio.emit(event, payload)

    def told(self, event: str) -> list[Any]:
        return [payload for name, payload in self.events if name == event]

    async def hears(self, event: str, count: int = 1) -> list[Any]:
        """The payloads of `event`, once there are `count` of them."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.told(event)) < count:
                self._news.clear()
                await self._news.wait()
        return self.told(event)


@asynccontextmanager
async def world(tmp_path: Path, options: SocketOptions | None = None) -> AsyncIterator[World]:
    async with open_database(tmp_path / "world.db", SqliteOptions(synchronous="OFF")) as db:
        store = await open_message_store(db)
        realtime = Realtime(options)
        gate, clock = Gate(), ManualClock()
        chat = ChatService(store=store, gate=gate, push=realtime.push, clock=clock)
        calls = await call_service(db, realtime, chat=chat, gate=gate, clock=clock)
        handlers = CallHandlers(calls)
        app = web.Application()
        # Who asks whom is billing's business, and there is none here: to everybody else's events there is nothing.
        elsewhere = {event.name: _nothing for event in CLIENT_CONSULT_EVENTS}
        realtime.attach(
            app,
            chat=chat,
            authenticate=authenticate,
            handlers={"auth:refresh": TokenRefresh(renew), **handlers.by_name, **elsewhere},
            call_of=handlers.rejoin,
        )
        runner = web.AppRunner(app, shutdown_timeout=5)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        the_world = World(f"http://127.0.0.1:{port}", port, realtime, chat, store, gate, clock, runner, calls)
        await the_world.open()
        try:
            yield the_world
        finally:
            for client in the_world.clients:
                await client.disconnect()
            await runner.cleanup()


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that has no event of its own: the server's tidying up."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  there is nothing to wait on
            await asyncio.sleep(0.005)


async def gone(w: World, *, left: int = 0) -> None:
    """Until no more than `left` sockets are open."""
    await until(lambda: len(w.realtime) <= left)


class Raw:
    """A bare WebSocket, for what a proper client library would never send."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def frame(self) -> str:
        """The next text frame, pings answered on the way. '' when the connection has ended."""
        while True:
            message = await asyncio.wait_for(self.ws.receive(), PATIENCE_S)
            if message.type is not aiohttp.WSMsgType.TEXT:
                return ""
            if message.data == "2":
                await self.ws.send_str("3")
                continue
            return str(message.data)

    async def until(self, prefix: str) -> str:
        """The next frame that starts with `prefix`, or '' at the end."""
        while frame := await self.frame():
            if frame.startswith(prefix):
                return frame
        return ""

    async def login(self, token: str = USER) -> None:
        assert (await self.frame()).startswith("0{")
        await self.ws.send_str(f'40{{"token":"{token}"}}')
        assert (await self.frame()).startswith("40{")


@asynccontextmanager
async def raw(port: int, headers: Iterable[tuple[str, str]] = (), **options: Any) -> AsyncIterator[Raw]:
    url = f"http://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, headers=dict(headers), **options) as ws,
    ):
        yield Raw(ws)
