"""The meter alone: seconds, prices, the instants that money reaches, and the timeline that anyone can add up."""

import orjson
import pytest

from billing_engine.consultations.meter import Meter, served_ms_of
from billing_engine.errors import InvariantBroken
from billing_engine.money import affordable_seconds, commission_of, price

START_MS = 1_767_225_600_000


def a_meter(**facts: object) -> Meter:
    usual: dict[str, object] = {
        "user_id": "u1",
        "lawyer_id": "l1",
        "rate_minor_per_min": 6_000,
        "commission_bp": 0,
        "max_minor": None,
        "started_at_ms": START_MS,
        "served_ms": 0,
        "running_since_ms": START_MS,
        "evidence_at_ms": START_MS,
    }
    return Meter(**(usual | facts))  # type: ignore[arg-type]  # the facts of one test


@pytest.mark.parametrize(
    ("rate", "seconds", "minor"),
    [
        (6_000, 61, 6_100),
        (1, 59, 0),  # a paisa a minute: the first one is due when the minute is full
        (1, 60, 1),
        (1, 119, 1),
        (7, 60, 7),  # not divisible by 60: each second alone is less than a paisa
        (7, 17, 1),
        (100, 1, 1),
        (10_000_000, 1, 166_666),
        (6_000, 0, 0),
    ],
)
def test_a_price_is_rounded_down_once(rate: int, seconds: int, minor: int) -> None:
    assert price(rate, seconds) == minor


@pytest.mark.parametrize(
    ("rate", "minor", "seconds"),
    [
        (1, 0, 59),
        (1, 1, 119),
        (6_000, 0, 0),
        (6_000, 99, 0),
        (6_000, 100, 1),
        (7, 1, 17),
        (10_000_000, 166_665, 0),
    ],
)
def test_money_reaches_the_last_second_it_pays(rate: int, minor: int, seconds: int) -> None:
    assert affordable_seconds(rate, minor) == seconds


def test_parts_of_seconds_add_up_before_they_are_rounded() -> None:
    """Two segments of 1.5 s are three seconds. Rounded one by one they would be two, and the lawyer loses one each time."""
    meter = a_meter().skipping(START_MS + 1_500, START_MS + 9_000, "SERVER")
    assert meter.seconds_at(START_MS + 10_500) == 3
    assert meter.bill_minor(START_MS + 10_500) == 300


def test_a_paused_meter_does_not_run() -> None:
    meter = a_meter(served_ms=4_200, running_since_ms=None)
    assert meter.served_ms_at(START_MS + 99_000) == 4_200
    assert meter.reaches_ms(60) is None


def test_a_pause_moves_the_instant_that_money_reaches() -> None:
    meter = a_meter()
    assert meter.reaches_ms(60) == START_MS + 60_000
    paused = meter.skipping(START_MS + 10_250, START_MS + 14_000, "STORE_DOWN")
    assert paused.reaches_ms(60) == START_MS + 60_000 + 3_750


@pytest.mark.parametrize(("from_ms", "to_ms"), [(5_000, 5_000), (5_000, 4_000)])
def test_a_pause_of_no_time_leaves_no_trace(from_ms: int, to_ms: int) -> None:
    meter = a_meter()
    assert meter.skipping(START_MS + from_ms, START_MS + to_ms, "SERVER") is meter


def test_a_pause_never_reaches_back_into_an_earlier_one() -> None:
    meter = a_meter().skipping(START_MS + 2_000, START_MS + 6_000, "SERVER")
    again = meter.skipping(START_MS + 1_000, START_MS + 8_000, "SERVER")
    assert again.served_ms_at(START_MS + 9_000) == 2_000 + 1_000
    assert [at_ms - START_MS for _, at_ms, _, _ in again.trail] == [2_000, 6_000, 6_000, 8_000]


def test_evidence_never_moves_back() -> None:
    meter = a_meter().proven(START_MS + 5_000).proven(START_MS + 3_000)
    assert meter.evidence_at_ms == START_MS + 5_000


def test_an_end_before_the_resumption_serves_nothing_more() -> None:
    meter = a_meter(served_ms=2_000, running_since_ms=START_MS + 6_000)
    assert meter.served_ms_at(START_MS + 3_000) == 2_000


def test_the_cap_counts_like_money_that_is_not_there() -> None:
    capped = a_meter(max_minor=7_050)
    assert (capped.limit_s(7_049), capped.limit_s(1_000_000)) == (70, 70)
    assert a_meter().limit_s(1_000_000) == 10_000


def test_only_rows_that_are_copied_out_are_dropped() -> None:
    meter = a_meter().noted(START_MS, "start").skipping(START_MS + 1_000, START_MS + 2_000, "SERVER")
    assert [k for k, *_ in meter.copied(0).trail] == [0, 1, 2]
    assert [k for k, *_ in meter.copied(2).trail] == [2]
    assert meter.copied(3).trail == ()
    assert meter.copied(3).noted(START_MS + 3_000, "end").trail == ((3, START_MS + 3_000, "end", None),)


def test_a_meter_comes_back_from_storage_as_it_was() -> None:
    meter = a_meter(max_minor=9_999, commission_bp=1_250).noted(START_MS, "start")
    meter = meter.skipping(START_MS + 1_000, START_MS + 2_000, "SERVER").proven(START_MS + 2_000)
    stored = orjson.loads(orjson.dumps(meter.to_facts(meter.reaches_ms(60))))
    assert Meter.of_facts(stored) == meter


def test_a_commission_is_rounded_down() -> None:
    assert commission_of(799, 1_250) == 99  # 12.5 % is 99.875
    assert commission_of(1, 9_999) == 0
    assert commission_of(1, 10_000) == 1
    assert commission_of(0, 10_000) == 0


# -- the timeline that anyone can add up ----------------------------------------------------------------------------


def test_a_timeline_adds_up_to_the_served_time() -> None:
    rows = [
        (0, "start"),
        (1_500, "pause"),
        (9_000, "resume"),
        (9_000, "pause"),
        (9_001, "resume"),
        (10_500, "end"),
    ]
    assert served_ms_of(rows) == 1_500 + 0 + 1_499


def test_a_timeline_may_end_in_a_pause() -> None:
    assert served_ms_of([(0, "start"), (1_500, "pause"), (9_000, "end")]) == 1_500


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [(0, "start")],
        [(0, "end")],
        [(0, "start"), (5, "resume"), (9, "end")],
        [(0, "start"), (5, "pause"), (6, "pause"), (9, "end")],
        [(0, "start"), (9, "end"), (10, "end")],
        [(0, "start"), (0, "start"), (9, "end")],
        [(5, "start"), (4, "end")],
        [(0, "start"), (5, "pause"), (9, "resume"), (7, "end")],
        [(0, "start"), (9, "ended")],
        [(0, "start"), (5, "pause"), (3, "resume"), (9, "end")],
        [(0, "start"), (5, "pause"), (3, "end")],
    ],
)
def test_what_is_no_timeline_is_not_added_up(rows: list[tuple[int, str]]) -> None:
    with pytest.raises(InvariantBroken):
        served_ms_of(rows)
