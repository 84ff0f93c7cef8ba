"""`Buckets` for many processes: the arithmetic of `model.py` in a script, on Redis' own clock.

A key holds its *full at* and expires then, so Redis remembers only who has used something.
"""

from typing import Final

from server.rate_limits.model import Allowance
from server.redis_client import RedisClient, Script

_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local interval = tonumber(ARGV[1])
"""

_TAKE: Final = Script(
    _NOW
    + """
local most = interval * ARGV[2]
local full = tonumber(redis.call('GET', KEYS[1]) or 0)
local after = math.max(now, full) + interval
if after - now > most then return math.max(0, full + interval - most - now) end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', after - now)
return 0
"""
)

_GIVE_BACK: Final = Script(
    _NOW
    + """
local full = tonumber(redis.call('GET', KEYS[1]) or 0) - interval
if full > now then
  redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', full - now)
else
  redis.call('DEL', KEYS[1])
end
return 0
"""
)


class RedisBuckets:
    """One instant a key. Every method raises `Unavailable` when Redis does not answer; a use may then have been counted."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def take(self, key: str, allowance: Allowance) -> int:
        wait_ms: int = await self._redis.run(_TAKE, [self._key(key)], allowance.interval_ms, allowance.count)
        return wait_ms

    async def give_back(self, key: str, allowance: Allowance) -> None:
        await self._redis.run(_GIVE_BACK, [self._key(key)], allowance.interval_ms)

    async def clear(self, key: str) -> None:
        await self._redis.command("DEL", self._key(key))

    def _key(self, key: str) -> str:
        return self._redis.key(f"rate:{key}")
