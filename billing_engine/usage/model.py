"""Usages and what they cost: pure, no clock and no I/O."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Price:
    """`price_minor` for every `per` units of a type of usage, by one list of the price book, from `from_ms` on.

    `type` is the word in the URL (`cv-parsing`), `entry_type` the one in the ledger (`CV_PARSE`), `unit` what is counted (`token`).
    """

    list_name: str
    type: str
    entry_type: str
    unit: str
    price_minor: int
    per: int
    from_ms: int


def cost_of(quantity: int, price: Price) -> int:
    """Smallest units that `quantity` costs, rounded half up once."""
    return (2 * quantity * price.price_minor + price.per) // (2 * price.per)
