"""A company's days: where its months begin."""

from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo


@lru_cache(maxsize=600)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def day_in(zone: str, at_ms: int) -> str:
    """The calendar day (YYYY-MM-DD) of an instant in a time zone of the IANA database."""
    return datetime.fromtimestamp(at_ms // 1000, _zone(zone)).strftime("%Y-%m-%d")


def days_upto(last_day: str, number: int) -> list[str]:
    """The `number` days that end with this one, oldest first."""
    last = date.fromisoformat(last_day)
    return [(last - timedelta(days=back)).isoformat() for back in range(number - 1, -1, -1)]
