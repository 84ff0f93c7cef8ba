"""Amounts cross to Stripe and back exactly, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_engine.money import ASSETS, MAX_MINOR
from billing_engine.payments.errors import GatewayRefused
from server.gateways.stripe_money import CURRENCIES, DECIMALS, from_stripe, to_stripe

currencies = st.sampled_from(sorted(CURRENCIES))


@given(amount=st.integers(1, MAX_MINOR // 10_000), currency=currencies)
def test_what_stripe_says_comes_back_as_it_was(amount: int, currency: str) -> None:
    amount_minor, code = from_stripe(amount, currency.lower())

    assert code == currency
    assert to_stripe(amount_minor, currency) == amount


@given(amount_minor=st.integers(-MAX_MINOR, MAX_MINOR), currency=currencies)
def test_an_amount_crosses_whole_or_is_refused(amount_minor: int, currency: str) -> None:
    """Rounding would charge a payer other than what is credited."""
    try:
        amount = to_stripe(amount_minor, currency)
    except GatewayRefused:
        assert amount_minor <= 0 or amount_minor % 10 ** (ASSETS[currency].decimals - DECIMALS[currency])
    else:
        assert amount > 0
        assert from_stripe(amount, currency) == (amount_minor, currency)


@pytest.mark.parametrize(
    ("amount_minor", "currency", "amount"),
    [(25_000_000, "USD", 2_500), (10_000, "USD", 1), (50_000, "INR", 50_000), (1, "INR", 1)],
)
def test_dollars_have_cents_at_stripe_and_rupees_paise(amount_minor: int, currency: str, amount: int) -> None:
    assert to_stripe(amount_minor, currency) == amount


@pytest.mark.parametrize(
    ("amount_minor", "currency"),
    [(1, "USD"), (9_999, "USD"), (10_001, "USD"), (0, "USD"), (-10_000, "USD"), (0, "INR"), (100, "JPY")],
)
def test_what_stripe_cannot_express_is_refused(amount_minor: int, currency: str) -> None:
    with pytest.raises(GatewayRefused):
        to_stripe(amount_minor, currency)


def test_another_currency_stays_what_stripe_calls_it() -> None:
    """A payment of another product on the same account is listed, and cannot be taken for one of ours."""
    assert from_stripe(500, "jpy") == (500, "JPY")
