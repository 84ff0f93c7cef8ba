"""Lost participants with real sockets on the whole server, and what the socket knows of a connection's last frame."""

import time
from pathlib import Path
from typing import Any

from chat.whereabouts import HERE
from server.realtime import SocketOptions
from tests.integration.socket_world import LAWYER, SESSION, USER, raw, until, world
from tests.integration.socket_world import Client as SocketClient
from tests.support.api import Api, Person, open_api


async def join(client: SocketClient, session_id: str) -> dict[str, Any]:
    ack: dict[str, Any] = await client.call("join_session", {"sessionId": session_id})
    assert ack["ok"], ack
    return ack


async def both(api: Api) -> tuple[Person, Person, str, SocketClient, SocketClient]:
    """A session, its two people in it, 20.5 s old: real frames are some milliseconds older than the clock of the test."""
    user, lawyer = await api.a_user("1000.00"), await api.a_lawyer()
    session_id = await user.start(lawyer.id)
    devices = [await api.connect(person.token) for person in (user, lawyer)]
    for device in devices:
        await join(device, session_id)
    await api.advance(20.5)
    return user, lawyer, session_id, devices[0], devices[1]


async def gone(api: Api, session_id: str, person: Person) -> None:
    """Until the server has noticed that the connection is gone."""
    presence = api.services.engine._attending._presence  # type: ignore[union-attr]
    await until(lambda: (f"s:{session_id}", person.id) not in presence._sockets)
    await api.advance(0)


async def send(device: SocketClient, session_id: str, key: str) -> dict[str, Any]:
    payload = {"sessionId": session_id, "body": "Hello?", "clientMsgId": key}
    ack: dict[str, Any] = await device.call("send_message", payload)
    return ack


async def test_a_cut_connection_pauses_and_a_new_one_resumes(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        user, lawyer, session_id, user_device, lawyer_device = await both(api)
        await user_device.sio.disconnect()
        await gone(api, session_id, user)
        await api.advance(14)
        assert (await send(lawyer_device, session_id, "m1"))["ok"]
        await api.advance(1)
        (paused,) = await lawyer_device.hears("session:paused")
        assert (paused["status"], paused["reason"], paused["elapsedSeconds"]) == ("PAUSED", "USER_LOST", 20)
        assert (paused["paidUntil"], paused["walletBalance"]) == (None, None)
        refused = (await send(lawyer_device, session_id, "m2"))["error"]
        assert (refused["code"], refused["retryable"]) == ("SESSION_PAUSED", True)
        # A repeat of what is stored is answered, a receipt is taken.
        assert (await send(lawyer_device, session_id, "m1"))["duplicate"]
        typing = await lawyer_device.call("typing", {"sessionId": session_id, "isTyping": True})
        assert typing["error"]["code"] == "SESSION_PAUSED"
        await api.advance(30)
        seen = (await user.get(f"/consult/{session_id}")).json
        assert (seen["status"], seen["durationSeconds"], seen["totalAmount"]) == ("PAUSED", 20, "20.00")
        assert [(row["event"], row["reason"]) for row in seen["timeline"]] == [
            ("start", None),
            ("pause", "USER_LOST"),
        ]
        assert (await user.get("/consult/active")).json["status"] == "PAUSED"
        assert "tarazu_sessions_paused 1.0" in (await (await api.admin()).get("/metrics")).text
        again = await api.connect(user.token)
        joined = await join(again, session_id)
        assert (await again.call("mark_seen", {"sessionId": session_id}))["ok"]
        assert joined["billing"]["reason"] in ("USER_LOST", None)
        (resumed,) = await lawyer_device.hears("session:resumed")
        assert (resumed["status"], resumed["elapsedSeconds"]) == ("ACTIVE", 20)
        assert (await send(lawyer_device, session_id, "m2"))["ok"]
        await api.advance(10)
        ended = (await lawyer.end(session_id)).json
        assert (ended["durationSeconds"], ended["totalAmount"]) == (30, "30.00")
        await api.books_are_clean()


async def test_a_farewell_is_a_last_sign_of_life(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        _, lawyer, session_id, user_device, lawyer_device = await both(api)
        await lawyer_device.call("leave_session", {"sessionId": session_id})
        await api.advance(119)
        assert not user_device.told("session:ended")
        (paused,) = await user_device.hears("session:paused")
        assert paused["reason"] == "LAWYER_LOST"
        await api.advance(1)
        (ended,) = await user_device.hears("session:ended")
        assert (ended["status"], ended["reason"], ended["totalAmount"]) == (
            "FORCE_ENDED",
            "PEER_GONE",
            "20.00",
        )
        await api.idle()
        late = (await send(user_device, session_id, "late"))["error"]
        assert (late["code"], late["retryable"]) == ("SESSION_NOT_ACTIVE", False)
        assert (await lawyer.get("/consult/active")).json is None
        await api.books_are_clean()


async def test_a_second_device_stays(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        user, _, session_id, user_device, _ = await both(api)
        await join(await api.connect(user.token), session_id)
        await user_device.sio.disconnect()
        await api.advance(200)
        assert (await user.end(session_id)).json["durationSeconds"] == 220


async def test_off_bills_whoever_is_connected(tmp_path: Path) -> None:
    async with open_api(tmp_path, fair_metering="off") as api:
        user, _, session_id, user_device, _ = await both(api)
        await user_device.sio.disconnect()
        await api.advance(200)
        assert (await user.end(session_id)).json["durationSeconds"] == 220


async def test_a_restart_pauses_nobody_who_comes_back_within_the_grace(tmp_path: Path) -> None:
    """A deploy: the old process closes every socket, the new one finds nobody there."""
    async with open_api(tmp_path) as api:
        user, lawyer, session_id, *_ = await both(api)
        clock = api.clock
    clock.jump_ms(2_000)
    async with open_api(tmp_path, clock=clock) as api:
        await api.advance(14)
        for person in (user, lawyer):
            person.http = api.http
            await join(await api.connect(person.token), session_id)
        await api.advance(60)
        timeline = (await api.services.consultations.timeline(session_id))[1:]
        assert [(row.event, row.reason) for row in timeline] == [("pause", "SERVER"), ("resume", "SERVER")]


# -- what a socket knows of its last frame ---------------------------------------------------------------------------


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def test_who_falls_silent_is_gone_since_the_last_frame(tmp_path: Path) -> None:
    """Noticed when a ping stays without an answer; lost since long before."""
    options = SocketOptions(ping_interval_s=0.4, ping_timeout_s=0.2, sweep_interval_s=0.05)
    async with world(tmp_path, options) as w, raw(w.port) as client:
        await client.login(USER)
        await client.ws.send_str(f'420["join_session",{{"sessionId":"{SESSION}"}}]')
        before_ms = now_ms()
        assert await client.until("430")
        presence = w.realtime.presence
        assert await presence.whereabouts(SESSION, [USER]) == {USER: HERE}
        # From here on it reads nothing, and answers no ping.
        after_ms = now_ms()
        await until(lambda: len(w.realtime) == 0)
        noticed_ms = now_ms()
        sign_ms = (await presence.whereabouts(SESSION, [USER]))[USER]
        assert isinstance(sign_ms, int)
        assert before_ms - 50 <= sign_ms <= after_ms
        assert sign_ms <= noticed_ms - 150, "since when it was noticed"


async def test_every_frame_is_a_sign_of_life(tmp_path: Path) -> None:
    async with world(tmp_path) as w, raw(w.port) as client:
        await client.login(LAWYER)
        (link,) = w.realtime.server.eio.links.values()
        for frame in ("3", '421["no_such_event"]', "3"):
            before_s = link.heard_s
            await client.ws.send_str(frame)
            await until(lambda before_s=before_s: link.heard_s > before_s)
        (connection,) = w.realtime.namespace.connections
        assert connection.pulse() < 5
        heard_s = link.heard_s
        await client.ws.close()
        await until(lambda: len(w.realtime) == 0)
        # The closing frame is one, too, and it is told also when the connection is gone.
        assert link.heard_s > heard_s
        assert connection.pulse() < 5
    broken = tmp_path / "broken"
    broken.mkdir()
    async with world(broken) as w, raw(w.port) as client:
        await client.login(LAWYER)
        (link,) = w.realtime.server.eio.links.values()
        heard_s = link.heard_s
        link.abort()
        await until(lambda: len(w.realtime) == 0)
        assert link.heard_s == heard_s, "a line that breaks says nothing"


async def test_a_process_that_says_goodbye_has_lost_nobody(tmp_path: Path) -> None:
    """Its clients go because they are told to: they come back to another one."""
    async with world(tmp_path) as w:
        user = await w.joined(USER)
        await w.realtime.shutdown()
        await user.gone.wait()
        assert await w.realtime.presence.whereabouts(SESSION, [USER]) == {USER: None}
