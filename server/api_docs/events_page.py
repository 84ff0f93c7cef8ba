"""The page of the socket's events, from the AsyncAPI document."""

import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from server.api_docs.page import code, inline, markdown, table, type_of

Json = Mapping[str, Any]


def events_body(document: Json) -> str:
    """The page's body."""
    operations, messages = document["operations"], document["components"]["messages"]
    schemas = document["components"]["schemas"]
    received = [name for name, operation in operations.items() if operation["action"] == "receive"]
    sent = [name for name, operation in operations.items() if operation["action"] == "send"]
    parts = ["<h1>Events</h1>", markdown(document["info"]["description"]), "<h2>Client to server</h2>"]
    for name in received:
        parts += _request(messages[name], messages[f"{name}.ack"], schemas)
    parts.append("<h2>Server to client</h2>")
    for name in sent:
        message = messages[name]
        parts += [
            _title(message, "server"),
            f"<p>{inline(message['summary'])} {inline(message['description'])}</p>",
        ]
        parts += [_fields(message["payload"], schemas), _example(message, 0)]
    parts.append("<h2>Objects</h2>")
    for name in _objects(document):
        parts += [f'<h3 id="{escape(name)}">{escape(name)}</h3>', _fields(schemas[name], schemas)]
    return "".join(parts)


def _request(message: Json, ack: Json, schemas: Json) -> Iterable[str]:
    done, refused = ack["payload"]["oneOf"]
    codes = refused["allOf"][1]["properties"]["error"]["properties"]["code"]["enum"]
    yield _title(message, "client")
    yield f"<p>{inline(message['summary'])}</p>"
    yield _fields(message["payload"], schemas)
    yield _example(message, 0)
    yield "<h4>Acknowledgement</h4>"
    yield _fields(done, schemas)
    yield _example(ack, 0)
    yield f"<p>Or <code>ok: false</code> with one of {inline(', '.join(f'`{word}`' for word in codes))}:</p>"
    yield _example(ack, 1)


def _title(message: Json, side: str) -> str:
    name = escape(message["name"])
    return f'<h3 id="{side}-{name}"><code>{name}</code></h3>'


def _fields(schema: Json, schemas: Json) -> str:
    if "$ref" in schema:
        schema = schemas[type_of(schema)]
    required = schema.get("required", ())
    rows = [
        (f"`{name}`{'' if name in required else '?'}", _type(part, schemas), _notes(part))
        for name, part in schema.get("properties", {}).items()
    ]
    said = f"<p>{inline(schema['description'])}</p>" if "description" in schema else ""
    return said + table(("field", "type", ""), rows)


def _type(part: Json, schemas: Json) -> str:
    words = type_of(part)
    name = next((name for name in schemas if re.search(rf"\b{name}\b", words)), None)
    return f"`{words}`" if name is None else f"[`{words}`](#{name})"


def _notes(part: Json) -> str:
    words = {
        "minLength": "at least {} characters", "maxLength": "at most {} characters", "minimum": "from {}",
        "maximum": "to {}", "maxItems": "at most {} items", "default": "default `{}`",
    }  # fmt: skip
    inner: Json = next((option for option in part.get("anyOf", ()) if option.get("type") != "null"), {})
    whole = {**part, **inner}
    notes = [text.format(whole[key]) for key, text in words.items() if whole.get(key) is not None]
    return "; ".join([*notes, *filter(None, [part.get("description")])])


def _example(message: Json, which: int) -> str:
    return code(json.dumps(message["examples"][which]["payload"], indent=2, ensure_ascii=False))


def _objects(document: Json) -> list[str]:
    """The schemas that fields refer to, so that each link leads somewhere."""
    text = json.dumps(document["components"]["schemas"])
    return [name for name in document["components"]["schemas"] if f'schemas/{name}"' in text]
