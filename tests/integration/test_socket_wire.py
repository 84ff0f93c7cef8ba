"""What aiohttp and Engine.IO do below the chat: compression, transports, origins, silent and slow clients.

These tests hold the internal APIs that `server/realtime` stands on; they fail when an upgrade changes them.
"""

import asyncio
import gc
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from server.realtime import SocketOptions
from tests.integration.socket_world import LAWYER, SESSION, STRANGER, USER, World, gone, raw, until, world


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as the_world:
        yield the_world


# --- the handshake ---


async def test_no_compression_is_negotiated_though_the_client_offers_it(w: World) -> None:
    """A compressing connection costs about 94 KiB more; aiohttp would agree to it by default."""
    async with raw(w.port, compress=15) as client:
        assert not client.ws.compress
        assert "Sec-WebSocket-Extensions" not in client.ws._response.headers
        await client.login()


@pytest.mark.parametrize(
    "query", ["?EIO=4&transport=polling", "?EIO=4", "", "?EIO=4&transport=polling&t=abc"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_client_that_polls_first_is_told_what_to_do(w: World, method: str, query: str) -> None:
    async with aiohttp.ClientSession() as session:
        answer = await session.request(method, f"{w.url}/socket.io/{query}")
        problem = await answer.json(content_type="application/problem+json")

    assert (answer.status, problem["code"]) == (400, "WEBSOCKET_ONLY")
    assert "transports: ['websocket']" in problem["detail"]


@pytest.mark.parametrize(
    "query", ["?EIO=4&transport=websocket", "?EIO=3&transport=websocket", "?transport=websocket&sid=x"]
)
async def test_what_is_no_websocket_handshake_is_refused(w: World, query: str) -> None:
    async with aiohttp.ClientSession() as session:
        answer = await session.get(f"{w.url}/socket.io/{query}")

    assert answer.status == 400
    assert w.realtime.server.eio.sockets == {}


async def test_a_broken_handshake_leaves_nothing_behind(w: World) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "no",
    }
    async with aiohttp.ClientSession() as session:
        answer = await session.get(f"{w.url}/socket.io/?EIO=4&transport=websocket", headers=headers)

    assert answer.status == 400
    server = w.realtime.server
    assert (server.eio.sockets, server.environ, server._reapers) == ({}, {}, {})


async def test_a_client_that_leaves_in_the_middle_of_its_handshake_is_no_error(
    w: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A phone in a lift does this a thousand times a day: a traceback each would bury what matters in the log."""
    left = asyncio.Event()

    async def leaves(request: web.Request, _response: web.StreamResponse) -> None:
        if request.transport is not None:
            request.transport.abort()
        left.set()

    monkeypatch.setattr(web.Request, "_prepare_hook", leaves)
    with caplog.at_level(logging.INFO), pytest.raises(aiohttp.ClientError):
        async with raw(w.port):
            pass
    await left.wait()
    await gone(w)
    assert not w.realtime.server.eio.sockets
    assert not w.realtime.server.environ
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("allowed", "origin", "welcome"),
    [
        ((), None, True),
        ((), "http://127.0.0.1:PORT", True),
        ((), "https://evil.example", False),
        (("https://app.example",), "https://app.example", True),
        (("https://app.example",), "http://127.0.0.1:PORT", True),
        (("https://app.example",), "https://app.example.evil.example", False),
        (("https://app.example",), "null", False),
        (("*",), "https://evil.example", True),
    ],
)
async def test_only_listed_origins_and_our_own_may_connect(
    tmp_path: Path, allowed: tuple[str, ...], origin: str | None, welcome: bool
) -> None:
    async with world(tmp_path, SocketOptions(cors_origins=allowed)) as w:
        headers = [("Origin", origin.replace("PORT", str(w.port)))] if origin else []
        if welcome:
            async with raw(w.port, headers) as client:
                await client.login()
        else:
            with pytest.raises(aiohttp.WSServerHandshakeError):
                async with raw(w.port, headers):
                    pass


@pytest.mark.parametrize(
    ("proxies", "header", "expected"),
    [
        (0, "6.6.6.6", "127.0.0.1"),
        (1, "6.6.6.6, 10.1.1.1", "10.1.1.1"),
        (2, "6.6.6.6, 10.1.1.1", "6.6.6.6"),
        (2, "10.1.1.1", "127.0.0.1"),
    ],
)
async def test_the_clients_address_is_the_one_that_our_own_proxies_saw(
    tmp_path: Path, proxies: int, header: str, expected: str
) -> None:
    async with (
        world(tmp_path, SocketOptions(trusted_proxies=proxies)) as w,
        raw(w.port, [("X-Forwarded-For", header)]) as client,
    ):
        await client.login()
        assert w.realtime.namespace is not None
        (connection,) = w.realtime.namespace.connections

        assert connection.remote == expected


# --- clients that do not go on ---


@pytest.mark.parametrize("last_word", [None, '40{"token":"nobody"}', "3"])
async def test_a_socket_that_never_finishes_connecting_is_closed(
    tmp_path: Path, last_word: str | None
) -> None:
    async with world(tmp_path, SocketOptions(connect_timeout_s=0.1)) as w, raw(w.port) as client:
        if last_word:
            await client.ws.send_str(last_word)

        while await client.frame():
            pass

        await gone(w)
        assert w.realtime.server.environ == {}


async def test_a_socket_that_leaves_the_chat_but_not_the_line_is_closed(tmp_path: Path) -> None:
    async with world(tmp_path, SocketOptions(connect_timeout_s=0.1)) as w, raw(w.port) as client:
        await client.login()
        async with raw(w.port) as later:
            while await later.frame():
                pass  # its time is up, so the first one's is too
        await client.ws.send_str("41")

        while await client.frame():
            pass

        await gone(w)


async def test_a_connected_socket_outlives_the_connect_timeout(tmp_path: Path) -> None:
    async with world(tmp_path, SocketOptions(connect_timeout_s=0.05)) as w:
        user = await w.joined(USER)
        async with raw(w.port) as other:
            while await other.frame():
                pass

        assert (await user.call("mark_seen", {"sessionId": SESSION}))["ok"]


async def test_a_silent_peer_is_noticed_by_its_missing_pong(tmp_path: Path) -> None:
    options = SocketOptions(ping_interval_s=0.1, ping_timeout_s=0.1, sweep_interval_s=0.05)
    async with world(tmp_path, options) as w, raw(w.port) as client:
        await client.login()
        assert (await client.ws.receive()).data == "2"

        # It still sends, so the line is alive; but nothing it says answers the ping.
        started_s = time.monotonic()
        while time.monotonic() - started_s < 5 and not client.ws.closed and len(w.realtime):
            await client.ws.send_str('421["typing",{"sessionId":"ses_1","isTyping":true}]')
            try:
                await client.ws.receive(timeout=0.02)
            except TimeoutError:
                continue

        await gone(w)
        assert time.monotonic() - started_s < 3


# --- clients that do not read ---


async def test_a_slow_client_is_spared_ticks_then_cut_and_costs_the_others_nothing(tmp_path: Path) -> None:
    options = SocketOptions(shed_bytes=64 * 1024, cut_bytes=256 * 1024, burst_s=0.05)
    async with world(tmp_path, options) as w, AsyncExitStack() as stack:
        user, lawyer = await w.joined(USER), await w.joined(LAWYER)
        stack.enter_context(closing(await never_reads(w)))
        big = {"padding": "x" * 10_000}

        engine = w.realtime.server.eio
        # The kernel's buffers take some megabytes first; when they are full, nothing moves any more.
        await until(lambda: full(w, "session:tick", big))
        assert w.realtime.server.shed, "ticks are dropped first"
        assert 64 * 1024 < engine.held_bytes() < 64 * 1024 + 11_000
        assert w.realtime.push.watching(STRANGER), "not yet cut"

        for _ in range(500):
            w.realtime.push.to_user(STRANGER, "session:ended", big)
        assert engine.held_bytes() < 4 * 256 * 1024 + 11_000, "memory has an end, also within one burst"
        await until(lambda: not w.realtime.push.watching(STRANGER))

        assert w.realtime.server.cut == 1
        assert engine.held_bytes() < 11_000, "what waited for it is dropped at once"
        await gone(w, left=2)
        await user.call("send_message", {"sessionId": SESSION, "body": "quick"})
        assert (await lawyer.hears("new_message"))[0]["body"] == "quick"


async def test_a_burst_does_not_cut_a_client_that_reads(tmp_path: Path) -> None:
    """One commit can bring hundreds of long messages at once: no fault of who receives them."""
    async with world(tmp_path, SocketOptions(cut_bytes=64 * 1024, burst_s=0.2)) as w:
        user = await w.joined(USER)
        for _ in range(20):
            w.realtime.push.to_user(USER, "session:ended", {"padding": "x" * 10_000})
        assert w.realtime.server.eio.held_bytes() > 3 * 64 * 1024

        await user.hears("session:ended", 20)
        await asyncio.sleep(0.25)

        assert w.realtime.push.watching(USER)
        assert w.realtime.server.cut == 0


async def test_a_client_that_takes_nothing_is_cut_however_little_waits(tmp_path: Path) -> None:
    options = SocketOptions(stall_s=0.2, sweep_interval_s=0.05, cut_bytes=64 * 1024 * 1024)
    async with world(tmp_path, options) as w, AsyncExitStack() as stack:
        stack.enter_context(closing(await never_reads(w)))
        for _ in range(2_000):
            w.realtime.push.to_user(STRANGER, "session:ended", {"padding": "x" * 10_000})

        await gone(w)

        assert w.realtime.server.cut == 1
        assert w.realtime.server.eio.sockets == {}


async def test_a_client_that_does_not_take_its_goodbye_is_cut_off(tmp_path: Path) -> None:
    options = SocketOptions(goodbye_s=0.1, shed_bytes=64 * 1024, cut_bytes=64 * 1024 * 1024)
    async with world(tmp_path, options) as w, AsyncExitStack() as stack:
        stack.enter_context(closing(await never_reads(w)))
        await until(lambda: full(w, "session:tick", {"padding": "x" * 10_000}))

        assert w.realtime.disconnect_user(STRANGER, code=3501, reason="ACCOUNT_DISABLED") == 1

        await gone(w)


async def test_a_deploy_does_not_wait_for_a_client_that_does_not_read(tmp_path: Path) -> None:
    options = SocketOptions(shed_bytes=64 * 1024, cut_bytes=64 * 1024 * 1024)
    async with world(tmp_path, options) as w, AsyncExitStack() as stack:
        stack.enter_context(closing(await never_reads(w)))
        await until(lambda: full(w, "session:tick", {"padding": "x" * 10_000}))
        started_s = time.monotonic()

        await w.realtime.shutdown()

        assert len(w.realtime) == 0
        assert time.monotonic() - started_s < 3


async def test_a_client_that_reads_owes_nothing(w: World) -> None:
    """The count must come back to zero, or every client would be cut in the end."""
    user = await w.joined(USER)
    for k in range(200):
        await user.call("send_message", {"sessionId": SESSION, "body": f"{k} नमस्ते 😀"})
    await user.hears("new_message", 200)

    await until(lambda: w.realtime.server.eio.held_bytes() == 0)
    assert w.realtime.server.cut == 0


# --- many ---


async def test_leaving_costs_the_same_however_many_rooms_there_are(w: World) -> None:
    """The library looks through all rooms: at 10,000 clients that is 1.85 ms of a frozen loop for each that
    leaves.
    """
    manager = w.realtime.server.manager
    sids = []
    for k in range(5_000):
        sid = await manager.pre_connect(f"eio_{k}", "/")
        await manager.connect(sid, "/")
        await manager.enter_room(sid, "/", f"u:{k}")
        await manager.enter_room(sid, "/", f"s:{k // 2}")
        sids.append(sid)
    assert set(manager.get_rooms(sids[0], "/")) == {sids[0], "u:0", "s:0"}

    started_s = time.perf_counter()
    for sid in sids:
        manager.pre_disconnect(sid, "/")
        await manager.disconnect(sid, "/")
    each_ms = (time.perf_counter() - started_s) * 1000 / len(sids)

    assert each_ms < 0.2, f"{each_ms:.3f} ms"
    assert manager.rooms == {}
    assert manager._rooms_of == {}


@pytest.mark.parametrize("how", ["breaks off", "closes", "says goodbye", "is told goodbye"])
async def test_who_is_gone_leaves_no_cycle_behind(w: World, how: str) -> None:
    """Cycles wait for the collector, which stopped the loop for a second after a few storms of 2,000 clients: every tick was late."""

    async def come_and_go(number: int) -> None:
        async with raw(w.port) as client:
            await client.login(f"many_{number}")
            await client.ws.send_str(f'421["join_session",{{"sessionId":"{SESSION}"}}]')
            await client.until("431")
            if how == "breaks off":
                transport = client.ws.get_extra_info("socket")
                assert transport is not None
                client.ws._response.close()
            elif how == "says goodbye":
                await client.ws.send_str("41")
                await client.ws.send_str("1")
            elif how == "is told goodbye":
                w.realtime.disconnect_user(f"many_{number}", code=3005, reason="RELOAD", reconnect=True)
                while await client.frame():
                    pass

    for number in range(3):
        await come_and_go(number)
    await gone(w)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for number in range(20):
            await come_and_go(number)
        await gone(w)
        await asyncio.sleep(0)
        gc.collect()
        left = [
            one
            for one in gc.garbage
            if type(one).__module__.startswith(("server.realtime", "aiohttp.web", "engineio"))
        ]
        assert left == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def test_who_comes_and_who_goes_passes_the_door(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a storm is taken in by one turn of the loop, and the ticks wait for its end."""
    passed = []
    door = w.realtime.server.eio.door
    enter = door.enter

    async def counted() -> None:
        passed.append(len(w.realtime))
        await enter()

    monkeypatch.setattr(door, "enter", counted)
    user = await w.connect(USER)
    assert passed == [0], "before anything is made for it"
    await user.sio.disconnect()
    await gone(w)
    assert passed == [0, 1], "before it is tidied up after"


async def test_entering_a_room_after_leaving_makes_no_room(w: World) -> None:
    await w.connect(USER)
    manager = w.realtime.server.manager
    before = set(manager.rooms["/"])

    with pytest.raises(ValueError, match="not connected"):
        await manager.enter_room("vanished", "/", "s:ses_1")

    assert set(manager.rooms["/"]) == before


# --- helpers ---


async def never_reads(w: World) -> socket.socket:
    """A stranger's WebSocket that stays open and takes nothing: a bare socket with a tiny buffer."""
    bare = socket.socket()
    bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    bare.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(bare, ("127.0.0.1", w.port))
    await loop.sock_sendall(
        bare,
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    )
    hello = f'40{{"token":"{STRANGER}"}}'.encode()
    # One masked text frame; the mask is zero.
    await loop.sock_sendall(bare, bytes([0x81, 0x80 | len(hello), 0, 0, 0, 0]) + hello)
    await until(lambda: w.realtime.push.watching(STRANGER))
    return bare


def full(w: World, event: str, payload: dict[str, str]) -> bool:
    """Send some more; whether nothing more is taken."""
    shed = w.realtime.server.shed
    for _ in range(20):
        w.realtime.push.to_user(STRANGER, event, payload)
    return w.realtime.server.shed == shed + 20
