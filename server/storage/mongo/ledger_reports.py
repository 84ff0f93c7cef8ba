"""Sums over the rows of `ledger_entries`, added up by the server and exact.

A sum of 64-bit integers stays one as long as it fits; beyond, the server answers with a float, and the last paisa is gone. That is an
error here, never a figure.
"""

from collections.abc import Mapping
from typing import Any

from billing_engine.errors import InvariantBroken
from billing_engine.ledger.model import KeyState

Stage = dict[str, Any]


def on_days(asset: str, first_day: str, last_day: str) -> Stage:
    """The rows of posted entries of these days, both included."""
    days = {"$gte": first_day, "$lte": last_day}
    return {"state": KeyState.POSTED.value, "asset": asset, "day": days}


def unwound(matching: Mapping[str, Any], transfers: Mapping[str, Any] | None = None) -> list[Stage]:
    """Every transfer of the rows that match, or those transfers that match as well."""
    stages: list[Stage] = [{"$match": dict(matching)}, {"$unwind": "$transfers"}]
    return [*stages, {"$match": dict(transfers)}] if transfers else stages


def summed(number: str, by: Any) -> list[Stage]:
    """Group by the one value `by`; add up the field `number`, and count."""
    return [
        {"$project": {"by": by, "number": number}},
        {"$group": {"_id": "$by", "sum": {"$sum": "$number"}, "rows": {"$sum": 1}}},
    ]


def day_and_kind(kind: str) -> Stage:
    """One value for both: a day has no bar."""
    return {"$concat": ["$day", "|", kind]}


def sums_of(groups: list[dict[str, Any]]) -> dict[Any, tuple[int, int]]:
    """Value -> (sum, rows). Raises `InvariantBroken` for a sum that left 64 bits."""
    for group in groups:
        if not isinstance(group["sum"], int):
            raise InvariantBroken(rule="a sum is exact", of=group["_id"], sum=group["sum"])
    return {group["_id"]: (group["sum"], int(group["rows"])) for group in groups}
