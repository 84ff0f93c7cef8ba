"""A network that fails on command: a TCP proxy before a server of any protocol.

It knows bytes and no messages: a "request" is what the client sends in one piece. That holds for a client that sends a
command and waits for its reply.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

#: Chooses the request that a fault is for.
Match = Callable[[bytes], bool]


def anything(_request: bytes) -> bool:
    return True


class Link:
    """One client's connection and the one behind it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        #: The reply to what was just sent on is swallowed, and the connection reset.
        self.loses_reply = False
        #: The request to send on once more when its first reply, which is swallowed, has come.
        self.again: bytes | None = None

    def reset(self) -> None:
        for writer in (self.client, self.server):
            with suppress(OSError):
                link = writer.get_extra_info("socket")
                # With no time to linger, closing sends RST instead of FIN.
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class TcpProxy:
    """Forwards `port` to `upstream_port` of this machine until told otherwise. Faults that wait for a request hit one and are over."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.port = 0
        #: Each piece waits so long before it goes on, in both directions.
        self.delay_s = 0.0
        #: Connections are taken and kept, nothing goes through, and what is sent meanwhile is lost.
        self.black_hole = False
        #: Replies that were swallowed, and requests that were delivered twice.
        self.lost = 0
        self.doubled = 0
        self._lose: Match | None = None
        self._double: Match | None = None
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None

    def lose_next_reply(self, match: Match = anything) -> None:
        """The next matching request reaches the server; its reply is swallowed and the connection reset."""
        self._lose = match

    def deliver_twice(self, match: Match = anything) -> None:
        """The next matching request reaches the server twice; the client hears the second reply."""
        self._double = match

    def reset_all(self) -> None:
        """Reset every connection, in both directions."""
        for link in list(self._links):
            link.reset()

    async def refuse(self) -> None:
        """Reset what is connected and refuse what comes, as if nobody listened."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        self.reset_all()

    async def accept(self) -> None:
        """Listen (again)."""
        if self._listening is None:
            self._listening = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._listening.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        await self.refuse()
        # Not cancelled: asyncio's streams report a cancelled handler as an error.
        while self._tasks:
            await asyncio.wait(self._tasks)
            self.reset_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            behind, server = await asyncio.open_connection("127.0.0.1", self.upstream_port)
        except OSError:
            writer.transport.abort()
            self._tasks.discard(task)
            return
        link = Link(writer, server)
        self._links.add(link)
        pumps = [asyncio.create_task(self._up(reader, link)), asyncio.create_task(self._down(behind, link))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._links.discard(link)
            writer.transport.abort()
            server.transport.abort()
            self._tasks.discard(task)

    async def _up(self, reader: asyncio.StreamReader, link: Link) -> None:
        while request := await reader.read(1 << 20):
            await asyncio.sleep(self.delay_s)
            if self.black_hole:
                continue
            if self._lose is not None and self._lose(request):
                self._lose, link.loses_reply = None, True
            elif self._double is not None and self._double(request):
                self._double, link.again = None, request
            link.server.write(request)
            await link.server.drain()

    async def _down(self, reader: asyncio.StreamReader, link: Link) -> None:
        while reply := await reader.read(1 << 20):
            await asyncio.sleep(self.delay_s)
            if self.black_hole:
                continue
            if link.loses_reply:
                self.lost += 1
                link.reset()
                return
            if link.again is not None:
                self.doubled += 1
                link.server.write(link.again)
                link.again = None
                continue
            link.client.write(reply)
            await link.client.drain()


@asynccontextmanager
async def tcp_proxy(upstream_port: int) -> AsyncIterator[TcpProxy]:
    proxy = TcpProxy(upstream_port)
    await proxy.accept()
    try:
        yield proxy
    finally:
        await proxy.stop()
