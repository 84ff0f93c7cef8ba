"""Ledger documents as plain JSON values, the same for every store."""

from collections.abc import Mapping
from typing import Any

from billing_engine.ledger.model import Entry, Hold, KeyState, Transfer


def holds_to_json(holds: Mapping[str, Hold]) -> list[tuple[Any, ...]]:
    """Holds as arrays in the order of `Hold`'s fields: they are written with every slice."""
    return [tuple(hold) for hold in holds.values()]


def holds_of_json(raw: list[list[Any]]) -> dict[str, Hold]:
    return {item[0]: Hold(*item) for item in raw}


def transfers_to_json(transfers: tuple[Transfer, ...]) -> list[list[Any]]:
    return [[t.debit, t.credit, t.amount_minor, t.kind] for t in transfers]


def transfers_of_json(raw: list[list[Any]]) -> tuple[Transfer, ...]:
    return tuple(Transfer(debit, credit, amount_minor, kind) for debit, credit, amount_minor, kind in raw)


def entry_to_json(entry: Entry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "account": entry.account,
        "seq": entry.seq,
        "state": entry.state.value,
        "kind": entry.kind,
        "asset": entry.asset,
        "reference": entry.reference,
        "transfers": transfers_to_json(entry.transfers),
        "postedBefore": entry.posted_before,
        "postedAfter": entry.posted_after,
        "atMs": entry.at_ms,
        "day": entry.day,
        "facts": entry.facts,
    }


def entry_of_json(raw: dict[str, Any]) -> Entry:
    return Entry(
        key=raw["key"],
        account=raw["account"],
        seq=raw["seq"],
        state=KeyState(raw["state"]),
        kind=raw["kind"],
        asset=raw["asset"],
        reference=raw["reference"],
        transfers=transfers_of_json(raw["transfers"]),
        posted_before=raw["postedBefore"],
        posted_after=raw["postedAfter"],
        at_ms=raw["atMs"],
        day=raw["day"],
        facts=raw["facts"],
    )
