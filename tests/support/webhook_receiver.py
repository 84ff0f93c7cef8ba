"""A company's back end: a real HTTP server on a loopback port that keeps what it is sent, and answers as the test wants."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Taken:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def is_signed_with(self, secret: str) -> bool:
        """As the documentation tells receivers to check it, and not by any code of the server."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = b".".join(
            (self.headers["webhook-id"].encode(), self.headers["webhook-timestamp"].encode(), self.body)
        )
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return f"v1,{expected}" in self.headers["webhook-signature"].split(" ")


@dataclass
class Receiver:
    """`answers` are given first, one a request, then 204; `hanging` lets requests wait until it is cleared and the gate is open."""

    url: str = ""
    taken: list[Taken] = field(default_factory=list)
    answers: list[web.StreamResponse] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    #: Requests that have come in, answered or not.
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    most_at_once: int = 0
    _at_once: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.taken.append(Taken(request.path, headers, body))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        self.arrived.set()
        try:
            await self.gate.wait()
        finally:
            self._at_once -= 1
        return self.answers.pop(0) if self.answers else web.Response(status=204)


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """Serves any path until the end of the block; its gate is open."""
    the_receiver = Receiver()
    the_receiver.gate.set()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", the_receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    the_receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield the_receiver
    finally:
        the_receiver.gate.set()
        await runner.cleanup()
