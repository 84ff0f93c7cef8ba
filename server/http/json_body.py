"""JSON as RFC 8259 has it, numbers exact, and nothing that a stored document could not hold."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NoReturn

from server.errors import MalformedJson, ValidationFailed

#: No body of this API nests deeper than a few levels.
MAX_DEPTH: Final = 32
#: Digits of a number, and places between it and the decimal point: `1e999999999` must not become a gigabyte of zeros.
MAX_NUMBER: Final = 40
#: NUL, and halves of surrogate pairs. Prompts have a megabyte: a loop over its characters would hold up everybody for 0.1 s.
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def parse_json(raw: bytes) -> Any:
    """The value in `raw`: whole numbers as int (`2.0` is 2, as JSON Schema has it), other numbers as Decimal, exactly as written.

    Raises:
        MalformedJson: not UTF-8, not JSON, a key twice, NaN or Infinity, a number or nesting beyond any sense.
        ValidationFailed: a text has a NUL or half of a surrogate pair, which no store takes; names the field.
    """
    try:
        value = json.loads(
            raw.decode("utf-8"),
            parse_int=_integer,
            parse_float=_decimal,
            parse_constant=_refuse,
            object_pairs_hook=_object,
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as exc:
        raise MalformedJson(reason=type(exc).__name__) from exc
    check_texts(value)
    return value


def check_texts(value: Any) -> None:
    """Raise `ValidationFailed` for the first text in `value` that cannot be stored, `MalformedJson` when it nests too deep."""
    for path, text in _texts(value, ()):
        if _UNSTORABLE.search(text):
            raise ValidationFailed(
                [(".".join(path) or "body", "must not contain NUL or unpaired surrogates")]
            )


def _texts(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if len(path) > MAX_DEPTH:
        raise MalformedJson(reason="nested too deep")
    match value:
        case str():
            yield path, value
        case dict():
            for key, item in value.items():
                yield path, key
                yield from _texts(item, (*path, key))
        case list():
            for index, item in enumerate(value):
                yield from _texts(item, (*path, str(index)))


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER:
        raise MalformedJson(reason="a number is too long")
    return int(text)


def _decimal(text: str) -> int | Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation as exc:
        raise MalformedJson(reason="a number is out of range") from exc
    if len(text) > MAX_NUMBER or abs(number.adjusted()) > MAX_NUMBER:
        raise MalformedJson(reason="a number is out of range")
    return int(number) if number == number.to_integral_value() else number


def _refuse(constant: str) -> NoReturn:
    raise MalformedJson(reason=f"{constant} is no number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        # Two parsers would read two different requests.
        raise MalformedJson(reason="a key is there twice")
    return made
