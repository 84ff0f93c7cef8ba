"""The admins' figures of subscriptions and AI calls, as they cross the wire. Everything is rounded here, once, half up."""

from fractions import Fraction
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from billing_engine.money import AI_CREDIT, Asset, format_minor
from billing_engine.subscriptions.metrics import (
    FIGURES,
    UNITS,
    Against,
    ProviderShare,
    Unit,
    Value,
    rounded,
)
from server.admin.ai_metrics import AiReport, Figure
from server.wire import Instant, MoneyOut, WireModel

#: A percentage with one decimal; null where it would be of nothing.
Percent = Annotated[
    str,
    WithJsonSchema({"type": "string", "format": "decimal", "pattern": r"^-?\d+\.\d$", "examples": ["80.1"]}),
]
#: A number of the figure's unit: a whole number, or with one decimal where it was divided; money and credits as everywhere.
Amount = Annotated[
    str,
    WithJsonSchema(
        {"type": "string", "format": "decimal", "pattern": r"^-?\d+(\.\d+)?$", "examples": ["1247.00", "12"]}
    ),
]


class AgainstOut(WireModel):
    """What a figure is compared with. `value` is the other one, in the figure's unit; `difference` is the figure less that one, in
    points where it is a percentage; `percent` is the difference in percent of it. Null where there is nothing to compare with.
    """

    value: Amount | None
    difference: Amount | None
    percent: Percent | None

    @classmethod
    def of(cls, compared: Against, unit: Unit, asset: Asset) -> "AgainstOut":
        return cls(
            value=amount_text(compared.value, unit, asset),
            difference=amount_text(compared.difference, unit, asset),
            percent=percent_text(compared.percent),
        )


class TodayFigureOut(WireModel):
    """A figure of today so far, against the whole of yesterday, an average day of the thirty before today, and its target if it has
    one.
    """

    value: Amount | None
    yesterday: AgainstOut
    daily_average: AgainstOut
    target: AgainstOut | None


class MonthFigureOut(WireModel):
    """A figure of this month so far, against the month before up to the same day, that whole month, and its target if it has one.
    `runRate` is what the month comes to if it goes on like this; null for what does not add up from day to day.
    """

    value: Amount | None
    run_rate: Amount | None
    previous_to_date: AgainstOut
    previous_month: AgainstOut
    target: AgainstOut | None


class TodayOut(WireModel):
    """Today so far."""

    day: Annotated[str, WithJsonSchema({"type": "string", "format": "date"})]
    signups: TodayFigureOut
    upgrades: TodayFigureOut
    downgrades: TodayFigureOut
    subscriptions_began: TodayFigureOut
    subscriptions_ended: TodayFigureOut
    requests: TodayFigureOut
    tokens: TodayFigureOut
    credits: TodayFigureOut
    payments: TodayFigureOut
    revenue: TodayFigureOut
    provider_cost: TodayFigureOut
    profit: TodayFigureOut
    margin: TodayFigureOut
    gateway_fees: TodayFigureOut
    net_revenue: TodayFigureOut


class TierUsersOut(WireModel):
    """How many users have a tier now."""

    tier: str
    users: int


class MonthOut(WireModel):
    """This month so far. `users` and `payingUsers` are those of now, `payingUsersAtBegin` those whom churn is reckoned from."""

    month: Annotated[str, Field(examples=["2026-11"])]
    signups: MonthFigureOut
    upgrades: MonthFigureOut
    downgrades: MonthFigureOut
    subscriptions_began: MonthFigureOut
    subscriptions_ended: MonthFigureOut
    requests: MonthFigureOut
    tokens: MonthFigureOut
    credits: MonthFigureOut
    payments: MonthFigureOut
    revenue: MonthFigureOut
    provider_cost: MonthFigureOut
    profit: MonthFigureOut
    margin: MonthFigureOut
    gateway_fees: MonthFigureOut
    net_revenue: MonthFigureOut
    provider_budget: MonthFigureOut
    budget_used: MonthFigureOut
    revenue_per_user: MonthFigureOut
    revenue_per_paying_user: MonthFigureOut
    churn: MonthFigureOut
    tiers: list[TierUsersOut]
    users: int
    paying_users: int
    paying_users_at_begin: int


class TopModelOut(WireModel):
    """The model that cost most."""

    model: str
    requests: int
    tokens: int
    cost: MoneyOut


class ProviderOut(WireModel):
    """One provider's part. Shares are of all providers together; null where there is nothing to share."""

    provider: str
    requests: int
    tokens: int
    cost: MoneyOut
    cost_share: Percent | None
    request_share: Percent | None
    top_model: TopModelOut | None

    @classmethod
    def of(cls, share: ProviderShare, asset: Asset) -> "ProviderOut":
        top = None
        if share.top is not None:
            model, used = share.top
            cost = format_minor(used.cost_minor, asset)
            top = TopModelOut(model=model, requests=used.requests, tokens=used.tokens, cost=cost)
        return cls(
            provider=share.provider,
            requests=share.used.requests,
            tokens=share.used.tokens,
            cost=format_minor(share.used.cost_minor, asset),
            cost_share=percent_text(share.cost_share),
            request_share=percent_text(share.request_share),
            top_model=top,
        )


class ProvidersOut(WireModel):
    """By provider, the dearest first."""

    today: list[ProviderOut]
    month: list[ProviderOut]


class AiMetricsOut(WireModel):
    """All figures, of one moment that is at most five seconds ago."""

    computed_at: Instant
    timezone: str
    currency: str
    today: TodayOut
    month: MonthOut
    providers: ProvidersOut

    @classmethod
    def of(cls, report: AiReport, asset: Asset, timezone: str) -> "AiMetricsOut":
        today = {name: _today(figure, FIGURES[name], asset) for name, figure in report.today.items()}
        month = {name: _month(figure, UNITS[name], asset) for name, figure in report.month.items()}
        return cls(
            computed_at=report.computed_at_ms,
            timezone=timezone,
            currency=asset.code,
            today=TodayOut(day=report.day, **today),
            month=MonthOut(
                month=report.day[:7],
                tiers=[TierUsersOut(tier=tier, users=users) for tier, users in report.tiers.items()],
                users=report.users,
                paying_users=report.paying,
                paying_users_at_begin=report.paying_before,
                **month,
            ),
            providers=ProvidersOut(
                today=[ProviderOut.of(share, asset) for share in report.providers_today],
                month=[ProviderOut.of(share, asset) for share in report.providers_month],
            ),
        )


def _today(figure: Figure, unit: Unit, asset: Asset) -> TodayFigureOut:
    compared = _compared(figure, unit, asset)
    return TodayFigureOut(value=amount_text(figure.value, unit, asset), **compared)


def _month(figure: Figure, unit: Unit, asset: Asset) -> MonthFigureOut:
    compared = _compared(figure, unit, asset)
    return MonthFigureOut(
        value=amount_text(figure.value, unit, asset),
        run_rate=amount_text(figure.run_rate, unit, asset),
        **compared,
    )


def _compared(figure: Figure, unit: Unit, asset: Asset) -> dict[str, Any]:
    return {
        name: None if other is None else AgainstOut.of(other, unit, asset)
        for name, other in figure.compared.items()
    }


def amount_text(value: Value, unit: Unit, asset: Asset) -> str | None:
    """The value as it is printed."""
    if value is None:
        return None
    match unit:
        case Unit.MONEY:
            return format_minor(rounded(value), asset)
        case Unit.CREDITS:
            return format_minor(rounded(value), AI_CREDIT)
        case Unit.PERCENT:
            return _tenths(value)
        case Unit.COUNT:
            # What was counted is whole; what was divided has a decimal, also where it comes out even.
            return str(value) if isinstance(value, int) else _tenths(value)


def percent_text(value: Fraction | None) -> str | None:
    """With one decimal."""
    return None if value is None else _tenths(value)


def _tenths(value: Fraction | int) -> str:
    tenths = rounded(value * 10)
    sign = "-" if tenths < 0 else ""
    return f"{sign}{abs(tenths) // 10}.{abs(tenths) % 10}"
