"""The credit document's user flows, step by step, against the real server in its own process: its paths, its fields, its words.

Flow 1 is walked twice: with the simulated gateway, and through Razorpay's own package with a Razorpay on loopback. "Older than 24 hours"
cannot be waited for here; `tests/integration/test_credits.py` moves the clock.
"""

import asyncio
import itertools
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from tests.e2e.people import Api, World, people_of
from tests.support.fake_razorpay import FakeRazorpay
from tests.support.server_process import QUICK, ServerProcess

Json = Any
#: What a server that dies does to its clients.
GONE: Final = (aiohttp.ClientError, OSError)
_numbers = itertools.count()
#: The document's table: package, credits, price at 50.00 a credit.
PACKAGES: Final = (
    (1, "Starter", 5, "250.00"),
    (2, "Basic", 10, "500.00"),
    (3, "Pro", 25, "1250.00"),
    (4, "Business", 50, "2500.00"),
)


async def somebody(world: World, role: str, **more: str) -> tuple[Api, str]:
    """Somebody of this role, signed in, and their id."""
    answer = await world.anyone.post(
        "/auth/register",
        {
            "email": f"{role.lower()}{next(_numbers)}@example.com",
            "password": "correct horse",
            "name": role.title(),
            "role": role,
            **more,
        },
    )
    return world.anyone.as_(answer["accessToken"]), answer["user"]["id"]


async def freelancer(world: World) -> tuple[Api, str]:
    return await somebody(world, "FREELANCER", profession="videographer")


async def company(world: World) -> Api:
    return (await somebody(world, "COMPANY", companyName="Acme"))[0]


async def project(api: Api, title: str = "A film about a bakery") -> str:
    return str((await api.post("/projects", {"title": title, "description": "Two days in May."}))["id"])


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("credits"), **QUICK) as server:
        yield server
        code, output = server.settled_books()
        assert code == 0, output


async def test_flow_1_purchase_credits(simulated: ServerProcess) -> None:
    async with people_of(simulated) as world:
        me, _ = await freelancer(world)
        # 2, 3: the packages.
        listed = await me.get("/credits/packages")
        assert [tuple(item.values()) for item in listed["items"]] == list(PACKAGES)
        # 6, 10: with the simulated gateway it is paid at once, and the answer says so.
        bought = await me.post("/credits/initiate-purchase", {"package_id": 3}, key="buy")
        assert (bought["amount"], bought["currency"], bought["status"]) == (125_000, "INR", "PAID")
        assert bought["credits_balance"] == 25
        # The same request again is the same purchase.
        assert await me.post("/credits/initiate-purchase", {"package_id": 3}, key="buy") == bought
        assert (await me.get("/credits/balance"))["credits_balance"] == 25
        receipt = await me.get(f"/credits/purchases/{bought['payment_id']}")
        assert (receipt["credits"], receipt["price"], receipt["price_per_credit"]) == (25, "1250.00", "50.00")
        # 8: who is no freelancer cannot purchase.
        stranger = await company(world)
        await stranger.refused(
            "POST", "/credits/initiate-purchase", {"package_id": 3}, status=403, code="FORBIDDEN"
        )
    log = "\n".join(str(event) for event in simulated.log_events())
    assert "Your receipt for application credits" in log


async def test_flow_1_purchase_credits_through_razorpay(tmp_path: Path) -> None:
    with FakeRazorpay() as razorpay:
        settings = {
            **QUICK,
            "PAYMENT_GATEWAY": "razorpay",
            "RAZORPAY_KEY_ID": razorpay.key_id,
            "RAZORPAY_KEY_SECRET": razorpay.key_secret,
            "RAZORPAY_WEBHOOK_SECRET": razorpay.webhook_secret,
            "RAZORPAY_URL": razorpay.url,
            "GATEWAY_TIMEOUT_SECONDS": "2",
            "CREDIT_UNPAID_ORDERS_MAX": "2",
        }
        with ServerProcess(tmp_path, **settings) as server:
            async with people_of(server) as world:
                await _buy_at_razorpay(world, server, razorpay)
            code, output = server.settled_books()
            assert code == 0, output
            assert razorpay.key_secret not in server.log
            assert razorpay.webhook_secret not in server.log


async def _buy_at_razorpay(world: World, server: ServerProcess, razorpay: FakeRazorpay) -> None:
    me, _ = await freelancer(world)
    admin = await world.admin()
    order = await me.post("/credits/initiate-purchase", {"package_id": 3}, key="buy")
    # 10: what Razorpay Checkout is opened with.
    assert {name: order[name] for name in ("amount", "currency", "key_id")} == {
        "amount": 125_000,
        "currency": "INR",
        "key_id": razorpay.key_id,
    }
    assert (order["status"], order["credits_balance"]) == ("CREATED", None)
    assert (await me.get("/credits/balance"))["credits_balance"] == 0
    # The price changes meanwhile: the order keeps its own.
    await admin.ok("PUT", "/admin/credits/settings", {"price_per_credit": 60})
    assert await me.post("/credits/initiate-purchase", {"package_id": 3}, key="buy") == order
    other = await me.post("/credits/initiate-purchase", {"packageId": 1})
    assert other["amount"] == 30_000
    # 8: two orders wait to be paid, and that is the most.
    await me.refused(
        "POST", "/credits/initiate-purchase", {"package_id": 1}, status=409, code="TOO_MANY_UNPAID_ORDERS"
    )
    # An order can be taken up again later: the same one.
    later = await me.get(f"/credits/purchases/{order['payment_id']}")
    assert [later[name] for name in ("order_id", "amount", "key_id")] == [
        order[name] for name in ("order_id", "amount", "key_id")
    ]
    # 11 to 16: a forged signature adds nothing.
    paid = razorpay.pay(order["order_id"])
    forged = {**paid, "razorpay_signature": "0" * 64}
    refused = await me.refused(
        "POST", "/credits/verify-payment", forged, status=400, code="SIGNATURE_INVALID"
    )
    assert refused.json["errors"][0]["field"] == "razorpay_signature"
    stranger, _ = await freelancer(world)
    await stranger.refused("POST", "/credits/verify-payment", paid, status=404, code="PAYMENT_NOT_FOUND")
    # 15 to 19: the credits, once, however often it is said and by whom.
    verified = await me.post("/credits/verify-payment", paid)
    assert (verified["status"], verified["credits_balance"]) == ("PAID", 25)
    assert await me.post("/credits/verify-payment", paid) == verified
    # The client of the other one never comes back: the gateway's word alone adds its credits.
    razorpay.pay(other["order_id"])
    assert set(await razorpay.deliver_to(server.url + "/webhooks/razorpay", times=3)) == {200}
    for _ in range(200):
        balance = await me.get("/credits/balance")
        if balance["credits_balance"] == 30:
            break
        await asyncio.sleep(0.05)
    assert balance == {
        "credits_balance": 30,
        "total_purchased": 30,
        "credits_used": 0,
        "credits_refunded": 0,
        "credits_adjusted": 0,
    }
    # What was bought cannot be sent back to the payer here, and nothing is moved by trying.
    await admin.refused(
        "POST",
        f"/admin/payments/{order['payment_id']}/refund",
        {"amount": "1.00", "reason": "Asked for."},
        status=409,
        code="NOT_SUPPORTED",
    )
    # A bank that takes the money back is the platform's loss: no rupee is ever held on an account of credits.
    razorpay.dispute(paid["razorpay_payment_id"])
    server.tolerated = lambda event: "disputed" in str(event)
    assert set(await razorpay.deliver_to(server.url + "/webhooks/razorpay")) == {200}
    for _ in range(200):
        disputes = (await admin.get("/admin/disputes"))["items"]
        if disputes:
            break
        await asyncio.sleep(0.05)
    assert [(one["amount"], one["frozenAmount"]) for one in disputes] == [("1250.00", "0.00")]
    assert (await me.get("/credits/balance"))["credits_balance"] == 30


async def test_flow_2_apply_to_a_project(simulated: ServerProcess) -> None:
    async with people_of(simulated) as world:
        me, my_id = await freelancer(world)
        acme = await company(world)
        project_id = await project(acme)
        # 1: the project's details.
        assert (await me.get(f"/projects/{project_id}"))["status"] == "OPEN"
        assert project_id in [one["id"] for one in (await me.get("/projects?limit=100"))["items"]]
        # The error flow: no credit, and where to buy one.
        poor = await me.refused(
            "POST", "/applied-projects", {"project_id": project_id}, status=400, code="INSUFFICIENT_CREDITS"
        )
        assert {name: poor.json[name] for name in ("required", "available", "missing", "buy_at")} == {
            "required": 1,
            "available": 0,
            "missing": 1,
            "buy_at": "/credits/packages",
        }
        assert (await me.get("/credits/history"))["total"] == 0
        await me.post("/credits/initiate-purchase", {"package_id": 1})
        # 3 to 13: five credits, then four.
        assert (await me.get("/credits/balance"))["credits_balance"] == 5
        applied = await me.call("POST", "/applied-projects", {"project_id": project_id}, key="apply")
        assert (applied.status, applied.json["credits_balance"]) == (201, 4)
        again = await me.call("POST", "/applied-projects", {"project_id": project_id}, key="apply")
        assert again.json == applied.json
        await me.refused(
            "POST", "/applied-projects", {"project_id": project_id}, status=409, code="ALREADY_APPLIED"
        )
        assert (await me.get("/credits/balance"))["credits_balance"] == 4
        assert [one["id"] for one in (await me.get("/applied-projects"))["items"]] == [applied.json["id"]]
        listed = (await acme.get(f"/projects/{project_id}/applications"))["items"]
        assert [(one["user_id"], one["profession"]) for one in listed] == [(my_id, "videographer")]
        # Nobody applies for what is closed, and no credit is taken.
        other = await project(acme)
        assert (await acme.post(f"/projects/{other}/close"))["status"] == "CLOSED"
        await me.refused(
            "POST", "/applied-projects", {"project_id": other}, status=409, code="PROJECT_CLOSED"
        )
        assert (await me.get("/credits/balance"))["credits_balance"] == 4
        assert other not in [one["id"] for one in (await me.get("/projects?limit=100"))["items"]]
        assert {one["status"] for one in (await acme.get("/projects"))["items"]} == {"OPEN", "CLOSED"}


async def test_flow_3_view_balance(simulated: ServerProcess) -> None:
    """The document's own numbers: 50 purchased, 25 used, 25 left."""
    async with people_of(simulated) as world:
        me, _ = await freelancer(world)
        acme = await company(world)
        await me.post("/credits/initiate-purchase", {"package_id": 4})
        for number in range(25):
            await me.post("/applied-projects", {"project_id": await project(acme, f"Film {number}")})
        balance = await me.get("/credits/balance")
        assert (balance["credits_balance"], balance["total_purchased"], balance["credits_used"]) == (
            25,
            50,
            25,
        )


async def test_flow_4_view_history(simulated: ServerProcess) -> None:
    async with people_of(simulated) as world:
        me, _ = await freelancer(world)
        acme = await company(world)
        await me.post("/credits/initiate-purchase", {"package_id": 3})
        for number in range(12):
            await me.post("/applied-projects", {"project_id": await project(acme, f"Film {number}")})
        first = await me.get("/credits/history?page=1&limit=10")
        assert (first["page"], first["limit"], first["total"], len(first["items"])) == (1, 10, 13, 10)
        assert {(one["type"], one["amount"]) for one in first["items"]} == {("used", -1)}
        second = await me.get("/credits/history?page=2&limit=10")
        assert [(one["type"], one["amount"]) for one in second["items"]] == [
            ("used", -1),
            ("used", -1),
            ("purchase", 25),
        ]
        together = first["items"] + second["items"]
        assert len({one["id"] for one in together}) == 13
        assert sum(one["amount"] for one in together) == 13
        assert (await me.get("/credits/history?page=3&limit=10"))["items"] == []
        bought = await me.get("/credits/history?type=purchase")
        assert [one["balance_after"] for one in bought["items"]] == [25]


async def test_flow_5_request_refund(simulated: ServerProcess) -> None:
    async with people_of(simulated) as world:
        me, _ = await freelancer(world)
        acme = await company(world)
        project_id = await project(acme)
        await me.post("/credits/initiate-purchase", {"package_id": 1})
        applied = await me.post("/applied-projects", {"project_id": project_id})
        app_id = applied["id"]
        # 3 to 5.
        assert await me.get(f"/credits/refund-eligibility/{app_id}") == {"eligible": True, "reason": None}
        stranger, _ = await freelancer(world)
        theirs = await stranger.refused(
            "GET", f"/credits/refund-eligibility/{app_id}", status=404, code="NOT_FOUND"
        )
        nobodys = await me.refused("GET", "/credits/refund-eligibility/unknown", status=404, code="NOT_FOUND")
        assert theirs.json["detail"] == nobodys.json["detail"]
        # 8 to 14.
        withdrawn = await me.post(f"/applied-projects/{app_id}/withdraw", key="withdraw")
        assert (withdrawn["status"], withdrawn["credits_balance"]) == ("WITHDRAWN", 5)
        assert await me.post(f"/applied-projects/{app_id}/withdraw", key="withdraw") == withdrawn
        # Ineligible: it has its reason, and changes nothing.
        assert await me.get(f"/credits/refund-eligibility/{app_id}") == {
            "eligible": False,
            "reason": "Credit already refunded",
        }
        refused = await me.refused(
            "POST", f"/applied-projects/{app_id}/withdraw", status=409, code="NOT_ELIGIBLE"
        )
        assert refused.json["reason"] == "Credit already refunded"
        assert (await me.get("/credits/balance"))["credits_balance"] == 5
        assert (await acme.get(f"/projects/{project_id}/applications"))["items"] == []
        # Applying again takes a new credit.
        assert (await me.post("/applied-projects", {"project_id": project_id}))["credits_balance"] == 4
        kinds = [one["type"] for one in (await me.get("/credits/history"))["items"]]
        assert sorted(kinds) == ["purchase", "refund", "used", "used"]


async def test_flow_6_admin_adjusts_credits(simulated: ServerProcess) -> None:
    async with people_of(simulated) as world:
        me, my_id = await freelancer(world)
        admin = await world.admin()
        await me.post("/credits/initiate-purchase", {"package_id": 3})
        # 1: search for the user, by the beginning of the address.
        email = (await me.get("/auth/me"))["email"]
        found = await admin.get(f"/admin/users?query={email.partition('@')[0]}&role=FREELANCER")
        assert my_id in [one["id"] for one in found["items"]]
        # 2 to 4.
        assert (await admin.get(f"/admin/credits/user/{my_id}"))["credits_balance"] == 25
        # 5 to 10.
        wanted = {"user_id": my_id, "amount": 10, "reason": "Compensation"}
        done = await admin.post("/admin/credits/adjust", wanted, key="adjust")
        assert done["credits_balance"] == 35
        assert await admin.post("/admin/credits/adjust", wanted, key="adjust") == done
        assert (await me.get("/credits/balance"))["credits_adjusted"] == 10
        line = (await me.get("/credits/history?type=adjustment"))["items"][0]
        assert (line["amount"], line["balance_after"], line["reason"]) == (10, 35, "Compensation")
        # 9: logged with the admin's id.
        logged = (await admin.get(f"/admin/audit?action=credits.adjust&subject={my_id}"))["items"][0]
        assert (logged["adminId"], logged["reason"]) == (done["adjusted_by"], "Compensation")
        assert (logged["before"], logged["after"]) == ({"creditsBalance": 25}, {"creditsBalance": 35})
        # Down, and never below zero.
        less = await admin.post(
            "/admin/credits/adjust", {"user_id": my_id, "amount": -35, "reason": "A mistake"}
        )
        assert less["credits_balance"] == 0
        await admin.refused(
            "POST",
            "/admin/credits/adjust",
            {"user_id": my_id, "amount": -1, "reason": "A mistake"},
            status=400,
            code="INSUFFICIENT_CREDITS",
        )
        for body in ({"user_id": my_id, "amount": 1}, {"user_id": my_id, "amount": 0, "reason": "x"}):
            await admin.refused("POST", "/admin/credits/adjust", body, status=422, code="VALIDATION_FAILED")


async def test_flow_7_admin_sets_the_price(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, **QUICK) as server:
        async with people_of(server) as world:
            me, _ = await freelancer(world)
            admin = await world.admin()
            # 2 to 4.
            before = await admin.get("/admin/credits/settings")
            assert (before["price_per_credit"], before["changes"]) == ("50.00", [])
            # 5 to 10.
            after = await admin.ok("PUT", "/admin/credits/settings", {"price_per_credit": 60})
            assert after["price_per_credit"] == "60.00"
            assert await admin.ok("PUT", "/admin/credits/settings", {"pricePerCredit": "60.00"}) == after
            (change,) = after["changes"]
            assert (change["from_price"], change["to_price"]) == ("50.00", "60.00")
            logged = (await admin.get("/admin/audit?action=credits.price"))["items"]
            assert {row["adminId"] for row in logged} == {change["changed_by"]}
            # The note: every package follows.
            prices = [one["price"] for one in (await me.get("/credits/packages"))["items"]]
            assert prices == ["300.00", "600.00", "1500.00", "3000.00"]
            # A restart forgets nothing.
            server.stop()
            server.start()
            assert (await admin.get("/admin/credits/settings")) == after
        code, output = server.settled_books()
        assert code == 0, output


@pytest.mark.slow
async def test_kill_9_while_people_apply_and_withdraw_takes_no_credit_without_its_application(
    tmp_path: Path,
) -> None:
    """Ten people apply and withdraw as fast as they can, a company closes under them, and the server is killed again and again."""
    with ServerProcess(tmp_path, **QUICK) as server:
        async with people_of(server) as world:
            acme = await company(world)
            people = [await freelancer(world) for _ in range(10)]
            for me, _ in people:
                await me.post("/credits/initiate-purchase", {"package_id": 4})
            for _ in range(4):
                projects = [await project(acme, f"Film {n}") for n in range(20)]
                living = [asyncio.create_task(_busy(me, projects)) for me, _ in people]
                living.append(asyncio.create_task(_closing(acme, projects)))
                await asyncio.sleep(0.7)
                server.kill()
                ended = await asyncio.gather(*living, return_exceptions=True)
                assert not [
                    one for one in ended if isinstance(one, Exception) and not isinstance(one, GONE)
                ], ended
                code, output = await asyncio.to_thread(server.verify_ledger)
                assert code in (0, 3), output
                await asyncio.to_thread(server.start)
                for me, _ in people:
                    await _is_whole(me)
            spent = [await me.get("/credits/balance") for me, _ in people]
            assert sum(one["credits_used"] for one in spent) > 20, "nobody applied"
            assert sum(one["credits_refunded"] for one in spent) > 5, "nobody withdrew"
        code, output = server.settled_books()
        assert code == 0, output


async def _busy(me: Api, projects: list[str]) -> None:
    while True:
        for project_id in projects:
            answer = await me.call(
                "POST", "/applied-projects", {"project_id": project_id}, key=secrets.token_hex(8)
            )
            assert answer.status in (201, 400, 409, 503), answer
            if answer.status == 201 and secrets.randbelow(2):
                withdrawn = await me.call("POST", f"/applied-projects/{answer.json['id']}/withdraw")
                assert withdrawn.status in (200, 503), withdrawn


async def _closing(acme: Api, projects: list[str]) -> None:
    for project_id in projects:
        await acme.call("POST", f"/projects/{project_id}/close")
        await asyncio.sleep(0.02)


async def _is_whole(me: Api) -> None:
    """Applications that stand, counted, are the credits that are gone."""
    standing = 0
    cursor = ""
    while True:
        page = await me.get(f"/applied-projects?limit=100{cursor}")
        standing += sum(one["status"] == "ACTIVE" for one in page["items"])
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    told = await me.get("/credits/balance")
    assert told["credits_used"] - told["credits_refunded"] == standing
    assert told["credits_balance"] == 50 - standing
