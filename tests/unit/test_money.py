"""Money is read, printed and priced exactly, or not at all."""

import json
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from billing_engine.money import (
    AI_CREDIT,
    APPLICATION_CREDIT,
    ASSETS,
    INR,
    MAX_MINOR,
    USD,
    Asset,
    MoneyInvalid,
    affordable_seconds,
    commission_of,
    format_minor,
    parse_minor,
    price,
)

assets = st.sampled_from(list(ASSETS.values()))
minors = st.integers(-MAX_MINOR, MAX_MINOR)
rates = st.integers(1, 10**9)
seconds = st.integers(0, 10**7)


@given(minor=minors, asset=assets)
def test_what_is_printed_reads_back_as_the_same_amount(minor: int, asset: Asset) -> None:
    assert parse_minor(format_minor(minor, asset), asset) == minor


@given(minor=minors, asset=assets)
def test_the_printed_text_is_the_exact_number(minor: int, asset: Asset) -> None:
    text = format_minor(minor, asset)
    assert Fraction(text) == Fraction(minor, 10**asset.decimals)
    whole, _, fraction = text.partition(".")
    assert whole.lstrip("-").isdigit()
    assert len(fraction) == 2 or (len(fraction) > 2 and fraction[-1] != "0")


@pytest.mark.parametrize(
    ("minor", "asset", "text"),
    [
        (1_250, INR, "12.50"),
        (0, INR, "0.00"),
        (5, INR, "0.05"),
        (-5, INR, "-0.05"),
        (50_000, INR, "500.00"),
        (1_500_000, USD, "1.50"),
        (1_234_500, USD, "1.2345"),
        (1, USD, "0.000001"),
        (1, AI_CREDIT, "0.001"),
        (1_500, AI_CREDIT, "1.50"),
        (7, APPLICATION_CREDIT, "7.00"),
    ],
)
def test_at_least_two_decimals_further_zeros_trimmed(minor: int, asset: Asset, text: str) -> None:
    assert format_minor(minor, asset) == text


@pytest.mark.parametrize(
    ("value", "asset", "minor"),
    [
        ("500.00", INR, 50_000),
        ("500", INR, 50_000),
        ("500.5", INR, 50_050),
        ("500.5000", INR, 50_050),
        ("0500.05", INR, 50_005),
        ("-0.01", INR, -1),
        ("-0", INR, 0),
        (500, INR, 50_000),
        (-3, INR, -300),
        (Decimal("0.10"), INR, 10),
        (Decimal("1E+3"), INR, 100_000),
        (Decimal("12.3400"), INR, 1_234),
        ("0.000001", USD, 1),
        ("7", APPLICATION_CREDIT, 7),
        ("7.000", APPLICATION_CREDIT, 7),
        ("10000000000000.00", INR, MAX_MINOR),
    ],
)
def test_amounts_that_are_read(value: object, asset: Asset, minor: int) -> None:
    assert parse_minor(value, asset) == minor


@pytest.mark.parametrize(
    "value",
    [
        *(0.1, 500.0, float("nan"), float("inf"), True, False, None, b"5", [], {}, 5 + 0j),
        *("", " ", "1 000", " 5", "5 ", "5\n", "+5", "--5", "5-", "-", ".", ".5", "5.", "1.2.3", "1,5", "1,000.00"),
        *("1e3", "1E3", "0x10", "NaN", "Infinity", "-inf", "₹5", "five", "1_000", "٥", "५", "１", "5\x00", "½"),
        *("0.001", "500.005", "0.10000001", "1." + "0" * 13, "1" * 17, "9" * 400, "10000000000000.01"),
        *(Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("0.001"), Decimal("1E+40")),
        *(Decimal("1E+999999999999"), Decimal("1E-999999999999"), Decimal("-1E+999999999999")),
        *(10**14, -(10**14), 10**5_000),
    ],
    ids=lambda value: f"{type(value).__name__}:{str(value)[:20] if not isinstance(value, int) else value.bit_length()!r}",
)  # fmt: skip
def test_what_is_no_exact_amount_is_refused_and_names_its_field(value: object) -> None:
    """A float has lost the number that the client wrote; nothing is ever rounded to fit."""
    with pytest.raises(MoneyInvalid) as refused:
        parse_minor(value, INR, field="maxAmount")
    assert refused.value.facts["field"] == "maxAmount"
    assert refused.value.code == "VALIDATION_FAILED"


@given(text=st.text(max_size=30))
@example("-")
@example("1" * 17)
def test_any_text_is_read_exactly_or_refused(text: str) -> None:
    try:
        minor = parse_minor(text, INR)
    except MoneyInvalid:
        return
    assert Fraction(text) * 100 == minor


@given(number=st.decimals(allow_nan=False, allow_infinity=False, places=6) | st.integers())
def test_a_json_number_read_exactly_is_the_string_of_it(number: Decimal | int) -> None:
    """Clients write `500`, `500.0` or `"500.00"`; all are one amount."""
    read = json.loads(
        format(number, "f") if isinstance(number, Decimal) else str(number), parse_float=Decimal
    )
    results = []
    for value in (read, str(number) if isinstance(number, int) else format(number, "f")):
        try:
            results.append(parse_minor(value, USD))
        except MoneyInvalid:
            results.append(None)
    assert results[0] == results[1]


@given(rate=rates, s=seconds)
def test_the_price_is_the_exact_price_rounded_down_once(rate: int, s: int) -> None:
    exact = Fraction(rate * s, 60)
    assert price(rate, s) <= exact < price(rate, s) + 1


@given(rate=rates, gaps=st.lists(st.integers(0, 600), max_size=40))
def test_charging_in_pieces_costs_what_charging_once_costs(rate: int, gaps: list[int]) -> None:
    """Telescoping: every tick charges the difference to what has been charged."""
    s = charged = 0
    for gap in gaps:
        s += gap
        step = price(rate, s) - charged
        assert step >= 0
        charged += step
    assert charged == price(rate, sum(gaps))


@given(rate=rates, minor=st.integers(0, MAX_MINOR))
@example(rate=1, minor=0)
@example(rate=60, minor=0)
@example(rate=10**9, minor=0)
def test_the_affordable_seconds_are_the_most_that_the_money_pays(rate: int, minor: int) -> None:
    """One less is an unserved second that was paid, one more an unpaid second that was served."""
    s = affordable_seconds(rate, minor)
    assert price(rate, s) <= minor < price(rate, s + 1)


@given(rate=rates, s=seconds)
def test_holding_the_price_of_some_seconds_pays_at_least_these_seconds(rate: int, s: int) -> None:
    reached = affordable_seconds(rate, price(rate, s))
    assert reached >= s
    assert price(rate, reached) == price(rate, s)


@given(gross=st.integers(0, MAX_MINOR), bp=st.integers(0, 10_000))
def test_commission_is_rounded_down_and_leaves_the_rest(gross: int, bp: int) -> None:
    commission = commission_of(gross, bp)
    exact = Fraction(gross * bp, 10_000)
    assert commission <= exact < commission + 1
    assert 0 <= commission <= gross
