"""A Stripe of our own over loopback HTTP, that the real `stripe` package talks to.

    async with FakeStripe() as fake:
        gateway = StripeGateway(fake.key, fake.webhook_secret, base_url=fake.url, …)
        …
        fake.pay(order.id)
        statuses = await fake.deliver_to(webhook_url)

`with FakeStripe.in_thread() as fake:` runs it on a loop of its own, for tests of the real server's process. Everything but
`deliver_to` may be called from any thread.
"""

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import aiohttp
from aiohttp import web
from stripe import WebhookSignature

from tests.support.fake_stripe_subscriptions import StripeAccount
from tests.support.fake_stripe_wire import WRONG_ANSWERS, Keys, Refusal, nested

Json = dict[str, Any]
#: Beside the wrong answers: what else may go wrong.
SILENT, RESET, LOST_REPLY, BROKEN_OFF = "silent", "reset", "lost reply", "broken off"
FAULTS = (*WRONG_ANSWERS, SILENT, RESET, LOST_REPLY, BROKEN_OFF)


class FakeStripe:
    """The server, and what payers, banks and Stripe itself do, by the name of it (`StripeAccount`)."""

    def __init__(self, now_s: Callable[[], float] = time.time) -> None:
        self.key = "sk_test_" + secrets.token_hex(24)
        self.webhook_secret = "whsec_" + secrets.token_hex(24)
        self.url = ""
        self.books = StripeAccount(now_s)
        self.keys = Keys()
        #: What every request meets, and how many more of them; None: all.
        self.fault: str | None = None
        self.faults_left: int | None = None
        #: What was asked: method, path, Idempotency-Key.
        self.requests: list[tuple[str, str, str | None]] = []
        #: Requests under a key wait here until it is open: what is asked meanwhile under the same key finds it being done.
        self.gate = asyncio.Event()
        self.gate.set()
        #: Set as soon as a request waits: there, or for an answer that never comes.
        self.waiting = asyncio.Event()
        self._lock = threading.RLock()
        self._stopping = asyncio.Event()
        self._runner: web.AppRunner | None = None

    # -- running it --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application(client_max_size=1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        self._stopping.set()
        self.gate.set()
        if self._runner is not None:
            await self._runner.cleanup()

    @classmethod
    @contextmanager
    def in_thread(cls, now_s: Callable[[], float] = time.time) -> Iterator[Self]:
        """On a loop of its own, in a thread of its own."""
        fake = cls(now_s)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="fake-stripe")
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(fake.start(), loop).result(10)
            yield fake
        finally:
            asyncio.run_coroutine_threadsafe(fake.stop(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()

    # -- what happens in the account ---------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        """`pay`, `fail`, `dispute` and all else that happens in the books, under their lock."""
        done = getattr(StripeAccount, name, None)
        if name.startswith("_") or not callable(done):
            raise AttributeError(name)

        def locked(*args: Any, **facts: Any) -> Any:
            with self._lock:
                return done(self.books, *args, **facts)

        return locked

    # -- what it tells -----------------------------------------------------------------------------------------------

    @property
    def events(self) -> list[tuple[bytes, dict[str, str]]]:
        """Every event so far in the order of happening, signed now. Header names are in lower case."""
        with self._lock:
            bodies = list(self.books.happened)
        return [self.sign(body.encode()) for body in bodies]

    def sign(self, body: bytes, at_s: float | None = None) -> tuple[bytes, dict[str, str]]:
        """Any body, signed as Stripe signs. What is no text, Stripe never sends: it is signed as the text nearest to it."""
        header = WebhookSignature.generate_signature_header(
            body.decode(errors="replace"),
            self.webhook_secret,
            int(self.books.now_s() if at_s is None else at_s),
        )
        return body, {"content-type": "application/json; charset=utf-8", "stripe-signature": header}

    async def deliver_to(
        self, url: str, events: Sequence[tuple[bytes, dict[str, str]]] | None = None, *, times: int = 1
    ) -> list[int]:
        """Send the events (all so far, or these in their order), each so often; the statuses of the answers."""
        statuses = []
        async with aiohttp.ClientSession() as client:
            for body, headers in self.events if events is None else events:
                for _ in range(times):
                    async with client.post(url, data=body, headers=headers) as answer:
                        statuses.append(answer.status)
        return statuses

    # -- what goes wrong ---------------------------------------------------------------------------------------------

    @contextmanager
    def broken(self, fault: str, times: int | None = None) -> Iterator[None]:
        """Every request meets this fault, or the next ones do."""
        assert fault in FAULTS
        self.fault, self.faults_left = fault, times
        try:
            yield
        finally:
            self.fault = self.faults_left = None

    def _fault_of_now(self) -> str | None:
        if self.fault is not None and self.faults_left is not None:
            if self.faults_left == 0:
                return None
            self.faults_left -= 1
        return self.fault

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        fault = self._fault_of_now()
        key = request.headers.get("Idempotency-Key")
        self.requests.append((request.method, request.path, key))
        if fault == SILENT:
            self.waiting.set()
            await self._stopping.wait()
        if fault in {SILENT, RESET}:
            return _cut(request)
        if fault in WRONG_ANSWERS:
            status, kind, text = WRONG_ANSWERS[fault](self.key)
            elsewhere = {"Location": self.url + "/v1/elsewhere"} if status == 302 else None
            return web.Response(
                status=status,
                body=text.encode(errors="surrogateescape"),
                content_type=kind,
                headers=elsewhere,
            )
        status, body = await self._answer(request, key)
        if fault == LOST_REPLY:
            return _cut(request)
        if fault == BROKEN_OFF:
            half = web.StreamResponse(headers={"Content-Type": "application/json"})
            half.content_length = 10_000
            await half.prepare(request)
            await half.write(b'{"id": ')
            return _cut(request)
        named = {"Request-Id": f"req_{len(self.requests):014d}"}
        return web.json_response(body, status=status, headers=named)

    async def _answer(self, request: web.Request, key: str | None) -> tuple[int, Json]:
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            return 401, {"error": {"message": "Invalid API Key provided", "type": "invalid_request_error"}}
        is_post = request.method == "POST"
        form = nested(await request.text() if is_post else request.query_string)
        if not is_post or key is None:
            return self._do(request, form)
        try:
            with self._lock:
                known = self.keys.begin(key, request.path, form)
        except Refusal as refusal:
            return refusal.status, refusal.body
        if known is not None:
            return known
        if not self.gate.is_set():
            self.waiting.set()
        await self.gate.wait()
        status, body = self._do(request, form)
        with self._lock:
            self.keys.end(key, status, body)
        return status, body

    def _do(self, request: web.Request, form: Json) -> tuple[int, Json]:
        expand = form.pop("expand", [])
        with self._lock:
            try:
                return 200, self.books.expanded(self._found(request.method, request.path, form), expand)
            except Refusal as refusal:
                return refusal.status, refusal.body

    def _found(self, method: str, path: str, form: Json) -> Json:
        books = self.books
        match method, path.removeprefix("/v1/").split("/"):
            case "POST", ["checkout", "sessions"]:
                return books.create_session(form)
            case "GET", ["checkout", "sessions", name]:
                return books.session(name)
            case "POST", ["payment_intents"]:
                return books.create_intent(form)
            case "GET", ["payment_intents"]:
                return books.list_intents(form)
            case "GET", ["payment_intents", name]:
                return books.intent(name)
            case "POST", ["payment_intents", name, "capture"]:
                return books.capture_intent(name)
            case "POST", ["refunds"]:
                return books.create_refund(form)
            case "GET", ["refunds"]:
                return books.list_refunds(form)
            case "GET", ["payment_methods", name]:
                return books.method(name)
            case "POST", ["payment_methods", name, "detach"]:
                return books.detach_method(name)
            case "POST", ["products"]:
                return books.create_product(form)
            case "GET", ["subscriptions", name]:
                return books.subscription(name)
            case "POST", ["subscriptions", name]:
                return books.update_subscription(name, form)
            case "GET", ["invoices"]:
                return books.list_invoices(form)
        raise Refusal(404, f"Unrecognized request URL ({method}: {path}).")


def _cut(request: web.Request) -> web.Response:
    """The connection is closed without a word."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
