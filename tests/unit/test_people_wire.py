"""What people may write about themselves and each other, and how it is refused."""

from decimal import Decimal
from typing import Any

import pytest
from multidict import MultiDict
from pydantic import BaseModel

from billing_engine.errors import Invalid
from billing_engine.money import INR
from server.errors import ValidationFailed
from server.http.parsing import read_query, validate
from server.people.model import LawyerCard, LawyerProfile, Rating, Verification
from server.people.ports import EarningRow, EarningsSummary
from server.people.wire import (
    AvailabilityBody,
    EarningsSummaryView,
    EarningView,
    LawyersQuery,
    LawyerView,
    ProfileBody,
    QueueQuery,
    ReviewBody,
    VerifyBody,
    rate_minor,
)

REVIEW = {"sessionId": "s1", "rating": 5}


def refused_fields(model: type[BaseModel], value: dict[str, Any]) -> set[str]:
    with pytest.raises(ValidationFailed) as caught:
        validate(model, value, whole="body")
    return {name for name, _ in caught.value.facts["errors"]}


@pytest.mark.parametrize(
    ("model", "value", "field"),
    [
        (ReviewBody, {"rating": 5}, "sessionId"),
        (ReviewBody, REVIEW | {"sessionId": 7}, "sessionId"),
        (ReviewBody, REVIEW | {"sessionId": ""}, "sessionId"),
        (ReviewBody, REVIEW | {"sessionId": "x" * 129}, "sessionId"),
        (ReviewBody, {"sessionId": "s1"}, "rating"),
        (ReviewBody, REVIEW | {"rating": 0}, "rating"),
        (ReviewBody, REVIEW | {"rating": 6}, "rating"),
        (ReviewBody, REVIEW | {"rating": -1}, "rating"),
        (ReviewBody, REVIEW | {"rating": True}, "rating"),
        (ReviewBody, REVIEW | {"rating": "5"}, "rating"),
        (ReviewBody, REVIEW | {"rating": Decimal("4.5")}, "rating"),
        (ReviewBody, REVIEW | {"rating": 10**39}, "rating"),
        (ReviewBody, REVIEW | {"rating": None}, "rating"),
        (ReviewBody, REVIEW | {"comment": "x" * 2_001}, "comment"),
        (ReviewBody, REVIEW | {"comment": "bell \x07"}, "comment"),
        (ReviewBody, REVIEW | {"comment": ["x"]}, "comment"),
        (AvailabilityBody, {}, "isOnline"),
        (AvailabilityBody, {"isOnline": None}, "isOnline"),
        (AvailabilityBody, {"isOnline": 1}, "isOnline"),
        (AvailabilityBody, {"isOnline": "true"}, "isOnline"),
        (VerifyBody, {"isVerified": "no"}, "isVerified"),
        (VerifyBody, {"isVerified": None}, "isVerified"),
        (VerifyBody, {"reason": "x" * 501}, "reason"),
        (VerifyBody, {"reason": "   "}, "reason"),
        (ProfileBody, {"name": "  "}, "name"),
        (ProfileBody, {"name": "two\nlines"}, "name"),
        (ProfileBody, {"ratePerMinute": True}, "ratePerMinute"),
        (ProfileBody, {"ratePerMinute": {}}, "ratePerMinute"),
        (ProfileBody, {"ratePerMinute": "9" * 41}, "ratePerMinute"),
        (ProfileBody, {"specializations": "Tax"}, "specializations"),
        (ProfileBody, {"specializations": ["Tax"] * 21}, "specializations"),
        (ProfileBody, {"specializations": ["x" * 61]}, "specializations.0"),
        (ProfileBody, {"languages": ["Hindi", ""]}, "languages.1"),
        (ProfileBody, {"languages": [7]}, "languages.0"),
        (ProfileBody, {"barCouncilNumber": "x" * 51}, "barCouncilNumber"),
        (ProfileBody, {"bio": "x" * 2_001}, "bio"),
    ],
)
def test_a_bad_field_is_named(model: type[BaseModel], value: dict[str, Any], field: str) -> None:
    assert refused_fields(model, value) == {field}


def test_an_empty_body_verifies() -> None:
    verdict = validate(VerifyBody, {}, whole="body")

    assert isinstance(verdict, VerifyBody)
    assert (verdict.is_verified, verdict.reason) == (True, None)


def test_prose_keeps_its_lines_and_loses_its_margins() -> None:
    review = validate(ReviewBody, REVIEW | {"comment": "  Good.\n\tVery good. 🙂  "}, whole="body")

    assert isinstance(review, ReviewBody)
    assert review.comment == "Good.\n\tVery good. 🙂"


@pytest.mark.parametrize("written", ["0.01", 1, "45", Decimal("45.50"), "100000", "100000.00"])
def test_a_rate_within_the_bounds_is_read_exactly(written: object) -> None:
    assert rate_minor(written, INR, field="ratePerMinute") == int(Decimal(str(written)) * 100)


@pytest.mark.parametrize(
    "written",
    ["0", 0, "0.00", "-1", -1, "100000.01", "1e3", "45.001", "", "abc", "NaN", "Infinity", "10" * 20],
)
def test_a_rate_outside_is_refused_by_name(written: object) -> None:
    """A free lawyer would never be cut off; a misread rate bills somebody wrongly for an hour."""
    with pytest.raises(Invalid) as caught:
        rate_minor(written, INR, field="ratePerMinute")
    facts = caught.value.facts
    assert facts.get("field") == "ratePerMinute" or facts["errors"][0][0] == "ratePerMinute"


def test_a_search_is_read_from_a_query_string() -> None:
    query = read_query(
        MultiDict(
            {
                "online": "true",
                "free": "false",
                "specialization": " Tax ",
                "language": "Hindi",
                "maxRate": "45.50",
                "minRating": "4.5",
                "sort": "rate",
                "limit": "7",
            }
        ),
        LawyersQuery,
    )

    assert isinstance(query, LawyersQuery)
    assert (query.online, query.free, query.specialization, query.language) == (True, False, "Tax", "Hindi")
    assert (query.max_rate, query.min_rating, query.sort.value, query.limit) == ("45.50", 450, "rate", 7)


@pytest.mark.parametrize(
    ("written", "centi"), [("0", 0), ("5", 500), ("5.00", 500), ("4.05", 405), ("3.7", 370)]
)
def test_a_least_rating_is_read_exactly(written: str, centi: int) -> None:
    query = read_query(MultiDict({"minRating": written}), LawyersQuery)

    assert isinstance(query, LawyersQuery)
    assert query.min_rating == centi


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("online", "maybe"),
        ("free", ""),
        ("sort", "name"),
        ("limit", "0"),
        ("limit", "101"),
        ("limit", "ten"),
        ("minRating", "5.01"),
        ("minRating", "-1"),
        ("minRating", "4.505"),
        ("minRating", "NaN"),
        ("minRating", "٤"),
        ("specialization", "  "),
        ("specialization", "x" * 61),
        ("language", "a\x01b"),
        ("cursor", ""),
        ("maxRate", "1" * 41),
    ],
)
def test_a_bad_query_field_is_named(name: str, text: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        read_query(MultiDict({name: text}), LawyersQuery)
    assert {field for field, _ in caught.value.facts["errors"]} == {name}


def test_the_queue_is_filtered_by_words() -> None:
    query = read_query(MultiDict({"verified": "false"}), QueueQuery)

    assert isinstance(query, QueueQuery)
    assert (query.verified, query.decided) == (False, None)


CARD = LawyerCard(
    LawyerProfile(
        id="l1",
        name="Asha Rao",
        rate_minor_per_min=4_550,
        specializations=("Tax",),
        languages=("Hindi",),
        bar_council_number="MH/1/2001",
        bio="",
        created_at_ms=1_767_225_600_123,
        is_verified=True,
        verification=Verification(by="a1", at_ms=1_767_225_600_456, reason=None),
        rating=Rating(9, 2),
    ),
    is_busy=True,
)


def test_everybody_sees_the_lawyer_but_not_the_papers() -> None:
    shown = LawyerView.public(CARD, INR).model_dump(mode="json")

    assert shown == {
        "id": "l1",
        "name": "Asha Rao",
        "ratePerMinute": "45.50",
        "currency": "INR",
        "autoAccept": True,
        "waitingList": False,
        "rating": "4.50",
        "reviewCount": 2,
        "isVerified": True,
        "isOnline": False,
        "isBusy": True,
        "specializations": ["Tax"],
        "languages": ["Hindi"],
        "bio": "",
        "createdAt": "2026-01-01T00:00:00.123Z",
        "barCouncilNumber": None,
        "verification": None,
    }


def test_the_lawyer_sees_the_verdict_and_admins_see_whose_it_was() -> None:
    own, admin = LawyerView.own(CARD, INR), LawyerView.for_admin(CARD, INR)

    assert own.bar_council_number == admin.bar_council_number == "MH/1/2001"
    assert own.verification is not None
    assert own.verification.by is None
    assert admin.verification is not None
    assert admin.verification.by == "a1"


def test_earnings_are_decimal_strings() -> None:
    summary = EarningsSummary(
        total_minor=123_450,
        today_minor=-50,
        month_minor=0,
        available_minor=100,
        sessions=3,
        receivable_minor=7,
    )
    row = EarningRow("s1", gross_minor=1_000, commission_minor=125, net_minor=875, at_ms=0, key="k")

    assert EarningsSummaryView.of(summary, INR).model_dump(mode="json") == {
        "totalEarnings": "1234.50",
        "todayEarnings": "-0.50",
        "monthEarnings": "0.00",
        "available": "1.00",
        "receivable": "0.07",
        "totalSessions": 3,
        "currency": "INR",
    }
    assert EarningView.of(row, INR).model_dump(mode="json") == {
        "sessionId": "s1",
        "gross": "10.00",
        "commission": "1.25",
        "net": "8.75",
        "refunded": "0.00",
        "currency": "INR",
        "createdAt": "1970-01-01T00:00:00.000Z",
    }
