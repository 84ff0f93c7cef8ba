"""Our smallest units and Stripe's: USD has six decimals with us and two at Stripe, INR two at both. Exact both ways, or not at all."""

from collections.abc import Mapping
from typing import Final

from billing_engine.money import ASSETS
from billing_engine.payments.errors import GatewayRefused

#: How many decimals Stripe's smallest unit of a currency has: what we can be paid in. Zero-decimal currencies are none of our assets.
#: Source: https://docs.stripe.com/currencies
DECIMALS: Final[Mapping[str, int]] = {"USD": 2, "INR": 2}
CURRENCIES: Final = frozenset(DECIMALS)


def to_stripe(amount_minor: int, currency: str) -> int:
    """Stripe's smallest units. Raises `GatewayRefused` for what Stripe cannot express: another currency, a part of a cent, nothing."""
    if currency not in DECIMALS:
        raise GatewayRefused(reason="currency_not_supported", currency=currency)
    amount, rest = divmod(amount_minor, _step_minor(currency))
    if rest or amount <= 0:
        raise GatewayRefused(reason="amount_not_expressible", amountMinor=amount_minor, currency=currency)
    return amount


def from_stripe(amount: int, currency: str) -> tuple[int, str]:
    """Our smallest units and our currency's code.

    A currency that we do not take keeps Stripe's own units under its own code: such a payment is on the account's list, but it cannot
    be one of ours, and nothing is booked from it.
    """
    code = currency.upper()
    return (amount * _step_minor(code) if code in DECIMALS else amount), code


def _step_minor(currency: str) -> int:
    """Our smallest units in one of Stripe's."""
    return int(10 ** (ASSETS[currency].decimals - DECIMALS[currency]))
