"""Buckets: honest clients never notice them, a flood gets what its pace is, and order survives a refusal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.buckets import CONNECTION, REFUSALS, Kind, Limits, Pace, Sender, Senders, limits

TABLE = limits()


def sender(table: Limits = TABLE) -> Sender:
    return Senders(table).came("usr_1")


def test_a_reconnect_that_repeats_fifty_messages_passes() -> None:
    """And goes on typing at once."""
    mine = sender()
    assert [mine.take(Kind.MESSAGE, 0) for _ in range(50)] == [0] * 50
    assert [mine.take(Kind.MESSAGE, 100 * k) for k in range(20)] == [0] * 20


def test_a_thumb_on_the_keys_is_never_refused() -> None:
    mine = sender()
    assert not any(mine.take(Kind.TYPING, k * 1000 / 15) for k in range(15 * 600))


def test_a_client_that_pages_through_ten_thousand_messages_passes() -> None:
    mine = sender()
    assert not any(mine.take(Kind.JOIN, 20 * k) for k in range(50))


def test_who_rings_again_and_again_is_told_to_wait_and_candidates_of_a_call_are_not() -> None:
    mine = sender()
    assert [mine.take(Kind.RING, 1_000 * k) > 0 for k in range(15)] == [False] * 11 + [True] * 4
    # What the largest call may say at all, in half a minute.
    assert not any(mine.take(Kind.SIGNAL, 100 * k) for k in range(300))


def test_kinds_do_not_use_up_one_another() -> None:
    mine = sender()
    while not mine.take(Kind.TYPING, 0):
        pass
    assert mine.take(Kind.MESSAGE, 0) == 0


def test_what_follows_a_refused_event_is_refused_until_the_instant_that_was_named() -> None:
    """Otherwise the fifth message would be stored before the fourth, which is sent again."""
    mine = sender()
    pace = CONNECTION[Kind.MESSAGE]
    assert [mine.take(Kind.MESSAGE, 0) for _ in range(pace.burst)] == [0] * pace.burst

    wait_ms = mine.take(Kind.MESSAGE, 0)
    assert wait_ms == pace.burst * pace.interval_ms / 4

    assert [mine.take(Kind.MESSAGE, at_ms) for at_ms in (1, 400, wait_ms - 1)] == [
        wait_ms - 1,
        wait_ms - 400,
        1,
    ]
    assert [mine.take(Kind.MESSAGE, wait_ms) for _ in range(25)] == [0] * 25


def test_who_waits_as_told_and_sends_fifty_again_is_never_sent_away() -> None:
    """An outbox of 5,000 messages, 50 under way, by a client that does what the refusal says and nothing more."""
    mine, now_ms, left, refused = sender(), 0, 5_000, 0
    while left:
        waits = [mine.take(Kind.MESSAGE, now_ms) for _ in range(min(50, left))]
        for wait_ms in waits:
            if wait_ms:
                refused += 1
                assert not mine.overruns(now_ms), f"after {5_000 - left} messages"
        left -= waits.count(0)
        now_ms += max(waits) or 10
    assert refused > 1_000, "it was slowed down all the way"


def test_a_flood_gets_its_pace_and_is_sent_away_within_a_second() -> None:
    mine, granted, away_ms = sender(), 0, None
    for at_ms in range(10_000):
        if not mine.take(Kind.MESSAGE, at_ms):
            granted += 1
        elif away_ms is None and mine.overruns(at_ms):
            away_ms = at_ms
    pace = CONNECTION[Kind.MESSAGE]
    assert granted <= pace.burst + 10_000 / pace.interval_ms
    assert away_ms is not None
    assert away_ms < 1_000


def test_many_sockets_of_one_person_buy_little() -> None:
    all_of_them = Senders(TABLE)
    sockets = [all_of_them.came("usr_1") for _ in range(20)]
    granted = sum(not socket.take(Kind.MESSAGE, 0) for socket in sockets for _ in range(100))
    assert granted == 3 * CONNECTION[Kind.MESSAGE].burst
    assert all_of_them.came("usr_2").take(Kind.MESSAGE, 0) == 0, "nobody else pays for it"


def test_coming_back_is_no_way_to_a_new_bucket() -> None:
    all_of_them = Senders(TABLE)
    granted = 0
    for _ in range(20):
        socket = all_of_them.came("usr_1")
        granted += sum(not socket.take(Kind.MESSAGE, 0) for _ in range(100))
        all_of_them.went("usr_1", 0)
    assert granted == 3 * CONNECTION[Kind.MESSAGE].burst


def test_another_device_has_its_own_order() -> None:
    """A phone that floods does not make the laptop's next message wait, until both have used up what the person has."""
    all_of_them = Senders(TABLE)
    phone, laptop = all_of_them.came("usr_1"), all_of_them.came("usr_1")
    while not phone.take(Kind.MESSAGE, 0):
        pass
    assert laptop.take(Kind.MESSAGE, 0) == 0


def test_who_has_left_is_forgotten_when_nothing_is_owed() -> None:
    all_of_them = Senders(TABLE)
    for k in range(100):
        all_of_them.came(f"usr_{k}").take(Kind.MESSAGE, 0)
        all_of_them.went(f"usr_{k}", 0)
    assert len(all_of_them) == 100
    for k in range(100):
        all_of_them.came(f"later_{k}")
        all_of_them.went(f"later_{k}", 60_000)
    assert len(all_of_them) < 3


def test_who_is_still_here_on_another_device_is_not_forgotten() -> None:
    all_of_them = Senders(TABLE)
    first = all_of_them.came("usr_1")
    all_of_them.came("usr_1")
    all_of_them.went("usr_1", 0)
    for _ in range(10):
        all_of_them.went("nobody", 1e9)
    assert all_of_them.came("usr_1").person is first.person


@given(
    gaps_ms=st.lists(st.integers(0, 400), min_size=1, max_size=300),
    burst=st.integers(1, 20),
    interval_ms=st.integers(1, 200),
)
def test_never_more_than_the_pace_whenever_one_looks(
    gaps_ms: list[int], burst: int, interval_ms: int
) -> None:
    mine = sender(limits(message=Pace(burst, interval_ms)))
    now_ms, granted, named_ms = 0, [], 0
    for gap_ms in gaps_ms:
        now_ms += gap_ms
        wait_ms = mine.take(Kind.MESSAGE, now_ms)
        if wait_ms:
            named_ms = now_ms + wait_ms
        else:
            assert now_ms >= named_ms - 1, "granted before the instant that a refusal named"
            granted.append(now_ms)
    for first in range(len(granted)):
        for last in range(first, len(granted)):
            span_ms = granted[last] - granted[first]
            assert last - first + 1 <= burst + span_ms / interval_ms + 1e-6


def test_a_setting_changes_its_own_kind_alone() -> None:
    table = limits(message=Pace(1, 1_000))
    assert table.connection[Kind.MESSAGE] == Pace(1, 1_000)
    assert table.person[Kind.MESSAGE].burst == 3
    assert {kind: pace for kind, pace in table.connection.items() if kind is not Kind.MESSAGE} == {
        kind: pace for kind, pace in CONNECTION.items() if kind is not Kind.MESSAGE
    }
    assert table.refusals == REFUSALS
    with pytest.raises(ValueError, match="letters"):
        limits(letters=Pace(1, 1))
