"""The locks in a real Redis-protocol server keep the contract of all locks, seen by two processes."""

from collections.abc import AsyncIterator

import pytest

from server.locks.redis import RedisLocks
from server.redis_client import RedisClient, open_redis
from tests.contract.locks_contract import TTL_MS, Age, LocksContract
from tests.support.redis_age import age_keys
from tests.support.valkey import PATIENCE_S, Valkey


class TestRedisLocks(LocksContract):
    @pytest.fixture
    async def redis(self, valkey: Valkey) -> AsyncIterator[RedisClient]:
        async with open_redis(valkey.url, timeout_s=PATIENCE_S) as client:
            yield client

    @pytest.fixture
    def locks(self, redis: RedisClient) -> RedisLocks:
        return RedisLocks(redis, ttl_ms=TTL_MS)

    @pytest.fixture
    async def rival(self, valkey: Valkey) -> AsyncIterator[RedisLocks]:
        async with open_redis(valkey.url, timeout_s=PATIENCE_S) as client:
            yield RedisLocks(client, ttl_ms=TTL_MS)

    @pytest.fixture
    def age(self, redis: RedisClient) -> Age:
        return lambda by_ms: age_keys(redis, by_ms)
