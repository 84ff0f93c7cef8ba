"""Ratings, search keys and days: the arithmetic that people see."""

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.people.model import (
    LawyerProfile,
    ProfileChange,
    Rating,
    distinct,
    format_centi,
    local_day,
    search_key,
)


@given(stars=st.lists(st.integers(1, 5), min_size=1, max_size=400))
def test_a_rating_is_the_exact_mean_rounded_half_up(stars: list[int]) -> None:
    """A float mean, or half to even, prints 4.12 where the reviews say 4.125."""
    exact = Decimal(sum(stars)) / len(stars)
    centi = Rating(sum(stars), len(stars)).centi

    assert centi is not None
    assert Decimal(format_centi(centi)) == exact.quantize(Decimal("0.01"), ROUND_HALF_UP)


@pytest.mark.parametrize(
    ("rating", "printed"),
    [
        (Rating(33, 8), "4.13"),  # 4.125
        (Rating(9, 2), "4.50"),
        (Rating(13, 3), "4.33"),
        (Rating(14, 3), "4.67"),
        (Rating(5, 1), "5.00"),
        (Rating(1, 1), "1.00"),
        (Rating(201, 200), "1.01"),  # 1.005
    ],
)
def test_a_rating_prints_two_decimals(rating: Rating, printed: str) -> None:
    assert rating.centi is not None
    assert format_centi(rating.centi) == printed


def test_without_reviews_there_is_no_rating() -> None:
    assert Rating().centi is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Family Law", "family law"),
        ("  Family   law ", "FAMILY LAW"),
        ("Straße", "STRASSE"),
        ("ＴＡＸ", "tax"),
        ("हिन्दी", "हिन्दी"),
        ("cafe\u0301", "caf\u00e9"),
    ],
)
def test_spellings_of_one_label_meet(one: str, other: str) -> None:
    assert search_key(one) == search_key(other)


def test_different_labels_stay_different() -> None:
    assert search_key("Family Law") != search_key("FamilyLaw")


def test_repeated_labels_are_kept_once_in_the_first_spelling() -> None:
    assert distinct(("Tax", "Family Law", "TAX", "family  law", "Criminal")) == (
        "Tax",
        "Family Law",
        "Criminal",
    )


def test_a_day_begins_where_the_business_is() -> None:
    """Half past six in the evening UTC is midnight in India: tomorrow's first rupee must not count for today."""
    kolkata = ZoneInfo("Asia/Kolkata")
    last_ms = int(datetime(2026, 11, 30, 18, 29, 59, 999_000, tzinfo=UTC).timestamp() * 1000)

    assert local_day(last_ms, kolkata) == "2026-11-30"
    assert local_day(last_ms + 1, kolkata) == "2026-12-01"


def a_profile() -> LawyerProfile:
    return LawyerProfile(
        id="l1",
        name="Asha Rao",
        rate_minor_per_min=3_000,
        specializations=("Tax",),
        languages=("Hindi",),
        bar_council_number="MH/1/2001",
        bio="",
        created_at_ms=1,
    )


@pytest.mark.parametrize(
    ("change", "asks"),
    [
        (ProfileChange(), False),
        (ProfileChange(rate_minor_per_min=9, bio="x", languages=(), specializations=()), False),
        (ProfileChange(name="Asha Rao", bar_council_number="MH/1/2001"), False),
        (ProfileChange(name="Somebody Else"), True),
        (ProfileChange(bar_council_number="MH/2/2002"), True),
    ],
)
def test_a_new_name_or_number_asks_for_a_new_verification(change: ProfileChange, *, asks: bool) -> None:
    assert change.asks_new_verification(a_profile()) is asks
