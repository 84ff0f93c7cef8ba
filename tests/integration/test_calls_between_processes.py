"""Two processes on one Redis: the two people of a call are at different ones, move between them, and lose one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chat.calls.model import LIFETIME_MS, LOOK_MS
from tests.integration.socket_world import LAWYER, SESSION, USER, until
from tests.integration.test_bus_between_processes import channels, heard_all
from tests.integration.test_socket_calls import accepted, code, connected, invited, rtc, signalled
from tests.support.two_worlds import TwoWorlds, two_worlds
from tests.support.valkey import Valkey


@pytest.fixture
async def w(tmp_path: Path, valkey: Valkey) -> AsyncIterator[TwoWorlds]:
    async with two_worlds(tmp_path, valkey.url) as worlds:
        yield worlds


async def test_a_call_between_processes_is_set_up_signalled_and_ended(w: TwoWorlds) -> None:
    user, lawyer = await w.a.joined(USER), await w.b.joined(LAWYER)
    others = [await w.a.joined(LAWYER), await w.b.joined(USER)]
    await heard_all(w.a, f"u:{USER}", f"u:{LAWYER}")
    await heard_all(w.b, f"u:{USER}", f"u:{LAWYER}")

    call_id = await connected(user, lawyer)
    assert (await others[0].hears("rtc:ended"))[0]["reason"] == "ANSWERED_ELSEWHERE"
    assert (await signalled(user, call_id))["ok"]
    assert (await signalled(lawyer, call_id, 1, "answer"))["ok"]
    assert [signal["kind"] for signal in await lawyer.hears("rtc:signal")] == ["offer"]
    assert [signal["kind"] for signal in await user.hears("rtc:signal")] == ["answer"]
    assert (await lawyer.call("rtc:hangup", {"sessionId": SESSION, "callId": call_id}))["ok"]

    for client in (user, lawyer, others[1]):
        assert (await client.hears("rtc:ended"))[-1]["reason"] == "HUNG_UP"
    assert (await others[0].hears("rtc:ended", 2))[1]["reason"] == "HUNG_UP"
    for other in others:
        assert "rtc:signal" not in rtc(other)


async def test_a_device_is_heard_by_other_processes_before_it_is_in_the_call(
    w: TwoWorlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the other side says from then on arrives: that its room is subscribed is waited for, and not hoped."""
    user = await w.a.joined(USER)
    asked: list[tuple[str, bool]] = []
    subscribed = w.a.bus.subscribed

    async def watched(channel: str, *, patience_s: float) -> bool:
        is_heard = await subscribed(channel, patience_s=patience_s)
        asked.append((channel, is_heard))
        return is_heard

    monkeypatch.setattr(w.a.bus, "subscribed", watched)

    await invited(user)

    assert asked == [(f"p:{user.sio.get_sid()}", True)]


async def test_of_two_devices_at_two_processes_one_is_selected(w: TwoWorlds) -> None:
    user, here, there = await w.a.joined(USER), await w.a.joined(LAWYER), await w.b.joined(LAWYER)
    await heard_all(w.b, f"u:{LAWYER}")
    call = await invited(user)
    for device in (here, there):
        await device.hears("rtc:ring")

    assert (await accepted(there, call["callId"], "there"))["ok"]

    assert code(await accepted(here, call["callId"], "here")) == "ANSWERED_ELSEWHERE"
    assert (await here.hears("rtc:ended"))[0]["reason"] == "ANSWERED_ELSEWHERE"
    assert there.told("rtc:ended") == []


async def test_both_call_at_two_processes_and_are_connected(w: TwoWorlds) -> None:
    user, lawyer = await w.a.joined(USER), await w.b.joined(LAWYER)

    first, second = await invited(lawyer, "l1"), await invited(user, "u1")

    assert (first["callId"], second["state"], second["callerId"]) == (second["callId"], "CONNECTED", USER)
    assert (await lawyer.hears("rtc:state"))[0]["glare"] is True


async def test_a_device_that_reconnects_to_another_process_goes_on_there(
    w: TwoWorlds, valkey: Valkey
) -> None:
    user, lawyer = await w.a.joined(USER), await w.b.joined(LAWYER)
    call_id = await connected(user, lawyer)
    old = lawyer.sio.get_sid()
    await lawyer.sio.disconnect()
    await until(lambda: f"p:{old}" not in channels(valkey))
    assert (await signalled(user, call_id, 1))["ok"]

    back = await w.a.connect(LAWYER)
    ack = await back.call("join_session", {"sessionId": SESSION, "partyId": "l1"})

    assert ack["call"]["state"] == "CONNECTED"
    assert [signal["n"] for signal in await back.hears("rtc:signal")] == [1]
    await user.hears("rtc:state", 2)
    assert (await signalled(back, call_id, 1, "answer"))["ok"]
    assert (await user.hears("rtc:signal"))[0]["kind"] == "answer"


async def test_a_call_whose_process_died_is_ended_by_another_one(w: TwoWorlds) -> None:
    user, lawyer = await w.a.joined(USER), await w.b.joined(LAWYER)
    await heard_all(w.b, f"u:{LAWYER}")
    ringing = await invited(user)
    await lawyer.hears("rtc:ring")
    # What it had in mind goes with it; what it has stored is there.
    await w.a.bus.stop()
    w.b.clock.ms += LIFETIME_MS

    assert await w.b.calls.look() == 1

    (ended,) = await lawyer.hears("rtc:ended")
    assert (ended["callId"], ended["reason"]) == (ringing["callId"], "MISSED")


async def test_a_call_of_a_session_that_ended_in_a_dead_process_is_ended_by_another_one(w: TwoWorlds) -> None:
    user, lawyer = await w.a.joined(USER), await w.b.joined(LAWYER)
    await connected(user, lawyer)
    await w.a.chat.close(SESSION, at_ms=2_000_000)
    await w.a.bus.stop()
    w.b.clock.ms += LOOK_MS

    assert await w.b.calls.look() == 1

    assert (await lawyer.hears("rtc:ended"))[0]["reason"] == "SESSION_ENDED"


async def test_two_processes_that_look_at_once_end_a_call_once(w: TwoWorlds) -> None:
    user = await w.a.joined(USER)
    await invited(user)
    for process in (w.a, w.b):
        process.clock.ms += LIFETIME_MS

    assert [await process.calls.look() for process in (w.a, w.b)] == [1, 0]

    assert (await user.hears("rtc:ended"))[0]["reason"] == "MISSED"
