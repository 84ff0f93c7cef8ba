"""Two processes of one deployment in one: two socket servers over one message store, with a bus and presence of each its own."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import socketio
from aiohttp import web

from chat.calls.handlers import CallHandlers
from chat.calls.service import CallService
from chat.service import ChatService
from server.realtime import Realtime, SocketOptions
from server.realtime.redis_bus import RedisBus
from server.realtime.redis_presence import RedisPresence
from server.redis_client import RedisClient, open_redis
from server.storage.sqlite.engine import SqliteDatabase, SqliteOptions, open_database
from server.storage.sqlite.messages import SqliteMessageStore, open_message_store
from tests.integration.socket_world import (
    LAWYER,
    SESSION,
    USER,
    Client,
    Gate,
    ManualClock,
    authenticate,
)
from tests.support.calls import call_service

#: No sweep of its own accord: tests call it.
QUIET = SocketOptions(presence_grace_s=0.05, presence_sweep_s=3_600)

#: A dead connection is noticed after twice as long.
SILENCE_S = 0.2


@dataclass
class Process:
    """One of the two."""

    url: str
    realtime: Realtime
    chat: ChatService
    bus: RedisBus
    presence_store: RedisPresence
    redis: RedisClient
    calls: CallService
    gate: Gate
    clock: ManualClock
    runner: web.AppRunner
    clients: list[socketio.AsyncClient] = field(default_factory=list)

    async def connect(self, token: str) -> Client:
        client = Client(socketio.AsyncClient(reconnection=False))
        self.clients.append(client.sio)
        await client.sio.connect(self.url, auth={"token": token}, transports=["websocket"])
        return client

    async def joined(self, token: str, session_id: str = SESSION) -> Client:
        client = await self.connect(token)
        ack = await client.call("join_session", {"sessionId": session_id})
        assert ack["ok"], ack
        return client


@dataclass
class TwoWorlds:
    a: Process
    b: Process
    store: SqliteMessageStore


@asynccontextmanager
async def process_of(
    db: SqliteDatabase,
    store: SqliteMessageStore,
    redis_url: str,
    *,
    options: SocketOptions = QUIET,
    timeout_s: float = 1.0,
    settle_ms: int = 0,
) -> AsyncIterator[Process]:
    """A socket server as one process has it. `settle_ms`: 0 believes the presence store from the first answer on."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(open_redis(redis_url, timeout_s=timeout_s))
        bus = RedisBus(redis, silence_s=SILENCE_S)
        await bus.start()
        stack.push_async_callback(bus.stop)
        presence_store = RedisPresence(redis, settle_ms=settle_ms)
        realtime = Realtime(options, bus=bus, presence_store=presence_store)
        gate, clock = Gate(), ManualClock()
        chat = ChatService(store=store, gate=gate, push=realtime.push, clock=clock)
        calls = await call_service(db, realtime, chat=chat, gate=gate, clock=clock)
        handlers = CallHandlers(calls)
        app = web.Application()
        realtime.attach(
            app, chat=chat, authenticate=authenticate, handlers=handlers.by_name, call_of=handlers.rejoin
        )
        runner = web.AppRunner(app, shutdown_timeout=5)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        process = Process(
            f"http://127.0.0.1:{runner.addresses[0][1]}",
            realtime,
            chat,
            bus,
            presence_store,
            redis,
            calls,
            gate,
            clock,
            runner,
        )
        try:
            yield process
        finally:
            for client in process.clients:
                await client.disconnect()


@asynccontextmanager
async def two_worlds(
    directory: Path, redis_url_a: str, redis_url_b: str | None = None, *, settle_ms: int = 0
) -> AsyncIterator[TwoWorlds]:
    """Both on one Redis; each may reach it by a way of its own."""
    async with open_database(directory / "worlds.db", SqliteOptions(synchronous="OFF")) as db:
        store = await open_message_store(db)
        await store.open_conversation(SESSION, user_id=USER, lawyer_id=LAWYER, at_ms=1_000)
        async with (
            process_of(db, store, redis_url_a, settle_ms=settle_ms) as a,
            process_of(db, store, redis_url_b or redis_url_a, settle_ms=settle_ms) as b,
        ):
            yield TwoWorlds(a, b, store)
