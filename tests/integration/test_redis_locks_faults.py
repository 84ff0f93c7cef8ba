"""What a failing network and a forgetful Redis do to the locks: never a pair half taken, never one stuck beyond its lifetime."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from billing_engine.errors import Unavailable
from server.locks.redis import RedisLocks
from server.redis_client import RedisClient, open_redis
from tests.support.redis_age import age_keys
from tests.support.tcp_proxy import TcpProxy, tcp_proxy
from tests.support.valkey import PATIENCE_S, Valkey

BOTH = ("lock:user:1", "lock:lawyer:1")
TTL_MS = 30_000
#: What a test sets once Redis is silent, for it waits for it in full. Before, a busy machine must not reach the limit.
TIMEOUT_S = 1.0


@pytest.fixture
async def proxy(valkey: Valkey) -> AsyncIterator[TcpProxy]:
    async with tcp_proxy(valkey.port) as the_proxy:
        yield the_proxy


@pytest.fixture
async def redis(proxy: TcpProxy) -> AsyncIterator[RedisClient]:
    async with open_redis(f"redis://127.0.0.1:{proxy.port}", timeout_s=PATIENCE_S) as client:
        yield client


@pytest.fixture
async def other(valkey: Valkey) -> AsyncIterator[RedisClient]:
    """The same Redis on a network that works."""
    async with open_redis(valkey.url, timeout_s=PATIENCE_S) as client:
        yield client


@pytest.fixture
def locks(redis: RedisClient) -> RedisLocks:
    return RedisLocks(redis, ttl_ms=TTL_MS)


@pytest.fixture
def rival(other: RedisClient) -> RedisLocks:
    return RedisLocks(other, ttl_ms=TTL_MS)


def _script(request: bytes) -> bool:
    return b"EVAL" in request


async def test_a_lost_reply_to_an_acquire_is_unknown_and_its_repeat_is_success(
    locks: RedisLocks, rival: RedisLocks, proxy: TcpProxy
) -> None:
    """With one library lock the retry sees its own token and says: busy. A free lawyer would be refused for half a minute."""
    await locks.acquire(("warm",), "s0")
    proxy.lose_next_reply(_script)

    with pytest.raises(Unavailable):
        await locks.acquire(BOTH, "s1")
    assert proxy.lost == 1
    assert await rival.acquire(BOTH, "s2") == BOTH[0]
    assert await locks.acquire(BOTH, "s1") is None


async def test_a_lost_reply_to_a_renewal_has_renewed(
    locks: RedisLocks, rival: RedisLocks, other: RedisClient, proxy: TcpProxy
) -> None:
    await locks.acquire(BOTH, "s1")
    await locks.renew(BOTH, "s1")
    await age_keys(other, TTL_MS - 1_000)
    proxy.lose_next_reply(_script)

    with pytest.raises(Unavailable):
        await locks.renew(BOTH, "s1")
    await age_keys(other, TTL_MS - 1_000)
    assert await rival.acquire(BOTH, "s2") == BOTH[0]


async def test_a_lost_reply_to_a_release_has_released_and_its_repeat_frees_nobody_else(
    locks: RedisLocks, rival: RedisLocks, proxy: TcpProxy
) -> None:
    await locks.acquire(BOTH, "s1")
    await locks.release(("warm",), "s1")
    proxy.lose_next_reply(_script)

    with pytest.raises(Unavailable):
        await locks.release(BOTH, "s1")
    assert await rival.acquire(BOTH, "s2") is None
    await locks.release(BOTH, "s1")
    assert await rival.acquire(BOTH, "s3") == BOTH[0]


async def test_requests_that_arrive_twice_change_nothing_more(
    locks: RedisLocks, rival: RedisLocks, proxy: TcpProxy
) -> None:
    await locks.acquire(("warm",), "s0")
    await locks.release(("warm",), "s0")

    proxy.deliver_twice(_script)
    assert await locks.acquire(BOTH, "s1") is None
    proxy.deliver_twice(_script)
    await locks.release(BOTH, "s1")

    assert proxy.doubled == 2
    assert await rival.acquire(BOTH, "s2") is None


async def test_scripts_that_redis_forgot_are_sent_again(
    locks: RedisLocks, rival: RedisLocks, valkey: Valkey
) -> None:
    await locks.acquire(BOTH, "s1")
    valkey.ask("SCRIPT", "FLUSH")

    await locks.renew(BOTH, "s1")
    valkey.ask("SCRIPT", "FLUSH")
    assert await rival.acquire(BOTH, "s2") == BOTH[0]
    valkey.ask("SCRIPT", "FLUSH")
    await locks.release(BOTH, "s1")
    assert await rival.acquire(BOTH, "s2") is None


async def test_flushall_frees_everybody_until_the_next_renewal(
    locks: RedisLocks, rival: RedisLocks, valkey: Valkey
) -> None:
    """The claims in storage refuse meanwhile. Who got in between keeps what is theirs."""
    await locks.acquire(BOTH, "s1")
    valkey.flush()
    await locks.renew(BOTH, "s1")
    assert await rival.acquire(BOTH, "s2") == BOTH[0]

    valkey.flush()
    assert await rival.acquire(BOTH[1:], "s2") is None
    await locks.renew(BOTH, "s1")
    await locks.release(BOTH, "s1")
    assert await rival.acquire(BOTH, "s3") == BOTH[1]


async def test_a_restart_loses_the_locks_and_the_scripts_and_nothing_more(
    locks: RedisLocks, rival: RedisLocks, valkey: Valkey
) -> None:
    await locks.acquire(BOTH, "s1")
    valkey.kill()
    with pytest.raises(Unavailable):
        await locks.renew(BOTH, "s1")
    with pytest.raises(Unavailable):
        await locks.ping()
    valkey.start()

    await locks.renew(BOTH, "s1")
    assert await rival.acquire(BOTH, "s2") == BOTH[0]


async def test_a_frozen_redis_costs_one_timeout_and_then_nothing(
    locks: RedisLocks, redis: RedisClient, valkey: Valkey
) -> None:
    """Five hundred sessions renew their locks with every tick; each of them must not wait each time."""
    await locks.acquire(BOTH, "s1")
    valkey.stop()
    redis.timeout_s = TIMEOUT_S

    with pytest.raises(Unavailable) as silent:
        await locks.renew(BOTH, "s1")
    with pytest.raises(Unavailable) as at_once:
        await locks.renew(BOTH, "s1")

    assert "Timeout" in silent.value.facts["reason"]
    assert at_once.value.facts["reason"] == "did not answer a moment ago"


async def test_a_black_hole_ends(locks: RedisLocks, redis: RedisClient, proxy: TcpProxy) -> None:
    await locks.acquire(BOTH, "s1")
    proxy.black_hole = True
    redis.timeout_s = TIMEOUT_S
    with pytest.raises(Unavailable):
        await locks.acquire(BOTH, "s1")
    proxy.black_hole = False

    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(Unavailable):
                assert await locks.acquire(BOTH, "s1") is None
                return
            await asyncio.sleep(0.01)


async def test_refused_and_reset_connections_are_unavailable(locks: RedisLocks, proxy: TcpProxy) -> None:
    await locks.ping()
    await proxy.refuse()
    for _ in range(3):
        with pytest.raises(Unavailable):
            await locks.acquire(BOTH, "s1")
    await proxy.accept()

    assert await locks.acquire(BOTH, "s1") is None


async def test_a_holder_that_died_holds_nobody_beyond_the_lifetime(
    locks: RedisLocks, other: RedisClient
) -> None:
    await locks.acquire(BOTH, "s1")
    left = [await other.command("PTTL", other.key(f"{{lock}}:{name}")) for name in BOTH]

    assert all(0 < left_ms <= TTL_MS for left_ms in left)


async def test_a_server_of_many_calls_at_once_opens_no_more_connections_than_allowed(
    valkey: Valkey,
) -> None:
    async with open_redis(valkey.url, timeout_s=PATIENCE_S) as redis:
        locks = RedisLocks(redis, ttl_ms=TTL_MS)
        answers = await asyncio.gather(*(locks.acquire((f"lock:{n}",), "s") for n in range(500)))
        clients = valkey.ask("INFO", "clients").decode()

    assert answers == [None] * 500
    assert int(clients.split("connected_clients:")[1].split("\r")[0]) <= 40


async def test_it_opens_though_nobody_listens() -> None:
    """The server starts without Redis."""
    async with open_redis("redis://127.0.0.1:1", timeout_s=TIMEOUT_S) as client:
        with pytest.raises(Unavailable):
            await client.ping()


async def test_what_is_no_url_is_refused() -> None:
    with pytest.raises(ValueError, match="Redis URL"):
        async with open_redis("http://127.0.0.1"):
            pass
