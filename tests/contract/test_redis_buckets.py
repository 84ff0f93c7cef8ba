"""Counts in a real Redis-protocol server keep the contract of all, and leave nothing behind."""

from collections.abc import AsyncIterator

import pytest

from billing_engine.errors import Unavailable
from server.rate_limits.model import Allowance
from server.rate_limits.redis import RedisBuckets
from server.redis_client import RedisClient, Script, open_redis
from tests.contract.buckets_contract import TEN, BucketsContract, Passes
from tests.support.valkey import PATIENCE_S, Valkey

#: The clock is Redis' own: instead of moving it on, what is stored is moved back.
_EARLIER = Script("""
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key) - ARGV[1]
  if left <= 0 then
    redis.call('DEL', key)
  else
    redis.call('SET', key, string.format('%.0f', redis.call('GET', key) - ARGV[1]), 'PX', left)
  end
end
return 0
""")


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[RedisClient]:
    async with open_redis(valkey.url, timeout_s=PATIENCE_S) as client:
        yield client


class TestRedisBuckets(BucketsContract):
    @pytest.fixture
    def buckets(self, redis: RedisClient) -> RedisBuckets:
        return RedisBuckets(redis)

    @pytest.fixture
    async def rival(self, valkey: Valkey) -> AsyncIterator[RedisBuckets]:
        async with open_redis(valkey.url, timeout_s=PATIENCE_S) as client:
            yield RedisBuckets(client)

    @pytest.fixture
    def passes(self, redis: RedisClient) -> Passes:
        async def later(by_ms: int) -> None:
            await redis.run(_EARLIER, [], by_ms)

        return later


async def test_a_key_is_kept_only_until_it_is_whole(redis: RedisClient) -> None:
    """Strangers make up addresses; what they leave behind must go by itself."""
    buckets = RedisBuckets(redis)
    await buckets.take("a", TEN)
    await buckets.take("a", TEN)
    (key,) = await redis.command("KEYS", "*")

    left_ms = await redis.command("PTTL", key)
    assert 60_000 < left_ms <= 120_000
    await buckets.give_back("a", TEN)
    left_ms = await redis.command("PTTL", key)
    assert 0 < left_ms <= 60_000
    await buckets.give_back("a", TEN)
    assert await redis.command("EXISTS", key) == 0


async def test_an_interval_of_a_millisecond_is_counted(redis: RedisClient) -> None:
    buckets = RedisBuckets(redis)

    assert await buckets.take("a", Allowance(999_999, 1_000)) == 0


async def test_counts_that_cannot_be_had_are_unavailable(redis: RedisClient, valkey: Valkey) -> None:
    buckets = RedisBuckets(redis)
    valkey.kill()

    for call in (buckets.take("a", TEN), buckets.give_back("a", TEN), buckets.clear("a")):
        with pytest.raises(Unavailable):
            await call
