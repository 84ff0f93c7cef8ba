"""What the files of AI tiers and AI models have in common: a head, rows, and values that are checked one by one."""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeVar

from billing_engine.subscriptions.model import Provider

#: At most this exact: with up to 10^8 tokens and a markup, a cost then fits the 28 digits in which it is computed.
_DECIMAL: Final = re.compile(r"\d{1,4}(\.\d{1,8})?", re.ASCII)
#: As every adapter accepts a model's name.
MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}", re.ASCII)

Row = TypeVar("Row")


class RowInvalid(ValueError):
    """A value that cannot be."""


def rows_of(
    path: Path, kind: str, read: Callable[[int, Mapping[str, Any]], Row]
) -> tuple[int, tuple[Row, ...]]:
    """The file's version and its rows, `[[kind]]`.

    Raises `RowInvalid`, naming the row by its number; ValueError (no TOML); OSError.
    """
    content = tomllib.loads(path.read_text("utf-8"), parse_float=_no_float)
    version, currency = content.pop("version", None), content.pop("currency", None)
    if type(version) is not int or version < 1:
        raise RowInvalid("version must be a number from 1")
    if currency != "USD":
        raise RowInvalid('currency must be "USD"')
    rows = content.pop(kind, None)
    if content:
        raise RowInvalid(f"{', '.join(sorted(content))} is not known")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise RowInvalid(f"there must be tables [[{kind}]]")
    made = []
    for number, row in enumerate(rows, 1):
        try:
            made.append(read(number, row))
        except ValueError as exc:
            raise RowInvalid(f"{kind} {number} ({row.get('name') or row.get('model')}): {exc}") from exc
    return version, tuple(made)


def require_keys(row: Mapping[str, Any], needed: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raises `RowInvalid` for a key that is missing, and for one that is misspelt and would go unread."""
    missing, unknown = set(needed) - set(row), set(row) - set(needed) - set(optional)
    if missing:
        raise RowInvalid(f"{', '.join(sorted(missing))} is missing")
    if unknown:
        raise RowInvalid(f"{', '.join(sorted(unknown))} is not known")


def whole(row: Mapping[str, Any], key: str, low: int, high: int) -> int:
    """A whole number. Raises `RowInvalid`."""
    value = row[key]
    if type(value) is not int or not low <= value <= high:
        raise RowInvalid(f"{key} must be a whole number from {low} to {high}")
    return value


def exact(row: Mapping[str, Any], key: str) -> Decimal:
    """A decimal from a string, exactly. Raises `RowInvalid`."""
    value = row[key]
    if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
        raise RowInvalid(f'{key} must be a decimal string such as "0.0025", with at most 8 decimals')
    return Decimal(value)


def provider_of(value: Any) -> Provider:
    """Raises `RowInvalid`."""
    try:
        return Provider(value)
    except ValueError as exc:
        raise RowInvalid(f"{value!r} is no provider; there are {', '.join(Provider)}") from exc


def model_name(value: Any) -> str:
    """Raises `RowInvalid`."""
    if not isinstance(value, str) or not MODEL_NAME.fullmatch(value):
        raise RowInvalid(f"{value!r} is no name of a model")
    return value


def _no_float(text: str) -> Any:
    raise RowInvalid(
        f'{text} must be a string, "{text}": numbers with a point are read exactly or not at all'
    )
