"""The prices of AI models, from their file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from billing_engine.subscriptions.catalogue import ModelPrices
from billing_engine.subscriptions.model import ModelPrice
from server.ai_files import exact, model_name, provider_of, require_keys, rows_of, whole

SHIPPED: Final = Path(__file__).with_name("ai_models.toml")
_KEYS: Final = ("provider", "model", "input", "output", "context_tokens", "max_output_tokens")
_MOST_TOKENS: Final = 10**8


class ModelsInvalid(ValueError):
    """The file of models cannot be used; says why."""


def load_models(path: Path = SHIPPED) -> ModelPrices:
    """The prices that the file says. Raises `ModelsInvalid`, naming the row."""
    try:
        version, prices = rows_of(path, "model", _price)
        return ModelPrices(prices, version=version)
    except (OSError, ValueError) as exc:
        raise ModelsInvalid(f"{path}: {exc}") from exc


def _price(_: int, row: Mapping[str, Any]) -> ModelPrice:
    require_keys(row, _KEYS)
    return ModelPrice(
        provider=provider_of(row["provider"]),
        model=model_name(row["model"]),
        input_per_1k=exact(row, "input"),
        output_per_1k=exact(row, "output"),
        context_tokens=whole(row, "context_tokens", 1, _MOST_TOKENS),
        max_output_tokens=whole(row, "max_output_tokens", 1, _MOST_TOKENS),
    )
