"""`chat.presence.PresenceStore` in Redis: a sorted set for each room, of people at processes, by the instant at which they lapse."""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final

from chat.errors import Unavailable
from chat.push import SESSIONS
from chat.whereabouts import HERE, KEEP_S, NO_TRACE, Whereabouts
from server.redis_client import RedisClient, RedisUnavailable, Script

#: What a dead process knew is gone by then, so that with a sweep every five seconds its people's peers know within thirty.
LIFETIME_MS: Final = 25_000
#: After an outage every living process has written again by then: refreshes come every ten seconds.
SETTLE_MS: Final = 15_000
#: Rooms in one command.
_CHUNK: Final = 200
#: A member is the process, then the person.
_NODE_CHARS: Final = 16

_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local alive = string.format('(%.0f', now)
"""

#: KEYS: signs of sessions' rooms. ARGV: for how long, since when, now, then a member for each key.
_SIGN: Final = Script(
    """
for i, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', ARGV[2])
  redis.call('ZADD', key, ARGV[3], ARGV[i + 3])
  redis.call('PEXPIRE', key, ARGV[1])
end
return 0
"""
)

#: KEYS: since when Redis remembers, then for each room its members and its signs. Answers how long it has remembered, then for each
#: room the members, and the signs each with its instant.
_WHEREABOUTS: Final = Script(
    _NOW
    + """
local since = redis.call('GET', KEYS[1])
if not since then
  since = string.format('%.0f', now)
  redis.call('SET', KEYS[1], since)
end
local found = {now - since}
for i = 2, #KEYS, 2 do
  found[i] = redis.call('ZRANGEBYSCORE', KEYS[i], alive, '+inf')
  found[i + 1] = redis.call('ZRANGE', KEYS[i + 1], 0, -1, 'WITHSCORES')
end
return found
"""
)

#: ARGV: lifetime, then a member for each key.
_ENTER: Final = Script(
    _NOW
    + """
for i, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
  redis.call('ZADD', key, string.format('%.0f', now + ARGV[1]), ARGV[i + 1])
  redis.call('PEXPIRE', key, ARGV[1])
end
return 0
"""
)

#: ARGV: member, person, length of a process's name. Answers 1 if the person is there through no other process.
_LEAVE: Final = Script(
    _NOW
    + """
redis.call('ZREM', KEYS[1], ARGV[1])
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], alive, '+inf')) do
  if string.sub(member, ARGV[3] + 1) == ARGV[2] then return 0 end
end
return 1
"""
)

#: KEYS: since when Redis remembers, then rooms. Answers how long it has remembered, then the members of each room.
_MEMBERS: Final = Script(
    _NOW
    + """
local since = redis.call('GET', KEYS[1])
if not since then
  since = string.format('%.0f', now)
  redis.call('SET', KEYS[1], since)
end
local found = {now - since}
for i = 2, #KEYS do found[i] = redis.call('ZRANGEBYSCORE', KEYS[i], alive, '+inf') end
return found
"""
)


class RedisPresence:
    """What this process has entered it writes again with every refresh, whatever Redis has forgotten meanwhile."""

    def __init__(
        self,
        redis: RedisClient,
        *,
        lifetime_ms: int = LIFETIME_MS,
        settle_ms: int = SETTLE_MS,
        monotonic_s: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        keep_s: float = KEEP_S,
    ) -> None:
        """`now_ms` is the clock of the signs of life, which are kept for `keep_s`."""
        self._keep_ms = round(keep_s * 1000)
        self._now_ms = now_ms
        self._redis = redis
        self._lifetime_ms = lifetime_ms
        self._settle_ms = settle_ms
        self._monotonic_s = monotonic_s
        self._node = secrets.token_hex(_NODE_CHARS // 2)
        self._ours: dict[tuple[str, str], None] = {}
        #: A refresh that overtook a leave would bring back who has left.
        self._writing = asyncio.Lock()
        #: For how long Redis has answered us without a failure, and for how long it has forgotten nothing.
        self._answers_since_s: float | None = None
        self._remembers_ms = 0

    @property
    def is_complete(self) -> bool:
        if self._answers_since_s is None:
            return False
        answers_ms = (self._monotonic_s() - self._answers_since_s) * 1000
        return answers_ms >= self._settle_ms and self._remembers_ms >= self._settle_ms

    async def enter(self, room: str, person_id: str) -> None:
        self._ours[room, person_id] = None
        await self._enter([(room, person_id)])

    async def leave(self, room: str, person_id: str, *, sign_ms: int = NO_TRACE) -> bool:
        self._ours.pop((room, person_id), None)
        member = self._node + person_id
        async with self._writing:
            if sign_ms:
                # First: who is no member any more is gone since then, and never for no reason.
                await self._sign([(room, person_id)], sign_ms)
            is_gone: int = await self._run(_LEAVE, [self._key(room)], member, person_id, _NODE_CHARS)
        return bool(is_gone)

    async def elsewhere(self, rooms: Sequence[str]) -> list[set[str]]:
        found: list[set[str]] = []
        for first in range(0, len(rooms), _CHUNK):
            keys = [self._redis.key("presence-since"), *map(self._key, rooms[first : first + _CHUNK])]
            self._remembers_ms, *members = await self._run(_MEMBERS, keys)
            found.extend(self._others(room) for room in members)
        return found

    async def whereabouts(self, rooms: Sequence[str]) -> list[dict[str, Whereabouts]]:
        found: list[dict[str, Whereabouts]] = []
        for first in range(0, len(rooms), _CHUNK):
            keys = [self._redis.key("presence-since")]
            for room in rooms[first : first + _CHUNK]:
                keys += [self._key(room), self._signs_key(room)]
            self._remembers_ms, *answers = await self._run(_WHEREABOUTS, keys)
            found.extend(map(self._where, answers[::2], answers[1::2]))
        return found

    async def refresh(self) -> None:
        ours = iter(list(self._ours))
        while chunk := list(islice(ours, _CHUNK)):
            async with self._writing:
                # Who has left since this round began is not written again.
                await self._enter([key for key in chunk if key in self._ours])

    async def _enter(self, keys: list[tuple[str, str]]) -> None:
        if keys:
            members = [self._node + person_id for _, person_id in keys]
            await self._run(_ENTER, [self._key(room) for room, _ in keys], self._lifetime_ms, *members)
            # Should this process die, whoever was here through it was last known to be alive at its last refresh.
            await self._sign(keys, self._now_ms())

    async def _sign(self, keys: list[tuple[str, str]], sign_ms: int) -> None:
        keys = [(room, person_id) for room, person_id in keys if room.startswith(SESSIONS)]
        if keys:
            members = [self._node + person_id for _, person_id in keys]
            names = [self._signs_key(room) for room, _ in keys]
            await self._run(_SIGN, names, self._keep_ms, self._now_ms() - self._keep_ms, sign_ms, *members)

    async def _run(self, script: Script, keys: list[str], *arguments: str | int) -> Any:
        try:
            reply = await self._redis.run(script, keys, *arguments)
        except RedisUnavailable as exc:
            self._answers_since_s = None
            raise Unavailable(reason=str(exc.facts["reason"])) from exc
        if self._answers_since_s is None:
            self._answers_since_s = self._monotonic_s()
        return reply

    def _others(self, members: list[bytes]) -> set[str]:
        names = [member.decode() for member in members]
        return {name[_NODE_CHARS:] for name in names if name[:_NODE_CHARS] != self._node}

    def _where(self, members: list[bytes], signs: list[bytes]) -> dict[str, Whereabouts]:
        """What is known of our own people is for us to say, and we know better."""
        where: dict[str, Whereabouts] = {}
        for member, sign in zip(signs[::2], signs[1::2], strict=True):
            name = member.decode()
            if name[:_NODE_CHARS] != self._node:
                person_id = name[_NODE_CHARS:]
                where[person_id] = max(int(where.get(person_id) or NO_TRACE), int(float(sign)))
        return where | dict.fromkeys(self._others(members), HERE)

    def _signs_key(self, room: str) -> str:
        return self._redis.key(f"presence-signs:{room}")

    def _key(self, room: str) -> str:
        return self._redis.key(f"presence:{room}")
