"""Makes what is stored in Redis older, so that no test waits for it."""

from server.redis_client import RedisClient, Script

_AGE = Script("""
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key)
  if left >= 0 then
    if left <= tonumber(ARGV[1]) then redis.call('DEL', key) else redis.call('PEXPIRE', key, left - ARGV[1]) end
  end
end
return 0
""")


async def age_keys(redis: RedisClient, by_ms: int) -> None:
    """Every key that expires does so this much sooner."""
    await redis.run(_AGE, [], by_ms)
