"""One HTTP client for all providers of AI: no redirect, no repeat, no cookie, limits on time and size; no key and no body in a log."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
import structlog
from yarl import URL

from billing_engine.subscriptions.errors import AiUnavailable
from billing_engine.subscriptions.model import Provider

CONNECT_TIMEOUT_S: Final = 10.0
#: Between two pieces of a streamed answer.
CHUNK_TIMEOUT_S: Final = 60.0
#: A longer answer is none that a model writes.
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
_PIECE_BYTES: Final = 64 * 1024
#: Our key is not accepted, may not do this, or its account is not paid. Nothing of it is about the caller, and a provider's own words
#: quote parts of the key or name the account.
_OUR_ACCOUNT: Final = frozenset({401, 402, 403})
_ANSWERS: Final = (range(200, 300), range(400, 600))
#: What goes on to the caller as a header.
_CONTENT_TYPE: Final = re.compile(
    r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(; ?[A-Za-z0-9_-]+=[A-Za-z0-9\"_.-]+)*", re.ASCII
)
_PLAIN: Final = "application/octet-stream"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call goes. Its headers have the key, so `repr` leaves them out."""

    provider: Provider
    url: URL
    headers: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Target({self.provider}, {self.url.path})"


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """A provider's answer, read to its end."""

    status: int
    content_type: str
    body: bytes

    @property
    def is_ok(self) -> bool:
        return self.status < 300


class OpenAnswer:
    """A 2xx answer whose body is yet to come. Iterating gives its bytes; it raises `AiUnavailable` where the provider breaks off, is
    silent for too long, or sends more than any answer has. Whoever has it closes it.
    """

    def __init__(self, provider: Provider, response: aiohttp.ClientResponse, chunk_timeout_s: float) -> None:
        self.content_type = _content_type(response)
        self._provider = provider
        self._response = response
        self._chunk_timeout_s = chunk_timeout_s
        self._bytes = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            async with asyncio.timeout(self._chunk_timeout_s):
                chunk = await self._response.content.readany()
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            self._response.close()
            raise _unavailable(self._provider, _why(exc), "stream") from None
        self._bytes += len(chunk)
        if self._bytes > MAX_ANSWER_BYTES:
            self._response.close()
            raise _unavailable(self._provider, "too long", "stream")
        if not chunk:
            # To its end: the connection can be used again.
            self._response.release()
            raise StopAsyncIteration
        return chunk

    async def close(self) -> None:
        """End it, wherever it is: the connection is given up, so that the provider stops."""
        self._response.close()


class AiHttp:
    """`close` when done. `timeout_s` is for a whole answer, or for the beginning of a streamed one."""

    def __init__(self, *, timeout_s: float, chunk_timeout_s: float = CHUNK_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._chunk_timeout_s = chunk_timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, target: Target, body: bytes) -> WholeAnswer:
        """POST and read the answer, an error's too. Raises `AiUnavailable`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._send(target, body)
                return await self._whole(target, response)
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            # Without its cause: what the client raises may quote the request.
            raise _unavailable(target.provider, _why(exc), "call") from None

    async def open(self, target: Target, body: bytes, *, content_type: str) -> OpenAnswer | WholeAnswer:
        """POST; the answer as it comes where it is a 2xx of that type, or else whole. Raises `AiUnavailable`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._send(target, body)
                if response.status in _ANSWERS[0] and response.content_type == content_type:
                    return OpenAnswer(target.provider, response, self._chunk_timeout_s)
                return await self._whole(target, response)
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise _unavailable(target.provider, _why(exc), "stream") from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _send(self, target: Target, body: bytes) -> aiohttp.ClientResponse:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **target.headers}
        return await self._opened().post(target.url, data=body, headers=headers, allow_redirects=False)

    async def _whole(self, target: Target, response: aiohttp.ClientResponse) -> WholeAnswer:
        async with response:
            if not any(response.status in answers for answers in _ANSWERS):
                raise _unavailable(target.provider, "no answer of a provider", "call", status=response.status)
            if response.status in _OUR_ACCOUNT:
                _log.error(
                    "an AI provider does not accept our key: none of its models can be called until this is set right",
                    provider=str(target.provider),
                    http_status=response.status,
                )
                raise AiUnavailable(provider=str(target.provider), why="the key is not accepted")
            pieces, size = [], 0
            async for piece in response.content.iter_chunked(_PIECE_BYTES):
                size += len(piece)
                if size > MAX_ANSWER_BYTES:
                    response.close()
                    raise _unavailable(target.provider, "too long", "call")
                pieces.append(piece)
            return WholeAnswer(response.status, _content_type(response), b"".join(pieces))

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # How many calls there are at once, the tiers say.
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session


def _content_type(response: aiohttp.ClientResponse) -> str:
    value = response.headers.get("Content-Type", "")
    return value if _CONTENT_TYPE.fullmatch(value) else _PLAIN


def _why(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    if isinstance(exc, aiohttp.ClientPayloadError):
        return "the answer broke off"
    return "no connection" if isinstance(exc, OSError) else type(exc).__name__


def _unavailable(provider: Provider, why: str, asked: str, **facts: object) -> AiUnavailable:
    _log.warning("an AI provider did not answer", provider=str(provider), why=why, asked=asked, **facts)
    return AiUnavailable(provider=str(provider), why=why)
