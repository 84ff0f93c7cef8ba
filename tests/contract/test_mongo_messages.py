"""The message store on MongoDB: the contract through either driver."""

from collections.abc import AsyncIterator

import pytest

from server.storage.mongo.client import MongoDatabase, MongoOptions, open_mongo
from server.storage.mongo.messages import MongoMessageStore, open_message_store
from tests.contract.message_store_contract import MessageStoreContract


@pytest.fixture
async def db(mongo_options: MongoOptions) -> AsyncIterator[MongoDatabase]:
    async with open_mongo(mongo_options) as database:
        yield database


class TestMongoMessages(MessageStoreContract):
    @pytest.fixture
    async def store(self, db: MongoDatabase) -> MongoMessageStore:
        return await open_message_store(db)
