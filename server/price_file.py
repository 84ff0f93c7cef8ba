"""The price book's file, and the prices of the environment that go before it at the first start."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from billing_engine.errors import Invalid
from billing_engine.money import Asset, parse_minor
from billing_engine.usage.pricing import ListedPrice, check_price

SHIPPED: Final = Path(__file__).with_name("price_book.toml")
_KEYS: Final = frozenset({"entry_type", "unit", "price", "per"})


class PriceFileInvalid(ValueError):
    """The file cannot be used; says why."""


class OverridesInvalid(ValueError):
    """`USAGE_PRICES` cannot be used; says why."""


@dataclass(frozen=True, slots=True)
class PriceFile:
    """What the file says."""

    version: int
    prices: tuple[ListedPrice, ...]


def load_price_file(asset: Asset, path: Path = SHIPPED) -> PriceFile:
    """The file's prices, which are in `asset`. Raises `PriceFileInvalid`."""
    try:
        content = tomllib.loads(path.read_text("utf-8"), parse_float=Decimal)
        version = _head(content.pop("version"), content.pop("currency"), asset)
        prices = tuple(
            _listed(list_name, type_, row, asset)
            for list_name, types in content.items()
            for type_, row in types.items()
        )
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as exc:
        raise PriceFileInvalid(f"{path}: {exc!r}") from exc
    _require_one_word_each(path, prices)
    return PriceFile(version, prices)


def with_overrides(file: PriceFile, text: str, asset: Asset) -> PriceFile:
    """The file with the prices of `list.type=price,…` in it, each for as many units as the file says. Raises `OverridesInvalid`."""
    given: dict[str, int] = {}
    for item in filter(None, map(str.strip, text.split(","))):
        name, equals, price = (part.strip() for part in item.partition("="))
        if not equals or name in given:
            raise OverridesInvalid(f"{item!r} is not one price such as tokens.cv-parsing=0.55")
        given[name] = _minor(price, asset)
    listed = {".".join(price.pair): price for price in file.prices}
    if unknown := given.keys() - listed.keys():
        raise OverridesInvalid(f"the price file has no {', '.join(sorted(unknown))}")
    for name, price_minor in given.items():
        listed[name] = replace(listed[name], price_minor=price_minor)
        try:
            check_price(listed[name], scale=asset.scale)
        except Invalid as exc:
            raise OverridesInvalid(f"{name} {exc.facts['problem']}") from exc
    return PriceFile(file.version, tuple(listed.values()))


def _head(version: Any, currency: Any, asset: Asset) -> int:
    if type(version) is not int or version < 1:
        raise ValueError("version must be a number from 1")
    if currency != asset.code:
        raise ValueError(f"the file's currency is {currency}, COMPANY_CURRENCY is {asset.code}")
    return version


def _minor(price: str, asset: Asset) -> int:
    try:
        return parse_minor(price, asset)
    except Invalid as exc:
        raise OverridesInvalid(f"{price!r} {exc.facts['problem']}") from exc


def _listed(list_name: str, type_: str, row: Mapping[str, Any], asset: Asset) -> ListedPrice:
    name = f"{list_name}.{type_}"
    if set(row) - _KEYS or type(row.get("per", 1)) is not int:
        raise ValueError(f"{name} needs entry_type, unit, price, and perhaps per")
    try:
        listed = ListedPrice(
            list_name,
            type_,
            row["entry_type"],
            row["unit"],
            parse_minor(row["price"], asset, field="price"),
            row.get("per", 1),
        )
        check_price(listed, scale=asset.scale)
    except Invalid as exc:
        raise ValueError(f"{name}: {exc.facts['field']} {exc.facts['problem']}") from exc
    return listed


def _require_one_word_each(path: Path, prices: tuple[ListedPrice, ...]) -> None:
    """A type is the same thing in every list, and a word of the ledger is one type. Raises `PriceFileInvalid`."""
    words = {(price.type, price.entry_type) for price in prices}
    types, entry_types = {type_ for type_, _ in words}, {entry_type for _, entry_type in words}
    if not prices or not len(words) == len(types) == len(entry_types):
        raise PriceFileInvalid(
            f"{path}: there must be prices, and each type has one entry_type of its own in all lists"
        )
