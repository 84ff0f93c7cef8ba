"""Filters and pages of the collection port, parsed and checked once for every engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from server.storage.collection import CollectionSpec, Sort, Where
from server.storage.documents import check_integer, check_list_item, check_value

Operator = Literal["eq", "ne", "lt", "lte", "gt", "gte", "in", "has"]
_OPERATORS: Final = frozenset({"ne", "lt", "lte", "gt", "gte", "in", "has"})
RANGES: Final = frozenset({"lt", "lte", "gt", "gte"})


@dataclass(frozen=True, slots=True)
class Term:
    """One condition. Null and missing are one value: `eq None` finds both, an order comparison neither."""

    field: str
    operator: Operator
    value: Any


#: Fields with their direction, ending with `_id`: a total order.
Order = tuple[tuple[str, Literal["asc", "desc"]], ...]
#: Conditions that must all hold.
Terms = tuple[Term, ...]


def parse_where(spec: CollectionSpec, where: Where | None) -> Terms:
    """Raises `ValueError` for an undeclared field, an unknown operator, or a value of another type."""
    terms: list[Term] = []
    for field, condition in (where or {}).items():
        if not isinstance(condition, dict):
            terms.append(_term(spec, field, "eq", condition))
            continue
        if not condition:
            raise ValueError(f"{spec.name}.{field}: an empty condition")
        for operator, value in condition.items():
            if operator not in _OPERATORS:
                raise ValueError(f"{spec.name}.{field}: unknown operator {operator!r}")
            terms.append(_term(spec, field, cast("Operator", operator), value))
    return tuple(terms)


def parse_sort(spec: CollectionSpec, sort: Sort) -> Order:
    """The total order that `sort` means. Raises `ValueError` for an undeclared field or a field named twice."""
    order: list[tuple[str, Literal["asc", "desc"]]] = []
    for field, direction in sort:
        _type_of(spec, field)
        if direction not in ("asc", "desc") or field in (name for name, _ in order):
            raise ValueError(f"{spec.name}: sort by {field!r} {direction!r}")
        order.append((field, direction))
        if field == "_id":
            return tuple(order)  # unique: what follows cannot matter
    return (*order, ("_id", order[-1][1] if order else "asc"))


def ranges_after(spec: CollectionSpec, order: Order, after: Sequence[Any] | None) -> list[Terms]:
    """The rest of a sorted collection as index ranges, one after another.

    Null sorts before everything. Behind the key (5, "x") of an ascending page come: equal 5 with `_id` above "x",
    then all above 5. One range each keeps every engine's index in use, where one big OR would not.

    `after` has a value for each field of the order; where `_id` is a sort field itself, it may follow once more.

    Raises `ValueError` when `after` does not fit the order.
    """
    if after is None:
        return [()]
    values = list(after)
    if len(values) == len(order) + 1 and values[-1] == values[-2]:
        values.pop()
    if len(values) != len(order):
        raise ValueError(f"{spec.name}: a page after {after!r} in the order {order!r}")
    for (field, _direction), value in zip(order, values, strict=True):
        _check_operand(spec, field, value)
    if values[-1] is None:
        raise ValueError(f"{spec.name}: a page after no _id")
    ranges: list[Terms] = []
    for depth in reversed(range(len(order))):
        same = tuple(Term(order[i][0], "eq", values[i]) for i in range(depth))
        ranges.extend((*same, beyond) for beyond in _beyond(*order[depth], values[depth]))
    return ranges


def served_by_index(spec: CollectionSpec, terms: Terms, order: Order) -> bool:
    """Whether an index leads to just the matching documents, in this order: then a page costs its own length."""
    fixed = {term.field for term in terms if term.operator == "eq"}
    if "_id" in fixed:
        return True
    rest = [field for field, _ in order if field not in fixed]
    if len({direction for _, direction in order}) > 1:
        return False
    if any(term.operator not in RANGES or term.field != rest[0] for term in terms if term.operator != "eq"):
        return False
    return any(
        set(index[: len(fixed)]) == fixed and [*index[len(fixed) :], "_id"][: len(rest)] == rest
        for index in ((), *spec.indexes)
    )


def _beyond(field: str, direction: Literal["asc", "desc"], value: object) -> list[Term]:
    if direction == "asc":
        return [Term(field, "ne", None)] if value is None else [Term(field, "gt", value)]
    if value is None:
        return []
    return (
        [Term(field, "lt", value)] if field == "_id" else [Term(field, "lt", value), Term(field, "eq", None)]
    )


def _term(spec: CollectionSpec, field: str, operator: Operator, value: object) -> Term:
    if operator == "has":
        if field not in spec.lists:
            raise ValueError(f"{spec.name}: {field!r} is no declared list")
        check_list_item(value, f"{spec.name}.{field}")
        check_value(value, f"{spec.name}.{field}")
        return Term(field, operator, value)
    _type_of(spec, field)
    if operator == "in":
        if not isinstance(value, (list, tuple, set, frozenset)):
            raise ValueError(f"{spec.name}.{field}: in needs a list, not {value!r}")
        for item in value:
            _check_operand(spec, field, item)
        return Term(field, operator, tuple(value))
    if value is None and operator in RANGES:
        raise ValueError(f"{spec.name}.{field}: null has no {operator}")
    _check_operand(spec, field, value)
    return Term(field, operator, value)


def _type_of(spec: CollectionSpec, field: str) -> type:
    if field == "_id" or field in spec.text:
        return str
    if field in spec.integer:
        return int
    if field in spec.boolean:
        return bool
    raise ValueError(f"{spec.name}: {field!r} is not declared as a field to filter or sort by")


def _check_operand(spec: CollectionSpec, field: str, value: object) -> None:
    kind = _type_of(spec, field)
    if value is None:
        return
    if kind is int:
        check_integer(value, f"{spec.name}.{field}")
    elif not isinstance(value, kind):
        raise ValueError(f"{spec.name}.{field}: {kind.__name__} expected, not {value!r}")
    else:
        check_value(value, f"{spec.name}.{field}")
