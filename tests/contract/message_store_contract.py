"""What every `MessageStore` must do. An engine's test supplies the fixture `store`."""

import asyncio
import random
from dataclasses import replace

import pytest

from chat.errors import IdempotencyMismatch, NotFound, SessionNotActive
from chat.model import EVERYTHING, Advance, Delivery, Message, Page, Watermarks
from chat.ports import MessageStore

SESSION = "ses_1"
USER = "usr_1"
LAWYER = "law_1"


class MessageStoreContract:
    """Subclasses supply `store`, empty at the start of each test."""

    # --- conversations ---

    async def test_an_opened_conversation_is_empty_and_knows_its_two_people(
        self, store: MessageStore
    ) -> None:
        await opened(store)

        conversation = await store.conversation(SESSION)

        assert conversation is not None
        assert conversation.participants == (USER, LAWYER)
        assert (conversation.last_seq, conversation.opened_at_ms, conversation.closed_at_ms) == (
            0,
            1_000,
            None,
        )
        assert conversation.marks_of(USER) == conversation.marks_of(LAWYER) == Watermarks(0, 0)

    async def test_an_unknown_conversation_is_none_and_its_numbers_are_zero(
        self, store: MessageStore
    ) -> None:
        assert await store.conversation("ses_none") is None
        assert await store.page("ses_none", limit=10) is None
        assert await store.last_seq("ses_none") == 0
        assert await store.last_activities_ms(["ses_none"]) == {}
        assert await store.stored("ses_none", sender_id=USER, client_msg_ids=["a"]) == {}
        assert await store.overview(["ses_none"], viewer_id=USER) == {}

    async def test_opening_again_changes_nothing(self, store: MessageStore) -> None:
        """A start that is run again after a crash must not empty the chat."""
        await opened(store)
        await send(store, "a")
        await store.open_conversation(SESSION, user_id="usr_9", lawyer_id="law_9", at_ms=9_000)

        conversation = await store.conversation(SESSION)

        assert conversation is not None
        assert (conversation.participants, conversation.last_seq) == ((USER, LAWYER), 1)
        assert conversation.opened_at_ms == 1_000

    async def test_closing_is_for_good_and_the_first_instant_stays(self, store: MessageStore) -> None:
        await opened(store)
        await store.close_conversation(SESSION, at_ms=5_000)
        await store.close_conversation(SESSION, at_ms=6_000)
        await store.open_conversation(SESSION, user_id=USER, lawyer_id=LAWYER, at_ms=7_000)

        conversation = await store.conversation(SESSION)

        assert conversation is not None
        assert conversation.closed_at_ms == 5_000

    async def test_closing_what_is_not_there_is_harmless(self, store: MessageStore) -> None:
        await store.close_conversation("ses_none", at_ms=1)

        assert await store.conversation("ses_none") is None

    # --- messages ---

    async def test_messages_are_numbered_from_one_without_a_gap(self, store: MessageStore) -> None:
        await opened(store)

        seqs = [(await send(store, f"m{k}", by=USER if k % 3 else LAWYER))[0].seq for k in range(7)]

        assert seqs == [1, 2, 3, 4, 5, 6, 7]
        assert await store.last_seq(SESSION) == 7

    async def test_a_stored_message_comes_back_as_it_was_sent(self, store: MessageStore) -> None:
        await opened(store)
        body = "  नमस्ते 🙏 \n\t'quoted' \"double\" \\ \u200b end  "

        message, duplicate = await send(store, "id with spaces ~!", body=body, by=LAWYER, at_ms=2_500)

        assert not duplicate
        assert message == Message(SESSION, 1, LAWYER, "id with spaces ~!", body, 2_500)
        assert (await page(store)).messages == (message,)

    async def test_the_same_id_again_gets_the_first_message_and_stores_nothing(
        self, store: MessageStore
    ) -> None:
        await opened(store)
        first, _ = await send(store, "a", at_ms=2_000)
        await send(store, "b")

        again, duplicate = await send(store, "a", at_ms=9_000)

        assert duplicate
        assert again == first
        assert await store.last_seq(SESSION) == 2

    async def test_an_id_belongs_to_its_sender_and_session(self, store: MessageStore) -> None:
        """Clients count from 1: both people use the same ids."""
        await opened(store)
        await opened(store, "ses_2")
        await send(store, "1")

        assert not (await send(store, "1", by=LAWYER))[1]
        assert not (await send(store, "1", session="ses_2"))[1]

    async def test_an_id_is_compared_exactly(self, store: MessageStore) -> None:
        await opened(store)
        await send(store, "a")

        for other in ("A", "a ", " a"):
            assert not (await send(store, other))[1], other

    async def test_a_known_id_with_another_body_is_refused(self, store: MessageStore) -> None:
        """A client that counts its ids anew after a reinstall would lose messages silently."""
        await opened(store)
        await send(store, "a", body="one")

        with pytest.raises(IdempotencyMismatch):
            await send(store, "a", body="two")
        assert await store.last_seq(SESSION) == 1

    async def test_nothing_is_stored_after_the_close_but_a_repeat_finds_itself(
        self, store: MessageStore
    ) -> None:
        await opened(store)
        first, _ = await send(store, "a")
        await store.close_conversation(SESSION, at_ms=5_000)

        with pytest.raises(SessionNotActive):
            await send(store, "b")
        assert await send(store, "a") == (first, True)
        assert await store.last_seq(SESSION) == 1

    @pytest.mark.parametrize("stranger", ["usr_2", "", "law_1 ", "LAW_1"])
    async def test_a_stranger_finds_no_conversation(self, store: MessageStore, stranger: str) -> None:
        await opened(store)
        await send(store, "a")

        with pytest.raises(NotFound):
            await send(store, "b", by=stranger)
        with pytest.raises(NotFound):
            await advance(store, stranger, seen=1)
        assert await store.stored(SESSION, sender_id=stranger, client_msg_ids=["a"]) == {}
        assert await store.overview([SESSION], viewer_id=stranger) == {}
        assert await store.last_seq(SESSION) == 1

    async def test_without_a_conversation_there_is_nothing_to_write_to(self, store: MessageStore) -> None:
        with pytest.raises(NotFound):
            await send(store, "a")
        with pytest.raises(NotFound):
            await advance(store, USER, seen=1)

    async def test_instants_only_move_forward(self, store: MessageStore) -> None:
        """Two processes' clocks differ; a message must not be older than the one before it."""
        await opened(store)
        await send(store, "a", at_ms=5_000)

        assert (await send(store, "b", at_ms=4_000))[0].created_at_ms == 5_000
        await advance(store, LAWYER, seen=2, at_ms=4_500)
        assert (await page(store)).state_of((await page(store)).messages[0]).seen_at_ms == 5_000

    async def test_writes_take_effect_in_the_order_in_which_they_were_started(
        self, store: MessageStore
    ) -> None:
        """A client's messages are pipelined: awaiting each commit would cap a connection at one message a
        commit.
        """
        await opened(store)

        tasks = [asyncio.create_task(send(store, f"m{k}")) for k in range(300)]
        receipt = asyncio.create_task(advance(store, LAWYER, seen=EVERYTHING))
        tasks += [asyncio.create_task(send(store, f"n{k}")) for k in range(50)]
        sent = await asyncio.gather(*tasks)

        assert [message.seq for message, _ in sent] == list(range(1, 351))
        assert (await receipt).watermarks == Watermarks(300, 300)

    async def test_many_senders_with_repeats_leave_no_gap_and_no_double(self, store: MessageStore) -> None:
        """50 tasks race, every message is sent three times: each once, each number once."""
        await opened(store)
        rng = random.Random(7)
        ready = asyncio.Event()

        async def sender(n: int) -> list[tuple[str, str, int, bool]]:
            by = USER if n % 2 else LAWYER
            ids = [f"{n // 4}-{k}" for k in range(6)] * 3
            rng.shuffle(ids)
            await ready.wait()
            return [(by, id_, *seq_and_flag(await send(store, id_, by=by))) for id_ in ids]

        tasks = [asyncio.create_task(sender(n)) for n in range(50)]
        ready.set()
        answers = [answer for answers in await asyncio.gather(*tasks) for answer in answers]

        seq_by_id: dict[tuple[str, str], int] = {}
        for by, id_, seq, _ in answers:
            assert seq_by_id.setdefault((by, id_), seq) == seq, "a repeat got another message"
        fresh = sorted(seq for _, _, seq, duplicate in answers if not duplicate)
        assert fresh == list(range(1, len(seq_by_id) + 1))
        assert await store.last_seq(SESSION) == len(seq_by_id)

    async def test_a_cancelled_sender_leaves_a_whole_message_or_none(self, store: MessageStore) -> None:
        await opened(store)
        tasks = [asyncio.create_task(send(store, f"m{k}")) for k in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        last = (await send(store, "last"))[0].seq
        messages = (await page(store)).messages

        assert [message.seq for message in messages] == list(range(1, last + 1))
        assert {f"m{k}" for k in range(1, 20, 2)} <= {message.client_msg_id for message in messages}

    # --- receipts ---

    async def test_a_receipt_raises_the_readers_marks_and_only_theirs(self, store: MessageStore) -> None:
        await conversation_of(store, "uuul")

        assert (await advance(store, LAWYER, delivered=2)).watermarks == Watermarks(2, 0)
        assert (await advance(store, LAWYER, seen=1)).watermarks == Watermarks(2, 1)

        conversation = await store.conversation(SESSION)
        assert conversation is not None
        assert conversation.marks_of(USER) == Watermarks(0, 0)
        assert conversation.marks_of(LAWYER) == Watermarks(2, 1)

    async def test_a_receipt_never_goes_back_and_says_when_it_changed_nothing(
        self, store: MessageStore
    ) -> None:
        await conversation_of(store, "uuul")
        await advance(store, LAWYER, seen=3, at_ms=3_000)

        late = await advance(store, LAWYER, delivered=1, seen=2, at_ms=4_000)

        assert late == Advance(Watermarks(3, 3), 0, changed=False)

    async def test_seen_implies_delivered(self, store: MessageStore) -> None:
        await conversation_of(store, "uu")

        assert (await advance(store, LAWYER, seen=2)).watermarks == Watermarks(2, 2)

    async def test_a_receipt_is_clamped_to_the_last_message(self, store: MessageStore) -> None:
        """Otherwise a message not yet written would be seen already."""
        await conversation_of(store, "uu")

        assert (await advance(store, LAWYER, seen=EVERYTHING)).watermarks == Watermarks(2, 2)
        await send(store, "later")
        assert [state(await page(store), seq) for seq in (2, 3)] == [Delivery.SEEN, Delivery.SENT]

    async def test_only_the_peers_messages_count_as_newly_seen(self, store: MessageStore) -> None:
        await conversation_of(store, "uluulu")

        assert (await advance(store, LAWYER, seen=3)).newly_seen == 2
        assert (await advance(store, LAWYER, seen=3)).newly_seen == 0
        assert (await advance(store, LAWYER, seen=EVERYTHING)).newly_seen == 2
        assert (await advance(store, USER, seen=EVERYTHING)).newly_seen == 2

    async def test_receipts_are_taken_after_the_close(self, store: MessageStore) -> None:
        """The last words are read after the end."""
        await conversation_of(store, "uu")
        await store.close_conversation(SESSION, at_ms=5_000)

        assert (await advance(store, LAWYER, seen=2, in_service=False)).newly_seen == 2

    async def test_the_senders_own_receipts_do_not_count(self, store: MessageStore) -> None:
        await conversation_of(store, "ul")
        await advance(store, USER, seen=2)

        assert [state(await page(store), seq) for seq in (1, 2)] == [Delivery.SENT, Delivery.SEEN]

    async def test_each_message_knows_when_it_was_delivered_and_seen(self, store: MessageStore) -> None:
        await conversation_of(store, "uuuu")
        await advance(store, LAWYER, delivered=2, at_ms=2_000)
        await advance(store, LAWYER, delivered=3, at_ms=3_000)
        await advance(store, LAWYER, seen=1, at_ms=4_000)
        await advance(store, LAWYER, seen=3, at_ms=5_000)

        whole = await page(store)
        states = [whole.state_of(message) for message in whole.messages]

        assert [(s.status.value, s.delivered_at_ms, s.seen_at_ms) for s in states] == [
            ("SEEN", 2_000, 4_000),
            ("SEEN", 2_000, 5_000),
            ("SEEN", 3_000, 5_000),
            ("SENT", None, None),
        ]

    async def test_instants_are_the_same_on_every_page(self, store: MessageStore) -> None:
        """A page reads only the receipts that concern it."""
        await opened(store)
        for k in range(1, 31):
            await send(store, f"m{k}", at_ms=1_000 + k)
            if k % 2:
                await advance(store, LAWYER, delivered=k, at_ms=2_000 + k)
            if k % 7 == 0:
                await advance(store, LAWYER, seen=k - 3, at_ms=3_000 + k)
        whole = await page(store)
        expected = {message.seq: whole.state_of(message) for message in whole.messages}

        for limit in (1, 2, 3, 7):
            for after in range(30):
                part = await store.page(SESSION, after_seq=after, limit=limit)
                assert part is not None
                assert {m.seq: part.state_of(m) for m in part.messages} == {
                    seq: expected[seq] for seq in range(after + 1, min(after + limit, 30) + 1)
                }

    # --- reading ---

    async def test_pages_forward_reach_everything_once(self, store: MessageStore) -> None:
        await conversation_of(store, "ululululul")
        seen: list[int] = []
        after = 0
        while True:
            part = await store.page(SESSION, after_seq=after, limit=3)
            assert part is not None
            seen += [message.seq for message in part.messages]
            assert part.has_more is (seen[-1] < 10)
            if not part.has_more:
                break
            after = seen[-1]

        assert seen == list(range(1, 11))

    async def test_pages_backward_start_at_the_newest(self, store: MessageStore) -> None:
        await conversation_of(store, "ululululul")

        newest = await store.page(SESSION, limit=4)
        before = await store.page(SESSION, before_seq=7, limit=4)
        first = await store.page(SESSION, before_seq=3, limit=4)

        assert newest is not None
        assert before is not None
        assert first is not None
        assert [message.seq for message in newest.messages] == [7, 8, 9, 10]
        assert [message.seq for message in before.messages] == [3, 4, 5, 6]
        assert [message.seq for message in first.messages] == [1, 2]
        assert (newest.has_more, before.has_more, first.has_more) == (True, True, False)

    @pytest.mark.parametrize(
        "where", [{"after_seq": 3}, {"after_seq": EVERYTHING}, {"before_seq": 1}, {"before_seq": 0}]
    )
    async def test_a_page_beyond_the_ends_is_empty(self, store: MessageStore, where: dict[str, int]) -> None:
        await conversation_of(store, "ulu")

        part = await store.page(SESSION, limit=10, **where)

        assert part is not None
        assert (part.messages, part.has_more) == ((), False)
        assert part.conversation.last_seq == 3

    async def test_a_long_page_is_the_same_as_short_ones(self, store: MessageStore) -> None:
        await opened(store)
        await asyncio.gather(*(send(store, f"m{k}", body="x" * 500) for k in range(400)))

        long = await store.page(SESSION, after_seq=50, limit=200)

        assert long is not None
        assert [message.seq for message in long.messages] == list(range(51, 251))
        assert long.has_more

    async def test_stored_names_only_the_senders_own(self, store: MessageStore) -> None:
        await opened(store)
        first, _ = await send(store, "a")
        await send(store, "b", by=LAWYER)

        assert await store.stored(SESSION, sender_id=USER, client_msg_ids=["a", "b", "c"]) == {"a": first}

    async def test_an_overview_has_the_newest_message_and_what_is_unread(self, store: MessageStore) -> None:
        await conversation_of(store, "uluul")
        await opened(store, "ses_empty")
        await advance(store, LAWYER, seen=1)

        of_lawyer = await store.overview([SESSION, "ses_empty", "ses_none"], viewer_id=LAWYER)
        of_user = await store.overview([SESSION], viewer_id=USER)

        assert set(of_lawyer) == {SESSION, "ses_empty"}
        newest = of_lawyer[SESSION].last_message
        assert newest is not None
        assert (newest.seq, newest.sender_id, of_lawyer[SESSION].unread) == (5, LAWYER, 2)
        assert (of_lawyer["ses_empty"].last_message, of_lawyer["ses_empty"].unread) == (None, 0)
        assert of_user[SESSION].unread == 2

    # --- evidence of service ---

    async def test_evidence_is_the_last_message_or_receipt_in_service(self, store: MessageStore) -> None:
        """After a crash the bill runs to this instant."""
        await opened(store)
        assert await store.last_activities_ms([SESSION, "ses_none"]) == {SESSION: 0}
        await send(store, "a", at_ms=2_000)
        assert await store.last_activities_ms([SESSION, "ses_none"]) == {SESSION: 2_000}
        await advance(store, LAWYER, delivered=1, at_ms=3_000)
        assert await store.last_activities_ms([SESSION, "ses_none"]) == {SESSION: 3_000}

    async def test_what_changes_nothing_is_no_evidence(self, store: MessageStore) -> None:
        await opened(store)
        await send(store, "a", at_ms=2_000)
        await advance(store, LAWYER, seen=1, at_ms=3_000)

        await send(store, "a", at_ms=8_000)
        await advance(store, LAWYER, seen=1, at_ms=9_000)

        assert await store.last_activities_ms([SESSION, "ses_none"]) == {SESSION: 3_000}

    async def test_a_receipt_outside_service_is_no_evidence(self, store: MessageStore) -> None:
        """Someone who reads the chat after a crash must not be billed for the time in which no server ran."""
        await opened(store)
        await send(store, "a", at_ms=2_000)

        await advance(store, LAWYER, seen=1, at_ms=90_000, in_service=False)

        assert await store.last_activities_ms([SESSION, "ses_none"]) == {SESSION: 2_000}

    # --- erasure ---

    async def test_erasing_takes_the_bodies_and_nothing_else(self, store: MessageStore) -> None:
        """Who wrote when, and who read it, is what a dispute is about; what was said is nobody's business any more."""
        await conversation_of(store, "ulu")
        await advance(store, LAWYER, delivered=3, seen=1, at_ms=1_700)
        await store.close_conversation(SESSION, at_ms=2_000)
        before = await page(store)

        assert await erased(store, before_ms=2_001, at_ms=9_000) > 0

        after = await page(store)
        assert [message.body for message in after.messages] == ["", "", ""]
        assert {message.erased_at_ms for message in after.messages} == {9_000}
        assert [replace(message, body="", erased_at_ms=9_000) for message in before.messages] == list(
            after.messages
        )
        assert after.receipts == before.receipts
        assert after.conversation == replace(before.conversation, erased_at_ms=9_000)
        overview = (await store.overview([SESSION], viewer_id=LAWYER))[SESSION]
        assert overview.last_message == after.messages[-1]
        assert overview.unread == 1
        assert await store.last_activities_ms([SESSION, "ses_none"]) == {SESSION: 1_700}
        assert await store.last_seq(SESSION) == 3

    async def test_only_what_was_closed_before_then_is_erased(self, store: MessageStore) -> None:
        for session, closed_at_ms in (("old", 1_999), ("young", 2_000), ("open", None)):
            await opened(store, session)
            await send(store, "a", session=session)
            if closed_at_ms is not None:
                await store.close_conversation(session, at_ms=closed_at_ms)

        await erased(store, before_ms=2_000)
        assert await bodies(store, "old", "young", "open") == ["", "body of a", "body of a"]
        await erased(store, before_ms=10**15)
        assert await bodies(store, "old", "young", "open") == ["", "", "body of a"]

    async def test_erasing_goes_in_parts_the_oldest_first_and_is_seen_at_once(
        self, store: MessageStore
    ) -> None:
        """A long conversation is gone for its readers from the first part on, not half of it."""
        for k, session in enumerate(("second", "first")):
            await opened(store, session)
            for n in range(5):
                await send(store, f"m{n}", session=session)
            await store.close_conversation(session, at_ms=3_000 - k)

        parts = [await store.erase_closed(closed_before_ms=9_000, at_ms=9_000, limit=2)]
        assert await bodies(store, "first", "second") == [""] * 5 + [f"body of m{n}" for n in range(5)]
        while parts[-1]:
            assert parts[-1] <= 2
            parts.append(await store.erase_closed(closed_before_ms=9_000, at_ms=9_500 + len(parts), limit=2))

        assert len(parts) > 5
        assert await bodies(store, "first", "second") == [""] * 10
        found = await store.page("first", limit=10)
        assert found is not None
        assert {message.erased_at_ms for message in found.messages} == {9_000}

    async def test_erasing_again_changes_nothing(self, store: MessageStore) -> None:
        await conversation_of(store, "u")
        await opened(store, "empty")
        for session in (SESSION, "empty"):
            await store.close_conversation(session, at_ms=2_000)
        await erased(store, at_ms=9_000)
        first = await page(store)

        assert await store.erase_closed(closed_before_ms=10**15, at_ms=99_000, limit=100) == 0
        assert await page(store) == first

    async def test_a_repeat_of_an_erased_message_still_gets_its_answer(self, store: MessageStore) -> None:
        """A client that comes back after months with an answer that it never got must not be told that it is another message."""
        await opened(store)
        first, _ = await send(store, "a")
        await store.close_conversation(SESSION, at_ms=2_000)
        await erased(store)

        again, duplicate = await send(store, "a")
        assert (duplicate, again.seq, again.created_at_ms) == (True, first.seq, first.created_at_ms)
        known = await store.stored(SESSION, sender_id=USER, client_msg_ids=["a", "b"])
        assert list(known) == ["a"]
        assert known["a"].says("body of a")

    async def test_receipts_still_come_after_the_erasure(self, store: MessageStore) -> None:
        await conversation_of(store, "uu")
        await store.close_conversation(SESSION, at_ms=2_000)
        await erased(store)
        moved = await advance(store, LAWYER, seen=2, at_ms=9_999, in_service=False)
        assert (moved.changed, moved.newly_seen) == (True, 2)


async def erased(store: MessageStore, *, before_ms: int = 10**15, at_ms: int = 9_000) -> int:
    """Erase all there is; how much was done."""
    done = 0
    while part := await store.erase_closed(closed_before_ms=before_ms, at_ms=at_ms, limit=100):
        done += part
    return done


async def bodies(store: MessageStore, *sessions: str) -> list[str]:
    found = []
    for session in sessions:
        whole = await store.page(session, after_seq=0, limit=100)
        assert whole is not None
        found += [message.body for message in whole.messages]
    return found


async def opened(store: MessageStore, session: str = SESSION) -> None:
    await store.open_conversation(session, user_id=USER, lawyer_id=LAWYER, at_ms=1_000)


async def conversation_of(store: MessageStore, senders: str) -> None:
    """One message for each letter: u the user's, l the lawyer's."""
    await opened(store)
    for k, letter in enumerate(senders):
        await send(store, f"m{k}", by=USER if letter == "u" else LAWYER)


async def send(
    store: MessageStore,
    id_: str,
    *,
    by: str = USER,
    body: str | None = None,
    at_ms: int = 1_500,
    session: str = SESSION,
) -> tuple[Message, bool]:
    return await store.append(
        session_id=session, sender_id=by, client_msg_id=id_, body=body or f"body of {id_}", at_ms=at_ms
    )


async def advance(
    store: MessageStore,
    by: str,
    *,
    delivered: int = 0,
    seen: int = 0,
    at_ms: int = 1_600,
    in_service: bool = True,
) -> Advance:
    return await store.advance(
        session_id=SESSION,
        reader_id=by,
        delivered_seq=delivered,
        seen_seq=seen,
        at_ms=at_ms,
        in_service=in_service,
    )


async def page(store: MessageStore) -> Page:
    found = await store.page(SESSION, after_seq=0, limit=500)
    assert found is not None
    return found


def state(whole: Page, seq: int) -> Delivery:
    return whole.state_of(whole.messages[seq - 1]).status


def seq_and_flag(answer: tuple[Message, bool]) -> tuple[int, bool]:
    return answer[0].seq, answer[1]
