"""Writes on conversations: for each that has something to do, one after another, as many at once as there are waiting."""

import asyncio
import itertools
import random
import secrets
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pymongo.errors import BulkWriteError, DuplicateKeyError

from chat.errors import ChatError
from server.storage.errors import StoreBusy, StoreUnavailable
from server.storage.mongo.client import MongoDatabase
from server.storage.mongo.conversation import (
    MESSAGE,
    Append,
    Change,
    Operation,
    Row,
    State,
    counts_asked,
    fields_of,
    rows_asked,
    state_of,
    wants_copy,
)
from server.storage.mongo.failures import is_duplicate, store_failures
from server.storage.mongo.integers import int64

CONVERSATIONS: Final = "conversations"
ROWS: Final = "chat_rows"

#: One write's share: what it adds lies in the document for a while, and a document has 16 MiB.
_BATCH_OPERATIONS: Final = 256
_BATCH_CHARS: Final = 512 * 1024
#: All that may wait in this process. Above it nothing more is taken.
_WAITING: Final = 20_000
#: How many of a call's time limits a write may take, with its repeats.
_BUDGET: Final = 3
#: The first pause after another process was faster; it grows, and each draws its own, so that two do not meet again.
_PAUSE_S: Final = 0.002
_LONGEST_PAUSE_S: Final = 0.1

Answer = asyncio.Future[Any]


class ConversationLanes:
    """Takes operations in the order of `submit`, and makes one conditional write of all that wait for one conversation.

    A write that returned is held by a majority. What a process commits and does not live to copy out is in the document's tail.
    Of a conversation with nothing to do, nothing is remembered.
    """

    def __init__(self, db: MongoDatabase) -> None:
        self._conversations = db.collection(CONVERSATIONS)
        self._rows = db.collection(ROWS)
        self._budget_s = _BUDGET * db.timeout_ms / 1_000
        self._process = secrets.token_hex(6)
        self._versions = itertools.count()
        self._lanes: dict[str, deque[tuple[Operation, Answer]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = 0

    async def submit(self, session_id: str, operation: Operation) -> Any:
        """The operation's answer. Queued before this first waits. A cancelled caller's operation happens all the same.

        Raises:
            StoreBusy: too many are waiting; nothing was done.
            StoreUnavailable: it may have happened or not.
            ChatError: the operation's own.
        """
        if self._waiting >= _WAITING:
            raise StoreBusy
        answer: Answer = asyncio.get_running_loop().create_future()
        self._waiting += 1
        lane = self._lanes.get(session_id)
        if lane is None:
            lane = self._lanes[session_id] = deque()
            task = asyncio.create_task(self._work(session_id, lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        lane.append((operation, answer))
        return await answer

    async def _work(self, session_id: str, lane: deque[tuple[Operation, Answer]]) -> None:
        last: State | None = None
        try:
            while lane:
                batch = _share(lane)
                self._waiting -= len(batch)
                try:
                    last = await self._answer(session_id, batch, last)
                except StoreUnavailable as exc:
                    last = None
                    self._refuse_what_waits(lane, exc)
                # Those who have their answer may go on at once: with the next write in this lane a reading is saved.
                await asyncio.sleep(0)
        finally:
            # Only a loop that is being closed leaves something here.
            self._waiting -= len(lane)
            del self._lanes[session_id]

    async def _answer(
        self, session_id: str, batch: Sequence[tuple[Operation, Answer]], last: State | None
    ) -> State | None:
        """Do the batch and tell its callers. The state that it left behind, None where that is not known. Raises `StoreUnavailable`
        when they were told so.
        """
        try:
            outcomes, state = await _Write(self, session_id, [operation for operation, _ in batch]).run(last)
        except Exception as exc:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(_own(exc))
            if isinstance(exc, StoreUnavailable):
                raise
            return None
        for (_, answer), outcome in zip(batch, outcomes, strict=True):
            if answer.done():
                continue  # its caller was cancelled
            if isinstance(outcome, ChatError):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)
        return state

    def _refuse_what_waits(self, lane: deque[tuple[Operation, Answer]], exc: StoreUnavailable) -> None:
        """Messages that waited behind a write that failed fail with it, untried: stored, they would stand before those that their
        senders now send again. All else has no place among messages, and is tried.
        """
        waiting = list(lane)
        lane.clear()
        for operation, answer in waiting:
            if not isinstance(operation, Append):
                lane.append((operation, answer))
                continue
            self._waiting -= 1
            if not answer.done():
                answer.set_exception(_own(exc))

    def new_version(self) -> str:
        """One that no write of any process has used: a counter alone would repeat after a restart."""
        return f"{self._process}-{next(self._versions)}"

    def new_deadline_s(self) -> float:
        return asyncio.get_running_loop().time() + self._budget_s

    async def read(self, session_id: str) -> State | None:
        with store_failures:
            doc = await self._conversations.find_one({"_id": session_id})
        return None if doc is None else state_of(doc)

    async def stored(self, ids: Sequence[str]) -> dict[str, Row]:
        if not ids:
            return {}
        with store_failures:
            rows = await self._rows.find({"_id": {"$in": list(ids)}}).to_list(None)
        return {row["_id"]: row for row in rows}

    async def counts(self, session_id: str, positions: Sequence[int]) -> dict[int, int]:
        """`from_user` at these positions."""
        if not positions:
            return {}
        asked = {"session_id": session_id, "kind": MESSAGE, "seq": {"$in": int64(list(positions))}}
        with store_failures:
            rows = await self._rows.find(asked, {"seq": 1, "from_user": 1}).to_list(None)
        return {row["seq"]: row["from_user"] for row in rows}

    async def copy_out(self, tail: Sequence[Row]) -> None:
        """Returns when a majority holds the rows, whoever put them there. An existing one stays as it is: it may be erased by now."""
        if not tail:
            return
        with store_failures:
            try:
                await self._rows.insert_many(int64(list(tail)), ordered=False)
            except BulkWriteError as exc:
                if not is_duplicate(exc):
                    raise

    async def store(self, before: State | None, after: State) -> bool:
        """The one conditional write: whether the conversation was as it was before, and is as it is to be."""
        fields = int64(fields_of(after))
        with store_failures:
            if before is None:
                try:
                    await self._conversations.insert_one({**_identity(after), **fields})
                except DuplicateKeyError:
                    return False
                return True
            if after.wiping and not before.wiping:
                fields["wiping"] = True
            result = await self._conversations.update_one(
                {"_id": before.session_id, "version": before.version}, {"$set": fields}
            )
        return bool(result.matched_count)


class _Write:
    """One batch of one conversation, until it is decided.

    Order of reads, always: the document with its version, then the rows, then the write on that version. A row that is in neither
    was not stored when the write happens, because no row leaves the tail before it lies in the collection.
    """

    def __init__(self, lanes: ConversationLanes, session_id: str, operations: Sequence[Operation]) -> None:
        self._lanes = lanes
        self._session_id = session_id
        self._operations = operations
        self._deadline_s = lanes.new_deadline_s()
        self._tried: list[_Try] = []

    async def run(self, known: State | None) -> tuple[list[Any], State | None]:
        """The answers and the state after them.

        `known`, the state after this process's last write, saves a read. Should another process have written since, the conditional
        write finds out; and what is answered without a write is never answered from it.
        """
        pauses_s = _pauses_s()
        while True:
            fresh = known is None
            state = await self._lanes.read(self._session_id) if known is None else known
            known = None
            if self._tried and (answers := await self._landed(state)) is not None:
                return answers, None
            change, outcomes = await self._decide(state)
            if not change.changed:
                if fresh:
                    return outcomes, state
                continue
            after = change.result()
            try:
                if await self._lanes.store(state, after):
                    return outcomes, after
            except StoreUnavailable:
                self._tried.append(_Try(change, outcomes, is_lost=True))
            else:
                self._tried.append(_Try(change, outcomes, is_lost=False))
            if asyncio.get_running_loop().time() > self._deadline_s:
                raise StoreUnavailable
            await asyncio.sleep(next(pauses_s))

    async def _decide(self, state: State | None) -> tuple[Change, list[Any]]:
        stored: Mapping[str, Row] = {}
        counts: Mapping[int, int] = {}
        copied = state is not None and wants_copy(state, self._operations)
        if state is not None:
            stored, counts, _ = await asyncio.gather(
                self._lanes.stored(rows_asked(state, self._operations)),
                self._lanes.counts(self._session_id, counts_asked(state, self._operations)),
                self._lanes.copy_out(state.tail if copied else ()),
            )
        change = Change(
            self._session_id,
            state,
            version=self._lanes.new_version(),
            stored=stored,
            counts=counts,
            copied=copied,
        )
        return change, [_outcome(operation, change) for operation in self._operations]

    async def _landed(self, state: State | None) -> list[Any] | None:
        """The answers of the write that has happened although we were not told; None if none of them has, so far.

        One whose reply was lost may still happen until the version moves. We go on with another version on the same state: of the two,
        the store takes one, and the next reading tells which. One that was refused is looked at as well, as far as that costs
        nothing: a driver repeats a write by itself, and its server may have forgotten the first.
        """
        if state is None:
            return None
        in_tail = {row["_id"]: row for row in state.tail}
        for tried in self._tried:
            version, rows = tried.change.version, tried.change.rows
            if state.version == version:
                return tried.outcomes
            if rows:
                first = rows[0]["_id"]
                row = in_tail.get(first)
                if row is None and tried.is_lost:
                    row = (await self._lanes.stored([first])).get(first)
                if row is not None and row["commit"] == version:
                    return tried.outcomes
        return None


@dataclass(frozen=True, slots=True)
class _Try:
    """A write that was not confirmed: what it was to store, and what its callers would have heard."""

    change: Change
    outcomes: list[Any]
    is_lost: bool


def _outcome(operation: Operation, change: Change) -> Any:
    try:
        return operation.apply(change)
    except ChatError as exc:
        return exc


def _share(lane: deque[tuple[Operation, Answer]]) -> list[tuple[Operation, Answer]]:
    batch: list[tuple[Operation, Answer]] = []
    chars = 0
    while lane and len(batch) < _BATCH_OPERATIONS and chars < _BATCH_CHARS:
        operation, answer = lane.popleft()
        if isinstance(operation, Append):
            chars += len(operation.body)
        batch.append((operation, answer))
    return batch


def _identity(state: State) -> dict[str, Any]:
    """What never changes, and where the erasure begins."""
    fields: dict[str, Any] = int64(
        {
            "_id": state.session_id,
            "user_id": state.user_id,
            "lawyer_id": state.lawyer_id,
            "opened_at_ms": state.opened_at_ms,
            "wiping": state.wiping,
            "wiped_seq": 0,
        }
    )
    return fields


def _own(exc: Exception) -> BaseException:
    """An exception for one of several callers: raised in each, one object would collect the traces of all."""
    if isinstance(exc, StoreUnavailable):
        mine = StoreUnavailable(**exc.facts)
        mine.__cause__ = exc
        return mine
    return exc


def _pauses_s() -> Iterator[float]:
    longest_s = _PAUSE_S
    while True:
        yield random.uniform(0, longest_s)  # noqa: S311  nobody gains by guessing it
        longest_s = min(2 * longest_s, _LONGEST_PAUSE_S)
