"""What a company's back end reports, over HTTP: every field, every repeat, every price at its own time."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.wire import rfc3339
from tests.support.api import Api, Person, open_api
from tests.support.companies import Company, a_company
from tests.support.http import Answer

DAY_MS = 86_400_000
CV, QUESTIONS, VIDEO = "cv-parsing", "question-generation", "video-interview"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path, access_token_minutes=1_440) as api:
        yield api


@pytest.fixture
async def acme(api: Api) -> Company:
    return await a_company(api, "100.00")


async def priced(admin: Person, type_: str, price: str, **more: Any) -> Answer:
    body = {"list": "tokens", "type": type_, "price": price, "reason": "For the test", **more}
    answer = await admin.call("PUT", "/admin/usage-prices", json=body)
    assert answer.status == 200, answer.text
    return answer


async def refused_as_it_is(api: Api, company: Company, path: str, body: Any) -> Answer:
    """The refusal of a report that has changed nothing."""
    await api.idle()
    before = api.everything()
    answer = await company.back_end.post(path, body)
    assert answer.status == 422, answer.text
    await api.idle()
    assert api.everything() == before, body
    return answer


# --- the three calls


async def test_a_parsed_cv_says_all_that_was_said_of_it(api: Api, acme: Company) -> None:
    report = {
        "eventId": "cv-77",
        "jobId": "job-481",
        "candidateId": "candidate-77",
        "fileSizeKb": 182,
        "parseSuccessful": True,
        "successRate": 95.50,
        "occurredAt": "2025-12-31T23:59:59.000Z",
    }
    told = await acme.uses(CV, **report)
    assert told == {
        "usageId": told["usageId"],
        "eventId": "cv-77",
        "jobId": "job-481",
        "type": "cv-parsing",
        "entryType": "CV_PARSE",
        "quantity": 1,
        "unit": "cv",
        "cost": "0.50",
        "currency": "USD",
        "status": "CHARGED",
        "walletBalance": "99.50",
        "occurredAt": "2025-12-31T23:59:59.000Z",
        "createdAt": "2026-01-01T00:00:00.000Z",
        "chargedAt": "2026-01-01T00:00:00.000Z",
        "duplicate": False,
    }
    seen = await acme.back_end.get(f"/api/usage/{told['usageId']}")
    assert seen.json == told | {
        "details": {
            "candidateId": "candidate-77",
            "fileSizeKb": 182,
            "parseSuccessful": True,
            "successRate": "95.5",
            "priceList": "tokens",
            "price": "0.50",
            "per": 1,
        }
    }
    (line, _) = (await acme.sees("/ledger"))["items"]
    assert (line["entryType"], line["amount"], line["referenceId"]) == ("CV_PARSE", "-0.50", told["usageId"])
    assert (line["balanceBefore"], line["balanceAfter"]) == ("100.00", "99.50")
    assert (
        line["metadata"].items() >= {"jobId": "job-481", "candidateId": "candidate-77", "unit": "cv"}.items()
    )
    await api.books_are_clean()


async def test_a_cv_that_could_not_be_parsed_costs_nothing(acme: Company) -> None:
    told = await acme.uses(CV, parseSuccessful=False, eventId="bad", jobId="j")
    assert (told["status"], told["cost"], told["quantity"], told["walletBalance"]) == (
        "FREE",
        "0.00",
        0,
        None,
    )
    assert told["chargedAt"] is None
    assert (await acme.uses(CV, eventId="bad"))["duplicate"] is True
    assert (await acme.sees("/status"))["totalSpent"] == "0.00"
    assert [line["entryType"] for line in (await acme.sees("/ledger"))["items"]] == ["RECHARGE"]


@pytest.mark.parametrize(
    ("report", "tokens", "cost", "estimated"),
    [
        # Document 001: 2,000 characters and 30 questions are 5,000 tokens.
        ({"questionCount": 30, "jobDescription": "x" * 2_000}, 5_000, "0.01", True),
        ({"questionCount": 10, "requestedQuestionCount": 30, "jobDescription": "x" * 2_000}, 4_000, "0.008", True),
        # A quarter of the characters, half up: 0.5, 1.5.
        ({"questionCount": 0, "jobDescription": "xx"}, 1, "0.000002", True),
        ({"questionCount": 0, "jobDescription": "x" * 6}, 2, "0.000004", True),
        # Characters are characters, whatever they take to write down.
        ({"questionCount": 0, "jobDescription": "नौकरी 💼"}, 2, "0.000004", True),
        ({"questionCount": 3, "promptTokens": 1_000, "completionTokens": 500}, 1_500, "0.003", False),
        ({"questionCount": 3, "promptTokens": 1_000}, 1_150, "0.0023", True),
        ({"questionCount": 3, "completionTokens": 1_000, "jobDescription": "x" * 4}, 1_301, "0.002602", True),
        ({"questionCount": 3, "promptTokens": 1, "completionTokens": 0}, 1, "0.000002", False),
    ],
)  # fmt: skip
async def test_tokens_that_nobody_counted_are_estimated(
    acme: Company, report: Any, tokens: int, cost: str, estimated: bool
) -> None:
    told = await acme.uses(QUESTIONS, modelUsed="gpt-4o", **report)
    assert (told["quantity"], told["unit"], told["cost"], told["entryType"]) == (
        tokens,
        "token",
        cost,
        "JD_QUESTIONS",
    )
    details = (await acme.back_end.get(f"/api/usage/{told['usageId']}")).json["details"]
    assert (details["tokensEstimated"], details["modelUsed"]) == (estimated, "gpt-4o")
    assert details["promptTokens"] + details["completionTokens"] == tokens
    assert "jobDescription" not in details


@pytest.mark.parametrize(
    ("length", "minutes"),
    [
        ({"durationMinutes": 14.4}, 14),
        ({"durationMinutes": 14.5}, 15),
        ({"durationMinutes": 14.499999999999}, 14),
        ({"durationMinutes": 0}, 1),
        ({"durationMinutes": 0.4}, 1),
        ({"durationMinutes": 1_440}, 1_440),
        ({"startedAt": "2026-01-01T10:00:00Z", "endedAt": "2026-01-01T10:14:29.999Z"}, 14),
        ({"startedAt": "2026-01-01T10:00:00Z", "endedAt": "2026-01-01T10:14:30Z"}, 15),
        ({"startedAt": "2026-01-01T10:00:00Z", "endedAt": "2026-01-01T10:00:00Z"}, 1),
        ({"startedAt": "2026-01-01T10:00:00+05:30", "endedAt": "2026-01-01T05:30:00+00:00"}, 60),
    ],
)  # fmt: skip
async def test_minutes_are_rounded_half_up_and_at_least_one(acme: Company, length: Any, minutes: int) -> None:
    await acme.recharged("100.00")
    told = await acme.uses(
        VIDEO, interviewId="i-9", completedQuestions=4, totalQuestions=5, videoQuality="HD", **length
    )
    assert (told["quantity"], told["unit"], told["entryType"]) == (minutes, "minute", "VIDEO_INTERVIEW")
    assert float(told["cost"]) == pytest.approx(minutes / 10)
    details = (await acme.back_end.get(f"/api/usage/{told['usageId']}")).json["details"]
    assert details.items() >= {
        "interviewId": "i-9", "completedQuestions": 4, "totalQuestions": 5, "videoQuality": "HD",
    }.items()  # fmt: skip


BAD = [
    (CV, {"eventId": ""}, "eventId"),
    (CV, {"eventId": "x" * 129}, "eventId"),
    (CV, {"eventId": 7}, "eventId"),
    (CV, {"eventId": "a\x00b"}, "eventId"),
    (CV, {"jobId": ""}, "jobId"),
    (CV, {"jobId": ["j"]}, "jobId"),
    (CV, {"candidateId": {}}, "candidateId"),
    (CV, {"fileSizeKb": -1}, "fileSizeKb"),
    (CV, {"fileSizeKb": 1.5}, "fileSizeKb"),
    (CV, {"fileSizeKb": "12"}, "fileSizeKb"),
    (CV, {"parseSuccessful": "yes"}, "parseSuccessful"),
    (CV, {"parseSuccessful": None}, "parseSuccessful"),
    (CV, {"successRate": 101}, "successRate"),
    (CV, {"successRate": -0.1}, "successRate"),
    (CV, {"successRate": True}, "successRate"),
    (CV, {"occurredAt": "yesterday"}, "occurredAt"),
    (CV, {"occurredAt": "2026-01-01T00:00:00"}, "occurredAt"),
    (CV, {"occurredAt": 1_767_225_600}, "occurredAt"),
    (CV, {"occurredAt": "2026-01-01T00:05:00.001Z"}, "occurredAt"),
    (CV, {"occurredAt": "2025-11-26T23:59:59.999Z"}, "occurredAt"),
    (QUESTIONS, {}, "questionCount"),
    (QUESTIONS, {"questionCount": -1}, "questionCount"),
    (QUESTIONS, {"questionCount": 2.5}, "questionCount"),
    (QUESTIONS, {"questionCount": 1_000_001}, "questionCount"),
    (QUESTIONS, {"questionCount": 1, "requestedQuestionCount": "3"}, "requestedQuestionCount"),
    (QUESTIONS, {"questionCount": 1, "promptTokens": -5}, "promptTokens"),
    (QUESTIONS, {"questionCount": 1, "promptTokens": 10**10}, "promptTokens"),
    (QUESTIONS, {"questionCount": 1, "completionTokens": 0.5}, "completionTokens"),
    (QUESTIONS, {"questionCount": 1, "jobDescription": 3}, "jobDescription"),
    (QUESTIONS, {"questionCount": 1, "jobDescription": "x" * 100_001}, "jobDescription"),
    (QUESTIONS, {"questionCount": 1, "modelUsed": ""}, "modelUsed"),
    (QUESTIONS, {"questionCount": 1, "draft": 1}, "draft"),
    (QUESTIONS, {"questionCount": 1, "draft": True}, "jobId"),
    (VIDEO, {"durationMinutes": 3}, "interviewId"),
    (VIDEO, {"interviewId": "i"}, "durationMinutes"),
    (VIDEO, {"interviewId": "i", "durationMinutes": -1}, "durationMinutes"),
    (VIDEO, {"interviewId": "i", "durationMinutes": 1_441}, "durationMinutes"),
    (VIDEO, {"interviewId": "i", "durationMinutes": "15"}, "durationMinutes"),
    (VIDEO, {"interviewId": "i", "startedAt": "2026-01-01T10:00:00Z"}, "endedAt"),
    (VIDEO, {"interviewId": "i", "endedAt": "2026-01-01T10:00:00Z"}, "startedAt"),
    (VIDEO, {"interviewId": "i", "durationMinutes": 3, "startedAt": "2026-01-01T10:00:00Z"}, "endedAt"),
    (VIDEO, {"interviewId": "i", "startedAt": "2026-01-01T10:00:00Z", "endedAt": "2026-01-01T09:00:00Z"}, "endedAt"),
    (VIDEO, {"interviewId": "i", "startedAt": "2026-01-01T10:00:00Z", "endedAt": "2026-01-02T10:00:00.001Z"}, "endedAt"),
    (VIDEO, {"interviewId": "i", "durationMinutes": 3, "completedQuestions": -1}, "completedQuestions"),
    (VIDEO, {"interviewId": "i", "durationMinutes": 3, "totalQuestions": None, "videoQuality": "x" * 65}, "videoQuality"),
]  # fmt: skip


async def test_what_cannot_be_is_named_by_its_field_and_changes_nothing(api: Api, acme: Company) -> None:
    wrong = []
    for type_, report, field in BAD:
        answer = await refused_as_it_is(api, acme, f"/api/usage/{type_}", report)
        if answer.fields != [field]:
            wrong.append((type_, report, answer.text[:300]))
    assert wrong == []


# --- repeats


async def test_a_repeated_event_answers_the_first_result(api: Api, acme: Company) -> None:
    first = await acme.uses(CV, eventId="e1", jobId="a")
    await acme.uses(CV, eventId="e2")
    await api.advance(60)
    # Whatever else it says now, and whoever says it.
    again = await acme.uses(QUESTIONS, eventId="e1", questionCount=5, jobId="b")
    assert again == first | {"duplicate": True}
    assert (await acme.owner.post(f"/api/usage/{CV}", {"eventId": "e1"})).json == again
    assert (await acme.sees("/status"))["totalSpent"] == "1.00"
    assert [item["eventId"] for item in (await acme.back_end.get("/api/usage")).json["items"]] == ["e2", "e1"]


async def test_an_idempotency_key_repeats_the_very_answer_and_both_together_charge_once(
    api: Api, acme: Company
) -> None:
    path = f"/api/usage/{CV}"
    first = await acme.back_end.post(path, {"candidateId": "c"}, key="k1")
    again = await acme.back_end.post(path, {"candidateId": "c"}, key="k1")
    assert (again.status, again.json) == (201, first.json)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await acme.back_end.post(path, {"candidateId": "d"}, key="k1")
    assert (other.status, other.code) == (422, "IDEMPOTENCY_KEY_REUSED")
    both = [await acme.back_end.post(path, {"eventId": "e"}, key="k2") for _ in range(2)]
    assert both[0].json == both[1].json
    assert both[0].json["duplicate"] is False
    elsewhere = await acme.back_end.post(path, {"eventId": "e"}, key="k3")
    assert elsewhere.json == both[0].json | {"duplicate": True}
    assert (await acme.sees("/status"))["totalSpent"] == "1.00"
    await api.books_are_clean()


async def test_one_event_reported_by_many_at_once_is_charged_once(api: Api, acme: Company) -> None:
    answers = await asyncio.gather(*(acme.uses(CV, eventId=f"e{n % 5}", jobId="j") for n in range(50)))
    assert sum(not answer["duplicate"] for answer in answers) == 5
    assert len({answer["usageId"] for answer in answers}) == 5
    assert (await acme.sees("/status"))["walletBalance"] == "97.50"
    zeta = await a_company(api, "100.00")
    assert (await zeta.uses(CV, eventId="e1"))["duplicate"] is False, "an event id is its company's own"


# --- drafts


async def test_drafts_are_charged_when_their_job_is_published_at_their_own_price(
    api: Api, acme: Company
) -> None:
    admin = await api.admin()
    draft = await acme.uses(
        QUESTIONS, jobId="j", questionCount=0, promptTokens=5_000, draft=True, eventId="d1"
    )
    assert (draft["status"], draft["cost"], draft["walletBalance"], draft["chargedAt"]) == (
        "DRAFT",
        "0.01",
        None,
        None,
    )
    assert (await acme.sees("/status"))["totalSpent"] == "0.00"
    assert (await acme.sees("/usage"))["usage"]["total"] == {"count": 0, "cost": "0.00"}
    await priced(admin, QUESTIONS, "0.004")
    await api.advance(10)
    await acme.uses(QUESTIONS, jobId="j", questionCount=0, promptTokens=5_000, draft=True, eventId="d2")
    # What is no draft of the same job, and a draft of another one, have nothing to do with it.
    await acme.uses(CV, jobId="j")
    await acme.uses(QUESTIONS, jobId="other", questionCount=0, promptTokens=9_000, draft=True)
    published = await acme.back_end.post("/api/jobs/j/publish", key="p")
    assert published.status == 200, published.text
    assert (published.json["jobId"], published.json["cost"], published.json["currency"]) == (
        "j",
        "0.03",
        "USD",
    )
    assert published.json["publishedAt"] == rfc3339(api.clock.now_ms())
    assert [(one["eventId"], one["cost"], one["status"]) for one in published.json["items"]] == [
        ("d1", "0.01", "CHARGED"),
        ("d2", "0.02", "CHARGED"),
    ]
    assert (await acme.back_end.post("/api/jobs/j/publish", key="p")).json == published.json
    at = published.json["publishedAt"]
    await api.advance(60)
    again = (await acme.back_end.post("/api/jobs/j/publish")).json
    assert (again["items"], again["cost"], again["publishedAt"]) == ([], "0.00", at)
    # It says what the event is now, not what it was.
    assert (await acme.uses(QUESTIONS, jobId="j", questionCount=0, eventId="d1"))["status"] == "CHARGED"
    status = await acme.sees("/status")
    assert (status["walletBalance"], status["totalSpent"]) == ("99.47", "0.53")
    (job,) = (await acme.sees("/usage?jobId=j"))["jobs"]
    assert (job["publishedAt"], job["usage"]["questionGeneration"]["cost"]) == (at, "0.03")
    # A draft that comes after it waits for the next time.
    late = await acme.uses(QUESTIONS, jobId="j", questionCount=0, promptTokens=1_000, draft=True)
    assert late["status"] == "DRAFT"
    assert (await acme.back_end.post("/api/jobs/j/publish")).json["cost"] == "0.004"
    await api.books_are_clean()


async def test_a_job_is_published_by_its_company_alone(api: Api, acme: Company) -> None:
    zeta = await a_company(api)
    await acme.uses(QUESTIONS, jobId="j", questionCount=3, draft=True)
    for who, job in ((zeta, "j"), (acme, "unknown")):
        answer = await who.back_end.post(f"/api/jobs/{job}/publish")
        assert (answer.status, answer.code) == (404, "JOB_NOT_FOUND")
    # Two companies may call their jobs alike.
    await zeta.uses(QUESTIONS, jobId="j", questionCount=3, draft=True)
    assert len((await zeta.back_end.post("/api/jobs/j/publish")).json["items"]) == 1
    assert (await acme.back_end.get("/api/usage")).json["items"][0]["status"] == "DRAFT"


async def test_publishing_from_many_sides_charges_each_draft_once(api: Api, acme: Company) -> None:
    for n in range(20):
        await acme.uses(
            QUESTIONS, jobId="j", questionCount=0, promptTokens=1_000, draft=True, eventId=f"d{n}"
        )
    answers = await asyncio.gather(*(acme.back_end.post("/api/jobs/j/publish") for _ in range(5)))
    assert {answer.status for answer in answers} == {200}
    assert sorted(one["eventId"] for answer in answers for one in answer.json["items"]) == sorted(
        f"d{n}" for n in range(20)
    )
    assert (await acme.sees("/status"))["totalSpent"] == "0.04"


# --- prices


async def test_a_usage_is_priced_by_the_price_of_its_own_time(api: Api, acme: Company) -> None:
    admin = await api.admin()
    start_ms = api.clock.now_ms()
    await priced(admin, CV, "0.60", effectiveFrom=rfc3339(start_ms + 2 * DAY_MS))
    await priced(admin, CV, "0", effectiveFrom=rfc3339(start_ms + 4 * DAY_MS))
    assert (await acme.uses(CV))["cost"] == "0.50"
    # Days are jumped: nobody waits for every second of them.
    api.clock.jump_ms(2 * DAY_MS - 1)
    assert (await acme.uses(CV))["cost"] == "0.50"
    # Of a clock that is ahead of ours.
    assert (await acme.uses(CV, occurredAt=rfc3339(start_ms + 2 * DAY_MS)))["cost"] == "0.60"
    api.clock.jump_ms(1)
    assert (await acme.uses(CV))["cost"] == "0.60"
    assert (await acme.uses(CV, occurredAt=rfc3339(start_ms + 2 * DAY_MS - 1)))["cost"] == "0.50"
    api.clock.jump_ms(2 * DAY_MS)
    free = await acme.uses(CV)
    assert (free["cost"], free["status"]) == ("0.00", "FREE")
    details = (await acme.back_end.get(f"/api/usage/{free['usageId']}")).json["details"]
    assert (details["price"], details["priceList"]) == ("0.00", "tokens")
    api.clock.jump_ms(31 * DAY_MS)
    assert (await acme.uses(CV, occurredAt=rfc3339(start_ms + 2 * DAY_MS)))["cost"] == "0.60"
    assert (await acme.uses(CV, occurredAt=rfc3339(start_ms + 35 * DAY_MS + 300_000)))["cost"] == "0.00"
    for ms in (api.clock.now_ms() - 35 * DAY_MS - 1, api.clock.now_ms() + 300_001):
        answer = await refused_as_it_is(api, acme, f"/api/usage/{CV}", {"occurredAt": rfc3339(ms)})
        assert answer.fields == ["occurredAt"]


async def test_another_price_list_counts_from_its_choice_on(api: Api, acme: Company) -> None:
    """Document 000's list: ten questions 0.10, seven 0.07, a minute 0.50."""
    admin = await api.admin()
    before = rfc3339(api.clock.now_ms())
    assert (await acme.uses(QUESTIONS, questionCount=7))["unit"] == "token"
    await api.advance(60)
    path = f"/admin/companies/{acme.id}/price-list"
    assert (await admin.call("PUT", path, json={"priceList": "questions"})).status == 200
    for count, cost in ((10, "0.10"), (7, "0.07"), (0, "0.00")):
        told = await acme.uses(QUESTIONS, questionCount=count)
        assert (told["quantity"], told["unit"], told["cost"]) == (count, "question", cost)
    assert (await acme.uses(VIDEO, interviewId="i", durationMinutes=5))["cost"] == "2.50"
    assert (await acme.uses(QUESTIONS, questionCount=7, occurredAt=before))["unit"] == "token"
    card = (await acme.sees("/usage"))["usage"]["questionGeneration"]
    assert card["quantities"] == [{"unit": "question", "quantity": 17}, {"unit": "token", "quantity": 2_100}]
    assert (card["count"], card["cost"]) == (4, "0.1742")


async def test_another_type_of_the_price_book_by_its_quantity(api: Api, acme: Company) -> None:
    admin = await api.admin()
    await priced(admin, "transcript", "0.25", per=3, unit="page", entryType="TRANSCRIPT")
    await api.advance(10)
    told = await acme.uses("transcript", quantity=12, reference="interview-9", jobId="j", eventId="t1")
    assert (told["type"], told["entryType"], told["quantity"], told["unit"], told["cost"]) == (
        "transcript", "TRANSCRIPT", 12, "page", "1.00",
    )  # fmt: skip
    assert (await acme.uses("transcript", quantity=0))["status"] == "FREE"
    assert (await acme.uses("transcript", quantity=1))["cost"] == "0.083333"
    page = await acme.sees("/usage")
    assert page["usage"]["other"]["transcript"]["cost"] == page["usage"]["total"]["cost"] == "1.083333"
    assert (await acme.sees("/ledger?type=TRANSCRIPT"))["items"][-1]["metadata"]["reference"] == "interview-9"
    for type_, body, field in (
        ("unheard-of", {"quantity": 1}, "type"),
        ("transcript", {}, "quantity"),
        ("transcript", {"quantity": -1}, "quantity"),
        ("transcript", {"quantity": 1.5}, "quantity"),
        ("transcript", {"quantity": 10**12 + 1}, "quantity"),
        ("transcript", {"quantity": 1, "reference": ""}, "reference"),
    ):
        answer = await refused_as_it_is(api, acme, f"/api/usage/{type_}", body)
        assert answer.fields == [field], (type_, body)


# --- batches


def events(count: int, **more: Any) -> list[Any]:
    return [{"type": CV, "eventId": f"b{n}", **more} for n in range(count)]


async def test_a_batch_charges_up_to_500_in_their_order(api: Api, acme: Company) -> None:
    await acme.recharged("400.00")
    sent = events(500, jobId="j")
    sent[3] = {"type": VIDEO, "eventId": "b3", "interviewId": "i", "durationMinutes": 15}
    sent[4] = {"type": QUESTIONS, "eventId": "b4", "questionCount": 30, "jobDescription": "x" * 2_000}
    answer = await acme.back_end.post("/api/usage/batch", {"events": sent})
    assert answer.status == 200, answer.text
    items = answer.json["items"]
    assert [item["eventId"] for item in items] == [event["eventId"] for event in sent]
    assert {item["status"] for item in items} == {"CHARGED"}
    assert [item["walletBalance"] for item in items[:6]] == [
        "499.50",
        "499.00",
        "498.50",
        "497.00",
        "496.99",
        "496.49",
    ]
    assert items[-1]["walletBalance"] == "249.49"
    again = await acme.back_end.post("/api/usage/batch", {"events": sent})
    assert again.json["items"] == [item | {"duplicate": True} for item in items]
    status = await acme.sees("/status")
    assert (status["walletBalance"], status["totalSpent"]) == ("249.49", "250.51")
    await api.books_are_clean()


async def test_one_batch_may_say_the_same_twice_and_what_was_said_alone(acme: Company) -> None:
    alone = await acme.uses(CV, eventId="b1")
    answer = await acme.back_end.post(
        "/api/usage/batch", {"events": [*events(3), *events(2), {"type": CV, "eventId": "last"}]}
    )
    items = answer.json["items"]
    assert [(item["eventId"], item["duplicate"]) for item in items] == [
        ("b0", False), ("b1", True), ("b2", False), ("b0", True), ("b1", True), ("last", False),
    ]  # fmt: skip
    assert items[1] == alone | {"duplicate": True}
    assert items[3] == items[0] | {"duplicate": True}
    assert {item["status"] for item in items} == {"CHARGED"}
    assert (await acme.sees("/status"))["totalSpent"] == "2.00"


async def test_a_batch_with_one_bad_event_records_nothing_and_names_it(api: Api, acme: Company) -> None:
    for bad, field in (
        ({"type": QUESTIONS, "eventId": "x"}, "events.3.questionCount"),
        ({"type": QUESTIONS, "eventId": "x", "questionCount": -1}, "events.3.questionCount"),
        ({"type": CV}, "events.3.eventId"),
        ({"eventId": "x"}, "events.3.type"),
        ({"type": "unheard-of", "eventId": "x", "quantity": 1}, "events.3.type"),
        ({"type": VIDEO, "eventId": "x", "durationMinutes": 2}, "events.3.interviewId"),
        ({"type": VIDEO, "eventId": "x", "interviewId": "i"}, "events.3.durationMinutes"),
        ({"type": CV, "eventId": "x", "occurredAt": "2020-01-01T00:00:00Z"}, "events.3.occurredAt"),
        ({"type": QUESTIONS, "eventId": "x", "questionCount": 1, "draft": True}, "events.3.jobId"),
        ("text", "events.3"),
        (None, "events.3"),
    ):
        sent = events(6)
        sent[3] = bad
        answer = await refused_as_it_is(api, acme, "/api/usage/batch", {"events": sent})
        assert answer.fields == [field], (bad, answer.text[:300])
    for whole, field in ((events(501), "events"), ([], "events"), ({}, "events"), (None, "events")):
        answer = await refused_as_it_is(api, acme, "/api/usage/batch", {"events": whole})
        assert answer.fields == [field], answer.text[:300]


# --- lists


async def test_usages_are_listed_by_job_type_and_status_page_by_page(acme: Company) -> None:
    for n in range(3):
        await acme.uses(CV, jobId="a", eventId=f"cv{n}")
    await acme.uses(CV, jobId="b", eventId="free", parseSuccessful=False)
    await acme.uses(QUESTIONS, jobId="a", eventId="draft", questionCount=3, draft=True)
    await acme.uses(VIDEO, jobId="b", eventId="iv", interviewId="i", durationMinutes=1)
    for query, expected in (
        ("", "iv draft free cv2 cv1 cv0"),
        ("?jobId=a", "draft cv2 cv1 cv0"),
        ("?type=cv-parsing", "free cv2 cv1 cv0"),
        ("?jobId=a&type=cv-parsing", "cv2 cv1 cv0"),
        ("?status=DRAFT", "draft"),
        ("?status=FREE&jobId=b", "free"),
        ("?jobId=unknown", ""),
    ):
        found = await acme.everything_of(f"/api/usage{query}")
        assert " ".join(one["eventId"] for one in found) == expected, query
    for query, field in (
        ("?status=PAID", "status"),
        ("?limit=0", "limit"),
        ("?limit=101", "limit"),
        ("?cursor=x", "cursor"),
    ):
        answer = await acme.back_end.get(f"/api/usage{query}")
        assert (answer.status, answer.fields) == (422, [field]), query
