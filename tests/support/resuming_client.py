"""An app's chat as `chat/README.md` tells app teams to write it: an outbox, one log, and a resume after every loss.

On a bare WebSocket, so that a test can tear the connection between any two frames and nothing of a client library's
comfort (its own queue, its reconnects) hides what the server does.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import orjson

#: How many sends may be without an answer: a server that is resumed is asked for all of them, and takes 50 at most.
WINDOW: Final = 50
#: Nothing takes this long; it only ends a test that would hang.
SILENCE_S: Final = 20.0

Json = Any


class ProtocolBroken(AssertionError):
    """The server said something that its own contract forbids."""


class Torn(Exception):
    """The connection is gone: connect again and resume."""


@dataclass
class Draft:
    """A message that the app has not heard to be stored."""

    client_msg_id: str
    body: str
    #: Sent on the present connection.
    is_sent: bool = False


@dataclass
class Counts:
    """What a run went through: a storm in which nothing went wrong proves nothing."""

    connections: int = 0
    torn: int = 0
    sent: int = 0
    duplicates: int = 0
    found_stored: int = 0
    rejoins: int = 0
    pages: int = 0
    byes: int = 0
    refused: dict[str, int] = field(default_factory=dict)


class ResumingClient:
    """One device in one session. `log` is what its user sees: the messages by `seq`, from 1, without a gap.

    Args:
        address: where the server is; waits while there is none.
        fuse: how many frames the next connection lives; None: it is not torn.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        *,
        address: Callable[[], Awaitable[str]],
        token: str,
        session_id: str,
        fuse: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._http = http
        self._address = address
        self._token = token
        self._session_id = session_id
        self._fuse = fuse
        self.log: list[Json] = []
        self.outbox: deque[Draft] = deque()
        #: By clientMsgId: the position that an acknowledgement named.
        self.acked: dict[str, int] = {}
        self.marks: dict[str, tuple[int, int]] = {}
        self.counts = Counts()
        self.news = asyncio.Event()
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._frames_left: int | None = None
        self._asked: dict[int, tuple[str, Any]] = {}
        self._next_id = 0
        self._joined = False
        self._joining = False
        self._seen_told = 0

    # -- what the app does ----------------------------------------------------------------------------------------

    async def say(self, client_msg_id: str, body: str) -> None:
        """Put a message into the outbox; it is sent as soon as there is a connection and room in the window."""
        self.outbox.append(Draft(client_msg_id, body))
        if self._joined and self._ws is not None:
            with contextlib.suppress(Torn):
                await self._send_drafts()

    @property
    def last_seq(self) -> int:
        return len(self.log)

    def tear(self) -> None:
        """Lose the connection as a phone does in a lift: nothing is said, nothing is flushed."""
        connection = None if self._ws is None else self._ws._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()

    async def run(self) -> None:
        """Connect, resume, read; and again, for ever."""
        while True:
            try:
                await self._one_connection(await self._address())
            except (Torn, aiohttp.ClientError, OSError):
                self.counts.torn += 1

    # -- a connection ---------------------------------------------------------------------------------------------

    async def _one_connection(self, url: str) -> None:
        async with self._http.ws_connect(
            f"{url}/socket.io/?EIO=4&transport=websocket", max_msg_size=2**20, autoclose=False
        ) as ws:
            self._ws, self._frames_left = ws, self._fuse()
            self._asked.clear()
            self._joined = self._joining = False
            self._seen_told = 0
            for draft in self.outbox:
                draft.is_sent = False
            try:
                self.counts.connections += 1
                while True:
                    await self._take(await self._frame(ws))
            finally:
                self._ws, self._joined = None, False

    async def _frame(self, ws: aiohttp.ClientWebSocketResponse) -> str:
        self._burn()
        # Not `wait_for`, which loses a cancellation that comes together with a frame (Python 3.11).
        async with asyncio.timeout(SILENCE_S):
            message = await ws.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise Torn
        return str(message.data)

    def _burn(self) -> None:
        if self._frames_left is not None:
            self._frames_left -= 1
            if self._frames_left < 0:
                self.tear()
                raise Torn

    async def _put(self, frame: str) -> None:
        self._burn()
        if self._ws is None:
            raise Torn
        try:
            await self._ws.send_str(frame)
        except (ConnectionError, aiohttp.ClientError) as exc:
            raise Torn from exc

    async def _ask(self, event: str, payload: Json, about: Any = None) -> None:
        self._next_id += 1
        self._asked[self._next_id] = (event, about)
        payload = {"sessionId": self._session_id, **payload}
        await self._put(f"42{self._next_id}{orjson.dumps([event, payload]).decode()}")

    async def _take(self, frame: str) -> None:
        if frame == "2":
            await self._put("3")
        elif frame.startswith("0"):
            await self._put("40" + orjson.dumps({"token": self._token}).decode())
        elif frame.startswith("40"):
            await self._join()
        elif frame.startswith("42"):
            name, payload = orjson.loads(frame[2:])
            await self._event(name, payload)
        elif frame.startswith("43"):
            start = frame.index("[")
            if (asked := self._asked.pop(int(frame[2:start]), None)) is None:
                raise ProtocolBroken(f"an answer to nothing, or a second one: {frame[:200]}")
            await self._answer(*asked, orjson.loads(frame[start:])[0])
        elif not frame.startswith("41"):
            raise ProtocolBroken(frame[:200])

    # -- resuming -------------------------------------------------------------------------------------------------

    async def _join(self) -> None:
        if not self._joining:
            self._joining = True
            pending = [draft.client_msg_id for draft in list(self.outbox)[:WINDOW]]
            payload = {"afterSeq": self.last_seq, "pendingIds": [] if self._joined else pending}
            await self._ask("join_session", payload)

    async def _answer(self, event: str, about: Any, ack: Json) -> None:
        if not ack["ok"]:
            code = ack["error"]["code"]
            self.counts.refused[code] = self.counts.refused.get(code, 0) + 1
            if not ack["error"]["retryable"]:
                raise ProtocolBroken(f"{event} was refused for good: {ack}")
            # In order or not at all: what follows a refused send must not overtake it.
            self.tear()
            raise Torn
        if event == "join_session":
            await self._take_join(ack)
        elif event == "send_message":
            self.counts.duplicates += ack["duplicate"]
            self._stored(about, ack["seq"])
            await self._send_drafts()

    async def _take_join(self, ack: Json) -> None:
        self._joining = False
        self.counts.pages += 1
        before = self.last_seq
        for message in ack["messages"]:
            self._apply(message)
        for client_msg_id, stored in ack["stored"].items():
            self.counts.found_stored += 1
            self._stored(client_msg_id, stored["seq"])
        for person, marks in ack["watermarks"].items():
            self._mark(person, marks)
        if ack["hasMore"]:
            if self.last_seq == before:
                raise ProtocolBroken("there is more, but nothing came")
            await self._again()
            return
        if self.last_seq < ack["lastSeq"]:
            raise ProtocolBroken(
                f"complete up to {self.last_seq}, says an answer with lastSeq {ack['lastSeq']}"
            )
        self._joined = True
        await self._send_drafts()

    async def _again(self) -> None:
        self.counts.rejoins += 1
        await self._join()

    def _stored(self, client_msg_id: str, seq: int) -> None:
        known = self.acked.setdefault(client_msg_id, seq)
        if known != seq:
            raise ProtocolBroken(f"{client_msg_id} was stored as {known} and as {seq}")
        for draft in self.outbox:
            if draft.client_msg_id == client_msg_id:
                self.outbox.remove(draft)
                break
        self.news.set()

    async def _send_drafts(self) -> None:
        for k, draft in enumerate(list(self.outbox)):
            if k >= WINDOW:
                break
            if not draft.is_sent:
                draft.is_sent = True
                self.counts.sent += 1
                about = {"clientMsgId": draft.client_msg_id, "body": draft.body}
                await self._ask("send_message", about, draft.client_msg_id)

    # -- what comes -----------------------------------------------------------------------------------------------

    async def _event(self, name: str, payload: Json) -> None:
        if name == "new_message":
            if payload["seq"] <= self.last_seq + 1:
                self._apply(payload)
            else:
                await self._again()
            if self.last_seq - self._seen_told >= 25:
                self._seen_told = self.last_seq
                await self._ask("mark_seen", {"uptoSeq": self.last_seq})
        elif name == "message_status":
            self._mark(payload["userId"], payload)
        elif name == "session:tick":
            if payload["lastSeq"] is not None and payload["lastSeq"] > self.last_seq and self._joined:
                await self._again()
        elif name == "server:bye":
            self.counts.byes += 1
            if payload["reconnect"] is not True:
                raise ProtocolBroken(f"sent away for good: {payload}")

    def _apply(self, message: Json) -> None:
        """In order and once; what is known must be what it was."""
        seq = message["seq"]
        if seq <= self.last_seq:
            known = self.log[seq - 1]
            if any(
                known[key] != message[key] for key in ("id", "senderId", "clientMsgId", "body", "createdAt")
            ):
                raise ProtocolBroken(f"message {seq} was {known} and is {message}")
        elif seq == self.last_seq + 1:
            self.log.append(message)
            self.news.set()
        else:
            raise ProtocolBroken(f"a page goes on with {seq} after {self.last_seq}")

    def _mark(self, person: str, marks: Json) -> None:
        new = (marks["deliveredSeq"], marks["seenSeq"])
        old = self.marks.get(person, (0, 0))
        # An answer may overtake an event on its way through this client, so an older state may come; not a mixture.
        if not (new[0] >= old[0] and new[1] >= old[1]) and not (new[0] <= old[0] and new[1] <= old[1]):
            raise ProtocolBroken(f"watermarks of {person} went from {old} to {new}")
        self.marks[person] = max(old, new)
