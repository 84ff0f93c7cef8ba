"""Revenue over HTTP: whose day it is, what a month is, and that money on its way is in no report."""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Api, open_api


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path, commission_percent="10") as api:
        yield api


async def report(api: Api, query: str = "") -> Any:
    answer = await (await api.admin()).get(f"/admin/revenue?{query}")
    assert answer.status == 200, answer.text
    return answer.json


async def test_a_day_begins_where_the_business_is(api: Api) -> None:
    """In Kolkata midnight is at 18:30 UTC: an accountant who gets it an hour off closes another day than the tax office."""
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    api.clock.jump_ms(18 * 3_600_000 + 29 * 60_000 + 30_000)  # 23:59:30 in Kolkata
    user = await api.log_in(user.email)
    first = await user.start(lawyer.id)
    await api.advance(29)
    await user.end(first)
    second = await user.start(lawyer.id)
    await api.advance(2)
    await user.end(second)  # a second after midnight: this bill is the new day's
    await user.recharge("10.00")

    shown = await report(api, "from=2026-01-01&to=2026-01-02")
    assert (shown["timezone"], shown["currency"], shown["by"]) == ("Asia/Kolkata", "INR", "day")
    assert shown["items"] == [
        {
            "period": "2026-01-01",
            "gross": "29.00",
            "commission": "2.90",
            "net": "26.10",
            "sessions": 1,
            "seconds": 29,
            "recharged": "500.00",
            "recharges": 1,
            "refunded": "0.00",
            "refunds": 0,
        },
        {
            "period": "2026-01-02",
            "gross": "2.00",
            "commission": "0.20",
            "net": "1.80",
            "sessions": 1,
            "seconds": 2,
            "recharged": "10.00",
            "recharges": 1,
            "refunded": "0.00",
            "refunds": 0,
        },
    ]
    assert (shown["total"]["gross"], shown["total"]["sessions"]) == ("31.00", 2)


async def test_what_runs_is_not_earned_yet(api: Api) -> None:
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    session_id = await user.start(lawyer.id)
    await api.advance(100)
    assert (await report(api))["total"]["gross"] == "0.00"
    await user.end(session_id)
    assert (await report(api))["total"]["gross"] == "100.00"


async def test_a_consultation_of_no_second_is_a_consultation(api: Api) -> None:
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    await user.end(await user.start(lawyer.id))
    total = (await report(api))["total"]
    assert (total["sessions"], total["seconds"], total["gross"]) == (1, 0, "0.00")


async def test_without_bounds_it_is_the_last_thirty_days_or_twelve_months(api: Api) -> None:
    shown = await report(api)
    assert (shown["from"], shown["to"], len(shown["items"])) == ("2025-12-03", "2026-01-01", 30)
    shown = await report(api, "by=month")
    assert (shown["from"], shown["to"]) == ("2025-02-01", "2026-01-01")
    assert [item["period"] for item in shown["items"]] == [
        *(f"2025-{month:02d}" for month in range(2, 13)),
        "2026-01",
    ]
    shown = await report(api, "to=2024-02-29&by=month")
    assert (shown["from"], len(shown["items"])) == ("2023-03-01", 12)
    leap = await report(api, "from=2024-01-01&to=2024-12-31")
    assert len(leap["items"]) == 366


async def test_it_agrees_with_what_the_lawyers_see(api: Api) -> None:
    user = await api.a_user("5000.00")
    lawyers = [await api.a_lawyer(rate=rate) for rate in ("33.33", "59.99")]
    for n in range(6):
        session_id = await user.start(lawyers[n % 2].id)
        await api.advance(7 * n + 1)
        await user.end(session_id)

    total = (await report(api))["total"]
    earned = [(await lawyer.get("/lawyer/earnings/summary")).json["totalEarnings"] for lawyer in lawyers]
    assert Decimal(total["net"]) == sum(map(Decimal, earned))
    assert Decimal(total["gross"]) == Decimal(total["net"]) + Decimal(total["commission"])
    spent = 5000 - Decimal((await user.get("/wallet/balance")).json["walletBalance"])
    assert Decimal(total["gross"]) == spent
