"""A month's days as one text: what is packed is what was counted, and a part of the month is the sum of its days."""

from hypothesis import given
from hypothesis import strategies as st

from billing_engine.usage.series import Series, Spending

DAYS = [f"{number:02}" for number in range(1, 32)]
spendings = st.builds(Spending, st.integers(1, 10**6), st.integers(0, 10**12), st.integers(0, 10**15))
news = st.dictionaries(st.sampled_from(DAYS), spendings, max_size=8)


@given(st.lists(news, max_size=6), st.sampled_from(DAYS), st.sampled_from(DAYS))
def test_a_series_says_what_the_days_that_it_was_told_add_up_to(
    told: list[dict[str, Spending]], first: str, last: str
) -> None:
    """A company would be shown a cost that is not in its ledger."""
    series, plain = Series(), dict[str, Spending]()
    for days in told:
        series = series.plus(days)
        for day, spending in days.items():
            plain[day] = plain.get(day, Spending()).plus(spending)

    assert series.by_day() == plain
    assert list(series.by_day()) == sorted(plain)
    assert series.total == _sum(plain, "01", "31")
    assert series.within(first, last) == _sum(plain, first, last)


def _sum(days: dict[str, Spending], first: str, last: str) -> Spending:
    chosen = [spending for day, spending in days.items() if first <= day <= last]
    return Spending(*(sum(column) for column in zip(*chosen, strict=True))) if chosen else Spending()
