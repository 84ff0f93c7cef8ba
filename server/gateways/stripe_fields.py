"""Fields of Stripe's objects. What is missing or something else is a KeyError or a TypeError."""

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]


def id_of(value: object) -> str | None:
    """Of an object that may be expanded."""
    if isinstance(value, Mapping):
        return text(value, "id")
    return value if isinstance(value, str) and value else None


def text(found: Json, name: str) -> str:
    value = found[name]
    if not isinstance(value, str) or not value:
        raise TypeError(name)
    return value


def number(found: Json, name: str) -> int:
    """Not below zero."""
    value = found[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(name)
    return value


def instant_ms(found: Json) -> int:
    """When it was made."""
    return 1000 * number(found, "created")
