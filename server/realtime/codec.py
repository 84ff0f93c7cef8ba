"""JSON of the sockets: orjson's speed, and a second look at what orjson refuses.

The library's JSON module is a class attribute, so it is one for the whole process: `engine.py` sets it once.
"""

import json
from typing import Any

import orjson

JSONDecodeError = ValueError


def dumps(value: Any, **_options: Any) -> str:
    """Compact JSON. The options are those of the standard library that the socket libraries pass."""
    return orjson.dumps(value).decode()


def loads(text: str | bytes, **_options: Any) -> Any:
    """The value. NaN and half a surrogate pair are no JSON to orjson, but they are to some clients: read
    them, so that validation can name the field instead of a parser cutting the connection.

    Raises `ValueError`.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            return json.loads(text)
        except RecursionError as exc:
            raise ValueError("nested too deeply") from exc
