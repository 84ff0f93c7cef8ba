"""The whole server as an app team meets it: the real composition on a loopback port, with a clock that the test moves.

Nothing is replaced but the clock and the port number; people register, log in and connect as their apps do.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import aiohttp
import socketio
from aiohttp import web

from billing_engine.verification import Verdict
from server import composition
from server.auth.model import Role
from server.composition import build
from server.services import Services
from server.settings import Settings
from server.storage import backend
from server.storage.sqlite.books import verify_books
from server.storage.sqlite.engine import SqliteDatabase, SqliteOptions, open_database
from tests.integration.socket_world import Client as SocketClient
from tests.support.consult import WatchedDatabase
from tests.support.http import PASSWORD, Answer, Client
from tests.support.manual_clock import ManualClock

ADMIN_EMAIL: Final = "admin@example.com"
ADMIN_PASSWORD: Final = "the admin's password"
#: What a registration needs beyond the usual, by role.
_MORE: Final[Mapping[Role, Mapping[str, Any]]] = {
    Role.FREELANCER: {"role": "FREELANCER", "profession": "videographer"},
    Role.COMPANY: {"role": "COMPANY", "companyName": "Acme"},
}


class ApiClock(ManualClock):
    """`SystemClock` as the composition root needs it."""

    def not_before(self, ms: int) -> None:
        self.jump_ms(max(0, ms - self.now_ms()))

    def offset_ms(self) -> int:
        return 0


class Person(Client):
    """Somebody signed in, with their apps."""

    def __init__(
        self, http: aiohttp.ClientSession, base_url: str, signed_in: Mapping[str, Any], email: str
    ) -> None:
        super().__init__(http, base_url, signed_in["accessToken"])
        self.id: str = signed_in["user"]["id"]
        self.role = Role(signed_in["user"]["role"])
        self.email = email
        self.refresh_token: str = signed_in["refreshToken"]

    async def patch(self, path: str, json: Any = None, **more: Any) -> Answer:
        return await self.call("PATCH", path, json=json, **more)

    async def recharge(self, amount: str, **more: Any) -> Answer:
        answer = await self.post("/wallet/recharge", {"amount": amount}, **more)
        assert answer.status == 201, answer.text
        return answer

    async def start(self, lawyer_id: str, **more: Any) -> str:
        """The id of a new consultation."""
        answer = await self.post("/consult/start", {"lawyerId": lawyer_id, **more})
        assert answer.status == 201, answer.text
        return str(answer.json["sessionId"])

    async def log_in_again(self) -> None:
        """Go on with a fresh access token, as an app does every quarter of an hour."""
        answer = await self.with_token(None).post("/auth/refresh", {"refreshToken": self.refresh_token})
        assert answer.status == 200, answer.text
        self.token, self.refresh_token = answer.json["accessToken"], answer.json["refreshToken"]

    async def end(self, session_id: str) -> Answer:
        answer = await self.post(f"/consult/{session_id}/end")
        assert answer.status == 200, answer.text
        return answer


@dataclass
class Api:
    """A running server. `anonymous` has no token."""

    base_url: str
    http: aiohttp.ClientSession
    clock: ApiClock
    db: Any
    services: Services
    anonymous: Client
    recovered: int
    sockets: list[socketio.AsyncClient] = field(default_factory=list)
    _numbers: Any = field(default_factory=lambda: count(1))

    async def register(self, role: Role = Role.USER, **more: Any) -> Person:
        """A new person with an account of this role (LAWYER: see `a_lawyer`)."""
        email = more.pop("email", None) or f"{role.lower()}{next(self._numbers)}@example.com"
        form = {"email": email, "password": PASSWORD, "name": "Asha", **_MORE.get(role, {}), **more}
        answer = await self.anonymous.post("/auth/register", form)
        assert answer.status == 201, answer.text
        return Person(self.http, self.base_url, answer.json, email)

    async def a_user(self, balance: str | None = None) -> Person:
        user = await self.register()
        if balance is not None:
            await user.recharge(balance)
        return user

    async def a_lawyer(
        self, *, rate: str = "60.00", verified: bool = True, online: bool = True, **more: Any
    ) -> Person:
        """A lawyer, verified by the admin and online unless said otherwise. At 60.00 a second costs a rupee."""
        number = next(self._numbers)
        email = f"lawyer{number}@example.com"
        form = {
            "email": email,
            "password": PASSWORD,
            "name": f"Adv. {number}",
            "ratePerMinute": rate,
            "specializations": ["Tax"],
            "languages": ["Hindi"],
            "barCouncilNumber": f"KAR/{number}/2015",
            "bio": "Twenty years at the bar.",
        }
        answer = await self.anonymous.post("/lawyer/register", form | more)
        assert answer.status == 201, answer.text
        lawyer = Person(self.http, self.base_url, answer.json, email)
        if verified:
            verdict = await (await self.admin()).patch(f"/lawyer/{lawyer.id}/verify")
            assert verdict.status == 200, verdict.text
        if online:
            assert (await lawyer.patch("/lawyer/availability", {"isOnline": True})).status == 200
        return lawyer

    async def admin(self) -> Person:
        return await self.log_in(ADMIN_EMAIL, ADMIN_PASSWORD)

    async def log_in(self, email: str, password: str = PASSWORD) -> Person:
        """The same person on another device."""
        answer = await self.anonymous.post("/auth/login", {"email": email, "password": password})
        assert answer.status == 200, answer.text
        return Person(self.http, self.base_url, answer.json, email)

    async def disable(self, person: Person) -> None:
        """Shut the person's account, as an admin does."""
        await self.services.control.disable(person.id, reason="For the test.", by="an admin")
        # The letter about it goes out meanwhile.
        await self.idle()

    async def connect(self, token: str | None) -> SocketClient:
        """A Socket.IO client of the app. Raises what python-socketio raises when the server refuses."""
        client = SocketClient(socketio.AsyncClient(reconnection=False))
        self.sockets.append(client.sio)
        auth = None if token is None else {"token": token}
        await client.sio.connect(self.base_url, auth=auth, transports=["websocket"])
        return client

    async def advance(self, seconds: float) -> None:
        """Let time pass on the server: everything that comes due is done and stored before it goes on."""
        await self.clock.advance_ms(round(seconds * 1000), idle=self.idle)

    async def idle(self) -> None:
        """Until nothing is being written and no task has anything left to do now."""
        quiet = 0
        while quiet < 5:
            await asyncio.sleep(0)
            if self.db.busy:
                quiet = 0
                await self.db.until_idle()
            else:
                quiet += 1

    async def books_are_clean(self) -> None:
        """What `tarazu verify-ledger` says beside the running server."""
        await self.idle()
        found = verify_books(self.db.path, now_ms=self.clock.now_ms(), abandon_ms=120_000)
        assert found.verdict is Verdict.CLEAN, (found.broken, found.unfinished)

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables: what a refused call must leave as it is."""

        def read(connection: Any) -> dict[str, list[tuple[Any, ...]]]:
            tables = [
                name
                for (name,) in connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
                )
                if name != "readiness"
            ]
            return {
                name: sorted(connection.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr)
                for name in tables
            }

        rows: dict[str, list[tuple[Any, ...]]] = self.db.read(read)
        return rows


@asynccontextmanager
async def open_api(directory: Path, *, clock: ApiClock | None = None, **settings: Any) -> AsyncIterator[Api]:
    """The server on `directory`, served until the end of the block; opened again on it, it goes on where it was."""
    clock = clock or ApiClock()
    opened: list[WatchedDatabase] = []

    @asynccontextmanager
    async def watched(path: Path, options: SqliteOptions) -> AsyncIterator[Any]:
        async with open_database(path, options) as db:
            assert isinstance(db, SqliteDatabase)
            opened.append(WatchedDatabase(db))
            yield opened[0]

    usual: dict[str, Any] = {
        "app_env": "test",
        "database_url": f"sqlite:///{directory / 'api.db'}",
        "bcrypt_cost": 4,
        "sqlite_synchronous": "OFF",
        "admin_email": ADMIN_EMAIL,
        "admin_password": ADMIN_PASSWORD,
        "rate_limits": "off",
    }
    async with AsyncExitStack() as stack:
        stack.enter_context(patch.object(composition, "SystemClock", lambda: clock))
        # Tests let days pass in one step: not every second of them needs a look at what is to be paid.
        stack.enter_context(patch.object(composition, "_PAYMENTS_EVERY_MS", 60_000))
        stack.enter_context(patch.object(composition, "_USAGES_EVERY_MS", 60_000))
        stack.enter_context(patch.object(composition, "_CALLS_EVERY_MS", 60_000))
        stack.enter_context(patch.object(composition, "_CALLS_LOOKED_AT_EVERY_MS", 60_000))
        stack.enter_context(patch.object(backend, "open_database", watched))
        server = await stack.enter_async_context(build(Settings(_env_file=None, **(usual | settings))))
        runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        http = await stack.enter_async_context(aiohttp.ClientSession())
        api = Api(base_url, http, clock, opened[0], server.services, Client(http, base_url), server.recovered)
        try:
            yield api
        finally:
            for socket in api.sockets:
                await socket.disconnect()
