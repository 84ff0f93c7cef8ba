"""The message store on MongoDB: the contract through either driver, and what only several processes on one database can get wrong."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from chat.errors import NotFound, SessionNotActive
from chat.model import EVERYTHING, Advance, Watermarks
from server.storage.errors import StoreBusy, StoreUnavailable
from server.storage.mongo import conversation, conversation_lanes
from server.storage.mongo.client import MongoDatabase, MongoOptions, open_mongo
from server.storage.mongo.conversation import State, row_id
from server.storage.mongo.conversation_lanes import CONVERSATIONS, ROWS, ConversationLanes
from server.storage.mongo.messages import MongoMessageStore, open_message_store
from tests.contract.message_store_contract import (
    LAWYER,
    SESSION,
    USER,
    MessageStoreContract,
    advance,
    bodies,
    erased,
    opened,
    page,
    send,
)
from tests.support.mongo_server import PATIENT_MS
from tests.support.server_process import ROOT

Store = Callable[[ConversationLanes, State | None, State], Awaitable[bool]]


@pytest.fixture
async def db(mongo_options: MongoOptions) -> AsyncIterator[MongoDatabase]:
    async with open_mongo(mongo_options) as database:
        yield database


class TestMongoMessages(MessageStoreContract):
    @pytest.fixture
    async def store(
        self, db: MongoDatabase, mongo_options: MongoOptions, monkeypatch: pytest.MonkeyPatch
    ) -> MongoMessageStore:
        if mongo_options.driver == "motor":
            # Short conversations live in their tails; here every write copies them out instead.
            monkeypatch.setattr(conversation, "_TAIL_ROWS", 1)
        return await open_message_store(db)


@pytest.fixture
async def stores(mongo_url: str) -> AsyncIterator[list[MongoMessageStore]]:
    """As many processes have them: each with a connection of its own."""
    async with AsyncExitStack() as stack:
        yield [
            await open_message_store(
                await stack.enter_async_context(open_mongo(MongoOptions(mongo_url, timeout_ms=PATIENT_MS)))
            )
            for _ in range(3)
        ]


async def documents(store: MongoMessageStore, collection: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await store._db.collection(collection).find({}).to_list(None)
    return found


async def tail_of(store: MongoMessageStore) -> list[str]:
    (doc,) = await documents(store, CONVERSATIONS)
    return [row.get("client_msg_id", row["kind"]) for row in doc["tail"]]


# --- several processes ---


async def test_processes_that_write_at_once_leave_no_gap_and_each_keeps_its_order(
    stores: list[MongoMessageStore],
) -> None:
    await opened(stores[0])

    async def writer(n: int) -> list[int]:
        answers = await asyncio.gather(
            *(send(stores[n], f"{n}-{k}", by=USER if n % 2 else LAWYER) for k in range(20))
        )
        for k in range(20, 30):
            answers.append(await send(stores[n], f"{n}-{k}", by=USER if n % 2 else LAWYER))
        assert not any(duplicate for _, duplicate in answers)
        return [message.seq for message, _ in answers]

    seqs = await asyncio.gather(*(writer(n) for n in range(3)))

    assert all(own == sorted(own) for own in seqs)
    assert sorted(seq for own in seqs for seq in own) == list(range(1, 91))
    messages = (await page(stores[0])).messages
    assert [message.seq for message in messages] == list(range(1, 91))
    assert len({message.client_msg_id for message in messages}) == 90


async def test_one_id_sent_to_several_processes_is_one_message(stores: list[MongoMessageStore]) -> None:
    """A client that reconnects to another process repeats what was not acknowledged."""
    await opened(stores[0])
    for k in range(15):
        answers = await asyncio.gather(*(send(store, f"m{k}") for store in stores))
        assert {message.seq for message, _ in answers} == {k + 1}
        assert sorted(duplicate for _, duplicate in answers) == [False, True, True]


async def test_nothing_is_stored_after_a_close_in_another_process_has_returned(
    stores: list[MongoMessageStore],
) -> None:
    """Billing has closed the account: a message after that would be a service that nobody pays."""
    for k in range(8):
        session = f"ses_{k}"
        await opened(stores[0], session)
        closed = asyncio.Event()
        late: list[int] = []

        async def closer(session: str = session, closed: asyncio.Event = closed) -> None:
            await stores[0].close_conversation(session, at_ms=5_000)
            closed.set()

        async def writer(
            n: int, session: str = session, closed: asyncio.Event = closed, late: list[int] = late
        ) -> int:
            for i in range(1_000):
                began_late = closed.is_set()
                try:
                    message, _ = await send(stores[n], f"{n}-{i}", session=session)
                except SessionNotActive:
                    return i
                if began_late:
                    late.append(message.seq)
            raise AssertionError("nobody closed it")

        stored = await asyncio.gather(writer(1), writer(2), closer())
        assert late == []
        assert await stores[0].last_seq(session) == sum(stored[:2])


async def test_receipts_of_several_processes_only_go_forward(stores: list[MongoMessageStore]) -> None:
    await opened(stores[0])
    for k in range(30):
        await send(stores[0], f"m{k}")
    moved = await asyncio.gather(
        *(advance(stores[k % 3], LAWYER, seen=k, at_ms=2_000 + k) for k in range(1, 31))
    )
    assert sum(answer.newly_seen for answer in moved) == 30
    whole = await page(stores[1])
    assert whole.conversation.marks_of(LAWYER) == Watermarks(30, 30)
    marks = [receipt.upto_seq for receipt in whole.receipts[LAWYER].seen]
    assert marks == sorted(set(marks))
    assert marks[-1] == 30


async def test_what_another_process_did_is_seen_at_once(stores: list[MongoMessageStore]) -> None:
    one, two, _ = stores
    with pytest.raises(NotFound):
        await send(two, "a")
    await opened(one)
    await send(two, "a")
    assert (await send(one, "a"))[1]
    await advance(two, LAWYER, seen=EVERYTHING)
    assert (await page(one)).conversation.marks_of(LAWYER) == Watermarks(1, 1)
    await one.close_conversation(SESSION, at_ms=5_000)
    with pytest.raises(SessionNotActive):
        await send(two, "b")


async def test_what_changes_nothing_is_not_answered_from_memory(
    stores: list[MongoMessageStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy process knows the conversation as its own last write left it; meanwhile another one has written."""
    one, two, _ = stores
    await opened(one)
    await send(one, "a")
    true: Store = ConversationLanes.store
    waiting: list[asyncio.Task[Advance]] = []

    async def busy(self: ConversationLanes, before: State | None, after: State) -> bool:
        monkeypatch.setattr(ConversationLanes, "store", true)
        stored = await true(self, before, after)
        waiting.append(asyncio.create_task(advance(one, LAWYER, seen=EVERYTHING)))
        await asyncio.sleep(0)
        await send(two, "b")
        return stored

    monkeypatch.setattr(ConversationLanes, "store", busy)
    assert (await advance(one, LAWYER, seen=EVERYTHING)).watermarks == Watermarks(1, 1)
    second = await waiting[0]
    assert (second.changed, second.watermarks) == (True, Watermarks(2, 2))


async def test_messages_behind_a_write_that_fails_fail_with_it_and_all_else_is_done(
    stores: list[MongoMessageStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that waited must not be stored before the one in front of it, which its sender sends again."""
    one, two, _ = stores
    await opened(one)
    await send(one, "a")
    true: Store = ConversationLanes.store
    behind: list[asyncio.Task[Any]] = []

    async def fails(self: ConversationLanes, before: State | None, after: State) -> bool:
        monkeypatch.setattr(ConversationLanes, "store", true)
        behind.append(asyncio.create_task(send(one, "c")))
        behind.append(asyncio.create_task(advance(one, LAWYER, seen=1)))
        behind.append(asyncio.create_task(send(one, "d")))
        await asyncio.sleep(0)
        raise StoreBusy

    monkeypatch.setattr(ConversationLanes, "store", fails)
    # Its time is over with the first failure.
    monkeypatch.setattr(ConversationLanes, "new_deadline_s", lambda _self: 0.0)
    first = asyncio.create_task(send(one, "b"))
    outcomes = await asyncio.gather(first, return_exceptions=True)
    outcomes += await asyncio.gather(*behind, return_exceptions=True)
    assert [isinstance(outcome, StoreUnavailable) for outcome in outcomes] == [True, True, False, True]
    for name in ("b", "c", "d"):
        await send(one, name)
    assert [message.client_msg_id for message in (await page(two)).messages] == ["a", "b", "c", "d"]
    assert (await page(two)).conversation.marks_of(LAWYER) == Watermarks(1, 1)


async def test_a_page_has_no_receipt_that_came_after_it(
    stores: list[MongoMessageStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen at an instant, and yet not seen."""
    one, two, _ = stores
    await opened(one)
    for k in range(3):
        await send(one, f"m{k}")
    await advance(one, LAWYER, seen=1)
    overtaken = overtaking(
        monkeypatch,
        lambda: together(advance(two, LAWYER, seen=3), two.redo_pending(10, silent_ms=0)),
    )
    whole = await page(one)
    assert next(overtaken, None) is None
    assert whole.conversation.marks_of(LAWYER) == Watermarks(1, 1)
    assert [receipt.upto_seq for receipt in whole.receipts[LAWYER].seen] == [1]
    assert [receipt.upto_seq for receipt in (await page(one)).receipts[LAWYER].seen] == [1, 3]


async def together(*calls: Awaitable[object]) -> None:
    for call in calls:
        await call


def overtaking(
    monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Awaitable[object]]
) -> Iterator[Callable[[], Awaitable[object]]]:
    """What happens right after the next reading of a conversation, before its rows are read."""
    true_read = ConversationLanes.read
    left = iter([happens])

    async def read(self: ConversationLanes, session_id: str) -> State | None:
        state = await true_read(self, session_id)
        for happening in left:
            await happening()
        return state

    monkeypatch.setattr(ConversationLanes, "read", read)
    return left


# --- the tail ---

CHILD = """
import asyncio, sys
from server.storage.mongo.client import MongoOptions, open_mongo
from server.storage.mongo.messages import open_message_store

async def main(url):
    async with open_mongo(MongoOptions(url, timeout_ms=20_000)) as db:
        store = await open_message_store(db)
        await store.open_conversation("ses_1", user_id="usr_1", lawyer_id="law_1", at_ms=1_000)
        for k in range(1_000_000):
            burst = [
                store.append(session_id="ses_1", sender_id="usr_1", client_msg_id=f"{k}-{i}", body="b", at_ms=1_000)
                for i in range(3)
            ]
            for message, _ in await asyncio.gather(*burst):
                print(message.seq, message.client_msg_id, flush=True)

asyncio.run(main(sys.argv[1]))
"""


async def test_what_a_killed_process_acknowledged_is_there_and_goes_on_without_a_gap(
    mongo_url: str, stores: list[MongoMessageStore]
) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CHILD, mongo_url),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    acknowledged = [await child.stdout.readline() for _ in range(31)]
    child.kill()
    acknowledged += (await child.stdout.read()).splitlines(keepends=True)
    await child.wait()
    whole = [line.decode() for line in acknowledged if line.endswith(b"\n")]
    assert len(whole) >= 31

    store = stores[0]
    assert await tail_of(store), "every write leaves its own rows there"
    for line in whole:
        seq, id_ = line.split()
        message, duplicate = await send(store, id_, body="b")
        assert (message.seq, duplicate) == (int(seq), True)
    last = await store.last_seq(SESSION)
    assert (await send(store, "next"))[0].seq == last + 1
    messages = (await page(store)).messages
    assert [message.seq for message in messages] == list(range(1, last + 2))


async def test_a_tail_is_copied_out_once_and_reads_stay_the_same(stores: list[MongoMessageStore]) -> None:
    store = stores[0]
    await opened(store)
    await asyncio.gather(*(send(store, f"m{k}", by=USER if k % 3 else LAWYER) for k in range(20)))
    await advance(store, LAWYER, seen=4)
    await asyncio.gather(advance(store, LAWYER, delivered=9), send(store, "last"))
    before = [await page(store), await store.overview([SESSION], viewer_id=LAWYER)]
    assert await tail_of(store) == ["ld", "ls", "ld", "last"]
    assert len(await documents(store, ROWS)) == 20

    assert await stores[1].redo_pending(10, silent_ms=0) == 1

    assert await tail_of(store) == []
    assert len(await documents(store, ROWS)) == 24
    assert [await page(store), await store.overview([SESSION], viewer_id=LAWYER)] == before
    assert await store.redo_pending(10, silent_ms=0) == 0


async def test_a_tail_does_not_grow_without_end(stores: list[MongoMessageStore]) -> None:
    """It is read and written with every message; and a document has its limit."""
    store = stores[0]
    await opened(store)
    for k in range(40):
        await send(store, f"m{k}")
        assert len(await tail_of(store)) <= 16
    for k in range(6):
        await send(store, f"long{k}", body="x" * 8_000)
        (doc,) = await documents(store, CONVERSATIONS)
        assert sum(len(row["body"]) for row in doc["tail"]) <= 16 * 1_024 + 8_000
    assert [message.seq for message in (await page(store)).messages] == list(range(1, 47))


async def test_only_silent_conversations_are_redone_the_longest_silent_first(
    stores: list[MongoMessageStore],
) -> None:
    """A conversation that is being written copies its tail itself; moving its version would only cost it a try."""
    store = stores[0]
    now_ms = await store._db.now_ms()
    for name, at_ms in (("old", 1_000), ("older", 500), ("new", now_ms)):
        await opened(store, name)
        await send(store, "a", session=name, at_ms=at_ms)

    async def with_tail() -> set[str]:
        return {doc["_id"] for doc in await documents(store, CONVERSATIONS) if doc["tail"]}

    assert await store.redo_pending(1) == 1
    assert await with_tail() == {"old", "new"}
    assert await store.redo_pending(10) == 1
    assert await with_tail() == {"new"}


async def test_nothing_is_remembered_of_a_conversation_that_is_silent(
    stores: list[MongoMessageStore],
) -> None:
    store = stores[0]
    for k in range(5):
        await opened(store, f"ses_{k}")
        await asyncio.gather(*(send(store, f"m{i}", session=f"ses_{k}") for i in range(5)))
    assert (store._lanes._lanes, store._lanes._waiting) == ({}, 0)


# --- replies that are lost ---


def losing(
    monkeypatch: pytest.MonkeyPatch, afterwards: Callable[[], Awaitable[object]] | None = None
) -> None:
    """The next conditional write happens, and its reply is lost."""
    true: Store = ConversationLanes.store

    async def lost(self: ConversationLanes, before: State | None, after: State) -> bool:
        monkeypatch.setattr(ConversationLanes, "store", true)
        assert await true(self, before, after)
        if afterwards is not None:
            await afterwards()
        raise StoreUnavailable

    monkeypatch.setattr(ConversationLanes, "store", lost)


async def test_a_write_whose_reply_was_lost_is_known_again(
    stores: list[MongoMessageStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told that it was a repeat, the chat would not tell the peer of it."""
    store = stores[0]
    losing(monkeypatch)
    await opened(store)
    losing(monkeypatch)
    message, duplicate = await send(store, "a")
    assert (message.seq, duplicate) == (1, False)
    losing(monkeypatch)
    moved = await advance(store, LAWYER, seen=1)
    assert (moved.changed, moved.newly_seen) == (True, 1)
    losing(monkeypatch)
    await store.close_conversation(SESSION, at_ms=5_000)
    assert (await page(store)).conversation.closed_at_ms == 5_000
    assert await store.last_seq(SESSION) == 1


@pytest.mark.parametrize("copied_out", [False, True])
async def test_it_is_known_again_also_when_another_process_has_written_since(
    stores: list[MongoMessageStore], monkeypatch: pytest.MonkeyPatch, copied_out: bool
) -> None:
    one, two, _ = stores
    await opened(one)

    async def others() -> None:
        assert (await send(two, "a"))[1]
        assert not (await send(two, "b"))[1]
        if copied_out:
            await two.redo_pending(10, silent_ms=0)

    losing(monkeypatch, others)
    first, receipt = await asyncio.gather(send(one, "a"), advance(one, LAWYER, seen=EVERYTHING))
    assert first == ((await page(one)).messages[0], False)
    assert (receipt.changed, receipt.watermarks) == (True, Watermarks(1, 1))
    assert [message.client_msg_id for message in (await page(one)).messages] == ["a", "b"]


async def test_a_write_that_the_driver_repeated_is_known_again(
    stores: list[MongoMessageStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that has forgotten the first one refuses the second: its version has moved."""
    store = stores[0]
    await opened(store)
    true: Store = ConversationLanes.store

    async def twice(self: ConversationLanes, before: State | None, after: State) -> bool:
        monkeypatch.setattr(ConversationLanes, "store", true)
        assert await true(self, before, after)
        return await true(self, before, after)

    monkeypatch.setattr(ConversationLanes, "store", twice)
    message, duplicate = await send(store, "a")
    assert (message.seq, duplicate) == (1, False)
    assert await store.last_seq(SESSION) == 1


async def test_a_write_that_was_lost_on_the_way_is_made_again(
    stores: list[MongoMessageStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores[0]
    await opened(store)
    true: Store = ConversationLanes.store
    held: list[tuple[State | None, State]] = []

    async def lost(self: ConversationLanes, before: State | None, after: State) -> bool:
        monkeypatch.setattr(ConversationLanes, "store", true)
        held.append((before, after))
        raise StoreUnavailable

    monkeypatch.setattr(ConversationLanes, "store", lost)
    message, duplicate = await send(store, "a")
    assert (message.seq, duplicate) == (1, False)
    # What was held up in the network arrives in the end: it must meet a version that has moved.
    ((before, after),) = held
    assert await store._lanes.store(before, after) is False
    assert [message.client_msg_id for message in (await page(store)).messages] == ["a"]


async def test_a_write_that_never_arrived_is_not_taken_for_the_one_of_another_process(
    stores: list[MongoMessageStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, _ = stores
    await opened(one)
    true: Store = ConversationLanes.store

    async def lost(self: ConversationLanes, before: State | None, after: State) -> bool:
        monkeypatch.setattr(ConversationLanes, "store", true)
        await send(two, "a", at_ms=1_700)
        raise StoreUnavailable

    monkeypatch.setattr(ConversationLanes, "store", lost)
    message, duplicate = await send(one, "a", at_ms=1_800)
    assert (message.created_at_ms, duplicate) == (1_700, True)


async def test_when_the_outcome_stays_unknown_the_caller_is_told_and_may_repeat(
    stores: list[MongoMessageStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, _ = stores
    await opened(one)
    losing(monkeypatch)
    true_read = ConversationLanes.read
    reads = iter([True])

    async def read(self: ConversationLanes, session_id: str) -> State | None:
        if next(reads, False):
            return await true_read(self, session_id)
        raise StoreUnavailable

    monkeypatch.setattr(ConversationLanes, "read", read)
    answers = await asyncio.gather(send(one, "a"), send(one, "b"), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 2
    assert answers[0] is not answers[1]
    monkeypatch.setattr(ConversationLanes, "read", true_read)
    assert [(message.seq, again) for message, again in (await send(two, "a"), await send(two, "b"))] == [
        (1, True),
        (2, True),
    ]


async def test_a_closed_store_is_unavailable_not_empty(mongo_options: MongoOptions) -> None:
    """No such session: that would make a client give up; "try again" is the truth."""
    async with open_mongo(mongo_options) as db:
        store = await open_message_store(db)
        await opened(store)
    for call in (send(store, "a"), store.conversation(SESSION), store.last_seq(SESSION), page(store)):
        with pytest.raises(StoreUnavailable):
            await call


async def test_text_that_cannot_be_stored_is_refused_and_its_neighbours_are_not(
    stores: list[MongoMessageStore],
) -> None:
    store = stores[0]
    await opened(store)
    answers = await asyncio.gather(
        send(store, "a"),
        send(store, "b", body="\ud800"),
        send(store, "\ud800"),
        send(store, "c"),
        return_exceptions=True,
    )
    assert [isinstance(answer, UnicodeEncodeError) for answer in answers] == [False, True, True, False]
    assert await store.last_seq(SESSION) == 2


async def test_a_full_queue_takes_nothing(
    stores: list[MongoMessageStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores[0]
    await opened(store)
    monkeypatch.setattr(conversation_lanes, "_WAITING", 10)
    answers = await asyncio.gather(*(send(store, f"m{k}") for k in range(15)), return_exceptions=True)
    assert [isinstance(answer, StoreBusy) for answer in answers] == [False] * 10 + [True] * 5
    assert await store.last_seq(SESSION) == 10
    assert (await send(store, "m12"))[1] is False


# --- erasure ---


async def test_a_page_that_is_overtaken_by_an_erasure_is_read_again(
    stores: list[MongoMessageStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it would be empty, as if somebody had sent nothing."""
    store = stores[0]
    await opened(store)
    for k in range(6):
        await send(store, f"m{k}")
    await store.close_conversation(SESSION, at_ms=2_000)
    await store.redo_pending(10, silent_ms=0)
    overtaking(monkeypatch, lambda: erased(stores[1]))
    whole = await page(store)
    assert {message.erased_at_ms for message in whole.messages} == {9_000}
    assert (await store.overview([SESSION], viewer_id=USER))[SESSION].last_message == whole.messages[-1]


async def test_no_body_is_left_anywhere_after_an_erasure(stores: list[MongoMessageStore]) -> None:
    store = stores[0]
    await opened(store)
    await asyncio.gather(*(send(store, f"m{k}", body="the secret") for k in range(5)))
    await store.close_conversation(SESSION, at_ms=2_000)
    # A process that has read the tail and is held up before it copies it out.
    (doc,) = await documents(store, CONVERSATIONS)
    sleeper = doc["tail"]
    assert len(sleeper) == 5
    await erased(stores[1])
    await store._lanes.copy_out(sleeper)
    assert await bodies(store, SESSION) == [""] * 5
    assert "the secret" not in str(await documents(store, CONVERSATIONS) + await documents(store, ROWS))


async def test_two_jobs_that_erase_at_once_do_no_harm(stores: list[MongoMessageStore]) -> None:
    for k in range(3):
        await opened(stores[0], f"ses_{k}")
        await asyncio.gather(*(send(stores[0], f"m{i}", session=f"ses_{k}") for i in range(7)))
        await stores[0].close_conversation(f"ses_{k}", at_ms=2_000)

    async def job(store: MongoMessageStore, at_ms: int) -> None:
        while await store.erase_closed(closed_before_ms=3_000, at_ms=at_ms, limit=3):
            pass

    await asyncio.gather(*(job(store, 9_000 + k) for k, store in enumerate(stores)))
    assert await bodies(stores[0], "ses_0", "ses_1", "ses_2") == [""] * 21
    assert {doc["wiping"] for doc in await documents(stores[0], CONVERSATIONS)} == {False}
    assert {row["body"] for row in await documents(stores[0], ROWS)} == {""}


async def test_a_job_that_was_held_up_does_not_begin_an_erasure_again(
    stores: list[MongoMessageStore],
) -> None:
    store = stores[0]
    await opened(store)
    await asyncio.gather(*(send(store, f"m{k}") for k in range(5)))
    await store.close_conversation(SESSION, at_ms=2_000)
    assert await store.erase_closed(closed_before_ms=3_000, at_ms=9_000, limit=2) == 2
    begun = await store._first({"wiping": True}, "_id")
    assert begun is not None
    await erased(stores[1])
    assert await store._wipe(begun, 2) == 2
    (doc,) = await documents(store, CONVERSATIONS)
    assert (doc["wiping"], doc["wiped_seq"]) == (False, 5)


def test_no_two_rows_share_an_id() -> None:
    ids = [
        row_id(session, "m", side, id_)
        for session in ("a", "a:m:u", "a:m:u:b", "1:a")
        for side in "ul"
        for id_ in ("b", "u:b", "b:m:u:b", "")
    ]
    assert len(set(ids)) == len(ids)
