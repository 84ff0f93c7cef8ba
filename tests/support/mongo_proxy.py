"""A network and a replica set that fail on command: a proxy that reads MongoDB's wire protocol, before the stand-in.

It knows commands by name and collection, so that a fault hits the k-th command of an operation and nothing else. It can present
the stand-in as the primary of a replica set: only then drivers retry writes. A true server knows such a retry by session
and number, and executes it once; the stand-in does not. `remembers_retries` makes the difference.
"""

import asyncio
import itertools
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple

import bson

REPLICA_SET: Final = "rs"

_OP_REPLY: Final = 1
_OP_QUERY: Final = 2004
_OP_MSG: Final = 2013
_HEADER: Final = struct.Struct("<iiii")
_CHECKSUM: Final = 1
#: What a driver sends for itself.
_OWN: Final = frozenset({"hello", "ismaster", "isMaster", "ping", "buildInfo", "endSessions", "killCursors"})
_GREETINGS: Final = frozenset({"hello", "ismaster", "isMaster"})
_SHAPING: Final = frozenset({"create", "createIndexes", "collMod"})
_WRITES: Final = frozenset({"insert", "update", "delete", "findAndModify"})


class Call(NamedTuple):
    """A command that a client sent."""

    name: str
    collection: str
    #: What was asked for: a read concern's level, or a write concern as it stands.
    concern: Any = None

    @property
    def writes(self) -> bool:
        return self.name in _WRITES


class Fault(Enum):
    """What goes wrong with one command, in the words of whoever looks at the wire."""

    LOSE_REQUEST = "the connection is reset, the server never saw the command"
    LOSE_REPLY = "the server has executed it, the connection is reset"
    NOT_PRIMARY = "answered NotWritablePrimary instead of executed"
    NOT_PRIMARY_AFTER = "executed, and answered NotWritablePrimary"
    STEPPED_DOWN = "answered PrimarySteppedDown instead of executed"
    STEPPED_DOWN_AFTER = "executed, and answered PrimarySteppedDown"
    TIME_LIMIT = "answered ExceededTimeLimit instead of executed"
    TIME_LIMIT_AFTER = "executed, and answered ExceededTimeLimit"
    NOT_REPLICATED = "executed, but the write concern was not met in time"
    TWICE = "delivered twice; the second answer is heard"
    LATE = "not answered; delivered when the client has given up"
    BLACK_HOLE = "not delivered, not answered"

    @property
    def is_silence(self) -> bool:
        """The client hears of it by its own timeout only."""
        return self in (Fault.LATE, Fault.BLACK_HOLE)

    def concerns(self, call: Call) -> bool:
        return call.writes or self is not Fault.NOT_REPLICATED


_ANSWERS: Final = {
    Fault.NOT_PRIMARY: (10_107, "NotWritablePrimary"),
    Fault.STEPPED_DOWN: (189, "PrimarySteppedDown"),
    Fault.TIME_LIMIT: (262, "ExceededTimeLimit"),
}
_AFTER: Final = {
    Fault.NOT_PRIMARY_AFTER: Fault.NOT_PRIMARY,
    Fault.STEPPED_DOWN_AFTER: Fault.STEPPED_DOWN,
    Fault.TIME_LIMIT_AFTER: Fault.TIME_LIMIT,
}


class Message(NamedTuple):
    """One message of the wire protocol. `body` is its command or answer, None for what is neither."""

    request_id: int
    answers: int
    opcode: int
    payload: bytes
    body: dict[str, Any] | None

    def raw(self) -> bytes:
        return _HEADER.pack(16 + len(self.payload), self.request_id, self.answers, self.opcode) + self.payload


@dataclass(eq=False)
class _Link:
    """One client's connection and the one behind it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    #: By request: how its answer is changed on its way back. None: swallowed, and the connection reset.
    answers: dict[int, Callable[[Message], Message | None]] = field(default_factory=dict)

    def reset(self) -> None:
        for writer in (self.client, self.server):
            with suppress(OSError):
                # With no time to linger, closing sends RST instead of FIN.
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            writer.transport.abort()


class MongoProxy:
    """Forwards to `upstream_port` of this machine. What goes wrong is planned."""

    def __init__(
        self, upstream_port: int, *, replica_set: bool = False, remembers_retries: bool = True
    ) -> None:
        self.port = 0
        self._upstream_port = upstream_port
        self._replica_set = replica_set
        self._remembers_retries = remembers_retries
        #: Commands that clients sent since `listen_to` or `plan`.
        self.calls: list[Call] = []
        #: Faults that happened.
        self.happened: list[tuple[Fault, Call]] = []
        self._plan: tuple[Fault, int, Callable[[Call], bool]] | None = None
        self._always: Fault | None = None
        self._late: list[Message] = []
        self._done: dict[Any, dict[str, Any]] = {}
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ids = itertools.count(1_000_000_000)

    def url(self, database: str) -> str:
        options = f"?replicaSet={REPLICA_SET}" if self._replica_set else ""
        return f"mongodb://127.0.0.1:{self.port}/{database}{options}"

    def listen_to(self) -> list[Call]:
        """Forget plans and calls; the list that fills from now on."""
        self._plan, self._always, self.calls, self.happened = None, None, [], []
        return self.calls

    def plan(self, fault: Fault, at: int, match: Callable[[Call], bool] = lambda _call: True) -> None:
        """`fault` hits the command number `at`, from now and counted among those that match; then it is over."""
        self.listen_to()
        self._plan = (fault, at, match)

    def plan_always(self, fault: Fault) -> None:
        """`fault` hits every command, until `listen_to`."""
        self.listen_to()
        self._always = fault

    async def deliver_late(self) -> None:
        """Deliver what was held back; its answers go nowhere."""
        late, self._late = self._late, []
        for message in late:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
            writer.write(message.raw())
            await _read(reader)
            writer.close()
            await writer.wait_closed()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["MongoProxy"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for link in list(self._links):
                link.reset()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        link = _Link(to_client, to_server)
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._requests(from_client, link))
                both.create_task(self._answers(from_server, link))
        except* (OSError, asyncio.IncompleteReadError):
            pass  # one of the two is gone, so the other is of no use
        except* asyncio.CancelledError:
            pass  # the proxy ends; a cancelled connection would be reported as a failure
        finally:
            self._links.discard(link)
            link.reset()

    async def _requests(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while True:
            message = await _read(reader)
            call = _call_of(message)
            if call is None:
                self._forward(message, link)
                continue
            self.calls.append(call)
            self._carry_out(self._fault_for(call), call, message, link)

    def _fault_for(self, call: Call) -> Fault | None:
        if self._plan is None:
            return self._always
        fault, at, match = self._plan
        if not match(call):
            return None
        self._plan = (fault, at - 1, match) if at else None
        return None if at else fault

    def _carry_out(self, fault: Fault | None, call: Call, message: Message, link: _Link) -> None:
        if fault is None or not fault.concerns(call):
            self._forward(message, link)
            return
        self.happened.append((fault, call))
        match fault:
            case Fault.LOSE_REQUEST:
                link.reset()
            case Fault.LOSE_REPLY:
                self._forward(message, link, lambda _answer: None)
            case Fault.NOT_PRIMARY | Fault.STEPPED_DOWN | Fault.TIME_LIMIT:
                link.client.write(_answer(message, _error(fault, message)).raw())
            case Fault.NOT_REPLICATED:
                self._forward(message, link, lambda answer: _answer(message, _unreplicated(answer)))
            case Fault.TWICE:
                self._forward(message, link, lambda _answer: self._again(message, link))
            case Fault.LATE:
                self._late.append(message)
            case Fault.BLACK_HOLE:
                pass
            case _:
                error = _error(_AFTER[fault], message)
                self._forward(message, link, lambda _executed: _answer(message, error))

    def _again(self, message: Message, link: _Link) -> None:
        """Send it once more. (The answer to the first one was swallowed by whoever calls this.)"""
        second = message._replace(request_id=next(self._ids))
        link.answers[second.request_id] = lambda answer: answer._replace(answers=message.request_id)
        link.server.write(second.raw())
        raise _StaysOpen

    def _forward(
        self,
        message: Message,
        link: _Link,
        change: Callable[[Message], Message | None] = lambda answer: answer,
    ) -> None:
        """Send it on, unless it is a retry that a true server would know."""
        body = message.body or {}
        name = next(iter(body), "")
        retry = (body["lsid"]["id"], body["txnNumber"]) if "txnNumber" in body else None
        if self._replica_set and name in _SHAPING:
            # A replica set is asked for validators and for indexes that end in `_id`, which the stand-in cannot do.
            link.client.write(_answer(message, {"ok": 1.0}).raw())
            return
        if retry is not None and self._remembers_retries and retry in self._done:
            known = change(_answer(message, self._done[retry]))
            if known is None:
                link.reset()
            else:
                link.client.write(known.raw())
            return

        def back(answer: Message) -> Message | None:
            if retry is not None and answer.body is not None and answer.body.get("ok"):
                self._done[retry] = answer.body
            if self._replica_set and name in _GREETINGS:
                answer = self._as_primary(answer)
            return change(answer)

        link.answers[message.request_id] = back
        link.server.write(message.raw())

    def _as_primary(self, answer: Message) -> Message:
        me = f"127.0.0.1:{self.port}"
        body = {
            **(answer.body or {}),
            "setName": REPLICA_SET,
            "setVersion": 1,
            "hosts": [me],
            "me": me,
            "primary": me,
        }
        return _with_body(answer, {**body, "ismaster": True, "secondary": False})

    async def _answers(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while True:
            message = await _read(reader)
            change = link.answers.pop(message.answers, None)
            try:
                answer = message if change is None else change(message)
            except _StaysOpen:
                continue
            if answer is None:
                link.reset()
                return
            link.client.write(answer.raw())


class _StaysOpen(Exception):
    """An answer is swallowed, and the connection is not reset."""


async def _read(reader: asyncio.StreamReader) -> Message:
    header = await reader.readexactly(16)
    length, request_id, answers, opcode = _HEADER.unpack(header)
    payload = await reader.readexactly(length - 16)
    return Message(request_id, answers, opcode, payload, _body_of(opcode, payload))


def _body_of(opcode: int, payload: bytes) -> dict[str, Any] | None:
    """The command or the answer; documents that travel beside it (the rows of an insert) are left where they are."""
    if opcode == _OP_QUERY:
        start = payload.index(b"\0", 4) + 1 + 8
        return _decoded(payload, start)
    if opcode == _OP_REPLY:
        return _decoded(payload, 20)
    if opcode != _OP_MSG:
        return None
    (flags,) = struct.unpack_from("<i", payload)
    at, end = 4, len(payload) - (4 if flags & _CHECKSUM else 0)
    while at < end:
        kind = payload[at]
        if kind == 0:
            return _decoded(payload, at + 1)
        (size,) = struct.unpack_from("<i", payload, at + 1)
        at += 1 + size
    return None


def _decoded(payload: bytes, start: int) -> dict[str, Any]:
    (size,) = struct.unpack_from("<i", payload, start)
    body: dict[str, Any] = bson.decode(payload[start : start + size])
    return body


def _call_of(message: Message) -> Call | None:
    """What the program asked for; None for what the driver asks for itself."""
    if message.opcode != _OP_MSG or not message.body:
        return None
    name, target = next(iter(message.body.items()))
    if name in _OWN:
        return None
    concern = message.body.get("readConcern", {}).get("level") or message.body.get("writeConcern")
    return Call(name, target if isinstance(target, str) else "", concern)


def _answer(request: Message, body: Mapping[str, Any]) -> Message:
    return Message(0, request.request_id, _OP_MSG, b"\0\0\0\0\0" + bson.encode(body), dict(body))


def _with_body(answer: Message, body: dict[str, Any]) -> Message:
    head = b"\0\0\0\0\0" if answer.opcode == _OP_MSG else answer.payload[:20]
    return answer._replace(payload=head + bson.encode(body), body=body)


def _error(fault: Fault, request: Message) -> dict[str, Any]:
    code, name = _ANSWERS[fault]
    retryable = "txnNumber" in (request.body or {})
    labels = {"errorLabels": ["RetryableWriteError"]} if retryable else {}
    return {"ok": 0.0, "code": code, "codeName": name, "errmsg": f"{name}, as planned", **labels}


def _unreplicated(answer: Message) -> dict[str, Any]:
    concern = {
        "code": 64,
        "codeName": "WriteConcernTimeout",
        "errmsg": "waiting for replication timed out",
        "errInfo": {"wtimeout": True},
    }
    return {**(answer.body or {}), "writeConcernError": concern}
