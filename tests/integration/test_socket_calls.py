"""Calls over real sockets: who is rung, who is connected, and who hears nothing."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chat.call_events import CallAck, CallEndedView, CallView, IceAck, SignalView
from chat.calls.model import LIFETIME_MS, LOOK_MS, MAX_SIGNALS, ONCE_MORE_MS, REPLAY_MS
from tests.integration.socket_world import LAWYER, SESSION, STRANGER, USER, Client, World, until, world

SDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\n"


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as the_world:
        yield the_world


def rtc(client: Client) -> list[str]:
    return [name for name, _ in client.events if name.startswith("rtc:")]


async def invited(client: Client, party: str = "u1", media: str = "audio") -> Any:
    ack = await client.call("rtc:invite", {"sessionId": SESSION, "partyId": party, "media": media})
    CallAck.model_validate(ack)
    return ack["call"]


async def accepted(client: Client, call_id: str, party: str = "l1") -> Any:
    return await client.call("rtc:accept", {"sessionId": SESSION, "callId": call_id, "partyId": party})


async def connected(user: Client, lawyer: Client) -> str:
    call = await invited(user)
    assert (await accepted(lawyer, call["callId"]))["ok"]
    await user.hears("rtc:state")
    return str(call["callId"])


async def signalled(client: Client, call_id: str, n: int = 1, kind: str = "offer", **more: Any) -> Any:
    body = {"sdp": SDP} if kind != "candidates" else {"candidates": [{"candidate": ""}]}
    return await client.call(
        "rtc:signal", {"sessionId": SESSION, "callId": call_id, "n": n, "kind": kind, **body, **more}
    )


def code(ack: Any) -> str:
    assert not ack["ok"], ack
    return str(ack["error"]["code"])


async def test_every_device_of_the_other_side_rings_and_the_first_to_answer_is_selected(w: World) -> None:
    user, phone, laptop = await w.joined(USER), await w.connect(LAWYER), await w.joined(LAWYER)

    call = await invited(user, media="video")
    for device in (phone, laptop):
        (ring,) = await device.hears("rtc:ring")
        CallView.model_validate(ring)
        assert (ring["callId"], ring["callerId"], ring["media"]) == (call["callId"], USER, "video")
        assert 0 < ring["lifetimeMs"] <= LIFETIME_MS
    ack = await accepted(phone, call["callId"], "phone")

    assert (ack["call"]["state"], ack["call"]["calleePartyId"]) == ("CONNECTED", "phone")
    (state,) = await user.hears("rtc:state")
    assert (state["state"], state["calleePartyId"]) == ("CONNECTED", "phone")
    (ended,) = await laptop.hears("rtc:ended")
    CallEndedView.model_validate(ended)
    assert ended["reason"] == "ANSWERED_ELSEWHERE"
    assert code(await accepted(laptop, call["callId"], "laptop")) == "ANSWERED_ELSEWHERE"
    assert (await accepted(phone, call["callId"], "phone"))["ok"], "saying so again is harmless"
    assert rtc(user).count("rtc:ring") == 0
    assert rtc(phone) == ["rtc:ring"]


async def test_signals_reach_the_device_in_the_call_and_no_other(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    others = [await w.joined(USER), await w.joined(LAWYER), await w.connect(STRANGER)]
    call_id = await connected(user, lawyer)

    assert await signalled(user, call_id) == {"ok": True, "n": 1, "duplicate": False}
    assert (await signalled(lawyer, call_id, 1, "answer"))["ok"]
    candidate = {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMid": "0", "sdpMLineIndex": 0}
    assert (await signalled(user, call_id, 2, "candidates", candidates=[candidate, {"candidate": ""}]))["ok"]
    assert (await signalled(user, call_id, 3, "restart"))["ok"]

    offer, batch, restart = await lawyer.hears("rtc:signal", 3)
    for signal in (offer, batch, restart):
        SignalView.model_validate(signal)
    assert (offer["kind"], offer["sdp"], offer["partyId"], offer["n"]) == ("offer", SDP, "u1", 1)
    assert batch["candidates"] == [
        {**candidate, "usernameFragment": None},
        {"candidate": "", "sdpMid": None, "sdpMLineIndex": None, "usernameFragment": None},
    ]
    assert (restart["kind"], batch["sdp"]) == ("restart", None)
    (answer,) = await user.hears("rtc:signal")
    assert answer["kind"] == "answer"
    for other in others:
        assert (
            await other.call("rtc:ice_config", {"sessionId": SESSION})
        ) is not None  # all before it has arrived
        assert "rtc:signal" not in rtc(other)


async def test_a_signal_that_is_sent_again_is_passed_on_again_and_not_another_one(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    call_id = await connected(user, lawyer)

    await signalled(user, call_id)
    again = await signalled(user, call_id)

    assert again == {"ok": True, "n": 1, "duplicate": True}
    assert (await lawyer.hears("rtc:signal", 2))[0] == lawyer.told("rtc:signal")[1]
    assert code(await signalled(user, call_id, 1, "restart")) == "IDEMPOTENCY_MISMATCH"
    assert code(await signalled(user, call_id, MAX_SIGNALS + 1)) == "TOO_MANY_SIGNALS"
    assert (await signalled(user, call_id, MAX_SIGNALS))["ok"]


async def test_nobody_but_the_two_devices_may_say_anything(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    second, stranger = await w.joined(USER), await w.connect(STRANGER)
    call = await invited(user)
    assert code(await signalled(user, call["callId"])) == "CALL_NOT_ANSWERED"
    assert code(await accepted(user, call["callId"])) == "OWN_CALL"
    assert code(await accepted(second, call["callId"])) == "OWN_CALL"
    reject = {"sessionId": SESSION, "callId": call["callId"]}
    assert code(await user.call("rtc:reject", reject)) == "OWN_CALL"
    assert (await accepted(lawyer, call["callId"]))["ok"]

    assert code(await signalled(second, call["callId"])) == "NOT_BOUND"
    assert code(await signalled(user, "another")) == "CALL_NOT_FOUND"
    invite = {"sessionId": SESSION, "partyId": "s1", "media": "audio"}
    assert code(await second.call("rtc:invite", invite)) == "CALL_RUNNING"
    for event in ("rtc:reject", "rtc:hangup"):
        assert code(await stranger.call(event, reject)) == "NOT_FOUND"
    assert code(await stranger.call("rtc:invite", invite)) == "NOT_FOUND"
    assert code(await stranger.call("rtc:ice_config", {"sessionId": SESSION})) == "NOT_FOUND"
    assert code(await accepted(stranger, call["callId"])) == "NOT_FOUND"
    assert code(await signalled(stranger, call["callId"])) == "NOT_FOUND"
    assert (await signalled(user, call["callId"]))["ok"], "and the call goes on"


async def test_a_rejected_and_a_cancelled_call_stop_ringing_everywhere(w: World) -> None:
    user, lawyer, phone = await w.joined(USER), await w.joined(LAWYER), await w.connect(LAWYER)

    first = await invited(user)
    assert await phone.call("rtc:reject", {"sessionId": SESSION, "callId": first["callId"]}) == {"ok": True}
    for client in (user, lawyer, phone):
        (ended,) = await client.hears("rtc:ended")
        assert (ended["callId"], ended["reason"]) == (first["callId"], "REJECTED")
    second = await invited(user)
    assert second["callId"] != first["callId"]
    assert await user.call("rtc:hangup", {"sessionId": SESSION, "callId": second["callId"]}) == {"ok": True}
    for client in (user, lawyer, phone):
        assert (await client.hears("rtc:ended", 2))[1]["reason"] == "CANCELLED"
    assert code(await accepted(lawyer, second["callId"])) == "CALL_OVER"
    assert code(await accepted(lawyer, first["callId"])) == "CALL_NOT_FOUND"


async def test_hanging_up_ends_it_for_both_and_again_is_the_same(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    call_id = await connected(user, lawyer)

    for _ in range(2):
        assert await lawyer.call("rtc:hangup", {"sessionId": SESSION, "callId": call_id}) == {"ok": True}

    for client in (user, lawyer):
        first, again = await client.hears("rtc:ended", 2)
        assert first == again
        assert first["reason"] == "HUNG_UP"
    assert code(await signalled(user, call_id)) == "CALL_OVER"


@pytest.mark.parametrize("first", [USER, LAWYER])
async def test_when_both_call_they_are_connected_and_the_user_is_the_caller(w: World, first: str) -> None:
    user, lawyer, tablet = await w.joined(USER), await w.joined(LAWYER), await w.joined(LAWYER)
    by_turn = [(user, "u1", "video"), (lawyer, "l1", "audio")]

    calls = [
        await invited(client, party, media)
        for client, party, media in (by_turn if first == USER else by_turn[::-1])
    ]

    assert calls[0]["callId"] == calls[1]["callId"]
    told = calls[1]
    assert (told["state"], told["glare"], told["media"]) == ("CONNECTED", True, "audio")
    assert (told["callerId"], told["callerPartyId"], told["calleePartyId"]) == (USER, "u1", "l1")
    (state,) = await (user if first == USER else lawyer).hears("rtc:state")
    assert state["callerId"] == USER
    if first == USER:
        (ended,) = await tablet.hears("rtc:ended")
        assert ended["reason"] == "ANSWERED_ELSEWHERE"
    assert (await signalled(user, told["callId"]))["ok"]
    assert (await lawyer.hears("rtc:signal"))[0]["kind"] == "offer"


async def test_a_call_rings_for_45_seconds_of_the_server_s_clock(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    call = await invited(user)

    assert await w.calls.look() == 0
    w.clock.ms += LIFETIME_MS
    assert code(await accepted(lawyer, call["callId"])) == "CALL_OVER"
    for client in (user, lawyer):
        (ended,) = await client.hears("rtc:ended")
        assert ended["reason"] == "MISSED"
    assert (await w.joined(LAWYER)) is not None
    assert (await invited(user))["callId"] != call["callId"]


async def test_somebody_s_look_ends_a_call_that_nobody_answers(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    await invited(user)
    w.clock.ms += LIFETIME_MS

    assert await w.calls.look() == 1

    for client in (user, lawyer):
        assert (await client.hears("rtc:ended"))[0]["reason"] == "MISSED"


async def test_a_paused_session_takes_no_new_call_but_lets_a_running_one_recover(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    call_id = await connected(user, lawyer)

    w.gate.open.clear()

    assert (await signalled(user, call_id, 1, "restart"))["ok"]
    assert (await lawyer.hears("rtc:signal"))[0]["kind"] == "restart"
    assert (await user.call("rtc:ice_config", {"sessionId": SESSION}))["ok"]
    assert (await user.call("rtc:hangup", {"sessionId": SESSION, "callId": call_id}))["ok"]
    invite = {"sessionId": SESSION, "partyId": "u1", "media": "audio"}
    assert code(await user.call("rtc:invite", invite)) == "SESSION_NOT_ACTIVE"
    w.gate.open.add(SESSION)
    call = await invited(user)
    w.gate.open.clear()
    assert code(await accepted(lawyer, call["callId"])) == "SESSION_NOT_ACTIVE"


async def test_a_device_that_comes_back_is_in_the_call_again_and_hears_what_it_missed(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    call_id = await connected(user, lawyer)
    await signalled(user, call_id, 1)
    await lawyer.hears("rtc:signal")
    await lawyer.sio.disconnect()
    await signalled(user, call_id, 2, "candidates")

    back = await w.connect(LAWYER)
    assert code(await signalled(back, call_id)) == "NOT_BOUND"
    ack = await back.call("join_session", {"sessionId": SESSION, "partyId": "l1"})

    assert (ack["call"]["callId"], ack["call"]["state"]) == (call_id, "CONNECTED")
    assert [signal["n"] for signal in await back.hears("rtc:signal", 2)] == [1, 2]
    assert len(await user.hears("rtc:state", 2)) == 2, "the other side may restart its ICE"
    assert (await signalled(back, call_id, 1, "answer"))["ok"]
    await user.hears("rtc:signal")
    await back.call("join_session", {"sessionId": SESSION, "partyId": "l1"})
    await user.call("rtc:ice_config", {"sessionId": SESSION})
    assert len(user.told("rtc:state")) == 2, "the same socket is not news"
    # What is older than the window is not said again.
    w.clock.ms += REPLAY_MS
    late = await w.connect(LAWYER)
    assert (await late.call("join_session", {"sessionId": SESSION, "partyId": "l1"}))["call"] is not None
    await signalled(user, call_id, 3, "candidates")
    assert [signal["n"] for signal in await late.hears("rtc:signal")] == [3]
    assert [signal["n"] for signal in back.told("rtc:signal")] == [1, 2, 1, 2], (
        "the old socket is out of the call"
    )


async def test_whoever_joins_late_knows_of_the_call_and_is_not_in_it(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    call = await invited(user)

    late = await w.connect(LAWYER)
    ringing = await late.call("join_session", {"sessionId": SESSION})
    await accepted(lawyer, call["callId"])
    running = await late.call("join_session", {"sessionId": SESSION, "partyId": "another"})
    await user.call("rtc:hangup", {"sessionId": SESSION, "callId": call["callId"]})
    over = await late.call("join_session", {"sessionId": SESSION, "partyId": "l1"})

    assert [(ack["call"] or {}).get("state") for ack in (ringing, running, over)] == [
        "RINGING",
        "CONNECTED",
        None,
    ]
    await signalled(user, call["callId"])
    assert "rtc:signal" not in rtc(late)


async def test_the_session_s_end_ends_the_call_on_the_server_s_word(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    call_id = await connected(user, lawyer)

    w.gate.open.clear()
    await w.chat.close(SESSION, at_ms=2_000_000)
    w.calls.session_ended(SESSION)
    w.calls.session_ended("no such session")
    await w.calls.settled()

    for client in (user, lawyer):
        (ended,) = await client.hears("rtc:ended")
        assert (ended["callId"], ended["reason"]) == (call_id, "SESSION_ENDED")
    assert code(await signalled(user, call_id)) == "SESSION_NOT_ACTIVE"
    assert code(await user.call("rtc:ice_config", {"sessionId": SESSION})) == "SESSION_NOT_ACTIVE"
    assert code(await accepted(lawyer, call_id)) == "SESSION_NOT_ACTIVE"
    assert (await user.call("rtc:hangup", {"sessionId": SESSION, "callId": call_id}))["ok"]
    assert (await user.call("join_session", {"sessionId": SESSION}))["call"] is None


async def test_a_session_whose_end_nobody_told_loses_its_call_all_the_same(w: World) -> None:
    """The process that ended it died before it could say so."""
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    await connected(user, lawyer)
    await w.chat.close(SESSION, at_ms=2_000_000)
    assert (await user.call("join_session", {"sessionId": SESSION, "partyId": "u1"}))["call"] is None

    w.clock.ms += LOOK_MS
    assert await w.calls.look() == 1

    for client in (user, lawyer):
        assert (await client.hears("rtc:ended"))[0]["reason"] == "SESSION_ENDED"
    w.clock.ms += ONCE_MORE_MS
    assert await w.calls.look() == 1
    await user.hears("rtc:ended", 2)
    assert await w.calls.look() == 0, "and that is all"


async def test_a_running_call_is_told_again_in_case_it_was_lost(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    await connected(user, lawyer)

    w.clock.ms += LOOK_MS
    assert await w.calls.look() == 1

    await user.hears("rtc:state", 2)
    assert (await lawyer.hears("rtc:state"))[0]["state"] == "CONNECTED"
    assert await w.calls.look() == 0


async def test_signals_that_a_dead_process_left_are_forgotten_after_an_hour(w: World) -> None:
    """They hold people's addresses."""
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    call_id = await connected(user, lawyer)
    await signalled(user, call_id)
    store = w.calls._store

    await w.calls.look()
    assert len(await store.told_by(call_id, USER, since_ms=0)) == 1
    w.clock.ms += 3_600_000
    await w.calls.look()
    assert await store.told_by(call_id, USER, since_ms=0) == []


async def test_credentials_end_with_the_money(w: World) -> None:
    """The test's gate has 95 seconds left."""
    user = await w.joined(USER)

    ack = await user.call("rtc:ice_config", {"sessionId": SESSION})

    IceAck.model_validate(ack)
    assert ack["ttlSeconds"] == 95 + 300
    stun, turn = ack["iceServers"]
    assert (stun["urls"], stun["credential"]) == (["stun:stun.example.com:3478"], None)
    expiry = w.clock.ms // 1000 + 395
    assert turn["username"] == f"{expiry}:{SESSION}:{USER}"


async def test_a_socket_that_goes_leaves_no_room_behind(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    await connected(user, lawyer)

    await user.sio.disconnect()
    await lawyer.sio.disconnect()

    await until(lambda: not w.realtime.server.manager.rooms.get("/"))
