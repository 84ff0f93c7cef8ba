"""The packages of credits, from their file."""

import tomllib
from pathlib import Path
from typing import Any, Final

from billing_engine.credits.pricing import CreditPackage

SHIPPED: Final = Path(__file__).with_name("credit_packages.toml")
#: More in one package would be a slip of the hand, and its price might not fit.
_MOST: Final = 100_000


class PackagesInvalid(ValueError):
    """The file of packages cannot be used; says why."""


def load_packages(path: Path = SHIPPED) -> tuple[CreditPackage, ...]:
    """The packages in the file's order. Raises `PackagesInvalid`."""
    try:
        listed = tomllib.loads(path.read_text()).get("package", [])
        packages = tuple(_package(row) for row in listed)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as exc:
        raise PackagesInvalid(f"{path}: {exc!r}") from exc
    if not packages or len({package.id for package in packages}) < len(packages):
        raise PackagesInvalid(f"{path}: there must be packages, each with an id of its own")
    return packages


def _package(row: dict[str, Any]) -> CreditPackage:
    package = CreditPackage(id=row["id"], name=row["name"], credits=row["credits"])
    numbers = type(package.id) is int and type(package.credits) is int and isinstance(package.name, str)
    if not numbers or not package.name or package.id < 1 or not 1 <= package.credits <= _MOST:
        raise ValueError(f"{row} needs an id from 1, a name, and from 1 to {_MOST} credits")
    return package
