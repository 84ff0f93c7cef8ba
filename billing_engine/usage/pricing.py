"""The rows of the price book, what one may say, and which of them is the price of an instant. Pure.

A row is never changed and never deleted: a price is the newest row that has taken effect, so a price of the past stays what it was.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from billing_engine.usage.errors import PriceListUnknown, UsagePriceInvalid, UsageTypeUnknown
from billing_engine.usage.model import Price

LIST_NAME: Final = r"[a-z][a-z0-9-]{0,39}"
TYPE: Final = r"[a-z][a-z0-9-]{1,39}"
ENTRY_TYPE: Final = r"[A-Z][A-Z0-9_]{1,39}"
UNIT: Final = r"[a-z][a-z0-9-]{0,39}"
#: The most that `per` units of anything cost, in major units, and the most units that a price is for. More is a slip of the hand.
PRICE_MAX: Final = 100_000
PER_MAX: Final = 1_000_000

#: `POST /api/usage/batch` is a route of its own: such a type could not be reported.
RESERVED_TYPES: Final = frozenset({"batch"})
#: What else the ledger books. A usage under one of these words would be counted as that.
RESERVED_ENTRY_TYPES: Final = frozenset(
    [
        "ADJUSTMENT",
        "AUTO_RECHARGE",
        "CHARGEBACK",
        "CHARGEBACK_RETURNED",
        "CONSULTATION",
        "CONSULTATION_REFUND",
        "CREDIT",
        "CREDITS",
        "DEBIT",
        "FORFEIT",
        "FREE",
        "HOLD",
        "OWED",
        "OWED_COLLECTED",
        "PAYER_REFUND",
        "PAYER_REFUND_RETURNED",
        "PAYOUT",
        "PURCHASE",
        "RECHARGE",
        "REFUND",
        "USAGE",
        "VOID",
    ]
)
#: The types that have a route of their own: their word in the ledger, and the units that the route can count.
MEASURED: Final[Mapping[str, tuple[str, frozenset[str]]]] = {
    "cv-parsing": ("CV_PARSE", frozenset({"cv"})),
    "question-generation": ("JD_QUESTIONS", frozenset({"question", "token"})),
    "video-interview": ("VIDEO_INTERVIEW", frozenset({"minute"})),
}


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One dated change: the price of a type of usage by a list from `from_ms` on.

    `by` is the admin who made it, None where it came from the file. `change_id` names the request, so that its repeat is known.
    `is_first` is the row that brought the type into the list; it alone says what `entry_type` and `unit` are, for ever.
    """

    list_name: str
    type: str
    entry_type: str
    unit: str
    price_minor: int
    per: int
    from_ms: int
    by: str | None
    reason: str
    created_at_ms: int
    change_id: str
    is_first: bool

    @property
    def pair(self) -> tuple[str, str]:
        """The list and the type."""
        return self.list_name, self.type

    @property
    def since_ms(self) -> int:
        """Since when it is shown to count: what the book began with counts for all the time before, too."""
        return self.from_ms or self.created_at_ms

    @property
    def price(self) -> Price:
        """As a usage is priced by it."""
        return Price(
            self.list_name,
            self.type,
            self.entry_type,
            self.unit,
            self.price_minor,
            self.per,
            self.from_ms,
        )


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """A price as the file has it."""

    list_name: str
    type: str
    entry_type: str
    unit: str
    price_minor: int
    per: int

    @property
    def pair(self) -> tuple[str, str]:
        """The list and the type."""
        return self.list_name, self.type


def check_price(listed: ListedPrice, *, scale: int) -> None:
    """Raises `UsagePriceInvalid`, naming the field on the wire. `scale` is the currency's smallest units in a major one."""
    for field, value, pattern in (
        ("list", listed.list_name, LIST_NAME),
        ("type", listed.type, TYPE),
        ("entryType", listed.entry_type, ENTRY_TYPE),
        ("unit", listed.unit, UNIT),
    ):
        if not re.fullmatch(pattern, value):
            raise UsagePriceInvalid(field=field, problem=f"must match {pattern}")
    if listed.type in RESERVED_TYPES:
        raise UsagePriceInvalid(field="type", problem="is a word of the API")
    if listed.entry_type in RESERVED_ENTRY_TYPES:
        raise UsagePriceInvalid(field="entryType", problem="is another kind of entry in the ledger")
    _check_words(listed)
    if not 0 <= listed.price_minor <= PRICE_MAX * scale:
        raise UsagePriceInvalid(field="price", problem=f"must be from 0.00 to {PRICE_MAX}.00")
    if not 1 <= listed.per <= PER_MAX:
        raise UsagePriceInvalid(field="per", problem=f"must be from 1 to {PER_MAX}")


def _check_words(listed: ListedPrice) -> None:
    for type_, (entry_type, units) in MEASURED.items():
        if (listed.type == type_) != (listed.entry_type == entry_type):
            raise UsagePriceInvalid(
                field="entryType", problem=f"{entry_type} is for {type_}, and no other is"
            )
        if listed.type == type_ and listed.unit not in units:
            raise UsagePriceInvalid(field="unit", problem=f"must be {' or '.join(sorted(units))} for {type_}")


class Book:
    """All rows as they were read at one time, by list and type and in the order in which they take effect."""

    def __init__(self, rows: Iterable[PriceRow] = ()) -> None:
        found: dict[tuple[str, str], list[PriceRow]] = {}
        for row in sorted(rows, key=lambda row: (row.list_name, row.type, row.from_ms)):
            found.setdefault(row.pair, []).append(row)
        self._rows = {pair: tuple(rows) for pair, rows in found.items()}
        self._instants = {pair: [row.from_ms for row in rows] for pair, rows in self._rows.items()}
        self._prices = {pair: [row.price for row in rows] for pair, rows in self._rows.items()}

    @property
    def lists(self) -> tuple[str, ...]:
        """The names of the lists."""
        return tuple(dict.fromkeys(list_name for list_name, _ in self._rows))

    def pairs(self, list_name: str | None = None) -> list[tuple[str, str]]:
        """Every (list, type), or those of one list. Raises `PriceListUnknown`."""
        if list_name is not None and list_name not in self.lists:
            raise PriceListUnknown(field="list", problem="is no list of the price book")
        return [pair for pair in self._rows if list_name in (None, pair[0])]

    def rows(self, pair: tuple[str, str]) -> Sequence[PriceRow]:
        """The pair's rows in the order in which they take effect; none if it is unknown."""
        return self._rows.get(pair, ())

    def row_at(self, pair: tuple[str, str], at_ms: int) -> PriceRow | None:
        """The newest row that has taken effect by then."""
        place = bisect_right(self._instants.get(pair, ()), at_ms)
        return self._rows[pair][place - 1] if place else None

    def price_at(self, list_name: str, type_: str, at_ms: int) -> Price:
        """Raises `UsageTypeUnknown`. What the book began with counts from 0 on, so it has a price for every instant."""
        pair = (list_name, type_)
        place = bisect_right(self._instants.get(pair, ()), at_ms)
        if not place:
            raise UsageTypeUnknown(
                field="type", problem="is not in your price list", list=list_name, type=type_
            )
        return self._prices[pair][place - 1]

    def first(self, pair: tuple[str, str]) -> PriceRow | None:
        """The row that brought the type into the list."""
        return next((row for row in self.rows(pair) if row.is_first), None)

    def entry_type_of(self, type_: str) -> str | None:
        """The word in the ledger of a type that some list has."""
        return next((rows[0].entry_type for (_, known), rows in self._rows.items() if known == type_), None)

    def type_of(self, entry_type: str) -> str | None:
        """The type that some list books under this word."""
        return next((pair[1] for pair, rows in self._rows.items() if rows[0].entry_type == entry_type), None)

    def changed_by(self, change_id: str) -> PriceRow | None:
        """What the request of this id has made."""
        every = (row for rows in self._rows.values() for row in rows)
        return next((row for row in every if row.change_id == change_id), None)
