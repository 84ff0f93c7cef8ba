"""`Locks` for many processes: a fast refusal before any write. The claims in storage decide (LEDGER 5).

Each operation is one script, so both names are taken together or not at all, and it compares tokens where the library's
`SET NX` does not: who repeats a call whose reply was lost meets its own token, and that is success.
"""

from typing import Final

from server.redis_client import RedisClient, Script

_ACQUIRE: Final = Script("""
for i = 1, #KEYS do
  local holder = redis.call('GET', KEYS[i])
  if holder and holder ~= ARGV[1] then return i end
end
for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[1], 'PX', ARGV[2]) end
return 0
""")

_RENEW: Final = Script("""
for i = 1, #KEYS do
  local holder = redis.call('GET', KEYS[i])
  if not holder or holder == ARGV[1] then redis.call('SET', KEYS[i], ARGV[1], 'PX', ARGV[2]) end
end
return 0
""")

_RELEASE: Final = Script("""
for i = 1, #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[1] then redis.call('DEL', KEYS[i]) end
end
return 0
""")


class RedisLocks:
    """Names held by tokens (session ids) for `ttl_ms`, which is all that bounds a lock whose holder died.

    Every method raises `Unavailable` when Redis does not answer; whether it was carried out is then unknown, and a repeat is
    harmless.
    """

    def __init__(self, redis: RedisClient, *, ttl_ms: int) -> None:
        self._redis = redis
        self._ttl_ms = ttl_ms

    async def acquire(self, names: tuple[str, ...], token: str) -> str | None:
        first_held: int = await self._redis.run(_ACQUIRE, self._keys(names), token, self._ttl_ms)
        return names[first_held - 1] if first_held else None

    async def holder(self, name: str) -> str | None:
        token: bytes | None = await self._redis.command("GET", *self._keys((name,)))
        return None if token is None else token.decode()

    async def renew(self, names: tuple[str, ...], token: str) -> None:
        """Lengthen what is ours, take again what expired, leave alone what another token took meanwhile."""
        await self._redis.run(_RENEW, self._keys(names), token, self._ttl_ms)

    async def release(self, names: tuple[str, ...], token: str) -> None:
        await self._redis.run(_RELEASE, self._keys(names), token)

    async def ping(self) -> None:
        await self._redis.ping()

    def _keys(self, names: tuple[str, ...]) -> list[str]:
        # One hash tag, one slot: a script may only touch keys that live together.
        return [self._redis.key(f"{{lock}}:{name}") for name in names]
