"""Bad input on every route of the table: a clear problem that names the field, never a 500, and nothing changed.

To cover a new route, do nothing. If one of its fields has no valid value that the schema would tell, add it to `_samples`.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from server.auth.model import Profession, Role
from server.composition import Server, build
from server.routes import ROUTES
from server.routing import Route
from server.settings import AppEnv, Settings
from server.storage.sqlite.connect import open_reader
from tests.support.bad_input import BadRequest, bad_bodies, bad_queries, broken_bodies, good_body, good_query
from tests.support.http import PASSWORD, Answer, Client

#: Written by asking whether the store answers, and by logging in to ask: no business of the requests under test.
_NOT_COMPARED = {"readiness"}


@dataclass
class World:
    """The whole server, and a client for each role."""

    server: Server
    client: Client
    path: Path
    samples: dict[str, Any] = field(default_factory=dict)
    clients: dict[Role, Client] = field(default_factory=dict)

    async def caller(self, route: Route) -> Client:
        """Somebody who may call the route."""
        if route.access.public:
            return self.client
        return await self.client_of(max(route.access.roles))

    async def client_of(self, role: Role) -> Client:
        if role not in self.clients:
            services = self.server.services
            account = await services.accounts.create(
                email=f"{role.value}@example.com",
                password=PASSWORD,
                name=role.title(),
                role=role,
                profession=Profession.VIDEOGRAPHER if role is Role.FREELANCER else None,
                company_name="Acme" if role is Role.COMPANY else None,
            )
            self.clients[role] = self.client.with_token((await services.sign_ins.open(account)).access_token)
        return self.clients[role]

    def everything(self) -> dict[str, list[Any]]:
        """Every row of every table."""
        connection = open_reader(self.path)
        try:
            names = [
                name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
            return {
                name: sorted(map(repr, connection.execute(f'SELECT * FROM "{name}"')))
                for name in names
                if name not in _NOT_COMPARED
            }
        finally:
            connection.close()

    async def send(self, client: Client, route: Route, path: str, bad: BadRequest) -> Answer:
        target = f"{path}?{bad.query}" if bad.query else path
        raw = bad.raw if bad.raw is not None else good_body(route, self.samples)
        return await client.call(route.method, target, raw=raw, content_type=bad.content_type)


@asynccontextmanager
async def _started(directory: Path) -> AsyncIterator[World]:
    path = directory / "bad.db"
    settings = Settings(
        _env_file=None,
        app_env=AppEnv.TEST,
        bcrypt_cost=4,
        database_url=f"sqlite:///{path}",
        sqlite_synchronous="OFF",
        rate_limits="off",
    )
    async with build(settings) as server, aiohttp.ClientSession() as http:
        runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield World(server, Client(http, f"http://127.0.0.1:{runner.addresses[0][1]}"), path)
        finally:
            await runner.cleanup()


async def _samples(world: World) -> dict[str, Any]:
    """Valid values that a schema does not tell."""
    lawyer = await world.client.post(
        "/lawyer/register",
        {
            "email": "l@example.com",
            "password": PASSWORD,
            "name": "Lata",
            "ratePerMinute": "20.00",
            "barCouncilNumber": "MAH/1/2020",
        },
    )
    lawyer_id = lawyer.json["lawyer"]["id"]
    verdict = await (await world.client_of(Role.ADMIN)).call("PATCH", f"/lawyer/{lawyer_id}/verify", json={})
    assert verdict.status == 200, verdict.text
    return {
        "email": "new@example.com",
        "password": PASSWORD,
        "lawyerId": lawyer_id,
        "sessionId": "unknown",
        "package_id": 1,
        "project_id": await _project(world),
        # Whoever is named in a body: there is nobody, so that a row of the refused act is all that could be written.
        "user_id": "unknown",
        "barCouncilNumber": "MAH/2/2020",
        "specializations": ["family"],
        "languages": ["hi"],
        # Switched on, it would need a means of payment.
        "enabled": False,
        "thresholds": ["20.00"],
        "events": [{"type": "cv-parsing", "eventId": "e"}],
    }


async def _project(world: World) -> str:
    posted = await (await world.client_of(Role.COMPANY)).post("/projects", {"title": "T", "description": "D"})
    assert posted.status == 201, posted.text
    return str(posted.json["id"])


@pytest.fixture
async def world(tmp_path: Path):
    async with _started(tmp_path) as world:
        world.samples = await _samples(world)
        yield world


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
async def test_bad_input_is_named_and_changes_nothing(world: World, route: Route):
    """The client's developer must see which field; the customer must not lose a paisa to a typing mistake."""
    client = await world.caller(route)
    path = _filled(route, world)
    before = world.everything()
    wrong: list[str] = []
    for bad in (*broken_bodies(route), *bad_bodies(route, world.samples), *bad_queries(route, world.samples)):
        answer = await world.send(client, route, path, bad)
        named = bad.field is None or any(
            _same(bad.field, name) for name in (answer.fields if answer.status == 422 else ())
        )
        if answer.status != bad.status or not named:
            wrong.append(
                f"{bad.what}: {answer.status} {answer.text[:300]}, not {bad.status} naming {bad.field}"
            )
    assert wrong == []
    assert world.everything() == before


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if "{" in route.path], ids=lambda route: route.name
)
async def test_an_unknown_id_is_not_found(world: World, route: Route):
    client = await world.caller(route)
    before = world.everything()
    for unknown in (
        "unknown",
        "0" * 32,
        "%F0%9F%98%80",
        "..",
        "x" * 128,
        "a'b\"c",
        "%27%20OR%201=1",
        "-1",
        "null",
        "%00",
        "x" * 200,
    ):
        path = _filled(route, world, unknown)
        query = good_query(route, world.samples)
        answer = await client.call(route.method, f"{path}?{query}", raw=good_body(route, world.samples))
        if answer.code == "USAGE_TYPE_UNKNOWN":
            # A word of the price book, and no id.
            continue
        assert answer.status in {404, 405}, (unknown, answer.text)
        assert answer.code in {
            "NOT_FOUND",
            "METHOD_NOT_ALLOWED",
            "PROVIDER_UNKNOWN",
            "LAWYER_NOT_FOUND",
            "PAYMENT_NOT_FOUND",
            "SESSION_NOT_FOUND",
            "USAGE_NOT_FOUND",
            "JOB_NOT_FOUND",
        }
    assert world.everything() == before


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if not route.access.public], ids=lambda route: route.name
)
async def test_strangers_and_other_roles_are_refused(world: World, route: Route):
    others = sorted(set(Role) - route.access.roles)
    clients = [await world.client_of(role) for role in others]
    before = world.everything()
    path = f"{_filled(route, world)}?{good_query(route, world.samples)}"
    for token in (None, "nonsense", "a.b.c"):
        answer = await world.client.with_token(token).call(
            route.method, path, raw=good_body(route, world.samples)
        )
        assert (answer.status, answer.code) == (401, "UNAUTHENTICATED")
    for client in clients:
        answer = await client.call(route.method, path, raw=good_body(route, world.samples))
        assert (answer.status, answer.code) == (403, "FORBIDDEN")
    assert world.everything() == before


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.idempotent], ids=lambda route: route.name
)
async def test_a_bad_idempotency_key_is_named(world: World, route: Route):
    client = await world.caller(route)
    before = world.everything()
    for key in ("", "a b", "x" * 256, "\xe9"):
        answer = await client.call(
            route.method, _filled(route, world), raw=good_body(route, world.samples), key=key
        )
        assert (answer.status, answer.fields) == (422, ["Idempotency-Key"])
    assert world.everything() == before


async def test_no_method_of_any_path_crashes(world: World):
    for path in sorted({_filled(route, world) for route in ROUTES}):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
            answer = await world.client.call(method, path)
            assert answer.status < 500, (method, path, answer.text)
            if answer.status == 405:
                assert answer.headers["Allow"]


def test_the_matrix_is_not_empty():
    """A generator that yields nothing passes every test."""
    samples = {"lawyerId": "x", "sessionId": "x", "email": "a@example.com", "password": PASSWORD}
    bodies = {route.name: len(list(bad_bodies(route, samples))) for route in ROUTES if route.body}
    queries = {route.name: len(list(bad_queries(route, samples))) for route in ROUTES if route.query}

    assert min(bodies.values()) >= 5
    assert bodies["POST /wallet/recharge"] > 20
    # The least is one word of a few: another word, none, and twice.
    assert min(queries.values()) >= 3
    assert json.loads(good_body(next(r for r in ROUTES if r.path == "/review"), samples) or b"") == {
        "sessionId": "x",
        "rating": 1,
    }


def _filled(route: Route, world: World, value: str | None = None) -> str:
    path = route.path
    while "{" in path:
        head, _, rest = path.partition("{")
        name, _, tail = rest.partition("}")
        known = world.samples.get(
            {"lawyer_id": "lawyerId", "session_id": "sessionId"}.get(name, name), "unknown"
        )
        path = f"{head}{known if value is None else value}{tail}"
    return path


def _same(field_name: str, named: str) -> bool:
    return named == field_name or named.startswith(f"{field_name}.")
