"""Whoever talks to Redis ends when told to: a stop that waits for a task that does not end never returns."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from server.realtime.redis_publisher import Publisher
from server.redis_client import RedisClient, open_redis
from tests.support.valkey import PATIENCE_S, Valkey


async def _asks(redis: RedisClient) -> None:
    while True:
        await redis.command("PING")


async def _publishes(redis: RedisClient) -> None:
    publisher = Publisher(redis)
    sending = asyncio.create_task(publisher.run())
    try:
        while True:
            publisher.put("x", b"y")
            await asyncio.sleep(0)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.parametrize("work", [_asks, _publishes])
async def test_a_task_ends_wherever_it_is_cancelled(valkey: Valkey, work: Any) -> None:
    """redis-py's own timeouts swallowed more than half of the cancellations here, on Python 3.11."""
    async with open_redis(valkey.url) as redis:
        for turns in range(20, 70):
            call: Coroutine[Any, Any, None] = work(redis)
            task = asyncio.create_task(call)
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            _, alive = await asyncio.wait([task], timeout=PATIENCE_S)
            assert not alive
