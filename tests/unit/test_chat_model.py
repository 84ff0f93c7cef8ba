"""Watermarks, states and ids, without any store."""

import pytest

from chat.model import (
    MOVES,
    Conversation,
    Delivery,
    Message,
    MessageState,
    Page,
    Receipt,
    ReceiptKind,
    Receipts,
    Watermarks,
    covered_at_ms,
    move,
    seq_of,
)


def test_no_move_goes_back_or_stays() -> None:
    order = list(Delivery)

    assert all(order.index(after) > order.index(before) for (before, _), after in MOVES.items())


def test_what_is_not_in_the_table_does_not_happen() -> None:
    assert move(Delivery.SEEN, ReceiptKind.DELIVERED) is Delivery.SEEN
    assert move(Delivery.SEEN, ReceiptKind.SEEN) is Delivery.SEEN
    assert move(Delivery.DELIVERED, ReceiptKind.DELIVERED) is Delivery.DELIVERED


def test_the_status_comes_from_the_peers_marks_alone() -> None:
    marks = {"u": Watermarks(9, 9), "l": Watermarks(2, 1)}
    conversation = Conversation("s", "u", "l", last_seq=4, opened_at_ms=0, watermarks=marks)
    messages = tuple(Message("s", seq, "u", str(seq), "x", 0) for seq in range(1, 5))
    receipts = {"l": Receipts((Receipt(1, 10), Receipt(2, 20)), (Receipt(1, 30),))}
    page = Page(conversation, messages, receipts, has_more=False)

    assert [page.state_of(message) for message in messages] == [
        MessageState(Delivery.SEEN, 10, 30),
        MessageState(Delivery.DELIVERED, 20, None),
        MessageState(),
        MessageState(),
    ]


def test_a_message_is_covered_by_the_first_receipt_at_or_after_it() -> None:
    receipts = (Receipt(2, 20), Receipt(5, 50))

    assert [covered_at_ms(receipts, seq) for seq in range(1, 7)] == [20, 20, 50, 50, 50, None]


def test_message_ids_sort_by_creation_and_name_their_position() -> None:
    ids = [Message("ses_1", seq, "u", "c", "x", 0).id for seq in (1, 2, 10, 999, 1_000_000)]

    assert ids == sorted(ids)
    assert [seq_of(id_, session_id="ses_1") for id_ in ids] == [1, 2, 10, 999, 1_000_000]


@pytest.mark.parametrize(
    "id_",
    [
        "",
        ":",
        "ses_1",
        "ses_1:",
        "ses_1:1",
        "ses_2:000000001",
        "ses_1:-00000001",
        "ses_1:00000000²",
        "x:ses_1:000000001",
    ],
)
def test_what_is_no_id_of_the_session_names_nothing(id_: str) -> None:
    assert seq_of(id_, session_id="ses_1") is None
