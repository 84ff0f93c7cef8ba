"""A company's billing page over HTTP: what it shows is what happened, in the company's own time, and nobody else's."""

import csv
import io
import itertools
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.integration.socket_world import until
from tests.support.api import Api, open_api
from tests.support.companies import Company, a_company
from tests.support.fake_stripe import FakeStripe
from tests.support.webhook_receiver import receiver

CV, QUESTIONS, VIDEO = "cv-parsing", "question-generation", "video-interview"
EVIL = '<script>alert("&")</script>'


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path, access_token_minutes=1_440, company_webhooks_private="on") as api:
        yield api


@pytest.fixture
async def acme(api: Api) -> Company:
    return await a_company(api, "100.00")


def at(api: Api, text: str) -> None:
    """Jump to this instant."""
    api.clock.jump_ms(
        int(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1000) - api.clock.now_ms()
    )


async def auto(company: Company, amount: str = "100.00") -> str:
    """Switch the automatic recharge on; the means of payment."""
    method = (await company.owner.post("/api/billing/payment-methods/setup")).json["paymentMethodId"]
    wanted = {"enabled": True, "amount": amount, "paymentMethodId": method}
    answer = await company.owner.call("PUT", "/api/billing/auto-recharge", json=wanted)
    assert answer.status == 200, answer.text
    return str(method)


async def test_owed_usages_are_collected_by_the_next_recharge_and_what_fits_is_charged(api: Api) -> None:
    acme = await a_company(api, "5.00")
    large = await acme.uses(VIDEO, interviewId="i", durationMinutes=60)
    assert (large["status"], large["walletBalance"]) == ("OWED", "5.00")
    assert (await acme.uses(CV))["walletBalance"] == "4.50"
    status = await acme.sees("/status")
    assert [status[name] for name in ("walletBalance", "owed", "totalSpent")] == ["4.50", "6.00", "6.50"]
    recharged = await acme.recharged("5.00")
    assert (recharged["status"], recharged["number"], recharged["walletBalance"]) == (
        "PAID",
        "INV-000002",
        "3.50",
    )
    assert (await acme.back_end.get(f"/api/usage/{large['usageId']}")).json["status"] == "CHARGED"
    assert [line["entryType"] for line in (await acme.sees("/ledger"))["items"]] == [
        "OWED_COLLECTED", "RECHARGE", "CV_PARSE", "RECHARGE",
    ]  # fmt: skip
    assert (await acme.sees("/usage"))["usage"]["total"] == {"count": 2, "cost": "6.50"}
    await api.books_are_clean()


async def test_an_automatic_recharge_is_an_invoice_and_an_entry_of_its_own(api: Api, acme: Company) -> None:
    method = await auto(acme)
    told = await acme.uses(VIDEO, interviewId="i", durationMinutes=1_001)
    assert (told["status"], told["walletBalance"]) == ("CHARGED", "99.90")
    invoice = (await acme.sees("/invoices"))["items"][0]
    assert (invoice["number"], invoice["automatic"], invoice["status"]) == ("INV-000002", True, "PAID")
    entry = (await acme.sees("/ledger?type=AUTO_RECHARGE"))["items"][0]
    assert (entry["referenceId"], entry["metadata"]["invoice"]) == (invoice["invoiceId"], "INV-000002")
    assert (await acme.sees("/status"))["autoRecharge"] == {
        "enabled": True, "amount": "100.00", "paymentMethodId": method, "state": "READY", "declines": 0, "retryAt": None,
    }  # fmt: skip


async def test_bad_settings_are_named_and_change_nothing(api: Api, acme: Company) -> None:
    await api.idle()
    before = api.everything()
    for method, path, body, field in (
        ("POST", "recharge", {}, "amount"),
        ("POST", "recharge", {"amount": "4.99"}, "amount"),
        ("POST", "recharge", {"amount": "50000.01"}, "amount"),
        ("POST", "recharge", {"amount": "10.001"}, "amount"),
        ("POST", "recharge", {"amount": "-10"}, "amount"),
        ("POST", "recharge", {"amount": "10", "savePaymentMethod": "yes"}, "savePaymentMethod"),
        ("PUT", "auto-recharge", {"amount": "10"}, "enabled"),
        ("PUT", "auto-recharge", {"enabled": True, "amount": "1", "paymentMethodId": "m"}, "amount"),
        ("PUT", "auto-recharge", {"enabled": True, "amount": "20.001", "paymentMethodId": "m"}, "amount"),
        ("PUT", "auto-recharge", {"enabled": True, "amount": "20"}, "paymentMethodId"),
        ("PUT", "alerts", {}, "thresholds"),
        ("PUT", "alerts", {"thresholds": ["0"]}, "thresholds.0"),
        ("PUT", "alerts", {"thresholds": ["5", "1.0000001"]}, "thresholds.1"),
        ("PUT", "alerts", {"thresholds": ["1"] * 11}, "thresholds"),
    ):
        answer = await acme.owner.call(method, f"/api/billing/{path}", json=body)
        assert (answer.status, answer.fields) == (422, [field]), (path, body, answer.text)
    for query, field in (
        ("days=8", "days"),
        ("days=07", "days"),
        ("limit=0", "limit"),
        ("cursor=!", "cursor"),
        ("format=xml", "format"),
    ):
        path = "ledger" if field == "format" else "usage"
        answer = await acme.back_end.get(f"/api/billing/{path}?{query}")
        assert (answer.status, answer.fields) == (422, [field]), query
    await api.idle()
    assert api.everything() == before


async def test_lists_are_paged_and_filtered(acme: Company) -> None:
    for n in range(5):
        await acme.uses(CV, jobId=f"j{n}")
        await acme.uses(VIDEO, jobId=f"j{n}", interviewId="i", durationMinutes=n + 1)
    lines = await acme.everything_of("/api/billing/ledger")
    assert len(lines) == 11
    assert all(one["balanceBefore"] == other["balanceAfter"] for one, other in itertools.pairwise(lines))
    assert len(await acme.everything_of("/api/billing/ledger?type=CV_PARSE")) == 5
    first = await acme.sees("/usage?limit=3")
    second = await acme.sees(f"/usage?limit=3&cursor={first['nextCursor']}")
    assert [one["jobId"] for one in first["jobs"] + second["jobs"]] == ["j4", "j3", "j2", "j1", "j0"]
    assert first["usage"] == second["usage"]
    videos = await acme.sees("/usage?type=video-interview&jobId=j2")
    assert videos["usage"]["total"] == {"count": 1, "cost": "0.30"}
    assert videos["jobs"][0]["usage"]["cvParsing"] == {"count": 0, "cost": "0.00", "quantities": []}
    unknown = await acme.sees("/usage?jobId=unknown")
    assert (unknown["jobs"], unknown["usage"]["total"]["count"]) == ([], 0)


@pytest.mark.parametrize(
    ("zone", "last_of_june", "first_of_july"),
    [
        ("Pacific/Auckland", "2026-06-30T11:59:59.999+00:00", "2026-06-30T12:00:00+00:00"),
        ("America/Los_Angeles", "2026-07-01T06:59:59.999+00:00", "2026-07-01T07:00:00+00:00"),
    ],
)
async def test_a_month_ends_in_the_companys_own_zone(
    api: Api, acme: Company, zone: str, last_of_june: str, first_of_july: str
) -> None:
    await acme.in_zone(zone)
    at(api, last_of_june)
    await acme.uses(CV)
    assert ((await acme.sees("/status"))["month"], (await acme.sees("/status"))["currentMonthSpent"]) == (
        "2026-06",
        "0.50",
    )
    at(api, first_of_july)
    status = await acme.sees("/status")
    assert (status["month"], status["currentMonthSpent"], status["totalSpent"]) == ("2026-07", "0.00", "0.50")
    await acme.uses(VIDEO, interviewId="i", durationMinutes=2)
    assert (await acme.sees("/status"))["currentMonthSpent"] == "0.20"
    for days in (7, 30, 90, 365):
        page = await acme.sees(f"/usage?days={days}")
        assert (len(page["daily"]), page["to"], page["daily"][0]["date"]) == (
            days,
            "2026-07-01",
            page["from"],
        )
        assert [(day["date"], day["costs"]) for day in page["daily"] if day["costs"]] == [
            ("2026-06-30", {CV: "0.50"}),
            ("2026-07-01", {VIDEO: "0.20"}),
        ]
        assert page["usage"]["total"]["cost"] == "0.70"
    at(api, "2026-07-08T20:00:00+00:00")
    assert (await acme.sees("/usage?days=7"))["usage"]["total"]["count"] == 0
    assert (await acme.sees("/usage?days=30"))["usage"]["total"]["count"] == 2


async def test_the_ledger_as_csv_holds_no_formula(acme: Company) -> None:
    evil = '=HYPERLINK("http://x","y")'
    await acme.uses(CV, jobId=evil, candidateId="+1+1", eventId="-e")
    answer = await acme.back_end.get("/api/billing/ledger?format=csv")
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert 'filename="ledger.csv"' in answer.headers["Content-Disposition"]
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert rows[0] == [
        "createdAt", "entryType", "amount", "balanceBefore", "balanceAfter", "currency", "referenceId", "metadata",
    ]  # fmt: skip
    assert [row[1:5] for row in rows[1:]] == [
        ["CV_PARSE", "-0.50", "100.00", "99.50"],
        ["RECHARGE", "100.00", "0.00", "100.00"],
    ]
    assert json.loads(rows[1][7]).items() >= {"jobId": evil, "candidateId": "+1+1"}.items()
    assert not [
        cell for row in rows for n, cell in enumerate(row) if n != 2 and cell[:1] in "=+-@\t\r" and cell
    ]


async def test_an_invoices_page_shows_a_name_and_runs_nothing(api: Api) -> None:
    acme = await a_company(api, companyName=EVIL)
    invoice = await acme.recharged("25.00")
    page = await acme.back_end.get(f"/api/billing/invoices/{invoice['invoiceId']}/page")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "<script" not in page.text
    assert "&lt;script&gt;alert(&quot;&amp;&quot;)&lt;/script&gt;" in page.text
    for shown in ("Invoice INV-000001", "25.00 USD", "PAID", invoice["invoiceId"]):
        assert shown in page.text


async def test_alerts_reach_the_webhook_and_the_members(api: Api, acme: Company) -> None:
    async with receiver() as there:
        set_ = await acme.owner.call("PUT", "/api/company/webhook", json={"url": there.url})
        socket = await api.connect(acme.owner.token)
        answer = await acme.owner.call(
            "PUT", "/api/billing/alerts", json={"thresholds": ["20", "50.00", "20.00"]}
        )
        assert answer.json == {"thresholds": ["50.00", "20.00"], "currency": "USD"}
        told = await acme.uses(VIDEO, interviewId="i", durationMinutes=500)
        assert told["walletBalance"] == "50.00"
        told = await acme.uses(CV)
        (heard,) = await socket.hears("billing:low_balance")
        assert (heard["threshold"], heard["walletBalance"], heard["companyId"]) == ("50.00", "49.50", acme.id)
        await until(lambda: len(there.taken) == 1)
        assert there.taken[0].is_signed_with(set_.json["secret"])
        await acme.uses(CV)
        await api.advance(5)
        assert len(there.taken) == 1, "once for each time"


async def test_a_card_that_is_declined_three_times_is_left_alone(tmp_path: Path) -> None:
    async with FakeStripe() as stripe:
        settings = {
            "stripe_secret_key": stripe.key,
            "stripe_webhook_secret": stripe.webhook_secret,
            "stripe_url": stripe.url,
            "checkout_success_url": "https://app.example.com/paid",
            "checkout_cancel_url": "https://app.example.com/left",
        }
        async with open_api(tmp_path, access_token_minutes=1_440, **settings) as api:
            acme = await a_company(api)
            setup = (await acme.owner.post("/api/billing/payment-methods/setup")).json
            assert (setup["status"], setup["paymentMethodId"]) == ("PENDING", None)
            (session_id,) = stripe.books.sessions
            card = stripe.keep(session_id)
            await stripe.deliver_to(f"{api.base_url}/webhooks/stripe")
            await api.idle()
            (method,) = (await acme.sees("/payment-methods"))["items"]
            wanted = {"enabled": True, "amount": "100.00", "paymentMethodId": method["paymentMethodId"]}
            assert (await acme.owner.call("PUT", "/api/billing/auto-recharge", json=wanted)).status == 200
            stripe.books.declines[card] = ("card_declined", "insufficient_funds")
            for declines, state, pause_s in (
                (1, "PAUSED", 300),
                (2, "PAUSED", 3_600),
                (3, "STOPPED", 7_200),
            ):
                for _ in range(3):
                    assert (await acme.uses(CV))["status"] == "OWED"
                shown = (await acme.sees("/status"))["autoRecharge"]
                assert (shown["state"], shown["declines"]) == (state, declines)
                assert (shown["retryAt"] is None) is (state == "STOPPED")
                api.clock.jump_ms(pause_s * 1_000)
            assert (await acme.uses(CV))["status"] == "OWED"
            assert [one["status"] for one in (await acme.sees("/invoices"))["items"]] == ["FAILED"] * 3
            del stripe.books.declines[card]
            answer = await acme.owner.call("PUT", "/api/billing/auto-recharge", json=wanted)
            assert (answer.json["state"], answer.json["declines"]) == ("READY", 0)
            status = await acme.sees("/status")
            assert (status["walletBalance"], status["owed"]) == ("95.00", "0.00")


async def test_nothing_of_another_company_can_be_reached(api: Api, acme: Company) -> None:
    """By ids, cursors, jobs and `companyId`; nothing is changed by trying, and nothing tells that it exists."""
    method = await auto(acme)
    await acme.recharged("10.00")
    for n in range(3):
        used = await acme.uses(CV, jobId=f"secret-{n}", eventId=f"e{n}")
    zeta = await a_company(api, "50.00")
    await zeta.uses(CV, jobId="mine")
    await api.idle()
    before = api.everything()
    invoice = (await acme.sees("/invoices"))["items"][0]["invoiceId"]
    for who in (zeta.owner, zeta.back_end):
        for path in (
            "/api/usage",
            *(f"/api/billing/{one}" for one in ("status", "usage", "ledger", "invoices")),
        ):
            answer = await who.get(f"{path}?companyId={acme.id}")
            assert (answer.status, answer.code) == (404, "NOT_FOUND"), path
            assert (await who.get(f"{path}?companyId=unknown")).json["detail"] == answer.json["detail"]
        for path in (
            f"/api/usage/{used['usageId']}",
            f"/api/billing/invoices/{invoice}",
            f"/api/billing/invoices/{invoice}/page",
        ):
            assert (await who.get(path)).status == 404, path
        assert (await who.get("/api/billing/usage?jobId=secret-0")).json["jobs"] == []
        assert (await who.get("/api/usage?jobId=secret-0")).json["items"] == []
    for verb, path, body in (
        ("DELETE", f"/api/billing/payment-methods/{method}", None),
        ("POST", "/api/billing/recharge", {"amount": "10.00", "paymentMethodId": method}),
        ("PUT", "/api/billing/auto-recharge", {"enabled": True, "paymentMethodId": method}),
        ("POST", "/api/jobs/secret-0/publish", None),
    ):
        assert (await zeta.owner.call(verb, path, json=body)).status == 404, path
    # A cursor is a place, no pass: the pages behind it are one's own.
    for path in ("/api/usage", "/api/billing/ledger", "/api/billing/invoices", "/api/billing/usage"):
        cursor = (await acme.back_end.get(f"{path}?limit=1")).json["nextCursor"]
        assert cursor is not None, path
        page = await zeta.back_end.get(f"{path}?limit=100&cursor={cursor}")
        assert page.status == 200
        assert "secret" not in page.text
        assert acme.id not in page.text
    await api.idle()
    assert api.everything() == before
