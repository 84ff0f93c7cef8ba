"""Checks values against the schemas of an OpenAPI or AsyncAPI document."""

from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

_DOCUMENT = "urn:document"


class DocumentSchemas:
    """The schemas of one document, with its references."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        resource = Resource(contents=document, specification=DRAFT202012)
        self._registry = Registry().with_resource(_DOCUMENT, resource)

    def problems(self, value: Any, schema: Mapping[str, Any]) -> list[str]:
        """What is wrong with the value, nothing if it is valid."""
        validator = Draft202012Validator(
            _absolute(schema), registry=self._registry, format_checker=Draft202012Validator.FORMAT_CHECKER
        )
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def _absolute(part: Any) -> Any:
    if isinstance(part, list):
        return [_absolute(item) for item in part]
    if not isinstance(part, Mapping):
        return part
    return {
        key: f"{_DOCUMENT}{value}" if key == "$ref" and str(value).startswith("#") else _absolute(value)
        for key, value in part.items()
    }


def references(part: Any) -> Iterator[str]:
    """Every `$ref` in a document."""
    if isinstance(part, list):
        for item in part:
            yield from references(item)
    elif isinstance(part, Mapping):
        for key, value in part.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            yield from references(value)


def found(document: Any, reference: str) -> Any:
    """What a local reference points to. Raises KeyError where that is nothing."""
    assert reference.startswith("#/"), reference
    for step in reference[2:].split("/"):
        document = document[step.replace("~1", "/").replace("~0", "~")]
    return document
