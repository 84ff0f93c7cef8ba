"""Who is where, as several processes write it into a real Redis-protocol server."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from chat.errors import Unavailable
from chat.whereabouts import HERE
from server.realtime.redis_presence import LIFETIME_MS, SETTLE_MS, RedisPresence
from server.redis_client import RedisClient, Script, open_redis
from tests.support.manual_clock import turns
from tests.support.redis_age import age_keys
from tests.support.valkey import PATIENCE_S, Valkey


class Monotonic:
    def __init__(self) -> None:
        self.s = 1_000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[RedisClient]:
    async with open_redis(valkey.url, timeout_s=PATIENCE_S) as client:
        yield client


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
def a(redis: RedisClient, monotonic: Monotonic) -> RedisPresence:
    return RedisPresence(redis, monotonic_s=monotonic)


@pytest.fixture
def b(redis: RedisClient) -> RedisPresence:
    return RedisPresence(redis)


async def test_others_see_who_is_here_and_we_see_the_others(a: RedisPresence, b: RedisPresence) -> None:
    await a.enter("s:1", "usr")
    await b.enter("s:1", "law")
    await b.enter("s:2", "law")

    assert await a.elsewhere(["s:1", "s:2", "s:3"]) == [{"law"}, {"law"}, set()]
    assert await b.elsewhere(["s:1", "s:2"]) == [{"usr"}, set()]
    assert await a.elsewhere([]) == []


async def test_the_last_process_to_be_left_is_told_so(a: RedisPresence, b: RedisPresence) -> None:
    """Who closes the laptop and goes on with the phone is not offline."""
    await a.enter("s:1", "usr")
    await b.enter("s:1", "usr")
    await b.enter("s:1", "law")

    assert await a.leave("s:1", "usr") is False
    assert await b.leave("s:1", "usr") is True
    assert await b.leave("s:1", "usr") is True, "a repeat after a lost reply"
    assert await a.elsewhere(["s:1"]) == [{"law"}]


async def test_what_a_dead_process_knew_lapses(
    a: RedisPresence, b: RedisPresence, redis: RedisClient
) -> None:
    await a.enter("s:1", "usr")
    await b.enter("s:1", "usr")
    await b.enter("s:1", "law")
    await age_keys(redis, LIFETIME_MS - 1_000)
    assert await a.elsewhere(["s:1"]) == [{"usr", "law"}]
    await a.refresh()
    await age_keys(redis, 1_000)

    assert await a.elsewhere(["s:1"]) == [set()]
    assert await b.elsewhere(["s:1"]) == [{"usr"}]
    assert await a.leave("s:1", "usr") is True, "the dead one's entry does not count"


async def test_nothing_is_kept_of_rooms_that_nobody_is_in(a: RedisPresence, redis: RedisClient) -> None:
    for n in range(20):
        await a.enter(f"s:{n}", "usr")
    for n in range(10):
        await a.leave(f"s:{n}", "usr")
    assert len(await redis.command("KEYS", "tarazu:presence:*")) == 10
    await age_keys(redis, LIFETIME_MS)

    assert await redis.command("KEYS", "tarazu:presence:*") == []


async def test_a_refresh_writes_again_what_redis_forgot(
    a: RedisPresence, b: RedisPresence, valkey: Valkey
) -> None:
    for n in range(450):
        await a.enter(f"s:{n}", "usr")
    await a.leave("s:7", "usr")
    valkey.flush()
    await a.refresh()

    found = await b.elsewhere([f"s:{n}" for n in range(450)])
    assert [n for n, people in enumerate(found) if people != {"usr"}] == [7]


async def test_a_refresh_brings_nobody_back_who_left_meanwhile(a: RedisPresence, b: RedisPresence) -> None:
    """A peer would see a ghost for half a minute."""
    rooms = [f"s:{n}" for n in range(300)]
    for room in rooms:
        await a.enter(room, "usr")

    await asyncio.gather(
        *(a.refresh() for _ in range(5)), *(a.leave(room, "usr") for room in rooms), a.refresh()
    )

    assert await b.elsewhere(rooms) == [set()] * 300


async def test_a_leave_waits_for_the_refresh_that_still_says_here() -> None:
    """On another connection it could overtake it."""

    class Slow:
        def __init__(self) -> None:
            self.ran: list[str] = []
            self.gate = asyncio.Event()
            self.gate.set()

        def key(self, name: str) -> str:
            return name

        async def run(self, script: Script, keys: Sequence[str], *arguments: object) -> int:
            is_leave = "ZREM'" in script.text
            if not is_leave:
                await self.gate.wait()
            self.ran.append("ZREM" if is_leave else "ZADD")
            return 1

    slow = Slow()
    store = RedisPresence(slow)  # type: ignore[arg-type]
    await store.enter("s:1", "usr")
    slow.gate.clear()
    refresh = asyncio.create_task(store.refresh())
    await turns()
    leave = asyncio.create_task(store.leave("s:1", "usr"))
    await turns()
    assert slow.ran == ["ZADD", "ZADD"], "who is there, and a sign of life"
    slow.gate.set()
    await asyncio.gather(refresh, leave)

    assert slow.ran == ["ZADD"] * 4 + ["ZREM"]


async def test_it_is_complete_once_everybody_has_had_the_time_to_write(
    a: RedisPresence, redis: RedisClient, monotonic: Monotonic, valkey: Valkey
) -> None:
    """After FLUSHALL all peers are missing, and none of them has left."""
    assert not a.is_complete
    await a.elsewhere(["s:1"])
    await age_keys(redis, SETTLE_MS)
    monotonic.s += SETTLE_MS / 1000
    await a.elsewhere(["s:1"])
    assert a.is_complete

    valkey.flush()
    await a.elsewhere(["s:1"])
    assert not a.is_complete
    await age_keys(redis, SETTLE_MS)
    await a.elsewhere(["s:1"])
    assert a.is_complete


async def test_an_outage_makes_it_incomplete_though_redis_kept_everything(
    a: RedisPresence, redis: RedisClient, monotonic: Monotonic, valkey: Valkey
) -> None:
    """Nobody could refresh meanwhile, so everybody has lapsed."""
    await a.elsewhere(["s:1"])
    await age_keys(redis, SETTLE_MS)
    monotonic.s += SETTLE_MS / 1000
    valkey.stop()
    # It is waited for in full.
    redis.timeout_s = 1.0
    try:
        with pytest.raises(Unavailable):
            await a.elsewhere(["s:1"])
    finally:
        valkey.cont()
        redis.timeout_s = PATIENCE_S
    assert not a.is_complete

    await _answers(a)
    assert not a.is_complete
    monotonic.s += SETTLE_MS / 1000
    await a.elsewhere(["s:1"])
    assert a.is_complete


async def test_while_redis_is_away_nobody_knows(a: RedisPresence, b: RedisPresence, valkey: Valkey) -> None:
    await a.enter("s:1", "usr")
    valkey.kill()
    for call in (a.enter("s:1", "law"), a.leave("s:1", "usr"), a.elsewhere(["s:1"]), a.refresh()):
        with pytest.raises(Unavailable):
            await call
    valkey.start()
    await a.refresh()

    assert await b.elsewhere(["s:1"]) == [{"law"}]


# --- the last sign of life of who is gone ---


async def test_who_left_through_another_process_is_gone_since_the_sign_that_it_wrote(
    a: RedisPresence, b: RedisPresence
) -> None:
    await a.enter("s:1", "usr")
    await b.enter("s:1", "law")
    assert await b.whereabouts(["s:1", "s:2"]) == [{"usr": HERE}, {}]
    # Earlier than the last refresh: who is cut off for his silence was last heard before that.
    await a.leave("s:1", "usr", sign_ms=1_234)
    assert await b.whereabouts(["s:1"]) == [{"usr": 1_234}]
    assert await a.whereabouts(["s:1"]) == [{"law": HERE}], "of its own people a process knows better"


async def test_a_refresh_is_the_last_sign_of_a_process_that_dies(
    redis: RedisClient, b: RedisPresence
) -> None:
    wall = [1_700_000_000_000]
    dead = RedisPresence(redis, now_ms=lambda: wall[0])
    await dead.enter("s:1", "usr")
    wall[0] += 10_000
    await dead.refresh()
    wall[0] += 7_000
    await age_keys(redis, LIFETIME_MS - 5_000)
    assert await b.whereabouts(["s:1"]) == [{"usr": HERE}]
    await age_keys(redis, 5_000)
    ((name, sign),) = (await b.whereabouts(["s:1"]))[0].items()
    # Aged with everything else.
    assert (name, sign) == ("usr", 1_700_000_010_000 - LIFETIME_MS)


async def test_of_several_processes_the_latest_sign_counts(
    a: RedisPresence, b: RedisPresence, redis: RedisClient
) -> None:
    c = RedisPresence(redis)
    for process in (a, b, c):
        await process.enter("s:1", "usr")
    now_ms = time.time_ns() // 1_000_000
    for process, ago_ms in ((a, 5_000), (b, 1_000), (c, 3_000)):
        await process.leave("s:1", "usr", sign_ms=now_ms - ago_ms)
    watcher = RedisPresence(redis)
    assert await watcher.whereabouts(["s:1"]) == [{"usr": now_ms - 1_000}]
    await b.enter("s:1", "usr")
    assert await watcher.whereabouts(["s:1"]) == [{"usr": HERE}]


async def test_signs_are_kept_as_long_as_somebody_may_be_waited_for_and_no_longer(
    redis: RedisClient, b: RedisPresence
) -> None:
    wall = [1_700_000_000_000]
    a = RedisPresence(redis, now_ms=lambda: wall[0], keep_s=180)
    await a.enter("s:1", "usr")
    await a.leave("s:1", "usr", sign_ms=wall[0])
    await a.enter("u:usr", "usr")
    assert await redis.command("KEYS", "tarazu:presence-signs:*") == [b"tarazu:presence-signs:s:1"]
    await age_keys(redis, 170_000)
    assert await b.whereabouts(["s:1"]) == [{"usr": 1_700_000_000_000 - 170_000}]
    await age_keys(redis, 10_000)
    assert await b.whereabouts(["s:1"]) == [{}]
    assert await redis.command("KEYS", "tarazu:presence-signs:*") == []
    # Where others keep the room's key alive, what is old goes all the same.
    await a.enter("s:2", "usr")
    await a.leave("s:2", "usr", sign_ms=wall[0])
    wall[0] += 180_000
    await a.enter("s:2", "law")
    assert await b.whereabouts(["s:2"]) == [{"law": HERE}]


async def test_whereabouts_of_many_rooms_are_one_question_a_chunk(
    a: RedisPresence, b: RedisPresence, valkey: Valkey
) -> None:
    rooms = [f"s:{n}" for n in range(450)]
    for room in rooms[::50]:
        await a.enter(room, "usr")
    found = await b.whereabouts(rooms)
    assert [n for n, people in enumerate(found) if people == {"usr": HERE}] == list(range(0, 450, 50))
    assert await b.whereabouts([]) == []
    valkey.kill()
    with pytest.raises(Unavailable):
        await b.whereabouts(rooms)
    assert not b.is_complete
    valkey.start()


async def _answers(store: RedisPresence) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await store.elsewhere(["s:1"])
            except Unavailable:
                await asyncio.sleep(0.01)
            else:
                return
