"""What processes tell each other about their sockets: hints. Truth is in storage, and clients ask it with `afterSeq`."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

#: Hears what another process told, in the loop's thread. What it raises is logged.
Handler = Callable[[Mapping[str, Any]], None]


class Bus(Protocol):
    """Carries messages to the other processes, at most once. Nobody hears what they said themselves.

    A message may be lost: the other side was away, or this one. Then `on_resync`'s handlers are called there.
    """

    #: Hears (channel, message) of the channels that this process has subscribed to.
    take: Callable[[str, bytes], None]

    @property
    def connected(self) -> bool:
        """Whether others can be heard and reached, as far as is known."""
        ...

    @property
    def dropped(self) -> int:
        """Messages that could not be sent."""
        ...

    def publish(self, channel: str, message: bytes) -> None:
        """Send to the processes that subscribed to the channel, in order. Never waits, never raises; drops when it cannot keep up."""
        ...

    def subscribe(self, channel: str) -> None:
        """Begin to hear the channel; harmless when repeated."""
        ...

    def unsubscribe(self, channel: str) -> None:
        """Hear it no more; harmless when repeated."""
        ...

    async def subscribed(self, channel: str, *, patience_s: float) -> bool:
        """Whether all that is published from now on will arrive; waits for that at most `patience_s`, and not at all while the bus
        is known to be away.
        """
        ...

    def tell(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Tell every other process. `facts` are plain JSON. As `publish`."""
        ...

    def on(self, kind: str, handler: Handler) -> None:
        """Call the handler with the facts of what other processes tell under this kind."""
        ...

    def on_resync(self, handler: Callable[[], None]) -> None:
        """Call the handler whenever the bus is back after it was away: something may have been missed."""
        ...
