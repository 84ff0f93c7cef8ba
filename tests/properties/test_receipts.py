"""Receipts never go back, and a message's state is what a plain list of messages would say."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from chat.model import EVERYTHING, Delivery, ReceiptKind, Watermarks, move
from chat.ports import MessageStore
from server.storage.sqlite.engine import SqliteOptions, open_database
from server.storage.sqlite.messages import open_message_store

SEQS = st.integers(0, 12) | st.just(EVERYTHING)
receipts = st.tuples(st.sampled_from(list(ReceiptKind)), SEQS)


@given(st.lists(receipts, max_size=30), st.integers(0, 10))
def test_marks_never_go_back_and_stay_within_what_exists(
    steps: list[tuple[ReceiptKind, int]], last_seq: int
) -> None:
    marks = Watermarks()
    for kind, seq in steps:
        after = raised(marks, kind, seq, last_seq)

        assert after.delivered_seq >= marks.delivered_seq
        assert after.seen_seq >= marks.seen_seq
        assert 0 <= after.seen_seq <= after.delivered_seq <= last_seq
        marks = after


@given(st.lists(receipts, max_size=30), st.integers(1, 10))
def test_the_order_and_repetition_of_receipts_do_not_matter(
    steps: list[tuple[ReceiptKind, int]], last_seq: int
) -> None:
    """Receipts overtake each other and are sent again after a reconnect."""

    def after(some: list[tuple[ReceiptKind, int]]) -> Watermarks:
        marks = Watermarks()
        for kind, seq in some:
            marks = raised(marks, kind, seq, last_seq)
        return marks

    assert after(steps) == after(steps[::-1]) == after(steps + steps)


@given(st.lists(receipts, max_size=30), st.integers(1, 10))
def test_the_derived_status_is_what_walking_the_table_gives(
    steps: list[tuple[ReceiptKind, int]], last_seq: int
) -> None:
    """The plain model keeps a state for each message and moves each one by the table."""
    marks = Watermarks()
    plain = dict.fromkeys(range(1, last_seq + 1), Delivery.SENT)
    for kind, upto in steps:
        marks = raised(marks, kind, upto, last_seq)
        for seq in plain:
            if seq <= upto:
                plain[seq] = move(plain[seq], kind)

        assert {seq: marks.status(seq) for seq in plain} == plain


USER, LAWYER = "usr_1", "law_1"
people = st.sampled_from([USER, LAWYER])
actions = st.one_of(
    st.tuples(st.just("send"), people, st.integers(0, 8)),
    st.tuples(st.just("delivered"), people, SEQS),
    st.tuples(st.just("seen"), people, SEQS),
)


class Plain:
    """The conversation as a child would write it down: a list of messages, each with its own state and
    instants.
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, object]] = []

    def send(self, who: str, number: int) -> tuple[int, bool]:
        for seq, message in enumerate(self.messages, start=1):
            if (message["by"], message["id"]) == (who, str(number)):
                return seq, True
        self.messages.append(
            {"by": who, "id": str(number), "state": Delivery.SENT, "delivered": None, "seen": None}
        )
        return len(self.messages), False

    def report(self, who: str, kind: ReceiptKind, upto: int, at_ms: int) -> int:
        newly_seen = 0
        for message in self.messages[:upto]:
            if message["by"] == who:
                continue
            before = message["state"]
            assert isinstance(before, Delivery)
            after = move(before, kind)
            if before is Delivery.SENT and after is not before:
                message["delivered"] = at_ms
            if after is Delivery.SEEN and before is not after:
                message["seen"] = at_ms
                newly_seen += 1
            message["state"] = after
        return newly_seen

    def unread(self, who: str) -> int:
        return sum(
            message["by"] != who and message["state"] is not Delivery.SEEN for message in self.messages
        )


@settings(max_examples=60, deadline=None)
@given(st.lists(actions, max_size=40))
def test_the_store_agrees_with_the_plain_model(steps: list[tuple[str, str, int]]) -> None:
    asyncio.run(compare(steps))


async def compare(steps: list[tuple[str, str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_database(
            Path(folder) / "p.db", SqliteOptions(synchronous="OFF", reader_threads=1)
        ) as db:
            store: MessageStore = await open_message_store(db)
            await store.open_conversation("s", user_id=USER, lawyer_id=LAWYER, at_ms=0)
            plain = Plain()
            for at_ms, (what, who, number) in enumerate(steps, start=1):
                if what == "send":
                    message, duplicate = await store.append(
                        session_id="s",
                        sender_id=who,
                        client_msg_id=str(number),
                        body=f"{number}",
                        at_ms=at_ms,
                    )
                    assert (message.seq, duplicate) == plain.send(who, number)
                    continue
                seen = what == "seen"
                advance = await store.advance(
                    session_id="s",
                    reader_id=who,
                    delivered_seq=0 if seen else number,
                    seen_seq=number if seen else 0,
                    at_ms=at_ms,
                    in_service=True,
                )
                kind = ReceiptKind.SEEN if seen else ReceiptKind.DELIVERED
                assert advance.newly_seen == plain.report(who, kind, number, at_ms)

            page = await store.page("s", after_seq=0, limit=100)
            assert page is not None
            states = [page.state_of(message) for message in page.messages]
            assert [(s.status, s.delivered_at_ms, s.seen_at_ms) for s in states] == [
                (m["state"], m["delivered"], m["seen"]) for m in plain.messages
            ]
            for who in (USER, LAWYER):
                overview = (await store.overview(["s"], viewer_id=who))["s"]
                assert overview.unread == plain.unread(who)


def raised(marks: Watermarks, kind: ReceiptKind, seq: int, last_seq: int) -> Watermarks:
    if kind is ReceiptKind.SEEN:
        return marks.raised(seen_seq=seq, last_seq=last_seq)
    return marks.raised(delivered_seq=seq, last_seq=last_seq)
