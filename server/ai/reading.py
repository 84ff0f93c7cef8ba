"""What a caller's body says that a bill depends on. Nothing is changed in it, and what is not known passes."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from billing_engine.subscriptions.errors import AiRequestInvalid
from billing_engine.subscriptions.model import ModelPrice, Tokens
from server.http.json_body import parse_json

#: As in the file of models, so that any priced model can be asked for.
_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}", re.ASCII)
#: What a provider's template puts around a conversation, more than a body's own syntax has bytes for.
_TEMPLATE_TOKENS: Final = 256
#: What a provider says to a model on its own account when there are tools or a form for the answer (Anthropic: up to some 600 tokens).
#: Source: https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/overview#pricing
_TOOLS_TOKENS: Final = 1_024
#: Of a text of a usual language; for what is not known exactly.
_BYTES_PER_TOKEN: Final = 4
#: What an image, a file or the like is taken for, where nobody counted.
_PART_TOKENS: Final = 1_000
_MOST_TOKENS: Final = 10**9
_MOST_ANSWERS: Final = 1_000

NOT_METERED: Final = "cannot be metered here and is refused"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a request itself says of its size. `others`: the parts of it that are no text, or lead outside of it. `output`: the most
    that one answer may have; None where it does not say. `answers`: how many are asked for.
    """

    others: Sequence[Any]
    output: int | None
    answers: int = 1
    has_tools: bool = False

    def most(self, body: bytes, parsed: Mapping[str, Any], price: ModelPrice) -> Tokens:
        """Never less than what the provider will count.

        A token is at least one byte of text, so a body of text alone has at most as many tokens as bytes, as long as what the provider
        adds is added here too. Anything else may fill all that the model can take in.
        """
        each = price.max_output_tokens if self.output is None else min(self.output, price.max_output_tokens)
        taken = price.context_tokens
        if not self.others:
            extra = _TEMPLATE_TOKENS + (_TOOLS_TOKENS if self.has_tools else 0)
            taken = min(taken, len(body) + _growth(parsed) + extra)
        return Tokens(input=taken, output=each * self.answers)


def object_of(body: bytes) -> Mapping[str, Any]:
    """The JSON object in `body`. Raises `AiRequestInvalid`; what `parse_json` raises where it is no JSON at all."""
    parsed = parse_json(body)
    if not isinstance(parsed, dict):
        raise AiRequestInvalid(field="body", problem="must be a JSON object")
    return parsed


def model_of(value: Any, *, field: str = "model") -> str:
    """Raises `AiRequestInvalid`: it becomes part of a URL and the key of a price."""
    if not isinstance(value, str) or not _MODEL.fullmatch(value):
        raise AiRequestInvalid(field=field, problem="must be the name of a model")
    return value


def whole_of(
    holder: Mapping[str, Any], name: str, *, field: str = "", most: int = _MOST_TOKENS
) -> int | None:
    """A whole number from 1; None where it is not there or null. Raises `AiRequestInvalid`."""
    value = holder.get(name)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= most:
        raise AiRequestInvalid(field=field or name, problem=f"must be a whole number from 1 to {most}")
    return value


def answers_of(holder: Mapping[str, Any], *names: str, field: str = "") -> int:
    """How many answers are asked for: the largest number under those names, 1 where there is none. Raises `AiRequestInvalid`."""
    return max((whole_of(holder, name, field=field, most=_MOST_ANSWERS) or 1 for name in names), default=1)


def flag_of(holder: Mapping[str, Any], name: str, *, field: str = "") -> bool:
    """Raises `AiRequestInvalid`."""
    value = holder.get(name)
    if value is not None and not isinstance(value, bool):
        raise AiRequestInvalid(field=field or name, problem="must be true or false")
    return bool(value)


def object_at(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object there; empty where it is not there or null. Raises `AiRequestInvalid`."""
    value = holder.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise AiRequestInvalid(field=name, problem="must be an object")
    return value


def refuse(holder: Mapping[str, Any], names: Iterable[str], *, prefix: str = "") -> None:
    """Raises `AiRequestInvalid` for the first of these that is there and says something."""
    for name in names:
        if holder.get(name) is not None:
            raise AiRequestInvalid(field=prefix + name, problem=NOT_METERED)


def only(holder: Mapping[str, Any], name: str, allowed: Iterable[Any], *, prefix: str = "") -> None:
    """Raises `AiRequestInvalid` where it is there and says anything but one of `allowed`: what that costs is not in the price."""
    value = holder.get(name)
    if value is not None and value not in list(allowed):
        raise AiRequestInvalid(field=prefix + name, problem=NOT_METERED)


def listed(holder: Mapping[str, Any], name: str) -> list[Any]:
    """The list there, one item where it is none; empty where it is not there or null."""
    value = holder.get(name)
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def refuse_keys(value: Any, names: frozenset[str]) -> None:
    """Raises `AiRequestInvalid` where one of these keys is anywhere, however deep."""
    for item in _objects(value):
        refuse(item, sorted(names & item.keys()))


def estimated(parsed: Mapping[str, Any], others: Sequence[Any]) -> int:
    """About how many tokens a request has, for what was broken off before its provider counted."""
    text_bytes = _size(parsed) - sum(map(_size, others))
    return -(-max(0, text_bytes) // _BYTES_PER_TOKEN) + len(others) * _PART_TOKENS


def tokens_in(text_bytes: int, pieces: int) -> int:
    """About how many tokens were put out: a piece has at least one, and long ones have more."""
    return max(pieces, -(-text_bytes // _BYTES_PER_TOKEN))


def _growth(value: Any) -> int:
    """By how many bytes texts may grow when a tokenizer composes them first: U+FDFA, of three bytes, becomes 33 in NFKC."""
    grown = 0
    for text in _texts(value):
        if not text.isascii():
            grown += sum(count * _grown(char) for char, count in Counter(text).items())
    return grown


@lru_cache(maxsize=4096)
def _grown(char: str) -> int:
    # No character is longer in NFC than in NFKC and than itself.
    return max(0, len(unicodedata.normalize("NFKC", char).encode()) - len(char.encode()))


def _size(value: Any) -> int:
    return sum(len(text.encode()) for text in _texts(value))


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for name, item in value.items():
                yield name
                yield from _texts(item)
        case list():
            for item in value:
                yield from _texts(item)


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _objects(item)
    elif isinstance(value, list):
        for item in value:
            yield from _objects(item)
