"""The HTTP edge on a real socket: ids, roles, wrong paths and methods, huge and broken bodies, browsers, silence about the inside."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import pytest
from pydantic import Field
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from billing_engine.errors import InvariantBroken, NotEnough, NotFound, Unavailable
from server.auth.model import Role
from server.routes.health import ROUTES as HEALTH
from server.routing import PUBLIC, SIGNED_IN, Call, Reply, Route, only
from server.wire import Instant, Name, PageQuery, WireModel, decode_cursor, encode_cursor
from tests.support.http import HttpWorld, http_world


class EchoIn(WireModel):
    display_name: Name
    count: Annotated[int, Field(ge=1)] = 1
    flags: list[bool] = Field(default_factory=list)


class EchoQuery(PageQuery):
    online: bool | None = None


class EchoOut(WireModel):
    display_name: str = ""
    count: int = 0
    at: Instant = 1_767_225_600_007
    user_id: str | None = None
    extra: dict[str, Any] = Field(default_factory=dict)


RAISES: dict[str, Exception] = {
    "missing": NotFound(lawyer="7"),
    "short": NotEnough(required_minor=5_000, available_minor=1, account="wallet:7"),
    "down": Unavailable(reason="disk of the secret machine"),
    "broken": InvariantBroken(account="wallet:7"),
    "bug": ValueError("password=hunter2"),
    "network": ConnectionResetError("redis went away"),
}


async def _echo(call: Call[EchoIn, None]) -> EchoOut:
    return EchoOut(display_name=call.body.display_name, count=call.body.count)


async def _list(call: Call[None, EchoQuery]) -> EchoOut:
    if call.query.cursor:
        decode_cursor(call.query.cursor, int, str)
    return EchoOut(count=call.query.limit, extra={"online": call.query.online, "id": call.path["item_id"]})


async def _who(call: Call[None, None]) -> Reply:
    return Reply(EchoOut(user_id=call.caller.user_id), status=202, headers={"X-Own": "yes"})


async def _raise(call: Call[None, None]) -> EchoOut:
    raise RAISES[call.path["kind"]]


async def _context(_: Call[None, None]) -> EchoOut:
    return EchoOut(extra=dict(get_contextvars()))


def _route(method: str, path: str, handler: Any, **more: Any) -> Route:
    return Route(
        method=method, path=path, handler=handler, summary="-", response=EchoOut, **{"access": PUBLIC} | more
    )


ROUTES = (
    *HEALTH,
    _route("POST", "/echo", _echo, body=EchoIn),
    _route("GET", "/items/{item_id}", _list, query=EchoQuery),
    _route("GET", "/who", _who, access=SIGNED_IN),
    _route("GET", "/lawyers-only", _who, access=only(Role.LAWYER, Role.ADMIN)),
    _route("GET", "/raise/{kind}", _raise),
    _route("GET", "/context", _context),
)
ORIGIN = "https://app.example.com"


@pytest.fixture
async def world(tmp_path: Path):
    async with http_world(tmp_path, ROUTES, cors_origins=[ORIGIN]) as world:
        yield world


async def test_names_are_camel_case_and_times_rfc_3339(world):
    answer = await world.client.post("/echo", {"displayName": " Asha ", "count": 2})

    assert answer.json == {
        "displayName": "Asha",
        "count": 2,
        "at": "2026-01-01T00:00:00.007Z",
        "userId": None,
        "extra": {},
    }
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert (await world.client.post("/echo", {"display_name": "Asha"})).status == 200


@pytest.mark.parametrize("given", ["abcd-1234", "a" * 128])
async def test_a_sane_request_id_is_kept(world, given):
    answer = await world.client.get("/healthz", headers={"X-Request-Id": given})
    assert answer.headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", [None, "short", "a" * 129, "with space in it", 'inject"quote'])
async def test_another_request_id_is_replaced(world, given):
    """A request id goes into every log line: whoever can write anything there can forge lines."""
    answer = await world.client.get("/raise/bug", headers={"X-Request-Id": given} if given else {})
    assert answer.headers["X-Request-Id"] != given
    assert answer.headers["X-Request-Id"] == answer.json["requestId"]


async def test_roles(world):
    user, lawyer = await world.signed_in(), await world.signed_in(Role.LAWYER)

    assert (await user.get("/who")).status == 202
    assert (await user.get("/who")).headers["X-Own"] == "yes"
    assert (await lawyer.get("/lawyers-only")).status == 202
    refused = await user.get("/lawyers-only")
    assert (refused.status, refused.code) == (403, "FORBIDDEN")
    unknown = await world.client.get("/lawyers-only")
    assert (unknown.status, unknown.code) == (401, "UNAUTHENTICATED")


async def test_a_public_route_does_not_mind_a_bad_token(world):
    assert (await world.client.with_token("expired").post("/echo", {"displayName": "A"})).status == 200


async def test_who_called_is_not_in_the_next_request_s_log_of_the_same_connection(world):
    """A log that names the wrong customer is worse than one that names none."""
    user = await world.signed_in()
    async with aiohttp.TCPConnector(limit=1) as one, aiohttp.ClientSession(connector=one) as http:
        async with http.get(
            f"{world.base_url}/who", headers={"Authorization": f"Bearer {user.token}"}
        ) as response:
            assert response.status == 202
        async with http.get(f"{world.base_url}/context") as response:
            assert (await response.json())["extra"].keys() == {"request_id"}


async def test_an_unknown_path_is_a_problem(world):
    answer = await world.client.get("/nowhere")
    assert (answer.status, answer.code, answer.json["instance"]) == (404, "NOT_FOUND", "/nowhere")


async def test_a_wrong_method_says_which_are_right(world):
    answer = await world.client.call("DELETE", "/echo")
    assert (answer.status, answer.code, answer.headers["Allow"]) == (405, "METHOD_NOT_ALLOWED", "POST")


async def test_head_answers_like_get_without_a_body(world):
    answer = await world.client.call("HEAD", "/healthz")
    assert (answer.status, answer.text) == (200, "")


@pytest.mark.parametrize("path", ["/items/%00", "/items/a%0Ab", "/items/" + "x" * 129])
async def test_what_can_be_nobody_s_id_is_not_found(world, path):
    assert (await world.client.get(path)).status == 404


async def test_a_body_of_64_kib_is_read_and_a_longer_one_is_not(world):
    head = b'{"displayName": "A", "x": "'
    fits = head + b"a" * (64 * 1024 - len(head) - 2) + b'"}'

    assert len(fits) == 64 * 1024
    assert (await world.client.post("/echo", raw=fits)).status == 200
    answer = await world.client.post("/echo", raw=fits + b" ")
    assert (answer.status, answer.code) == (413, "BODY_TOO_LARGE")


async def test_a_long_body_without_a_length_is_refused_too(world):
    async def endless():
        for _ in range(40):
            yield b" " * 4096

    async with aiohttp.ClientSession() as http:
        headers = {"Content-Type": "application/json"}
        async with http.post(f"{world.base_url}/echo", data=endless(), headers=headers) as response:
            assert response.status == 413


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/xml",
        None,
    ],
)
async def test_another_content_type_is_refused(world, content_type):
    answer = await world.client.post("/echo", raw=b'{"displayName": "A"}', content_type=content_type)
    assert (answer.status, answer.code) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_the_charset_may_be_said(world):
    answer = await world.client.post(
        "/echo", raw=b'{"displayName": "A"}', content_type="application/json; charset=UTF-8"
    )
    assert answer.status == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"nope",
        b'{"displayName": "A",}',
        b"{'displayName': 'A'}",
        b'{"displayName": NaN}',
        b'{"displayName": "A", "count": Infinity}',
        b'{"displayName": "A", "count": -Infinity}',
        b'{"displayName": "A", "displayName": "B"}',
        b'{"displayName": "\xff\xfe"}',
        '{"displayName": "A"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"displayName": "A"}',
        b'{"count": ' + b"9" * 5_000 + b"}",
        b'{"count": 1e999999999}',
        b'{"count": 1E-999999999999999999999999}',
        b"[" * 30_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"x":' + b"[" * 33 + b"]" * 33 + b"}",
    ],
)
async def test_broken_json_is_a_problem_and_no_crash(world, raw):
    answer = await world.client.post("/echo", raw=raw)
    assert (answer.status, answer.code) == (400, "MALFORMED_JSON")


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"{}", "displayName"),
        (b"", "displayName"),
        (b"[]", "body"),
        (b"null", "body"),
        (b'"text"', "body"),
        (b'{"displayName": null}', "displayName"),
        (b'{"displayName": 5}', "displayName"),
        (b'{"display_name": 5}', "display_name"),
        (b'{"displayName": ""}', "displayName"),
        (b'{"displayName": "a\\u0000b"}', "displayName"),
        (b'{"displayName": "\\ud800"}', "displayName"),
        (b'{"displayName": "A", "other": {"deep": ["\\udfff"]}}', "other.deep.0"),
        (b'{"displayName": "A", "count": "1"}', "count"),
        (b'{"displayName": "A", "count": true}', "count"),
        (b'{"displayName": "A", "count": 1.5}', "count"),
        (b'{"displayName": "A", "count": 0}', "count"),
        (b'{"displayName": "A", "flags": [true, 1]}', "flags.1"),
    ],
)
async def test_a_bad_field_is_named_as_the_client_wrote_it(world, raw, field):
    answer = await world.client.post("/echo", raw=raw)
    assert (answer.status, answer.code, answer.fields) == (422, "VALIDATION_FAILED", [field])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=1.5", "limit"),
        ("limit=", "limit"),
        ("limit=1&limit=2", "limit"),
        ("online=maybe", "online"),
        ("cursor=nonsense", "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=" + "x" * 513, "cursor"),
        (f"cursor={encode_cursor('a', 'b')}", "cursor"),
        (f"cursor={encode_cursor(1)}", "cursor"),
        (f"cursor={encode_cursor(2**63, 'b')}", "cursor"),
    ],
)
async def test_a_bad_query_names_its_parameter(world, query, field):
    answer = await world.client.get(f"/items/7?{query}")
    assert (answer.status, answer.fields) == (422, [field])


async def test_a_good_query_is_read(world):
    answer = await world.client.get(f"/items/7?limit=100&online=true&cursor={encode_cursor(5, 'b')}&other=1")
    assert (answer.json["count"], answer.json["extra"]) == (100, {"online": True, "id": "7"})


@pytest.mark.parametrize(
    ("kind", "status"), [("missing", 404), ("short", 402), ("down", 503), ("broken", 500), ("bug", 500)]
)
async def test_failures_become_problems_that_keep_the_inside_inside(world, kind, status):
    answer = await world.client.get(f"/raise/{kind}")

    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    for secret in ("hunter2", "secret machine", "wallet:7", "Traceback"):
        assert secret not in answer.text


async def test_a_crash_is_logged_once_with_its_traceback_and_its_id(world):
    """Whoever gets an id from a customer must find the cause under it."""
    with capture_logs() as logs:
        answer = await world.client.get("/raise/bug")
    errors = [line for line in logs if line["log_level"] == "error"]

    assert [line["event"] for line in errors] == ["request failed"]
    assert isinstance(errors[0]["exc_info"], ValueError)
    assert answer.json["code"] == "INTERNAL"


async def test_a_service_s_lost_connection_is_not_taken_for_the_client_s(world):
    """Redis going away must not look like a customer who hung up."""
    with capture_logs() as logs:
        answer = await world.client.get("/raise/network")

    assert answer.status == 500
    assert any(line["log_level"] == "error" for line in logs)


async def test_a_client_that_hangs_up_in_its_request_makes_no_noise(world):
    host, port = world.base_url.removeprefix("http://").split(":")
    with capture_logs() as logs:
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
        )
        await writer.drain()
        await world.client.get("/healthz")
        writer.close()
        await writer.wait_closed()
        await world.client.get("/healthz")

    assert {line["log_level"] for line in logs} <= {"info"}


async def test_a_listed_origin_may_read_and_another_may_not(world):
    listed = await world.client.get("/nowhere", headers={"Origin": ORIGIN})
    other = await world.client.get("/healthz", headers={"Origin": "https://evil.example.com"})

    assert listed.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Access-Control-Allow-Credentials" not in listed.headers
    assert "Access-Control-Allow-Origin" not in other.headers
    assert other.headers["Vary"] == "Origin"


async def test_a_browser_s_question_before_the_call_is_answered(world):
    ask = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    answer = await world.client.call("OPTIONS", "/echo", headers=ask)
    other = await world.client.call("OPTIONS", "/echo", headers=ask | {"Origin": "https://evil.example.com"})

    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, ORIGIN)
    assert "Idempotency-Key" in answer.headers["Access-Control-Allow-Headers"]
    assert other.status == 405
    assert "Access-Control-Allow-Origin" not in other.headers


async def test_alive_whatever_is_broken_and_ready_only_when_all_answers(world: HttpWorld):
    async def fine() -> None: ...

    async def broken() -> None:
        raise RuntimeError("secret")

    async def hangs() -> None:
        await asyncio.Event().wait()

    world.services.readiness.update(storage=fine)
    assert (await world.client.get("/readyz")).json == {"status": "ready", "checks": ["storage"]}
    world.services.readiness.update(locks=broken)
    answer = await world.client.get("/readyz")
    assert (answer.status, answer.code, answer.json["failed"]) == (503, "NOT_READY", ["locks"])
    assert "secret" not in answer.text
    world.services.readiness.update(locks=fine, clock=hangs)
    assert (await world.client.get("/readyz")).json["failed"] == ["clock"]
    assert (await world.client.get("/healthz")).json == {"status": "ok"}
