"""From the port's conditions to SQL. Names come from checked specs and are quoted; values are always bound."""

from typing import Any, Final

from server.storage.query import Order, Term, Terms

_COMPARISONS: Final = {"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}


def quoted(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def conditions(terms: Terms) -> tuple[str, list[Any]]:
    """An expression that is true where all `terms` hold, and its parameters."""
    parts: list[str] = []
    parameters: list[Any] = []
    for term in terms:
        part, values = _condition(term)
        parts.append(part)
        parameters.extend(values)
    return " AND ".join(parts) or "1", parameters


def order_by(order: Order) -> str:
    """SQLite sorts null first, as the port does."""
    return ", ".join(f"{quoted(field)} {direction}" for field, direction in order)


def _condition(term: Term) -> tuple[str, list[Any]]:
    column = quoted(term.field)
    match term.operator:
        case "eq" if term.value is None:
            return f"{column} IS NULL", []
        case "eq":
            return f"{column} = ?", [term.value]
        case "ne":
            return f"{column} IS NOT ?", [term.value]
        case "in":
            return _one_of(column, term.value)
        case "has":
            # The type as well: to SQLite the JSON value true is the integer 1.
            kind = "text" if isinstance(term.value, str) else "integer"
            path = "'$." + column + "'"
            inside = (
                f'SELECT 1 FROM json_each("_body", {path}) AS item WHERE item.value = ? AND item.type = ?'
            )
            return f"EXISTS ({inside})", [term.value, kind]
        case operator:
            return f"{column} {_COMPARISONS[operator]} ?", [term.value]


def _one_of(column: str, values: tuple[Any, ...]) -> tuple[str, list[Any]]:
    present = [value for value in dict.fromkeys(values) if value is not None]
    # Never an empty list: SQLite would take it, the standard does not.
    options = [f"{column} IN ({', '.join('?' * len(present))})"] if present else []
    if None in values:
        options.append(f"{column} IS NULL")
    return "(" + (" OR ".join(options) or "0") + ")", present
