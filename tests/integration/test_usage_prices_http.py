"""The price book over HTTP: what companies see, what admins change, and what a restart leaves alone."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.auth.model import Role
from server.storage.errors import CannotOpen
from tests.support.api import Api, Person, open_api
from tests.support.http import Answer


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path, access_token_minutes=1_440) as api:
        yield api


async def put(admin: Person, price: Any, *, key: str | None = None, **more: Any) -> Answer:
    body = {"list": "tokens", "type": "cv-parsing", "price": price, "reason": "A better model", **more}
    headers = {"Idempotency-Key": key} if key else {}
    return await admin.call("PUT", "/admin/usage-prices", json=body, headers=headers)


async def shown(person: Person, list_name: str = "tokens", type_: str = "cv-parsing") -> Any:
    items = (await person.get(f"/api/prices?list={list_name}")).json["items"]
    return next((one["price"] for one in items if one["type"] == type_), None)


async def test_both_lists_ship(api: Api) -> None:
    company = await api.register(Role.COMPANY)
    items = (await company.get("/api/prices")).json["items"]
    assert {(one["list"], one["type"]): (one["price"], one["per"], one["unit"]) for one in items} == {
        ("questions", "cv-parsing"): ("0.50", 1, "cv"),
        ("questions", "question-generation"): ("0.10", 10, "question"),
        ("questions", "video-interview"): ("0.50", 1, "minute"),
        ("tokens", "cv-parsing"): ("0.50", 1, "cv"),
        ("tokens", "question-generation"): ("0.002", 1_000, "token"),
        ("tokens", "video-interview"): ("0.10", 1, "minute"),
    }
    assert {one["currency"] for one in items} == {"USD"}
    assert {one["entryType"] for one in items} == {"CV_PARSE", "JD_QUESTIONS", "VIDEO_INTERVIEW"}
    assert {one["since"][:4] for one in items} == {"2026"}
    unknown = await company.get("/api/prices?list=nothing")
    assert (unknown.status, unknown.code, unknown.fields) == (422, "PRICE_LIST_UNKNOWN", ["list"])


async def test_a_change_is_dated_told_and_logged(api: Api) -> None:
    admin, company = await api.admin(), await api.register(Role.COMPANY)
    answer = await put(admin, "0.0000015")
    assert (answer.status, answer.fields) == (422, ["price"])
    answer = await put(admin, "0.65", key="change-one")
    assert answer.status == 200, answer.text
    (line,) = answer.json["upcoming"]
    assert (answer.json["price"], line["fromPrice"], line["price"]) == ("0.50", "0.50", "0.65")
    assert (line["changedBy"], line["reason"]) == (admin.id, "A better model")
    again = await put(admin, "0.65", key="change-one")
    assert again.json == answer.json
    assert await shown(company) == "0.50"
    api.clock.jump_ms(4_999)
    assert await shown(company) == "0.50"
    api.clock.jump_ms(1)
    assert (await shown(company), await shown(company, "questions")) == ("0.65", "0.50")
    items = (await admin.get("/admin/usage-prices?list=tokens")).json["items"]
    (item,) = (one for one in items if one["type"] == "cv-parsing")
    assert (item["price"], item["upcoming"]) == ("0.65", [])
    assert [(one["fromPrice"], one["price"], one["changedBy"]) for one in item["history"]] == [
        ("0.50", "0.65", admin.id),
        (None, "0.50", None),
    ]
    rows = (await admin.get("/admin/audit?action=usage.price")).json["items"]
    assert [(one["subject"], one["state"], one["before"]["upcoming"]) for one in rows] == [
        ("cv-parsing", "DONE", [])
    ]
    assert rows[0]["after"]["upcoming"][0]["price"] == "0.65"


async def test_a_change_may_be_announced_and_never_reaches_back(api: Api) -> None:
    admin = await api.admin()
    for instant in ("2025-12-31T00:00:00Z", "2026-01-01T00:00:04.999Z", "2999-01-01T00:00:00Z"):
        answer = await put(admin, "0.70", effectiveFrom=instant)
        assert (answer.status, answer.fields) == (422, ["effectiveFrom"]), instant
    when = "2026-02-01T00:00:00.000Z"
    answer = await put(admin, "0.70", effectiveFrom=when)
    assert [one["effectiveFrom"] for one in answer.json["upcoming"]] == [when]
    taken = await put(admin, "0.80", effectiveFrom=when)
    assert (taken.status, taken.code) == (409, "PRICE_CHANGE_EXISTS")


async def test_another_type_is_added_and_free_is_a_price(api: Api) -> None:
    admin, company = await api.admin(), await api.register(Role.COMPANY)
    new = {"type": "transcript", "unit": "page", "entryType": "TRANSCRIPT"}
    answer = await put(admin, 0, per=3, **new)
    assert (answer.status, answer.json["price"], answer.json["since"]) == (200, None, None)
    assert await shown(company, type_="transcript") is None
    api.clock.jump_ms(7_001)
    assert await shown(company, type_="transcript") == "0.00"
    for body, status, what in (
        ({"unit": "minute"}, 409, "USAGE_TYPE_FIXED"),
        ({"entryType": "OTHER"}, 409, "USAGE_TYPE_FIXED"),
        ({"type": "batch"}, 422, "USAGE_PRICE_INVALID"),
        ({"type": "other", "entryType": "REFUND"}, 422, "USAGE_PRICE_INVALID"),
        ({"list": "nothing"}, 422, "PRICE_LIST_UNKNOWN"),
        ({"per": 0}, 422, "VALIDATION_FAILED"),
        ({"type": "A B"}, 422, "VALIDATION_FAILED"),
        ({"reason": " "}, 422, "VALIDATION_FAILED"),
    ):
        before = api.everything()
        refused = await put(admin, "1", **new | body)
        assert (refused.status, refused.code) == (status, what), body
        assert api.everything() == before


async def test_many_admins_at_once_lose_no_change(api: Api) -> None:
    admin = await api.admin()
    answers = await asyncio.gather(*(put(admin, f"0.{number}") for number in range(60, 75)))
    assert {answer.status for answer in answers} == {200}
    items = (await admin.get("/admin/usage-prices?list=tokens")).json["items"]
    (item,) = (one for one in items if one["type"] == "cv-parsing")
    assert {one["price"] for one in item["upcoming"]} >= {f"0.{number}" for number in range(61, 75)}
    assert len({one["effectiveFrom"] for one in item["upcoming"]}) == len(item["upcoming"]) == 15


async def test_the_environment_counts_at_the_first_start_only(tmp_path: Path) -> None:
    async with open_api(tmp_path, usage_prices="tokens.cv-parsing=0.55") as api:
        assert await shown(await api.register(Role.COMPANY)) == "0.55"
        admin = await api.admin()
        await put(admin, "0.60", type="video-interview")
        clock = api.clock
    clock.jump_ms(5_000)
    async with open_api(tmp_path, clock=clock, usage_prices="tokens.cv-parsing=0.99") as api:
        company = await api.register(Role.COMPANY, email="second@example.com")
        assert await shown(company) == "0.55"
        assert await shown(company, type_="video-interview") == "0.60"


async def test_a_book_in_another_currency_stops_the_start(tmp_path: Path) -> None:
    async with open_api(tmp_path):
        pass
    file = tmp_path / "rupees.toml"
    file.write_text(
        'version = 1\ncurrency = "INR"\n[tokens.cv-parsing]\nentry_type = "CV_PARSE"\nunit = "cv"\nprice = "40"\n'
    )
    with pytest.raises(CannotOpen, match="COMPANY_CURRENCY must be USD"):
        async with open_api(tmp_path, company_currency="INR", price_book=str(file)):
            pass
