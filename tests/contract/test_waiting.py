"""Waiting lists on both engines, and requests' own way of writing on MongoDB; on SQLite that is in `test_repositories_sqlite`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.storage.mongo.client import MongoOptions, open_mongo
from server.storage.mongo.collection import MongoCollections
from server.storage.repositories.sessions import CollectionSessions
from server.storage.repositories.waiting import CollectionWaiting
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.contract.sessions_contract import SessionsContract
from tests.contract.waiting_contract import WaitingContract
from tests.support.mongo_server import PATIENT_MS


class TestSqliteWaiting(WaitingContract):
    @pytest.fixture
    async def rows(self, tmp_path: Path) -> AsyncIterator[CollectionWaiting]:
        async with open_database(tmp_path / "waiting.db", SqliteOptions(synchronous="OFF")) as db:
            yield await CollectionWaiting.open(SqliteCollections(db))


class TestMongoWaiting(WaitingContract):
    @pytest.fixture
    async def rows(self, mongo_url: str) -> AsyncIterator[CollectionWaiting]:
        async with open_mongo(MongoOptions(mongo_url, timeout_ms=PATIENT_MS)) as db:
            yield await CollectionWaiting.open(MongoCollections(db))


class TestMongoRequests:
    """The contract of session records is long; these are its parts that requests stand on."""

    @pytest.fixture
    async def sessions(self, mongo_url: str) -> AsyncIterator[CollectionSessions]:
        async with open_mongo(MongoOptions(mongo_url, timeout_ms=PATIENT_MS)) as db:
            yield await CollectionSessions.open(MongoCollections(db))

    test_a_change = SessionsContract.test_a_change_of_some_fields_leaves_what_others_wrote
    test_many_who_answer = SessionsContract.test_many_who_answer_at_once_change_one_request_once
    test_by_state = SessionsContract.test_sessions_are_found_by_state_and_by_lawyer
    test_unfinished = SessionsContract.test_unfinished_is_every_session_that_recovery_must_look_at
