"""The parts of the Python client that decide, without a clock or a socket."""

from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarazu_client import Draft, MemoryStorage, SqliteStorage, Storage
from tarazu_client.backoff import Backoff
from tarazu_client.errors import retry_after_ms
from tarazu_client.marks import Marks
from tarazu_client.outbox import Outbox
from tarazu_client.receipts import Receipts
from tarazu_client.sequence import Sequence


@given(
    st.integers(1, 30).flatmap(
        lambda count: st.tuples(st.just(count), st.lists(st.integers(1, count), max_size=60))
    )
)
def test_messages_are_given_once_and_in_order_however_they_come(told: tuple[int, list[int]]) -> None:
    count, seqs = told
    sequence = Sequence()
    given_: list[int] = []
    # What came by itself, and then all of it again, as a join would bring it.
    for seq in (*seqs, *range(1, count + 1)):
        given_ += [message["seq"] for message in sequence.take(cast("Any", {"seq": seq}))]
        assert sequence.last_seq == len(given_)
    assert given_ == list(range(1, count + 1))
    assert not sequence.is_waiting


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_watermarks_and_states_never_go_back(told: list[tuple[str, int, int]]) -> None:
    marks = Marks()
    ranks = {"SENT": 0, "DELIVERED": 1, "SEEN": 2}
    before = [0] * 10
    for who, delivered, seen in told:
        marks.take(who, {"deliveredSeq": delivered, "seenSeq": seen})
        assert marks.of(who).seen_seq <= marks.of(who).delivered_seq
        now = [ranks[marks.state(seq, "a")] for seq in range(10)]
        assert all(new >= old for new, old in zip(now, before, strict=True))
        before = now
    assert [marks.state(seq, "a") for seq in range(1, 10)] == [
        "SEEN" if seq <= marks.of("b").seen_seq else "DELIVERED" if seq <= marks.of("b").delivered_seq else "SENT"
        for seq in range(1, 10)
    ]  # fmt: skip


class Line:
    """A server that stores each message once, over a line that loses answers, breaks, and refuses for a while."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.is_shut = False

    def take(self, client_msg_id: str) -> bool:
        if not self.is_shut and client_msg_id not in self.stored:
            self.stored.append(client_msg_id)
        return client_msg_id in self.stored


@given(st.data(), st.integers(1, 40), st.integers(1, 5))
def test_whatever_the_line_does_all_is_stored_once_and_in_order(
    data: st.DataObject, count: int, window: int
) -> None:
    """Refusals come for a stretch of sends, as a shut gate or a draining server gives them."""
    outbox, line = Outbox(window=window), Line()
    for k in range(count):
        outbox.add(Draft("s", f"{k}", "body"))
    way: list[str] = []
    answers: list[tuple[str, bool]] = []
    for step in range(600):
        if not outbox:
            break
        # In the end the weather is good.
        moves = ["send", "arrive", "answer", "open", "lose", "shut"]
        match data.draw(st.sampled_from(moves)) if step < 200 else moves[step % 4]:
            case "send" if (draft := outbox.next(0)) is not None:
                way.append(draft.client_msg_id)
                assert len(way) + len(answers) <= window
            case "arrive" if way:
                client_msg_id = way.pop(0)
                answers.append((client_msg_id, line.take(client_msg_id)))
            case "answer" if answers:
                client_msg_id, stored = answers.pop(0)
                if stored:
                    outbox.stored(client_msg_id)
                else:
                    outbox.again(client_msg_id)
            case "lose":
                # What is on its way may still arrive at the server; its answers are gone.
                for client_msg_id in way[: data.draw(st.integers(0, len(way)))]:
                    line.take(client_msg_id)
                way, answers = [], []
                outbox.lost()
            case "shut":
                line.is_shut = True
            case "open" if not way:
                line.is_shut = False
    assert len(outbox) == 0
    assert line.stored == [f"{k}" for k in range(count)]


def test_a_refusal_forbids_sending_for_as_long_as_it_says() -> None:
    outbox = Outbox()
    for name in ("a", "b"):
        outbox.add(Draft("s", name, "body"))
    first = outbox.next(10.0)
    assert first is not None
    assert outbox.next(10.0) is None, "one alone goes first"
    outbox.again("a", not_before_s=12.0)
    assert (outbox.next(11.9), outbox.wait_s(11.5)) == (None, 0.5)
    again = outbox.next(12.0)
    assert again == first
    assert outbox.stored("a") == first
    assert outbox.stored("a") is None
    following = outbox.next(12.0)
    assert following is not None
    assert following.client_msg_id == "b"
    with pytest.raises(ValueError, match="waiting already"):
        outbox.add(Draft("s", "b", "another"))


def test_waiting_doubles_up_to_a_cap_and_is_drawn() -> None:
    full = Backoff(0.5, 15, draw=lambda: 1.0)
    assert [full.next_s() for _ in range(7)] == [0.5, 1, 2, 4, 8, 15, 15]
    full.reset()
    assert full.next_s() == 0.5
    assert Backoff(draw=lambda: 0.0).next_s() == 0
    assert (Backoff(draw=lambda: 0.0).after_s(2_000), full.after_s(2_000)) == (2.0, 4.0)


@pytest.mark.parametrize(
    ("facts", "told"),
    [({}, None), ({"retryAfterMs": None}, None), ({"retryAfterMs": True}, None), ({"retryAfterMs": -1}, None),
     ({"retryAfterMs": "1"}, None), ({"retryAfterMs": 0}, 0), ({"retryAfterMs": 250}, 250)],
)  # fmt: skip
def test_a_server_may_say_when_to_come_back(facts: dict[str, Any], told: float | None) -> None:
    assert retry_after_ms(facts) == told


def test_a_receipt_is_due_until_the_server_has_confirmed_it() -> None:
    receipts, marks = Receipts(), Marks()
    assert receipts.due(marks.of("me")) is None
    receipts.arrived(3)
    receipts.arrived(2)
    assert receipts.due(marks.of("me")) == ("message_delivered", 3)
    receipts.seen(2)
    assert receipts.due(marks.of("me")) == ("mark_seen", 2)
    marks.take("me", {"deliveredSeq": 2, "seenSeq": 2})
    assert receipts.due(marks.of("me")) == ("message_delivered", 3)
    marks.take("me", {"deliveredSeq": 3, "seenSeq": 2})
    assert receipts.due(marks.of("me")) is None


@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_a_storage_keeps_the_order_and_forgets_what_it_is_told_to(kind: str, tmp_path: Path) -> None:
    storage: Storage = MemoryStorage() if kind == "memory" else SqliteStorage(tmp_path / "outbox.db")
    drafts = [Draft("s", f"{k}", f"body {k} 😀") for k in range(5)]
    for draft in drafts:
        await storage.put(draft)
    await storage.put(drafts[0])
    await storage.put(Draft("other", "0", "not ours"))
    if kind == "file":
        storage = SqliteStorage(tmp_path / "outbox.db")
    assert await storage.load("s") == drafts
    await storage.drop("s", ["1", "3", "never there"])
    assert await storage.load("s") == [drafts[0], drafts[2], drafts[4]]
    assert await storage.load("other") == [Draft("other", "0", "not ours")]
