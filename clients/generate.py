"""`python -m clients.generate` writes the types of both clients from the AsyncAPI document; a test says when they are out of date.

It goes through whatever the document has: no event, field or code is named here.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from keyword import iskeyword
from pathlib import Path
from typing import Any, Final, Protocol

from server.api_docs.asyncapi import asyncapi_document

Json = Mapping[str, Any]

ROOT: Final = Path(__file__).parent
_NOTE: Final = "Made by `python -m clients.generate` from the server's AsyncAPI document. Do not edit."
_WIDTH: Final = 110


class Language(Protocol):
    """How a type is written."""

    @property
    def words(self) -> Mapping[str, str]:
        """By JSON Schema's names of types; "any" is what we cannot say."""
        ...

    def literal(self, values: Iterable[Any]) -> str: ...
    def array(self, item: str) -> str: ...
    def table(self, value: str) -> str: ...
    def union(self, options: list[str]) -> str: ...


class Python:
    """Annotations of a TypedDict's keys."""

    words: Final[Mapping[str, str]] = {
        "string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None",
        "object": "dict[str, Any]", "any": "Any",
    }  # fmt: skip

    def literal(self, values: Iterable[Any]) -> str:
        return f"Literal[{', '.join(_python_value(value) for value in values)}]"

    def array(self, item: str) -> str:
        return f"list[{item}]"

    def table(self, value: str) -> str:
        return f"dict[str, {value}]"

    def union(self, options: list[str]) -> str:
        return " | ".join(options)


class TypeScript:
    """Types of an interface's members."""

    words: Final[Mapping[str, str]] = {
        "string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null",
        "object": "Record<string, unknown>", "any": "unknown",
    }  # fmt: skip

    def literal(self, values: Iterable[Any]) -> str:
        return " | ".join(json.dumps(value) for value in values)

    def array(self, item: str) -> str:
        return f"({item})[]" if "|" in item else f"{item}[]"

    def table(self, value: str) -> str:
        return f"Record<string, {value}>"

    def union(self, options: list[str]) -> str:
        return " | ".join(options)


def type_of(schema: Json, language: Language) -> str:
    """The type of a JSON Schema. What a type cannot say (a pattern, a length) is left to the server."""
    if "$ref" in schema:
        return _name(schema["$ref"].rpartition("/")[2])
    if "const" in schema or "enum" in schema:
        return language.literal(schema.get("enum") or [schema["const"]])
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return language.union(_once(type_of(option, language) for option in options))
    if len(schema.get("allOf", ())) == 1:
        return type_of(schema["allOf"][0], language)
    return _plain_type(schema, language)


def _plain_type(schema: Json, language: Language) -> str:
    match schema.get("type"):
        case list(kinds):
            return language.union(_once(_plain_type({**schema, "type": kind}, language) for kind in kinds))
        case "array":
            return language.array(type_of(schema.get("items") or {}, language))
        case "object" if isinstance(schema.get("additionalProperties"), Mapping):
            return language.table(type_of(schema["additionalProperties"], language))
        case str(kind):
            return language.words[kind]
    return language.words["any"]


# -- what the document has ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """An event that clients send."""

    name: str
    summary: str
    payload: str
    ack: str
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """An event that the server sends."""

    name: str
    summary: str
    payload: str


@dataclass(frozen=True, slots=True)
class Wire:
    """All that is generated from."""

    schemas: Mapping[str, Json]
    asked: tuple[Asked, ...]
    told: tuple[Told, ...]

    @property
    def codes(self) -> list[str]:
        return sorted({code for event in self.asked for code in event.codes})


def wire_of(document: Json) -> Wire:
    """The events and schemas of an AsyncAPI document. Raises `KeyError` where it is not put together as ours is."""
    messages = document["components"]["messages"]
    asked, told = [], []
    for operation in document["operations"].values():
        message = messages[_last(operation["messages"][0])]
        payload = _last(message["payload"])
        if operation["action"] == "send":
            told.append(Told(message["name"], operation["summary"], payload))
            continue
        done, refused = messages[_last(operation["reply"]["messages"][0])]["payload"]["oneOf"]
        error = refused["allOf"][1]["properties"]["error"]
        codes = tuple(error["properties"]["code"]["enum"])
        asked.append(Asked(message["name"], operation["summary"], payload, _last(done), codes))
    return Wire(document["components"]["schemas"], tuple(asked), tuple(told))


def _last(reference: Json) -> str:
    return _name(reference["$ref"].rpartition("/")[2])


def _name(model: str) -> str:
    # The messages have dots in their names, and are looked up by them; the models have none.
    return model if "." in model else re.sub(r"\W", "_", model)


def _once(options: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(options))


# -- Python ------------------------------------------------------------------------------------------------------------


def python_module(wire: Wire) -> str:
    """`tarazu_client/wire.py`."""
    return "\n".join(
        [
            f'"""The types of the wire. {_NOTE}"""',
            "",
            "from __future__ import annotations",
            "",
            "from collections.abc import Callable",
            "from typing import Any, Literal, NotRequired, TypeAlias, TypedDict, overload",
            "",
            *_python_models(wire),
            "",
            "#: What an event may be refused with. A later server may have more.",
            f"ErrorCode: TypeAlias = {Python().literal(wire.codes)}",
            "",
            "",
            "class Calls:",
            '    """The events that a client sends, and how each is acknowledged."""',
            "",
            *_python_calls(wire),
            "",
            "    async def call(self, event: str, payload: Any, *, timeout_s: float = 5.0) -> Any:",
            '        """Send, and wait for the acknowledgement."""',
            "        raise NotImplementedError",
            "",
            "",
            "class Listens:",
            '    """The events that the server sends."""',
            "",
            *_python_listens(wire),
            "",
            "    def on(self, event: str, handler: Callable[[Any], object]) -> Callable[[], None]:",
            '        """Hear every such event; what is returned ends it."""',
            "        raise NotImplementedError",
            "",
        ]
    )


def _python_models(wire: Wire) -> Iterator[str]:
    language = Python()
    for name, schema in wire.schemas.items():
        yield ""
        if "properties" not in schema and schema.get("type") != "object":
            yield f"{_name(name)}: TypeAlias = {type_of(schema, language)!r}"
            yield ""
            continue
        required = schema.get("required", ())
        properties = {
            field: written if field in required else f"NotRequired[{written}]"
            for field, written in (
                (field, type_of(kind, language)) for field, kind in schema.get("properties", {}).items()
            )
        }
        text = schema.get("description")
        if any(not field.isidentifier() or iskeyword(field) for field in properties):
            # No class can have a field named "from".
            yield from (f"# {line}" for line in _lines(text or name, _WIDTH - 2))
            yield f'{_name(name)} = TypedDict("{_name(name)}", {{'
            yield from (f"    {field!r}: {written!r}," for field, written in properties.items())
            yield "})"
            yield ""
            continue
        yield f"class {_name(name)}(TypedDict):"
        if text:
            yield from _python_doc(text, "    ")
            yield ""
        yield from (f"    {field}: {written}" for field, written in properties.items())
        if not properties and not text:
            yield "    pass"
        yield ""


def _python_calls(wire: Wire) -> Iterator[str]:
    for event in wire.asked:
        yield "    @overload"
        yield (
            f'    async def call(self, event: Literal["{event.name}"], payload: {event.payload}, *, '
            f"timeout_s: float = 5.0) -> {event.ack}:"
        )
        yield from _python_doc(event.summary, "        ")


def _python_listens(wire: Wire) -> Iterator[str]:
    for event in wire.told:
        yield "    @overload"
        yield (
            f'    def on(self, event: Literal["{event.name}"], '
            f"handler: Callable[[{event.payload}], object]) -> Callable[[], None]:"
        )
        yield from _python_doc(event.summary, "        ")


def _python_doc(text: str, indent: str) -> Iterator[str]:
    lines = list(_lines(text, _WIDTH - len(indent) - 6))
    if len(lines) == 1:
        yield f'{indent}"""{lines[0]}"""'
        return
    yield f'{indent}"""{lines[0]}'
    yield from (f"{indent}{line}" for line in lines[1:])
    yield f'{indent}"""'


def _python_value(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


# -- TypeScript --------------------------------------------------------------------------------------------------------


def typescript_module(wire: Wire) -> str:
    """`src/wire.ts`."""
    return "\n".join(
        [
            f"// The types of the wire. {_NOTE}",
            "",
            *_typescript_models(wire),
            "/** What an event may be refused with. A later server may have more. */",
            f"export type ErrorCode = {TypeScript().literal(wire.codes)};",
            "",
            "/** The events that a client sends, and how each is acknowledged. */",
            "export interface ClientEvents {",
            *_typescript_calls(wire),
            "}",
            "",
            "/** The events that the server sends. */",
            "export interface ServerEvents {",
            *_typescript_listens(wire),
            "}",
            "",
        ]
    )


def _typescript_models(wire: Wire) -> Iterator[str]:
    language = TypeScript()
    for name, schema in wire.schemas.items():
        yield from _typescript_doc(schema.get("description"), "")
        if "properties" not in schema and schema.get("type") != "object":
            yield f"export type {_name(name)} = {type_of(schema, language)};"
            yield ""
            continue
        yield f"export interface {_name(name)} {{"
        required = schema.get("required", ())
        for field, kind in schema.get("properties", {}).items():
            key = field if field.isidentifier() else json.dumps(field)
            yield f"  {key}{'' if field in required else '?'}: {type_of(kind, language)};"
        if schema.get("additionalProperties") is True:
            yield "  [more: string]: unknown;"
        yield "}"
        yield ""


def _typescript_calls(wire: Wire) -> Iterator[str]:
    for event in wire.asked:
        yield from _typescript_doc(event.summary, "  ")
        yield f"  {json.dumps(event.name)}: {{ payload: {event.payload}; ack: {event.ack} }};"


def _typescript_listens(wire: Wire) -> Iterator[str]:
    for event in wire.told:
        yield from _typescript_doc(event.summary, "  ")
        yield f"  {json.dumps(event.name)}: {event.payload};"


def _typescript_doc(text: str | None, indent: str) -> Iterator[str]:
    if not text:
        return
    lines = list(_lines(text, _WIDTH - len(indent) - 7))
    if len(lines) == 1:
        yield f"{indent}/** {lines[0]} */"
        return
    yield f"{indent}/**"
    yield from (f"{indent} * {line}" for line in lines)
    yield f"{indent} */"


def _lines(text: str, width: int) -> Iterator[str]:
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            yield line
            line = word
        else:
            line = f"{line} {word}".strip()
    yield line


def generated() -> dict[Path, str]:
    """The files and what must be in them."""
    wire = wire_of(asyncapi_document(version="0"))
    return {
        ROOT / "python/tarazu_client/wire.py": python_module(wire),
        ROOT / "typescript/src/wire.ts": typescript_module(wire),
    }


def main() -> int:
    """Write the files."""
    for path, text in generated().items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
