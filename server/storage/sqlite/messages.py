"""The chat's message store on SQLite. One point write per message or receipt; the rules are
`chat.ports.MessageStore`'s.

People are stored as a side (`by_user`: 1 the user, 0 the lawyer), so a stranger's message cannot even be
written down. `from_user` counts how many of the messages 1..seq the user wrote: how many of the peer's
messages lie between two positions is then two point reads, however long the conversation is.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from chat.errors import IdempotencyMismatch, NotFound, SessionNotActive
from chat.model import Advance, Conversation, Message, Overview, Page, Receipt, Receipts, Watermarks
from server.storage.sqlite.engine import Lane, SqliteDatabase

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS conversations (
    session_id       TEXT PRIMARY KEY,
    user_id          TEXT NOT NULL,
    lawyer_id        TEXT NOT NULL CHECK (lawyer_id <> user_id),
    opened_at_ms     INTEGER NOT NULL,
    closed_at_ms     INTEGER,
    last_seq         INTEGER NOT NULL DEFAULT 0,
    from_user        INTEGER NOT NULL DEFAULT 0,
    last_at_ms       INTEGER NOT NULL DEFAULT 0,
    evidence_ms      INTEGER NOT NULL DEFAULT 0,
    user_delivered   INTEGER NOT NULL DEFAULT 0,
    user_seen        INTEGER NOT NULL DEFAULT 0,
    lawyer_delivered INTEGER NOT NULL DEFAULT 0,
    lawyer_seen      INTEGER NOT NULL DEFAULT 0,
    erased_at_ms     INTEGER,
    wiping           INTEGER NOT NULL DEFAULT 0,
    wiped_seq        INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS messages (
    session_id    TEXT NOT NULL,
    seq           INTEGER NOT NULL,
    by_user       INTEGER NOT NULL CHECK (by_user IN (0, 1)),
    client_msg_id TEXT NOT NULL,
    body          TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    from_user     INTEGER NOT NULL,
    PRIMARY KEY (session_id, seq)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX IF NOT EXISTS messages_sent_once ON messages (session_id, by_user, client_msg_id);

CREATE TABLE IF NOT EXISTS receipts (
    session_id TEXT NOT NULL,
    by_user    INTEGER NOT NULL CHECK (by_user IN (0, 1)),
    seen       INTEGER NOT NULL CHECK (seen IN (0, 1)),
    upto_seq   INTEGER NOT NULL,
    at_ms      INTEGER NOT NULL,
    PRIMARY KEY (session_id, by_user, seen, upto_seq)
) STRICT, WITHOUT ROWID;
"""

#: Columns that a database from before erasure lacks.
_ERASURE: Final = {
    "erased_at_ms": "INTEGER",
    "wiping": "INTEGER NOT NULL DEFAULT 0",
    "wiped_seq": "INTEGER NOT NULL DEFAULT 0",
}
#: What is being erased, and what could be: neither index is touched by a message or a receipt.
ERASURE_INDEXES: Final = """
CREATE INDEX IF NOT EXISTS conversations_wiping ON conversations (session_id) WHERE wiping = 1;
CREATE INDEX IF NOT EXISTS conversations_closed ON conversations (closed_at_ms)
    WHERE closed_at_ms IS NOT NULL AND erased_at_ms IS NULL;
"""

_CONVERSATION: Final = """
SELECT session_id, user_id, lawyer_id, last_seq, opened_at_ms, closed_at_ms, evidence_ms,
       user_delivered, user_seen, lawyer_delivered, lawyer_seen, from_user, last_at_ms, erased_at_ms
FROM conversations WHERE session_id = ?
"""
_MESSAGE: Final = "SELECT seq, by_user, client_msg_id, body, created_at_ms FROM messages"
#: By side: the lawyer's marks, the user's.
_RAISE: Final = tuple(
    f"UPDATE conversations SET {side}_delivered = ?, {side}_seen = ?, last_at_ms = ?, "
    "evidence_ms = CASE WHEN ? THEN ? ELSE evidence_ms END WHERE session_id = ?"
    for side in ("lawyer", "user")
)
#: A page up to this long is read on the event loop; a longer one in a thread.
_SHORT: Final = 50
#: Ids in one query.
_IDS: Final = 500


async def open_message_store(db: SqliteDatabase) -> "SqliteMessageStore":
    """Make the tables, columns and indexes that are missing. Raises `StoreUnavailable`."""
    await db.script(SCHEMA)
    await db.write(Lane.MESSAGES, _add_erasure)
    await db.script(ERASURE_INDEXES)
    return SqliteMessageStore(db)


class SqliteMessageStore:
    """`MessageStore` on one file. The writer keeps the order in which writes were started."""

    def __init__(self, db: SqliteDatabase) -> None:
        self._db = db

    async def open_conversation(self, session_id: str, *, user_id: str, lawyer_id: str, at_ms: int) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO conversations (session_id, user_id, lawyer_id, opened_at_ms) "
                "VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (session_id, user_id, lawyer_id, at_ms),
            )

        await self._db.write(Lane.MESSAGES, work)

    async def close_conversation(self, session_id: str, *, at_ms: int) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE conversations SET closed_at_ms = ? WHERE session_id = ? AND closed_at_ms IS NULL",
                (at_ms, session_id),
            )

        await self._db.write(Lane.MESSAGES, work)

    async def conversation(self, session_id: str) -> Conversation | None:
        row = self._db.read(lambda connection: _row(connection, session_id))
        return None if row is None else row.conversation

    async def append(
        self, *, session_id: str, sender_id: str, client_msg_id: str, body: str, at_ms: int
    ) -> tuple[Message, bool]:
        def work(connection: sqlite3.Connection) -> tuple[Message, bool]:
            row = _participant(connection, session_id, sender_id)
            by_user = int(sender_id == row.conversation.user_id)
            earlier = connection.execute(
                f"{_MESSAGE} WHERE session_id = ? AND by_user = ? AND client_msg_id = ?",
                (session_id, by_user, client_msg_id),
            ).fetchone()
            if earlier is not None:
                message = _message(row.conversation, earlier)
                if not message.says(body):
                    raise IdempotencyMismatch(session_id=session_id, client_msg_id=client_msg_id)
                return message, True
            if row.conversation.closed_at_ms is not None:
                raise SessionNotActive(session_id=session_id)
            seq = row.conversation.last_seq + 1
            created_at_ms = max(at_ms, row.last_at_ms)  # stored instants only move forward
            from_user = row.from_user + by_user
            connection.execute(
                "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)",
                (session_id, seq, by_user, client_msg_id, body, created_at_ms, from_user),
            )
            connection.execute(
                "UPDATE conversations SET last_seq = ?, from_user = ?, last_at_ms = ?, evidence_ms = ? "
                "WHERE session_id = ?",
                (seq, from_user, created_at_ms, created_at_ms, session_id),
            )
            return Message(session_id, seq, sender_id, client_msg_id, body, created_at_ms), False

        return await self._db.write(Lane.MESSAGES, work)

    async def advance(
        self,
        *,
        session_id: str,
        reader_id: str,
        delivered_seq: int = 0,
        seen_seq: int = 0,
        at_ms: int,
        in_service: bool,
    ) -> Advance:
        def work(connection: sqlite3.Connection) -> Advance:
            row = _participant(connection, session_id, reader_id)
            before = row.conversation.marks_of(reader_id)
            after = before.raised(
                delivered_seq=delivered_seq, seen_seq=seen_seq, last_seq=row.conversation.last_seq
            )
            if after == before:
                return Advance(before, 0, changed=False)
            by_user = int(reader_id == row.conversation.user_id)
            instant_ms = max(at_ms, row.last_at_ms)
            moved = [
                (session_id, by_user, seen, mark, instant_ms)
                for seen, mark, old in (
                    (0, after.delivered_seq, before.delivered_seq),
                    (1, after.seen_seq, before.seen_seq),
                )
                if mark > old
            ]
            connection.executemany("INSERT INTO receipts VALUES (?, ?, ?, ?, ?)", moved)
            connection.execute(
                _RAISE[by_user],
                (after.delivered_seq, after.seen_seq, instant_ms, in_service, instant_ms, session_id),
            )
            newly_seen = _from_peer(connection, session_id, after.seen_seq, by_user) - _from_peer(
                connection, session_id, before.seen_seq, by_user
            )
            return Advance(after, newly_seen, changed=True)

        return await self._db.write(Lane.MESSAGES, work)

    async def erase_closed(self, *, closed_before_ms: int, at_ms: int, limit: int) -> int:
        def work(connection: sqlite3.Connection) -> int:
            # What was overwritten must not stay behind in the free parts of pages. The writer is everybody's: put it back.
            (usual,) = connection.execute("PRAGMA secure_delete").fetchone()
            connection.execute("PRAGMA secure_delete = ON").fetchall()
            try:
                return _erase(connection, closed_before_ms, at_ms, limit)
            finally:
                connection.execute(f"PRAGMA secure_delete = {usual}").fetchall()

        if not self._db.read(lambda connection: _has_erasable(connection, closed_before_ms)):
            return 0  # the usual case costs no commit
        return await self._db.write(Lane.MESSAGES, work)

    async def page(
        self, session_id: str, *, after_seq: int | None = None, before_seq: int | None = None, limit: int
    ) -> Page | None:
        def work(connection: sqlite3.Connection) -> Page | None:
            row = _row(connection, session_id)
            if row is None:
                return None
            first, last = _span(row.conversation.last_seq, after_seq, before_seq, limit)
            return _page(connection, row.conversation, first, last, backwards=after_seq is None)

        if limit <= _SHORT or self._is_short(session_id, after_seq):
            return self._db.read(work)
        return await self._db.scan(work)

    def _is_short(self, session_id: str, after_seq: int | None) -> bool:
        """Whoever comes back after a blink has missed little: that needs no thread."""
        return after_seq is not None and self._last_seq(session_id) - after_seq <= _SHORT

    async def stored(
        self, session_id: str, *, sender_id: str, client_msg_ids: Sequence[str]
    ) -> dict[str, Message]:
        def work(connection: sqlite3.Connection) -> dict[str, Message]:
            row = _row(connection, session_id)
            if row is None or not row.conversation.has(sender_id):
                return {}
            by_user = int(sender_id == row.conversation.user_id)
            found = {}
            for client_msg_id in client_msg_ids:
                values = connection.execute(
                    f"{_MESSAGE} WHERE session_id = ? AND by_user = ? AND client_msg_id = ?",
                    (session_id, by_user, client_msg_id),
                ).fetchone()
                if values is not None:
                    found[client_msg_id] = _message(row.conversation, values)
            return found

        return self._db.read(work)

    async def overview(self, session_ids: Sequence[str], *, viewer_id: str) -> dict[str, Overview]:
        def work(connection: sqlite3.Connection) -> dict[str, Overview]:
            found = {}
            for session_id in session_ids:
                row = _row(connection, session_id)
                if row is None or not row.conversation.has(viewer_id):
                    continue
                conversation = row.conversation
                newest = connection.execute(
                    f"{_MESSAGE} WHERE session_id = ? AND seq = ?", (session_id, conversation.last_seq)
                ).fetchone()
                by_user = int(viewer_id == conversation.user_id)
                seen_seq = conversation.marks_of(viewer_id).seen_seq
                unread = _from_peer(connection, session_id, conversation.last_seq, by_user) - _from_peer(
                    connection, session_id, seen_seq, by_user
                )
                found[session_id] = Overview(newest and _message(conversation, newest), unread)
            return found

        if len(session_ids) <= _SHORT:
            return self._db.read(work)
        return await self._db.scan(work)

    async def last_seq(self, session_id: str) -> int:
        return self._last_seq(session_id)

    def _last_seq(self, session_id: str) -> int:
        return self._number("SELECT last_seq FROM conversations WHERE session_id = ?", session_id)

    async def last_activities_ms(self, session_ids: Sequence[str]) -> dict[str, int]:
        def work(connection: sqlite3.Connection) -> dict[str, int]:
            found: dict[str, int] = {}
            for first in range(0, len(session_ids), _IDS):
                chunk = session_ids[first : first + _IDS]
                marks = ", ".join("?" * len(chunk))
                sql = f"SELECT session_id, evidence_ms FROM conversations WHERE session_id IN ({marks})"
                found.update(connection.execute(sql, chunk).fetchall())
            return found

        return self._db.read(work) if len(session_ids) <= _SHORT else await self._db.scan(work)

    def _number(self, sql: str, session_id: str) -> int:
        row = self._db.read(lambda connection: connection.execute(sql, (session_id,)).fetchone())
        return 0 if row is None else int(row[0])


class _Row:
    """A conversation with the two numbers that only the store needs."""

    __slots__ = ("conversation", "from_user", "last_at_ms")

    def __init__(self, values: tuple[Any, ...]) -> None:
        session_id, user_id, lawyer_id, last_seq, opened_at_ms, closed_at_ms, evidence_ms = values[:7]
        user_delivered, user_seen, lawyer_delivered, lawyer_seen, self.from_user, self.last_at_ms = values[
            7:13
        ]
        self.conversation = Conversation(
            session_id,
            user_id,
            lawyer_id,
            last_seq,
            opened_at_ms,
            closed_at_ms,
            evidence_ms,
            {
                user_id: Watermarks(user_delivered, user_seen),
                lawyer_id: Watermarks(lawyer_delivered, lawyer_seen),
            },
            values[13],
        )


def _row(connection: sqlite3.Connection, session_id: str) -> _Row | None:
    values = connection.execute(_CONVERSATION, (session_id,)).fetchone()
    return None if values is None else _Row(values)


def _participant(connection: sqlite3.Connection, session_id: str, person_id: str) -> _Row:
    """The conversation, for one of its two people; for anybody else it is not there."""
    row = _row(connection, session_id)
    if row is None or not row.conversation.has(person_id):
        raise NotFound(session_id=session_id)
    return row


def _message(conversation: Conversation, values: tuple[Any, ...]) -> Message:
    seq, by_user, client_msg_id, body, created_at_ms = values
    sender_id = conversation.user_id if by_user else conversation.lawyer_id
    erased_at_ms = conversation.erased_at_ms
    if erased_at_ms is not None:
        body = ""  # whether or not it is overwritten yet
    return Message(conversation.session_id, seq, sender_id, client_msg_id, body, created_at_ms, erased_at_ms)


def _add_erasure(connection: sqlite3.Connection) -> None:
    found = {row[1] for row in connection.execute("PRAGMA table_info(conversations)").fetchall()}
    for name, kind in _ERASURE.items():
        if name not in found:
            connection.execute(f"ALTER TABLE conversations ADD COLUMN {name} {kind}")


_WIPING: Final = "SELECT session_id, wiped_seq, last_seq FROM conversations WHERE wiping = 1 LIMIT 1"
_CLOSED: Final = (
    "SELECT session_id FROM conversations"
    " WHERE closed_at_ms IS NOT NULL AND erased_at_ms IS NULL AND closed_at_ms < ? ORDER BY closed_at_ms LIMIT 1"
)


def _has_erasable(connection: sqlite3.Connection, closed_before_ms: int) -> bool:
    return (
        connection.execute(_WIPING).fetchone() is not None
        or connection.execute(_CLOSED, (closed_before_ms,)).fetchone() is not None
    )


def _erase(connection: sqlite3.Connection, closed_before_ms: int, at_ms: int, limit: int) -> int:
    done = 0
    while done < limit:
        if (begun := connection.execute(_WIPING).fetchone()) is not None:
            session_id, wiped_seq, last_seq = begun
            upto = min(last_seq, wiped_seq + limit - done)
            connection.execute(
                "UPDATE messages SET body = '' WHERE session_id = ? AND seq > ? AND seq <= ?",
                (session_id, wiped_seq, upto),
            )
            connection.execute(
                "UPDATE conversations SET wiped_seq = ?, wiping = ? WHERE session_id = ?",
                (upto, upto < last_seq, session_id),
            )
            done += upto - wiped_seq
        elif (found := connection.execute(_CLOSED, (closed_before_ms,)).fetchone()) is not None:
            # The one write by which it is erased for everybody who reads.
            connection.execute(
                "UPDATE conversations SET erased_at_ms = ?, wiping = 1 WHERE session_id = ?",
                (at_ms, found[0]),
            )
            done += 1
        else:
            break
    return done


def _from_peer(connection: sqlite3.Connection, session_id: str, seq: int, by_user: int) -> int:
    """How many of the messages 1..seq the other one of the two wrote."""
    row = connection.execute(
        "SELECT from_user FROM messages WHERE session_id = ? AND seq = ?", (session_id, seq)
    ).fetchone()
    if row is None:
        return 0  # seq is 0: there are no messages before the first
    from_user = int(row[0])
    return seq - from_user if by_user else from_user


def _span(last_seq: int, after_seq: int | None, before_seq: int | None, limit: int) -> tuple[int, int]:
    """First and last position of a page; the last is below the first when it is empty."""
    if after_seq is not None:
        return after_seq + 1, min(after_seq + limit, last_seq)
    end = last_seq if before_seq is None else min(before_seq - 1, last_seq)
    return max(1, end - limit + 1), end


def _page(
    connection: sqlite3.Connection,
    conversation: Conversation,
    first: int,
    last: int,
    *,
    backwards: bool,
) -> Page:
    if last < first:
        return Page(conversation, (), {}, has_more=False)
    rows = connection.execute(
        f"{_MESSAGE} WHERE session_id = ? AND seq BETWEEN ? AND ? ORDER BY seq",
        (conversation.session_id, first, last),
    ).fetchall()

    def receipts(by_user: int, seen: int) -> tuple[Receipt, ...]:
        # Each of n messages is first covered by one receipt, so n of them from the first on are enough.
        found = connection.execute(
            "SELECT upto_seq, at_ms FROM receipts "
            "WHERE session_id = ? AND by_user = ? AND seen = ? AND upto_seq >= ? ORDER BY upto_seq LIMIT ?",
            (conversation.session_id, by_user, seen, first, last - first + 1),
        )
        return tuple(Receipt(*row) for row in found.fetchall())

    by_person = {
        conversation.user_id: Receipts(receipts(1, 0), receipts(1, 1)),
        conversation.lawyer_id: Receipts(receipts(0, 0), receipts(0, 1)),
    }
    has_more = first > 1 if backwards else last < conversation.last_seq
    return Page(conversation, tuple(_message(conversation, row) for row in rows), by_person, has_more)
