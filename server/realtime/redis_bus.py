"""`Bus` over Redis' publish and subscribe: a channel for each room, and one for what concerns every process."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
import structlog

from server.realtime.bus import Handler
from server.realtime.redis_listener import SILENCE_S, Listener
from server.realtime.redis_publisher import Publisher
from server.redis_client import RedisClient

log = structlog.get_logger(__name__)

#: Heard by every process. Rooms start with `s:` or `u:`.
CONTROL: Final = "control"
#: Every message starts with who said it.
_ORIGIN_BYTES: Final = 8
#: How long a start waits for the first connection, and a stop for what is queued.
_PATIENCE_S: Final = 0.5


class RedisBus:
    """Redis may be away at any time, also at the start: then messages are dropped and counted, and nothing else happens."""

    def __init__(self, redis: RedisClient, *, silence_s: float = SILENCE_S) -> None:
        """A dead connection is noticed after twice `silence_s`."""
        self._origin = secrets.token_bytes(_ORIGIN_BYTES)
        self._redis = redis
        self._prefix = redis.key("bus:")
        self._publisher = Publisher(redis)
        self._listener = Listener(redis, take=self._heard, back=self._resync, silence_s=silence_s)
        self._handlers: dict[str, list[Handler]] = {}
        self._after_outage: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        #: See the port.
        self.take: Callable[[str, bytes], None] = _nobody

    async def start(self) -> None:
        """Begin to hear and to send. Returns once Redis has answered, or soon when it does not."""
        self.subscribe(CONTROL)
        self._tasks = [
            asyncio.create_task(self._publisher.run(), name="bus publisher"),
            asyncio.create_task(self._listener.run(), name="bus listener"),
        ]
        await self._listener.settled(_PATIENCE_S)

    async def stop(self) -> None:
        """Send what is queued, as far as that is quick, and stop."""
        if self._tasks:
            await self._publisher.flush(_PATIENCE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    @property
    def connected(self) -> bool:
        return self._listener.connected and not self._publisher.away

    @property
    def dropped(self) -> int:
        return self._publisher.dropped

    @property
    def sent(self) -> int:
        """Messages that Redis has taken."""
        return self._publisher.sent

    def publish(self, channel: str, message: bytes) -> None:
        self._publisher.put(self._prefix + channel, self._origin + message)

    def subscribe(self, channel: str) -> None:
        self._listener.subscribe(self._prefix + channel)

    def unsubscribe(self, channel: str) -> None:
        self._listener.unsubscribe(self._prefix + channel)

    async def subscribed(self, channel: str, *, patience_s: float) -> bool:
        return await self._listener.subscribed(self._prefix + channel, patience_s=patience_s)

    def tell(self, kind: str, facts: Mapping[str, Any]) -> None:
        try:
            message = orjson.dumps([kind, facts])
        except TypeError:
            log.exception("bus_cannot_tell", kind=kind)
        else:
            self.publish(CONTROL, message)

    def on(self, kind: str, handler: Handler) -> None:
        self._handlers.setdefault(kind, []).append(handler)

    def on_resync(self, handler: Callable[[], None]) -> None:
        self._after_outage.append(handler)

    def _heard(self, channel: bytes, message: bytes) -> None:
        if message[:_ORIGIN_BYTES] == self._origin:
            return
        name, body = channel.decode()[len(self._prefix) :], message[_ORIGIN_BYTES:]
        if name != CONTROL:
            self.take(name, body)
            return
        kind, facts = orjson.loads(body)
        for handler in self._handlers.get(kind, ()):
            try:
                handler(facts)
            except Exception:
                log.exception("bus_handler_failed", kind=kind)

    def _resync(self) -> None:
        for handler in self._after_outage:
            try:
                handler()
            except Exception:
                log.exception("bus_resync_failed")


def _nobody(_channel: str, _message: bytes) -> None:
    """Nobody takes what rooms hear yet."""
