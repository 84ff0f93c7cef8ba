"""Redis as the adapters see it: bounded waits, no hidden retries, and one kind of failure.

Nothing durable is in Redis, so the server starts without it and goes on without it. redis-py retries ten times by default: a
command whose reply was lost would be run again behind our back, and a caller would wait for seconds.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from billing_engine.errors import Unavailable

#: Connections for commands. Who finds none free waits, no longer than a command may take.
MAX_CONNECTIONS: Final = 32


class RedisUnavailable(Unavailable):
    """Redis did not answer, or refused: nobody knows whether the command was run."""

    detail = "A part of the service did not answer. Try again."


class Script:
    """A Lua script and the digest by which Redis knows it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisClient:
    """Commands and scripts. Every method raises `RedisUnavailable` within `timeout_s`, and nothing else of Redis."""

    def __init__(self, pool: BlockingConnectionPool, *, timeout_s: float, prefix: str) -> None:
        self._pool: Any = pool  # redis-py's own annotations do not satisfy strict callers
        self._redis: Any = Redis(connection_pool=pool)
        #: Longest wait for a reply.
        self.timeout_s = timeout_s
        self._prefix = prefix
        self._rest_until_s = 0.0

    def key(self, name: str) -> str:
        """The name of a key or a channel, apart from those of others who share this Redis."""
        return f"{self._prefix}:{name}"

    async def command(self, *words: str | bytes | int) -> Any:
        """The reply to one command."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._rest_until_s:
            raise RedisUnavailable(reason="did not answer a moment ago")
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._redis.execute_command(*words)
        except NoScriptError:
            raise
        except (RedisError, OSError) as exc:  # TimeoutError is an OSError
            if _is_silence(exc):
                # Who does not answer one will not answer the next: a login asks three times, and a tick waits, too.
                self._rest_until_s = loop.time() + self.timeout_s
            raise RedisUnavailable(reason=f"{type(exc).__name__}: {exc}") from exc

    async def run(self, script: Script, keys: Sequence[str], *arguments: str | bytes | int) -> Any:
        """The script's reply. A restart and SCRIPT FLUSH forget scripts; then the text is sent once."""
        try:
            return await self.command("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await self.command("EVAL", script.text, len(keys), *keys, *arguments)

    async def ping(self) -> None:
        """Returns when Redis answers."""
        await self.command("PING")

    def connection(self) -> AbstractConnection:
        """A connection of one's own to the same address, not yet open. It waits as long as it is let (`asyncio.timeout`), and its
        errors are redis-py's: see `FAILURES`.
        """
        connection: AbstractConnection = self._pool.make_connection()
        return connection


#: What a connection of one's own raises when Redis is away.
FAILURES: Final = (RedisError, OSError)


def _is_silence(exc: BaseException) -> bool:
    """Whether nothing came, which costs the whole timeout; a refused connection costs nothing."""
    return isinstance(exc, (TimeoutError, RedisTimeoutError))


@asynccontextmanager
async def open_redis(
    url: str, *, timeout_s: float = 1.0, prefix: str = "tarazu"
) -> AsyncIterator[RedisClient]:
    """A client of the Redis at `url` (`redis://`, `rediss://`, `unix://`), connected when first used: it opens though Redis is down.

    `prefix` starts every key and channel; deployments that share one Redis need different ones (channels know no database
    number). Raises `ValueError` for a URL that is none.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        # Waits are bounded by `command` and by whoever has a connection of their own. redis-py's own limit goes through
        # `asyncio.wait_for`, which on Python 3.11 can swallow a cancellation: a task that should end goes on for ever.
        socket_timeout=None,
        socket_connect_timeout=timeout_s,
        # Replies as lists on every server, and messages of a subscription in order with the replies to it.
        protocol=2,
        driver_info=None,
    )
    try:
        yield RedisClient(pool, timeout_s=timeout_s, prefix=prefix)
    finally:
        await pool.aclose()
