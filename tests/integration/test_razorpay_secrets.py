"""Nothing that is secret leaves Razorpay's adapter: not in what it prints, logs, raises or shows."""

import asyncio
import base64
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType, ModuleType, TracebackType

import pytest
from structlog.testing import capture_logs

from billing_engine.payments.errors import GatewayUnavailable, WebhookInvalid
from billing_engine.payments.model import SavedMethod, Wish
from server.gateways.razorpay import RazorpayGateway
from tests.support.fake_razorpay import FakeRazorpay
from tests.support.gateway_faults import Fault

WISH = Wish("01KREFERENCE", 50_000, "INR", "Wallet recharge", "payer@example.com")
#: In the recorded payloads.
CARD_OWNER = "Asha Menon"
DEPTH = 12


def inside(thing: object, seen: set[int], depth: int = DEPTH) -> Iterator[str]:
    """Every text that can be reached from a thing, as a tool that reports errors with all their data would reach it."""
    if depth == 0 or id(thing) in seen or isinstance(thing, type | ModuleType | FrameType | TracebackType):
        return
    seen.add(id(thing))
    if isinstance(thing, str | bytes | bytearray):
        yield thing if isinstance(thing, str) else bytes(thing).decode("latin-1")
        return
    parts: list[object] = []
    if isinstance(thing, dict):
        parts = [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set | frozenset):
        parts = list(thing)
    elif isinstance(thing, BaseException):
        parts = [thing.args, thing.__cause__, thing.__context__, str(thing), repr(thing)]
    parts += vars(thing).values() if hasattr(thing, "__dict__") else []
    for part in parts:
        yield from inside(part, seen, depth - 1)


async def test_secrets_are_nowhere(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A log is read by more people than a database, and an error report leaves the house."""
    caplog.set_level(logging.DEBUG)
    raised: list[BaseException] = []
    async with FakeRazorpay() as fake:
        gateway = RazorpayGateway(
            fake.key_id, fake.key_secret, fake.webhook_secret, base_url=fake.url, timeout_s=2
        )
        stranger = RazorpayGateway(
            fake.key_id, fake.key_secret + "-wrong", fake.webhook_secret, base_url=fake.url, timeout_s=5
        )
        order = await gateway.create_order(WISH)
        callback = fake.pay(order.id)
        (attempt,) = await gateway.attempts(order.id)
        event = fake.events[-1]
        method = SavedMethod("token_1", "cust_1", "card")
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: gateway.create_order(WISH),
            lambda: gateway.attempts(order.id),
            lambda: gateway.attempt(attempt.id),
            lambda: gateway.capture(attempt),
            lambda: gateway.refund(attempt.id, amount_minor=1, currency="INR", reference="refund-1"),
            lambda: gateway.refunds(attempt.id),
            lambda: gateway.charge_saved(WISH, method),
            lambda: gateway.forget_method(method),
            lambda: gateway.attempts_between(0, 1),
        ]

        async def fail(call: Callable[[], Awaitable[object]]) -> None:
            try:
                await call()
            except Exception as exc:
                raised.append(exc)

        with capture_logs() as logs:
            for fault in Fault:
                with fake.broken(fault):
                    await asyncio.gather(*(fail(call) for call in calls))
            await fail(lambda: gateway.attempt("pay_00000000000000"))
            await fail(
                lambda: gateway.refund(attempt.id, amount_minor=1 << 40, currency="INR", reference="refund-2")
            )
            await fail(lambda: stranger.create_order(WISH))
            await fail(lambda: stranger.attempt(attempt.id))
            # What is not what it should be, with all of a payer in it.
            fake.answers.append((200, fake.books.payment(attempt.id) | {"amount": "50000"}))
            await fail(lambda: gateway.attempt(attempt.id))
            for body, headers in (
                (event.body[:-1], event.headers),
                (event.body, event.headers | {"x-razorpay-signature": "x" * 64}),
                (fake.books.signed(event.body[:-1]).body, fake.books.signed(event.body[:-1]).headers),
                (
                    fake.books.signed(event.body + b"\xff").body,
                    fake.books.signed(event.body + b"\xff").headers,
                ),
                (
                    fake.books.signed(event.body.replace(b'"amount":5', b'"amount":-5')).body,
                    fake.books.signed(event.body.replace(b'"amount":5', b'"amount":-5')).headers,
                ),
            ):
                with pytest.raises(WebhookInvalid) as caught:
                    gateway.read_webhook(body, headers)
                raised.append(caught.value)
        secrets = {
            fake.key_secret,
            fake.webhook_secret,
            base64.b64encode(f"{fake.key_id}:{fake.key_secret}".encode()).decode(),
            base64.b64encode(f"{fake.key_id}:{fake.key_secret}-wrong".encode()).decode(),
            callback["razorpay_signature"],
            event.headers["x-razorpay-signature"],
            CARD_OWNER,
        }
        shown = [repr(gateway), str(gateway), repr(gateway._client), repr(gateway._api)]
        await gateway.close()
        await stranger.close()
    printed = capfd.readouterr()
    said = [
        printed.out,
        printed.err,
        caplog.text,
        repr(logs),
        *shown,
        *("".join(traceback.format_exception(exc)) for exc in raised),
    ]
    seen: set[int] = set()
    # Texts are kept alive, or their ids would be given to others.
    texts = [*said, *(text for exc in raised for text in inside(exc, seen))]

    assert len(raised) > 8 * len(Fault)
    assert any(isinstance(exc, GatewayUnavailable) for exc in raised)
    assert logs
    assert printed.out == ""
    found = {secret for secret in secrets for text in texts if secret in text}
    assert found == set()
