"""The periods of a simulated subscription, whatever was agreed in between."""

from hypothesis import given
from hypothesis import strategies as st

from billing_engine.subscriptions.model import CYCLE_MS
from server.gateways.simulated_cycles import Agreement, Change, Terms, standing

DAY_MS = 86_400_000
START_MS = 1_767_225_600_000

moves = st.none() | st.integers(1, 60)
steps = st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc"), moves), max_size=6)


def terms(tier: str) -> Terms:
    return Terms(tier, ord(tier), "USD")


@given(steps=steps, more_days=st.integers(0, 100))
def test_what_was_sold_is_never_sold_again_and_never_otherwise(
    steps: list[tuple[int, str, int | None]], more_days: int
) -> None:
    """A plain walk, day by day, knows what each period was sold at."""
    agreement = Agreement("simsub_1", "u1", START_MS, terms("a"))
    day, ends_on, running = 0, 30, "a"
    expected = [(0, "a")]

    def walk(until: int) -> None:
        nonlocal day, ends_on
        while day < until:
            day += 1
            if day == ends_on:
                expected.append((day, running))
                ends_on += 30

    changes: list[Change] = []
    for number, (wait, tier, move) in enumerate(steps):
        walk(day + wait)
        running = tier
        ends_on = ends_on if move is None else day + move
        at_ms = START_MS + day * DAY_MS
        moved_ms = None if move is None else at_ms + move * DAY_MS
        changes.append(Change(f"k{number}", at_ms, terms(tier), moved_ms))
    walk(day + more_days)
    agreement = Agreement("simsub_1", "u1", START_MS, terms("a"), tuple(changes))

    now = standing(agreement, START_MS + day * DAY_MS)

    assert [((one.start_ms - START_MS) // DAY_MS, one.terms.tier) for one in now.sold] == expected
    assert all(one.end_ms - one.start_ms == CYCLE_MS for one in now.sold)
    assert (now.end_ms - START_MS) // DAY_MS == ends_on
    assert (now.next_terms, now.is_ended) == (terms(running), False)


@given(days=st.integers(0, 200), cancelled_on=st.integers(0, 100))
def test_a_cancelled_one_ends_once_with_the_period_it_was_cancelled_in(days: int, cancelled_on: int) -> None:
    agreement = Agreement(
        "simsub_1", "u1", START_MS, terms("a"), cancelled_at_ms=START_MS + cancelled_on * DAY_MS
    )
    ends_on = (cancelled_on // 30 + 1) * 30

    now = standing(agreement, START_MS + days * DAY_MS)

    assert now.is_ended == (days >= ends_on)
    assert len(now.sold) == min(days, ends_on - 1) // 30 + 1
