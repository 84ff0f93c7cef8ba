"""When who has left a room gave the last sign of life: what is asked for when it counts how long somebody has been gone."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

#: Nobody asks for an older sign: who was gone for so long is gone.
KEEP_S: Final = 180.0

#: Is there; or gave the last sign at that instant (epoch ms; `NO_TRACE`: nobody remembers any); or nobody can tell (None).
HERE: Final = "here"
NO_TRACE: Final = 0
Whereabouts = str | int | None


class Together:
    """Those who ask in the same turn of the loop ask the store once: ticks of many sessions come together."""

    def __init__(self, ask: Callable[[Sequence[str]], Awaitable[list[dict[str, Whereabouts]]]]) -> None:
        self._ask = ask
        self._rooms: dict[str, None] = {}
        self._asking: asyncio.Task[dict[str, dict[str, Whereabouts]]] | None = None

    async def of(self, room: str) -> dict[str, Whereabouts]:
        """What the store says of the room, as of now. Raises what the store raises."""
        self._rooms[room] = None
        if self._asking is None:
            self._asking = asyncio.create_task(self._answer(), name="whereabouts")
            self._asking.add_done_callback(_heard)
        # Whoever gives up waiting takes nobody's answer along.
        return (await asyncio.shield(self._asking))[room]

    async def _answer(self) -> dict[str, dict[str, Whereabouts]]:
        await asyncio.sleep(0)
        rooms, self._rooms, self._asking = list(self._rooms), {}, None
        return dict(zip(rooms, await self._ask(rooms), strict=True))


def _heard(task: "asyncio.Task[dict[str, dict[str, Whereabouts]]]") -> None:
    """Its failure is for whoever still waits."""
    if not task.cancelled():
        task.exception()


class Signs:
    """The last signs of life of those who left through this process, for a while. Instants in epoch ms."""

    def __init__(self, now_ms: Callable[[], int], *, keep_s: float = KEEP_S) -> None:
        self._now_ms = now_ms
        self._keep_ms = round(keep_s * 1000)
        #: Oldest note first.
        self._signs: dict[tuple[str, str], int] = {}

    def note(self, key: tuple[str, str], ago_s: float) -> None:
        """One of the person's sockets has left, and was heard so long ago. The latest sign of all of them counts."""
        now_ms = self._now_ms()
        sign_ms = max(now_ms - round(ago_s * 1000), self._signs.pop(key, NO_TRACE))
        self._signs[key] = sign_ms
        self._forget(now_ms)

    def of(self, key: tuple[str, str]) -> int:
        """The person's last sign in the room, else `NO_TRACE`."""
        sign_ms = self._signs.get(key, NO_TRACE)
        return sign_ms if sign_ms > self._now_ms() - self._keep_ms else NO_TRACE

    def _forget(self, now_ms: int) -> None:
        """Those at the front that are old: a note is never older than its neighbours by more than a silence that is cut."""
        while self._signs:
            oldest = next(iter(self._signs))
            if self._signs[oldest] > now_ms - self._keep_ms:
                return
            del self._signs[oldest]
