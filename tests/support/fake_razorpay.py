"""A Razorpay over loopback HTTP, for tests: the real `razorpay` package talks to it, and so may a server in another process.

It runs in a thread with a loop of its own. Everything that a test calls here is plain and safe from any thread:

    async with FakeRazorpay() as fake:           # or `with FakeRazorpay() as fake:` where nothing is awaited
        gateway = RazorpayGateway(fake.key_id, fake.key_secret, fake.webhook_secret, base_url=fake.url)
        callback = fake.pay(order_id)            # razorpay_order_id, razorpay_payment_id, razorpay_signature
        fake.events                              # signed events in the order of happening; nothing is sent by itself
        await fake.deliver_to(url, times=2, shuffle=random.Random(1))
        with fake.broken(Fault.LOST_REPLY): ...
"""

import asyncio
import json
import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from aiohttp import web

from tests.support.fake_razorpay_books import Books, Entity, Refusal, Signed
from tests.support.gateway_faults import Fault

_PAGE = "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>"
MAX_COUNT = 100


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came. Without its authorisation."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    headers: Mapping[str, str]


#: Chooses the requests that a fault is for.
Match = Callable[[Asked], bool]


def anything(_asked: Asked) -> bool:
    return True


class FakeRazorpay:
    """One merchant's Razorpay."""

    def __init__(self, *, now_s: Callable[[], float] = time.time) -> None:
        # Long and random: a test can look for them everywhere.
        self.key_id = "rzp_test_" + secrets.token_hex(7)
        self.key_secret = "key-secret-" + secrets.token_hex(16)
        self.webhook_secret = "webhook-secret-" + secrets.token_hex(16)
        self.url = ""
        self.books = Books(self.key_secret, self.webhook_secret, now_s)
        #: Every request, in the order of coming.
        self.asked: list[Asked] = []
        #: (status, body) for the next requests, instead of what the books say.
        self.answers: deque[tuple[int, bytes | Mapping[str, Any]]] = deque()
        self._lock = threading.Condition()
        self._fault: Fault | None = None
        self._match: Match = anything
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._mended = asyncio.Event()
        self._stopping = asyncio.Event()

    # --- what a test makes happen ---

    def pay(self, order_id: str, *, save_method: bool = False) -> dict[str, str]:
        with self._lock:
            return self.books.pay(order_id, save_method=save_method)

    def fail(self, order_id: str, reason: str = "insufficient_funds") -> str:
        with self._lock:
            return self.books.fail(order_id, reason)

    def authorize(self, order_id: str) -> str:
        with self._lock:
            return self.books.authorize(order_id)

    def authorize_late(self, payment_id: str, *, capture: bool = False) -> None:
        with self._lock:
            self.books.authorize_late(payment_id, capture=capture)

    def give_up(self, payment_id: str) -> None:
        with self._lock:
            self.books.give_up(payment_id)

    def finish_refund(self, refund_id: str, *, succeeds: bool = True) -> None:
        with self._lock:
            self.books.finish_refund(refund_id, succeeds=succeeds)

    def dispute(self, payment_id: str, *, amount: int | None = None) -> str:
        with self._lock:
            return self.books.dispute(payment_id, amount=amount)

    def move_dispute(self, dispute_id: str, step: str) -> None:
        with self._lock:
            self.books.move_dispute(dispute_id, step)

    def orders_of(self, receipt: str) -> list[Entity]:
        with self._lock:
            return [order for order in self.books.orders.values() if order["receipt"] == receipt]

    @property
    def events(self) -> list[Signed]:
        """Every event so far."""
        with self._lock:
            return list(self.books.events)

    async def came(self, number: int) -> None:
        """Wait until so many requests have come."""

        def wait() -> None:
            with self._lock:
                self._lock.wait_for(lambda: len(self.asked) >= number)

        await asyncio.to_thread(wait)

    async def deliver_to(
        self,
        url: str,
        events: Sequence[Signed] | None = None,
        *,
        times: int = 1,
        shuffle: random.Random | None = None,
    ) -> list[int]:
        """Post the events (all, if none are named), each so many times, in any order; the statuses of the answers."""
        letters = list(self.events if events is None else events) * times
        if shuffle is not None:
            shuffle.shuffle(letters)
        statuses = []
        async with aiohttp.ClientSession() as session:
            for letter in letters:
                async with session.post(url, data=letter.body, headers=letter.headers) as answer:
                    statuses.append(answer.status)
        return statuses

    @contextmanager
    def broken(self, fault: Fault, only: Match = anything) -> Iterator[None]:
        """Every request that matches meets this fault while it is open."""
        self._fault, self._match = fault, only
        try:
            yield
        finally:
            self._fault = None
            self._loop.call_soon_threadsafe(self._mend)

    def _mend(self) -> None:
        """Let go of whoever is kept waiting."""
        self._mended.set()
        self._mended = asyncio.Event()

    # --- the server ---

    def __enter__(self) -> Self:
        started: threading.Event = threading.Event()
        self._thread = threading.Thread(
            target=self._serve, args=(started,), name="fake-razorpay", daemon=True
        )
        self._thread.start()
        started.wait()
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._loop.close()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.__exit__, *exc)

    def _serve(self, started: threading.Event) -> None:
        self._loop.run_until_complete(self._run(started))

    async def _run(self, started: threading.Event) -> None:
        app = web.Application(client_max_size=1 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        await self._stopping.wait()
        self._mend()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        asked = Asked(
            request.method,
            request.path,
            dict(request.query),
            json.loads(raw) if raw else None,
            {
                name.lower(): value
                for name, value in request.headers.items()
                if name.lower() != "authorization"
            },
        )
        fault = self._fault if self._match(asked) else None
        with self._lock:
            self.asked.append(asked)
            self._lock.notify_all()
        if fault is not None and fault is not Fault.LOST_REPLY:
            return await self._break(request, fault)
        status, body = self._do(request, asked)
        if fault is Fault.LOST_REPLY:
            return self._cut(request)
        if isinstance(body, bytes):
            return web.Response(status=status, body=body, content_type="text/html")
        return web.json_response(body, status=status)

    async def _break(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        match fault:
            case Fault.SILENT:
                await self._mended.wait()
                return self._cut(request)
            case Fault.HTML_5XX:
                return web.Response(status=502, text=_PAGE, content_type="text/html")
            case Fault.JSON_5XX:
                error = {
                    "code": "SERVER_ERROR",
                    "description": "The server encountered an unexpected condition",
                }
                return web.json_response({"error": error}, status=500)
            case Fault.TOO_MANY:
                error = {
                    "code": "BAD_REQUEST_ERROR",
                    "description": "Request failed. Please try after sometime.",
                }
                return web.json_response({"error": error}, status=429)
            case Fault.HTML_200:
                return web.Response(text=_PAGE, content_type="text/html")
            case Fault.OTHER_JSON:
                return web.json_response({"entity": "greeting", "text": "hello"})
            case _:
                return self._cut(request)

    def _cut(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    def _do(self, request: web.Request, asked: Asked) -> tuple[int, bytes | Mapping[str, Any]]:
        """What the books say."""
        with self._lock:
            if self.answers:
                return self.answers.popleft()
            expected = aiohttp.encode_basic_auth(self.key_id, self.key_secret)
            if request.headers.get("authorization") != expected:
                error = {"code": "BAD_REQUEST_ERROR", "description": "Authentication failed"}
                return 401, {"error": error}
            try:
                # Copied under the lock: it is written to the wire when others may change it.
                return 200, json.loads(json.dumps(self._route(asked)))
            except Refusal as refusal:
                return refusal.status, refusal.body

    def _route(self, asked: Asked) -> Mapping[str, Any]:
        books, body, query = self.books, asked.body or {}, asked.query
        match [asked.method, *asked.path.strip("/").split("/")]:
            case ["POST", "v1", "orders"]:
                return books.create_order(body)
            case ["GET", "v1", "orders"]:
                receipt = query.get("receipt", "")
                return _page(
                    [one for one in books.orders.values() if receipt in (one["receipt"] or "")], query
                )
            case ["GET", "v1", "orders", order_id]:
                return books.order(order_id)
            case ["GET", "v1", "orders", order_id, "payments"]:
                order = books.order(order_id)
                items = [one for one in books.payments.values() if one["order_id"] == order["id"]]
                return {"entity": "collection", "count": len(items), "items": items[::-1]}
            case ["GET", "v1", "payments"]:
                return _page(list(books.payments.values()), query)
            case ["POST", "v1", "payments", "create", "recurring"]:
                return books.charge(body)
            case ["GET", "v1", "payments", payment_id]:
                return books.payment(payment_id)
            case ["POST", "v1", "payments", payment_id, "capture"]:
                return books.capture(payment_id, body)
            case ["POST", "v1", "payments", payment_id, "refund"]:
                return books.refund(payment_id, body, asked.headers.get("x-refund-idempotency"))
            case ["GET", "v1", "payments", payment_id, "refunds"]:
                payment = books.payment(payment_id)
                return _page(
                    [one for one in books.refunds.values() if one["payment_id"] == payment["id"]], query
                )
            case ["GET", "v1", "refunds"]:
                return _page(list(books.refunds.values()), query)
            case ["POST", "v1", "customers"]:
                return books.create_customer(body)
            case ["GET", "v1", "customers", customer_id]:
                return books._known(books.customers, customer_id)
            case ["GET", "v1", "customers", customer_id, "tokens", token_id]:
                return books.token(customer_id, token_id)
            case ["DELETE", "v1", "customers", customer_id, "tokens", token_id]:
                return books.delete_token(customer_id, token_id)
        raise Refusal("NA", "The requested URL was not found on the server.", status=404)


def _page(items: Sequence[Entity], query: Mapping[str, str]) -> Mapping[str, Any]:
    """Newest first, ten at a time unless asked, both ends of the time included."""
    wanted, skip = int(query.get("count", "10")), int(query.get("skip", "0"))
    if not 1 <= wanted <= MAX_COUNT:
        raise Refusal("input_validation_failed", "The count may not be greater than 100.")
    first, last = int(query.get("from", "0")), int(query.get("to", str(1 << 40)))
    for instant in (first, last):
        # 2000 to 2120; what is not said is no matter.
        if instant not in {0, 1 << 40} and not 946_684_800 <= instant <= 4_765_046_400:
            raise Refusal("input_validation_failed", "from must be between 946684800 and 4765046400")
    found = [one for one in reversed(items) if first <= one["created_at"] <= last][skip : skip + wanted]
    return {"entity": "collection", "count": len(found), "items": found}
