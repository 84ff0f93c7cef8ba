"""Presence of two people at two processes on one Redis, seen by their clients: told once, and never on missing data."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chat.errors import Unavailable
from chat.push import session_room
from server.realtime.redis_presence import LIFETIME_MS, SETTLE_MS, RedisPresence
from tests.integration.socket_world import LAWYER, SESSION, USER, Client, until
from tests.support.redis_age import age_keys
from tests.support.two_worlds import TwoWorlds, two_worlds
from tests.support.valkey import Valkey

ROOM = session_room(SESSION)
BOTH_ONLINE = {USER: "ONLINE", LAWYER: "ONLINE"}


@pytest.fixture
async def w(tmp_path: Path, valkey: Valkey) -> AsyncIterator[TwoWorlds]:
    async with two_worlds(tmp_path, valkey.url) as worlds:
        yield worlds


def told(client: Client) -> list[tuple[str, str]]:
    return [(view["userId"], view["state"]) for view in client.told("presence")]


async def join(client: Client) -> dict[str, str]:
    ack: dict[str, Any] = await client.call("join_session", {"sessionId": SESSION})
    assert ack["ok"], ack
    presence: dict[str, str] = ack["presence"]
    return presence


async def written(w: TwoWorlds) -> None:
    """Until nobody is writing to the store."""
    await until(lambda: not w.a.realtime.presence._settling and not w.b.realtime.presence._settling)


async def flushed(w: TwoWorlds, *clients: Client) -> None:
    """Until what was sent to the session before this has arrived."""
    await written(w)
    before = [len(client.told("typing")) for client in clients]
    w.a.realtime.push.to_session(SESSION, "typing", {})
    w.b.realtime.push.to_session(SESSION, "typing", {})
    for client, count in zip(clients, before, strict=True):
        await client.hears("typing", count + 2)


async def test_who_joins_knows_of_the_other_and_the_other_hears_of_it_once(w: TwoWorlds) -> None:
    user, lawyer = await w.a.connect(USER), await w.b.connect(LAWYER)

    assert await join(user) == {USER: "ONLINE", LAWYER: "OFFLINE"}
    await written(w)
    assert await join(lawyer) == BOTH_ONLINE
    await user.hears("presence")
    await w.a.realtime.presence.sweep()
    await w.b.realtime.presence.sweep()
    await flushed(w, user, lawyer)

    assert told(user) == [(LAWYER, "ONLINE")]
    assert told(lawyer) == []
    assert await join(user) == BOTH_ONLINE


async def test_who_leaves_is_offline_for_the_other_process_once(w: TwoWorlds) -> None:
    user, lawyer = await w.a.joined(USER), await w.b.joined(LAWYER)
    await user.hears("presence")

    await lawyer.sio.disconnect()
    await user.hears("presence", 2)
    await w.a.realtime.presence.sweep()
    await flushed(w, user)

    assert told(user) == [(LAWYER, "ONLINE"), (LAWYER, "OFFLINE")]
    assert (await join(user))[LAWYER] == "OFFLINE"


async def test_who_goes_on_at_another_process_has_not_left(w: TwoWorlds) -> None:
    """The laptop is closed, the phone stays. And the other way: a reconnect that lands elsewhere."""
    user = await w.a.joined(USER)
    laptop, phone = await w.a.joined(LAWYER), await w.b.joined(LAWYER)
    await written(w)

    await laptop.sio.disconnect()
    await until(lambda: not w.a.realtime.presence.is_here(SESSION, LAWYER))
    await flushed(w, user)
    assert told(user) == [(LAWYER, "ONLINE")]
    assert await join(user) == BOTH_ONLINE

    again = await w.a.joined(LAWYER)
    await phone.sio.disconnect()
    await until(lambda: not w.b.realtime.presence.is_here(SESSION, LAWYER))
    await flushed(w, user)
    assert told(user) == [(LAWYER, "ONLINE")]

    await again.sio.disconnect()
    await user.hears("presence", 2)
    assert told(user) == [(LAWYER, "ONLINE"), (LAWYER, "OFFLINE")]


async def test_a_dead_process_is_noticed_by_the_sweep(w: TwoWorlds) -> None:
    dead = RedisPresence(w.b.redis)
    await dead.enter(ROOM, LAWYER)
    user = await w.a.joined(USER)
    assert await join(user) == BOTH_ONLINE
    await age_keys(w.b.redis, LIFETIME_MS - 1_000)
    await w.a.realtime.presence.sweep()
    await flushed(w, user)
    assert (LAWYER, "OFFLINE") not in told(user)

    await age_keys(w.b.redis, 1_000)
    await w.a.realtime.presence.sweep()
    await w.a.realtime.presence.sweep()
    await flushed(w, user)

    assert told(user)[-1] == (LAWYER, "OFFLINE")
    assert told(user).count((LAWYER, "OFFLINE")) == 1


async def test_a_lost_arrival_is_made_up_for_by_the_sweep(w: TwoWorlds) -> None:
    """The bus lost what the store has."""
    user = await w.a.joined(USER)
    other = RedisPresence(w.b.redis)
    await other.enter(ROOM, LAWYER)

    await w.a.realtime.presence.sweep()
    await user.hears("presence")
    assert told(user) == [(LAWYER, "ONLINE")]


async def test_flushall_makes_nobody_offline(tmp_path: Path, valkey: Valkey) -> None:
    async with two_worlds(tmp_path, valkey.url, settle_ms=SETTLE_MS) as w:
        user, lawyer = await w.a.joined(USER), await w.b.joined(LAWYER)
        await user.hears("presence")
        await written(w)
        valkey.flush()
        await w.a.realtime.presence.sweep()
        assert await join(user) == BOTH_ONLINE
        await w.b.presence_store.refresh()
        w.a.presence_store._settle_ms = 0
        await w.a.realtime.presence.sweep()
        await flushed(w, user, lawyer)

    assert told(user) == [(LAWYER, "ONLINE")]


async def test_while_redis_is_away_presence_is_what_was_last_known(w: TwoWorlds, valkey: Valkey) -> None:
    """Unknown is not offline: a lawyer who is there and typing must not be shown as gone."""
    user, lawyer = await w.a.joined(USER), await w.b.joined(LAWYER)
    second = await w.a.joined(LAWYER)
    await user.hears("presence")
    await written(w)
    valkey.kill()

    assert await join(user) == BOTH_ONLINE
    await second.sio.disconnect()
    await until(lambda: not w.a.realtime.presence.is_here(SESSION, LAWYER))
    await written(w)
    with pytest.raises(Unavailable):
        await w.a.realtime.presence.sweep()
    assert await join(user) == BOTH_ONLINE
    assert told(user) == [(LAWYER, "ONLINE")]

    valkey.start()
    await until(lambda: w.a.bus.connected and w.b.bus.connected)
    await w.b.presence_store.refresh()
    await w.a.realtime.presence.sweep()
    await flushed(w, user, lawyer)
    assert told(user) == [(LAWYER, "ONLINE")]


async def test_who_left_for_good_while_redis_was_away_is_offline_afterwards(
    w: TwoWorlds, valkey: Valkey
) -> None:
    user, lawyer = await w.a.joined(USER), await w.a.joined(LAWYER)
    valkey.kill()
    await lawyer.sio.disconnect()
    await until(lambda: not w.a.realtime.presence.is_here(SESSION, LAWYER))
    await written(w)
    assert told(user) == [(LAWYER, "ONLINE")]
    valkey.start()

    await w.a.realtime.presence.sweep()
    await user.hears("presence", 2)
    assert told(user) == [(LAWYER, "ONLINE"), (LAWYER, "OFFLINE")]


async def test_who_is_connected_anywhere_is_connected(w: TwoWorlds, valkey: Valkey) -> None:
    """Whoever looks at the other process needs no letter about their balance."""
    user = await w.a.connect(USER)
    await written(w)
    here, there = w.a.realtime.presence, w.b.realtime.presence
    assert await here.connected(USER)
    assert await there.connected(USER)
    assert not await there.connected(LAWYER)

    valkey.kill()
    assert await here.connected(USER)
    assert not await there.connected(USER), "as far as this process knows"
    valkey.start()
    await w.a.presence_store.refresh()
    assert await there.connected(USER)

    await user.sio.disconnect()
    await until(lambda: not w.a.realtime.push.watching(USER))
    await until(lambda: not here._leaving)
    await written(w)
    assert not await here.connected(USER)
    assert not await there.connected(USER)


async def test_nothing_is_kept_of_who_is_gone(w: TwoWorlds) -> None:
    user, lawyer = await w.a.joined(USER), await w.b.joined(LAWYER)
    for client in (user, lawyer):
        await client.sio.disconnect()
    await until(lambda: len(w.a.realtime) + len(w.b.realtime) == 0)
    await until(lambda: not w.a.realtime.presence._leaving and not w.b.realtime.presence._leaving)
    await written(w)

    for process in (w.a, w.b):
        presence = process.realtime.presence
        kept = (presence._sockets, presence._elsewhere, presence._written, presence._settling)
        assert kept == ({}, {}, set(), {})
        assert process.presence_store._ours == {}
    assert await w.a.redis.command("KEYS", "tarazu:presence:*") == []
