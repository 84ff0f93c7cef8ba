"""What waits to be sent to one client, in bytes, so that a slow client is noticed before it costs memory.

The library's queue has no bound and its writer empties it into a list before the network has taken anything;
so bytes are counted from the moment they are queued until the socket has accepted them.
"""

import asyncio
import time
from typing import Any


class Outgoing(asyncio.Queue[Any]):
    """The queue of a socket that counts. Packets go in; `sent` is called with each frame the socket took."""

    def __init__(self) -> None:
        super().__init__()
        self.held_bytes = 0
        #: Somebody will look soon whether this client takes what waits.
        self.suspected = False
        #: The client is told goodbye: nothing more is queued for it, and nothing more taken from it.
        self.leaving = False
        self._progress_at_s = 0.0

    def _put(self, item: Any) -> None:
        if item is not None:  # None ends the writer
            if self.held_bytes == 0:
                self._progress_at_s = _now_s()
            self.held_bytes += size_of(item.encode())
        super()._put(item)

    def sent(self, frame: str | bytes) -> None:
        """The socket took the frame."""
        self.held_bytes = max(0, self.held_bytes - size_of(frame))
        self._progress_at_s = _now_s()

    def drop_waiting(self) -> None:
        """Drop what the writer has not begun with."""
        while not self.empty():
            packet = self.get_nowait()
            self.task_done()
            if packet is None:
                self.put_nowait(None)
                return
            self.held_bytes = max(0, self.held_bytes - size_of(packet.encode()))

    def stalled_s(self) -> float:
        """For how long something has been waiting while nothing was taken."""
        return _now_s() - self._progress_at_s if self.held_bytes else 0.0


def size_of(frame: str | bytes) -> int:
    """Bytes on the wire."""
    if isinstance(frame, bytes) or frame.isascii():
        return len(frame)
    return len(frame.encode("utf-8", "surrogatepass"))


_now_s = time.monotonic
