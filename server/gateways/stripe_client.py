"""The connection to Stripe: one request, one time limit, and every failure in our own words. What is bought, it does not know.

Nothing of an exception of the package leaves this module, not even as a cause: they carry whole bodies and headers, and Stripe repeats
a part of a wrong key in its message.
"""

import asyncio
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import aiohttp
import stripe
import structlog

from billing_engine.payments.errors import GatewayRefused, GatewayUnavailable

_log = structlog.get_logger(__name__)

# It would write an identity of this machine into the home directory and send it, with the times of our requests, to Stripe.
stripe.enable_telemetry = False
# Its lines below that repeat Stripe's messages, and those what was asked: a part of a key, a payer's address.
logging.getLogger("stripe").setLevel(logging.WARNING)

#: Stripe's largest page.
PAGE: Final = 100
_ID: Final = re.compile(r"[A-Za-z0-9_]{1,255}", re.ASCII)
#: The bank is the one that refuses; its own word says more than Stripe's.
_DECLINED: Final = "card_declined"

Shape = TypeVar("Shape")


class StripeConnection:
    """Requests to one Stripe account. Stripe's own repeats are off: whoever asks knows when a repeat is wanted."""

    def __init__(self, secret_key: str, *, base_url: str | None, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._http = _Http()
        self._stripe = stripe.StripeClient(
            secret_key,
            base_addresses={"api": base_url.rstrip("/")} if base_url else None,
            http_client=self._http,
            max_network_retries=0,
        )

    async def ask(
        self, kind: str, call: Callable[[stripe.StripeClient], Awaitable[object]]
    ) -> dict[str, Any]:
        """The object of that kind which Stripe answers.

        Raises:
            GatewayUnavailable: nobody knows whether it was done, or our key is not accepted.
            GatewayRefused: Stripe, or the bank behind it, will not.
        """
        try:
            async with asyncio.timeout(self.timeout_s):
                answer = await call(self._stripe)
            if isinstance(answer, stripe.StripeObject):
                found = answer.to_dict()
                if found.get("object") == kind:
                    return found
            failure: GatewayUnavailable | GatewayRefused = _unavailable("no such answer is known", kind)
        except Exception as exc:  # noqa: BLE001 - what is no answer makes the package raise what it likes, an AttributeError too
            failure = _failure(exc, kind)
        # Out here, so that no cause and no context hang on it.
        raise failure

    async def ask_all(
        self, page: Callable[[stripe.StripeClient, str | None], Awaitable[object]]
    ) -> list[dict[str, Any]]:
        """Every object of a list, page by page; `page` is called with the last object's id so far. Raises what `ask` raises."""
        found: list[dict[str, Any]] = []
        after: str | None = None
        while True:

            def call(client: stripe.StripeClient, after: str | None = after) -> Awaitable[object]:
                return page(client, after)

            answer = await self.ask("list", call)
            items = answer.get("data")
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise _unavailable("no such answer is known", "list")
            found.extend(items)
            if not items or not answer.get("has_more"):
                return found
            last = items[-1].get("id")
            if not isinstance(last, str) or last == after:
                # A page that goes nowhere: asked for ever, it would never end.
                raise _unavailable("no such answer is known", "list")
            after = last

    async def close(self) -> None:
        await self._http.close_async()


def checked_id(value: str) -> str:
    """An id that goes into an address. Raises `GatewayRefused` for what cannot be one: no other call may be made of it."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise GatewayRefused(reason="resource_missing")
    return value


def read(shape: Callable[[Mapping[str, Any]], Shape], answer: Mapping[str, Any]) -> Shape:
    """What `shape` makes of an answer. Raises `GatewayUnavailable` when a field is not there or is something else."""
    try:
        return shape(answer)
    except (KeyError, TypeError, ValueError, AttributeError):
        failure = _unavailable("no such answer is known", str(answer.get("object")))
    raise failure


def _failure(exc: Exception, kind: str) -> GatewayUnavailable | GatewayRefused:
    if isinstance(exc, stripe.AuthenticationError | stripe.PermissionError):
        _log.error(
            "stripe does not accept our key: no payment can be made or looked up until it is replaced",
            asked_for=kind,
            http_status=exc.http_status,
            request_id=exc.request_id,
        )
        return GatewayUnavailable(gateway="stripe", reason="the gateway does not accept our key")
    if isinstance(exc, stripe.CardError | stripe.InvalidRequestError):
        return GatewayRefused(gateway="stripe", reason=_code(exc))
    if isinstance(exc, TimeoutError):
        return _unavailable("no answer in time", kind)
    if isinstance(exc, stripe.IdempotencyError):
        # Something was asked for under this key before, with other words: what became of that is not known here.
        return _unavailable("asked before with other words", kind, exc)
    if isinstance(exc, stripe.StripeError) and exc.http_status is not None:
        return _unavailable("an answer that is none", kind, exc)
    return _unavailable("no connection", kind, error=type(exc).__name__)


def _code(exc: "stripe.CardError | stripe.InvalidRequestError") -> str:
    """Stripe's code, and for a declined card the bank's."""
    body = exc.json_body
    error = body.get("error") if isinstance(body, Mapping) else None
    facts = error if isinstance(error, Mapping) else {}
    is_the_banks = exc.code is None or exc.code == _DECLINED
    names = ("decline_code", "code", "type") if is_the_banks else ("code",)
    for name in names:
        if isinstance(facts.get(name), str):
            return str(facts[name])
    return "invalid_request_error"


def _unavailable(
    reason: str, kind: str, exc: stripe.StripeError | None = None, **facts: object
) -> GatewayUnavailable:
    if exc is not None:
        facts |= {"http_status": exc.http_status, "request_id": exc.request_id}
    _log.warning("stripe did not answer", asked_for=kind, reason=reason, **facts)
    return GatewayUnavailable(gateway="stripe", reason=reason)


class _Http(stripe.HTTPClient):
    """aiohttp under the package, whose own `AIOHTTPClient` follows redirects and leaves a response open when its body breaks off."""

    name = "aiohttp"

    def __init__(self) -> None:
        super().__init__()
        self._session: aiohttp.ClientSession | None = None

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        if self._session is None:
            # The package's own list of authorities: a container may have none.
            trust = ssl.create_default_context(cafile=stripe.ca_bundle_path)
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust))
        async with self._session.request(
            method, url, headers=headers, data=post_data, allow_redirects=False
        ) as response:
            return await response.read(), response.status, response.headers

    async def close_async(self) -> None:
        if self._session is not None:
            await self._session.close()
