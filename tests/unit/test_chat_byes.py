"""Goodbyes: one table, and a wait that keeps those who were sent away together from coming back together."""

from chat.byes import BYES, DRAIN, RATE, bye_view, view_of
from chat.events import ByeView


def test_codes_below_3500_are_the_ones_that_may_come_back() -> None:
    assert len({bye.code for bye in BYES}) == len({bye.reason for bye in BYES}) == len(BYES)
    for bye in BYES:
        assert bye.reconnect is (bye.code < 3500)
        assert ("retryAfterMs" in view_of(bye)) is bye.reconnect
        ByeView.model_validate(view_of(bye))


def test_the_wait_lies_within_the_reasons_bounds() -> None:
    for bye in BYES:
        if bye.wait_ms is not None:
            least_ms, most_ms = bye.wait_ms
            assert view_of(bye, draw=lambda: 0.0)["retryAfterMs"] == least_ms
            assert least_ms < view_of(bye, draw=lambda: 0.999_999)["retryAfterMs"] <= most_ms
    assert RATE.wait_ms is not None
    assert RATE.wait_ms[0] >= 5_000, "a flood is not asked back at once"


def test_the_more_are_sent_away_the_longer_they_spread_out() -> None:
    def most_ms(others: int) -> int:
        view = bye_view(DRAIN.code, DRAIN.reason, reconnect=True, others=others, draw=lambda: 0.999_999)
        return int(view["retryAfterMs"])

    assert most_ms(1) < most_ms(600) < most_ms(2_000)
    assert 9_000 < most_ms(2_000) <= 10_000
    assert most_ms(1_000_000) <= 10_000


def test_a_code_of_no_table_is_spread_out_too() -> None:
    assert 500 <= bye_view(3005, "RELOAD", reconnect=True)["retryAfterMs"] <= 1_500
