"""The description of the API, as it is served: for programs, and for people without the internet."""

import asyncio
import gzip
import json
import re
import subprocess
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
import pytest_asyncio

from billing_engine.money import INR
from chat.events import CLIENT_EVENTS, SERVER_EVENTS
from server.api_docs.openapi import openapi_document
from server.api_docs.page import MENU
from server.api_docs.site import build_docs
from server.routes import ROUTES
from tests.support.api import Api, open_api
from tests.support.chromium import chromium

PAGES = [f"/{path}" for path in MENU]


@pytest_asyncio.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path) as running:
        yield running


class Elements(HTMLParser):
    """What a page loads and links to, and what it would run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.inline: list[str] = []
        self.ids: set[str] = set()
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._in = tag
        self.ids.add(given.get("id", ""))
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        target = given.get("src") or given.get("href")
        if target and not target.startswith("data:"):
            (self.linked if tag == "a" else self.loaded).append(target)

    def handle_endtag(self, _: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in in {"script", "style"} and data.strip():
            self.inline.append(data)


async def test_the_documents_are_those_of_the_tables(api: Api) -> None:
    openapi = await api.anonymous.get("/openapi.json")
    asyncapi = await api.anonymous.get("/asyncapi.json")

    version = openapi.json["info"]["version"]
    assert openapi.json == openapi_document(ROUTES, version=version, asset=INR)
    assert (openapi.headers["Content-Type"], asyncapi.headers["Content-Type"]) == ("application/json",) * 2
    assert (openapi.json["openapi"], asyncapi.json["asyncapi"]) == ("3.1.0", "3.0.0")


async def test_a_request_for_a_document_makes_nothing(api: Api) -> None:
    """They are built once: whoever asks a thousand times a second costs no more than the bytes."""
    first, *later = await asyncio.gather(*(api.services.docs.get() for _ in range(10)))

    assert all(docs is first for docs in later)
    assert (await api.anonymous.get("/openapi.json")).text.encode() == first.openapi.body
    assert await api.services.docs.get() is first


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_loads_everything_from_this_server_and_runs_nothing_inline(api: Api, path: str) -> None:
    """Without the internet it works; under its policy, what somebody smuggled into it would not run."""
    page = await api.anonymous.get(path)
    elements = Elements(page.text)

    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; "))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == (
        "'none'",
        "'self'",
        "'self'",
    )
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert elements.inline == []
    for target in (*elements.loaded, *elements.linked):
        url = urljoin(f"{api.base_url}{path}", target)
        assert url.startswith(api.base_url), url
        if target.startswith("#"):
            assert target[1:] in elements.ids
        else:
            assert (await api.anonymous.call("HEAD", urlsplit(url).path)).status == 200, url


async def test_what_a_page_loads_may_be_kept_for_ever_and_changes_its_address_with_its_bytes(
    api: Api,
) -> None:
    page = Elements((await api.anonymous.get("/docs")).text)
    for target in page.loaded:
        answer = await api.anonymous.get(f"/{target}")
        assert re.search(r"\?v=[0-9a-f]{12}$", target)
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (await api.anonymous.get("/docs")).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/docs/unknown", "/docs/assets/unknown", "/docs/assets/..%2F..%2Fpyproject.toml"]
)
async def test_there_is_nothing_else_under_docs(api: Api, path: str) -> None:
    answer = await api.anonymous.get(path)

    assert (answer.status, answer.code) == (404, "NOT_FOUND")


async def test_the_events_page_shows_every_event_with_its_fields(api: Api) -> None:
    text = (await api.anonymous.get("/docs/events")).text

    for name, event in {**CLIENT_EVENTS, **SERVER_EVENTS}.items():
        assert f"<code>{name}</code></h3>" in text
        for field in event.payload.model_fields.values():
            assert f"<code>{field.alias}</code>" in text


async def test_the_errors_page_shows_every_code(api: Api) -> None:
    text = (await api.anonymous.get("/docs/errors")).text

    for code in json.loads((await api.services.docs.get()).openapi.body)["components"]["examples"]:
        # The same code may come with two statuses.
        assert f"<code>{re.sub(r'-[0-9]{3}$', '', code)}</code>" in text


def test_a_stranger_in_the_texts_stays_text() -> None:
    """Details and summaries are written by us, and still nothing in them becomes markup."""
    docs = build_docs(ROUTES, asset=INR)

    assert b"<token>" not in docs.pages["docs/errors"].body
    assert gzip.decompress(docs.assets["docs.css"].body).startswith(b":root")


@pytest.mark.slow
async def test_a_browser_renders_the_api_under_the_policy(api: Api, tmp_path: Path) -> None:
    """Swagger UI really runs: the policy forbids nothing that it needs."""
    binary = chromium()

    def dump() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [
                binary, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
                f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=15000", "--dump-dom",
                f"{api.base_url}/docs",
            ],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip

    done = await asyncio.to_thread(dump)

    assert "Start a paid consultation" in done.stdout
    assert "Content Security Policy" not in done.stderr
