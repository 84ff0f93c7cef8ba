"""Server-sent events out of bytes that come in any pieces. It only reads: whoever passes the bytes on passes on what came.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from dataclasses import dataclass
from typing import Final

#: An event longer than this is not kept: no count is that long, and memory is finite.
MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name (`message` where it has none), and its data lines joined by line feeds."""

    name: str
    data: bytes


class SseScanner:
    """`feed` it every chunk. The events do not depend on where the chunks end."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._most = max_event_bytes
        #: The pieces of a line that has not ended.
        self._pieces: list[bytes] = []
        self._line_bytes = 0
        #: A carriage return ended the last chunk: a line feed that comes next belongs to it.
        self._is_after_cr = False
        self._is_first_line = True
        self._name = b""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._is_too_long = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes. An event that the stream leaves without its blank line is none."""
        events: list[Event] = []
        if self._is_after_cr and chunk:
            self._is_after_cr = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
        if chunk.endswith(b"\r"):
            self._is_after_cr = True
        # `bytes.splitlines` knows CR, LF and CRLF, and no others.
        for line in chunk.splitlines(keepends=True):
            text = line.rstrip(b"\r\n")
            self._keep(text)
            if len(text) < len(line):
                event = self._end_line()
                if event is not None:
                    events.append(event)
        return events

    def _keep(self, piece: bytes) -> None:
        self._line_bytes += len(piece)
        if self._line_bytes > self._most:
            self._pieces = []
        elif piece:
            self._pieces.append(piece)

    def _end_line(self) -> Event | None:
        is_too_long = self._line_bytes > self._most
        line, self._pieces, self._line_bytes = b"".join(self._pieces), [], 0
        if is_too_long:
            self._is_too_long, self._is_first_line = True, False
            return None
        return self._take(line)

    def _take(self, line: bytes) -> Event | None:
        """What a whole line does."""
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data_bytes += len(value) + 1
            self._data.append(value)
            if self._data_bytes > self._most:
                self._is_too_long, self._data = True, []
        elif name == b"event":
            self._name = value
        return None

    def _dispatch(self) -> Event | None:
        name, data, is_whole = self._name, self._data, not self._is_too_long
        self._name, self._data, self._data_bytes, self._is_too_long = b"", [], 0, False
        if not data or not is_whole:
            return None
        return Event(name.decode("utf-8", "replace") or "message", b"\n".join(data))
