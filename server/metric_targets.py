"""What metrics are measured against: `METRICS_TARGETS`, such as `today.revenue=1200.00,month.margin=80`."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Final

from billing_engine.errors import Invalid
from billing_engine.money import AI_CREDIT, USD, Asset, parse_minor
from billing_engine.subscriptions.metrics import FIGURES, UNITS, Unit

#: By `today` or `month`, and the figure: in the units of the figure.
Targets = Mapping[tuple[str, str], Fraction]
_KNOWN: Final = {
    f"{period}.{name}": (period, name)
    for period, names in (("today", FIGURES), ("month", UNITS))
    for name in names
}
#: Read as money is, so that each has as many decimals as make sense: percentages two, things none.
_READ_AS: Final = {
    Unit.MONEY: USD,
    Unit.CREDITS: AI_CREDIT,
    Unit.PERCENT: Asset("percent", 2),
    Unit.COUNT: Asset("count", 0),
}


class TargetsInvalid(Exception):
    """The setting cannot be read; the text says which part of it."""


def parse_targets(text: str) -> Targets:
    """What the setting says. Raises `TargetsInvalid`."""
    targets: dict[tuple[str, str], Fraction] = {}
    for item in filter(None, map(str.strip, text.split(","))):
        name, equals, value = (part.strip() for part in item.partition("="))
        place = _KNOWN.get(name)
        if not equals or place is None or place in targets:
            raise TargetsInvalid(f"{item!r} is not one target such as today.revenue=1200.00")
        asset = _READ_AS[UNITS[place[1]]]
        try:
            minor = parse_minor(value, asset)
        except Invalid as exc:
            raise TargetsInvalid(f"{name} {exc.facts['problem']}") from exc
        targets[place] = Fraction(minor, 100) if UNITS[place[1]] is Unit.PERCENT else Fraction(minor)
    return targets
