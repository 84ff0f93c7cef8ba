"""Two processes on one Redis: what is said at one is heard at the other, once, and an outage loses nothing for good."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from chat.namespace import BYE_TOKEN
from chat.push import EmptyTarget
from chat.service import Joined
from tests.integration.socket_world import LAWYER, PATIENCE_S, SESSION, STRANGER, USER, Client, until
from tests.support.tcp_proxy import TcpProxy, tcp_proxy
from tests.support.two_worlds import Process, TwoWorlds, two_worlds
from tests.support.valkey import Valkey


@pytest.fixture
async def w(tmp_path: Path, valkey: Valkey) -> AsyncIterator[TwoWorlds]:
    async with two_worlds(tmp_path, valkey.url) as worlds:
        yield worlds


@pytest.fixture
async def proxy(valkey: Valkey) -> AsyncIterator[TcpProxy]:
    async with tcp_proxy(valkey.port) as the_proxy:
        yield the_proxy


async def said(client: Client, body: str) -> int:
    ack = await client.call("send_message", {"sessionId": SESSION, "body": body})
    assert ack["ok"], ack
    return int(ack["seq"])


def bodies(client: Client) -> list[str]:
    return [message["body"] for message in client.told("new_message")]


def channels(valkey: Valkey) -> set[str]:
    reply = valkey.ask("PUBSUB", "CHANNELS").decode().split("\r\n")
    return {line.removeprefix("tarazu:bus:") for line in reply if line.startswith("tarazu:")}


async def heard_all(process: Process, *rooms: str) -> None:
    """Until what is published to the rooms from now on reaches the process."""
    async with asyncio.timeout(PATIENCE_S):
        for room in rooms:
            while not await process.bus.subscribed(room, patience_s=PATIENCE_S):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_message_reaches_the_peer_at_the_other_process_exactly_once(w: TwoWorlds) -> None:
    user, lawyer, both = await w.a.joined(USER), await w.b.joined(LAWYER), await w.b.joined(USER)

    for body in ("one", "two", "three"):
        await said(user, body)
    await lawyer.hears("new_message", 3)
    await said(lawyer, "four")

    for client in (user, lawyer, both):
        await client.hears("new_message", 4)
        assert bodies(client) == ["one", "two", "three", "four"]


async def test_receipts_and_typing_cross_and_the_typist_is_skipped_everywhere(w: TwoWorlds) -> None:
    user, lawyer, second = await w.a.joined(USER), await w.b.joined(LAWYER), await w.b.joined(USER)
    await said(lawyer, "hello")
    await user.hears("new_message")

    await user.call("mark_seen", {"sessionId": SESSION})
    (status,) = await lawyer.hears("message_status")
    assert (status["userId"], status["seenSeq"]) == (USER, 1)
    await user.call("typing", {"sessionId": SESSION, "isTyping": True})
    for client in (lawyer, second):
        await client.hears("typing")
    await said(user, "the last")
    for client in (user, lawyer, second):
        await client.hears("new_message", 2)
    assert [len(client.told("typing")) for client in (user, lawyer, second)] == [0, 1, 1]


async def test_a_skipped_socket_at_another_process_is_skipped(w: TwoWorlds) -> None:
    """Whoever started it is there, and the event comes from here."""
    user, lawyer = await w.a.joined(USER), await w.a.joined(LAWYER)
    await heard_all(w.a, f"s:{SESSION}")

    w.b.realtime.push.to_session(SESSION, "typing", {"n": 1}, skip=user.sio.get_sid())
    w.b.realtime.push.to_session(SESSION, "typing", {"n": 2})

    await user.hears("typing")
    assert await lawyer.hears("typing", 2) == [{"n": 1}, {"n": 2}]
    assert user.told("typing") == [{"n": 2}]


async def test_what_is_for_a_person_reaches_every_device_and_nobody_else(w: TwoWorlds) -> None:
    here, there, stranger = await w.a.connect(USER), await w.b.connect(USER), await w.b.connect(STRANGER)
    await heard_all(w.b, f"u:{USER}", f"u:{STRANGER}")

    w.a.realtime.push.to_user(USER, "session:started", {"n": 1})
    w.a.realtime.push.to_user(STRANGER, "session:ended", {"n": 2})

    for client in (here, there):
        assert await client.hears("session:started") == [{"n": 1}]
    await stranger.hears("session:ended")
    assert stranger.told("session:started") == []


async def test_text_of_any_kind_crosses_unharmed(w: TwoWorlds) -> None:
    user, lawyer = await w.a.joined(USER), await w.b.joined(LAWYER)
    body = 'a\nb\r\n\u2028 नमस्ते 🎉 "quoted" \\ 2["new_message"]'

    await said(user, body)

    await lawyer.hears("new_message")
    assert bodies(lawyer) == [body]


async def test_history_is_read_once_other_processes_are_heard(
    tmp_path: Path, valkey: Valkey, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored in between then arrives twice. The other way round it would be missed for good."""
    async with two_worlds(tmp_path, valkey.url, f"redis://127.0.0.1:{proxy.port}") as w:
        lawyer, read = await w.b.connect(LAWYER), w.b.chat.join
        heard: list[bool] = []

        async def reads(*args: Any, **options: Any) -> Joined:
            heard.append(await w.b.bus.subscribed(f"s:{SESSION}", patience_s=0))
            return await read(*args, **options)

        monkeypatch.setattr(w.b.chat, "join", reads)
        proxy.delay_s = 0.05
        ack = await lawyer.call("join_session", {"sessionId": SESSION})

    assert ack["ok"]
    assert heard == [True]


async def test_a_process_subscribes_to_what_concerns_its_own_sockets_and_no_longer(
    w: TwoWorlds, valkey: Valkey
) -> None:
    """One channel for all processes is how such a bus dies: each decodes what any of them says."""
    user, lawyer = await w.a.joined(USER), await w.b.joined(LAWYER)
    await heard_all(w.a, f"u:{USER}", f"s:{SESSION}")
    await heard_all(w.b, f"u:{LAWYER}")
    assert channels(valkey) == {"control", f"s:{SESSION}", f"u:{USER}", f"u:{LAWYER}"}

    await user.call("leave_session", {"sessionId": SESSION})
    await lawyer.sio.disconnect()
    await until(lambda: channels(valkey) == {"control", f"u:{USER}"})
    await user.sio.disconnect()
    await until(lambda: channels(valkey) == {"control"})


async def test_a_room_that_is_left_and_entered_over_and_over_is_heard_in_the_end(w: TwoWorlds) -> None:
    user, lawyer = await w.a.joined(USER), await w.b.joined(LAWYER)
    for n in range(20):
        await lawyer.call("leave_session", {"sessionId": SESSION})
        await lawyer.call("join_session", {"sessionId": SESSION})
        await said(user, f"{n}")
        await lawyer.hears("new_message", n + 1)

    assert bodies(lawyer) == [f"{n}" for n in range(20)]


async def test_a_disabled_account_is_disconnected_everywhere(w: TwoWorlds) -> None:
    here, there, other = await w.a.connect(USER), await w.b.connect(USER), await w.b.connect(LAWYER)

    assert w.a.realtime.disconnect_user(USER, code=BYE_TOKEN, reason="TOKEN_REVOKED") == 1

    for client in (here, there):
        (bye,) = await client.hears("server:bye")
        assert bye == {"code": BYE_TOKEN, "reason": "TOKEN_REVOKED", "reconnect": False}
        await asyncio.wait_for(client.gone.wait(), PATIENCE_S)
    assert other.told("server:bye") == []


async def test_a_logout_closes_that_login_at_both_processes(w: TwoWorlds) -> None:
    out, stays = await w.b.connect(f"{USER}/phone"), await w.b.connect(f"{USER}/laptop")
    w.a.realtime.disconnect_user(USER, family="phone", code=BYE_TOKEN, reason="TOKEN_REVOKED")

    await asyncio.wait_for(out.gone.wait(), PATIENCE_S)
    connections = w.b.realtime.namespace.connections
    await until(lambda: [c.principal.family for c in connections.of_user(USER)] == ["laptop"])
    assert not stays.gone.is_set()


async def test_news_between_processes_reach_the_others_and_not_their_own(w: TwoWorlds) -> None:
    heard: list[tuple[str, object]] = []
    w.a.bus.on("recharged", lambda facts: heard.append(("a", dict(facts))))
    w.b.bus.on("recharged", lambda facts: heard.append(("b", dict(facts))))
    w.b.bus.on("ended", lambda _facts: 1 / 0)
    w.b.bus.on("ended", lambda facts: heard.append(("b", dict(facts))))

    w.a.bus.tell("recharged", {"user": USER})
    w.a.bus.tell("ended", {"session": SESSION})
    w.a.bus.tell("unknown", {})
    w.a.bus.tell("recharged", {"cannot": object()})
    w.b.bus.tell("recharged", {"user": LAWYER})

    await until(lambda: len(heard) == 3)
    assert sorted(heard, key=repr) == [
        ("a", {"user": LAWYER}),
        ("b", {"session": SESSION}),
        ("b", {"user": USER}),
    ]


@pytest.mark.parametrize("room", ["", "s:", "u:", "s: ", "x", "control", "sid"])
async def test_nothing_from_the_bus_reaches_a_room_that_is_no_session_and_no_person(
    w: TwoWorlds, room: str
) -> None:
    """An empty room is every client of the process to the library below."""
    user = await w.a.joined(USER)

    with pytest.raises(EmptyTarget):
        w.a.realtime.transport._take(room, b'k\n2["new_message",{"body":"secret"}]')
    w.a.realtime.push.to_user(USER, "session:started", {})

    await user.hears("session:started")
    assert user.told("new_message") == []


@pytest.mark.parametrize("room", ["", None])
async def test_the_transport_itself_refuses_an_empty_room(w: TwoWorlds, room: str) -> None:
    user = await w.a.joined(USER)

    with pytest.raises(EmptyTarget):
        w.a.realtime.transport.send(room, "new_message", {"body": "secret"})
    w.a.realtime.push.to_user(USER, "session:started", {})

    await user.hears("session:started")
    assert user.told("new_message") == []


async def test_garbage_on_a_channel_is_survived(w: TwoWorlds, valkey: Valkey) -> None:
    """Another version of us, or a hand at a console."""
    user, lawyer = await w.a.joined(USER), await w.b.joined(LAWYER)
    with capture_logs() as logs:
        for channel in (f"s:{SESSION}", "control"):
            for message in (
                "",
                "x",
                "originxx",
                "originxx?x\n2[]",
                "originxxf{",
                'originxx["a"]',
                "originxxkx",
            ):
                valkey.ask("PUBLISH", f"tarazu:bus:{channel}", message)
        await said(user, "still here")
        await lawyer.hears("new_message")

    assert bodies(lawyer) == ["still here"]
    assert {entry["event"] for entry in logs} == {"bus_message_failed"}


# --- outages ---


async def test_a_restart_of_redis_is_healed_and_announced(w: TwoWorlds, valkey: Valkey) -> None:
    user, lawyer = await w.a.joined(USER), await w.b.joined(LAWYER)
    resyncs: list[str] = []
    w.a.bus.on_resync(lambda: resyncs.append("a"))
    w.b.bus.on_resync(lambda: 1 / 0)
    w.b.bus.on_resync(lambda: resyncs.append("b"))
    valkey.kill()
    seq = await said(user, "while it is away")
    await user.hears("new_message")
    valkey.start()

    await until(lambda: sorted(resyncs) == ["a", "b"])
    await until(lambda: w.a.bus.connected)
    ack = await lawyer.call("join_session", {"sessionId": SESSION, "afterSeq": seq - 1})
    assert [message["body"] for message in ack["messages"]] == ["while it is away"]
    await said(user, "again")
    await until(lambda: bodies(lawyer) == ["again"])
    assert channels(valkey) == {"control", f"s:{SESSION}", f"u:{USER}", f"u:{LAWYER}"}


async def test_flushall_changes_nothing(w: TwoWorlds, valkey: Valkey) -> None:
    user, lawyer = await w.a.joined(USER), await w.b.joined(LAWYER)
    valkey.flush()

    await said(user, "on it goes")
    await lawyer.hears("new_message")


async def test_who_joins_while_redis_is_away_is_served_and_heard_when_it_is_back(
    w: TwoWorlds, valkey: Valkey
) -> None:
    valkey.kill()
    await until(lambda: not w.a.bus.connected and not w.b.bus.connected)
    user, lawyer = await w.a.joined(USER), await w.b.joined(LAWYER)
    await said(user, "nobody else hears this")
    await user.hears("new_message")
    valkey.start()
    await heard_all(w.b, f"s:{SESSION}")
    await heard_all(w.a, f"s:{SESSION}")
    await until(lambda: w.a.bus.connected)

    await said(user, "everybody hears this")
    await lawyer.hears("new_message")
    assert bodies(lawyer) == ["everybody hears this"]


async def test_a_process_that_is_cut_off_goes_on_alone_and_comes_back(
    tmp_path: Path, valkey: Valkey, proxy: TcpProxy
) -> None:
    async with two_worlds(tmp_path, f"redis://127.0.0.1:{proxy.port}", valkey.url) as w:
        user, near, lawyer = await w.a.joined(USER), await w.a.joined(LAWYER), await w.b.joined(LAWYER)
        dropped = w.a.bus.dropped
        await proxy.refuse()
        await until(lambda: not w.a.bus.connected)
        for n in range(3):
            await said(user, f"lost {n}")
        await near.hears("new_message", 3)
        await until(lambda: w.a.bus.dropped > dropped)
        await proxy.accept()
        await heard_all(w.a, f"s:{SESSION}")
        await until(lambda: w.a.bus.connected)

        await said(user, "through")
        await lawyer.hears("new_message")
        assert bodies(lawyer)[-1] == "through"
        ack = await lawyer.call("join_session", {"sessionId": SESSION, "afterSeq": 0})
        assert len(ack["messages"]) == 4


async def test_a_lost_reply_to_a_publish_is_not_repeated(
    tmp_path: Path, valkey: Valkey, proxy: TcpProxy
) -> None:
    """It may have arrived: the peer would see the message twice."""
    async with two_worlds(tmp_path, f"redis://127.0.0.1:{proxy.port}", valkey.url) as w:
        user, lawyer = await w.a.joined(USER), await w.b.joined(LAWYER)
        await said(user, "first")
        await lawyer.hears("new_message")
        proxy.lose_next_reply(lambda request: b"PUBLISH" in request and b"second" in request)

        await said(user, "second")
        await lawyer.hears("new_message", 2)
        await until(lambda: proxy.lost == 1)
        await until(lambda: w.a.bus.connected)
        await said(user, "third")
        await lawyer.hears("new_message", 3)
        assert bodies(lawyer) == ["first", "second", "third"]


async def test_a_frozen_redis_is_noticed_and_joins_go_on(tmp_path: Path, valkey: Valkey) -> None:
    async with two_worlds(tmp_path, valkey.url) as w:
        await w.a.connect(USER)
        valkey.stop()
        try:
            await w.a.joined(USER)
            await until(lambda: w.a.bus._listener.away)
            await w.a.joined(USER)
        finally:
            valkey.cont()
        await heard_all(w.a, f"s:{SESSION}")


async def test_more_than_can_be_sent_is_dropped_and_counted(w: TwoWorlds, valkey: Valkey) -> None:
    """Redis falls behind; the process that bills must not fill its memory with typing."""
    publisher = w.a.bus._publisher
    publisher._max_waiting = 10

    for _ in range(50):
        w.a.bus.publish("u:nobody", b"x")
    assert w.a.bus.dropped == 40
    publisher._max_waiting, publisher._max_bytes = 1_000, 100
    await until(lambda: w.a.bus.sent >= 10)
    for _ in range(5):
        w.a.bus.publish("u:nobody", b"x" * 60)
    assert w.a.bus.dropped == 43


async def test_nothing_is_left_running_or_subscribed(tmp_path: Path, valkey: Valkey) -> None:
    async with two_worlds(tmp_path, valkey.url) as w:
        await w.a.joined(USER)
        await w.b.joined(LAWYER)
        valkey.kill()
        await until(lambda: not w.a.bus.connected)
        valkey.start()
        await heard_all(w.a, f"s:{SESSION}")
        assert {"bus listener", "bus publisher", "bus subscriptions"} <= running()

    await until(lambda: not any(name.startswith(("bus", "presence")) for name in running()))
    await until(lambda: channels(valkey) == set())
    clients = valkey.ask("CLIENT", "LIST").decode().split("\n")
    assert len([line for line in clients if "id=" in line]) == 1, "the one that asks"


def running() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}


async def test_a_process_starts_without_redis_and_finds_it_later(tmp_path: Path, valkey: Valkey) -> None:
    valkey.kill()
    async with two_worlds(tmp_path, valkey.url) as w:
        user, lawyer = await w.a.joined(USER), await w.b.joined(LAWYER)
        valkey.start()
        await heard_all(w.b, f"s:{SESSION}")
        await until(lambda: w.a.bus.connected)

        await said(user, "hello")
        await lawyer.hears("new_message")
