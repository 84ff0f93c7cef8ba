"""`Poster` over aiohttp: one POST to a foreign server, which may be slow, hostile, or a name that leads into our own network."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from server.company_news.addresses import check_url, is_public
from server.company_news.errors import WebhookUrlRefused
from server.company_news.model import Answer, Failure

#: For everything together: the name, the connection, the request, the first line and the headers of the answer.
TIMEOUT_S: Final = 10.0
#: Threads that wait for name servers. Our own: a name server that does not answer must hold up nobody else's threads.
_THREADS: Final = 8

#: (family, address) pairs of a host and port. Raises `OSError`.
Lookup = Callable[[str, int], Awaitable[list[tuple[int, str]]]]


class AddressRefused(OSError):
    """The address is none of the public internet."""


#: What is raised → what it means; the first that fits.
_FAILURES: Final[tuple[tuple[tuple[type[Exception], ...], Failure], ...]] = (
    ((WebhookUrlRefused, AddressRefused), Failure.ADDRESS_REFUSED),
    ((TimeoutError,), Failure.TIMEOUT),
    ((aiohttp.ClientSSLError, ssl.SSLError), Failure.TLS),
    ((aiohttp.ClientResponseError, aiohttp.ClientPayloadError, ValueError), Failure.BAD_ANSWER),
)


def _failure_of(exc: Exception) -> Failure:
    # What a gate of ours raised comes wrapped as a connection that failed.
    cause = getattr(exc, "os_error", None)
    if isinstance(cause, AddressRefused):
        exc = cause
    return next((failure for kinds, failure in _FAILURES if isinstance(exc, kinds)), Failure.NO_CONNECTION)


class WebhookHttp:
    """`close` when done.

    No redirect is followed (it would lead where nobody checked), no cookie kept, no connection used twice, and no byte of the answer's
    body read: its status is all that counts, and whatever an endpoint says must not come back to whoever chose the URL.
    """

    def __init__(
        self, *, allow_private: bool, lookup: Lookup | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        """`lookup` is how names are resolved, by default the machine's way."""
        self._allow_private = allow_private
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="webhook-names")
        self._lookup = lookup or self._look_up
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._http: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        try:
            # Once more: what was allowed when it was set may not be now.
            check_url(url, allow_private=self._allow_private)
            async with self._session().post(
                url, data=body, headers=headers, allow_redirects=False
            ) as response:
                status = response.status
                # Not released, closed: whatever follows the headers is not read.
                response.close()
                return Answer(status=status)
        except (aiohttp.ClientError, OSError, ValueError, WebhookUrlRefused) as exc:
            return Answer(failure=_failure_of(exc))

    async def close(self) -> None:
        """Close the connections; threads that still wait for a name end when they are answered."""
        if self._http is not None:
            await self._http.close()
            self._http = None
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            connector = aiohttp.TCPConnector(
                resolver=_PublicNames(self._lookup, allow_private=self._allow_private),
                use_dns_cache=False,
                force_close=True,
                limit=0,
                socket_factory=self._socket,
            )
            self._http = aiohttp.ClientSession(
                connector=connector,
                timeout=self._timeout,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._http

    def _socket(self, info: Any) -> socket.socket:
        """The last gate, and the only one that cannot be walked around: this is the address that is about to be connected to."""
        family, kind, protocol, _, address = info
        if not self._allow_private and not is_public(str(address[0])):
            raise AddressRefused("the address is not public")
        return socket.socket(family=family, type=kind, proto=protocol)

    async def _look_up(self, host: str, port: int) -> list[tuple[int, str]]:
        def ask() -> list[tuple[int, str]]:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return [(int(family), str(address[0])) for family, _, _, _, address in found]

        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)


class _PublicNames(AbstractResolver):
    """Names of the public internet. A name that has one address elsewhere is refused whole: nobody honest has such a one."""

    def __init__(self, lookup: Lookup, *, allow_private: bool) -> None:
        self._lookup = lookup
        self._allow_private = allow_private

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 (both kinds, whatever is asked for)
    ) -> list[ResolveResult]:
        found = await self._lookup(host, port)
        if not found:
            raise OSError("the name has no address")
        if not self._allow_private and not all(is_public(address) for _, address in found):
            raise AddressRefused("the name leads to an address that is not public")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=its_family,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for its_family, address in found
        ]

    async def close(self) -> None:
        """There is nothing to close."""
