"""JSON Schemas of the wire models, as components of a document."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

Json = dict[str, Any]
Mode = Literal["validation", "serialization"]
_REF: Final = "#/components/schemas/{model}"


class Schemas:
    """The schemas of `models` (each as what is read or as what is written), and where in the document each stands."""

    def __init__(self, models: Iterable[tuple[type[BaseModel], Mode]]) -> None:
        wanted = sorted(set(models), key=lambda one: (one[0].__module__, one[0].__qualname__, one[1]))
        refs, definitions = models_json_schema(wanted, by_alias=True, ref_template=_REF)
        self._refs: Final = refs
        self.components: Final[Json] = {
            name: tidy(schema) for name, schema in sorted(definitions.get("$defs", {}).items())
        }

    def ref(self, model: type[BaseModel], mode: Mode) -> Json:
        """A reference to the model's schema."""
        return dict(self._refs[model, mode])

    def properties(self, model: type[BaseModel], mode: Mode) -> tuple[Json, frozenset[str]]:
        """The fields of the model by their names on the wire, and which of them are required."""
        schema = self.resolve(self.ref(model, mode))
        return schema.get("properties", {}), frozenset(schema.get("required", ()))

    def resolve(self, schema: Mapping[str, Any]) -> Json:
        """The schema behind a reference."""
        while "$ref" in schema:
            schema = self.components[schema["$ref"].rpartition("/")[2]]
        return dict(schema)


def tidy(schema: Any) -> Any:
    """Without the titles that pydantic makes of field names: they say nothing that the name does not."""
    if isinstance(schema, list):
        return [tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: tidy(value) for key, value in schema.items() if key != "title" or not isinstance(value, str)}
    if isinstance(kept.get("description"), str):
        kept["description"] = " ".join(kept["description"].split())
    return kept


def without_null(schema: Mapping[str, Any]) -> Json:
    """The schema of a value that is left out rather than null, as a query parameter is."""
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key not in {"anyOf", "default"}}
    if "default" in schema and schema["default"] is not None:
        rest["default"] = schema["default"]
    if not options:
        return dict(rest)
    return {**rest, **options[0]} if len(options) == 1 else {**rest, "anyOf": options}
