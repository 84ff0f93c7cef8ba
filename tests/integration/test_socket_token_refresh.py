"""`auth:refresh`: a fresh token behind an open socket. The conversation goes on; whose log-in it hangs on changes."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from socketio.exceptions import ConnectionError as SocketRefused

from chat.namespace import BYE_TOKEN
from chat.token_refresh import TokenRefresh
from tests.integration.socket_world import (
    EXPIRES_MS,
    LAWYER,
    PATIENCE_S,
    SESSION,
    USER,
    World,
    renew,
    until,
    world,
)
from tests.support.api import Api, open_api


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as the_world:
        yield the_world


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path) as the_api:
        yield the_api


def code(ack: Any) -> str:
    return "ok" if ack["ok"] else str(ack["error"]["code"])


async def test_a_fresh_token_moves_the_socket_to_its_login(w: World) -> None:
    phone = await w.joined(f"{USER}/old")

    ack = await phone.call("auth:refresh", {"token": f"{USER}/new"})

    assert ack == {
        "ok": True,
        "expiresAt": datetime.fromtimestamp(EXPIRES_MS / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    }
    assert w.realtime.disconnect_user(USER, family="old", code=BYE_TOKEN, reason="TOKEN_REVOKED") == 0
    assert (await phone.call("send_message", {"sessionId": SESSION, "body": "I am still here"}))["ok"]
    assert [m["body"] for m in await phone.hears("new_message")] == ["I am still here"], "and in the room"
    assert w.realtime.disconnect_user(USER, family="new", code=BYE_TOKEN, reason="TOKEN_REVOKED") == 1
    await asyncio.wait_for(phone.gone.wait(), PATIENCE_S)


@pytest.mark.parametrize(
    ("token", "expected"),
    [(LAWYER, "OTHER_PERSON"), (f"{LAWYER}/new", "OTHER_PERSON"), ("nobody", "UNAUTHENTICATED"), ("away", "STORAGE_UNAVAILABLE"),
     ("crash", "INTERNAL")],
)  # fmt: skip
async def test_a_refused_token_changes_nothing(w: World, token: str, expected: str) -> None:
    phone = await w.joined(f"{USER}/old")

    assert code(await phone.call("auth:refresh", {"token": token})) == expected

    assert (await phone.call("send_message", {"sessionId": SESSION, "body": "x"}))["ok"], "it may go on"
    (message,) = await phone.hears("new_message")
    assert message["senderId"] == USER
    assert w.realtime.disconnect_user(USER, family="old", code=BYE_TOKEN, reason="TOKEN_REVOKED") == 1


async def test_a_socket_that_goes_while_its_token_is_looked_up_leaves_nothing(w: World) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(token: str) -> Any:
        asked.set()
        await go_on.wait()
        return await renew(token)

    namespace = w.realtime.namespace
    assert namespace is not None
    event, _ = namespace._handlers["auth:refresh"]
    namespace._handlers["auth:refresh"] = (event, TokenRefresh(slow))
    phone = await w.connect(f"{USER}/old")
    call = asyncio.create_task(phone.call("auth:refresh", {"token": f"{USER}/new"}))
    await asyncio.wait_for(asked.wait(), PATIENCE_S)
    await phone.sio.disconnect()
    go_on.set()
    call.cancel()  # nobody is left to be answered
    await until(lambda: len(w.realtime) == 0)
    assert namespace.connections.of_user(USER) == []


async def test_the_real_login_is_what_decides(api: Api) -> None:
    """Through the whole server: refreshed, expired, logged out here, another person's."""
    user, other = await api.register(), await api.register()
    socket = await api.connect(user.token)
    await user.log_in_again()

    ack = await socket.call("auth:refresh", {"token": user.token})
    assert code(ack) == "ok"
    left_s = datetime.fromisoformat(ack["expiresAt"]).timestamp() - api.clock.now_ms() / 1_000
    assert 14 * 60 < left_s <= 15 * 60

    assert code(await socket.call("auth:refresh", {"token": other.token})) == "OTHER_PERSON"
    await api.advance(16 * 60)
    assert code(await socket.call("auth:refresh", {"token": user.token})) == "UNAUTHENTICATED", "expired"
    assert code(await socket.call("typing", {"sessionId": "none", "isTyping": True})) == "NOT_FOUND", (
        "the socket lives"
    )

    second = await api.log_in(user.email)
    assert code(await socket.call("auth:refresh", {"token": second.token})) == "ok"
    third = await api.log_in(user.email)
    await third.post("/auth/logout")
    assert code(await socket.call("auth:refresh", {"token": third.token})) == "UNAUTHENTICATED", "logged out"

    await second.post("/auth/logout")
    await socket.hears("server:bye")
    await asyncio.wait_for(socket.gone.wait(), PATIENCE_S)


async def test_a_disabled_accounts_token_refreshes_nothing(api: Api) -> None:
    """The socket is closed; a token that was good a moment ago neither keeps it nor opens another."""
    user = await api.register()
    socket = await api.connect(user.token)
    await api.disable(user)
    await asyncio.wait_for(socket.gone.wait(), PATIENCE_S)
    (bye,) = socket.told("server:bye")
    assert (bye["code"], bye["reconnect"]) == (3501, False)
    with pytest.raises(SocketRefused):
        await api.connect(user.token)
