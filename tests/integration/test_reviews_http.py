"""Reviews over HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from billing_engine.consultations.model import Status
from server.auth.model import Role
from tests.support.people_http import Api, open_api


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path / "people.db") as api:
        yield api


async def test_a_review_moves_the_rating_at_once(api: Api) -> None:
    lawyer_id, _ = await api.a_lawyer()
    user_id, user = await api.sign_in(Role.USER)
    for stars, printed in ((5, "5.00"), (4, "4.50"), (4, "4.33")):
        session_id = await api.people.a_session(lawyer_id, user_id=user_id)
        body = {"sessionId": session_id, "rating": stars, "comment": "  Clear.\nThank you.  "}
        answer = await api.call("POST", "/review", token=user, json=body)
        assert answer.status == 201
        assert answer.json == {
            "id": session_id,
            "sessionId": session_id,
            "lawyerId": lawyer_id,
            "rating": stars,
            "comment": "Clear.\nThank you.",
            "createdAt": "2026-01-01T00:00:00.000Z",
        }
        shown = (await api.call("GET", f"/lawyer/{lawyer_id}", token=user)).json
        (found,) = (await api.call("GET", "/lawyers", token=user)).json["items"]
        assert shown["rating"] == found["rating"] == printed

    assert shown["reviewCount"] == found["reviewCount"] == 3


async def test_a_review_is_given_once_and_stays(api: Api) -> None:
    lawyer_id, _ = await api.a_lawyer()
    user_id, user = await api.sign_in(Role.USER)
    session_id = await api.people.a_session(lawyer_id, user_id=user_id)
    await api.call("POST", "/review", token=user, json={"sessionId": session_id, "rating": 5})
    again = await api.call("POST", "/review", token=user, json={"sessionId": session_id, "rating": 1})

    assert (again.status, again.code, again.json["sessionId"]) == (409, "ALREADY_REVIEWED", session_id)
    (stored,) = (await api.call("GET", f"/lawyer/{lawyer_id}/reviews", token=user)).json["items"]
    assert (stored["rating"], stored["comment"]) == (5, None)


@pytest.mark.parametrize(
    ("status", "answered"),
    [
        (Status.ACTIVE, (409, "SESSION_NOT_ENDED")),
        (Status.PAUSED, (409, "SESSION_NOT_ENDED")),
        (Status.STARTING, (404, "NOT_FOUND")),
        (Status.ABORTED, (404, "NOT_FOUND")),
    ],
)
async def test_only_an_ended_session_is_reviewed(api: Api, status: Status, answered: tuple[int, str]) -> None:
    lawyer_id, _ = await api.a_lawyer()
    user_id, user = await api.sign_in(Role.USER)
    session_id = await api.people.a_session(lawyer_id, user_id=user_id, status=status)
    answer = await api.call("POST", "/review", token=user, json={"sessionId": session_id, "rating": 5})

    assert (answer.status, answer.code) == answered


async def test_somebody_elses_session_does_not_exist(api: Api) -> None:
    lawyer_id, _ = await api.a_lawyer()
    session_id = await api.people.a_session(lawyer_id, user_id="somebody")
    _, user = await api.sign_in(Role.USER)
    answers = [
        await api.call("POST", "/review", token=user, json={"sessionId": id_, "rating": 5})
        for id_ in (session_id, "nothing")
    ]

    for answer in answers:
        assert (answer.status, answer.code) == (404, "NOT_FOUND")
    assert answers[0].json["detail"] == answers[1].json["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"rating": 5}, "sessionId"),
        ({"sessionId": 1, "rating": 5}, "sessionId"),
        ({"sessionId": "s"}, "rating"),
        ({"sessionId": "s", "rating": 0}, "rating"),
        ({"sessionId": "s", "rating": 6}, "rating"),
        ({"sessionId": "s", "rating": 4.5}, "rating"),
        ({"sessionId": "s", "rating": "5"}, "rating"),
        ({"sessionId": "s", "rating": True}, "rating"),
        ({"sessionId": "s", "rating": 10**30}, "rating"),
        ({"sessionId": "s", "rating": 5, "comment": "x" * 2_001}, "comment"),
        ({"sessionId": "s", "rating": 5, "comment": "\x1b[31m"}, "comment"),
        ({"sessionId": "s", "rating": 5, "comment": {}}, "comment"),
    ],
)
async def test_a_bad_review_is_refused_by_name(api: Api, body: dict[str, Any], field: str) -> None:
    _, user = await api.sign_in(Role.USER)
    answer = await api.call("POST", "/review", token=user, json=body)

    assert (answer.status, answer.fields) == (422, {field})


@pytest.mark.parametrize("blank", ["", "   ", None])
async def test_a_blank_comment_is_none(api: Api, blank: str | None) -> None:
    lawyer_id, _ = await api.a_lawyer()
    user_id, user = await api.sign_in(Role.USER)
    session_id = await api.people.a_session(lawyer_id, user_id=user_id)
    answer = await api.call(
        "POST", "/review", token=user, json={"sessionId": session_id, "rating": 3, "comment": blank}
    )

    assert (answer.status, answer.json["comment"]) == (201, None)


async def test_reviews_page_newest_first(api: Api) -> None:
    lawyer_id, _ = await api.a_lawyer()
    _, user = await api.sign_in(Role.USER)
    posted = []
    for number in range(7):
        api.people.clock.jump_ms(number % 2)
        posted.append(await api.people.a_review(lawyer_id, 1 + number % 5))
    listed: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        page = (await api.call("GET", f"/lawyer/{lawyer_id}/reviews", token=user, params=query)).json
        listed += [item["id"] for item in page["items"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break

    assert listed == posted[::-1]
