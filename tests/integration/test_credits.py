"""Credits over HTTP, with a clock that the test moves: the boundary of a refund, the reasons, deletion, disputes, and both spellings."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from billing_engine.credits.model import REFUND_WITHIN_MS, Application
from billing_engine.ledger.accounts import (
    ISSUED_CREDITS,
    REVENUE_CREDITS,
    application_credits_of,
    credit_sales_of,
    gateway_of,
)
from billing_engine.payments.model import DisputeStatus, GatewayDispute, GatewayRefund, RefundStatus
from server.auth.model import Role
from tests.support.api import Api, ApiClock, Person, open_api
from tests.support.http import PASSWORD, Answer


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path, access_token_minutes=1_440) as api:
        yield api
        await api.books_are_clean()


async def rich(api: Api, package: int = 3) -> Person:
    """A freelancer with credits."""
    person = await api.register(Role.FREELANCER)
    bought = await person.post("/credits/initiate-purchase", {"package_id": package})
    assert bought.status == 201, bought.text
    # The receipt goes out meanwhile.
    await api.idle()
    return person


async def posted(company: Person) -> str:
    answer = await company.post("/projects", {"title": "A film", "description": "Two days.\nIn May."})
    assert answer.status == 201, answer.text
    return str(answer.json["id"])


async def applied(person: Person, project_id: str, **more: Any) -> Answer:
    answer = await person.post("/applied-projects", {"project_id": project_id}, **more)
    assert answer.status == 201, answer.text
    return answer


async def credits_of(person: Person) -> dict[str, int]:
    found: dict[str, int] = (await person.get("/credits/balance")).json
    assert found["credits_balance"] == (
        found["total_purchased"]
        - found["credits_used"]
        + found["credits_refunded"]
        + found["credits_adjusted"]
    )
    return found


@pytest.mark.parametrize(
    ("age_ms", "reason"),
    [
        (REFUND_WITHIN_MS - 1, None),
        (REFUND_WITHIN_MS, "Application older than 24 hours"),
        (REFUND_WITHIN_MS + 1, "Application older than 24 hours"),
    ],
)
async def test_a_refund_ends_at_24_hours_to_the_millisecond(
    api: Api, age_ms: int, reason: str | None
) -> None:
    me, company = await rich(api), await api.register(Role.COMPANY)
    application_id = (await applied(me, await posted(company))).json["id"]
    api.clock.jump_ms(age_ms)
    await me.log_in_again()
    told = (await me.get(f"/credits/refund-eligibility/{application_id}")).json
    assert told == {"eligible": reason is None, "reason": reason}
    before = api.everything()
    answer = await me.post(f"/applied-projects/{application_id}/withdraw")
    if reason is None:
        assert (answer.status, answer.json["credits_balance"]) == (200, 25)
        return
    assert (answer.status, answer.code, answer.json["reason"]) == (409, "NOT_ELIGIBLE", reason)
    assert api.everything() == before, "nothing changes"


async def test_a_withdrawal_that_comes_too_late_while_it_is_written_is_refused_by_that_write(
    api: Api,
) -> None:
    """It was eligible when it was looked at, and 24 hours old when the ledger wrote."""
    me, company = await rich(api), await api.register(Role.COMPANY)
    application_id = (await applied(me, await posted(company))).json["id"]
    api.clock.jump_ms(REFUND_WITHIN_MS - 1)
    await me.log_in_again()
    rows = api.services.credits.applications._rows
    begin_return = rows.begin_return

    async def slow(id_: str) -> None:
        await begin_return(id_)
        api.clock.jump_ms(1)

    rows.begin_return = slow
    answer = await me.post(f"/applied-projects/{application_id}/withdraw")
    assert (answer.status, answer.json["reason"]) == (409, "Application older than 24 hours")
    assert (await credits_of(me))["credits_balance"] == 24
    assert (await me.get("/applied-projects")).json["items"][0]["status"] == "ACTIVE"
    # Nobody can withdraw it any more, so nobody watches it any more.
    assert await api.services.credits.heal() == 0
    api.clock.jump_ms(60_000)
    assert await api.services.credits.heal() == 1
    assert await api.services.credits.heal() == 0


async def test_the_five_reasons(api: Api) -> None:
    me, other, company = await rich(api), await rich(api), await api.register(Role.COMPANY)
    project_id = await posted(company)
    mine = (await applied(me, project_id)).json["id"]
    theirs = (await applied(other, project_id)).json["id"]

    async def ask(id_: str) -> Answer:
        return await me.get(f"/credits/refund-eligibility/{id_}")

    # Exists, and is mine: one same answer for both.
    unknown, foreign = await ask("unknown"), await ask(theirs)
    assert unknown.status == foreign.status == 404
    assert unknown.json["detail"] == foreign.json["detail"]
    assert (await ask(mine)).json == {"eligible": True, "reason": None}
    # A try that took no credit: it had begun when the project closed.
    closed = await posted(company)
    rows = api.services.credits.applications._rows
    add = rows.add

    async def closing(application: Any) -> bool:
        rows.add = add
        added: bool = await add(application)
        assert (await company.post(f"/projects/{closed}/close")).status == 200
        return added

    rows.add = closing
    late = await me.post("/applied-projects", {"project_id": closed})
    assert (late.status, late.code) == (409, "PROJECT_CLOSED")
    reason = "No credit was deducted for this application"
    assert (await ask(f"{me.id}:{closed}:1")).json == {"eligible": False, "reason": reason}
    refused = await me.post(f"/applied-projects/{me.id}:{closed}:1/withdraw")
    assert (refused.status, refused.json["reason"]) == (409, reason)
    assert [one["id"] for one in (await me.get("/applied-projects")).json["items"]] == [mine]
    # Given back already; and, of another one, too old.
    assert (await me.post(f"/applied-projects/{mine}/withdraw")).status == 200
    assert (await ask(mine)).json["reason"] == "Credit already refunded"
    again = (await applied(me, project_id)).json["id"]
    assert again.endswith(":2")
    api.clock.jump_ms(REFUND_WITHIN_MS)
    await me.log_in_again()
    assert (await ask(again)).json["reason"] == "Application older than 24 hours"
    assert (await ask(mine)).json["reason"] == "Credit already refunded"
    assert await credits_of(me) == {
        "credits_balance": 24,
        "total_purchased": 25,
        "credits_used": 2,
        "credits_refunded": 1,
        "credits_adjusted": 0,
    }


async def test_a_restart_ends_what_was_begun_however_lately(tmp_path: Path) -> None:
    """The process died between the record and the credit, and its successor starts in the same instant."""
    clock = ApiClock()
    async with open_api(tmp_path, clock=clock) as api:
        me, company = await rich(api), await api.register(Role.COMPANY)
        project_id = await posted(company)
        begun = Application(f"{me.id}:{project_id}:1", me.id, project_id, 1, "o1", clock.now_ms())
        assert await api.services.credits.applications._rows.add(begun)
    async with open_api(tmp_path, clock=clock) as api:
        await api.books_are_clean()
        again = await api.log_in(me.email)
        assert (await again.get("/applied-projects")).json["items"] == []
        answer = await applied(again, project_id)
        assert (answer.json["id"], answer.json["credits_balance"]) == (f"{me.id}:{project_id}:2", 24)
        await api.books_are_clean()


async def test_a_purchase_is_money_and_credits_and_one_receipt(api: Api) -> None:
    me = await rich(api)
    ledger = api.services.payouts._ledger
    await api.idle()
    assert await ledger.balance(application_credits_of(me.id), "APPLICATION_CREDIT") == 25
    assert await ledger.balance(ISSUED_CREDITS, "APPLICATION_CREDIT") == -25
    assert await ledger.balance(credit_sales_of(me.id), "INR") == 0
    assert await ledger.balance(REVENUE_CREDITS, "INR") == 125_000
    assert await ledger.balance(gateway_of("simulated"), "INR") == -125_000


async def test_both_spellings_are_read_and_snake_case_is_written(api: Api) -> None:
    me, company = await rich(api), await api.register(Role.COMPANY)
    project_id = await posted(company)
    assert (await me.post("/credits/initiate-purchase", {"packageId": 1})).json["credits"] == 5
    answer = await me.post("/applied-projects", {"projectId": project_id})
    assert answer.status == 201
    assert set(answer.json) == {
        "id",
        "project_id",
        "project_title",
        "status",
        "applied_at",
        "withdrawn_at",
        "credits_balance",
    }
    wrong = await me.post("/credits/initiate-purchase", {"packageId": "3"})
    assert (wrong.status, wrong.fields) == (422, ["packageId"])


async def test_lists_page_without_a_gap(api: Api) -> None:
    me, company = await rich(api), await api.register(Role.COMPANY)
    ids = []
    await api.advance(1)
    for _ in range(7):
        ids.append(await posted(company))
        await applied(me, ids[-1])
        await api.advance(1)

    async def all_of(person: Person, path: str, name: str) -> list[str]:
        found: list[str] = []
        cursor = ""
        while True:
            page = (await person.get(f"{path}?limit=3{cursor}")).json
            found += [one[name] for one in page["items"]]
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    assert await all_of(me, "/applied-projects", "project_id") == ids[::-1]
    assert await all_of(me, "/projects", "id") == ids[::-1]
    assert (await company.post(f"/projects/{ids[2]}/close")).status == 200
    assert await all_of(company, "/projects", "id") == ids[::-1]
    assert await all_of(me, "/projects", "id") == [id_ for id_ in ids[::-1] if id_ != ids[2]]
    assert len(await all_of(me, "/credits/purchases", "payment_id")) == 1
    history = (await me.get("/credits/history?page=3&limit=3")).json
    assert (history["page"], history["limit"], history["total"], len(history["items"])) == (3, 3, 8, 2)
    assert history["items"][-1]["type"] == "purchase"
    assert (await me.get("/credits/history?page=100000&limit=100")).json["items"] == []


async def test_an_account_with_credits_is_not_deleted_by_mistake(api: Api) -> None:
    me = await rich(api)
    kept = await me.call("DELETE", "/auth/me", json={"password": PASSWORD})
    assert (kept.status, kept.code, kept.json["available"]) == (409, "BALANCE_NOT_EMPTY", 25)
    assert "credits" in kept.json["detail"]
    gone = await me.call("DELETE", "/auth/me", json={"password": PASSWORD, "forfeit": True})
    assert (gone.status, gone.json["forfeitedCredits"], gone.json["forfeited"]) == (200, 25, "0.00")


async def test_a_company_that_is_deleted_takes_no_applications(api: Api) -> None:
    me, company = await rich(api), await api.register(Role.COMPANY)
    project_id = await posted(company)
    assert (await company.call("DELETE", "/auth/me", json={"password": PASSWORD})).status == 200
    answer = await me.post("/applied-projects", {"project_id": project_id})
    assert (answer.status, answer.code) == (409, "PROJECT_CLOSED")
    assert (await credits_of(me))["credits_balance"] == 25


async def test_a_deleted_freelancer_has_no_name_any_more(api: Api) -> None:
    me, company = await rich(api), await api.register(Role.COMPANY)
    project_id = await posted(company)
    await applied(me, project_id)
    assert (await company.get(f"/projects/{project_id}/applications")).json["items"][0]["name"] == "Asha"
    await me.call("DELETE", "/auth/me", json={"password": PASSWORD, "forfeit": True})
    (row,) = (await company.get(f"/projects/{project_id}/applications")).json["items"]
    assert (row["user_id"], row["name"], row["profession"]) == (me.id, None, None)


async def test_only_freelancers_have_credits(api: Api) -> None:
    admin, user = await api.admin(), await api.a_user()
    for answer in (
        await admin.get(f"/admin/credits/user/{user.id}"),
        await admin.post("/admin/credits/adjust", {"user_id": user.id, "amount": 5, "reason": "x"}),
    ):
        assert (answer.status, answer.code) == (404, "NOT_FOUND")
        assert "freelancers" in answer.json["detail"]


async def test_a_disabled_account_buys_nothing(api: Api) -> None:
    """Its tokens stop working anyway; one that slipped through is refused by the purchase."""
    me = await rich(api)
    await api.disable(me)
    services = api.services
    with pytest.raises(Exception, match="PURCHASE_NOT_ALLOWED"):
        await services.credits.purchases.initiate(user_id=me.id, email="", package_id=1, operation_id="o1")


async def test_what_an_admin_may_set_as_the_price(api: Api) -> None:
    admin, me = await api.admin(), await rich(api)
    for price in ("0.99", "100000.01", "0", -1, "1.001", None, [], "many"):
        before = api.everything()
        answer = await admin.call("PUT", "/admin/credits/settings", json={"price_per_credit": price})
        assert (answer.status, answer.fields) == (422, ["price_per_credit"]), price
        assert api.everything() == before
    for price in ("1.00", "100000", "55.50"):
        answer = await admin.call("PUT", "/admin/credits/settings", json={"price_per_credit": price})
        assert answer.status == 200, answer.text
    listed = (await me.get("/credits/packages")).json
    assert (listed["price_per_credit"], listed["items"][2]["price"]) == ("55.50", "1387.50")
    changes = (await admin.get("/admin/credits/settings")).json["changes"]
    assert [(one["from_price"], one["to_price"]) for one in changes] == [
        ("100000.00", "55.50"),
        ("1.00", "100000.00"),
        ("50.00", "1.00"),
    ]
    # What was bought keeps its price.
    (bought,) = (await me.get("/credits/purchases")).json["items"]
    assert bought["price"] == "1250.00"


async def test_money_that_a_gateway_takes_back_is_the_platforms_and_no_credit_moves(api: Api) -> None:
    """A refund from the gateway's dashboard and a dispute: never a rupee on an account of credits."""
    me, admin = await rich(api), await api.admin()
    services = api.services
    (payment,) = await services.payments.list_for(me.id, limit=2, before=None)
    assert payment.collected_id is not None
    desk = services.payment_desk
    lost = GatewayDispute("d1", payment.collected_id, 50_000, "INR", DisputeStatus.OPEN, "fraud", 0)
    assert await desk.disputes.take("simulated", lost, 1)
    (dispute,) = (await admin.get("/admin/disputes")).json["items"]
    assert (dispute["amount"], dispute["frozenAmount"]) == ("500.00", "0.00")
    over = GatewayDispute("d1", payment.collected_id, 50_000, "INR", DisputeStatus.LOST, "fraud", 0)
    assert await desk.disputes.take("simulated", over, 2)
    sent = GatewayRefund("r1", payment.collected_id, None, 20_000, "INR", RefundStatus.DONE, 0)
    assert await desk.refunds.take("simulated", sent)
    ledger = services.payouts._ledger
    assert await ledger.balance("revenue:chargebacks", "INR") == -70_000
    assert await ledger.balance(gateway_of("simulated"), "INR") == -55_000
    assert (await ledger.account(credit_sales_of(me.id), "INR")).held == 0
    assert await ledger.balance(REVENUE_CREDITS, "INR") == 125_000
    assert (await credits_of(me))["credits_balance"] == 25
    shown = (await admin.get(f"/admin/payments/{payment.id}")).json
    assert (shown["purpose"], shown["refundableAmount"], shown["refundedAmount"]) == (
        "CREDITS",
        "0.00",
        "200.00",
    )


async def test_the_days_report_knows_purchases(api: Api) -> None:
    """The comparison with the gateway's list takes a purchase for what it is: a payment with its entry."""
    await rich(api)
    api.clock.jump_ms(2 * REFUND_WITHIN_MS)
    admin = await api.admin()
    answer = await admin.post("/admin/payments/report/2026-01-01", {})
    assert answer.status == 200, answer.text
    (report,) = answer.json["reports"]
    # The simulated gateway keeps no list; our side of it must at least be readable.
    assert (report["status"], report["differences"]) in (("CLEAN", []), ("UNAVAILABLE", [])), report
