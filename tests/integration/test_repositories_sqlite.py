"""The repositories of consultations on a real SQLite file keep the contracts of their ports."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.storage.repositories.claims import CollectionClaims
from server.storage.repositories.sessions import CollectionSessions
from server.storage.repositories.timeline import CollectionTimeline
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.contract.sessions_contract import ClaimsContract, SessionsContract, TimelineContract


@pytest.fixture
async def collections(tmp_path: Path) -> AsyncIterator[SqliteCollections]:
    async with open_database(tmp_path / "repositories.db", SqliteOptions(synchronous="OFF")) as db:
        yield SqliteCollections(db)


class TestSqliteSessions(SessionsContract):
    @pytest.fixture
    async def sessions(self, collections: SqliteCollections) -> CollectionSessions:
        return await CollectionSessions.open(collections)


class TestSqliteClaims(ClaimsContract):
    @pytest.fixture
    async def claims(self, collections: SqliteCollections) -> CollectionClaims:
        return await CollectionClaims.open(collections)


class TestSqliteTimeline(TimelineContract):
    @pytest.fixture
    async def timeline(self, collections: SqliteCollections) -> CollectionTimeline:
        return await CollectionTimeline.open(collections)
