"""Tiers, models and what a call costs: pure, no clock and no I/O.

Money is in smallest units of USD (six decimals), credits in thousandths, prices of models exact decimals per 1,000 tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from typing import Final

#: A billing cycle, whatever the calendar says (SPEC 10).
CYCLE_MS: Final = 30 * 86_400_000
FREE: Final = "free"


class Provider(StrEnum):
    """Who answers AI calls."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GOOGLE = "google"
    HUGGINGFACE = "huggingface"
    AWS = "aws"


@dataclass(frozen=True, slots=True)
class Tier:
    """What a subscription gives for a cycle. `models` names, by provider, the only models that it may use; a provider without an entry
    there may be used with all. `rank` orders tiers from the smallest up. `credit_markup` multiplies the provider's cost.
    """

    name: str
    rank: int
    price_minor: int
    credits_milli: int
    monthly_tokens: int
    monthly_requests: int
    providers: frozenset[Provider]
    parallel_calls: int
    credit_markup: Decimal = Decimal(1)
    models: Mapping[Provider, frozenset[str]] = field(default_factory=dict)

    def may_use(self, provider: Provider, model: str) -> bool:
        """Whether the model of a provider that the tier has is among those it may use."""
        allowed = self.models.get(provider)
        return allowed is None or model in allowed


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """What a model costs in USD per 1,000 tokens, and the most that it can take in and put out in one call."""

    provider: Provider
    model: str
    input_per_1k: Decimal
    output_per_1k: Decimal
    context_tokens: int
    max_output_tokens: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a provider counted, or what a call can need at most."""

    input: int
    output: int

    @property
    def total(self) -> int:
        return self.input + self.output


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call cost: the provider's price in smallest units of USD, rounded up, and the credits that it takes."""

    usd_minor: int
    credits_milli: int


_USD_SCALE: Final = 1_000_000
#: 1 credit = 0.01 USD, in thousandths.
_MILLI_PER_USD: Final = 100_000


def cost_of(tokens: Tokens, price: ModelPrice, markup: Decimal) -> Cost:
    """Computed in exact decimals, rounded up once each: credits to a thousandth, money to its smallest unit."""
    usd = (tokens.input * price.input_per_1k + tokens.output * price.output_per_1k) / 1000
    return Cost(
        usd_minor=int((usd * _USD_SCALE).to_integral_value(ROUND_CEILING)),
        credits_milli=int((usd * markup * _MILLI_PER_USD).to_integral_value(ROUND_CEILING)),
    )
