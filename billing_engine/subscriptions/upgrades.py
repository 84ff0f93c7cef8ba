"""What an upgrade costs: pure. Price and allowance are prorated alike (SPEC 13)."""

from dataclasses import dataclass

from billing_engine.subscriptions.model import CYCLE_MS, Tier

#: A price is quoted, and charged, in whole cents.
_CENT_MINOR = 10_000


@dataclass(frozen=True, slots=True)
class Quote:
    """What an upgrade costs and brings, in smallest units of USD and thousandths of a credit."""

    tier: str
    amount_minor: int
    credits_milli: int
    resets: bool


def quote(old: Tier, new: Tier, *, remaining_ms: int) -> Quote:
    """The rest of the cycle at the new price instead of the old one: (new - old) x remaining / cycle, half up to a cent; and the same
    share of the allowance's increase, rounded down to a thousandth.
    """
    left_ms = min(max(remaining_ms, 0), CYCLE_MS)
    cents, rest = divmod((new.price_minor - old.price_minor) * left_ms, CYCLE_MS * _CENT_MINOR)
    cents += 2 * rest >= CYCLE_MS * _CENT_MINOR
    credits_milli = (new.credits_milli - old.credits_milli) * left_ms // CYCLE_MS
    return Quote(new.name, cents * _CENT_MINOR, credits_milli, resets=False)


def quote_reset(old: Tier, new: Tier, *, remaining_ms: int, unused_milli: int) -> Quote:
    """A whole new cycle now, at the new price less the smaller of the unused time and the unused credits, each at the old price."""
    left_ms = min(max(remaining_ms, 0), CYCLE_MS)
    unused_time = old.price_minor * left_ms // CYCLE_MS
    share = min(max(unused_milli, 0), old.credits_milli)
    unused_credits = old.price_minor * share // old.credits_milli if old.credits_milli else 0
    off_minor = min(unused_time, unused_credits) // _CENT_MINOR * _CENT_MINOR
    return Quote(new.name, new.price_minor - off_minor, new.credits_milli, resets=True)
