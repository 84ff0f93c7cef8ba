"""Stand-ins for what the people room asks of others, and the room itself on a real SQLite file."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from billing_engine.consultations.model import Session, Status
from billing_engine.errors import Conflict
from server.people.model import LawyerProfile, Verification
from server.people.ratings import Ratings
from server.people.reviews import ReviewService
from server.people.service import LawyerService, Registration
from server.storage.repositories.claims import CollectionClaims
from server.storage.repositories.lawyers import CollectionLawyers
from server.storage.repositories.reviews import CollectionReviews
from server.storage.repositories.sessions import CollectionSessions
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.manual_clock import ManualClock


class EmailTaken(Conflict):
    code = "EMAIL_TAKEN"


class KnownAccounts:
    """Accounts as a dict; `failure` is raised once, before or after the account is made."""

    def __init__(self) -> None:
        self.by_id: dict[str, str] = {}
        self.failure: BaseException | None = None
        self.fails_after_commit = False

    async def create_lawyer(self, *, lawyer_id: str, email: str, password: str, name: str) -> None:
        del password, name
        failure, self.failure = self.failure, None
        if failure is not None and not self.fails_after_commit:
            raise failure
        if email in self.by_id.values():
            raise EmailTaken(email=email)
        self.by_id[lawyer_id] = email
        if failure is not None:
            raise failure

    async def emails(self, ids: Sequence[str]) -> dict[str, str]:
        return {id_: self.by_id[id_] for id_ in ids if id_ in self.by_id}


@dataclass
class People:
    """The room, wired as the composition root wires it."""

    collections: SqliteCollections
    clock: ManualClock
    accounts: KnownAccounts
    profiles: CollectionLawyers
    reviews_store: CollectionReviews
    sessions: CollectionSessions
    claims: CollectionClaims
    ratings: Ratings
    lawyers: LawyerService
    reviews: ReviewService
    _numbers: Any = field(default_factory=lambda: count(1))

    async def a_lawyer(self, **facts: Any) -> LawyerProfile:
        """A registered lawyer, verified and online unless said otherwise."""
        number = next(self._numbers)
        verified = facts.pop("verified", True)
        online = facts.pop("online", True)
        usual = {
            "email": f"lawyer{number}@example.com",
            "password": "long enough",
            "name": f"Lawyer {number}",
            "rate_minor_per_min": 3_000,
            "specializations": ("Tax",),
            "languages": ("Hindi",),
            "bar_council_number": f"MH/{number}/2001",
            "bio": "",
        }
        profile = await self.lawyers.register(Registration(**(usual | facts)))
        if verified:
            verdict = Verification("admin", self.clock.now_ms(), None)
            await self.profiles.set_verification(profile.id, is_verified=True, verification=verdict)
        if online:
            await self.profiles.set_online(profile.id, is_online=True, at_ms=self.clock.now_ms())
        return profile

    async def a_session(self, lawyer_id: str, *, user_id: str = "u1", status: Status = Status.ENDED) -> str:
        session_id = f"s{next(self._numbers):06d}"
        await self.sessions.add(
            Session(
                id=session_id,
                user_id=user_id,
                lawyer_id=lawyer_id,
                rate_minor_per_min=3_000,
                currency="INR",
                commission_bp=0,
                max_minor=None,
                status=status,
                created_at_ms=self.clock.now_ms(),
            )
        )
        return session_id

    async def a_review(self, lawyer_id: str, stars: int, comment: str | None = None) -> str:
        session_id = await self.a_session(lawyer_id)
        await self.reviews.post(user_id="u1", session_id=session_id, stars=stars, comment=comment)
        return session_id


@asynccontextmanager
async def open_people(path: Path) -> AsyncIterator[People]:
    async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
        yield await people_on(SqliteCollections(db), ManualClock(), KnownAccounts())


async def people_on(collections: SqliteCollections, clock: ManualClock, accounts: KnownAccounts) -> People:
    """A fresh room on an existing store: what a restarted process, or a second one, has."""
    numbers = count(1)
    profiles = await CollectionLawyers.open(collections)
    reviews_store = await CollectionReviews.open(collections)
    sessions = await CollectionSessions.open(collections)
    claims = await CollectionClaims.open(collections)
    ratings = Ratings(profiles=profiles, reviews=reviews_store)
    return People(
        collections=collections,
        clock=clock,
        accounts=accounts,
        profiles=profiles,
        reviews_store=reviews_store,
        sessions=sessions,
        claims=claims,
        ratings=ratings,
        lawyers=LawyerService(
            profiles=profiles,
            ratings=ratings,
            accounts=accounts,
            busy=claims,
            clock=clock,
            new_id=lambda: f"l{next(numbers):06d}",
        ),
        reviews=ReviewService(reviews=reviews_store, ratings=ratings, sessions=sessions, clock=clock),
    )
