"""Subscriptions and AI credits, as they cross the wire (SPEC 10). Credits are decimal strings."""

from typing import Annotated

from pydantic import Field

from billing_engine.money import AI_CREDIT, Asset, format_minor
from billing_engine.subscriptions.account import WARN_FROM_PERCENT, Plan
from billing_engine.subscriptions.calls import Settled
from billing_engine.subscriptions.model import Tier
from billing_engine.subscriptions.plans import PlanView
from billing_engine.subscriptions.ports import (
    CallRow,
    StoredQuote,
    Subscription,
    SubscriptionStatus,
)
from server.routes.payments import OrderOut
from server.wire import Instant, MoneyOut, WireModel, one_of


def credits_text(milli: int) -> str:
    """Credits as they are printed: `6.50`."""
    return format_minor(milli, AI_CREDIT)


class TierOut(WireModel):
    """A tier: what it costs for 30 days and what it gives. `models` names the only ones of a provider that it may use; null: all."""

    tier: str
    price: MoneyOut
    currency: str
    credits: MoneyOut
    monthly_tokens: int
    monthly_requests: int
    parallel_calls: int
    providers: list[str]
    models: dict[str, list[str]]

    @classmethod
    def of(cls, tier: Tier, asset: Asset) -> "TierOut":
        return cls(
            tier=tier.name,
            price=format_minor(tier.price_minor, asset),
            currency=asset.code,
            credits=credits_text(tier.credits_milli),
            monthly_tokens=tier.monthly_tokens,
            monthly_requests=tier.monthly_requests,
            parallel_calls=tier.parallel_calls,
            providers=sorted(tier.providers),
            models={provider.value: sorted(models) for provider, models in tier.models.items()},
        )


class TiersOut(WireModel):
    """From the smallest up."""

    items: list[TierOut]


class TierIn(WireModel):
    """Which tier."""

    tier: Annotated[str, Field(min_length=1, max_length=64)]


class UpgradeIn(TierIn):
    """Which tier; with `resetCycle` a whole new cycle begins."""

    reset_cycle: bool = False


class PreviewQuery(UpgradeIn):
    """The same for a preview."""


class CancelIn(WireModel):
    """`cancel: false` takes a cancellation back, as long as the cycle runs."""

    cancel: bool = True


class SubscriptionOut(WireModel):
    """A subscription. `checkoutUrl` is where it is paid, as long as it is PENDING; `nextTier` what it is from its next cycle on."""

    tier: str
    status: Annotated[str, one_of(SubscriptionStatus)]
    checkout_url: str | None
    cycle_ends_at: Instant | None
    cancels_at_cycle_end: bool
    next_tier: str | None
    created_at: Instant

    @classmethod
    def of(cls, known: Subscription) -> "SubscriptionOut":
        return cls(
            tier=known.tier,
            status=known.status.value,
            checkout_url=known.checkout_url if known.status is SubscriptionStatus.PENDING else None,
            cycle_ends_at=known.period_end_ms or None,
            cancels_at_cycle_end=known.cancels,
            next_tier=known.next_tier if known.next_tier != known.tier else None,
            created_at=known.created_at_ms,
        )


class MonthlyUsageOut(WireModel):
    """What was used in this cycle; `cost` is the provider's, in USD."""

    tokens: int
    requests: int
    cost: MoneyOut

    @classmethod
    def of(cls, plan: Plan, asset: Asset) -> "MonthlyUsageOut":
        return cls(tokens=plan.tokens, requests=plan.requests, cost=format_minor(plan.cost_minor, asset))


class LimitsOut(WireModel):
    """What the tier allows in a cycle."""

    tokens: int
    requests: int
    parallel_calls: int
    providers: list[str]


class CreditsOut(WireModel):
    """The credits of now. `totalCredits` is what this cycle gave, `remaining` what may be spent: without what calls under way hold."""

    total_credits: MoneyOut
    remaining: MoneyOut
    subscription_tier: str
    billing_cycle_start: Instant
    billing_cycle_end: Instant
    usage: MonthlyUsageOut
    limits: LimitsOut
    warnings: list[str]
    subscription: SubscriptionOut | None

    @classmethod
    def of(cls, view: PlanView, asset: Asset) -> "CreditsOut":
        plan, tier = view.plan, view.tier
        return cls(
            total_credits=credits_text(plan.allowance_milli),
            remaining=credits_text(view.remaining_milli),
            subscription_tier=tier.name,
            billing_cycle_start=plan.start_ms,
            billing_cycle_end=plan.end_ms,
            usage=MonthlyUsageOut.of(plan, asset),
            limits=LimitsOut(
                tokens=tier.monthly_tokens,
                requests=tier.monthly_requests,
                parallel_calls=tier.parallel_calls,
                providers=sorted(tier.providers),
            ),
            warnings=warnings_of(plan, tier, view.remaining_milli),
            subscription=None if view.subscription is None else SubscriptionOut.of(view.subscription),
        )


def warnings_of(plan: Plan, tier: Tier, remaining_milli: int) -> list[str]:
    """A line for each limit of which 80 % is used."""
    used = {
        "tokens": (plan.tokens, tier.monthly_tokens),
        "requests": (plan.requests, tier.monthly_requests),
        "credits": (plan.allowance_milli - remaining_milli, plan.allowance_milli),
    }
    return [
        f"{100 * number // limit} % of this cycle's {name} are used."
        for name, (number, limit) in used.items()
        if limit > 0 and 100 * number >= WARN_FROM_PERCENT * limit
    ]


class UpgradeQuoteOut(WireModel):
    """What an upgrade costs now and brings at once, good until `expiresAt`."""

    tier: str
    current_tier: str
    amount: MoneyOut
    currency: str
    credits: MoneyOut
    reset_cycle: bool
    expires_at: Instant

    @classmethod
    def of(cls, quoted: StoredQuote, asset: Asset) -> "UpgradeQuoteOut":
        return cls(
            tier=quoted.tier,
            current_tier=quoted.was,
            amount=format_minor(quoted.amount_minor, asset),
            currency=asset.code,
            credits=credits_text(quoted.credits_milli),
            reset_cycle=quoted.resets,
            expires_at=quoted.expires_at_ms,
        )


class UpgradeOut(WireModel):
    """An upgrade that is to be paid at `checkoutUrl`. With the simulated gateway it is PAID at once."""

    payment_id: str
    status: str
    checkout_url: str | None
    quote: UpgradeQuoteOut
    order: OrderOut | None


class CallOut(WireModel):
    """One AI call. `outcome` is OK, HTTP_<the provider's status>, UNAVAILABLE, GONE (its caller left), BROKEN_OFF, ABANDONED, …"""

    call_id: str
    provider: str
    model: str
    tier: str
    input_tokens: int
    output_tokens: int
    cost: MoneyOut
    credits: MoneyOut
    latency_ms: int
    outcome: str
    started_at: Instant
    ended_at: Instant | None

    @classmethod
    def of(cls, row: CallRow, asset: Asset) -> "CallOut":
        return cls(
            call_id=row.id,
            provider=row.provider,
            model=row.model,
            tier=row.tier,
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            cost=format_minor(row.cost_minor, asset),
            credits=credits_text(row.credits_milli),
            latency_ms=row.latency_ms,
            outcome=row.outcome,
            started_at=row.started_at_ms,
            ended_at=row.ended_at_ms,
        )


class CallCreditsOut(WireModel):
    """What the call has cost, and what is left. `monthlyUsage` is of this cycle, this call included."""

    deducted: MoneyOut
    remaining: MoneyOut
    monthly_usage: MonthlyUsageOut
    warnings: list[str]

    @classmethod
    def of(cls, settled: Settled, tier: Tier, asset: Asset) -> "CallCreditsOut":
        return cls(
            deducted=credits_text(settled.row.credits_milli),
            remaining=credits_text(settled.remaining_milli),
            monthly_usage=MonthlyUsageOut.of(settled.plan, asset),
            warnings=warnings_of(settled.plan, tier, settled.remaining_milli),
        )


class AiOut(WireModel):
    """The provider's own JSON, byte for byte, and `credits` as its last field."""

    credits: CallCreditsOut


def credits_block(settled: Settled, tier: Tier, asset: Asset) -> bytes:
    """`CallCreditsOut` as JSON."""
    return CallCreditsOut.of(settled, tier, asset).model_dump_json(by_alias=True).encode()
