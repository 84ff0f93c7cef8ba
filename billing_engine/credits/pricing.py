"""What credits cost. Pure.

The change log is the setting: a price is the last row of the log, and a change is one insert under the next number. So there is no
price without its change and no change without its price, whatever dies in between, and of two admins the second one changes the first
one's.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CreditPackage:
    """A number of credits that is sold under a name."""

    id: int
    name: str
    credits: int


@dataclass(frozen=True, slots=True)
class PriceChange:
    """A price and how it came. In smallest units; number 0 is the price that the server starts with, which nobody has set."""

    number: int
    price_minor: int
    from_minor: int | None = None
    by: str | None = None
    at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """A package at the price of now."""

    package: CreditPackage
    price_minor: int


def offer_of(package: CreditPackage, price_per_credit_minor: int) -> Offer:
    """The package at this price for each credit."""
    return Offer(package, package.credits * price_per_credit_minor)
