"""The HTTP edge on a real socket, over a real SQLite file, with a clock that the test moves."""

import io
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp import web

from billing_engine.money import INR
from server.admin.audit import AuditLog
from server.app import build_app
from server.auth.accounts import Accounts
from server.auth.control import AccountControl
from server.auth.login_guard import LoginGuard
from server.auth.model import Role
from server.auth.password_changes import PasswordChanges
from server.auth.passwords import Passwords
from server.auth.reset_tokens import ResetTokens
from server.auth.sign_ins import SignIns
from server.auth.tokens import AccessTokens
from server.idempotency import Idempotency
from server.ids import new_id
from server.notifications.composer import AccountComposer
from server.notifications.outbox import Outbox
from server.rate_limits.memory import MemoryBuckets
from server.rate_limits.model import Allowance
from server.rate_limits.service import Allowances, Limited, RateLimits
from server.routing import Route
from server.storage.repositories.audit import CollectionAudit
from server.storage.repositories.idempotency import CollectionIdempotency
from server.storage.repositories.notices import CollectionNotices
from server.storage.repositories.tokens import CollectionTokens
from server.storage.repositories.users import CollectionAccounts
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteDatabase, SqliteOptions, open_database
from tests.support.letters import Letters
from tests.support.manual_clock import ManualClock

SECRET = "a-secret-for-tests-that-is-long-enough-for-hs256"
PASSWORD = "correct horse"
RESET_MS = 30 * 60_000


@dataclass(frozen=True)
class Answer:
    """A response, read."""

    status: int
    json: Any
    headers: Mapping[str, str]
    text: str

    @property
    def code(self) -> str:
        """The problem's code."""
        assert self.headers["Content-Type"].startswith("application/problem+json"), self.text
        return str(self.json["code"])

    @property
    def fields(self) -> list[str]:
        """The fields that a validation problem names."""
        return [error["field"] for error in self.json["errors"]]


class Client:
    """Calls the server as one person."""

    def __init__(self, http: aiohttp.ClientSession, base_url: str, token: str | None = None) -> None:
        self._http = http
        self._base_url = base_url
        self.token = token

    def with_token(self, token: str | None) -> "Client":
        return Client(self._http, self._base_url, token)

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        raw: bytes | None = None,
        content_type: str | None = "application/json",
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Answer:
        sent = dict(headers or {})
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        if key is not None:
            sent["Idempotency-Key"] = key
        arguments: dict[str, Any] = {"headers": sent}
        if raw is not None:
            # A stream: aiohttp warns of larger ones that are none.
            arguments |= {"data": io.BytesIO(raw), "skip_auto_headers": ["Content-Type"]}
            if content_type is not None:
                sent["Content-Type"] = content_type
        elif json is not None:
            arguments["json"] = json
        async with self._http.request(method, f"{self._base_url}{path}", **arguments) as response:
            text = await response.text()
            is_json = "json" in response.headers.get("Content-Type", "")
            return Answer(
                response.status,
                await response.json(content_type=None) if is_json and text else None,
                response.headers,
                text,
            )

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.call("GET", path, **more)

    async def post(self, path: str, json: Any = None, **more: Any) -> Answer:
        return await self.call("POST", path, json=json, **more)


class Nobody:
    """No consultations, no lawyers, no money: identity alone."""

    async def is_busy(self, person_id: str) -> bool:
        return False

    async def end_for_account(self, person_id: str) -> None:
        pass

    async def suspend(self, lawyer_id: str) -> None:
        pass

    async def restore(self, lawyer_id: str) -> None:
        pass

    async def forget_all(self, payer_id: str) -> None:
        del payer_id

    async def anonymise(self, lawyer_id: str) -> None:
        pass

    async def owned_credits(self, person_id: str) -> int:
        return 0

    async def owned_minor(self, person_id: str) -> int:
        return 0


@dataclass
class HttpWorld:
    """A running server and what stands behind it."""

    client: Client
    base_url: str
    clock: ManualClock
    db: SqliteDatabase
    collections: SqliteCollections
    accounts: Accounts
    sign_ins: SignIns
    idempotency: Idempotency
    services: SimpleNamespace
    runner: web.AppRunner
    control: AccountControl
    password_changes: PasswordChanges
    outbox: Outbox
    letters: Letters
    rows: CollectionAccounts
    revoked: list[tuple[str, str | None]] = field(default_factory=list)

    async def signed_in(self, role: Role = Role.USER, email: str | None = None) -> Client:
        """A client with an account of this role."""
        account = await self.accounts.create(
            email=email or f"{new_id()}@example.com",
            password=PASSWORD,
            name="Asha",
            role=role,
            company_name="Acme" if role is Role.COMPANY else None,
        )
        return self.client.with_token((await self.sign_ins.open(account)).access_token)


@asynccontextmanager
async def http_world(
    directory: Path,
    routes: Iterable[Route],
    *,
    cors_origins: Iterable[str] = (),
    allowances: Mapping[Limited, Allowances] | None = None,
    guard: tuple[Allowance | None, Allowance | None] = (None, None),
    trusted_proxies: int = 0,
    **services: Any,
) -> AsyncIterator[HttpWorld]:
    """The routes, served. `services` are added to those of identity. Nothing is limited unless `allowances` (by route) or `guard`
    (wrong passwords here, and of strangers) say so. The outbox sends when the test says `outbox.send_due()`.
    """
    clock = ManualClock()
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(
            open_database(directory / "edge.db", SqliteOptions(synchronous="OFF"))
        )
        collections = SqliteCollections(db)
        passwords = Passwords(cost=4)
        stack.callback(passwords.close)
        rows = await CollectionAccounts.open(collections)
        buckets = MemoryBuckets(clock)
        watch = LoginGuard(buckets, here=guard[0], strangers=guard[1], key=b"addresses")
        accounts = Accounts(rows=rows, passwords=passwords, clock=clock, new_id=new_id, guard=watch)
        sign_ins = SignIns(
            rows=await CollectionTokens.open(collections),
            accounts=rows,
            access=AccessTokens(
                secret=SECRET, issuer="tarazu", audience="tarazu", lifetime_s=900, clock=clock
            ),
            clock=clock,
            new_id=new_id,
            refresh_lifetime_ms=30 * 86_400_000,
            grace_ms=10_000,
        )
        idempotency = Idempotency(
            rows=await CollectionIdempotency.open(collections), clock=clock, new_id=new_id
        )
        letters = Letters()
        outbox = Outbox(
            rows=await CollectionNotices.open(collections),
            composer=AccountComposer(
                accounts=rows,
                tokens=ResetTokens(b"resets"),
                reset_lifetime_ms=RESET_MS,
                reset_url="https://app.example.com/reset#{token}",
            ),
            notifier=letters,
            clock=clock,
        )
        password_changes = PasswordChanges(
            rows=rows,
            accounts=accounts,
            passwords=passwords,
            sign_ins=sign_ins,
            outbox=outbox,
            clock=clock,
            new_id=new_id,
            reset_lifetime_ms=RESET_MS,
            guard=watch,
        )
        nobody = Nobody()
        control = AccountControl(
            rows=rows,
            accounts=accounts,
            sign_ins=sign_ins,
            sessions=nobody,
            lawyers=nobody,
            funds=nobody,
            methods=nobody,
            outbox=outbox,
            clock=clock,
            new_id=new_id,
        )
        behind = SimpleNamespace(
            asset=INR,
            accounts=accounts,
            sign_ins=sign_ins,
            control=control,
            password_changes=password_changes,
            readiness={},
        )
        behind.__dict__.update(services)
        app = build_app(
            routes,
            services=behind,
            authenticate=sign_ins.authenticate,
            idempotency=idempotency,
            cors_origins=cors_origins,
            rate_limits=RateLimits(buckets, allowances or {}),
            trusted_proxies=trusted_proxies,
            audit=AuditLog(await CollectionAudit.open(collections), clock),
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        http = await stack.enter_async_context(aiohttp.ClientSession())
        world = HttpWorld(
            client=Client(http, base_url),
            base_url=base_url,
            clock=clock,
            db=db,
            collections=collections,
            accounts=accounts,
            sign_ins=sign_ins,
            idempotency=idempotency,
            services=behind,
            runner=runner,
            control=control,
            password_changes=password_changes,
            outbox=outbox,
            letters=letters,
            rows=rows,
        )
        sign_ins.on_revoked(lambda ended: world.revoked.append((ended.user_id, ended.family_id)))
        yield world
