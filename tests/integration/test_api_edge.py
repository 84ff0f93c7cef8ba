"""What a hostile or careless client can put around a request, on the real routes: each time a plain problem, never a crash."""

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from server.ids import new_id
from server.routes import ROUTES
from tests.support.api import Api, Person, open_api
from tests.support.http import Answer

SESSION_PATHS: Final = ("/consult/{}", "/consult/{}/end", "/chat/{}", "/lawyer/{}", "/lawyer/{}/reviews")
#: Written into the path as they are.
ODD_IDS: Final = (
    "%00",
    "a%00b",
    "%0A",
    "a%2Fb",
    "%2F",
    "..%2F..%2Fetc%2Fpasswd",
    "%2e%2e",
    "x" * 129,
    "x" * 200,
    "x" * 4_000,
    "%F0%9F%98%80",
    "%F0%9F%98%80" * 200,
    "%ff%fe",
    "%ED%A0%80",
    "%",
    "%zz",
    "%25",
    "a%20b",
    "%E2%80%AE",
    "'%20OR%201=1--",
    "$ne",
    "%7B%22$gt%22:%22%22%7D",
    "user:",
    "lawyer:1",
    "-1",
    "0",
    "null",
    "undefined",
    "NaN",
    "*",
    "a;b",
    "a=b",
    "a|b",
    "{session_id}",
)


@dataclass
class World:
    api: Api
    user: Person
    lawyer: Person
    port: int

    async def raw(self, request: bytes) -> "Raw":
        """What the server says to bytes that no client library would send, until it closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            said = b""
            # A server that hangs up on what it does not read may reset the connection; what it said before counts.
            with suppress(ConnectionError):
                await writer.drain()
            async with asyncio.timeout(5):
                with suppress(ConnectionError):
                    while chunk := await reader.read(65_536):
                        said += chunk
            return Raw(said)
        finally:
            writer.close()


@dataclass(frozen=True)
class Raw:
    said: bytes

    @property
    def status(self) -> int:
        return int(self.said.split(b" ", 2)[1])

    @property
    def answers(self) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", self.said)]

    @property
    def problem(self) -> Any:
        head, _, body = self.said.partition(b"\r\n\r\n")
        assert b"content-type: application/problem+json" in head.lower(), self.said
        return json.loads(body)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_api(tmp_path) as api:
        port = int(api.base_url.rpartition(":")[2])
        yield World(api, await api.a_user("500.00"), await api.a_lawyer(), port)


def _is_a_problem(answer: Answer, status: int, code: str) -> bool:
    return (
        answer.status == status
        and answer.headers["Content-Type"].startswith("application/problem+json")
        and answer.json["code"] == code
        and answer.json["status"] == status
        and answer.json["requestId"] == answer.headers["X-Request-Id"]
        and bool(answer.json["detail"])
    )


async def test_an_odd_id_is_nobody_s(world: World) -> None:
    """404 as for any other id that does not exist; whatever reaches the store must not fail there."""
    session_id = await world.user.start(world.lawyer.id)
    wrong = []
    for path in SESSION_PATHS:
        method = "POST" if path.endswith("/end") else "GET"
        for odd in ODD_IDS:
            # aiohttp's client would tidy the path up; the server must see it as it is.
            said = await world.raw(
                f"{method} {path.format(odd)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                f"Authorization: Bearer {world.user.token}\r\n\r\n".encode()
            )
            if said.status != 404 or said.problem["code"] != "NOT_FOUND":
                wrong.append(f"{path} {odd[:40]}: {said.said[:300]!r}")
    assert wrong == []
    assert (await world.user.get("/consult/active")).json["sessionId"] == session_id


async def test_an_odd_id_in_a_body_is_nobody_s_or_named(world: World) -> None:
    wrong = []
    before = world.api.everything()
    for odd in (
        "x",
        "x" * 128,
        "😀" * 60,
        "a/b",
        "../..",
        "$ne",
        "user:" + world.user.id,
        " " + world.lawyer.id,
    ):
        for path, field, more in (
            ("/consult/start", "lawyerId", {}),
            ("/review", "sessionId", {"rating": 5}),
        ):
            answer = await world.user.post(path, {field: odd, **more})
            if not _is_a_problem(answer, 404, "NOT_FOUND"):
                wrong.append(f"{path} {odd[:40]}: {answer.status} {answer.text[:200]}")
    for bad in ("", "x" * 129, "a\x00b", "a\nb", 7, None, True, ["x"], {"$ne": None}):
        for path, field, more in (
            ("/consult/start", "lawyerId", {}),
            ("/review", "sessionId", {"rating": 5}),
        ):
            answer = await world.user.post(path, {field: bad, **more})
            if not _is_a_problem(answer, 422, "VALIDATION_FAILED") or answer.fields != [field]:
                wrong.append(f"{path} {bad!r}: {answer.status} {answer.text[:200]}")
    assert wrong == []
    assert world.api.everything() == before


async def test_every_path_knows_its_methods_and_says_so(world: World) -> None:
    wrong = []
    for path in sorted({re.sub(r"\{.*?\}", "some-id", route.path) for route in ROUTES}):
        # `/consult/start` is a path of `GET /consult/{session_id}`, too.
        known = {
            route.method for route in ROUTES if re.fullmatch(re.sub(r"\{.*?\}", "[^/]+", route.path), path)
        }
        known |= {"HEAD"} if "GET" in known else set()
        for method in (
            "GET",
            "HEAD",
            "POST",
            "PUT",
            "PATCH",
            "DELETE",
            "OPTIONS",
            "TRACE",
            "PROPFIND",
            "PURGE",
        ):
            if method in known:
                continue
            answer = await world.user.call(method, path)
            allowed = set(answer.headers.get("Allow", "").split(", "))
            is_refused = (
                answer.status == 405 and not answer.text
                if method == "HEAD"
                else _is_a_problem(answer, 405, "METHOD_NOT_ALLOWED")
            )
            if not is_refused or allowed != known:
                wrong.append(
                    f"{method} {path}: {answer.status} {answer.headers.get('Allow')} {answer.text[:200]}"
                )
    assert wrong == []


async def test_there_is_nothing_beside_the_routes(world: World) -> None:
    wrong = []
    for path in (
        *("/", "/nothing", "/wallet", "/wallet/", "/wallet/balance/", "//wallet/balance", "/wallet//balance"),
        *(
            "/Wallet/Balance",
            "/wallet/balance.json",
            "/consult/",
            "/lawyer//reviews",
            "/consult/x/y",
            "/auth",
        ),
        *("/.env", "/data/tarazu.db", "/static/../.env", "/😀"),
    ):
        for method in ("GET", "POST", "OPTIONS"):
            answer = await world.user.call(method, path)
            if not _is_a_problem(answer, 404, "NOT_FOUND"):
                wrong.append(f"{method} {path}: {answer.status} {answer.text[:200]}")
    assert wrong == []


async def test_no_browser_may_call_by_default(world: World) -> None:
    """Any web page could otherwise spend the money of whoever looks at it."""
    origin = {"Origin": "https://evil.example"}
    ask = {
        **origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    question = await world.user.call("OPTIONS", "/wallet/recharge", headers=ask)
    call = await world.user.get("/wallet/balance", headers=origin)

    assert _is_a_problem(question, 405, "METHOD_NOT_ALLOWED")
    for answer in (question, call):
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


async def test_a_listed_browser_may_call_on_the_real_routes(tmp_path: Path) -> None:
    async with open_api(tmp_path, cors_origins="https://app.example.com") as api:
        ask = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
        question = await api.anonymous.call("OPTIONS", "/wallet/recharge", headers=ask)
        assert question.status == 204
        assert question.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
        refused = await api.anonymous.get("/wallet/balance", headers={"Origin": "https://app.example.com"})
        # The app must be able to read why.
        assert refused.headers["Access-Control-Allow-Origin"] == "https://app.example.com"


async def test_an_origin_is_listed_to_the_letter(tmp_path: Path) -> None:
    async with open_api(tmp_path, cors_origins="https://app.example.com") as api:
        for origin in (
            *("null", "https://APP.example.com", "http://app.example.com", "https://app.example.com:444"),
            *("https://app.example.com.evil.example", "https://app.example.com/", "*", ""),
        ):
            answer = await api.anonymous.get("/healthz", headers={"Origin": origin})
            assert "Access-Control-Allow-Origin" not in answer.headers, origin
            assert answer.headers["Vary"] == "Origin"


async def test_a_body_on_a_get_is_left_alone_and_the_connection_stays_in_step(world: World) -> None:
    smuggled = b"GET /wallet/transactions HTTP/1.1\r\nHost: x\r\n\r\n"
    said = await world.raw(
        b"GET /wallet/balance HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
        b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b"
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        % (str(world.user.token).encode(), len(smuggled), smuggled)
    )
    assert said.answers == [200, 200]
    assert b'"status":"ok"' in said.said


async def test_compressed_bodies_are_read_and_bombs_are_not(world: World) -> None:
    body = gzip.compress(b'{"amount": "10.00"}')
    answer = await world.user.call("POST", "/wallet/recharge", raw=body, headers={"Content-Encoding": "gzip"})
    assert answer.status == 201

    bomb = gzip.compress(b'{"amount": "10.00"' + b" " * 20_000_000 + b"}")
    answer = await world.user.call("POST", "/wallet/recharge", raw=bomb, headers={"Content-Encoding": "gzip"})
    assert _is_a_problem(answer, 413, "BODY_TOO_LARGE")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_is_not_as_compressed_as_it_says_is_a_problem(world: World, encoding: str) -> None:
    body = b'{"amount": "10.00"}'
    said = await world.raw(
        b"POST /wallet/recharge HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %b\r\n"
        b"Content-Type: application/json\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n%b"
        % (str(world.user.token).encode(), encoding.encode(), len(body), body)
    )
    assert (said.status, said.problem["code"]) == (400, "MALFORMED_JSON")
    assert (await world.user.get("/wallet/balance")).json["walletBalance"] == "500.00"


@pytest.mark.parametrize(
    "headers",
    [
        b"X-Long: " + b"a" * 20_000,
        b"\r\n".join(b"X-Many-%d: a" % n for n in range(40_000)),
        b"Authorization: Bearer " + b"a" * 7_000,
        b"Authorization: Bearer \xff\xfe",
        b"Authorization: Bearer a\r\nAuthorization: Bearer b",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: -1",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3",
        b"Transfer-Encoding: what",
        b"Expect: 200-maybe",
        b"No colon",
        b" : x",
    ],
    ids=lambda headers: headers[:30].decode("latin-1"),
)
async def test_absurd_headers_are_the_client_s_fault(world: World, headers: bytes) -> None:
    said = await world.raw(
        b"GET /wallet/balance HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + b"\r\n\r\n"
    )
    assert 400 <= said.status < 500, said.said[:300]
    assert b"Traceback" not in said.said
    assert (await world.user.get("/healthz")).status == 200


async def test_a_list_s_limit_is_1_to_100(world: World) -> None:
    wrong = []
    for path in ("/wallet/transactions", "/consult", "/lawyers", f"/lawyer/{world.lawyer.id}/reviews"):
        for limit in (
            "0",
            "-1",
            "101",
            "a",
            "",
            "1.5",
            "1e1",
            "5%00",
            "٥",
            "true",
            "null",
            "9" * 30,
            "9&limit=9",
        ):
            answer = await world.user.get(f"{path}?limit={limit}")
            if not _is_a_problem(answer, 422, "VALIDATION_FAILED") or answer.fields != ["limit"]:
                wrong.append(f"{path} {limit}: {answer.status} {answer.text[:200]}")
        for limit in ("1", "100"):
            assert (await world.user.get(f"{path}?limit={limit}")).status == 200
    assert wrong == []


async def test_what_a_query_does_not_know_is_left_alone(world: World) -> None:
    assert (await world.user.get("/lawyers?page=2&sort[]=x&__proto__=1&Limit=7")).status == 200


async def test_every_answer_says_that_nobody_may_keep_it(world: World) -> None:
    """A shared device's cache must not show one person's wallet to the next."""
    for path in [route.path for route in ROUTES if route.method == "GET"]:
        for client in (world.user, world.api.anonymous):
            answer = await client.get(re.sub(r"\{.*?\}", new_id(), path))
            assert answer.headers["Cache-Control"] == "no-store", path
            assert answer.headers["X-Content-Type-Options"] == "nosniff", path
            assert answer.headers["X-Request-Id"], path


async def test_no_answer_names_the_software_or_its_version(world: World) -> None:
    for path in ("/healthz", "/nothing"):
        assert (await world.api.anonymous.get(path)).headers["Server"] == "tarazu"
