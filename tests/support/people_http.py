"""The people room's routes in the real application: real accounts, tokens and storage, over loopback HTTP."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

from aiohttp.test_utils import TestClient, TestServer

from billing_engine.consultations.rules import Rules
from billing_engine.consultations.waiting import WaitingLists
from billing_engine.money import INR
from billing_engine.refunds.model import RefundBook
from server.admin.audit import AuditLog
from server.app import build_app
from server.auth.accounts import Accounts
from server.auth.model import Role
from server.auth.passwords import Passwords
from server.auth.sign_ins import SignIns
from server.auth.tokens import AccessTokens
from server.idempotency import Idempotency
from server.ids import new_id
from server.people.earnings import EarningsService
from server.people.ports import EarningRow, EarningsSummary
from server.people.service import LawyerService
from server.routes import admin_lawyers, earnings, lawyers, reviews
from server.storage.repositories.audit import CollectionAudit
from server.storage.repositories.idempotency import CollectionIdempotency
from server.storage.repositories.tokens import CollectionTokens
from server.storage.repositories.users import CollectionAccounts
from server.storage.repositories.waiting import CollectionWaiting
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.consult import HeardOfRequests
from tests.support.manual_clock import ManualClock
from tests.support.people import KnownAccounts, People, people_on

ROUTES = (*lawyers.ROUTES, *earnings.ROUTES, *admin_lawyers.ROUTES, *reviews.ROUTES)
PASSWORD = "a good password"


class NothingRefunded:
    """Consultations of which nothing was given back."""

    async def books(self, session_ids: Sequence[str]) -> dict[str, RefundBook]:
        del session_ids
        return {}


@dataclass
class KnownEarnings:
    """Earnings as a list, newest first, and what was asked for."""

    earned: list[EarningRow] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    async def summary(self, lawyer_id: str, *, day: str, month: str) -> EarningsSummary:
        self.asked.append((lawyer_id, day, month))
        total = sum(row.net_minor for row in self.earned)
        return EarningsSummary(total, 0, total, total, len(self.earned))

    async def rows(self, lawyer_id: str, *, limit: int, before: tuple[int, str] | None) -> list[EarningRow]:
        del lawyer_id
        rows = [row for row in self.earned if before is None or (row.at_ms, row.key) < before]
        return rows[:limit]


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and JSON of one call."""

    status: int
    json: Any

    @property
    def code(self) -> str:
        return str(self.json["code"])

    @property
    def fields(self) -> set[str]:
        return {error["field"] for error in self.json.get("errors", [])}


@dataclass
class Api:
    """A client of the running application."""

    client: TestClient[Any, Any]
    people: People
    accounts: Accounts
    sign_ins: SignIns
    earnings: KnownEarnings
    _numbers: Any = field(default_factory=lambda: count(1))

    async def call(
        self, method: str, path: str, *, token: str | None = None, json: Any = None, **options: Any
    ) -> Answer:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= options.pop("headers", {})
        if json is not None:
            options["json"] = json
        async with self.client.request(method, path, headers=headers, **options) as response:
            return Answer(response.status, await response.json(content_type=None))

    async def sign_in(self, role: Role) -> tuple[str, str]:
        """(id, access token) of a new account."""
        number = next(self._numbers)
        account = await self.accounts.create(
            email=f"person{number}@example.com",
            password=PASSWORD,
            name=f"Person {number}",
            role=role,
            company_name="Firm" if role is Role.COMPANY else None,
        )
        return account.id, (await self.sign_ins.open(account)).access_token

    async def register(self, **facts: Any) -> Answer:
        return await self.call("POST", "/lawyer/register", json=form(next(self._numbers), **facts))

    async def a_lawyer(self, **facts: Any) -> tuple[str, str]:
        """(id, access token) of a lawyer, verified and online unless said otherwise."""
        verified, online = facts.pop("verified", True), facts.pop("online", True)
        answer = await self.register(**facts)
        assert answer.status == 201, answer.json
        lawyer_id = answer.json["user"]["id"]
        if verified:
            await self.people.profiles.set_verification(lawyer_id, is_verified=True, verification=None)
        if online:
            await self.people.profiles.set_online(lawyer_id, is_online=True, at_ms=1)
        return lawyer_id, answer.json["accessToken"]


def form(number: int = 1, **facts: Any) -> dict[str, Any]:
    usual = {
        "email": f"lawyer{number}@example.com",
        "password": PASSWORD,
        "name": f"Lawyer {number}",
        "ratePerMinute": "30.00",
        "specializations": ["Tax"],
        "languages": ["Hindi", "English"],
        "barCouncilNumber": f"MH/{number}/2001",
        "bio": "Twenty years at the bar.",
    }
    return {name: value for name, value in (usual | facts).items() if value is not ...}


@asynccontextmanager
async def open_api(path: Path) -> AsyncIterator[Api]:
    async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
        collections, clock = SqliteCollections(db), ManualClock()
        people = await people_on(collections, clock, KnownAccounts())
        rows = await CollectionAccounts.open(collections)
        passwords = Passwords(cost=4)
        accounts = Accounts(rows=rows, passwords=passwords, clock=clock, new_id=new_id)
        sign_ins = SignIns(
            rows=await CollectionTokens.open(collections),
            accounts=rows,
            access=AccessTokens(secret="s" * 32, issuer="t", audience="t", lifetime_s=900, clock=clock),
            clock=clock,
            new_id=new_id,
            refresh_lifetime_ms=86_400_000,
            grace_ms=10_000,
        )
        earned = KnownEarnings()
        lawyer_service = LawyerService(
            profiles=people.profiles,
            ratings=people.ratings,
            accounts=accounts,
            busy=people.claims,
            clock=clock,
            new_id=new_id,
        )
        waiting = WaitingLists(
            rows=await CollectionWaiting.open(collections),
            sessions=people.sessions,
            claims=people.claims,
            lawyers=lawyer_service,
            clock=clock,
            rules=Rules(),
            news=HeardOfRequests(),
            owner="people",
            new_id=new_id,
        )
        services = SimpleNamespace(
            asset=INR,
            accounts=accounts,
            sign_ins=sign_ins,
            lawyers=lawyer_service,
            waiting=waiting,
            reviews=people.reviews,
            earnings=EarningsService(
                earnings=earned, refunded=NothingRefunded(), clock=clock, zone=ZoneInfo("Asia/Kolkata")
            ),
        )
        idempotency = Idempotency(
            rows=await CollectionIdempotency.open(collections), clock=clock, new_id=new_id
        )
        app = build_app(
            ROUTES,
            services=services,
            authenticate=sign_ins.authenticate,
            idempotency=idempotency,
            audit=AuditLog(await CollectionAudit.open(collections), clock),
        )
        try:
            async with TestClient(TestServer(app)) as client:
                yield Api(client, people, accounts, sign_ins, earned)
        finally:
            await waiting.stop()
            passwords.close()
