"""Everything that is served about the API, built by whoever asks first: a later request costs no more than sending bytes."""

import asyncio
import gzip
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import orjson

from billing_engine.money import Asset
from server.api_docs.asyncapi import asyncapi_document
from server.api_docs.errors_page import errors_markdown
from server.api_docs.events_page import events_body
from server.api_docs.openapi import openapi_document
from server.api_docs.page import HEADERS, article, markdown, page
from server.routing import Document, Route

_OURS: Final = Path(__file__).parent
#: The pages' own files, and those of Swagger UI.
_OUR_ASSETS: Final = ("docs.css", "swagger-start.js")
_SWAGGER_ASSETS: Final = ("swagger-ui.css", "swagger-ui-bundle.js")
_TYPES: Final = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
#: An asset's address changes with its bytes.
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_HTML: Final = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class ApiDocs:
    """The documents for programs, the pages for people, and what the pages load."""

    openapi: Document
    asyncapi: Document
    pages: Mapping[str, Document]
    assets: Mapping[str, Document]


class DocsOnDemand:
    """They take longer than all the rest of a start, and most processes are never asked for them."""

    def __init__(self, routes: Iterable[Route], *, asset: Asset) -> None:
        self._routes = tuple(routes)
        self._asset = asset
        self._turn = asyncio.Lock()

    async def get(self) -> ApiDocs:
        """The documents. Made in a thread, so that the sessions of this process go on meanwhile."""
        async with self._turn:
            return await asyncio.to_thread(_built, self._routes, self._asset)


@cache
def _built(routes: tuple[Route, ...], asset: Asset) -> ApiDocs:
    return build_docs(routes, asset=asset)


def build_docs(routes: Iterable[Route], *, asset: Asset) -> ApiDocs:
    """The documents of this server, whose consultations are billed in `asset`."""
    rows = tuple(routes)
    openapi = openapi_document(rows, version=_version(), asset=asset)
    asyncapi = asyncapi_document(version=_version())
    raw = {name: (_OURS / name).read_bytes() for name in _OUR_ASSETS}
    raw |= {name: (_swagger() / name).read_bytes() for name in _SWAGGER_ASSETS}
    urls = {
        name: f"docs/assets/{name}?v={hashlib.sha256(data).hexdigest()[:12]}" for name, data in raw.items()
    }
    pages = {
        "docs": page(
            "docs", "REST", '<div id="swagger-ui"></div>', asset_url=urls,
            scripts=("swagger-ui-bundle.js", "swagger-start.js"), styles=("swagger-ui.css",),
        ),
        "docs/events": page("docs/events", "Events", article(events_body(asyncapi)), asset_url=urls),
        "docs/errors": page("docs/errors", "Errors", article(markdown(errors_markdown(rows))), asset_url=urls),
        "docs/guide": page("docs/guide", "Guide", article(markdown(guide())), asset_url=urls),
    }  # fmt: skip
    return ApiDocs(
        openapi=_json(openapi),
        asyncapi=_json(asyncapi),
        pages={path: Document(body, _HTML, HEADERS) for path, body in pages.items()},
        assets={name: _asset(name, data) for name, data in raw.items()},
    )


def guide() -> str:
    """The guide for app teams: packed beside this module, in a checkout under `docs/`."""
    packed = _OURS / "guide.md"
    if packed.is_file():
        return packed.read_text("utf-8")
    return (_OURS.parents[1] / "docs" / "guide.md").read_text("utf-8")


def _swagger() -> Path:
    """The static files of swagger-ui-py, found without importing it: its templates and servers are not ours to load."""
    spec = find_spec("swagger_ui")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("swagger-ui-py is not installed")
    return Path(spec.submodule_search_locations[0]) / "static"


def _version() -> str:
    try:
        return version("tarazu")
    except PackageNotFoundError:
        return "0"


def _json(document: Mapping[str, Any]) -> Document:
    return Document(orjson.dumps(document), "application/json")


def _asset(name: str, data: bytes) -> Document:
    headers = {"Content-Encoding": "gzip", "Cache-Control": _FOR_EVER}
    return Document(gzip.compress(data, 6, mtime=0), _TYPES[name.rpartition(".")[2]], headers)
