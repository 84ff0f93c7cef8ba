"""What a document may hold, in every engine: checked before either of them sees it."""

import re
from collections.abc import Mapping
from typing import Any, Final

from server.storage.collection import CollectionSpec, Doc

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
#: Nobody's document is deeper; an attacker's JSON could be.
_DEPTH_LIMIT: Final = 64
_COLLECTION: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_DECLARED: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")


def check_spec(spec: CollectionSpec) -> None:
    """Raises `ValueError` for names that an engine cannot take, or an index that the spec does not support."""
    if not _COLLECTION.fullmatch(spec.name):
        raise ValueError(f"collection name {spec.name!r}")
    scalars = (*spec.text, *spec.integer, *spec.boolean)
    seen: set[str] = set()
    for name in (*scalars, *spec.lists):
        if not _DECLARED.fullmatch(name):
            raise ValueError(f"{spec.name}: field name {name!r}")
        # SQLite's columns do not tell upper case from lower.
        if name.lower() in seen:
            raise ValueError(f"{spec.name}: {name!r} is declared twice")
        seen.add(name.lower())
    for index in spec.indexes:
        unknown = [name for name in index if name not in scalars and name != "_id"]
        if unknown or not index or len(set(index)) < len(index):
            raise ValueError(f"{spec.name}: index {index} needs different declared scalar fields")


def check_document(spec: CollectionSpec, doc: Mapping[str, Any]) -> None:
    """Raises `ValueError` unless `doc` can be stored as it is and read back the same."""
    id_ = doc.get("_id")
    if not isinstance(id_, str) or not id_:
        raise ValueError(f"{spec.name}: _id must be a string that is not empty, not {id_!r}")
    for name in doc:
        check_name(name)
    check_value(dict(doc), spec.name)
    check_declared(spec, doc)


def check_changes(
    spec: CollectionSpec, set_: Mapping[str, Any] | None, inc: Mapping[str, int] | None
) -> None:
    """Raises `ValueError` unless `set_` and `inc` may be applied to a document of the collection."""
    set_, inc = set_ or {}, inc or {}
    if "_id" in set_ or "_id" in inc:
        raise ValueError(f"{spec.name}: _id never changes")
    both = set_.keys() & inc.keys()
    if both:
        raise ValueError(f"{spec.name}: {sorted(both)} both set and increased")
    for name, value in set_.items():
        check_name(name)
        check_value(value, f"{spec.name}.{name}")
    check_declared(spec, set_)
    for name, step in inc.items():
        check_name(name)
        check_integer(step, f"{spec.name}.{name}")
        if name in (*spec.text, *spec.boolean, *spec.lists):
            raise ValueError(f"{spec.name}.{name} is no integer")


def changed(doc: Doc, set_: Mapping[str, Any], inc: Mapping[str, int]) -> Doc:
    """`doc` with the changes. A missing field counts as 0. Raises `ValueError` when `inc` meets no integer."""
    new = {**doc, **set_}
    for name, step in inc.items():
        old = new.get(name, 0)
        check_integer(old, name)
        check_integer(old + step, name)
        new[name] = old + step
    return new


def check_declared(spec: CollectionSpec, doc: Mapping[str, Any]) -> None:
    """Raises `ValueError` for a declared field of another type; null and missing are always allowed."""
    for names, kind in ((spec.text, str), (spec.integer, int), (spec.boolean, bool), (spec.lists, list)):
        for name in names:
            value = doc.get(name)
            if value is None:
                continue
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise ValueError(f"{spec.name}.{name}: {kind.__name__} expected, not {value!r}")
    for name in spec.lists:
        for item in doc.get(name) or ():
            check_list_item(item, f"{spec.name}.{name}")


def check_list_item(item: object, path: str) -> None:
    """Raises `ValueError` unless `has` can find `item` in a list field, in either engine."""
    if isinstance(item, bool) or not isinstance(item, (str, int)):
        raise ValueError(  # noqa: TRY004  the port has one error for all that cannot be stored
            f"{path}: a searchable list holds strings and integers, not {item!r}"
        )
    if isinstance(item, str) and "\0" in item:
        # SQLite's JSON functions end a string there: it would be found under another name.
        raise ValueError(f"{path}: NUL in a searchable list")


def check_name(name: object) -> None:
    """Raises `ValueError` for a field that MongoDB would read as a path or an operator."""
    if not isinstance(name, str) or not name or name.startswith("$") or "." in name or "\0" in name:
        raise ValueError(f"field name {name!r}")


def check_integer(value: object, path: str) -> None:
    """Raises `ValueError` unless `value` is an integer of 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{path}: integer expected, not {value!r}")  # noqa: TRY004  as above
    if not INT64_MIN <= value <= INT64_MAX:
        raise ValueError(f"{path}: {value} does not fit 64 bits")


def check_value(value: object, path: str, depth: int = 0) -> None:
    """Raises `ValueError` for a float, an integer beyond 64 bits, a broken string, or no JSON at all."""
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        # An unpaired surrogate has no UTF-8: UnicodeEncodeError is a ValueError.
        if not value.isascii():
            value.encode()
    elif isinstance(value, int):
        check_integer(value, path)
    elif isinstance(value, (dict, list)):
        if depth >= _DEPTH_LIMIT:
            raise ValueError(f"{path}: nested more than {_DEPTH_LIMIT} deep")
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(value, dict):
                _check_key(name, path)
            check_value(inner, f"{path}.{name}", depth + 1)
    else:
        raise ValueError(f"{path}: {type(value).__name__} is not stored: {value!r}")  # noqa: TRY004  as above


def _check_key(name: object, path: str) -> None:
    if not isinstance(name, str):
        raise ValueError(f"{path}: field name {name!r}")  # noqa: TRY004  as above
    name.encode()
