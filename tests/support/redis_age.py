"""Makes what is stored in Redis older, so that no test waits for it."""

from server.redis_client import RedisClient, Script

_AGE = Script("""
for _, key in ipairs(redis.call('KEYS', '*')) do
  if redis.call('TYPE', key).ok == 'zset' then
    for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZINCRBY', key, -ARGV[1], member) end
  elseif string.find(key, 'since', 1, true) then
    redis.call('SET', key, string.format('%.0f', redis.call('GET', key) - ARGV[1]))
  end
  local left = redis.call('PTTL', key)
  if left >= 0 then
    if left <= tonumber(ARGV[1]) then redis.call('DEL', key) else redis.call('PEXPIRE', key, left - ARGV[1]) end
  end
end
return 0
""")


async def age_keys(redis: RedisClient, by_ms: int) -> None:
    """What expires does so this much sooner; what counts from an instant, or lapses at one, has it this much earlier."""
    await redis.run(_AGE, [], by_ms)
