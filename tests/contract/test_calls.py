"""Calls in both engines."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chat.calls.ports import CallStore
from server.storage.mongo.client import MongoOptions, open_mongo
from server.storage.mongo.collection import MongoCollections
from server.storage.repositories.calls import CollectionCalls
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.contract.calls_contract import CallStoreContract
from tests.support.mongo_server import PATIENT_MS


class TestSqliteCalls(CallStoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[CallStore]:
        async with open_database(tmp_path / "calls.db", SqliteOptions(synchronous="OFF")) as db:
            yield await CollectionCalls.open(SqliteCollections(db))

    @pytest.fixture
    def rival(self, store: CallStore) -> CallStore:
        return store


class TestMongoCalls(CallStoreContract):
    @pytest.fixture
    async def store(self, mongo_url: str) -> AsyncIterator[CallStore]:
        async with open_mongo(MongoOptions(mongo_url, timeout_ms=PATIENT_MS)) as database:
            yield await CollectionCalls.open(MongoCollections(database))

    @pytest.fixture
    async def rival(self, mongo_url: str, store: CallStore) -> AsyncIterator[CallStore]:
        async with open_mongo(MongoOptions(mongo_url, timeout_ms=PATIENT_MS)) as database:
            yield await CollectionCalls.open(MongoCollections(database))
