"""The chat's message store on MongoDB; the rules are `chat.ports.MessageStore`'s.

Two collections: `conversations`, one document each with its write-ahead tail, and `chat_rows`, messages and receipts, one document
each, never deleted. How a write goes is in `conversation_lanes`, what it does in `conversation`. Whoever reads takes the document
first and adds its tail to the rows that were committed by then.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from chat.model import Advance, Conversation, Message, Overview, Page, Receipt, Receipts
from server.storage.errors import StoreUnavailable
from server.storage.mongo.client import MongoDatabase
from server.storage.mongo.conversation import (
    DELIVERED,
    MESSAGE,
    RECEIPTS,
    SEEN,
    SIDES,
    Append,
    Close,
    Erase,
    Open,
    Raise,
    Redo,
    Row,
    Side,
    State,
    message_id,
    state_of,
)
from server.storage.mongo.conversation_lanes import CONVERSATIONS, ROWS, ConversationLanes
from server.storage.mongo.failures import store_failures
from server.storage.mongo.integers import int64

#: By collection. `docs/mongodb.md` lists them, and a test compares.
INDEXES: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    CONVERSATIONS: (
        # Conversations with a tail, the longest untouched first: `redo_pending`.
        ("tail_at_ms",),
        # What can be erased, the longest closed first, and what is being erased.
        ("erased_at_ms", "closed_at_ms"),
        ("wiping",),
    ),
    # Pages: the messages, and each of the four lists of receipts, by position.
    ROWS: (("session_id", "kind", "seq"),),
}
#: A conversation with a tail that was not written to for so long is silent, or its process has died. Those that are being written
#: copy their tails themselves, and redoing them would only move their versions.
_SILENT_MS: Final = 60_000
_AT_ONCE: Final = 16
_CHUNK: Final = 500
#: Ids in one query.
_IDS: Final = 1_000
#: An erasure that happens between the two reads of a page or a list makes us read again; it happens once to a conversation.
_READINGS: Final = 3


async def open_message_store(db: MongoDatabase) -> "MongoMessageStore":
    """Make the indexes that are missing. Raises `StoreUnavailable`."""
    for name, indexes in INDEXES.items():
        await db.make_indexes(name, indexes)
    return MongoMessageStore(db)


class MongoMessageStore:
    """`MessageStore` on a database that any number of processes share."""

    def __init__(self, db: MongoDatabase) -> None:
        self._db = db
        self._lanes = ConversationLanes(db)
        self._conversations = db.collection(CONVERSATIONS)
        self._rows = db.collection(ROWS)

    async def open_conversation(self, session_id: str, *, user_id: str, lawyer_id: str, at_ms: int) -> None:
        await self._lanes.submit(session_id, Open(user_id, lawyer_id, at_ms))

    async def close_conversation(self, session_id: str, *, at_ms: int) -> None:
        await self._lanes.submit(session_id, Close(at_ms))

    async def append(
        self, *, session_id: str, sender_id: str, client_msg_id: str, body: str, at_ms: int
    ) -> tuple[Message, bool]:
        for text in (client_msg_id, body):
            text.encode()  # an unpaired surrogate is its sender's mistake; in the batch it would be everybody's
        answer: tuple[Message, bool] = await self._lanes.submit(
            session_id, Append(sender_id, client_msg_id, body, at_ms)
        )
        return answer

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
        answer: Advance = await self._lanes.submit(
            session_id, Raise(reader_id, delivered_seq, seen_seq, at_ms, in_service)
        )
        return answer

    async def redo_pending(self, limit: int, *, silent_ms: int = _SILENT_MS) -> int:
        """Copy out the tails of up to `limit` conversations that nobody has written to for `silent_ms`; how many it did.

        Nothing waits for it: readers see the tails, and a later write copies them. Raises `StoreUnavailable`.
        """
        before_ms = await self._db.now_ms() - silent_ms
        asked = {"tail_at_ms": {"$gte": int64(0), "$lte": int64(before_ms)}}
        with store_failures:
            cursor = self._conversations.find(asked, {"_id": 1}, sort=[("tail_at_ms", 1)], limit=limit)
            found = await cursor.to_list(None)
        for first in range(0, len(found), _AT_ONCE):
            await asyncio.gather(
                *(self._lanes.submit(doc["_id"], Redo()) for doc in found[first : first + _AT_ONCE])
            )
        return len(found)

    async def erase_closed(self, *, closed_before_ms: int, at_ms: int, limit: int) -> int:
        done = 0
        while done < limit:
            if (begun := await self._first({"wiping": True}, "_id")) is not None:
                done += await self._wipe(begun, limit - done)
            elif (found := await self._first(_closed_before(closed_before_ms), "closed_at_ms")) is not None:
                done += await self._lanes.submit(found["_id"], Erase(at_ms))
            else:
                break
        return done

    async def _first(self, asked: Mapping[str, Any], by: str) -> dict[str, Any] | None:
        with store_failures:
            found: dict[str, Any] | None = await self._conversations.find_one(
                asked, {"wiped_seq": 1, "last_seq": 1}, sort=[(by, 1)]
            )
        return found

    async def _wipe(self, begun: Mapping[str, Any], limit: int) -> int:
        """Overwrite the next bodies of an erased conversation. All its messages are rows: the write that erased it copied them out."""
        upto_seq = min(begun["last_seq"], begun["wiped_seq"] + limit)
        span = {"$gt": int64(begun["wiped_seq"]), "$lte": int64(upto_seq)}
        with store_failures:
            await self._rows.update_many(
                {"session_id": begun["_id"], "kind": MESSAGE, "seq": span},
                {"$set": {"body": "", "wiped": True}},
            )
            # Only from where we began: another process may be doing the same, and be further.
            await self._conversations.update_one(
                {"_id": begun["_id"], "wiping": True, "wiped_seq": int64(begun["wiped_seq"])},
                {"$set": {"wiped_seq": int64(upto_seq), "wiping": upto_seq < begun["last_seq"]}},
            )
        return int(upto_seq - begun["wiped_seq"])

    async def conversation(self, session_id: str) -> Conversation | None:
        with store_failures:
            doc = await self._conversations.find_one({"_id": session_id}, {"tail": 0})
        return None if doc is None else state_of(doc).conversation()

    async def page(
        self, session_id: str, *, after_seq: int | None = None, before_seq: int | None = None, limit: int
    ) -> Page | None:
        for _ in range(_READINGS):
            state = await self._lanes.read(session_id)
            if state is None:
                return None
            first, last = _span(state.last_seq, after_seq, before_seq, limit)
            if last < first:
                return Page(state.conversation(), (), {}, has_more=False)
            messages, receipts = await asyncio.gather(
                self._messages(state, first, last), self._receipts(state, first, last)
            )
            if _is_of_one_time(state, messages):
                has_more = first > 1 if after_seq is None else last < state.last_seq
                return Page(
                    state.conversation(),
                    tuple(state.message(row) for row in messages),
                    {
                        state.user_id: Receipts(receipts["u", DELIVERED], receipts["u", SEEN]),
                        state.lawyer_id: Receipts(receipts["l", DELIVERED], receipts["l", SEEN]),
                    },
                    has_more,
                )
        raise StoreUnavailable(session_id=session_id)

    async def _messages(self, state: State, first: int, last: int) -> list[Row]:
        """The messages at these positions, each of them. Raises `StoreUnavailable` if one is missing."""
        tail = {
            row["seq"]: row for row in state.tail if row["kind"] == MESSAGE and first <= row["seq"] <= last
        }
        # The tail holds the newest ones, without a gap.
        stored_to = min(tail) - 1 if tail else last
        rows: list[Row] = []
        if first <= stored_to:
            span = {"$gte": int64(first), "$lte": int64(stored_to)}
            asked = {"session_id": state.session_id, "kind": MESSAGE, "seq": span}
            with store_failures:
                rows = await self._rows.find(asked, sort=[("seq", 1)]).to_list(None)
        rows += [tail[seq] for seq in sorted(tail)]
        if [row["seq"] for row in rows] != list(range(first, last + 1)):
            # Better no page than one with a hole in it.
            raise StoreUnavailable(session_id=state.session_id, missing_between=[first, last])
        return rows

    async def _receipts(
        self, state: State, first: int, last: int
    ) -> dict[tuple[Side, str], tuple[Receipt, ...]]:
        """By side and kind: those that cover the positions first, that is up to the first one at `last` or behind it."""
        marks = {
            (side, what): mark
            for side in SIDES
            for what, mark in ((DELIVERED, state.marks[side].delivered), (SEEN, state.marks[side].seen))
        }
        within: list[Row] = []
        if any(mark >= first for mark in marks.values()):
            span = {"$gte": int64(first), "$lte": int64(last)}
            asked = {"session_id": state.session_id, "kind": {"$in": list(RECEIPTS)}, "seq": span}
            with store_failures:
                within = await self._rows.find(asked).to_list(None)
        within += [row for row in state.tail if row["kind"] != MESSAGE and row["seq"] >= first]
        within += await asyncio.gather(
            *(
                self._first_behind(state, side + what, last)
                for (side, what), mark in marks.items()
                if mark > last
            )
        )
        found: dict[tuple[Side, str], tuple[Receipt, ...]] = {}
        for (side, what), mark in marks.items():
            instants = {
                row["seq"]: row["at_ms"]
                for row in within
                # One above the mark came after the document was read.
                if row["kind"] == side + what and row["seq"] <= mark
            }
            seqs = sorted(instants)
            covering = [seq for k, seq in enumerate(seqs) if k == 0 or seqs[k - 1] < last]
            found[side, what] = tuple(Receipt(seq, instants[seq]) for seq in covering)
        return found

    async def _first_behind(self, state: State, kind: str, last: int) -> Row:
        """The receipt that covers what lies right behind the page; there is one, the mark says."""
        asked = {"session_id": state.session_id, "kind": kind, "seq": {"$gt": int64(last)}}
        with store_failures:
            row: Row | None = await self._rows.find_one(asked, sort=[("seq", 1)])
        if row is not None:
            return row
        return next(row for row in state.tail if row["kind"] == kind and row["seq"] > last)

    async def stored(
        self, session_id: str, *, sender_id: str, client_msg_ids: Sequence[str]
    ) -> dict[str, Message]:
        for _ in range(_READINGS):
            state = await self._lanes.read(session_id)
            if state is None or sender_id not in (state.user_id, state.lawyer_id):
                return {}
            side = state.side_of(sender_id)
            ids = {message_id(session_id, side, id_): id_ for id_ in client_msg_ids}
            rows = {row["_id"]: row for row in state.tail}
            rows |= await self._lanes.stored([id_ for id_ in ids if id_ not in rows])
            found = [rows[id_] for id_ in ids if id_ in rows]
            if _is_of_one_time(state, found):
                return {row["client_msg_id"]: state.message(row) for row in found}
        raise StoreUnavailable(session_id=session_id)

    async def overview(self, session_ids: Sequence[str], *, viewer_id: str) -> dict[str, Overview]:
        found: dict[str, Overview] = {}
        left = list(session_ids)
        for _ in range(_READINGS):
            again: list[str] = []
            for first in range(0, len(left), _CHUNK):
                again += await self._overview(left[first : first + _CHUNK], viewer_id, found)
            if not again:
                return found
            left = again
        raise StoreUnavailable(sessions=left)

    async def _overview(
        self, session_ids: Sequence[str], viewer_id: str, found: dict[str, Overview]
    ) -> list[str]:
        """Add what is found; the sessions to be read again, because their erasure came in between."""
        with store_failures:
            docs = await self._conversations.find({"_id": {"$in": list(session_ids)}}).to_list(None)
        states = [state for state in map(state_of, docs) if viewer_id in (state.user_id, state.lawyer_id)]
        tails = {row["_id"]: row for state in states for row in state.tail}
        newest = [state.last_id for state in states if state.last_id is not None]
        rows = tails | await self._lanes.stored([id_ for id_ in newest if id_ not in tails])
        again = []
        for state in states:
            message = None
            if state.last_id is not None:
                row = rows.get(state.last_id)
                if row is None:
                    raise StoreUnavailable(session_id=state.session_id, missing=state.last_seq)
                if not _is_of_one_time(state, [row]):
                    again.append(state.session_id)
                    continue
                message = state.message(row)
            found[state.session_id] = Overview(message, state.unread_by(state.side_of(viewer_id)))
        return again

    async def last_seq(self, session_id: str) -> int:
        return await self._number(session_id, "last_seq")

    async def last_activities_ms(self, session_ids: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for first in range(0, len(session_ids), _IDS):
            chunk = list(session_ids[first : first + _IDS])
            with store_failures:
                docs = self._conversations.find({"_id": {"$in": chunk}}, {"evidence_ms": 1})
                found.update({doc["_id"]: int(doc["evidence_ms"]) for doc in await docs.to_list(None)})
        return found

    async def _number(self, session_id: str, name: str) -> int:
        with store_failures:
            doc = await self._conversations.find_one({"_id": session_id}, {name: 1})
        return 0 if doc is None else int(doc[name])


def _closed_before(instant_ms: int) -> dict[str, Any]:
    return {"erased_at_ms": None, "closed_at_ms": {"$gte": int64(0), "$lt": int64(instant_ms)}}


def _is_of_one_time(state: State, rows: Sequence[Row]) -> bool:
    """Whether none of the rows was erased after the document was read: an empty body would stand there as if it had been sent."""
    return state.erased_at_ms is not None or not any(row.get("wiped") for row in rows)


def _span(last_seq: int, after_seq: int | None, before_seq: int | None, limit: int) -> tuple[int, int]:
    """First and last position of a page; the last is below the first when it is empty."""
    if after_seq is not None:
        return after_seq + 1, min(after_seq + limit, last_seq)
    end = last_seq if before_seq is None else min(before_seq - 1, last_seq)
    return max(1, end - limit + 1), end
