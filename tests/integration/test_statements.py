"""A lawyer's monthly statement over HTTP: whose month it is, what is a row of it, and the same as CSV (SPEC 11)."""

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Api, Person, open_api
from tests.support.http import Answer

JANUARY_S = 31 * 86_400


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path, commission_percent="10", payout_min="1.00") as api:
        yield api
        await api.books_are_clean()


async def served(api: Api, user: Person, lawyer: Person, seconds: int) -> str:
    user, lawyer = await api.log_in(user.email), await api.log_in(lawyer.email)
    session_id = await user.start(lawyer.id)
    await api.advance(seconds)
    await user.end(session_id)
    return session_id


async def statement(api: Api, lawyer: Person, month: str, **more: Any) -> Any:
    answer: Answer = await (await api.log_in(lawyer.email)).get(f"/lawyer/statements?month={month}", **more)
    assert answer.status == 200, answer.text
    return answer.json


async def a_story(api: Api) -> tuple[Person, list[str]]:
    """January: two earnings and a payout. February: a refund of one of them, an earning, a payout that fails and one that is open."""
    user, lawyer = await api.a_user("5000.00"), await api.a_lawyer()
    first = await served(api, user, lawyer, 100)
    second = await served(api, user, lawyer, 50)
    asked = (await lawyer.post("/lawyer/payouts", {"amount": "80.00"})).json["id"]
    await api.advance(1)
    paid = await (await api.admin()).post(f"/admin/payouts/{asked}/paid", {"reference": "=UTR 1"})
    assert paid.status == 200
    api.clock.jump_ms(JANUARY_S * 1000)
    admin = await api.admin()
    back = await admin.post(f"/admin/consult/{first}/refund", {"amount": "10.00", "reason": "Bad line."})
    assert back.status == 201
    await api.advance(1)
    third = await served(api, user, lawyer, 20)
    lawyer = await api.log_in(lawyer.email)
    failing = (await lawyer.post("/lawyer/payouts", {"amount": "5.00"})).json["id"]
    await (await api.admin()).post(f"/admin/payouts/{failing}/failed", {"reason": "No."})
    assert (await lawyer.post("/lawyer/payouts", {"amount": "5.00"})).status == 201
    return lawyer, [first, second, third, asked]


async def test_a_months_entries_between_its_balances(api: Api) -> None:
    lawyer, (first, second, _, payout) = await a_story(api)
    january = await statement(api, lawyer, "2026-01")
    assert {name: january[name] for name in ("month", "timezone", "currency", "opening", "closing")} == {
        "month": "2026-01",
        "timezone": "Asia/Kolkata",
        "currency": "INR",
        "opening": "0.00",
        "closing": "55.00",
    }
    assert (january["earned"], january["refunded"], january["paidOut"]) == ("135.00", "0.00", "-80.00")
    assert [
        (
            row["kind"],
            row["gross"],
            row["commission"],
            row["amount"],
            row["balance"],
            row["sessionId"],
            row["payoutId"],
        )
        for row in january["items"]
    ] == [
        ("EARNING", "100.00", "10.00", "90.00", "90.00", first, None),
        ("EARNING", "50.00", "5.00", "45.00", "135.00", second, None),
        ("PAYOUT", None, None, "-80.00", "55.00", None, payout),
    ]
    february = await statement(api, lawyer, "2026-02")
    assert (february["opening"], february["closing"]) == ("55.00", "64.00")
    assert [(row["kind"], row["gross"], row["commission"], row["amount"]) for row in february["items"]] == [
        ("REFUND", "-10.00", "-1.00", "-9.00"),
        ("EARNING", "20.00", "2.00", "18.00"),
    ]
    for month, standing in (("2025-12", "0.00"), ("2026-03", "64.00")):
        quiet = await statement(api, lawyer, month)
        assert (quiet["opening"], quiet["closing"], quiet["items"]) == (standing, standing, [])


async def test_the_same_as_csv(api: Api) -> None:
    lawyer, _ = await a_story(api)
    answer = await lawyer.get("/lawyer/statements?month=2026-01&format=csv")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="statement-2026-01.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    shown = await statement(api, lawyer, "2026-01")
    assert [(row["kind"], row["amount"], row["balance"]) for row in rows] == [
        ("OPENING", "", "0.00"),
        *((row["kind"], row["amount"], row["balance"]) for row in shown["items"]),
        ("CLOSING", "", "55.00"),
    ]
    assert rows[3]["reference"] == "'=UTR 1", "no formula for whoever opens it in a spreadsheet"
    assert shown["items"][2]["reference"] == "=UTR 1"


async def test_a_month_begins_where_the_business_is(api: Api) -> None:
    """In Kolkata midnight is at 18:30 UTC: the last half minute of January is not February's."""
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    api.clock.jump_ms(30 * 86_400_000 + 18 * 3_600_000 + 29 * 60_000 + 30_000)
    await served(api, user, lawyer, 29)
    await served(api, user, lawyer, 2)
    assert [row["gross"] for row in (await statement(api, lawyer, "2026-01"))["items"]] == ["29.00"]
    assert [row["gross"] for row in (await statement(api, lawyer, "2026-02"))["items"]] == ["2.00"]


@pytest.mark.parametrize(
    "month", ["2026-13", "2026-00", "2026", "26-01", "2026-1", "2026-01-01", "x", "٢٠٢٦-٠١"]
)
async def test_no_month_is_no_month(api: Api, month: str) -> None:
    lawyer = await api.a_lawyer()
    answer = await lawyer.get(f"/lawyer/statements?month={month}")
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, "month")
