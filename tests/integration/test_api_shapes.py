"""What answers look like, to the letter (SPEC 1 to 7): an app's generated code breaks on a renamed field or a bare number."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.api import Api, ApiClock, Person, open_api
from tests.support.http import PASSWORD, Answer

MONEY: Final = re.compile(r"\d+\.\d{2}")
INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ID: Final = re.compile(r"[0-9a-f]{32}")
#: What kind of value stands under a name, wherever it stands. Everything that is sent must be in here.
MONEY_NAMES: Final = {
    *(
        "amount",
        "walletBalance",
        "held",
        "balanceBefore",
        "balanceAfter",
        "ratePerMinute",
        "totalAmount",
        "maxAmount",
    ),
    *("remainingBalance", "requiredBalance", "gross", "commission", "net", "totalEarnings", "todayEarnings"),
    *("monthEarnings", "available", "required"),
}
INSTANT_NAMES: Final = {
    "erasedAt",
    "createdAt",
    "startedAt",
    "endedAt",
    "paidUntil",
    "deliveredAt",
    "seenAt",
    "at",
}
COUNT_NAMES: Final = {
    *(
        "remainingSeconds",
        "durationSeconds",
        "elapsedSeconds",
        "affordableSeconds",
        "thresholdSeconds",
        "unreadCount",
    ),
    *(
        "seq",
        "lastSeq",
        "deliveredSeq",
        "seenSeq",
        "updated",
        "reviewCount",
        "totalSessions",
        "expiresIn",
        "status_",
    ),
}
FLAG_NAMES: Final = {
    "isVerified",
    "isOnline",
    "isBusy",
    "canStart",
    "everywhere",
    "hasMore",
    "ok",
    "duplicate",
    "isTyping",
}

SESSION: Final = {
    *("sessionId", "userId", "lawyerId", "ratePerMinute", "currency", "status", "startedAt", "paidUntil"),
    *(
        "remainingSeconds",
        "durationSeconds",
        "totalAmount",
        "endedAt",
        "endReason",
        "requestState",
        "deadline",
    ),
}
#: Beyond the documented session; null where they do not belong.
SESSION_MORE: Final = {
    "maxAmount",
    "remainingBalance",
    "timeline",
    "lastMessage",
    "unreadCount",
    "refundedAmount",
}
LAWYER: Final = {"id", "name", "ratePerMinute", "rating", "reviewCount", "isVerified", "isOnline", "isBusy"}
LAWYER_MORE: Final = {
    *("currency", "specializations", "languages", "bio", "createdAt", "barCouncilNumber", "verification"),
    *("autoAccept", "waitingList"),
}
MESSAGE: Final = {
    *(
        "id",
        "sessionId",
        "seq",
        "senderId",
        "clientMsgId",
        "body",
        "status",
        "createdAt",
        "deliveredAt",
        "seenAt",
    ),
    # Beyond the document: null unless retention took the body.
    "erasedAt",
}
#: When the body was erased, long after the end; null until then.
ERASED: Final = {"erasedAt"}
BILL: Final = {
    *(
        "sessionId",
        "elapsedSeconds",
        "totalAmount",
        "walletBalance",
        "remainingSeconds",
        "paidUntil",
        "status",
    ),
    *("reason", "lastSeq"),
}
BILL_MORE: Final = {"currency", "ratePerMinute"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path) as api:
        yield api


def _nodes(payload: Any) -> Iterator[tuple[str, Any]]:
    match payload:
        case dict():
            for name, value in payload.items():
                yield name, value
                yield from _nodes(value)
        case list():
            for value in payload:
                yield from _nodes(value)


def _is_as_its_name_says(name: str, value: Any) -> bool:
    if value is None:
        return True
    if name in MONEY_NAMES:
        return isinstance(value, str) and MONEY.fullmatch(value) is not None
    if name in INSTANT_NAMES:
        return isinstance(value, str) and INSTANT.fullmatch(value) is not None
    if name in COUNT_NAMES:
        return type(value) is int and value >= 0
    if name in FLAG_NAMES:
        return type(value) is bool
    if name == "currency":
        return bool(value == "INR")
    if name.endswith("Id") and name not in {"clientMsgId", "referenceId", "requestId", "paymentId"}:
        return isinstance(value, str) and ID.fullmatch(value) is not None
    # No float anywhere: whatever is a number is counted above, or is a problem's status.
    return not isinstance(value, float)


async def test_the_whole_story_is_in_the_documented_words(api: Api) -> None:
    """From registering to the review, every payload that anybody gets: its fields, its money, its instants."""
    told: list[tuple[str, Any]] = []

    def note(where: str, answer: Answer, status: int, fields: set[str]) -> Any:
        assert answer.status == status, (where, answer.text)
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        assert set(answer.json) == fields, (where, set(answer.json) ^ fields)
        told.append((where, answer.json))
        return answer.json

    tokens = {"accessToken", "refreshToken", "tokenType", "expiresIn"}
    account = {"id", "email", "name", "role", "profession", "companyName", "companyId"}
    form = {"email": "asha@example.com", "password": PASSWORD, "name": "Asha"}
    registered = await api.anonymous.post("/auth/register", form)
    note("register", registered, 201, {"user", *tokens})
    assert set(registered.json["user"]) == account
    login = await api.anonymous.post("/auth/login", {"email": "asha@example.com", "password": PASSWORD})
    note("login", login, 200, {"user", *tokens})
    user = Person(api.http, api.base_url, login.json, "asha@example.com")
    note("refresh", await user.post("/auth/refresh", {"refreshToken": user.refresh_token}), 200, tokens)
    assert note("me", await user.get("/auth/me"), 200, account)["role"] == "USER"

    lawyer_form = form | {
        "email": "rao@example.com",
        "ratePerMinute": 60,
        "specializations": ["Tax"],
        "languages": ["Hindi"],
        "barCouncilNumber": "KAR/1/2015",
        "bio": "",
    }
    answer = await api.anonymous.post("/lawyer/register", lawyer_form)
    assert note("lawyer", answer, 201, {"user", "lawyer", *tokens})["lawyer"]["isVerified"] is False
    lawyer = Person(api.http, api.base_url, answer.json, "rao@example.com")
    admin = await api.admin()
    queue = note("queue", await admin.get("/admin/lawyers?verified=false"), 200, {"items", "nextCursor"})
    assert set(queue["items"][0]) == LAWYER | LAWYER_MORE | {"email"}
    note("verify", await admin.patch(f"/lawyer/{lawyer.id}/verify"), 200, LAWYER | LAWYER_MORE)
    online = await lawyer.patch("/lawyer/availability", {"isOnline": True})
    note("availability", online, 200, LAWYER | LAWYER_MORE)
    note("own profile", await lawyer.get("/lawyer/profile"), 200, LAWYER | LAWYER_MORE)
    found = note("lawyers", await user.get("/lawyers"), 200, {"items", "nextCursor"})
    assert set(found["items"][0]) == LAWYER | LAWYER_MORE
    note("a lawyer", await user.get(f"/lawyer/{lawyer.id}"), 200, LAWYER | LAWYER_MORE)

    transaction = {
        "id",
        "type",
        "amount",
        "balanceBefore",
        "balanceAfter",
        "referenceId",
        "status",
        "createdAt",
    }
    transaction |= {"kind", "currency"}
    recharge = {"paymentId", "status", "amount", "currency", "order", "walletBalance", "transaction"}
    recharged = note("recharge", await user.post("/wallet/recharge", {"amount": 200}), 201, recharge)
    assert set(recharged["transaction"]) == transaction
    note("balance", await user.get("/wallet/balance"), 200, {"walletBalance", "held", "currency"})
    quote = {
        "lawyerId",
        "ratePerMinute",
        "currency",
        "walletBalance",
        "affordableSeconds",
        "requiredBalance",
        "canStart",
    }
    note("quote", await user.get(f"/consult/quote?lawyerId={lawyer.id}"), 200, quote)

    mine, theirs = await api.connect(user.token), await api.connect(lawyer.token)
    started = await user.post("/consult/start", {"lawyerId": lawyer.id})
    session_id = note("start", started, 201, SESSION | SESSION_MORE)["sessionId"]
    note("active", await lawyer.get("/consult/active"), 200, SESSION | SESSION_MORE)
    joined = await mine.call("join_session", {"sessionId": session_id, "pendingIds": ["c0"]})
    assert set(joined) == {
        *(
            "ok",
            "sessionId",
            "lastSeq",
            "messages",
            "hasMore",
            "watermarks",
            "presence",
            "billing",
            "stored",
            "call",
        ),
    }
    assert set(joined["billing"]) == BILL | BILL_MORE
    assert (await theirs.call("join_session", {"sessionId": session_id}))["ok"]
    sent = await mine.call("send_message", {"sessionId": session_id, "body": "Hello", "clientMsgId": "c1"})
    assert set(sent) == {"ok", "id", "seq", "status", "createdAt", "clientMsgId", "duplicate"}
    message = (await theirs.hears("new_message"))[0]
    assert set(message) == MESSAGE | ERASED
    delivered = await theirs.call("message_delivered", {"sessionId": session_id, "messageId": sent["id"]})
    assert set(delivered) == {"ok", "deliveredSeq", "seenSeq"}
    seen = await theirs.call("mark_seen", {"sessionId": session_id})
    assert (set(seen), seen["updated"]) == ({"ok", "deliveredSeq", "seenSeq", "updated"}, 1)
    await mine.hears("message_status", 2)
    told += [("join", joined), ("sent", sent), ("delivered", delivered), ("seen", seen)]

    listed = note("mine", await lawyer.get("/consult"), 200, {"items", "nextCursor"})
    assert set(listed["items"][0]) == SESSION | SESSION_MORE
    assert set(listed["items"][0]["lastMessage"]) == {"seq", "senderId", "body", "createdAt"} | ERASED
    await api.advance(90)
    await mine.hears("session:low_balance")
    note("end", await user.post(f"/consult/{session_id}/end"), 200, SESSION | SESSION_MORE)
    note("one", await user.get(f"/consult/{session_id}"), 200, SESSION | SESSION_MORE)
    history = await lawyer.get(f"/chat/{session_id}")
    page = note("history", history, 200, {"items", "nextCursor", "lastSeq", "watermarks"})
    assert set(page["items"][0]) == MESSAGE | ERASED
    assert page["items"][0]["status"] == "SEEN"
    rows = note("transactions", await user.get("/wallet/transactions"), 200, {"items", "nextCursor"})
    assert [set(row) for row in rows["items"]] == [transaction, transaction]
    assert (rows["items"][0]["type"], rows["items"][0]["referenceId"]) == ("DEBIT", session_id)
    review = {"id", "sessionId", "lawyerId", "rating", "comment", "createdAt"}
    posted = await user.post("/review", {"sessionId": session_id, "rating": 4, "comment": "Clear."})
    assert note("review", posted, 201, review)["rating"] == 4
    reviews = note("reviews", await user.get(f"/lawyer/{lawyer.id}/reviews"), 200, {"items", "nextCursor"})
    assert set(reviews["items"][0]) == review
    summary = {
        "totalEarnings",
        "todayEarnings",
        "monthEarnings",
        "totalSessions",
        "currency",
        "available",
        "receivable",
    }
    note("summary", await lawyer.get("/lawyer/earnings/summary"), 200, summary)
    earned = note("earnings", await lawyer.get("/lawyer/earnings"), 200, {"items", "nextCursor"})
    assert set(earned["items"][0]) == {
        *("sessionId", "gross", "commission", "net", "refunded", "currency", "createdAt")
    }
    note("logout", await user.post("/auth/logout", {}), 200, {"ok", "everywhere"})

    await theirs.hears("session:ended")
    await mine.hears("server:bye")
    heard = [*mine.events, *theirs.events]
    assert {name for name, _ in heard} >= {
        *("session:started", "session:tick", "session:low_balance", "session:ended"),
        *("new_message", "message_status", "presence", "server:bye"),
    }
    for name, payload in heard:
        if name.startswith("session:"):
            more = {"thresholdSeconds"} if name == "session:low_balance" else set()
            assert set(payload) == BILL | BILL_MORE | more, name
    wrong = [
        (where, name, value)
        for where, payload in [*told, *heard]
        for name, value in _nodes(payload)
        if not _is_as_its_name_says(name, value)
    ]
    assert wrong == []


async def test_every_refusal_has_the_same_shape(api: Api) -> None:
    user, lawyer = await api.a_user(), await api.a_lawyer()
    for answer, more in (
        (await api.anonymous.get("/auth/me"), set()),
        (await user.get("/lawyer/profile"), set()),
        (await user.get("/nothing"), set()),
        (await user.call("DELETE", "/consult"), set()),
        (await user.post("/wallet/recharge", {}), {"errors"}),
        (await user.call("POST", "/wallet/recharge", raw=b"{"), set()),
        (await user.post("/consult/start", {"lawyerId": "x"}), {"lawyerId"}),
        (await user.post("/consult/start", {"lawyerId": lawyer.id}), {"required", "available"}),
    ):
        assert answer.headers["Content-Type"].startswith("application/problem+json")
        usual = {"type", "title", "status", "code", "detail", "instance", "requestId"}
        assert set(answer.json) == usual | more, answer.text
        assert answer.json["status"] == answer.status
        assert re.fullmatch(r"[A-Z][A-Z0-9_]+", answer.json["code"])
        for name in more & MONEY_NAMES:
            assert MONEY.fullmatch(answer.json[name])
        for error in answer.json.get("errors", []):
            assert set(error) == {"field", "problem"}


async def test_both_spellings_are_read_and_one_is_written(api: Api) -> None:
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    started = await user.post("/consult/start", {"lawyer_id": lawyer.id, "max_amount": "100"})
    assert (started.status, started.json["maxAmount"]) == (201, "100.00")
    assert (await lawyer.patch("/lawyer/availability", {"is_online": False})).json["isOnline"] is False
    assert (await user.get(f"/consult/quote?lawyer_id={lawyer.id}")).status == 200


async def test_a_lawyer_s_day_and_month_begin_in_the_time_zone_of_the_business(tmp_path: Path) -> None:
    """18:30 UTC is midnight in India. What ends before it is yesterday's, and at the month's end last month's."""
    before_midnight = 1_769_884_170_000  # 2026-01-31T18:29:30Z
    async with open_api(tmp_path, clock=ApiClock(before_midnight), commission_percent="10") as api:
        user, lawyer = await api.a_user("500.00"), await api.a_lawyer()

        async def summary() -> tuple[str, str, str, int, str]:
            found = (await lawyer.get("/lawyer/earnings/summary")).json
            return tuple(
                found[name]
                for name in ("totalEarnings", "todayEarnings", "monthEarnings", "totalSessions", "available")
            )

        first = await user.start(lawyer.id)
        await api.advance(20)
        await user.end(first)
        assert await summary() == ("18.00", "18.00", "18.00", 1, "18.00")
        await api.advance(10)
        assert await summary() == ("18.00", "0.00", "0.00", 1, "18.00")
        second = await user.start(lawyer.id)
        await api.advance(7)
        await user.end(second)
        # 10 % of 7.00, rounded down in favour of the lawyer where it does not come out even.
        assert await summary() == ("24.30", "6.30", "6.30", 2, "24.30")
        await api.advance(86_400)
        await lawyer.log_in_again()
        assert await summary() == ("24.30", "0.00", "6.30", 2, "24.30")
        rows = (await lawyer.get("/lawyer/earnings")).json["items"]
        assert [(row["gross"], row["commission"], row["net"]) for row in rows] == [
            ("7.00", "0.70", "6.30"),
            ("20.00", "2.00", "18.00"),
        ]
        await api.books_are_clean()


async def test_a_rating_is_the_exact_mean_at_any_moment(api: Api) -> None:
    user, lawyer = await api.a_user("5000.00"), await api.a_lawyer()
    other = await api.a_lawyer()

    async def rating() -> tuple[Any, Any]:
        card = (await user.get(f"/lawyer/{lawyer.id}")).json
        in_search = {row["id"]: row for row in (await user.get("/lawyers")).json["items"]}[lawyer.id]
        assert (card["rating"], card["reviewCount"]) == (in_search["rating"], in_search["reviewCount"])
        return card["rating"], card["reviewCount"]

    assert await rating() == (None, 0)
    for stars, expected in ((5, "5.00"), (5, "5.00"), (4, "4.67"), (1, "3.75"), (1, "3.20"), (4, "3.33")):
        session_id = await user.start(lawyer.id)
        early = await user.post("/review", {"sessionId": session_id, "rating": stars})
        assert (early.status, early.code) == (409, "SESSION_NOT_ENDED")
        await user.end(session_id)
        assert (await user.post("/review", {"sessionId": session_id, "rating": stars})).status == 201
        again = await user.post("/review", {"sessionId": session_id, "rating": 5})
        assert (again.status, again.code) == (409, "ALREADY_REVIEWED")
        assert (await rating())[0] == expected
    assert await rating() == ("3.33", 6)
    ids = [row["id"] for row in (await user.get("/lawyers?minRating=3.33")).json["items"]]
    assert ids == [lawyer.id]
    assert (await user.get("/lawyers?minRating=3.34")).json["items"] == []
    everyone = [row["id"] for row in (await user.get("/lawyers")).json["items"]]
    assert everyone == [lawyer.id, other.id]


async def test_of_many_reviews_at_once_one_counts(api: Api) -> None:
    """An impatient thumb must not decide a lawyer's rating."""
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    session_id = await user.start(lawyer.id)
    await user.end(session_id)
    answers = await asyncio.gather(
        *(user.post("/review", {"sessionId": session_id, "rating": 1 + n % 5}) for n in range(20))
    )
    assert sorted(answer.status for answer in answers) == [201, *[409] * 19]
    first = next(answer for answer in answers if answer.status == 201)
    card = (await user.get(f"/lawyer/{lawyer.id}")).json
    assert (card["rating"], card["reviewCount"]) == (f"{first.json['rating']}.00", 1)


@pytest.mark.parametrize("rating", [0, 6, -1, 4.5, "5", True, None, 10**30, [], "five"])
async def test_a_rating_is_1_to_5(api: Api, rating: Any) -> None:
    user = await api.a_user()
    answer = await user.post("/review", {"sessionId": "x", "rating": rating})
    assert (answer.status, answer.fields) == (422, ["rating"])
