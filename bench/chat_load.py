"""The clients of `bench.chat_throughput`, all in one process of their own: commands on standard input, results on standard output.

It must cost less than any server, or it measures itself: bare TCP with its own WebSocket framing, frames written as bytes and
answers found by searching bytes, never parsed. What it took of a core is part of every result.
"""

import asyncio
import json
import resource
import socket as sockets
import sys
import time
from collections.abc import Callable
from typing import Any, Final, cast

import uvloop

#: What a line in a chat looks like.
BODY: Final = "May my landlord keep the deposit because of a scratch in the floor? " * 2
_UPGRADE: Final = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_ID: Final = b'"clientMsgId":"'
_ID_LENGTH: Final = 16
#: Nothing waits for longer.
PATIENCE_S: Final = 60.0


def frame(text: bytes) -> bytes:
    """A client's text frame. The mask is zero, which is a mask, and spares the work."""
    size = len(text)
    if size < 126:
        return bytes((0x81, 0x80 | size, 0, 0, 0, 0)) + text
    return bytes((0x81, 0x80 | 126, size >> 8, size & 255, 0, 0, 0, 0)) + text


def event(name: str, payload: dict[str, Any], ack: int) -> bytes:
    return frame(f"42{ack}{json.dumps([name, payload], separators=(',', ':'))}".encode())


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Fleet:
    """All sockets, and what was measured of the messages between them."""

    def __init__(self) -> None:
        self.sockets: list[Socket] = []
        #: When each message was due, until its acknowledgement and until its arrival at the peer.
        self.unanswered: dict[bytes, float] = {}
        self.unheard: dict[bytes, float] = {}
        self.acks: list[float] = []
        self.arrivals: list[float] = []
        self.refused = 0
        #: Closed loop: a socket sends again when it is answered.
        self.sends_again = False
        self.is_measuring = False
        # Later than every number of a process before: a known id would be answered as a repeat, and told to nobody.
        self._number = time.time_ns() // 10_000 % 10**10

    def fresh_id(self, socket: "Socket", due_at: float) -> bytes:
        self._number += 1
        client_msg_id = b"%05d-%010d" % (socket.index, self._number)
        self.unanswered[client_msg_id] = self.unheard[client_msg_id] = due_at
        return client_msg_id


class Socket(asyncio.Protocol):
    """One connection. `joined` is done once it is in its session's room."""

    def __init__(self, fleet: Fleet, index: int, session_id: str, token: str) -> None:
        self.fleet = fleet
        self.index = index
        self._mark = b"%05d" % index
        self._session_id = session_id
        self._token = token
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport
        self._buffer = b""
        self._is_open = False
        #: Called when the connection is gone.
        self.on_lost: Callable[[], None] = lambda: None
        #: Of the answer to the first join: when it was asked for and answered, its size and how many messages it brought.
        self.asked_at = self.joined_at = 0.0
        self.answer: bytes = b""
        self._head = f'["send_message",{{"sessionId":"{session_id}","body":"{BODY}","clientMsgId":"'.encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(_UPGRADE)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.joined.done():
            self.joined.set_exception(exc or ConnectionResetError("before it had joined"))
        self.on_lost()

    def send(self, due_at: float) -> None:
        client_msg_id = self.fleet.fresh_id(self, due_at)
        # The id of the acknowledgement is its digits, so that the answer names the message.
        text = b"42" + client_msg_id[6:].lstrip(b"0") + self._head + client_msg_id + b'"}]'
        self._transport.write(frame(text))

    def say(self, body: str) -> None:
        """A message of which no answer is awaited."""
        text = json.dumps(["send_message", {"sessionId": self._session_id, "body": body}])
        self._transport.write(frame(f"42{text}".encode()))

    def cut(self) -> None:
        self._transport.abort()

    def stop_reading(self) -> None:
        """Take nothing any more, and tell nobody: as a phone does whose app hangs."""
        raw = self._transport.get_extra_info("socket")
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
        self._transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        at = 0
        if not self._is_open:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = buffer
                return
            at, self._is_open = end + 4, True
        have = len(buffer)
        while have - at >= 2:
            size, start = buffer[at + 1], at + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                start += width
                if have < start:
                    break
                size = int.from_bytes(buffer[start - width : start], "big")
            if have < start + size:
                break
            self._take(buffer, start, start + size)
            at = start + size
        self._buffer = buffer[at:]

    def _take(self, buffer: bytes, start: int, end: int) -> None:
        kind = buffer[start : min(end, start + 2)]
        if kind == b"43":
            self._answered(buffer, start, end)
        elif kind == b"42":
            if buffer.startswith(b'["new_message"', start + 2):
                self._heard(buffer, start, end)
        elif kind == b"2":
            self._transport.write(frame(b"3"))
        elif kind == b"40":
            self.asked_at = time.perf_counter()
            self._transport.write(event("join_session", {"sessionId": self._session_id}, 0))
        elif buffer[start : start + 1] == b"0":
            self._transport.write(frame(b"40" + json.dumps({"token": self._token}).encode()))

    def _answered(self, buffer: bytes, start: int, end: int) -> None:
        if not self.joined.done():
            if b'"ok":true' not in buffer[start : min(end, start + 40)]:
                self.joined.set_exception(RuntimeError(buffer[start:end].decode()))
                return
            self.joined_at, self.answer = time.perf_counter(), buffer[start:end]
            self.joined.set_result(None)
            return
        fleet = self.fleet
        found = buffer.find(_ID, start, end)
        if found < 0:
            fleet.refused += 1
            return
        found += len(_ID)
        now = time.perf_counter()
        due_at = fleet.unanswered.pop(buffer[found : found + _ID_LENGTH], None)
        if due_at is not None and fleet.is_measuring:
            fleet.acks.append(now - due_at)
        if fleet.sends_again:
            self.send(now)

    def _heard(self, buffer: bytes, start: int, end: int) -> None:
        found = buffer.find(_ID, start, end) + len(_ID)
        # Its own message, which comes to the sender's devices too, tells nothing of the peer.
        if buffer[found : found + 5] != self._mark:
            due_at = self.fleet.unheard.pop(buffer[found : found + _ID_LENGTH], None)
            if due_at is not None and self.fleet.is_measuring:
                self.fleet.arrivals.append(time.perf_counter() - due_at)


def percentile(values: list[float], part: float) -> float:
    """In milliseconds; of nothing, nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return round(1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))], 3)


class Commands:
    """What `bench.chat_throughput` asks for."""

    def __init__(self) -> None:
        self.fleet = Fleet()
        self._sent_away = 0

    async def connect(self, port: int, seats: list[tuple[str, str]]) -> dict[str, Any]:
        """Open a socket for each (session, token), join, and say how long that took."""
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        fleet = self.fleet
        for k in range(0, len(seats), 50):
            batch = []
            for session_id, token in seats[k : k + 50]:
                index = len(fleet.sockets)
                socket = Socket(fleet, index, session_id, token)
                await loop.create_connection(lambda s=socket: s, "127.0.0.1", port)  # type: ignore[misc]
                fleet.sockets.append(socket)
                batch.append(socket.joined)
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*batch)
        return {"sockets": len(fleet.sockets), "seconds": time.perf_counter() - started}

    async def closed(self, window: int, warm_s: float, seconds: float) -> dict[str, Any]:
        """Every socket keeps `window` messages under way: as fast as the server goes."""
        fleet = self._fresh()
        fleet.sends_again = True
        for socket in fleet.sockets:
            for _ in range(window):
                socket.send(time.perf_counter())
        await asyncio.sleep(warm_s)
        fleet.is_measuring = True
        cpu, started = cpu_s(), time.perf_counter()
        await asyncio.sleep(seconds)
        fleet.is_measuring = fleet.sends_again = False
        return self._result(time.perf_counter() - started, cpu_s() - cpu) | {"lost": await self._missing()}

    async def open(self, rate: float, seconds: float) -> dict[str, Any]:
        """`rate` messages a second, evenly, whatever the answers take; latency counts from when a message was due."""
        fleet = self._fresh()
        fleet.is_measuring = True
        cpu, started = cpu_s(), time.perf_counter()
        total = int(rate * seconds)
        for n in range(total):
            due_at = started + n / rate
            now = time.perf_counter()
            if due_at > now:
                await asyncio.sleep(due_at - now)
            # A step that is coprime with the number of sockets, so that both sides of all sessions take turns.
            fleet.sockets[n * 7919 % len(fleet.sockets)].send(due_at)
        seconds, cpu = time.perf_counter() - started, cpu_s() - cpu
        lost = await self._missing()
        fleet.is_measuring = False
        return self._result(seconds, cpu) | {"sent": total, "lost": lost}

    async def flooded(
        self, port: int, seat: tuple[str, str], rate: float, seconds: float, flood: float
    ) -> dict[str, Any]:
        """`open`, while one more client of another session sends `flood` events a second."""
        if not flood:
            return await self.open(rate, seconds)
        flooding = asyncio.create_task(self._flood(port, seat, flood))
        try:
            result = await self.open(rate, seconds)
        finally:
            flooding.cancel()
        return result | {"sent_away": self._sent_away}

    async def _flood(self, port: int, seat: tuple[str, str], rate: float) -> None:
        """As a hostile client would: whatever is answered, it goes on, and when it is sent away it is back at once."""
        self._sent_away = -1
        while True:
            self._sent_away += 1
            lost = asyncio.Event()
            socket = await self._connected(port, seat, 99_999, Fleet())
            socket.on_lost = lost.set
            started, n = time.perf_counter(), 0
            try:
                while not lost.is_set():
                    due = int((time.perf_counter() - started) * rate)
                    while n < due:
                        n += 1
                        socket.send(0.0)
                    await asyncio.sleep(0.002)
            finally:
                socket.cut()

    async def _connected(self, port: int, seat: tuple[str, str], index: int, fleet: Fleet) -> Socket:
        socket = Socket(fleet, index, *seat)
        await asyncio.get_running_loop().create_connection(lambda: socket, "127.0.0.1", port)
        async with asyncio.timeout(PATIENCE_S):
            await socket.joined
        return socket

    async def catch_up(
        self, port: int, seats: list[tuple[str, str]], missed: int, rounds: int
    ) -> dict[str, Any]:
        """One side of each session says `missed` messages; then the other side connects and joins, again and again, one at a time."""
        for n, seat in enumerate(seats[1::2]):
            fleet = Fleet()
            talker = await self._connected(port, seat, n, fleet)
            for _ in range(missed):
                talker.send(time.perf_counter())
            async with asyncio.timeout(PATIENCE_S):
                while fleet.unanswered:
                    await asyncio.sleep(0.01)
            talker.cut()
        joins, everything, sizes, counts = [], [], [], []
        for n in range(rounds):
            began = time.perf_counter()
            reader = await self._connected(port, seats[0::2][n % (len(seats) // 2)], n, Fleet())
            everything.append(reader.joined_at - began)
            joins.append(reader.joined_at - reader.asked_at)
            sizes.append(len(reader.answer))
            counts.append(reader.answer.count(b'"seq":'))
            reader.cut()
            await asyncio.sleep(0.02)
        return {
            "join_ms": [percentile(joins, part) for part in (0.5, 0.99, 1.0)],
            "all_ms": [percentile(everything, part) for part in (0.5, 0.99, 1.0)],
            "bytes": max(sizes),
            "messages": min(counts),
        }

    async def storm(self, port: int, seats: list[tuple[str, str]]) -> dict[str, Any]:
        """All connections are cut, and at once all of `seats` come back and join; each as often as it takes."""
        for socket in self.fleet.sockets:
            socket.cut()
        self.fleet = Fleet()
        started, cpu = time.perf_counter(), cpu_s()
        tries = 0

        async def back(index: int, seat: tuple[str, str]) -> Socket:
            nonlocal tries
            while True:
                tries += 1
                try:
                    return await self._connected(port, seat, index, self.fleet)
                except OSError:
                    await asyncio.sleep(0.5)

        self.fleet.sockets = list(await asyncio.gather(*(back(n, seat) for n, seat in enumerate(seats))))
        times = [socket.joined_at - started for socket in self.fleet.sockets]
        return {
            "sockets": len(times),
            "tries": tries,
            "back_ms": [percentile(times, part) for part in (0.5, 0.99, 1.0)],
            "load_cpu_s": cpu_s() - cpu,
        }

    async def deafen(self, every: int) -> dict[str, Any]:
        """Every `every`-th socket takes nothing from now on, and the others send to it what they have."""
        deaf = self.fleet.sockets[::every]
        for one in deaf:
            one.stop_reading()
        self.fleet.sockets = [one for n, one in enumerate(self.fleet.sockets) if n % every]
        return {"deaf": len(deaf)}

    async def long_messages(self, rate: float, seconds: float, size: int) -> dict[str, Any]:
        """Each socket sends `rate` messages of `size` characters a second, and asks for no answer."""
        fleet = self.fleet
        sent = 0
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            for one in fleet.sockets:
                one.say("x" * size)
                sent += 1
            await asyncio.sleep(1 / rate)
        return {"sent": sent}

    async def drop(self, count: int) -> dict[str, Any]:
        """Cut the last `count` connections at once."""
        gone, self.fleet.sockets = self.fleet.sockets[-count:], self.fleet.sockets[:-count]
        for socket in gone:
            socket.cut()
        return {"sockets": len(self.fleet.sockets)}

    def _fresh(self) -> Fleet:
        fleet = self.fleet
        fleet.acks, fleet.arrivals, fleet.refused = [], [], 0
        fleet.unanswered.clear()
        fleet.unheard.clear()
        return fleet

    async def _missing(self) -> int:
        """Wait for what is under way; how much never came to the peer."""
        deadline = time.perf_counter() + 10
        while (self.fleet.unheard or self.fleet.unanswered) and time.perf_counter() < deadline:
            await asyncio.sleep(0.02)
        return max(len(self.fleet.unheard), len(self.fleet.unanswered))

    def _result(self, seconds: float, cpu: float) -> dict[str, Any]:
        fleet = self.fleet
        return {
            "seconds": seconds,
            "acks": len(fleet.acks),
            "arrivals": len(fleet.arrivals),
            "refused": fleet.refused,
            "load_cpu": cpu / seconds,
            "ack_ms": [percentile(fleet.acks, part) for part in (0.5, 0.99, 0.999)],
            "peer_ms": [percentile(fleet.arrivals, part) for part in (0.5, 0.99, 0.999)],
        }


async def main() -> None:
    loop = asyncio.get_running_loop()
    commands = Commands()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        result = await getattr(commands, command.pop("do"))(**command)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
