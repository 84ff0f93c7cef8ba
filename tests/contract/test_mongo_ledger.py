"""The ledger over MongoDB passes the contract: one conditional write decides, redo follows."""

from collections.abc import AsyncIterator

import pytest

from server.storage.mongo.client import MongoOptions, open_mongo
from server.storage.mongo.ledger import MongoLedgerStore
from tests.contract.ledger_contract import LedgerContract


class TestMongoLedger(LedgerContract):
    """Over the wire, through either driver."""

    @pytest.fixture
    async def store(self, mongo_options: MongoOptions) -> AsyncIterator[MongoLedgerStore]:
        async with open_mongo(mongo_options) as db:
            store = MongoLedgerStore(db)
            await store.prepare()
            yield store
