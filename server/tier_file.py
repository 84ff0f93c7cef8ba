"""The tiers of subscriptions, from their file."""

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from billing_engine.errors import Invalid
from billing_engine.money import AI_CREDIT, USD, Asset, parse_minor
from billing_engine.subscriptions.catalogue import Tiers
from billing_engine.subscriptions.model import Provider, Tier
from server.ai_files import RowInvalid, exact, model_name, provider_of, require_keys, rows_of, whole

SHIPPED: Final = Path(__file__).with_name("subscription_tiers.toml")
_KEYS: Final = (
    "name",
    "price",
    "credits",
    "monthly_tokens",
    "monthly_requests",
    "parallel_calls",
    "credit_markup",
    "providers",
)
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.ASCII)
_MOST_TOKENS: Final = 10**12
_MOST_REQUESTS: Final = 10**9
_MOST_CALLS: Final = 10_000
_MOST_MARKUP: Final = Decimal(1000)
_CENT: Final = USD.scale // 100


class TiersInvalid(ValueError):
    """The file of tiers cannot be used; says why."""


def load_tiers(path: Path = SHIPPED) -> Tiers:
    """The tiers in the file's order, which is their rank. Raises `TiersInvalid`, naming the row."""
    try:
        return Tiers(rows_of(path, "tier", _tier)[1])
    except (OSError, ValueError) as exc:
        raise TiersInvalid(f"{path}: {exc}") from exc


def _tier(number: int, row: Mapping[str, Any]) -> Tier:
    require_keys(row, _KEYS, ("models",))
    name = row["name"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RowInvalid("name must be a word in lower case")
    price_minor = _amount(row, "price", USD)
    if price_minor % _CENT:
        raise RowInvalid("price must be whole cents: nobody can be charged less")
    markup = exact(row, "credit_markup")
    # Four decimals: a cost times its markup must fit the digits in which it is computed.
    if not 0 < markup < _MOST_MARKUP or markup != round(markup, 4):
        raise RowInvalid("credit_markup must be above 0, below 1000, and have at most 4 decimals")
    providers = _providers(row["providers"])
    return Tier(
        name=name,
        rank=number - 1,
        price_minor=price_minor,
        credits_milli=_amount(row, "credits", AI_CREDIT),
        monthly_tokens=whole(row, "monthly_tokens", 1, _MOST_TOKENS),
        monthly_requests=whole(row, "monthly_requests", 1, _MOST_REQUESTS),
        providers=providers,
        parallel_calls=whole(row, "parallel_calls", 1, _MOST_CALLS),
        credit_markup=markup,
        models=_models(row.get("models", {}), providers),
    )


def _amount(row: Mapping[str, Any], key: str, asset: Asset) -> int:
    if not isinstance(row[key], str):
        raise RowInvalid(f'{key} must be a decimal string such as "19.00"')
    try:
        minor = parse_minor(row[key], asset, field=key)
    except Invalid as exc:
        raise RowInvalid(f"{key} {exc.facts['problem']}") from exc
    if minor < 0:
        raise RowInvalid(f"{key} must not be negative")
    return minor


def _providers(value: Any) -> frozenset[Provider]:
    if not isinstance(value, list) or not value:
        raise RowInvalid("providers must be a list of at least one")
    return frozenset(map(provider_of, value))


def _models(value: Any, providers: frozenset[Provider]) -> Mapping[Provider, frozenset[str]]:
    if not isinstance(value, dict):
        raise RowInvalid('models must be a table such as models.openai = ["gpt-4o-mini"]')
    found = {}
    for name, models in value.items():
        provider = provider_of(name)
        if provider not in providers:
            raise RowInvalid(f"models has {name}, which is none of its providers")
        if not isinstance(models, list) or not models:
            raise RowInvalid(f"models.{name} must be a list of at least one")
        found[provider] = frozenset(map(model_name, models))
    return found
