"""A month's days of one kind of usage as one short text beside their sum: pure, no clock and no I/O.

A page of a year looks at thousands of months and, but for those at its edges, needs their sums alone. So the days stay as they are
stored, and are taken apart only where a day counts: `01:uses:quantity:cost`, days in order, a blank between two.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class Spending(NamedTuple):
    """How often something was used, how much, and what it cost, in smallest units."""

    uses: int = 0
    quantity: int = 0
    cost_minor: int = 0

    def plus(self, other: "Spending") -> "Spending":
        """Both together."""
        return Spending(
            self.uses + other.uses, self.quantity + other.quantity, self.cost_minor + other.cost_minor
        )


class Kind(NamedTuple):
    """A type of usage as it was counted. The unit belongs to it: a company that changed its list has counted in two."""

    type: str
    unit: str


class Series(NamedTuple):
    """What one month has of one kind: all of it, and its days."""

    total: Spending = Spending()
    days: str = ""

    def by_day(self) -> dict[str, Spending]:
        """By day of the month (01 to 31), in order."""
        found = {}
        for part in self.days.split():
            day, uses, quantity, cost_minor = part.split(":")
            found[day] = Spending(int(uses), int(quantity), int(cost_minor))
        return found

    def within(self, first: str, last: str) -> Spending:
        """What these days of the month have, both included."""
        if not self.days or (first <= self.days[:_DAY] and self.days.rpartition(" ")[2][:_DAY] <= last):
            return self.total
        total = Spending()
        for day, spending in self.by_day().items():
            if first <= day <= last:
                total = total.plus(spending)
        return total

    def plus(self, news: Mapping[str, Spending]) -> "Series":
        """With what came to these days of the month."""
        days, total = self.by_day(), self.total
        for day, spending in news.items():
            days[day] = days.get(day, Spending()).plus(spending)
            total = total.plus(spending)
        texts = (f"{day}:{s.uses}:{s.quantity}:{s.cost_minor}" for day, s in sorted(days.items()))
        return Series(total, " ".join(texts))


_DAY: Final = len("01")
