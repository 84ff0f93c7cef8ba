"""Wherever the server closes a connection of its own accord it says why first, as far as a client can still read it."""

import ast
import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from chat.byes import BAD_PACKET, NO_PONG, SLOW, TOO_LARGE, Bye
from chat.events import SERVER_EVENTS
from server.realtime import SocketOptions
from tests.integration.socket_world import (
    LAWYER,
    PATIENCE_S,
    SESSION,
    STRANGER,
    USER,
    Raw,
    World,
    gone,
    raw,
    until,
    world,
)
from tests.integration.test_socket_wire import full, never_reads

ROOT = Path(__file__).parents[2]
#: What can end a connection, in the code that serves them, and how many places there are. Each of them is held by a test of this
#: file, of `test_socket_rules.py` (logging out, disabling, draining) or of `test_socket_pace.py` (floods).
ENDS = {
    # _cut_if_lagging, what breaks the protocol, what cannot be read, who never connected
    "server/realtime/server.py": {"dismiss": 4, "abort": 1},
    # its default until there is somebody to say goodbye, and the sweep
    "server/realtime/engine.py": {"abort": 2, "dismiss": 1},
    # a frame of no kind, and what aiohttp does not take
    "server/realtime/websocket.py": {"dismiss": 2, "abort": 1},
    # after the goodbye
    "server/realtime/transport.py": {"abort": 1, "close_socket": 1},
    "server/realtime/farewell.py": {"close_socket": 1},
    "server/realtime/realtime.py": {"close_socket": 1},
    "server/realtime/outgoing.py": {},
    "server/realtime/rooms.py": {},
    # a flood, and a log-in that ended
    "chat/namespace.py": {"close": 2},
}


def test_every_place_that_ends_a_connection_is_known() -> None:
    """A new one fails here until it has a goodbye and a test."""
    for path, known in ENDS.items():
        found: dict[str, int] = {}
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if not isinstance(node, ast.Attribute):
                continue
            name, of = node.attr, ast.unparse(node.value)
            if name in {"dismiss", "abort", "close_socket"} or (name, of) == ("close", "self._transport"):
                is_call = not isinstance(node.ctx, ast.Store)
                found[name] = found.get(name, 0) + is_call
        assert {name: count for name, count in found.items() if count} == known, path


async def last_words(client: Raw) -> list[dict[str, Any]]:
    """What was said until the end."""
    byes = []
    while frame := await client.frame():
        if frame.startswith('42["server:bye"'):
            byes.append(json.loads(frame[2:])[1])
    return byes


def assert_bye(view: dict[str, Any], bye: Bye) -> None:
    SERVER_EVENTS["server:bye"].payload.model_validate(view)
    assert bye.wait_ms is not None
    assert (view["code"], view["reason"], view["reconnect"]) == (bye.code, bye.reason, True)
    assert bye.wait_ms[0] <= view["retryAfterMs"] <= bye.wait_ms[1]


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as the_world:
        yield the_world


# --- what came was no Socket.IO ---


@pytest.mark.parametrize(
    "frame",
    ["x", "9", "🎈", "4x", '42["unfinished"', "42{}", "42[]", '4512-["send_message"]', '451-["x",{"_placeholder":true,"num":0}]|text'],
    ids=["no packet", "no type", "emoji", "no socket packet", "half an event", "no event", "no name", "twelve attachments",
         "text for an attachment"],
)  # fmt: skip
async def test_a_frame_that_means_nothing_is_answered_with_a_reason(w: World, frame: str) -> None:
    user = await w.joined(LAWYER)
    async with raw(w.port) as client:
        await client.login()
        for part in frame.split("|"):
            await client.ws.send_str(part)
        # What comes after it is not looked at any more.
        await client.ws.send_str(f'427["send_message",{{"sessionId":"{SESSION}","body":"too late"}}]')
        (bye,) = await last_words(client)
        assert_bye(bye, BAD_PACKET)
    await gone(w, left=1)
    assert await w.store.last_seq(SESSION) == 0
    assert (await user.call("send_message", {"sessionId": SESSION, "body": "still fine"}))["ok"]


@pytest.mark.parametrize("kind", ["too large", "too large in parts", "no text", "a reserved bit"])
async def test_a_frame_that_is_not_read_is_answered_with_a_reason(w: World, kind: str) -> None:
    async with raw(w.port) as client:
        await client.login()
        writer = client.ws._writer
        assert writer is not None
        if kind == "too large":
            await client.ws.send_str("42" + "x" * 600_000)
        elif kind == "too large in parts":
            assert writer.transport is not None
            # A text frame that goes on, twice: neither is too large alone.
            for opcode in (0x01, 0x00):
                writer.transport.write(bytes([opcode, 0xFE, 0xFF, 0xFF, 0, 0, 0, 0]) + b"4" * 65_535)
            for _ in range(2):
                writer.transport.write(bytes([0x00, 0xFE, 0xFF, 0xFF, 0, 0, 0, 0]) + b"4" * 65_535)
        elif kind == "no text":
            await writer.send_frame(b"42\xff\xfe", WSMsgType.TEXT)
        else:
            assert writer.transport is not None
            writer.transport.write(bytes([0xF1, 0x81, 0, 0, 0, 0]) + b"4")
        (bye,) = await last_words(client)
        assert_bye(bye, TOO_LARGE if kind.startswith("too large") else BAD_PACKET)
    await gone(w)


async def test_a_bad_frame_before_the_connect_ends_without_an_event(w: World) -> None:
    """A library throws away events that come before it is connected."""
    async with raw(w.port) as client:
        await client.frame()
        await client.ws.send_str("x")
        assert await client.frame() == ""
    await gone(w)


# --- who does not go on ---


async def never_connects(client: Raw) -> None: ...


async def is_refused(client: Raw) -> None:
    await client.ws.send_str('40{"token":"nobody"}')


async def knocks_at_another_door(client: Raw) -> None:
    await client.ws.send_str('40/admin,{"token":"usr_1"}')


async def answers_pings_alone(client: Raw) -> None:
    await client.ws.send_str("3")


async def half_an_attachment(client: Raw) -> None:
    await client.ws.send_str('451-["x",{"_placeholder":true,"num":0}]')


async def leaves(client: Raw) -> None:
    await client.ws.send_str('40{"token":"usr_1"}')
    await client.until("40")
    await client.ws.send_str("41")


@pytest.mark.parametrize(
    ("does", "hears"),
    [
        (never_connects, ["CONNECT_TIMEOUT"]),
        (answers_pings_alone, ["CONNECT_TIMEOUT"]),
        (half_an_attachment, []),
        (is_refused, ["UNAUTHENTICATED"]),
        (knocks_at_another_door, [None]),
        (leaves, []),
    ],
)
async def test_who_never_finishes_connecting_is_told_once_and_closed(
    tmp_path: Path, does: Callable[[Raw], Any], hears: list[str | None]
) -> None:
    async with world(tmp_path, SocketOptions(connect_timeout_s=0.1)) as w, raw(w.port) as client:
        await client.frame()
        await does(client)
        heard = []
        while frame := await client.frame():
            if frame.startswith("44"):
                refusal = json.loads(frame[frame.index("{" if "{" in frame else '"') :])
                heard.append(
                    refusal["data"]["code"] if isinstance(refusal, dict) and "data" in refusal else None
                )
        assert heard == hears
        await gone(w)
        server = w.realtime.server
        assert (server.environ, server._reapers, server._told, server._binary_packet) == ({}, {}, set(), {})


@pytest.mark.parametrize(
    "sent", [b"", b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgr"]
)
async def test_half_a_handshake_is_no_socket(w: World, sent: bytes) -> None:
    """It costs a file descriptor until aiohttp or the proxy gives up; it is no connection of ours and holds nothing of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", w.port)
    writer.write(sent)
    await writer.drain()
    assert len(w.realtime) == 0
    assert w.realtime.server.eio.sockets == {}
    writer.close()
    await writer.wait_closed()
    assert await reader.read() == b""


async def test_who_does_not_answer_pings_is_told_and_closed(tmp_path: Path) -> None:
    options = SocketOptions(ping_interval_s=0.1, ping_timeout_s=0.1, sweep_interval_s=0.05)
    async with world(tmp_path, options) as w, raw(w.port) as client:
        await client.login()
        byes = []
        async with asyncio.timeout(PATIENCE_S):
            while (message := await client.ws.receive()).type is WSMsgType.TEXT:
                if message.data.startswith('42["server:bye"'):
                    byes.append(json.loads(message.data[2:])[1])
        assert_bye(byes[0], NO_PONG)
        assert len(byes) == 1
        await gone(w)


# --- who does not read ---


async def test_who_reads_too_slowly_is_told_so_behind_what_is_on_its_way(tmp_path: Path) -> None:
    """The queue is full, so what waits in it is dropped: the goodbye is next behind what the network already has."""
    options = SocketOptions(cut_bytes=64 * 1024, shed_bytes=32 * 1024, burst_s=0.05, goodbye_s=4)
    async with world(tmp_path, options) as w, raw(w.port) as client:
        await client.login(STRANGER)
        await until(lambda: a_little_more(w))
        assert w.realtime.server.eio.held_bytes() < 11_000
        got, byes = 0, []
        while frame := await client.frame():
            got += frame.startswith('42["session:ended"')
            if frame.startswith('42["server:bye"'):
                byes.append(json.loads(frame[2:])[1])
        assert_bye(byes[0], SLOW)
        assert len(byes) == 1
        assert got, "what the network had already"
        await gone(w)


def a_little_more(w: World) -> int:
    """So that the network gets its share before the queue is full."""
    for _ in range(20):
        w.realtime.push.to_user(STRANGER, "session:ended", {"padding": "x" * 1_000})
    return w.realtime.server.cut


async def test_who_takes_nothing_is_gone_and_costs_nothing_any_more(tmp_path: Path) -> None:
    options = SocketOptions(stall_s=0.2, sweep_interval_s=0.05, cut_bytes=64 * 1024 * 1024, goodbye_s=0.2)
    async with world(tmp_path, options) as w, AsyncExitStack() as stack:
        stack.enter_context(closing(await never_reads(w)))
        await until(lambda: full(w, "session:tick", {"padding": "x" * 10_000}))
        await until(lambda: not w.realtime.push.watching(STRANGER))
        assert w.realtime.server.eio.held_bytes() < 22_000, (
            "its queue is dropped, but for the frame that is being written"
        )
        await gone(w)
        assert w.realtime.server.cut == 1


async def test_a_goodbye_is_said_once_whatever_else_goes_wrong(w: World) -> None:
    async with raw(w.port) as client:
        await client.login()
        (connection,) = w.realtime.namespace.connections  # type: ignore[union-attr]
        eio_sid = w.realtime.server.manager.eio_sid_from_sid(connection.sid, "/")
        for bye in (NO_PONG, SLOW, BAD_PACKET, None):
            w.realtime.server.eio.dismiss(eio_sid, bye)
        (view,) = await last_words(client)
        assert_bye(view, NO_PONG)
    await gone(w)
    w.realtime.server.eio.dismiss(eio_sid, NO_PONG)


async def test_a_client_that_is_let_go_comes_back_by_itself(w: World) -> None:
    """What the library makes of our closing: a broken line, and not the word that means never again."""
    async with aiohttp.ClientSession() as http:
        url = f"{w.url}/socket.io/?EIO=4&transport=websocket"
        async with http.ws_connect(url) as ws:
            client = Raw(ws)
            await client.login(USER)
            await ws.send_str("x")
            frames = []
            while frame := await client.frame():
                frames.append(frame)
    assert not [frame for frame in frames if frame.startswith(("41", "1"))]
