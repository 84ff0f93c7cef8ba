"""Lawyers, their earnings and the admin's queue, over HTTP: who may call, what is refused, what comes back."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.auth.model import Role
from server.people.ports import EarningRow
from tests.support.people_http import PASSWORD, Answer, Api, form, open_api


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path / "people.db") as api:
        yield api


async def all_items(api: Api, path: str, token: str, **query: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = await api.call("GET", path, token=token, params=query | ({"cursor": cursor} if cursor else {}))
        assert page.status == 200, page.json
        items += page.json["items"]
        cursor = page.json["nextCursor"]
        if cursor is None:
            return items


# Who may call

ALL = {Role.USER, Role.LAWYER, Role.FREELANCER, Role.COMPANY, Role.ADMIN}


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"),
    [
        ("PATCH", "/lawyer/availability", {"isOnline": True}, {Role.LAWYER}),
        ("GET", "/lawyer/profile", None, {Role.LAWYER}),
        ("PATCH", "/lawyer/profile", {}, {Role.LAWYER}),
        ("GET", "/lawyer/earnings", None, {Role.LAWYER}),
        ("GET", "/lawyer/earnings/summary", None, {Role.LAWYER}),
        ("PATCH", "/lawyer/{id}/verify", {}, {Role.ADMIN}),
        ("GET", "/admin/lawyers", None, {Role.ADMIN}),
        ("GET", "/lawyers", None, ALL),
        ("GET", "/lawyer/{id}", None, ALL),
        ("GET", "/lawyer/{id}/reviews", None, ALL),
        ("POST", "/review", {"sessionId": "s", "rating": 5}, {Role.USER}),
    ],
)
async def test_each_route_knows_its_roles(
    api: Api, method: str, path: str, body: dict[str, Any] | None, allowed: set[Role]
) -> None:
    lawyer_id, lawyer_token = await api.a_lawyer()
    path = path.replace("{id}", lawyer_id)

    async def call(token: str | None) -> Answer:
        return await api.call(method, path, token=token, json=body)

    for token in (None, "nonsense"):
        answer = await call(token)
        assert (answer.status, answer.code) == (401, "UNAUTHENTICATED")
    for role in sorted(ALL - {Role.FREELANCER}):
        token = lawyer_token if role is Role.LAWYER else (await api.sign_in(role))[1]
        answer = await call(token)
        if role not in allowed:
            assert (answer.status, answer.code) == (403, "FORBIDDEN")
        elif path == "/review":
            assert (answer.status, answer.code) == (404, "NOT_FOUND")
        else:
            assert answer.status == 200, answer.json


# Registration


async def test_a_lawyer_registers_and_is_signed_in(api: Api) -> None:
    answer = await api.call("POST", "/lawyer/register", json=form(ratePerMinute=30))

    assert answer.status == 201
    assert set(answer.json) == {"user", "accessToken", "refreshToken", "tokenType", "expiresIn", "lawyer"}
    user, lawyer = answer.json["user"], answer.json["lawyer"]
    assert (user["email"], user["role"], user["name"]) == ("lawyer1@example.com", "LAWYER", "Lawyer 1")
    assert lawyer["id"] == user["id"]
    assert (lawyer["ratePerMinute"], lawyer["currency"]) == ("30.00", "INR")
    assert (lawyer["isVerified"], lawyer["isOnline"], lawyer["isBusy"]) == (False, False, False)
    assert (lawyer["rating"], lawyer["reviewCount"]) == (None, 0)
    assert (lawyer["barCouncilNumber"], lawyer["verification"]) == ("MH/1/2001", None)
    own = await api.call("GET", "/lawyer/profile", token=answer.json["accessToken"])
    assert own.json == lawyer


async def test_the_shortest_form_is_enough(api: Api) -> None:
    answer = await api.call(
        "POST", "/lawyer/register", json=form(specializations=..., languages=..., bio=...)
    )

    assert answer.status == 201
    assert (answer.json["lawyer"]["specializations"], answer.json["lawyer"]["bio"]) == ([], "")


@pytest.mark.parametrize(
    "name", ["\u0936\u094d\u200d\u0930\u0940", "Zo\u00eb \U0001f469\u200d\u2696\ufe0f", "\ue000"]
)
async def test_a_name_may_have_every_letter_that_its_script_needs(api: Api, name: str) -> None:
    """Hindi and Malayalam join letters with a character that prints nothing by itself."""
    answer = await api.call("POST", "/lawyer/register", json=form(name=name))

    assert answer.status == 201, answer.json
    assert answer.json["user"]["name"] == name


async def test_an_address_registers_once_in_any_case(api: Api) -> None:
    await api.call("POST", "/lawyer/register", json=form(1))
    again = await api.call("POST", "/lawyer/register", json=form(2, email="LAWYER1@example.com"))

    assert (again.status, again.code) == (409, "EMAIL_TAKEN")
    _, admin = await api.sign_in(Role.ADMIN)
    assert len(await all_items(api, "/admin/lawyers", admin)) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", ...),
        ("email", "nobody"),
        ("email", 7),
        ("password", ...),
        ("password", "short"),
        ("password", "x" * 73),
        ("name", ...),
        ("name", "  "),
        ("name", "x" * 121),
        ("ratePerMinute", ...),
        ("ratePerMinute", None),
        ("ratePerMinute", 0),
        ("ratePerMinute", "-5"),
        ("ratePerMinute", "30.001"),
        ("ratePerMinute", 30.001),
        ("ratePerMinute", "100000.01"),
        ("ratePerMinute", 10**30),
        ("ratePerMinute", "abc"),
        ("ratePerMinute", True),
        ("specializations", "Tax"),
        ("specializations", ["x"] * 21),
        ("languages", None),
        ("barCouncilNumber", ...),
        ("barCouncilNumber", ""),
        ("bio", "x" * 2_001),
        ("bio", None),
    ],
)
async def test_a_bad_registration_is_refused_by_name(api: Api, field: str, value: Any) -> None:
    answer = await api.call("POST", "/lawyer/register", json=form(**{field: value}))

    assert (answer.status, answer.code) == (422, "VALIDATION_FAILED")
    assert answer.fields == {field}
    _, admin = await api.sign_in(Role.ADMIN)
    assert await all_items(api, "/admin/lawyers", admin) == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/lawyer/register"),
        ("PATCH", "/lawyer/availability"),
        ("PATCH", "/lawyer/profile"),
        ("PATCH", "/lawyer/l1/verify"),
        ("POST", "/review"),
    ],
)
@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"isOnline": NaN}', "application/json", 400),
        (b'{"rating": 1e999999999}', "application/json", 400),
        (b"[" * 10_000, "application/json", 400),
        (b"[]", "application/json", 422),
        (b'"x"', "application/json", 422),
        (b'{"name": "\\ud800", "comment": "\\u0000"}', "application/json", 422),
        (b"isOnline=true", "application/x-www-form-urlencoded", 415),
        (b"{}" + b" " * 100_000, "application/json", 413),
    ],
)
async def test_what_is_no_json_object_is_refused(
    api: Api, method: str, path: str, data: bytes, content_type: str, status: int
) -> None:
    role = Role.ADMIN if path.endswith("verify") else Role.USER if path == "/review" else Role.LAWYER
    token = (await api.a_lawyer())[1] if role is Role.LAWYER else (await api.sign_in(role))[1]
    answer = await api.call(method, path, token=token, data=data, headers={"Content-Type": content_type})

    assert answer.status == status, answer.json


# Verification


async def test_the_admin_works_through_the_queue(api: Api) -> None:
    waiting = [(await api.a_lawyer(verified=False))[0] for _ in range(5)]
    await api.a_lawyer()
    admin_id, admin = await api.sign_in(Role.ADMIN)

    queue = await all_items(api, "/admin/lawyers", admin, verified="false", limit=2)
    assert [item["id"] for item in queue] == waiting
    assert queue[0]["email"] == "lawyer1@example.com"
    assert queue[0]["barCouncilNumber"] == "MH/1/2001"
    empty_body = await api.call("PATCH", f"/lawyer/{waiting[0]}/verify", token=admin)
    assert (empty_body.status, empty_body.json["isVerified"]) == (200, True)
    rejected = await api.call(
        "PATCH",
        f"/lawyer/{waiting[1]}/verify",
        token=admin,
        json={"isVerified": False, "reason": "No such number"},
    )
    assert rejected.json["verification"]["by"] == admin_id
    assert rejected.json["verification"]["reason"] == "No such number"
    assert [
        item["id"]
        for item in await all_items(api, "/admin/lawyers", admin, verified="false", decided="false")
    ] == waiting[2:]
    assert [item["id"] for item in await all_items(api, "/admin/lawyers", admin, decided="true")] == waiting[
        :2
    ]


async def test_a_rejection_needs_its_reason(api: Api) -> None:
    lawyer_id, _ = await api.a_lawyer()
    _, admin = await api.sign_in(Role.ADMIN)
    answer = await api.call("PATCH", f"/lawyer/{lawyer_id}/verify", token=admin, json={"isVerified": False})

    assert (answer.status, answer.fields) == (422, {"reason"})
    assert (await api.call("GET", f"/lawyer/{lawyer_id}", token=admin)).json["isVerified"] is True


async def test_the_lawyer_learns_why_but_not_from_whom(api: Api) -> None:
    lawyer_id, token = await api.a_lawyer(verified=False)
    _, admin = await api.sign_in(Role.ADMIN)
    await api.call(
        "PATCH", f"/lawyer/{lawyer_id}/verify", token=admin, json={"isVerified": False, "reason": "Expired"}
    )

    own = (await api.call("GET", "/lawyer/profile", token=token)).json
    assert own["verification"]["reason"] == "Expired"
    assert own["verification"]["by"] is None


async def test_changed_papers_are_not_verified(api: Api) -> None:
    lawyer_id, token = await api.a_lawyer(verified=False, barCouncilNumber="MH/1/2001")
    _, admin = await api.sign_in(Role.ADMIN)
    await api.call("PATCH", "/lawyer/profile", token=token, json={"barCouncilNumber": "DL/9/1999"})
    answer = await api.call(
        "PATCH", f"/lawyer/{lawyer_id}/verify", token=admin, json={"barCouncilNumber": "MH/1/2001"}
    )

    assert (answer.status, answer.code) == (409, "LAWYER_PAPERS_CHANGED")


@pytest.mark.parametrize("lawyer_id", ["nobody", "x" * 128, "%F0%9F%99%82"])
async def test_an_unknown_lawyer_is_not_found(api: Api, lawyer_id: str) -> None:
    user_id, user = await api.sign_in(Role.USER)
    _, admin = await api.sign_in(Role.ADMIN)

    for path in (f"/lawyer/{lawyer_id}", f"/lawyer/{lawyer_id}/reviews", f"/lawyer/{user_id}"):
        answer = await api.call("GET", path, token=user)
        assert (answer.status, answer.code) == (404, "NOT_FOUND")
    for unknown in (lawyer_id, user_id):
        answer = await api.call("PATCH", f"/lawyer/{unknown}/verify", token=admin, json={})
        assert (answer.status, answer.code) == (404, "NOT_FOUND")


async def test_an_unverified_lawyer_is_hidden_from_others(api: Api) -> None:
    lawyer_id, token = await api.a_lawyer(verified=False)
    _, other = await api.a_lawyer()
    _, user = await api.sign_in(Role.USER)
    _, admin = await api.sign_in(Role.ADMIN)

    for path in (f"/lawyer/{lawyer_id}", f"/lawyer/{lawyer_id}/reviews"):
        for stranger in (user, other):
            assert (await api.call("GET", path, token=stranger)).status == 404
        for insider in (token, admin):
            assert (await api.call("GET", path, token=insider)).status == 200
    assert lawyer_id not in [item["id"] for item in await all_items(api, "/lawyers", user)]


# Profile and availability


async def test_the_papers_are_for_the_lawyer_and_admins(api: Api) -> None:
    lawyer_id, token = await api.a_lawyer()
    _, user = await api.sign_in(Role.USER)
    _, admin = await api.sign_in(Role.ADMIN)

    async def number(viewer: str) -> str | None:
        shown = (await api.call("GET", f"/lawyer/{lawyer_id}", token=viewer)).json["barCouncilNumber"]
        return shown if shown is None else str(shown)

    assert await number(user) is None
    assert await number(token) == await number(admin) == "MH/1/2001"
    assert [item["barCouncilNumber"] for item in await all_items(api, "/lawyers", admin)] == [None]


async def test_a_lawyer_goes_online_and_offline(api: Api) -> None:
    lawyer_id, token = await api.a_lawyer(online=False)
    _, user = await api.sign_in(Role.USER)

    for is_online in (True, True, False):
        answer = await api.call("PATCH", "/lawyer/availability", token=token, json={"isOnline": is_online})
        assert (answer.status, answer.json["isOnline"]) == (200, is_online)
        shown = await api.call("GET", f"/lawyer/{lawyer_id}", token=user)
        assert shown.json["isOnline"] is is_online


@pytest.mark.parametrize(
    "body", [{}, {"isOnline": None}, {"isOnline": "true"}, {"isOnline": 1}, {"online": True}]
)
async def test_availability_is_a_plain_yes_or_no(api: Api, body: dict[str, Any]) -> None:
    _, token = await api.a_lawyer()
    answer = await api.call("PATCH", "/lawyer/availability", token=token, json=body)

    assert (answer.status, answer.fields) == (422, {"isOnline"})


async def test_a_profile_changes_in_the_named_fields(api: Api) -> None:
    lawyer_id, token = await api.a_lawyer()
    before = (await api.call("GET", "/lawyer/profile", token=token)).json
    answer = await api.call(
        "PATCH",
        "/lawyer/profile",
        token=token,
        json={
            "rate_per_minute": "45.5",
            "bio": " New.\nLines. ",
            "languages": ["Tamil", "TAMIL"],
            "unknown": 1,
        },
    )

    assert answer.json == before | {"ratePerMinute": "45.50", "bio": "New.\nLines.", "languages": ["Tamil"]}
    assert (await api.call("PATCH", "/lawyer/profile", token=token, json={"bio": None})).json == answer.json
    _, user = await api.sign_in(Role.USER)
    assert (await api.call("GET", f"/lawyer/{lawyer_id}", token=user)).json["ratePerMinute"] == "45.50"


@pytest.mark.parametrize(
    "body",
    [
        {"ratePerMinute": "0"},
        {"ratePerMinute": -1},
        {"ratePerMinute": 1.005},
        {"ratePerMinute": "100000.01"},
        {"ratePerMinute": "1e2"},
        {"name": ""},
        {"bio": 5},
        {"specializations": {"a": 1}},
        {"barCouncilNumber": "x" * 51},
    ],
)
async def test_a_bad_profile_change_changes_nothing(api: Api, body: dict[str, Any]) -> None:
    _, token = await api.a_lawyer()
    before = (await api.call("GET", "/lawyer/profile", token=token)).json
    answer = await api.call("PATCH", "/lawyer/profile", token=token, json=body | {"languages": ["Tamil"]})

    assert (answer.status, answer.fields) == (422, set(body))
    assert (await api.call("GET", "/lawyer/profile", token=token)).json == before


async def test_an_account_without_a_profile_is_told_so(api: Api) -> None:
    _, token = await api.sign_in(Role.LAWYER)

    for method, path, body in (
        ("GET", "/lawyer/profile", None),
        ("PATCH", "/lawyer/profile", {"bio": "x"}),
        ("PATCH", "/lawyer/availability", {"isOnline": True}),
    ):
        answer = await api.call(method, path, token=token, json=body)
        assert (answer.status, answer.code) == (404, "NOT_FOUND")


# Search


async def test_a_search_filters_sorts_and_pages(api: Api) -> None:
    _, user = await api.sign_in(Role.USER)
    ids = []
    for number in range(6):
        lawyer_id, _ = await api.a_lawyer(
            ratePerMinute=str(10 + number % 3),
            specializations=["Family Law"] if number % 2 else ["Tax"],
            languages=["Hindi"] if number < 4 else ["Tamil"],
            online=number != 5,
        )
        ids.append(lawyer_id)
    await api.people.claims.take(f"lawyer:{ids[0]}", "s1")
    await api.people.a_review(ids[3], 4)

    async def found(**query: Any) -> list[int]:
        return [ids.index(item["id"]) for item in await all_items(api, "/lawyers", user, **query)]

    assert await found(sort="rate") == [0, 3, 1, 4, 2, 5]
    assert await found(sort="rate", limit=1) == [0, 3, 1, 4, 2, 5]
    assert (await found())[0] == 3
    assert sorted(await found(limit=4)) == [0, 1, 2, 3, 4, 5]
    assert await found(specialization="family LAW", sort="rate") == [3, 1, 5]
    assert await found(specialization="family LAW", language="hindi", sort="rate") == [3, 1]
    assert await found(online="true", sort="rate") == [0, 3, 1, 4, 2]
    assert await found(online="false") == [5]
    assert await found(free="true", sort="rate") == [3, 1, 4, 2, 5]
    assert await found(free="false") == [0]
    assert await found(maxRate="10.99", sort="rate") == [0, 3]
    assert await found(minRating="3.5") == [3]
    assert await found(minRating="4.01") == []


async def test_a_found_lawyer_is_shown_whole(api: Api) -> None:
    _, user = await api.sign_in(Role.USER)
    lawyer_id, _ = await api.a_lawyer()
    await api.people.claims.take(f"lawyer:{lawyer_id}", "s1")
    (item,) = await all_items(api, "/lawyers", user)

    assert item == (await api.call("GET", f"/lawyer/{lawyer_id}", token=user)).json
    assert (item["isBusy"], item["isOnline"], item["rating"], item["reviewCount"]) == (True, True, None, 0)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"online": "maybe"}, "online"),
        ({"free": "2"}, "free"),
        ({"sort": "name"}, "sort"),
        ({"maxRate": "0"}, "maxRate"),
        ({"maxRate": "-1"}, "maxRate"),
        ({"maxRate": "NaN"}, "maxRate"),
        ({"maxRate": "1.001"}, "maxRate"),
        ({"minRating": "6"}, "minRating"),
        ({"minRating": "4.555"}, "minRating"),
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "1.5"}, "limit"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": "W10"}, "cursor"),
        ({"cursor": "WyJyYXRpbmciLDEuNSwieCJd"}, "cursor"),
        ({"specialization": "x" * 61}, "specialization"),
    ],
)
async def test_a_bad_search_is_refused_by_name(api: Api, query: dict[str, str], field: str) -> None:
    _, user = await api.sign_in(Role.USER)
    answer = await api.call("GET", "/lawyers", token=user, params=query)

    assert (answer.status, answer.fields) == (422, {field})


async def test_a_cursor_belongs_to_its_order(api: Api) -> None:
    """A rating read as a rate would silently skip most lawyers."""
    _, user = await api.sign_in(Role.USER)
    for _ in range(2):
        await api.a_lawyer()
    page = await api.call("GET", "/lawyers", token=user, params={"limit": 1, "sort": "rating"})
    answer = await api.call(
        "GET", "/lawyers", token=user, params={"cursor": page.json["nextCursor"], "sort": "rate"}
    )

    assert (answer.status, answer.fields) == (422, {"cursor"})


@pytest.mark.parametrize("path", ["/admin/lawyers", "/lawyer/earnings", "/lawyer/{id}/reviews"])
async def test_a_foreign_cursor_is_refused(api: Api, path: str) -> None:
    lawyer_id, lawyer = await api.a_lawyer()
    _, admin = await api.sign_in(Role.ADMIN)
    token = admin if path.startswith("/admin") else lawyer
    for cursor in ("nonsense!", "W10", "WzEsMl0", "WyJ4IiwieSJd"):
        answer = await api.call(
            "GET", path.replace("{id}", lawyer_id), token=token, params={"cursor": cursor}
        )
        assert (answer.status, answer.fields) == (422, {"cursor"})


# Earnings


async def test_earnings_come_from_the_books_of_the_caller(api: Api) -> None:
    lawyer_id, token = await api.a_lawyer()
    api.earnings.earned = [
        EarningRow(f"s{number}", 1_000, 125, 875, at_ms=5_000 - number // 2, key=f"k{9 - number}")
        for number in range(5)
    ]

    summary = await api.call("GET", "/lawyer/earnings/summary", token=token)
    assert summary.json == {
        "totalEarnings": "43.75",
        "todayEarnings": "0.00",
        "monthEarnings": "43.75",
        "available": "43.75",
        "receivable": "0.00",
        "totalSessions": 5,
        "currency": "INR",
    }
    assert api.earnings.asked == [(lawyer_id, "2026-01-01", "2026-01")]
    rows = await all_items(api, "/lawyer/earnings", token, limit=2)
    assert [row["sessionId"] for row in rows] == ["s0", "s1", "s2", "s3", "s4"]
    assert rows[0] == {
        "sessionId": "s0",
        "gross": "10.00",
        "commission": "1.25",
        "net": "8.75",
        "refunded": "0.00",
        "currency": "INR",
        "createdAt": "1970-01-01T00:00:05.000Z",
    }


async def test_the_month_turns_over_in_the_business_s_time_zone(api: Api) -> None:
    """At 18:30 UTC it is midnight in Kolkata."""
    _, token = await api.a_lawyer()
    api.people.clock.jump_ms(
        30 * 86_400_000 + int(18.5 * 3_600_000) - 1 - api.people.clock.now_ms() % 86_400_000
    )
    login = await api.accounts.log_in(email="lawyer1@example.com", password=PASSWORD)
    token = (await api.sign_ins.open(login)).access_token
    await api.call("GET", "/lawyer/earnings/summary", token=token)
    api.people.clock.jump_ms(1)
    await api.call("GET", "/lawyer/earnings/summary", token=token)

    assert [asked[1:] for asked in api.earnings.asked] == [
        ("2026-01-31", "2026-01"),
        ("2026-02-01", "2026-02"),
    ]
