"""Where an app keeps what was said and not yet stored, so that being killed loses nothing."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol, TypeVar

from tarazu_client.outbox import Draft

T = TypeVar("T")


class Storage(Protocol):
    """Drafts by session. `put` returns once the draft is safe; forgetting one too late is harmless, it is only sent again."""

    async def load(self, session_id: str) -> list[Draft]:
        """In the order of `put`."""
        ...

    async def put(self, draft: Draft) -> None: ...

    async def drop(self, session_id: str, client_msg_ids: Sequence[str]) -> None:
        """Harmless for those that are not there."""
        ...


class MemoryStorage:
    """As long as the process lives."""

    def __init__(self) -> None:
        self._drafts: dict[tuple[str, str], Draft] = {}

    async def load(self, session_id: str) -> list[Draft]:
        return [draft for draft in self._drafts.values() if draft.session_id == session_id]

    async def put(self, draft: Draft) -> None:
        self._drafts[draft.session_id, draft.client_msg_id] = draft

    async def drop(self, session_id: str, client_msg_ids: Sequence[str]) -> None:
        for client_msg_id in client_msg_ids:
            self._drafts.pop((session_id, client_msg_id), None)


class SqliteStorage:
    """A file of the app's own, one person's. Written through to the disk before `put` returns."""

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        # One at a time, and in the order of asking.
        self._turn = asyncio.Lock()

    async def load(self, session_id: str) -> list[Draft]:
        query = "SELECT session_id, client_msg_id, body FROM drafts WHERE session_id = ? ORDER BY n"
        return await self._do(lambda db: [Draft(*row) for row in db.execute(query, (session_id,))])

    async def put(self, draft: Draft) -> None:
        row = (draft.session_id, draft.client_msg_id, draft.body)
        await self._do(
            lambda db: db.execute(
                "INSERT OR IGNORE INTO drafts (session_id, client_msg_id, body) VALUES (?, ?, ?)", row
            )
        )

    async def drop(self, session_id: str, client_msg_ids: Sequence[str]) -> None:
        rows = [(session_id, client_msg_id) for client_msg_id in client_msg_ids]
        await self._do(
            lambda db: db.executemany("DELETE FROM drafts WHERE session_id = ? AND client_msg_id = ?", rows)
        )

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        async with self._turn:
            return await asyncio.to_thread(self._in_one_transaction, work)

    def _in_one_transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with closing(sqlite3.connect(self._path)) as db:
            db.execute("PRAGMA synchronous = FULL")
            db.execute(
                "CREATE TABLE IF NOT EXISTS drafts (n INTEGER PRIMARY KEY, session_id TEXT NOT NULL, "
                "client_msg_id TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (session_id, client_msg_id))"
            )
            with db:
                return work(db)
