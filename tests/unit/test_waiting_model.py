"""The arithmetic of waiting, and where a request is."""

import pytest

from billing_engine.consultations.model import ASKED, BILLED, LIVE, UNSERVED, Session, Status
from billing_engine.consultations.request_model import RequestState, state_of
from billing_engine.consultations.waiting_model import SAMPLE, Waiting, estimated_wait_s, mean_duration_s


def a_session(status: Status, *, duration_s: int = 0, asked: bool = True) -> Session:
    return Session(
        id="s1",
        user_id="u1",
        lawyer_id="l1",
        rate_minor_per_min=6_000,
        currency="INR",
        commission_bp=0,
        max_minor=None,
        status=status,
        created_at_ms=1_000,
        duration_s=duration_s,
        asked=asked,
    )


@pytest.mark.parametrize(
    ("position", "mean_s", "elapsed_s", "wait_s"),
    [
        (1, None, 10, None),
        (1, 300, None, 0),
        (1, 300, 100, 200),
        (1, 300, 900, 0),
        (3, 300, 100, 800),
        (3, 300, None, 600),
    ],
)
def test_one_waits_for_the_rest_of_this_one_and_for_all_who_are_ahead(
    position: int, mean_s: int | None, elapsed_s: int | None, wait_s: int | None
) -> None:
    assert estimated_wait_s(position, mean_s, elapsed_s) == wait_s


def test_the_mean_is_of_the_latest_that_were_served() -> None:
    latest = [a_session(Status.ENDED, duration_s=60)] * SAMPLE
    old = [a_session(Status.ENDED, duration_s=9_999)]
    none = [a_session(status) for status in Status if status not in BILLED]
    assert mean_duration_s([*none, a_session(Status.ENDED), *latest, *old]) == 60
    assert mean_duration_s([*none, a_session(Status.FORCE_ENDED)]) is None
    assert mean_duration_s([a_session(Status.ENDED, duration_s=s) for s in (1, 2)]) == 1


def test_every_state_of_a_request_is_told_by_one_word() -> None:
    told = {status: state_of(a_session(status)) for status in ASKED | UNSERVED}
    assert set(told.values()) == set(RequestState) - {RequestState.ANSWERED_ELSEWHERE}
    assert len(set(told.values())) == len(told)
    for status in LIVE | BILLED:
        assert state_of(a_session(status)) is RequestState.ACCEPTED
    assert all(state_of(a_session(status, asked=False)) is None for status in Status)


def test_a_user_has_one_place_with_a_lawyer() -> None:
    assert Waiting("l1", "u1", 5).id == Waiting("l1", "u1", 9, "t").id
    assert Waiting("l1", "u2", 5).id != Waiting("l1", "u1", 5).id
