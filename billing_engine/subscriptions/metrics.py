"""What subscriptions and AI calls earn and cost, as admins see it: pure arithmetic over counted facts (docs/admin-metrics.md).

Values are exact: integers of smallest units, or fractions of them where something was divided; who prints them rounds once. A value is
None where nobody can say: nothing divided by nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Final

from billing_engine.subscriptions.model import FREE, Provider

#: Fees and budgets are reckoned in whole cents.
_CENT_MINOR: Final = 10_000
_BP: Final = 10_000
#: The daily average is of so many days before today.
AVERAGE_DAYS: Final = 30

Value = Fraction | int | None


class Unit(StrEnum):
    """What a figure is counted in: things, smallest units of USD, thousandths of a credit, percent."""

    COUNT = "count"
    MONEY = "money"
    CREDITS = "credits"
    PERCENT = "percent"


@dataclass(frozen=True, slots=True)
class Used:
    """Answered calls of one model: what they used and cost, in the units of their log."""

    requests: int = 0
    tokens: int = 0
    cost_minor: int = 0
    credits_milli: int = 0

    def __add__(self, other: "Used") -> "Used":
        return Used(
            self.requests + other.requests,
            self.tokens + other.tokens,
            self.cost_minor + other.cost_minor,
            self.credits_milli + other.credits_milli,
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """What was counted of one local day, or of several. `used` is by provider and model, `changes` by the tier before and after."""

    signups: int = 0
    revenue_minor: int = 0
    payments: int = 0
    used: Mapping[tuple[str, str], Used] = field(default_factory=dict)
    changes: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def all_used(self) -> Used:
        return sum(self.used.values(), Used())

    @property
    def began(self) -> int:
        """How many came from the free tier to a paid one."""
        return sum(n for (was, tier), n in self.changes.items() if was == FREE != tier)

    @property
    def ended(self) -> int:
        """How many fell from a paid tier to the free one."""
        return sum(n for (was, tier), n in self.changes.items() if tier == FREE != was)


def added(several: Iterable[Facts]) -> Facts:
    """The facts of several periods that do not overlap."""
    signups = revenue_minor = payments = 0
    used: dict[tuple[str, str], Used] = {}
    changes: dict[tuple[str, str], int] = {}
    for facts in several:
        signups += facts.signups
        revenue_minor += facts.revenue_minor
        payments += facts.payments
        for model, sums in facts.used.items():
            used[model] = used.get(model, Used()) + sums
        for change, number in facts.changes.items():
            changes[change] = changes.get(change, 0) + number
    return Facts(signups, revenue_minor, payments, used, changes)


@dataclass(frozen=True, slots=True)
class Rules:
    """The gateway's fee for each payment (hundredths of a percent, and a fixed part), the part of net revenue that providers may cost,
    and the ranks of tiers.
    """

    fee_bp: int
    fee_fixed_minor: int
    budget_bp: int
    ranks: Mapping[str, int]


# -- money -----------------------------------------------------------------------------------------------------------


def _rounded(numerator: int, denominator: int) -> int:
    """Half up, away from zero; `denominator` is positive."""
    whole = (2 * abs(numerator) + denominator) // (2 * denominator)
    return -whole if numerator < 0 else whole


def rounded(value: Fraction | int) -> int:
    """To a whole number, half up."""
    exact = Fraction(value)
    return _rounded(exact.numerator, exact.denominator)


def gateway_fees(revenue_minor: int, payments: int, rules: Rules) -> int:
    """What the gateway keeps of so many payments, by its formula: to a cent, once for all of them."""
    exact = revenue_minor * rules.fee_bp + payments * rules.fee_fixed_minor * _BP
    return _rounded(exact, _BP * _CENT_MINOR) * _CENT_MINOR


def provider_budget(net_minor: int, rules: Rules) -> int:
    """What providers may cost of what is left after the fees, to a cent."""
    return _rounded(net_minor * rules.budget_bp, _BP * _CENT_MINOR) * _CENT_MINOR


def percent_of(part: Value, whole: Value) -> Fraction | None:
    """`part` as a percentage of `whole`; None where that is nothing, or where one of them is unknown."""
    if part is None or not whole:
        return None
    return Fraction(part) * 100 / whole


# -- figures ---------------------------------------------------------------------------------------------------------

#: What is said of a day and of a month alike.
FIGURES: Final[Mapping[str, Unit]] = {
    "signups": Unit.COUNT,
    "upgrades": Unit.COUNT,
    "downgrades": Unit.COUNT,
    "subscriptions_began": Unit.COUNT,
    "subscriptions_ended": Unit.COUNT,
    "requests": Unit.COUNT,
    "tokens": Unit.COUNT,
    "credits": Unit.CREDITS,
    "payments": Unit.COUNT,
    "revenue": Unit.MONEY,
    "provider_cost": Unit.MONEY,
    "profit": Unit.MONEY,
    "margin": Unit.PERCENT,
    "gateway_fees": Unit.MONEY,
    "net_revenue": Unit.MONEY,
}
#: What is said of a month only.
MONTHLY: Final[Mapping[str, Unit]] = {
    "provider_budget": Unit.MONEY,
    "budget_used": Unit.PERCENT,
    "revenue_per_user": Unit.MONEY,
    "revenue_per_paying_user": Unit.MONEY,
    "churn": Unit.PERCENT,
}
UNITS: Final[Mapping[str, Unit]] = {**FIGURES, **MONTHLY}
#: Budget is a part of what grows, so it has a run rate too; what is divided has none.
_NO_RUN_RATE: Final = frozenset(
    {"margin", "budget_used", "revenue_per_user", "revenue_per_paying_user", "churn"}
)


@dataclass(frozen=True, slots=True)
class Heads:
    """How many there were: users, and paying ones, at a period's end; `paying_before`: at its begin."""

    users: int
    paying: int
    paying_before: int


def figures(facts: Facts, rules: Rules) -> dict[str, Value]:
    """`FIGURES` of these facts."""
    used = facts.all_used
    profit = facts.revenue_minor - used.cost_minor
    fees = gateway_fees(facts.revenue_minor, facts.payments, rules)
    # A tier that the file has lost is below all others.
    steps = [
        (rules.ranks.get(tier, -1) - rules.ranks.get(was, -1), n) for (was, tier), n in facts.changes.items()
    ]
    return {
        "signups": facts.signups,
        "upgrades": sum(n for step, n in steps if step > 0),
        "downgrades": sum(n for step, n in steps if step < 0),
        "subscriptions_began": facts.began,
        "subscriptions_ended": facts.ended,
        "requests": used.requests,
        "tokens": used.tokens,
        "credits": used.credits_milli,
        "payments": facts.payments,
        "revenue": facts.revenue_minor,
        "provider_cost": used.cost_minor,
        "profit": profit,
        "margin": percent_of(profit, facts.revenue_minor),
        "gateway_fees": fees,
        "net_revenue": facts.revenue_minor - fees,
    }


def monthly(facts: Facts, heads: Heads, rules: Rules) -> dict[str, Value]:
    """`FIGURES` and `MONTHLY` of these facts."""
    known = figures(facts, rules)
    net, cost = (
        facts.revenue_minor - gateway_fees(facts.revenue_minor, facts.payments, rules),
        known["provider_cost"],
    )
    budget = provider_budget(net, rules)
    return {
        **known,
        "provider_budget": budget,
        "budget_used": percent_of(cost, budget),
        "revenue_per_user": Fraction(facts.revenue_minor, heads.users) if heads.users > 0 else None,
        "revenue_per_paying_user": Fraction(facts.revenue_minor, heads.paying) if heads.paying > 0 else None,
        "churn": percent_of(facts.ended, max(0, heads.paying_before)),
    }


@dataclass(frozen=True, slots=True)
class Against:
    """A value compared with another one: that one, the difference, and this in percent of it. Percentages differ in points."""

    value: Value
    difference: Value
    percent: Fraction | None


def against(value: Value, base: Value, unit: Unit) -> Against:
    """How `value` stands to `base`."""
    if value is None or base is None:
        return Against(base, None, None)
    difference = value - base
    relative = None if unit is Unit.PERCENT else percent_of(difference, base if base >= 0 else -base)
    return Against(base, difference, relative)


def daily_average(days: Iterable[Facts], rules: Rules) -> dict[str, Value]:
    """`FIGURES` of an average day of `AVERAGE_DAYS`; the margin is that of all of them together."""
    total = figures(added(days), rules)
    return {
        name: value if value is None or FIGURES[name] is Unit.PERCENT else Fraction(value, AVERAGE_DAYS)
        for name, value in total.items()
    }


def run_rate(name: str, value: Value, *, elapsed_ms: int, whole_ms: int) -> Value:
    """What it will be at the end of the period if it goes on like this; None for what does not add up."""
    if value is None or name in _NO_RUN_RATE or elapsed_ms <= 0:
        return None
    return Fraction(value) * whole_ms / elapsed_ms


# -- providers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProviderShare:
    """One provider's part of a period. `top` is the model that cost most; None: nobody called it."""

    provider: str
    used: Used
    cost_share: Fraction | None
    request_share: Fraction | None
    top: tuple[str, Used] | None


def provider_shares(facts: Facts) -> list[ProviderShare]:
    """Every provider, the dearest first; those that nobody called, too."""
    total = facts.all_used
    shares = []
    for provider in dict.fromkeys((*(p.value for p in Provider), *(name for name, _ in facts.used))):
        models = {model: used for (name, model), used in facts.used.items() if name == provider}
        used = sum(models.values(), Used())
        top = min(
            models.items(), key=lambda item: (-item[1].cost_minor, -item[1].requests, item[0]), default=None
        )
        shares.append(
            ProviderShare(
                provider,
                used,
                percent_of(used.cost_minor, total.cost_minor),
                percent_of(used.requests, total.requests),
                top,
            )
        )
    return sorted(shares, key=lambda share: (-share.used.cost_minor, -share.used.requests))
