"""What happens to a company's money beside the charge: usages given back, recharges sent back and disputed, the books, the end."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from billing_engine.payments.model import PaymentStatus
from billing_engine.verification import Verdict
from server.auth.model import Role
from server.storage.errors import StoreUnavailable
from server.storage.sqlite.books import verify_books
from tests.support.api import Api, Person, open_api
from tests.support.companies import a_member
from tests.support.fake_stripe import FakeStripe
from tests.support.http import PASSWORD, Answer


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path, access_token_minutes=1_440) as api:
        yield api
        await api.books_are_clean()


@pytest.fixture
async def acme(api: Api) -> Person:
    return await api.register(Role.COMPANY)


async def recharged(company: Person, amount: str) -> str:
    answer = await company.post("/api/billing/recharge", {"amount": amount})
    assert (answer.status, answer.json["status"]) == (201, "PAID"), answer.text
    return str(answer.json["invoiceId"])


async def used(company: Person, event: str, minutes: int = 10, **more: Any) -> Any:
    """A video interview: 0.10 a minute."""
    body = {"eventId": event, "interviewId": event, "durationMinutes": minutes, **more}
    answer = await company.post("/api/usage/video-interview", body)
    assert answer.status == 201, answer.text
    return answer.json


async def status(company: Person) -> Any:
    return (await company.get("/api/billing/status")).json


async def ledger(company: Person) -> list[tuple[str, str, str]]:
    """Oldest first: the type, the amount, what it refers to."""
    items = (await company.get("/api/billing/ledger?limit=100")).json["items"]
    return [(line["entryType"], line["amount"], line["referenceId"]) for line in reversed(items)]


async def refund(admin: Person, usage_id: str, reason: str = "It was our fault.", **more: Any) -> Answer:
    return await admin.post(f"/admin/usage/{usage_id}/refund", {"reason": reason}, **more)


# --- usages given back


async def test_a_usage_is_given_back_whole_and_once(api: Api, acme: Person) -> None:
    admin = await api.admin()
    await recharged(acme, "10.00")
    usage = await used(acme, "e1", 30)
    answer = await refund(admin, usage["usageId"])
    assert answer.status == 201, answer.text
    told = answer.json
    assert (told["refundedAmount"], told["currency"]) == ("3.00", "USD")
    assert (told["walletBalance"], told["owed"]) == ("10.00", "0.00")
    assert (told["companyId"], told["usage"]["usageId"]) == (acme.id, usage["usageId"])
    assert (told["reason"], told["refundedBy"]) == ("It was our fault.", admin.id)

    await used(acme, "e2")
    await api.advance(5)
    again = await refund(admin, usage["usageId"], "Another reason.")
    assert (again.status, again.json) == (201, told), "the same answer, whatever happened since"
    assert (await status(acme))["walletBalance"] == "9.00"
    assert (await status(acme))["totalRefunded"] == "3.00"
    assert (await ledger(acme))[2] == ("REFUND", "3.00", usage["usageId"])
    [line] = (await acme.get("/api/billing/ledger?type=REFUND")).json["items"]
    assert line["metadata"] == {"reason": "It was our fault."}
    rows = (await admin.get(f"/admin/audit?subject={usage['usageId']}")).json["items"]
    assert [row["action"] for row in rows] == ["usage.refund"] * 2
    assert (rows[1]["before"]["refundedAmount"], rows[1]["after"]["refundedAmount"]) == ("0.00", "3.00")


async def test_refunds_at_once_give_back_once(api: Api, acme: Person) -> None:
    admin = await api.admin()
    await recharged(acme, "10.00")
    usage = await used(acme, "e1", 30)
    answers = await asyncio.gather(*(refund(admin, usage["usageId"]) for _ in range(8)))
    assert [answer.json for answer in answers] == [answers[0].json] * 8
    assert (await status(acme))["walletBalance"] == "10.00"


async def test_what_is_given_back_of_an_owed_usage_lowers_the_debt(api: Api, acme: Person) -> None:
    admin = await api.admin()
    await recharged(acme, "5.00")
    first, second = await used(acme, "e1", 60), await used(acme, "e2", 70)
    assert (first["status"], second["status"]) == ("OWED", "OWED")
    assert (await status(acme))["owed"] == "13.00"
    told = (await refund(admin, first["usageId"])).json
    # The wallet's own five go, too: what can be spent pays what is owed.
    assert (told["refundedAmount"], told["walletBalance"], told["owed"]) == ("6.00", "0.00", "2.00")
    assert told["usage"]["status"] == "OWED"
    shown = await status(acme)
    assert (shown["walletBalance"], shown["owed"]) == ("0.00", "2.00")
    told = (await refund(admin, second["usageId"])).json
    assert (told["walletBalance"], told["owed"]) == ("5.00", "0.00")
    assert [line[:2] for line in await ledger(acme)] == [
        ("RECHARGE", "5.00"),
        ("REFUND", "6.00"),
        ("OWED_COLLECTED", "-11.00"),
        ("REFUND", "7.00"),
        ("OWED_COLLECTED", "-2.00"),
    ]


async def test_what_has_cost_nothing_is_not_given_back(
    api: Api, acme: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = await api.admin()
    draft = (
        await acme.post("/api/usage/question-generation", {"questionCount": 5, "jobId": "j1", "draft": True})
    ).json
    free = (await acme.post("/api/usage/cv-parsing", {"parseSuccessful": False})).json
    assert (draft["status"], free["status"]) == ("DRAFT", "FREE")

    async def away(*_args: Any, **_more: Any) -> Any:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(api.services.usage.meter._charging, "charge", away)
        queued = await used(acme, "e1")
        assert queued["status"] == "QUEUED"
        for usage in (draft, free, queued):
            refused = await refund(admin, usage["usageId"])
            assert (refused.status, refused.code) == (409, "NOT_CHARGED"), usage
        unfinished = verify_books(api.db.path, now_ms=api.clock.now_ms() + 90_000, abandon_ms=120_000)
        assert [(one.rule, one.subject, one.detail) for one in unfinished.unfinished] == [
            ("a usage is charged", queued["usageId"], "recorded 90 s ago, still QUEUED")
        ]
        await api.idle()
    assert (await refund(admin, "019aa5f4e0c17a2b9d8c7b6a5f4e3d2c")).code == "USAGE_NOT_FOUND"
    assert (await refund(admin, draft["usageId"], "")).status == 422
    await api.services.usage.meter.drain()
    assert (await refund(admin, queued["usageId"])).status == 201


async def test_a_charge_that_its_record_does_not_know_is_given_back(api: Api, acme: Person) -> None:
    """The record lags behind; the money has gone."""
    admin = await api.admin()
    await recharged(acme, "10.00")
    usage = await used(acme, "e1")
    rows = api.services.usage.meter._rows
    doc = {"status": "QUEUED", "charged_at_ms": None, "balance_minor": None}
    assert await rows._usages.update(f"{acme.id}|event|e1", set_=doc) is not None
    told = (await refund(admin, usage["usageId"])).json
    assert (told["usage"]["status"], told["walletBalance"]) == ("CHARGED", "10.00")
    await api.services.usage.meter.drain(abandoned_after_ms=0)


# --- recharges sent back and disputed


class Shop:
    """A company that pays at Stripe."""

    def __init__(self, api: Api, fake: Any, company: Person, admin: Person) -> None:
        self.api, self.fake, self.company, self.admin = api, fake, company, admin

    async def paid(self, amount: str = "50.00") -> tuple[str, str]:
        """Our payment and Stripe's."""
        answer = await self.company.post("/api/billing/recharge", {"amount": amount})
        assert answer.status == 201, answer.text
        attempt = self.fake.pay(answer.json["order"]["orderId"])
        await self.hears()
        return answer.json["invoiceId"], attempt

    async def hears(self, times: int = 1) -> None:
        url = f"{self.api.base_url}/webhooks/stripe"
        assert set(await self.fake.deliver_to(url, times=times)) == {200}
        for task in list(self.api.services.webhooks._working):
            await task
        await self.api.idle()

    async def refund(self, payment_id: str, amount: str) -> Answer:
        body = {"amount": amount, "reason": "Asked for."}
        return await self.admin.post(f"/admin/payments/{payment_id}/refund", body)

    async def detail(self, payment_id: str) -> Any:
        return (await self.admin.get(f"/admin/payments/{payment_id}")).json

    async def wallet(self) -> tuple[str, str, str]:
        shown = await status(self.company)
        return shown["walletBalance"], shown["held"], shown["owed"]


@asynccontextmanager
async def a_shop(directory: Path) -> AsyncIterator[Shop]:
    with FakeStripe.in_thread() as fake:
        async with open_api(
            directory,
            company_gateway="stripe",
            access_token_minutes=1_440,
            stripe_secret_key=fake.key,
            stripe_webhook_secret=fake.webhook_secret,
            stripe_url=fake.url,
            checkout_success_url="https://app.example/paid",
            checkout_cancel_url="https://app.example/back",
        ) as api:
            yield Shop(api, fake, await api.register(Role.COMPANY), await api.admin())


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with a_shop(tmp_path) as shop:
        yield shop
        await shop.api.books_are_clean()


async def test_a_recharge_goes_back_to_its_payer(shop: Shop) -> None:
    payment_id, _ = await shop.paid("50.00")
    await shop.company.post(
        "/api/usage/video-interview", {"eventId": "e", "interviewId": "i", "durationMinutes": 100}
    )
    before = await shop.detail(payment_id)
    assert (before["refundableAmount"], before["purpose"], before["userId"]) == (
        "50.00",
        "COMPANY",
        shop.company.id,
    )
    facts_before = (await shop.api.services.usage.recharges.account(shop.company.id)).facts
    for amount in ("0.001", "12.345678"):
        refused = await shop.refund(payment_id, amount)
        assert (refused.status, refused.json["errors"][0]["field"]) == (422, "amount")
    too_much = await shop.refund(payment_id, "50.01")
    assert (too_much.code, too_much.json["required"], too_much.json["available"]) == (
        "REFUND_EXCEEDS_PAYMENT",
        "50.01",
        "50.00",
    )
    spent = await shop.refund(payment_id, "40.01")
    assert (spent.status, spent.json["required"], spent.json["available"]) == (402, "40.01", "40.00")
    answer = await shop.refund(payment_id, "25.50")
    assert (answer.status, answer.json["currency"]) == (201, "USD")
    await shop.hears(times=2)
    detail = await shop.detail(payment_id)
    assert [(one["status"], one["amount"]) for one in detail["refunds"]] == [
        ("FAILED", "40.01"),
        ("DONE", "25.50"),
    ]
    assert (detail["status"], detail["refundedAmount"], detail["refundableAmount"]) == (
        "PAID",
        "25.50",
        "24.50",
    )
    assert await shop.wallet() == ("14.50", "0.00", "0.00")
    assert (await ledger(shop.company))[-1] == ("PAYER_REFUND", "-25.50", payment_id)
    [line] = (await shop.company.get("/api/billing/ledger?type=PAYER_REFUND")).json["items"]
    assert set(line["metadata"]) == {"refundId", "paymentId"}
    assert (await shop.api.services.usage.recharges.account(shop.company.id)).facts == facts_before
    [invoice] = (await shop.company.get("/api/billing/invoices")).json["items"]
    assert (invoice["status"], invoice["refundedAmount"]) == ("PAID", "25.50")
    [listed] = (await shop.admin.get(f"/admin/payments?userId={shop.company.id}")).json["items"]
    assert listed["paymentId"] == payment_id


async def test_a_refund_that_a_bank_sends_back_is_in_the_wallet_again(shop: Shop) -> None:
    shop.fake.books.refunds_begin_as = "pending"
    payment_id, _ = await shop.paid("50.00")
    await shop.refund(payment_id, "50.00")
    assert await shop.wallet() == ("0.00", "50.00", "0.00")
    sent = str(list(shop.fake.books.refunds)[-1])
    shop.fake.finish_refund(sent)
    await shop.hears()
    assert (await shop.detail(payment_id))["status"] == "REFUNDED"
    await shop.api.books_are_clean()
    shop.fake.finish_refund(sent, succeeds=False)
    await shop.hears(times=2)
    assert await shop.wallet() == ("50.00", "0.00", "0.00")
    assert [line[:2] for line in await ledger(shop.company)] == [
        ("RECHARGE", "50.00"),
        ("PAYER_REFUND", "-50.00"),
        ("PAYER_REFUND_RETURNED", "50.00"),
    ]


async def test_a_refund_from_the_dashboard_takes_what_there_is_and_no_more(shop: Shop) -> None:
    payment_id, attempt = await shop.paid("50.00")
    await used(shop.company, "e1", 400)
    shop.fake.books.create_refund({"payment_intent": attempt, "amount": "5000"})
    await shop.hears(times=2)
    assert await shop.wallet() == ("0.00", "0.00", "0.00")
    assert (await ledger(shop.company))[-1] == ("PAYER_REFUND", "-10.00", payment_id)
    owed = await used(shop.company, "e2")
    assert owed["status"] == "OWED"
    assert await shop.wallet() == ("0.00", "0.00", "1.00")
    lost = await shop.api.services.payments._ledger.lines("revenue:chargebacks", limit=9, before=None)
    assert [line.change_minor for line in lost] == [-40_000_000]


@pytest.mark.parametrize("outcome", ["won", "lost"])
async def test_a_dispute_freezes_and_then_releases_or_takes(shop: Shop, outcome: str) -> None:
    payment_id, attempt = await shop.paid("50.00")
    await used(shop.company, "e1", 100)
    dispute_id = str(shop.fake.dispute(attempt))
    await shop.hears()
    assert await shop.wallet() == ("0.00", "40.00", "0.00")
    [waiting] = (await shop.admin.get("/admin/disputes?status=OPEN")).json["items"]
    assert (waiting["amount"], waiting["frozenAmount"], waiting["currency"]) == ("50.00", "40.00", "USD")
    [hold] = (await shop.admin.get(f"/admin/users/{shop.company.id}/wallet")).json["holds"]
    assert (hold["disputeId"] is not None, hold["amount"]) == (True, "40.00")
    assert (await used(shop.company, "e2"))["status"] == "OWED"
    await shop.api.books_are_clean()

    dispute = shop.fake.books.disputes[dispute_id]
    dispute["status"] = outcome
    shop.fake.books._tell("charge.dispute.closed", dispute)
    await shop.hears(times=2)
    shown = await status(shop.company)
    assert (shown["totalSpent"], shown["owed"]) == ("11.00", "1.00")
    lines = [line for line in await ledger(shop.company) if line[0].startswith("CHARGEBACK")]
    if outcome == "won":
        assert (await shop.wallet(), lines) == (("40.00", "0.00", "1.00"), [])
    else:
        assert await shop.wallet() == ("0.00", "0.00", "1.00")
        assert lines == [("CHARGEBACK", "-40.00", payment_id)]
    # What is owed is collected by the next recharge, whatever came of the other one.
    await shop.paid("20.00")
    assert (await shop.wallet())[2] == "0.00"


async def test_a_day_of_companies_recharges_is_compared_with_the_gateway_s(shop: Shop) -> None:
    day = "2026-01-01"
    payment_id, _ = await shop.paid("50.00")
    await shop.refund(payment_id, "10.00")
    await shop.hears()
    for found in (*shop.fake.books.intents.values(), *shop.fake.books.charges.values()):
        found["created"] = shop.api.clock.now_ms() // 1000
    for found in shop.fake.books.refunds.values():
        found["created"] = shop.api.clock.now_ms() // 1000
    report = await shop.api.services.payment_reports.make("stripe", day)
    assert (report.status, report.differences, report.problem) == ("CLEAN", (), None)
    assert (report.collected, report.credited, report.refunded) == (1, 1, 1)


# --- the books


def touched(path: Path, name: str, change: Any) -> None:
    """Change every document of a collection behind the server's back."""
    with sqlite3.connect(path) as connection:
        table = f"c_{name}"
        for id_, body in connection.execute(f'SELECT "_id", "_body" FROM "{table}"').fetchall():
            doc = orjson.loads(body)
            change(doc)
            connection.execute(f'UPDATE "{table}" SET "_body" = ? WHERE "_id" = ?', (orjson.dumps(doc), id_))


def a_unit_more(doc: dict[str, Any]) -> None:
    doc["series"][0][4] += 1


@pytest.mark.parametrize(
    ("name", "change", "rule"),
    [
        (
            "usages",
            lambda doc: doc.update(cost_minor=1, details={}),
            "a usage's entry is of its cost, type, job and quantity",
        ),
        ("usage_counters", a_unit_more, "a counter is the sum of its entries"),
        ("usage_counted", lambda doc: doc.update(seq=99), "only entries are counted"),
        ("payments", lambda doc: doc.update(amount_minor=1), "a company's recharge credits its amount"),
    ],
)
async def test_verify_ledger_reads_what_companies_have_stored(
    tmp_path: Path, name: str, change: Any, rule: str
) -> None:
    async with open_api(tmp_path) as api:
        acme = await api.register(Role.COMPANY)
        await recharged(acme, "10.00")
        await used(acme, "e1")
        await api.services.usage.rollups.count(acme.id)
        await api.books_are_clean()
    touched(tmp_path / "api.db", name, change)
    found = verify_books(tmp_path / "api.db", now_ms=api.clock.now_ms(), abandon_ms=120_000)
    assert found.verdict is Verdict.BROKEN
    assert rule in {one.rule for one in found.broken}, found.broken
    assert found.counted["usages"] == 1


# --- the end of a company


async def delete(company: Person, **more: Any) -> Answer:
    return await company.call("DELETE", "/auth/me", json={"password": PASSWORD, **more})


async def test_a_company_with_money_goes_only_if_it_gives_it_up(api: Api, acme: Person) -> None:
    await recharged(acme, "10.00")
    await used(acme, "e1", 1, occurredAt=None)
    refused = await delete(acme)
    assert (refused.status, refused.code, refused.json["available"]) == (409, "BALANCE_NOT_EMPTY", "9.90")
    answer = await delete(acme, forfeit=True)
    assert answer.json == {"ok": True, "forfeited": "9.90", "forfeitedCredits": 0, "currency": "USD"}


async def test_a_debtor_cannot_vanish(api: Api, acme: Person) -> None:
    await used(acme, "e1", 25)
    for forfeit in (False, True):
        refused = await delete(acme, forfeit=forfeit)
        assert (refused.status, refused.code, refused.json["required"]) == (409, "DEBT_NOT_PAID", "2.50")
    await recharged(acme, "10.00")
    assert (await delete(acme, forfeit=True)).json["forfeited"] == "7.50"


async def test_a_company_of_which_nobody_knows_yet_what_it_owes_stays(
    api: Api, acme: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_args: Any, **_more: Any) -> Any:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(api.services.usage.meter._charging, "charge", away)
        assert (await used(acme, "e1"))["status"] == "QUEUED"
        refused = await delete(acme, forfeit=True)
        assert (refused.status, refused.code) == (409, "COMPANY_UNSETTLED")
        await api.idle()
    await api.services.usage.meter.drain()
    assert (await delete(acme)).code == "DEBT_NOT_PAID"


async def test_a_recharge_that_was_left_open_is_carried_out_before_a_company_goes(
    api: Api, acme: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its card would be charged, and the money be in the wallet of somebody who is gone."""
    setup = await acme.post("/api/billing/payment-methods/setup")
    method = setup.json["paymentMethodId"]
    recharges = api.services.usage.recharges

    async def dies(_company_id: str) -> bool:
        return False

    with monkeypatch.context() as patch:
        patch.setattr(recharges, "pursue", dies)
        assert (await used(acme, "e1"))["status"] == "OWED"
        body = {"enabled": True, "amount": "20.00", "paymentMethodId": method}
        answer = await acme.call("PUT", "/api/billing/auto-recharge", json=body)
        assert answer.json["state"] == "CHARGING", answer.text
        # It owes until then; without the debt it is the recharge itself that keeps it.
        assert (await delete(acme)).code == "DEBT_NOT_PAID"
    refused = await delete(acme)
    assert (refused.code, refused.json["available"]) == ("BALANCE_NOT_EMPTY", "19.00")


async def test_a_recharge_that_nobody_has_decided_for_days_does_not_stop_all_later_ones(
    api: Api, acme: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = (await acme.post("/api/billing/payment-methods/setup")).json["paymentMethodId"]
    recharges = api.services.usage.recharges

    async def dies(_company_id: str) -> bool:
        return False

    with monkeypatch.context() as patch:
        patch.setattr(recharges, "pursue", dies)
        await used(acme, "e1")
        body = {"enabled": True, "amount": "20.00", "paymentMethodId": method}
        await acme.call("PUT", "/api/billing/auto-recharge", json=body)
    opened = (await recharges.book(acme.id)).open
    assert opened is not None
    due = recharges._due(acme.id, opened.amount_minor, "auto")
    saved = await api.services.payment_methods.own(method, payer_id=acme.id)
    intent = api.services.payment_methods._intent(due, saved, opened.id)
    expired = replace(intent, status=PaymentStatus.EXPIRED, check_at_ms=None)
    assert await api.services.payments._payments.add(expired)
    assert not await recharges.pursue(acme.id)
    book = await recharges.book(acme.id)
    assert (book.open, book.declines) == (None, 1)


# --- admins and operators


async def test_admins_see_a_company_s_wallet_and_its_ledger(api: Api, acme: Person) -> None:
    admin = await api.admin()
    await recharged(acme, "10.00")
    await used(acme, "e1", 1)
    wallet = (await admin.get(f"/admin/users/{acme.id}/wallet")).json
    assert wallet == {
        "account": f"company:{acme.id}",
        "balance": "9.90",
        "held": "0.00",
        "currency": "USD",
        "holds": [],
    }
    assert (await admin.get(f"/admin/users/{acme.id}")).json["wallet"] == wallet
    lines = (await admin.get(f"/admin/users/{acme.id}/ledger")).json["items"]
    assert [(line["kind"], line["change"], line["balanceAfter"]) for line in lines] == [
        ("usage:VIDEO_INTERVIEW", "-0.10", "9.90"),
        ("company_recharge", "10.00", "10.00"),
    ]
    csv = await admin.get(f"/admin/users/{acme.id}/ledger?format=csv")
    assert (csv.status, "usage:VIDEO_INTERVIEW,-0.10,USD" in csv.text) == (200, True)
    member = await a_member(api, acme, "VIEWER")
    for what in ("wallet", "ledger"):
        assert (await admin.get(f"/admin/users/{member.id}/{what}")).status == 404
    assert (await admin.get(f"/admin/users/{member.id}")).json["wallet"] is None


async def scraped(api: Api) -> dict[str, float]:
    lines = (await api.anonymous.get("/metrics")).text.splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line.startswith(("tarazu_usages", "tarazu_auto"))]
    return {name: float(value) for name, value in pairs}


async def test_operators_see_usages_and_recharges(
    api: Api, acme: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_args: Any, **_more: Any) -> Any:
        raise StoreUnavailable

    meter = api.services.usage.meter
    with monkeypatch.context() as patch:
        patch.setattr(meter._charging, "charge", away)
        await used(acme, "e1", 20)
        await used(acme, "e1", 20)
        await api.idle()
        api.clock.jump_ms(7_000)
        with pytest.raises(StoreUnavailable):
            await meter.drain()
    seen = await scraped(api)
    assert (seen["tarazu_usages_recorded_total"], seen["tarazu_usages_queued"]) == (1, 1)
    assert seen["tarazu_usages_queued_seconds"] == 7
    await meter.drain()
    method = (await acme.post("/api/billing/payment-methods/setup")).json["paymentMethodId"]
    body = {"enabled": True, "amount": "20.00", "paymentMethodId": method}
    await acme.call("PUT", "/api/billing/auto-recharge", json=body)
    await used(acme, "e2", 1)
    assert await scraped(api) == {
        "tarazu_usages_recorded_total": 2,
        "tarazu_usages_charged_total": 1,
        "tarazu_usages_owed_total": 1,
        "tarazu_usages_queued": 0,
        "tarazu_usages_queued_seconds": 0,
        "tarazu_auto_recharges_paid_total": 1,
        "tarazu_auto_recharges_declined_total": 0,
    }
    await acme.call("DELETE", f"/api/billing/payment-methods/{method}")
    assert (await used(acme, "e3", 1_000))["status"] == "OWED"
    assert (await scraped(api))["tarazu_auto_recharges_declined_total"] == 1
