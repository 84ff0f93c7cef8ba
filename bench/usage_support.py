"""Companies of a real server on one core, and a client that costs so little that the server is what is measured."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from bench.chat_throughput import Target, started

PATIENCE_S: Final = 180.0
_PASSWORD: Final = "a password of the bench"
#: The server's core, and the load generator's.
SERVER_CORE: Final = 0
LOAD_CORE: Final = 1

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Company:
    """A company's id, its owner's access token and its back end's API key."""

    id: str
    token: str
    key: str


def on_one_core(directory: Path, database: Path) -> Any:
    """The server as `tarazu serve` starts it, durable (`SQLITE_SYNCHRONOUS=FULL`), on one core; we take the other."""
    os.sched_setaffinity(0, {LOAD_CORE})
    command = (
        "taskset",
        "-c",
        str(SERVER_CORE),
        sys.executable,
        "-m",
        "server",
        "serve",
        "--announce-address",
    )
    return started(
        "tarazu",
        command,
        directory,
        APP_ENV="test",
        HOST="127.0.0.1",
        PORT="0",
        DATABASE_URL=f"sqlite:///{database}",
        BCRYPT_COST="4",
        RATE_LIMITS="off",
        ACCESS_TOKEN_MINUTES="600",
        LOG_FORMAT="json",
        LOG_LEVEL="WARNING",
        COMPANY_RECHARGE_MAX="10000000.00",
    )


async def companies(target: Target, count: int) -> list[Company]:
    """`count` new companies, each with five million in its wallet."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    gate = asyncio.Semaphore(16)
    async with aiohttp.ClientSession(target.url, timeout=timeout) as http:

        async def post(path: str, body: Json, token: str = "") -> Json:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with http.post(path, json=body, headers=headers) as response:
                answer: Json = await response.json(content_type=None)
                assert response.status < 300, answer
                return answer

        async def one(n: int) -> Company:
            async with gate:
                mark = f"{n}-{time.time_ns():x}"
                who = {"email": f"c{mark}@example.com", "password": _PASSWORD, "name": "Somebody"}
                owner = await post(
                    "/auth/register", {**who, "role": "COMPANY", "companyName": f"Acme {mark}"}
                )
                token = owner["accessToken"]
                made = await post(
                    "/api/company/api-keys", {"name": "back end", "scopes": ["usage", "read"]}, token
                )
                await post("/api/billing/recharge", {"amount": "5000000.00"}, token)
                return Company(owner["user"]["id"], token, made["key"])

        return list(await asyncio.gather(*(one(n) for n in range(count))))


def request(method: str, path: str, key: str, body: Json | None = None) -> bytes:
    """One request as it goes over the wire."""
    text = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: tarazu\r\nAuthorization: Bearer {key}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n"
    return f"{head}\r\n".encode() + text


class Connection:
    """Keep-alive HTTP/1.1 to our own server, which answers with a `Content-Length`: a real client takes ten times the CPU."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, wire: bytes) -> bytes:
        """The body of a 2xx; anything else ends the run."""
        self._writer.write(wire)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await self._reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError((head[:40], body[:500]))
        return body

    async def timed(self, wire: bytes) -> float:
        """Milliseconds to the whole answer."""
        began = time.perf_counter()
        await self.ask(wire)
        return (time.perf_counter() - began) * 1_000

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def connected(target: Target, count: int) -> AsyncIterator[list[Connection]]:
    """`count` connections."""
    pairs = [await asyncio.open_connection("127.0.0.1", target.port, limit=2**24) for _ in range(count)]
    found = [Connection(*pair) for pair in pairs]
    try:
        yield found
    finally:
        for connection in found:
            connection.close()


def percentiles(found_ms: Iterable[float]) -> str:
    """p50, p99 and the largest."""
    ordered = sorted(found_ms)
    count = len(ordered)
    p50, p99 = ordered[count // 2], ordered[min(count - 1, count * 99 // 100)]
    return f"p50 {p50:7.1f} ms   p99 {p99:7.1f} ms   max {ordered[-1]:7.1f} ms"


def load() -> str:
    """How busy the machine is: figures mean little without it."""
    return f"load {os.getloadavg()[0]:.1f}"
