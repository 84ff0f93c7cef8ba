"""The sending half of the bus: one queue, one worker, and no second try."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any, Final

import structlog

from server.redis_client import RedisClient

log = structlog.get_logger(__name__)

#: What may wait. Beyond it messages are dropped: nothing here is worth the memory that bills sessions.
MAX_WAITING: Final = 10_000
MAX_WAITING_BYTES: Final = 16 * 1024 * 1024
#: Messages in one round trip.
_BATCH: Final = 256
#: How often Redis is asked whether it is back.
_REST_S: Final = 0.25


class Publisher:
    """Publishes in order, at most once: a batch whose reply was lost may have arrived and is not sent again."""

    def __init__(
        self, redis: RedisClient, *, max_waiting: int = MAX_WAITING, max_bytes: int = MAX_WAITING_BYTES
    ) -> None:
        self._redis = redis
        self._max_waiting = max_waiting
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        #: Messages that were handed to Redis, and that were not.
        self.sent = 0
        self.dropped = 0
        #: Redis does not answer. What comes meanwhile is dropped: old ticks and typing are worse than none.
        self.away = False

    def put(self, channel: str, message: bytes) -> None:
        """Queue it, or drop it. Never waits, never raises."""
        full = len(self._waiting) >= self._max_waiting or self._waiting_bytes >= self._max_bytes
        if self.away or full:
            self.dropped += 1
            return
        self._waiting.append((channel, message))
        self._waiting_bytes += len(message)
        self._idle.clear()
        self._wake.set()

    async def flush(self, patience_s: float) -> None:
        """Wait until everything queued was sent or dropped, or until patience ends."""
        try:
            async with asyncio.timeout(patience_s):
                await self._idle.wait()
        except TimeoutError:
            return

    async def run(self) -> None:
        """Send until cancelled."""
        connection: Any = self._redis.connection()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while batch := self._take():
                    try:
                        await self._send(connection, batch)
                    except Exception as exc:  # noqa: BLE001  mute for ever is worse than whatever this is
                        self._failed(exc, len(batch))
                        await self._back(connection)
                self._idle.set()
        finally:
            await connection.disconnect(nowait=True)

    async def _send(self, connection: Any, batch: list[tuple[str, bytes]]) -> None:
        async with asyncio.timeout(self._redis.timeout_s):
            if connection.is_connected and await connection.can_read():
                # Closed by a Redis that has been started again since; what is sent there is lost.
                await connection.disconnect(nowait=True)
            await connection.connect()
            await connection.send_packed_command(
                connection.pack_commands(("PUBLISH", channel, message) for channel, message in batch)
            )
            for _ in batch:
                await connection.read_response()
        self.sent += len(batch)

    async def _back(self, connection: Any) -> None:
        """Return once Redis answers again."""
        dropped = self.dropped
        while self.away:
            await connection.disconnect(nowait=True)
            await asyncio.sleep(_REST_S)
            with suppress(Exception):
                async with asyncio.timeout(self._redis.timeout_s):
                    await connection.connect()
                    await connection.send_command("PING")
                    await connection.read_response()
                self.away = False
        log.info("bus_publishes_again", dropped=self.dropped - dropped)

    def _take(self) -> list[tuple[str, bytes]]:
        batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
        self._waiting_bytes -= sum(len(message) for _, message in batch)
        return batch

    def _failed(self, exc: BaseException, messages: int) -> None:
        log.warning("bus_cannot_publish", error=f"{type(exc).__name__}: {exc}")
        self.away = True
        self.dropped += messages + len(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._idle.set()
