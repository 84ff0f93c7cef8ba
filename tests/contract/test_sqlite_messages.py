"""The SQLite message store passes the contract, and says which side wrote what."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chat.errors import Unavailable
from server.storage.sqlite.engine import SqliteOptions, open_database
from server.storage.sqlite.messages import SqliteMessageStore, open_message_store
from tests.contract.message_store_contract import SESSION, USER, MessageStoreContract, opened, send


class TestSqliteMessages(MessageStoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SqliteMessageStore]:
        async with open_database(tmp_path / "chat.db", SqliteOptions(synchronous="OFF")) as db:
            yield await open_message_store(db)


async def test_messages_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
        store = await open_message_store(db)
        await opened(store)
        first, _ = await send(store, "a")

    async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
        store = await open_message_store(db)
        assert await send(store, "a") == (first, True)
        assert (await send(store, "b"))[0].seq == 2


async def test_a_closed_store_is_unavailable_not_empty(tmp_path: Path) -> None:
    """No such session: that would make a client give up; "try again" is the truth."""
    async with open_database(tmp_path / "chat.db", SqliteOptions(synchronous="OFF")) as db:
        store = await open_message_store(db)
        await opened(store)

    with pytest.raises(Unavailable):
        await store.append(session_id=SESSION, sender_id=USER, client_msg_id="a", body="b", at_ms=1)
    with pytest.raises(Unavailable):
        await store.conversation(SESSION)
