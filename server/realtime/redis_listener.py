"""The hearing half of the bus: one connection, and exactly the channels that concern this process.

One channel for all would be simpler, and every process would then decode everything that any process says.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

import structlog

from server.redis_client import FAILURES, RedisClient

log = structlog.get_logger(__name__)

#: First and longest pause before connecting again. A process that is deaf for a minute misses a minute.
_BACKOFF_S: Final = (0.05, 2.0)
#: How often Redis is asked whether it is there. Whoever is silent until the next time is not.
SILENCE_S: Final = 2.0
#: Channels in one command.
_CHUNK: Final = 256
#: Comes back when everything that was sent before it was done.
_MARK: Final = b"resync"


class Listener:
    """Keeps what is subscribed at Redis equal to what is wanted, over every outage."""

    def __init__(
        self,
        redis: RedisClient,
        *,
        take: Callable[[bytes, bytes], None],
        back: Callable[[], None],
        silence_s: float = SILENCE_S,
    ) -> None:
        """`take` gets (channel, message). `back` is called when all is subscribed again after an outage."""
        self._redis = redis
        self._take = take
        self._back = back
        self._silence_s = silence_s
        self._wanted: set[bytes] = set()
        #: Wanted or not wanted any more, and Redis has not been told.
        self._changed: set[bytes] = set()
        self._wake = asyncio.Event()
        #: What was last asked for on this connection, and replies that are still due, by channel.
        self._held: set[bytes] = set()
        self._due: dict[bytes, int] = {}
        self._waiting: dict[bytes, set[asyncio.Future[bool]]] = {}
        self._backoff_s = 0.0
        #: Nothing was heard since Redis was last asked.
        self._is_silent = False
        #: All that is wanted is heard.
        self.connected = False
        #: The last try failed, or the connection was lost.
        self.away = False
        self._settled = asyncio.Event()

    def subscribe(self, channel: str) -> None:
        self._wanted.add(channel.encode())
        self._change(channel.encode())

    def unsubscribe(self, channel: str) -> None:
        self._wanted.discard(channel.encode())
        self._change(channel.encode())

    async def subscribed(self, channel: str, *, patience_s: float) -> bool:
        """See `Bus.subscribed`."""
        name = channel.encode()
        if self._is_heard(name):
            return True
        if self.away:
            return False
        waiting: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, set()).add(waiting)
        try:
            async with asyncio.timeout(patience_s):
                return await waiting
        except TimeoutError:
            return False
        finally:
            left = self._waiting.get(name, set())
            left.discard(waiting)
            if not left:
                self._waiting.pop(name, None)

    async def settled(self, patience_s: float) -> None:
        """Wait until the first try to connect has ended one way or the other."""
        try:
            async with asyncio.timeout(patience_s):
                await self._settled.wait()
        except TimeoutError:
            return

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            connection: Any = self._redis.connection()
            try:
                async with asyncio.timeout(self._redis.timeout_s):
                    await connection.connect()
                await self._serve(connection)
            except FAILURES as exc:
                self._lost(exc)
            except Exception as exc:
                # Deaf for ever is worse than whatever this is.
                log.exception("bus_listener_failed")
                self._lost(exc)
            finally:
                self._forget()
                await connection.disconnect(nowait=True)
            await asyncio.sleep(self._pause_s())

    async def _serve(self, connection: Any) -> None:
        self._changed |= self._wanted
        writing = asyncio.create_task(self._write(connection), name="bus subscriptions")
        try:
            await self._read(connection)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    # --- what goes out ---

    def _change(self, name: bytes) -> None:
        self._changed.add(name)
        self._wake.set()

    async def _write(self, connection: Any) -> None:
        """Send what changes, and ask now and then whether Redis is there. A failure closes the connection, which the reading
        notices.
        """
        loop = asyncio.get_running_loop()
        try:
            await self._send_changes(connection)
            # Before the question is sent: its answer may be read before the sending returns.
            self._is_silent, ask_at_s = True, loop.time() + self._silence_s
            await _command(connection, "PING", _MARK, timeout_s=self._silence_s)
            while True:
                try:
                    async with asyncio.timeout_at(ask_at_s):
                        await self._wake.wait()
                except TimeoutError:
                    # Where the loop itself stood still, the answer may lie there unread.
                    if self._is_silent and loop.time() < ask_at_s + self._silence_s:
                        raise
                    self._is_silent, ask_at_s = True, loop.time() + self._silence_s
                    await _command(connection, "PING", timeout_s=self._silence_s)
                else:
                    await self._send_changes(connection)
        except FAILURES as exc:
            log.debug("bus_subscriptions_end", error=repr(exc))
        finally:
            await connection.disconnect(nowait=True)

    async def _send_changes(self, connection: Any) -> None:
        self._wake.clear()
        changed, self._changed = self._changed, set()
        # Left and entered again before anybody looked: nothing to send.
        await self._send(connection, "SUBSCRIBE", [c for c in changed & self._wanted if c not in self._held])
        await self._send(connection, "UNSUBSCRIBE", [c for c in changed - self._wanted if c in self._held])

    async def _send(self, connection: Any, command: str, names: list[bytes]) -> None:
        for first in range(0, len(names), _CHUNK):
            chunk = names[first : first + _CHUNK]
            for name in chunk:
                self._due[name] = self._due.get(name, 0) + 1
            if command == "SUBSCRIBE":
                self._held.update(chunk)
            else:
                self._held.difference_update(chunk)
            await _command(connection, command, *chunk, timeout_s=self._silence_s)

    # --- what comes in ---

    async def _read(self, connection: Any) -> None:
        while True:
            # Without a limit, which would cost a timer a message: the writing half sees a silence and closes the connection.
            reply = await connection.read_response()
            self._is_silent = False
            self._hear(reply)

    def _hear(self, reply: Any) -> None:
        match reply:
            case [b"message", bytes(channel), bytes(message)]:
                try:
                    self._take(channel, message)
                except Exception:
                    # Whatever another version of us says, one message is lost and not the connection.
                    log.exception("bus_message_failed")
            case [b"subscribe" | b"unsubscribe", bytes(name), _]:
                self._confirmed(name)
            case [b"pong", b"resync"] | b"resync":
                self._all_heard()

    def _confirmed(self, name: bytes) -> None:
        # A channel may be left and entered again while replies are under way: only the last one tells.
        left = self._due.pop(name, 1) - 1
        if left > 0:
            self._due[name] = left
        elif name in self._held:
            for waiting in self._waiting.pop(name, ()):
                if not waiting.done():
                    waiting.set_result(True)

    def _is_heard(self, name: bytes) -> bool:
        return name in self._held and name not in self._due

    def _all_heard(self) -> None:
        was_away, self.away, self.connected, self._backoff_s = self.away, False, True, 0.0
        self._settled.set()
        if was_away:
            log.info("bus_hears_again", channels=len(self._held))
            try:
                self._back()
            except Exception:
                log.exception("bus_resync_failed")

    # --- outages ---

    def _lost(self, exc: BaseException) -> None:
        if not self.away:
            self.away = True
            log.warning("bus_cannot_hear", error=f"{type(exc).__name__}: {exc}")
        self._settled.set()

    def _forget(self) -> None:
        self.connected = False
        self._held.clear()
        self._due.clear()
        self._changed.clear()
        for waiting in [future for futures in self._waiting.values() for future in futures]:
            if not waiting.done():
                waiting.set_result(False)
        self._waiting.clear()

    def _pause_s(self) -> float:
        first_s, longest_s = _BACKOFF_S
        self._backoff_s = min(longest_s, max(first_s, self._backoff_s * 2))
        # Apart from the other processes, or all come back in the same instant.
        return self._backoff_s * random.uniform(0.5, 1.0)  # noqa: S311


async def _command(connection: Any, *words: str | bytes, timeout_s: float) -> None:
    """Send it on the connection as it is: left to itself redis-py would open a new one, which is subscribed to nothing."""
    if not connection.is_connected:
        raise ConnectionError("the connection is gone")
    async with asyncio.timeout(timeout_s):
        await connection.send_command(*words, check_health=False)
