"""Events made up at random from the table: mostly nearly right, so that they get far; new events of the table are made up too."""

import json
import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chat.event_types import ClientEvent
from chat.events import CLIENT_EVENTS, SERVER_EVENTS

#: Names of no table, some of which mean something to the library.
_STRANGE: Final = (
    "connect",
    "disconnect",
    "connect_error",
    "message",
    "*",
    "",
    "__init__",
    *(set(SERVER_EVENTS) - set(CLIENT_EVENTS)),
)


def _encodes(text: str) -> bool:
    """Half a surrogate pair can be written as an escape only."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Known:
    """What one client may name: things of its own, and things that it has no right to."""

    canary: str
    own: Mapping[str, Sequence[Any]]
    foreign: Mapping[str, Sequence[Any]]


class Fuzzer:
    """One client's events. The same seed makes the same ones."""

    def __init__(self, rng: random.Random, known: Known) -> None:
        self._rng = rng
        self._known = known
        self._number = 0

    def event(self) -> str:
        """The JSON text of an event: name and arguments. At times it is no JSON at all."""
        rng = self._rng
        name, arguments = self._call()
        text = json.dumps([name, *arguments], ensure_ascii=False)
        if rng.random() < 0.5 or not _encodes(text):
            text = json.dumps([name, *arguments])
        return text[: rng.randrange(1, len(text))] if rng.random() < 0.02 else text

    def _call(self) -> tuple[Any, list[Any]]:
        rng = self._rng
        if rng.random() < 0.06:
            return rng.choice((*_STRANGE, self._junk())), [self._junk()]
        event = rng.choice(list(CLIENT_EVENTS.values()))
        if rng.random() < 0.06:
            return event.name, [self._junk() for _ in range(rng.randrange(3))]
        return event.name, [self._payload(event)]

    def _payload(self, event: ClientEvent) -> dict[str, Any]:
        rng = self._rng
        payload: dict[str, Any] = {}
        properties = event.payload.model_json_schema(by_alias=True)["properties"]
        for field in event.payload.model_fields.values():
            name = str(field.alias)
            if rng.random() < (0.03 if field.is_required() else 0.5):
                continue
            payload[name] = self._junk() if rng.random() < 0.05 else self._value(name, properties[name])
        if rng.random() < 0.05:
            payload[rng.choice(("future", "__proto__", ""))] = self._junk()
        return payload

    def _value(self, name: str, schema: Mapping[str, Any]) -> Any:
        rng, known = self._rng, self._known
        if name in known.foreign and rng.random() < 0.25:
            return rng.choice(known.foreign[name])
        if name in known.own:
            return rng.choice(known.own[name])
        if name == "body":
            return f"{known.canary} {rng.choice(('Hello', 'नमस्ते 😀', 'x' * 3_000, '</script>'))}"
        if name == "clientMsgId":
            self._number += rng.random() < 0.8
            return f"{known.canary}-{self._number}"
        if name == "pendingIds":
            return [f"{known.canary}-{rng.randrange(self._number + 1)}" for _ in range(rng.randrange(5))]
        return self._of(schema)

    def _of(self, schema: Mapping[str, Any]) -> Any:
        rng = self._rng
        if options := schema.get("anyOf") or schema.get("oneOf"):
            return self._of(rng.choice(options))
        if "enum" in schema:
            return rng.choice(schema["enum"])
        match schema.get("type"):
            case "boolean":
                return rng.random() < 0.5
            case "integer" | "number":
                return rng.randrange(0, 60)
            case "array":
                return [self._of(schema.get("items", {})) for _ in range(rng.randrange(4))]
            case "null":
                return None
            case "string":
                return self._word()
            case _:
                return {"text": self._word()}

    def _word(self) -> str:
        return f"{self._known.canary}{''.join(self._rng.choices(string.ascii_letters, k=self._rng.randrange(9)))}"

    def _junk(self, depth: int = 0) -> Any:
        rng = self._rng
        kinds = 9 if depth < 3 else 7
        match rng.randrange(kinds):
            case 0:
                return None
            case 1:
                return rng.random() < 0.5
            case 2:
                return rng.choice((-1, 0, 2**31, 2**53, 10**30, -(10**30)))
            case 3:
                return rng.choice((0.5, float("nan"), float("inf"), 1e300))
            case 4:
                return ""
            case 5:
                return rng.choice(("\x00", "\ud83d", "a" * 9_000, "\u2028", "'; DROP TABLE messages; --"))
            case 6:
                return self._word()
            case 7:
                return [self._junk(depth + 1) for _ in range(rng.randrange(4))]
            case _:
                return {self._word(): self._junk(depth + 1) for _ in range(rng.randrange(4))}
