"""The frame of the pages under `/docs`: plain HTML, no script but Swagger UI's, everything from this server."""

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

from markdown_it import MarkdownIt

#: Nothing is loaded from anywhere else, nothing inline is run, nobody may frame the page.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
}

#: Path below the server's root → its name in the menu, in order.
MENU: Final[Mapping[str, str]] = {
    "docs/guide": "Guide",
    "docs": "REST",
    "docs/events": "Events",
    "docs/errors": "Errors",
}
_MACHINES: Final[Mapping[str, str]] = {"openapi.json": "openapi.json", "asyncapi.json": "asyncapi.json"}
#: Raw HTML in a text stays text.
_MARKDOWN: Final = MarkdownIt("commonmark", {"html": False}).enable("table")


def page(
    path: str,
    title: str,
    body: str,
    *,
    asset_url: Mapping[str, str],
    scripts: Iterable[str] = (),
    styles: Iterable[str] = (),
) -> bytes:
    """A whole page at `path`; `asset_url` gives the address of an asset below the server's root."""
    root = root_of(path)
    links = "".join(
        f'<a href="{root}{target}"{" aria-current=page" if target == path else ""}>{escape(name)}</a>'
        for target, name in {**MENU, **_MACHINES}.items()
    )
    sheets = "".join(
        f'<link rel="stylesheet" href="{root}{asset_url[name]}">' for name in (*styles, "docs.css")
    )
    code = "".join(f'<script src="{root}{asset_url[name]}" defer></script>' for name in scripts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)} · Tarazu</title>'
        f'<link rel="icon" href="data:,">{sheets}{code}</head>'
        f"<body><nav><b>Tarazu</b>{links}</nav><main>{body}</main></body></html>\n"
    ).encode()


def article(body: str) -> str:
    """Text to read, in our own style, which Swagger UI must not inherit."""
    return f"<article>{body}</article>"


def root_of(path: str) -> str:
    """The way from a page to the server's root, which may stand below another server's path."""
    return "../" * path.count("/")


def markdown(text: str) -> str:
    """The text as HTML."""
    return str(_MARKDOWN.render(text))


def inline(text: str) -> str:
    """One line of Markdown as HTML."""
    return str(_MARKDOWN.renderInline(text))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """An HTML table. Cells are Markdown of one line."""
    lines = "".join("<tr>" + "".join(f"<td>{inline(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>"


def code(text: str) -> str:
    """A block of code."""
    return f"<pre><code>{escape(text)}</code></pre>"


def type_of(schema: Mapping[str, Any]) -> str:
    """A schema in a few words: `string | null`."""
    match schema:
        case {"$ref": ref}:
            words = str(ref).rpartition("/")[2]
        case {"const": value}:
            words = json.dumps(value)
        case {"enum": values}:
            words = " | ".join(json.dumps(value) for value in values)
        case {"anyOf": options}:
            words = " | ".join(type_of(option) for option in options)
        case {"type": "array", "items": items}:
            words = f"{type_of(items)}[]"
        case {"additionalProperties": dict() as values}:
            words = f"{{[key]: {type_of(values)}}}"
        case _:
            words = str(schema.get("type", "any"))
    return words
