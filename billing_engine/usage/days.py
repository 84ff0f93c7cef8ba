"""A company's days: where its months begin."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo


@lru_cache(maxsize=600)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def day_in(zone: str, at_ms: int) -> str:
    """The calendar day (YYYY-MM-DD) of an instant in a time zone of the IANA database."""
    return datetime.fromtimestamp(at_ms // 1000, _zone(zone)).strftime("%Y-%m-%d")


def days_before(day: str, number: int) -> str:
    """The day `number` days before."""
    return (datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC) - timedelta(days=number)).strftime(
        "%Y-%m-%d"
    )
