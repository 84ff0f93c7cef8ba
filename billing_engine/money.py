"""Money: integers of an asset's smallest unit, exact parsing and printing, the telescoping price.

No float enters or leaves this module. SPEC 1 (decimal strings) and SPEC 5 (price) are its source.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from billing_engine.errors import Invalid

#: Above this no amount is accepted: far beyond any wallet, far below 2**63 (an 8-byte integer in both stores).
MAX_MINOR: Final = 10**15

#: No amount has more digits than this on either side of its point.
_DIGITS: Final = 30
_NUMBER: Final = re.compile(r"-?\d{1,16}(\.\d{1,12})?", re.ASCII)


class MoneyInvalid(Invalid):
    """An amount is malformed, has too many decimals, or is out of range."""

    code = "VALIDATION_FAILED"


@dataclass(frozen=True, slots=True)
class Asset:
    """A currency or a kind of credit: its code and how many decimals its smallest unit has."""

    code: str
    decimals: int

    @property
    def scale(self) -> int:
        """Smallest units in one major unit."""
        return int(10**self.decimals)


INR: Final = Asset("INR", 2)
USD: Final = Asset("USD", 6)
AI_CREDIT: Final = Asset("AI_CREDIT", 3)
APPLICATION_CREDIT: Final = Asset("APPLICATION_CREDIT", 0)

ASSETS: Final = {asset.code: asset for asset in (INR, USD, AI_CREDIT, APPLICATION_CREDIT)}


def parse_minor(value: object, asset: Asset, *, field: str = "amount") -> int:
    """Smallest units of `asset` in a decimal string, an int or a Decimal, read exactly.

    Raises:
        MoneyInvalid: not a plain decimal number, more decimals than the asset has, or beyond `MAX_MINOR`.
            Nothing is rounded and a float is refused: it has lost the number the client wrote.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise MoneyInvalid(field=field, problem="must be a decimal number or a decimal string")
    text = _digits(value)
    if not _NUMBER.fullmatch(text):
        raise MoneyInvalid(field=field, problem="must be a plain decimal number such as 500.00")
    whole, _, fraction = text.lstrip("-").partition(".")
    if len(fraction.rstrip("0")) > asset.decimals:
        raise MoneyInvalid(field=field, problem=f"has more than {asset.decimals} decimals")
    minor = int(whole) * asset.scale + int((fraction[: asset.decimals]).ljust(asset.decimals, "0") or "0")
    if minor > MAX_MINOR:
        raise MoneyInvalid(field=field, problem="is too large")
    return -minor if text.startswith("-") else minor


def _digits(value: str | int | Decimal) -> str:
    """The number written out, or a text that is none. `1E+999999999` would be written out to a gigabyte."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value) if abs(value) <= MAX_MINOR else "too large"
    return format(value, "f") if value.is_finite() and abs(value.adjusted()) <= _DIGITS else "too large"


def format_minor(minor: int, asset: Asset) -> str:
    """The amount in major units: at least two decimals, further zeros trimmed (`1250` INR prints `12.50`)."""
    whole, rest = divmod(abs(minor), asset.scale)
    fraction = str(rest).rjust(asset.decimals, "0") if asset.decimals else ""
    sign = "-" if minor < 0 else ""
    return f"{sign}{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def price(rate_minor_per_min: int, seconds: int) -> int:
    """What `seconds` whole served seconds cost: `floor(rate * s / 60)`, rounded down once (SPEC 5)."""
    return rate_minor_per_min * seconds // 60


def affordable_seconds(rate_minor_per_min: int, minor: int) -> int:
    """The largest s with `price(rate, s) <= minor` (LEDGER 4, the inverse price). The rate is positive."""
    return (60 * (minor + 1) - 1) // rate_minor_per_min


def commission_of(gross_minor: int, commission_bp: int) -> int:
    """The platform's part of `gross_minor`, rounded down; the rest is the lawyer's. `commission_bp` is in 1/100 of a percent."""
    return gross_minor * commission_bp // 10_000
