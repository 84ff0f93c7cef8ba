"""Conditions and orders of the collection port in MongoDB's words."""

from typing import Any

from server.storage.collection import CollectionSpec
from server.storage.documents import INT64_MIN
from server.storage.mongo.integers import int64
from server.storage.query import Order, Term, Terms

#: The least value of each type. "Not null" is said as "at least this": one range of an index, where a negation is two, and some
#: servers count a missing field as not null.
_TEXT, _INTEGER, _BOOLEAN = "", INT64_MIN, False

Filter = dict[str, Any]


def filter_of(spec: CollectionSpec, terms: Terms) -> Filter:
    """What `find` takes. Every term stands by itself: two on one field would overwrite one another in one document."""
    return {"$and": [_condition(spec, term) for term in terms]} if terms else {}


def sort_of(order: Order) -> list[tuple[str, int]]:
    """Null and missing sort first, strings by their UTF-8: both are MongoDB's own order."""
    return [(field, 1 if direction == "asc" else -1) for field, direction in order]


def _condition(spec: CollectionSpec, term: Term) -> Filter:
    value = int64(term.value)
    match term.operator:
        case "eq" | "has":
            return {term.field: {"$eq": value}}
        case "ne" if term.value is None:
            return {term.field: {"$gte": int64(_least(spec, term.field))}}
        case "lt" | "lte":
            # The lower bound keeps null out also where a server compares values of different types.
            return {term.field: {"$gte": int64(_least(spec, term.field)), f"${term.operator}": value}}
        case _:
            return {term.field: {f"${term.operator}": value}}


def _least(spec: CollectionSpec, field: str) -> Any:
    if field in spec.integer:
        return _INTEGER
    return _BOOLEAN if field in spec.boolean else _TEXT
