"""Rules learnt from others' bugs, each held against a real server: order, one ack, refusals, goodbyes."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import socketio
from socketio.exceptions import ConnectionError as SocketRefused

from chat.errors import Unavailable
from chat.namespace import BYE_DISABLED, BYE_TOKEN
from server.realtime import SocketOptions
from tests.integration.socket_world import LAWYER, SESSION, USER, Client, World, gone, raw, until, world


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as the_world:
        yield the_world


# --- order ---


async def test_a_thousand_quick_messages_are_stored_in_order(w: World) -> None:
    """Sent in one burst, without waiting for any answer. The library alone would swap some."""
    lawyer = await w.joined(LAWYER)
    async with raw(w.port) as client:
        await client.login()
        for k in range(1_000):
            await client.ws.send_str(f'42{k}["send_message",{{"sessionId":"{SESSION}","body":"{k}"}}]')
        acks = [await client.until("43") for _ in range(1_000)]

    assert sorted(acks, key=ack_id) == sorted(
        acks, key=lambda ack: json.loads(ack[ack.index("[") :])[0]["seq"]
    )
    page = await w.store.page(SESSION, after_seq=0, limit=2_000)
    assert page is not None
    assert [message.body for message in page.messages] == [str(k) for k in range(1_000)]
    heard = await lawyer.hears("new_message", 1_000)
    assert [message["seq"] for message in heard] == list(range(1, 1_001))


async def test_order_holds_when_the_store_is_slow_and_the_inbox_small(tmp_path: Path) -> None:
    """Reading from the socket stops while the inbox is full: the client waits, nothing is refused or swapped."""
    options = SocketOptions(inbox_waiting=2, inbox_under_way=2)
    async with world(tmp_path, options) as w:
        original = w.store.append

        async def slow(**fields: Any) -> Any:
            future = asyncio.ensure_future(original(**fields))
            await asyncio.sleep(0.001)
            return await future

        w.store.append = slow  # type: ignore[method-assign]
        user = await w.joined(USER)
        acks = await asyncio.gather(
            *(user.call("send_message", {"sessionId": SESSION, "body": str(k)}) for k in range(200))
        )

        assert [ack["seq"] for ack in acks] == list(range(1, 201))


async def test_a_full_inbox_refuses_in_the_end_and_says_try_again(tmp_path: Path) -> None:
    options = SocketOptions(inbox_waiting=2, inbox_under_way=3, inbox_patience_s=0.01)
    async with world(tmp_path, options) as w:
        user = await w.joined(USER)
        resume = asyncio.Event()
        original = w.store.append

        async def stuck(**fields: Any) -> Any:
            await resume.wait()
            return await original(**fields)

        w.store.append = stuck  # type: ignore[method-assign]
        calls = [
            asyncio.create_task(
                user.call("send_message", {"sessionId": SESSION, "clientMsgId": str(k), "body": str(k)})
            )
            for k in range(8)
        ]
        async with asyncio.timeout(5):
            while len(refused := [call for call in calls if call.done()]) < 2:
                await asyncio.wait(
                    [call for call in calls if not call.done()], return_when=asyncio.FIRST_COMPLETED
                )
        for call in refused:
            error = call.result()["error"]
            assert (error["code"], error["retryable"]) == ("RATE_LIMITED", True)
        resume.set()
        acks = await asyncio.gather(*calls)

        # Three under way, one in the worker's hands, two waiting.
        assert [ack["ok"] for ack in acks] == [True] * 6 + [False] * 2
        again = await user.call("send_message", {"sessionId": SESSION, "clientMsgId": "7", "body": "7"})
        assert again["seq"] == 7


async def test_a_join_after_sends_sees_them(w: World) -> None:
    """Not awaited in between: the join waits for what came before it on this connection."""
    user = await w.connect(USER)
    sends = [
        asyncio.create_task(user.call("send_message", {"sessionId": SESSION, "body": str(k)}))
        for k in range(50)
    ]
    await asyncio.sleep(0)

    ack = await user.call("join_session", {"sessionId": SESSION})

    assert ack["lastSeq"] == 50
    await asyncio.gather(*sends)


async def test_a_receipt_after_a_send_comes_after_it(w: World) -> None:
    lawyer = await w.joined(LAWYER)
    await w.store.append(session_id=SESSION, sender_id=USER, client_msg_id="0", body="zero", at_ms=1)

    sends = [
        asyncio.create_task(lawyer.call("send_message", {"sessionId": SESSION, "body": str(k)}))
        for k in range(20)
    ]
    await asyncio.sleep(0)
    ack = await lawyer.call("mark_seen", {"sessionId": SESSION})

    assert (ack["seenSeq"], ack["updated"]) == (21, 1)
    await asyncio.gather(*sends)


async def test_a_message_is_stored_though_its_sender_is_gone(w: World) -> None:
    lawyer = await w.joined(LAWYER)
    async with raw(w.port) as client:
        await client.login()
        await client.ws.send_str(f'421["send_message",{{"sessionId":"{SESSION}","body":"bye"}}]')

    assert [message["body"] for message in await lawyer.hears("new_message")] == ["bye"]


# --- exactly one acknowledgement ---


async def test_an_unexpected_error_is_answered_with_an_id_that_is_in_the_log(
    w: World, capsys: pytest.CaptureFixture[str]
) -> None:
    user = await w.joined(USER)

    async def broken(**_fields: Any) -> Any:
        raise KeyError("secret detail")

    w.store.append = broken  # type: ignore[method-assign]
    ack = await user.call("send_message", {"sessionId": SESSION, "body": "x"})

    error = ack["error"]
    assert (error["code"], error["retryable"]) == ("INTERNAL", True)
    assert "secret" not in json.dumps(ack)
    assert error["errorId"] in capsys.readouterr().out
    assert (await user.call("mark_seen", {"sessionId": SESSION}))["ok"]


async def test_an_answer_that_cannot_be_written_is_still_an_answer(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for an acknowledgement must get one, also when the mistake is in the acknowledgement."""

    async def state(session_id: str, viewer_id: str) -> dict[str, Any]:
        return {"status": object()}

    user = await w.connect(USER)
    monkeypatch.setattr(w.gate, "state", state)
    ack = await user.call("join_session", {"sessionId": SESSION})
    assert ack["error"]["code"] == "INTERNAL"
    monkeypatch.undo()
    assert (await user.call("join_session", {"sessionId": SESSION}))["ok"]


async def test_a_store_that_does_not_answer_is_a_retryable_error(w: World) -> None:
    user = await w.joined(USER)

    async def away(**_fields: Any) -> Any:
        raise Unavailable

    w.store.append = away  # type: ignore[method-assign]
    ack = await user.call("send_message", {"sessionId": SESSION, "body": "x"})

    assert (ack["error"]["code"], ack["error"]["retryable"]) == ("STORAGE_UNAVAILABLE", True)


async def test_a_listeners_trouble_does_not_fail_the_sender(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is stored; an error would make the sender believe otherwise."""
    user = await w.joined(USER)

    def broken(*_args: Any, **_options: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(w.realtime.transport, "send", broken)

    assert (await user.call("send_message", {"sessionId": SESSION, "body": "x"}))["ok"]


# --- connecting ---


@pytest.mark.parametrize("auth", [None, {}, [], "x", 1, {"token": None}, {"token": ""}, {"token": 5}, {"token": ["a"]},
                                  {"token": "nobody"}, {"token": "x" * 10_000}])  # fmt: skip
async def test_a_bad_or_missing_token_is_refused(w: World, auth: Any) -> None:
    async with raw(w.port) as client:
        await client.frame()
        await client.ws.send_str("40" + (json.dumps(auth) if auth is not None else ""))

        frame = await client.frame()

    assert frame.startswith("44")
    refusal = json.loads(frame[2:])
    assert refusal["data"]["code"] == "UNAUTHENTICATED"
    assert refusal["message"] == refusal["data"]["message"]


@pytest.mark.parametrize("token", ["crash", "typeerror"])
async def test_a_broken_verifier_refuses_once_and_leaks_nothing(w: World, token: str) -> None:
    with pytest.raises(SocketRefused):
        await w.connect(token)

    assert len(w.realtime.namespace.connections) == 0  # type: ignore[union-attr]
    assert w.realtime.server.manager.rooms == {}


async def test_a_refused_connection_can_do_nothing(w: World) -> None:
    async with raw(w.port) as client:
        await client.frame()
        await client.ws.send_str('40{"token":"nobody"}')
        await client.frame()
        await client.ws.send_str(f'421["join_session",{{"sessionId":"{SESSION}"}}]')
        await client.ws.send_str('40{"token":"' + USER + '"}')

        assert (await client.frame()).startswith("40{"), "the event was not answered, the second try was"


async def test_other_namespaces_do_not_exist(w: World) -> None:
    async with raw(w.port) as client:
        await client.frame()
        await client.ws.send_str('40/admin,{"token":"' + USER + '"}')

        assert (await client.frame()).startswith("44/admin,")


# --- leaving ---


async def test_disconnecting_leaves_nothing_behind(w: World) -> None:
    clients = [await w.joined(token) for token in (USER, USER, LAWYER)]

    for client in clients:
        await client.sio.disconnect()
    await gone(w)

    server = w.realtime.server
    assert server.manager.rooms == {}
    assert server.manager._rooms_of == {}
    assert server.environ == {}
    assert server.eio.sockets == {}
    assert server._reapers == {}
    assert len(w.realtime.namespace.connections) == 0  # type: ignore[union-attr]


async def test_a_broken_disconnect_handler_leaks_nothing(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    user = await w.joined(USER)
    calls = []

    def broken(sid: str) -> None:
        calls.append(sid)
        raise TypeError

    assert w.realtime.namespace is not None
    monkeypatch.setattr(w.realtime.namespace.connections, "remove", broken)
    await user.sio.disconnect()
    await gone(w)

    assert len(calls) == 1, "the library would call a handler that raises TypeError twice"
    assert w.realtime.server.manager.rooms == {}


async def test_a_logout_closes_the_sockets_of_that_login_only(w: World) -> None:
    phone, laptop, other = (
        await w.connect(f"{USER}/phone"),
        await w.connect(f"{USER}/laptop"),
        await w.connect(LAWYER),
    )

    closed = w.realtime.disconnect_user(USER, family="phone", code=BYE_TOKEN, reason="LOGGED_OUT")

    assert closed == 1
    await asyncio.wait_for(phone.gone.wait(), 5)
    assert phone.told("server:bye") == [{"code": 3500, "reason": "LOGGED_OUT", "reconnect": False}]
    # The client's library does not come back by itself after this one.
    assert phone.goodbye == socketio.AsyncClient.reason.SERVER_DISCONNECT
    assert laptop.sio.connected
    assert other.sio.connected


async def test_disabling_an_account_closes_all_its_sockets(w: World) -> None:
    clients = [await w.joined(USER), await w.connect(f"{USER}/laptop")]

    assert w.realtime.disconnect_user(USER, code=BYE_DISABLED, reason="ACCOUNT_DISABLED") == 2

    for client in clients:
        await asyncio.wait_for(client.gone.wait(), 5)
        assert client.told("server:bye")[0]["reason"] == "ACCOUNT_DISABLED"
    await gone(w)
    assert not w.realtime.push.watching(USER)
    assert w.realtime.disconnect_user(USER, code=BYE_DISABLED, reason="ACCOUNT_DISABLED") == 0


async def test_a_client_told_to_reconnect_does_so_by_itself(w: World) -> None:
    user = Client(socketio.AsyncClient(reconnection_delay=0.01, randomization_factor=0))
    w.clients.append(user.sio)
    await user.sio.connect(w.url, auth={"token": USER}, transports=["websocket"])
    first_sid = user.sio.get_sid()

    w.realtime.disconnect_user(USER, code=3005, reason="RELOAD", reconnect=True)

    await asyncio.wait_for(user.gone.wait(), 5)
    await until(lambda: user.sio.get_sid() not in {first_sid, None} and w.realtime.push.watching(USER))
    assert (await user.call("join_session", {"sessionId": SESSION}))["ok"]


# --- shutdown ---


async def test_shutdown_says_goodbye_and_closes_every_socket_in_time(w: World) -> None:
    """Left alone, one idle client would hold up a deploy for a minute."""
    waits_ms: set[int] = set()
    clients = [
        await w.joined(USER),
        await w.joined(LAWYER),
        *[await w.connect(f"many_{k}") for k in range(40)],
    ]
    async with raw(w.port, autoclose=False) as deaf, raw(w.port) as half:
        await deaf.login(USER)
        await half.frame()
        started_s = asyncio.get_running_loop().time()

        await w.runner.cleanup()

        assert asyncio.get_running_loop().time() - started_s < 3
        for client in clients:
            await asyncio.wait_for(client.gone.wait(), 5)
            (bye,) = client.told("server:bye")
            assert (bye["code"], bye["reason"], bye["reconnect"]) == (3001, "DRAIN", True)
            waits_ms.add(bye["retryAfterMs"])
            assert client.goodbye == socketio.AsyncClient.reason.TRANSPORT_ERROR
        assert len(w.realtime) == 0
        assert len(waits_ms) > 5, "all of them at once would be a storm at the next process"
        assert 500 <= min(waits_ms) <= max(waits_ms) <= 1_500


async def test_what_was_taken_before_the_shutdown_is_stored_and_answered(w: World) -> None:
    user = await w.joined(USER)
    calls = [
        asyncio.create_task(
            user.call("send_message", {"sessionId": SESSION, "clientMsgId": str(k), "body": "x"})
        )
        for k in range(300)
    ]
    await user.hears("new_message", 20)

    await w.realtime.shutdown()
    acks = await asyncio.gather(*calls, return_exceptions=True)

    stored = await w.store.stored(SESSION, sender_id=USER, client_msg_ids=[str(k) for k in range(300)])
    for k, ack in enumerate(acks):
        if isinstance(ack, BaseException):
            continue  # never taken, never answered: the client sends it again
        if ack["ok"]:
            assert stored[str(k)].seq == ack["seq"]
        else:
            assert ack["error"]["code"] == "DRAINING"
            assert str(k) not in stored
    assert sum(isinstance(ack, dict) for ack in acks) >= 20


async def test_while_draining_nothing_new_is_taken(w: World) -> None:
    user = await w.joined(USER)
    assert w.realtime.namespace is not None

    await w.realtime.namespace.drain()

    ack = await user.call("send_message", {"sessionId": SESSION, "body": "x"})
    assert (ack["error"]["code"], ack["error"]["retryable"]) == ("DRAINING", True)
    assert await w.store.last_seq(SESSION) == 0
    with pytest.raises(SocketRefused):
        await w.connect(LAWYER)


async def test_while_draining_a_new_connection_is_sent_elsewhere(w: World) -> None:
    await w.realtime.shutdown()

    async with aiohttp.ClientSession() as session:
        answer = await session.get(f"{w.url}/socket.io/?EIO=4&transport=websocket")
        assert answer.status == 503
        assert (await answer.json(content_type=None))["code"] == "DRAINING"


def ack_id(frame: str) -> int:
    return int(frame[2 : frame.index("[")])
