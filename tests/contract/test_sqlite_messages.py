"""The SQLite message store passes the contract, and says which side wrote what."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chat.errors import Unavailable
from server.storage.sqlite.engine import SqliteOptions, open_database
from server.storage.sqlite.messages import SqliteMessageStore, open_message_store
from tests.contract.message_store_contract import (
    SESSION,
    USER,
    MessageStoreContract,
    bodies,
    erased,
    opened,
    send,
)


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


async def test_an_erasure_that_was_cut_short_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
        store = await open_message_store(db)
        await opened(store)
        for n in range(10):
            await send(store, f"m{n}", body=f"the secret number {n}")
        await store.close_conversation(SESSION, at_ms=2_000)
        assert await store.erase_closed(closed_before_ms=3_000, at_ms=9_000, limit=4) == 4
        assert await bodies(store, SESSION) == [""] * 10
    assert b"the secret number" in path.read_bytes()

    async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
        store = await open_message_store(db)
        # Begun is begun, whatever is asked for now: its readers have been told.
        while await store.erase_closed(closed_before_ms=0, at_ms=9_999, limit=4):
            pass
        page = await store.page(SESSION, limit=10)
        assert page is not None
        assert {message.erased_at_ms for message in page.messages} == {9_000}
    assert b"the secret number" not in path.read_bytes()


async def test_a_database_from_before_erasure_learns_it(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
        await db.script(
            "CREATE TABLE conversations (session_id TEXT PRIMARY KEY, user_id TEXT NOT NULL, lawyer_id TEXT NOT NULL,"
            " opened_at_ms INTEGER NOT NULL, closed_at_ms INTEGER, last_seq INTEGER NOT NULL DEFAULT 0,"
            " from_user INTEGER NOT NULL DEFAULT 0, last_at_ms INTEGER NOT NULL DEFAULT 0,"
            " evidence_ms INTEGER NOT NULL DEFAULT 0, user_delivered INTEGER NOT NULL DEFAULT 0,"
            " user_seen INTEGER NOT NULL DEFAULT 0, lawyer_delivered INTEGER NOT NULL DEFAULT 0,"
            " lawyer_seen INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;"
        )
        for _ in range(2):
            store = await open_message_store(db)
            await opened(store)
            await send(store, "a")
        await store.close_conversation(SESSION, at_ms=2_000)
        assert await erased(store) == 2
        assert await bodies(store, SESSION) == [""]


async def test_nothing_to_erase_costs_no_commit(tmp_path: Path) -> None:
    """The job asks every hour for ever."""
    async with open_database(tmp_path / "chat.db", SqliteOptions(synchronous="OFF")) as db:
        store = await open_message_store(db)
        await opened(store)
        await send(store, "a")
        commits = db.stats.commits
        assert await store.erase_closed(closed_before_ms=10**15, at_ms=9_000, limit=10) == 0
        assert db.stats.commits == commits
