"""Both clients' types are those of the event tables, whatever these come to hold."""

import ast
import re
from typing import Any

import pytest

from chat.events import CLIENT_EVENTS, SERVER_EVENTS
from clients.generate import (
    ROOT,
    Python,
    TypeScript,
    generated,
    python_module,
    type_of,
    typescript_module,
    wire_of,
)
from server.api_docs.asyncapi import asyncapi_document, codes_of

WIRE = wire_of(asyncapi_document(version="0"))


def test_the_committed_types_are_up_to_date() -> None:
    """If it fails: `python -m clients.generate`."""
    for path, text in generated().items():
        assert path.read_text("utf-8") == text, path.relative_to(ROOT)


def test_every_event_of_the_tables_is_there_with_its_models() -> None:
    asked = {event.name: (event.payload, event.ack) for event in WIRE.asked}
    told = {event.name: event.payload for event in WIRE.told}

    assert asked == {
        name: (event.payload.__name__, event.ack.__name__) for name, event in CLIENT_EVENTS.items()
    }
    assert told == {name: event.payload.__name__ for name, event in SERVER_EVENTS.items()}
    assert set(WIRE.codes) == {code for event in CLIENT_EVENTS.values() for code in codes_of(event)}
    for module in (python_module(WIRE), typescript_module(WIRE)):
        for name in (*asked, *told):
            assert f'"{name}"' in module, name


def test_every_model_has_every_field_in_both_languages() -> None:
    python = {
        node.name: [item.target.id for item in node.body if isinstance(item, ast.AnnAssign)]  # type: ignore[union-attr]
        for node in ast.parse(python_module(WIRE)).body
        if isinstance(node, ast.ClassDef)
    }
    interfaces = re.findall(r"export interface (\w+) \{\n(.*?)\n?\}", typescript_module(WIRE), re.DOTALL)
    typescript = {name: re.findall(r'^  "?(\w+)"?\??:', body, re.MULTILINE) for name, body in interfaces}

    for name, schema in WIRE.schemas.items():
        fields = list(schema.get("properties", {}))
        assert python[name] == fields, name
        assert typescript[name] == fields, name


@pytest.mark.parametrize(
    ("schema", "python", "typescript"),
    [
        ({"type": "string", "pattern": "^a"}, "str", "string"),
        ({"$ref": "#/components/schemas/A-Input"}, "A_Input", "A_Input"),
        ({"const": True, "type": "boolean"}, "Literal[True]", "true"),
        ({"enum": ["A", "B"], "type": "string"}, 'Literal["A", "B"]', '"A" | "B"'),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "int | None", "number | null"),
        ({"anyOf": [{"type": "string"}, {"type": "string", "minLength": 3}]}, "str", "string"),
        ({"type": ["string", "null"]}, "str | None", "string | null"),
        (
            {"type": "array", "items": {"oneOf": [{"$ref": "#/A"}, {"$ref": "#/B"}]}},
            "list[A | B]",
            "(A | B)[]",
        ),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "dict[str, float]", "Record<string, number>"),
        ({"type": "object"}, "dict[str, Any]", "Record<string, unknown>"),
        ({"allOf": [{"$ref": "#/A"}], "description": "x"}, "A", "A"),
        ({}, "Any", "unknown"),
    ],
)  # fmt: skip
def test_a_schema_is_a_type(schema: Any, python: str, typescript: str) -> None:
    assert type_of(schema, Python()) == python
    assert type_of(schema, TypeScript()) == typescript


def test_fields_that_are_no_names_in_a_language_are_written_all_the_same() -> None:
    """An event of signalling has a field `from`, and no class of Python can."""
    document = asyncapi_document(version="0")
    document["components"]["schemas"]["Typing"] = {
        "type": "object",
        "properties": {"from": {"type": "string"}, "a-b": {"type": "integer"}},
        "required": ["from"],
    }
    wire = wire_of(document)

    names: dict[str, Any] = {}
    exec(compile(python_module(wire), "wire", "exec"), names)
    assert {field: kind.__forward_arg__ for field, kind in names["Typing"].__annotations__.items()} == {
        "from": "str",
        "a-b": "NotRequired[int]",
    }
    assert '  from: string;\n  "a-b"?: number;' in typescript_module(wire)
