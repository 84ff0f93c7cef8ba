"""Bad requests made from the route table: whatever a route's models say, its opposite.

A route that is added is covered without a line here. Only where a *valid* value cannot be guessed from the schema does a field
need a sample: see `samples` of `bad_bodies` and `bad_queries`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from server.routing import Route

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class BadRequest:
    """What to send, and what must come back: the status, and the field that the problem must name."""

    what: str
    status: int
    field: str | None = None
    raw: bytes | None = None
    query: str = ""
    content_type: str | None = "application/json"


_BAD_MONEY: tuple[Any, ...] = (
    True,
    [],
    {},
    "",
    "abc",
    "-5",
    -5,
    "NaN",
    "Infinity",
    "1e3",
    "0x10",
    "1,000",
    " 5",
    "\uff15",
    "1.2345678901234",
    "1.001",
    "9" * 30,
    10**20,
    "5" * 100,
)
_BAD_NUMBERS_IN_JSON = ("1.001", "1e30", "-0.01", "5e-3")
#: Of these, what a currency with more than two decimals has.
_THOUSANDTHS = ("1.001", "5e-3")


def broken_bodies(route: Route) -> Iterator[BadRequest]:
    """Bodies that are no JSON object at all."""
    if route.body is None:
        return
    for raw in (
        b"{",
        b"nope",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"a": "\xff"}',
        b"[" * 9_000,
    ):
        yield BadRequest(f"broken {raw[:20]!r}", 400, raw=raw)
    yield BadRequest("utf-16", 400, raw="{}".encode("utf-16"))
    yield BadRequest("too large", 413, raw=b" " * ((route.body_limit or 64 * 1024) + 1))
    for content_type in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        None,
    ):
        yield BadRequest(f"content type {content_type}", 415, raw=b"{}", content_type=content_type)
    for raw in (b"[]", b"5", b'"x"', b"null", b"true"):
        yield BadRequest(f"no object {raw!r}", 422, field="body", raw=raw)


def bad_bodies(route: Route, samples: Mapping[str, Any]) -> Iterator[BadRequest]:
    """For each field of the body: missing, null, of another type, too long, too small, too large, not storable."""
    if route.body is None:
        return
    schema = route.body.model_json_schema()
    required = set(schema.get("required", ()))
    good = {
        name: _good(name, _resolved(schema, part), samples)
        for name, part in schema["properties"].items()
        if name in required | _one_of_several(schema)
    }
    for name, part in schema["properties"].items():
        part = _resolved(schema, part)  # noqa: PLW2901 (the same part, looked up)
        if name in required:
            yield _body(f"{name} missing", {key: value for key, value in good.items() if key != name}, name)
            yield _body(f"{name} null", good | {name: None}, name)
        for bad in _bad_values(part):
            yield _body(f"{name} = {str(bad)[:40]!r}", good | {name: bad}, name)
        if _is_money(part):
            for number in _BAD_NUMBERS_IN_JSON:
                if number in _THOUSANDTHS and _has_thousandths(part):
                    continue
                text = json.dumps(good | {name: "@"}).replace('"@"', number)
                yield BadRequest(f"{name} = {number}", 422, name, text.encode())


def bad_queries(route: Route, samples: Mapping[str, Any]) -> Iterator[BadRequest]:
    """The same for the query string."""
    if route.query is None:
        return
    schema = route.query.model_json_schema()
    required = set(schema.get("required", ()))
    good = {
        name: str(_good(name, _resolved(schema, part), samples))
        for name, part in schema["properties"].items()
        if name in required
    }
    for name, part in schema["properties"].items():
        part = _resolved(schema, part)  # noqa: PLW2901 (the same part, looked up)
        if name in required:
            yield BadRequest(
                f"?{name} missing", 422, name, query=_query({k: v for k, v in good.items() if k != name})
            )
        for bad in (*_bad_texts(part), *(["nonsense", "bm9uc2Vuc2U"] if name == "cursor" else [])):
            yield BadRequest(f"?{name}={bad[:40]!r}", 422, name, query=_query(good | {name: bad}))
        yield BadRequest(f"?{name} twice", 422, name, query=f"{_query(good)}&{name}=1&{name}=1")


def good_body(route: Route, samples: Mapping[str, Any]) -> bytes | None:
    """A body that passes the models."""
    if route.body is None:
        return None
    schema = route.body.model_json_schema()
    names = [*schema.get("required", ()), *sorted(_one_of_several(schema))]
    return json.dumps(
        {name: _good(name, _resolved(schema, schema["properties"][name]), samples) for name in names}
    ).encode()


def good_query(route: Route, samples: Mapping[str, Any]) -> str:
    """A query string that passes the models."""
    if route.query is None:
        return ""
    schema = route.query.model_json_schema()
    names = schema.get("required", ())
    return _query(
        {name: str(_good(name, _resolved(schema, schema["properties"][name]), samples)) for name in names}
    )


def _one_of_several(schema: Schema) -> set[str]:
    """Of fields of which some are needed together, the first choice."""
    return set(schema["anyOf"][0]["required"]) if "anyOf" in schema else set()


def _body(what: str, value: Mapping[str, Any], field: str) -> BadRequest:
    return BadRequest(what, 422, field, json.dumps(value).encode())


def _query(values: Mapping[str, str]) -> str:
    return "&".join(f"{name}={quote(value)}" for name, value in values.items())


def _resolved(whole: Schema, part: Schema) -> Schema:
    """The part behind its reference, and without the alternative null (which `nullable` then says)."""
    if "$ref" in part:
        return _resolved(whole, whole["$defs"][part["$ref"].rpartition("/")[2]])
    options = [option for option in part.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        return {**_resolved(whole, options[0]), "nullable": True}
    return part


def _is_money(part: Schema) -> bool:
    return {option.get("type") for option in part.get("anyOf", ())} == {"string", "number"}


def _has_thousandths(part: Schema) -> bool:
    return any("{1,6}" in option.get("pattern", "") for option in part["anyOf"])


def _good(name: str, part: Schema, samples: Mapping[str, Any]) -> Any:
    if name in samples:
        return samples[name]
    if _is_money(part):
        return "20.00"
    if "enum" in part:
        return part["enum"][0]
    if "examples" in part:
        return part["examples"][0]
    match part.get("type"):
        case "string":
            return "x" * max(1, part.get("minLength", 1))
        case "integer" | "number":
            return part.get("minimum", 1)
        case "boolean":
            return True
        case "array":
            return []
    raise AssertionError(f"no sample for {name}: add one to SAMPLES")


def _bad_values(part: Schema) -> Iterator[Any]:
    if _is_money(part):
        yield from (bad for bad in _BAD_MONEY if bad not in _THOUSANDTHS or not _has_thousandths(part))
    elif "enum" in part:
        yield from ("NOPE", "", 5, True, [], {})
    else:
        match part.get("type"):
            case "string":
                yield from (
                    5,
                    1.5,
                    True,
                    [],
                    {},
                    "a\x00b",
                    "\ud800",
                    "x" * (part.get("maxLength", 10_000) + 1),
                )
                if part.get("minLength"):
                    yield ""
            case "integer":
                yield from ("1", 1.5, True, [], {}, 10**30)
                yield from _outside(part)
            case "boolean":
                yield from ("true", 1, 0, [], {})
            case "number":
                yield from ("1", True, [], {})
                yield from _outside(part)
            case "array":
                # An amount of money may be a number.
                numbers = () if _is_money(part["items"]) else ([5],)
                yield from ("x", {}, 5, *numbers, [None], [["x"]], ["x"] * (part.get("maxItems", 1_000) + 1))
            case other:
                raise AssertionError(f"teach _bad_values about {other}")


def _bad_texts(part: Schema) -> Iterator[str]:
    if _is_money(part):
        yield from ("abc", "-5", "NaN", "1.2345678901234", "1.001", "9" * 30, "")
    elif "enum" in part:
        yield from ("NOPE", "")
    else:
        match part.get("type"):
            case "string":
                yield from ("a\x00b", "x" * (part.get("maxLength", 2_000) + 1))
                if part.get("minLength"):
                    yield ""
                pattern = part.get("pattern", "")
                yield from (text for text in ("~", "-1", "NaN", "a\nb") if re.search(pattern, text) is None)
            case "integer":
                yield from ("x", "1.5", "true", "", "9" * 50)
                yield from map(str, _outside(part))
            case "boolean":
                yield from ("maybe", "2", "")
            case other:
                raise AssertionError(f"teach _bad_texts about {other}")


def _outside(part: Schema) -> Iterator[int]:
    if "minimum" in part:
        yield part["minimum"] - 1
    if "maximum" in part:
        yield part["maximum"] + 1
