"""Recharges through a real gateway's package: the real server process, a Razorpay and a Stripe on loopback, clients that pay."""

import asyncio
import json
import random
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from tests.e2e.people import Answer, Person, World, assert_bill, has, minor, people_of
from tests.support.fake_razorpay import FakeRazorpay
from tests.support.fake_stripe import FakeStripe
from tests.support.gateway_faults import Fault
from tests.support.server_process import QUICK, ServerProcess

Json = Any
#: What a server that dies does to its clients.
GONE: Final = (aiohttp.ClientError, OSError)


@pytest.fixture
def razorpay() -> Iterator[FakeRazorpay]:
    with FakeRazorpay() as fake:
        yield fake


def server_with(directory: Path, fake: FakeRazorpay, **settings: str) -> ServerProcess:
    return ServerProcess(
        directory,
        **{
            **QUICK,
            **settings,
            "PAYMENT_GATEWAY": "razorpay",
            "RAZORPAY_KEY_ID": fake.key_id,
            "RAZORPAY_KEY_SECRET": fake.key_secret,
            "RAZORPAY_WEBHOOK_SECRET": fake.webhook_secret,
            "RAZORPAY_URL": fake.url,
            "GATEWAY_TIMEOUT_SECONDS": "2",
        },
    )


async def order(person: Person, amount: str, key: str | None = None) -> Json:
    return await person.api.post("/wallet/recharge", {"amount": amount}, key=key)


async def verify(person: Person, paid: dict[str, str]) -> Json:
    return await person.api.post("/wallet/recharge/verify", paid)


async def balance(person: Person) -> str:
    return str((await person.api.get("/wallet/balance"))["walletBalance"])


async def until_paid(person: Person, payment_id: str) -> Json:
    """The payment once it is PAID."""
    for _ in range(200):
        payment = await person.api.get(f"/payments/{payment_id}")
        if payment["status"] == "PAID":
            return payment
        await asyncio.sleep(0.1)
    raise AssertionError(payment)


async def test_a_recharge_is_ordered_paid_verified_and_extends_a_running_consultation(
    tmp_path: Path, razorpay: FakeRazorpay
) -> None:
    with server_with(tmp_path, razorpay) as server:
        async with people_of(server) as world:
            user, lawyer = await world.user(), await world.lawyer()
            ordered = await order(user, "20.00", key="first")
            assert (ordered["status"], ordered["walletBalance"], ordered["transaction"]) == (
                "CREATED",
                None,
                None,
            )
            assert ordered["order"] == {
                "gateway": "razorpay",
                "orderId": ordered["order"]["orderId"],
                "keyId": razorpay.key_id,
                "amount": 2_000,
                "currency": "INR",
                "checkoutUrl": None,
            }
            assert await balance(user) == "0.00"
            # The same request again is the same order, at us and at the gateway.
            assert await order(user, "20.00", key="first") == ordered
            assert len(razorpay.orders_of(ordered["paymentId"])) == 1
            paid = razorpay.pay(ordered["order"]["orderId"])
            credited = await verify(user, paid)
            assert (credited["status"], credited["walletBalance"]) == ("PAID", "20.00")
            assert credited["transaction"]["referenceId"] == ordered["paymentId"]
            # Replayed, whoever does it, and however late the gateway's own word comes.
            assert await verify(user, paid) == credited
            statuses = await razorpay.deliver_to(
                server.url + "/webhooks/razorpay", times=3, shuffle=random.Random(1)
            )
            assert set(statuses) == {200}
            assert await balance(user) == "20.00"

            device = await user.device()
            session = await user.start(lawyer)
            more = await order(user, "100.00")
            razorpay.pay(more["order"]["orderId"])
            # The payer's client never comes back: the gateway's word alone extends the session.
            await razorpay.deliver_to(server.url + "/webhooks/razorpay")
            told = (await device.heard("session:recharged", has(sessionId=session["sessionId"]))).payload
            assert told["remainingSeconds"] > 100
            ended = await user.end(session["sessionId"])
            assert_bill(await user.session(session["sessionId"]))
            assert minor(await balance(user)) == 12_000 - minor(ended["totalAmount"])
            kinds = [row["kind"] for row in (await user.api.get("/wallet/transactions"))["items"]]
            assert sorted(kinds) in (["CONSULTATION", "RECHARGE", "RECHARGE"], ["RECHARGE", "RECHARGE"])
            assert [item["status"] for item in (await user.api.get("/payments"))["items"]] == ["PAID", "PAID"]
        code, output = server.settled_books()
        assert code == 0, output
        no_secrets(server, razorpay)


async def test_a_lie_is_refused_and_credits_nothing(tmp_path: Path, razorpay: FakeRazorpay) -> None:
    with server_with(tmp_path, razorpay) as server:
        async with people_of(server) as world:
            user, other = await world.user(), await world.user()
            mine = await order(user, "50.00")
            theirs = await order(other, "500.00")
            paid = razorpay.pay(mine["order"]["orderId"])
            order_id, payment_id = paid["razorpay_order_id"], paid["razorpay_payment_id"]

            async def refused(person: Person, body: Json, status: int, code: str) -> None:
                answer = await person.api.call("POST", "/wallet/recharge/verify", body)
                assert (answer.status, answer.code) == (status, code), answer

            await refused(user, {**paid, "razorpay_signature": "0" * 64}, 400, "SIGNATURE_INVALID")
            await refused(user, {**paid, "razorpay_signature": "नकली"}, 400, "SIGNATURE_INVALID")
            await refused(
                user, {**paid, "razorpay_payment_id": payment_id[:-1] + "x"}, 400, "SIGNATURE_INVALID"
            )
            # One's own signature for another's order, another's for one's own, and an order that nobody made.
            await refused(other, paid, 404, "PAYMENT_NOT_FOUND")
            await refused(
                user, {**paid, "razorpay_order_id": theirs["order"]["orderId"]}, 404, "PAYMENT_NOT_FOUND"
            )
            await refused(
                other, {**paid, "razorpay_order_id": theirs["order"]["orderId"]}, 400, "SIGNATURE_INVALID"
            )
            await refused(user, {**paid, "razorpay_order_id": "order_none"}, 404, "PAYMENT_NOT_FOUND")
            for field in paid:
                answer = await user.api.call(
                    "POST", "/wallet/recharge/verify", {name: paid[name] for name in paid if name != field}
                )
                assert (answer.status, answer.code) == (422, "VALIDATION_FAILED")
            assert await balance(user) == await balance(other) == "0.00"
            await refused_webhooks(server, razorpay)
            assert await balance(user) == await balance(other) == "0.00"
            assert (await verify(user, paid))["walletBalance"] == "50.00"
            assert order_id == mine["order"]["orderId"]
        code, output = server.settled_books()
        assert code == 0, output
        no_secrets(server, razorpay)


async def refused_webhooks(server: ServerProcess, fake: FakeRazorpay) -> None:
    """Nobody but the gateway is heard, whatever he sends."""
    true = next(letter for letter in fake.events if json.loads(letter.body)["event"] == "payment.captured")
    edited = true.body.replace(b'"amount":5000', b'"amount":9000').replace(
        b'"amount": 5000', b'"amount": 9000'
    )
    assert edited != true.body
    cases: list[tuple[bytes, dict[str, str], int]] = [
        (true.body, {}, 400),
        (true.body, {"x-razorpay-signature": ""}, 400),
        (true.body, {"x-razorpay-signature": "0" * 64}, 400),
        (edited, true.headers, 400),
        (true.body + b" ", true.headers, 400),
        (b"", true.headers, 400),
        (b"[]", true.headers, 400),
        (b"x" * 1024 * 1024, true.headers, 413),
    ]
    async with aiohttp.ClientSession() as http:
        for body, headers, status in cases:
            async with http.post(server.url + "/webhooks/razorpay", data=body, headers=headers) as answer:
                problem = await answer.json(content_type=None)
                assert answer.status == status, (body[:40], headers, problem)
                assert problem["code"] in ("WEBHOOK_INVALID", "BODY_TOO_LARGE"), problem
    raw = (
        b"POST /webhooks/razorpay HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n"
        b"X-Razorpay-Signature: \xc3\xa9\xe0\xa4\xa8\r\n\r\n{}"
    )
    host, _, port = server.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(raw)
    answer_line = (await reader.read()).split(b"\r\n", 1)[0]
    writer.close()
    assert answer_line.split()[1] == b"400", answer_line


async def test_a_gateway_in_trouble_leaves_doubt_and_then_certainty(
    tmp_path: Path, razorpay: FakeRazorpay
) -> None:
    with server_with(tmp_path, razorpay) as server:
        async with people_of(server) as world:
            user = await world.user()
            for fault in (Fault.HTML_5XX, Fault.TOO_MANY, Fault.LOST_REPLY, Fault.SILENT):
                with razorpay.broken(fault):
                    answer = await user.api.call(
                        "POST", "/wallet/recharge", {"amount": "10.00"}, key=fault.name
                    )
                assert (answer.status, answer.code) == (503, "GATEWAY_UNAVAILABLE"), fault
                ordered = await order(user, "10.00", key=fault.name)
                assert len(razorpay.orders_of(ordered["paymentId"])) == 1, fault
                paid = razorpay.pay(ordered["order"]["orderId"])
                with razorpay.broken(fault):
                    assert (await verify(user, paid))["status"] == "PENDING"
                # Nobody repeats anything: within seconds the server has asked by itself.
                await until_paid(user, ordered["paymentId"])
            assert await balance(user) == "40.00"
        code, output = server.settled_books()
        assert code == 0, output
        no_secrets(server, razorpay)


@pytest.mark.slow
async def test_kill_9_while_people_pay_loses_no_payment_and_credits_none_twice(
    tmp_path: Path, razorpay: FakeRazorpay
) -> None:
    """Twenty people order, pay, come back or not; the gateway tells in any order; the server dies again and again."""
    rng = random.Random(secrets.randbelow(10**9))
    with server_with(tmp_path, razorpay) as server:
        async with people_of(server) as world:
            users = [await world.user() for _ in range(20)]
            #: payment id → (whose, paise), as soon as somebody has paid it.
            owed: dict[str, tuple[Person, int]] = {}
            for _ in range(4):
                living = [asyncio.create_task(payer(user, razorpay, owed, rng)) for user in users]
                living.append(asyncio.create_task(gateway_tells(server, razorpay, rng)))
                await asyncio.sleep(rng.uniform(0.3, 1.5))
                server.kill()
                results = await asyncio.gather(*living, return_exceptions=True)
                assert not [r for r in results if isinstance(r, BaseException) and not isinstance(r, GONE)], (
                    results
                )
                code, output = await asyncio.to_thread(server.verify_ledger)
                assert code in (0, 3), output
                await asyncio.to_thread(server.start)
            # As a real gateway: it delivers again what nobody has taken.
            statuses = await razorpay.deliver_to(server.url + "/webhooks/razorpay", shuffle=rng)
            assert set(statuses) == {200}
            assert len(owed) > 20, "nothing was paid"
            for payment_id, (user, _) in owed.items():
                await until_paid(user, payment_id)
            for user in users:
                expected = sum(paise for owner, paise in owed.values() if owner is user)
                assert minor(await balance(user)) == expected
                rows = (await user.api.get("/wallet/transactions?limit=100"))["items"]
                assert len(rows) == sum(owner is user for owner, _ in owed.values())
        code, output = server.settled_books()
        assert code == 0, output
        no_secrets(server, razorpay)


async def payer(
    user: Person, fake: FakeRazorpay, owed: dict[str, tuple[Person, int]], rng: random.Random
) -> None:
    while True:
        paise = rng.randint(100, 90_000)
        key = secrets.token_hex(8)
        amount = f"{paise // 100}.{paise % 100:02d}"
        ordered = await order(user, amount, key=key)
        paid = fake.pay(ordered["order"]["orderId"])
        owed[ordered["paymentId"]] = (user, paise)
        if rng.random() < 0.6:
            answer: Answer = await user.api.call("POST", "/wallet/recharge/verify", paid)
            assert answer.status in (200, 503), answer


async def gateway_tells(server: ServerProcess, fake: FakeRazorpay, rng: random.Random) -> None:
    while True:
        events = rng.sample(fake.events, k=min(len(fake.events), 5))
        await fake.deliver_to(server.url + "/webhooks/razorpay", events)
        await asyncio.sleep(0.01)


async def test_a_wallet_in_dollars_is_recharged_at_stripes_checkout(tmp_path: Path) -> None:
    with FakeStripe.in_thread() as fake:
        settings = {
            **QUICK,
            "CURRENCY": "USD",
            "PAYMENT_GATEWAY": "stripe",
            "STRIPE_SECRET_KEY": fake.key,
            "STRIPE_WEBHOOK_SECRET": fake.webhook_secret,
            "STRIPE_URL": fake.url,
            "CHECKOUT_SUCCESS_URL": "https://app.example.com/paid",
            "CHECKOUT_CANCEL_URL": "https://app.example.com/cart",
        }
        with ServerProcess(tmp_path, **settings) as server:
            async with people_of(server) as world:
                user = await world.user()
                ordered = await order(user, "12.34", key="k1")
                assert ordered["status"] == "CREATED"
                assert ordered["order"]["checkoutUrl"].startswith("http")
                assert await order(user, "12.34", key="k1") == ordered
                fake.pay(ordered["order"]["orderId"])
                statuses = await fake.deliver_to(server.url + "/webhooks/stripe")
                statuses += await fake.deliver_to(server.url + "/webhooks/stripe")
                assert set(statuses) == {200}
                paid = await until_paid(user, ordered["paymentId"])
                assert (paid["amount"], paid["currency"], paid["order"]) == ("12.34", "USD", None)
                assert await balance(user) == "12.34"
                # A fraction of a cent is money here and none at Stripe.
                answer = await user.api.call("POST", "/wallet/recharge", {"amount": "1.005"})
                assert answer.status == 409, answer
                assert answer.code == "GATEWAY_REFUSED"
            code, output = server.settled_books()
            assert code == 0, output
            assert fake.key not in server.log
            assert fake.webhook_secret not in server.log


def no_secrets(server: ServerProcess, fake: FakeRazorpay) -> None:
    for secret in (fake.key_secret, fake.webhook_secret):
        assert secret not in server.log


@pytest.mark.slow
async def test_kill_9_while_money_goes_out_sends_nothing_twice_and_strands_nothing(
    tmp_path: Path, razorpay: FakeRazorpay
) -> None:
    """Admins refund payments in parts and decide payouts, lawyers ask for them; the server dies in the middle, again and again."""
    rng = random.Random(secrets.randbelow(10**9))
    with server_with(tmp_path, razorpay, PAYOUT_MIN="1.00") as server:
        async with people_of(server) as world:
            admin = await world.admin()
            users = [await world.user() for _ in range(6)]
            payments = []
            for user in users:
                ordered = await order(user, "300.00")
                await verify(user, razorpay.pay(ordered["order"]["orderId"]))
                payments.append((user, ordered["paymentId"]))
            lawyer = await an_earner(world, users[0])
            earned = minor((await lawyer.api.get("/lawyer/earnings/summary"))["available"])
            spent = 30_000 - minor(await balance(users[0]))
            asked = [
                Asked(
                    admin, f"/admin/payments/{payment_id}/refund", {"amount": "7.00", "reason": "Too late."}
                )
                for _, payment_id in payments
                for _ in range(4)
            ]
            asked += [Asked(lawyer.api, "/lawyer/payouts", {"amount": "1.00"}) for _ in range(10)]
            while not all(one.answer for one in asked):
                living = [asyncio.create_task(one.ask()) for one in asked if one.answer is None]
                await asyncio.sleep(rng.uniform(0.02, 0.4))
                server.kill()
                results = await asyncio.gather(*living, return_exceptions=True)
                assert not [r for r in results if isinstance(r, BaseException) and not isinstance(r, GONE)], (
                    results
                )
                code, output = await asyncio.to_thread(server.verify_ledger)
                assert code in (0, 3), output
                await asyncio.to_thread(server.start)
            # The banks have done their part, and the gateway says so.
            for refund_id in list(razorpay.books.refunds):
                razorpay.finish_refund(refund_id)
            assert set(await razorpay.deliver_to(server.url + "/webhooks/razorpay", shuffle=rng)) == {200}
            for user, payment_id in payments:
                back = await until_back(admin, payment_id)
                assert minor(back["refundedAmount"]) == 2_800
                at_gateway = [
                    refund["amount"]
                    for refund in razorpay.books.refunds.values()
                    if refund["payment_id"] == back["gatewayPaymentId"]
                ]
                assert at_gateway == [700] * 4, "sent twice, or not at all"
                left = 30_000 - 2_800 - (spent if user is users[0] else 0)
                assert minor(await balance(user)) == left
            payouts = (await lawyer.api.get("/lawyer/payouts?limit=100"))["items"]
            made = [one for one in asked if one.path == "/lawyer/payouts" and one.answer.status == 201]
            assert len(payouts) == len(made)
            summary = await lawyer.api.get("/lawyer/earnings/summary")
            assert minor(summary["available"]) == earned - 100 * len(made) >= 0
        code, output = server.settled_books()
        assert code == 0, output


class Asked:
    """One request with its key, asked until it is answered."""

    def __init__(self, api: Any, path: str, body: Json) -> None:
        self.api, self.path, self.body = api, path, body
        self.key = secrets.token_hex(8)
        self.answer: Any = None

    async def ask(self) -> None:
        answer = await self.api.call("POST", self.path, self.body, key=self.key)
        if answer.status < 500 and answer.json.get("code") != "IDEMPOTENCY_IN_PROGRESS":
            assert answer.status in (201, 402), answer
            self.answer = answer


async def an_earner(world: World, user: Person) -> Person:
    """A lawyer who has earned something."""
    lawyer = await world.lawyer("600.00")
    session = await user.start(lawyer)
    device = await user.device()
    await device.heard("session:tick")
    await user.end(session["sessionId"])
    return lawyer


async def until_back(admin: Any, payment_id: str) -> Json:
    """The payment once all its refunds are done."""
    for _ in range(200):
        payment = await admin.get(f"/admin/payments/{payment_id}")
        if all(refund["status"] == "DONE" for refund in payment["refunds"]):
            return payment
        await asyncio.sleep(0.1)
    raise AssertionError(payment)
