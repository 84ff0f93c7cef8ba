"""The companies' documents, step by step, against the real server in its own process: their numbers, their words.

000 is walked by its own price list (`questions`), 001 by its own (`tokens`); automatic recharges with the simulated gateway, and through
Stripe's own package with a Stripe on loopback.
"""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.people import Api, World, people_of
from tests.support.fake_stripe import FakeStripe
from tests.support.server_process import QUICK, ServerProcess

Json = Any
_numbers = itertools.count()


@dataclass
class Company:
    """Its owner, and its back end with an API key."""

    id: str
    owner: Api
    back_end: Api

    async def status(self) -> Json:
        return await self.back_end.get(f"/api/billing/status?companyId={self.id}")

    async def ledger(self) -> list[Json]:
        """The whole ledger, oldest first."""
        return list(reversed((await self.back_end.get("/api/billing/ledger?limit=100"))["items"]))

    async def uses(self, type_: str, **report: Any) -> Json:
        return await self.back_end.post(f"/api/usage/{type_}", report)


async def company(world: World, *, price_list: str = "tokens") -> Company:
    form = {
        "email": f"acme{next(_numbers)}@example.com",
        "password": "correct horse",
        "name": "Priya",
        "role": "COMPANY",
        "companyName": "Acme Pvt Ltd",
    }
    registered = await world.anyone.post("/auth/register", form)
    owner = world.anyone.as_(registered["accessToken"])
    key = await owner.post("/api/company/api-keys", {"name": "back end", "scopes": ["usage", "read"]})
    id_ = registered["user"]["id"]
    if price_list != "tokens":
        path = f"/admin/companies/{id_}/price-list"
        await (await world.admin()).ok("PUT", path, {"priceList": price_list})
    return Company(id_, owner, owner.as_(key["key"]))


async def until_status(acme: Company, **fields: Any) -> Json:
    """The status once it says this."""
    for _ in range(200):
        status = await acme.status()
        if all(status[name] == value for name, value in fields.items()):
            return status
        await asyncio.sleep(0.05)
    raise AssertionError(status)


async def until_invoice(acme: Company, invoice_id: str) -> Json:
    """The invoice once it is paid: the wallet has its money a moment before."""
    for _ in range(200):
        invoice = await acme.back_end.get(f"/api/billing/invoices/{invoice_id}")
        if invoice["status"] != "PENDING":
            break
        await asyncio.sleep(0.05)
    return invoice


def lines(ledger: list[Json]) -> list[tuple[str, ...]]:
    return [(one["entryType"], one["amount"], one["balanceBefore"], one["balanceAfter"]) for one in ledger]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("companies"), **QUICK) as server:
        yield server
        code, output = server.settled_books()
        assert code == 0, output


async def test_000_database_update_flow(simulated: ServerProcess) -> None:
    """100.00, a CV, 99.50: usage record, wallet, ledger entry, dashboard."""
    async with people_of(simulated) as world:
        acme = await company(world, price_list="questions")
        await acme.owner.post("/api/billing/recharge", {"amount": "100.00"})
        before = await acme.status()
        assert [before[name] for name in ("walletBalance", "currentMonthSpent", "totalSpent")] == [
            "100.00",
            "0.00",
            "0.00",
        ]
        cv = await acme.uses("cv-parsing", jobId="job-uuid", fileSizeKb=180, candidateId="c-1")
        assert (cv["cost"], cv["status"], cv["walletBalance"]) == ("0.50", "CHARGED", "99.50")
        after = await acme.status()
        assert [after[name] for name in ("walletBalance", "currentMonthSpent", "totalSpent")] == [
            "99.50",
            "0.50",
            "0.50",
        ]
        ledger = await acme.ledger()
        assert lines(ledger) == [
            ("RECHARGE", "100.00", "0.00", "100.00"),
            ("CV_PARSE", "-0.50", "100.00", "99.50"),
        ]
        assert ledger[1]["referenceId"] == cv["usageId"]
        # The question flow: ten cost 0.10; a draft is charged when it is saved.
        draft = await acme.uses("question-generation", jobId="draft-job", questionCount=10, draft=True)
        assert (draft["cost"], draft["status"]) == ("0.10", "DRAFT")
        assert (await acme.status())["walletBalance"] == "99.50"
        assert (await acme.back_end.post("/api/jobs/draft-job/publish"))["cost"] == "0.10"
        assert (await acme.uses("question-generation", questionCount=7))["cost"] == "0.07"
        # The interview flow: five minutes, 2.50.
        video = await acme.uses("video-interview", interviewId="i", durationMinutes=5, completedQuestions=5)
        assert (video["cost"], video["walletBalance"]) == ("2.50", "96.83")
        types = [one["entryType"] for one in await acme.ledger()]
        assert types == ["RECHARGE", "CV_PARSE", "JD_QUESTIONS", "JD_QUESTIONS", "VIDEO_INTERVIEW"]


async def test_000_auto_recharge_flow(simulated: ServerProcess) -> None:
    """Balance below the cost: invoice, payment, 100.00 more, AUTO_RECHARGE, then the charge; without it the action goes on, owed."""
    async with people_of(simulated) as world:
        acme = await company(world)
        owed = await acme.uses("cv-parsing", eventId="first")
        assert (owed["status"], owed["cost"], owed["walletBalance"]) == ("OWED", "0.50", "0.00")
        assert ((await acme.status())["owed"], await acme.ledger()) == ("0.50", [])
        method = (await acme.owner.post("/api/billing/payment-methods/setup"))["paymentMethodId"]
        wanted = {"enabled": True, "paymentMethodId": method}
        assert (await acme.owner.ok("PUT", "/api/billing/auto-recharge", wanted))["amount"] == "100.00"
        # The debt is collected first.
        status = await until_status(acme, owed="0.00")
        assert status["walletBalance"] == "99.50"
        assert (await acme.back_end.get(f"/api/usage/{owed['usageId']}"))["status"] == "CHARGED"
        # 900 minutes at once: it takes just as many times 100.00 as are missing.
        told = await acme.uses("video-interview", interviewId="i", durationMinutes=900)
        assert (told["status"], told["cost"], told["walletBalance"]) == ("CHARGED", "90.00", "9.50")
        told = await acme.uses("video-interview", interviewId="i", durationMinutes=1_440)
        assert (told["status"], told["walletBalance"]) == ("CHARGED", "65.50")
        assert lines(await acme.ledger()) == [
            ("AUTO_RECHARGE", "100.00", "0.00", "100.00"),
            ("OWED_COLLECTED", "-0.50", "100.00", "99.50"),
            ("VIDEO_INTERVIEW", "-90.00", "99.50", "9.50"),
            ("AUTO_RECHARGE", "200.00", "9.50", "209.50"),
            ("VIDEO_INTERVIEW", "-144.00", "209.50", "65.50"),
        ]
        # A recharge is no spending.
        status = await acme.status()
        assert (status["totalSpent"], status["currentMonthSpent"]) == ("234.50", "234.50")
        invoices = (await acme.back_end.get("/api/billing/invoices"))["items"]
        assert [(one["number"], one["status"], one["amount"], one["automatic"]) for one in invoices] == [
            ("INV-000002", "PAID", "200.00", True),
            ("INV-000001", "PAID", "100.00", True),
        ]


async def test_001_the_job_that_costs_12_51(simulated: ServerProcess) -> None:
    async with people_of(simulated) as world:
        acme = await company(world)
        await acme.owner.post("/api/billing/recharge", {"amount": "100.00"})
        questions = await acme.uses(
            "question-generation", jobId="job-481", questionCount=30, jobDescription="x" * 2_000
        )
        assert (questions["quantity"], questions["cost"]) == (5_000, "0.01")
        for n in range(10):
            await acme.uses(
                "cv-parsing", jobId="job-481", candidateId=f"c{n}", parseSuccessful=True, successRate=95
            )
        for n in range(5):
            await acme.uses(
                "video-interview", jobId="job-481", interviewId=f"i{n}", durationMinutes=15, videoQuality="HD",
            )  # fmt: skip
        await acme.uses("cv-parsing", jobId="another")
        page = await acme.back_end.get("/api/billing/usage?jobId=job-481&days=30")
        (job,) = page["jobs"]
        for cards in (page["usage"], job["usage"]):
            assert {
                name: (cards[name]["count"], cards[name]["cost"]) for name in cards if name != "other"
            } == {
                "cvParsing": (10, "5.00"),
                "questionGeneration": (1, "0.01"),
                "videoInterview": (5, "7.50"),
                "total": (16, "12.51"),
            }
            assert cards["questionGeneration"]["quantities"] == [{"unit": "token", "quantity": 5_000}]
            assert cards["videoInterview"]["quantities"] == [{"unit": "minute", "quantity": 75}]
        assert page["daily"][-1]["cost"] == "12.51"
        whole = await acme.back_end.get("/api/billing/usage")
        assert whole["usage"]["total"]["cost"] == "13.01"
        assert {one["jobId"]: one["usage"]["total"]["cost"] for one in whole["jobs"]} == {
            "job-481": "12.51", "another": "0.50",
        }  # fmt: skip
        status = await acme.status()
        assert (status["currentMonthSpent"], status["walletBalance"]) == ("13.01", "86.99")


async def test_kill_9_in_the_middle_of_a_batch_charges_everything_once(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, **QUICK) as server:
        async with people_of(server) as world:
            acme = await company(world)
            await acme.owner.post("/api/billing/recharge", {"amount": "1000.00"})
            batches = [
                {"events": [{"type": "cv-parsing", "eventId": f"{batch}-{n}"} for n in range(500)]}
                for batch in range(3)
            ]
            for batch in batches:
                sending = asyncio.create_task(acme.back_end.call("POST", "/api/usage/batch", batch))
                # Until something of it is there.
                seen: list[Json] = []
                while not seen and not sending.done():
                    seen = (await acme.back_end.get("/api/usage?limit=1"))["items"]
                    seen = [
                        one
                        for one in seen
                        if one["eventId"].split("-")[0] == batch["events"][0]["eventId"][0]
                    ]
                server.kill()
                await asyncio.gather(sending, return_exceptions=True)
                code, output = await asyncio.to_thread(server.verify_ledger)
                assert code in (0, 3), output
                await asyncio.to_thread(server.start)
            for batch in batches:
                items = (await acme.back_end.post("/api/usage/batch", batch))["items"]
                assert len({one["usageId"] for one in items}) == 500
            status = await until_status(acme, totalSpent="750.00")
            assert (status["walletBalance"], status["owed"]) == ("250.00", "0.00")
            assert (await acme.back_end.get("/api/billing/usage"))["usage"]["total"] == {
                "count": 1500,
                "cost": "750.00",
            }
        code, output = server.settled_books()
        assert code == 0, output


async def test_recharges_through_stripe(tmp_path: Path) -> None:
    """A page with a card that is kept, off-session charges of it, and a card that is declined until it is left alone."""
    with FakeStripe.in_thread() as stripe:
        settings = {
            **QUICK,
            "STRIPE_SECRET_KEY": stripe.key,
            "STRIPE_WEBHOOK_SECRET": stripe.webhook_secret,
            "STRIPE_URL": stripe.url,
            "CHECKOUT_SUCCESS_URL": "https://app.example.com/paid",
            "CHECKOUT_CANCEL_URL": "https://app.example.com/cancelled",
            "GATEWAY_TIMEOUT_SECONDS": "5",
        }
        with ServerProcess(tmp_path, **settings) as server:
            async with people_of(server) as world:
                await _pays_by_stripe(world, server, stripe)
            code, output = server.settled_books()
            assert code == 0, output
            assert stripe.key not in server.log


async def _pays_by_stripe(world: World, server: ServerProcess, stripe: FakeStripe) -> None:
    webhook = f"{server.url}/webhooks/stripe"
    acme = await company(world)
    asked = await acme.owner.post(
        "/api/billing/recharge", {"amount": "50.00", "savePaymentMethod": True}, key="first"
    )
    assert (asked["status"], asked["number"], asked["walletBalance"]) == ("PENDING", None, None)
    assert asked["order"]["checkoutUrl"].startswith("http")
    stripe.pay(asked["order"]["orderId"])
    assert set(await stripe.deliver_to(webhook, times=2)) == {200}
    await until_status(acme, walletBalance="50.00")
    invoice = await until_invoice(acme, asked["invoiceId"])
    assert (invoice["status"], invoice["number"], invoice["automatic"]) == ("PAID", "INV-000001", False)
    (method,) = (await acme.back_end.get("/api/billing/payment-methods"))["items"]
    wanted = {"enabled": True, "amount": "20.00", "paymentMethodId": method["paymentMethodId"]}
    assert (await acme.owner.ok("PUT", "/api/billing/auto-recharge", wanted))["state"] == "READY"
    told = await acme.uses("video-interview", interviewId="i", durationMinutes=600)
    assert (told["status"], told["cost"], told["walletBalance"]) == ("CHARGED", "60.00", "10.00")
    assert lines(await acme.ledger())[1:] == [
        ("AUTO_RECHARGE", "20.00", "50.00", "70.00"),
        ("VIDEO_INTERVIEW", "-60.00", "70.00", "10.00"),
    ]
    # The bank says no, three times; setting it again begins anew, and a pause is no end.
    (card,) = stripe.books.methods
    stripe.books.declines[card] = ("card_declined", "insufficient_funds")
    owed = await acme.uses("video-interview", interviewId="j", durationMinutes=200)
    assert (owed["status"], owed["walletBalance"]) == ("OWED", "10.00")
    auto = (await acme.status())["autoRecharge"]
    assert (auto["state"], auto["declines"], auto["retryAt"] is None) == ("PAUSED", 1, False)
    assert (await acme.uses("cv-parsing"))["status"] == "CHARGED", "what fits is charged"
    invoices = (await acme.back_end.get("/api/billing/invoices"))["items"]
    assert [(one["status"], one["number"]) for one in invoices] == [
        ("FAILED", None),
        ("PAID", "INV-000002"),
        ("PAID", "INV-000001"),
    ]
    del stripe.books.declines[card]
    await acme.owner.ok("PUT", "/api/billing/auto-recharge", wanted)
    status = await until_status(acme, owed="0.00")
    assert (status["walletBalance"], status["autoRecharge"]["state"]) == ("9.50", "READY")
