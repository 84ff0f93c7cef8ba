"""The collection port over MongoDB: the contract, through either driver."""

from collections.abc import AsyncIterator

import pytest

from server.storage.collection import Collections
from server.storage.mongo.client import MongoDatabase, MongoOptions, open_mongo
from server.storage.mongo.collection import MongoCollections
from tests.contract.collection_contract import CollectionContract


@pytest.fixture
async def db(mongo_options: MongoOptions) -> AsyncIterator[MongoDatabase]:
    async with open_mongo(mongo_options) as database:
        yield database


@pytest.fixture
async def collections(db: MongoDatabase) -> Collections:
    return MongoCollections(db)


class TestMongoCollection(CollectionContract):
    """Over the wire."""
