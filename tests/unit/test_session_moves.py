"""A session's states as a table."""

from itertools import product

from billing_engine.consultations.model import (
    END_STATUS,
    FINISHED,
    LAST_STEP,
    LIVE,
    MOVES,
    VISIBLE,
    EndReason,
    Status,
    Step,
    states_before,
)


def test_nothing_leads_out_of_a_final_state_but_a_give_back_that_is_done_again() -> None:
    """Who is hurt if it fails: both parties, whose final bill would change."""
    leaving = {
        (state, step): to for (state, step), to in MOVES.items() if state in FINISHED and to is not state
    }

    assert leaving == {}


def test_every_reason_to_end_is_a_step_out_of_every_live_state() -> None:
    assert set(END_STATUS) == set(EndReason)
    for reason, state in product(EndReason, LIVE):
        status = END_STATUS[reason]
        assert MOVES[state, LAST_STEP[status]] is status
        assert states_before(LAST_STEP[status]) == LIVE


def test_only_a_start_that_is_not_given_back_can_become_active() -> None:
    assert states_before(Step.OPEN) == {Status.STARTING}


def test_every_state_can_be_reached_and_every_step_is_in_the_table() -> None:
    assert {to for to in MOVES.values()} | {Status.STARTING} == set(Status)
    assert {step for _, step in MOVES} == set(Step)


def test_clients_see_no_state_that_a_session_has_before_it_is_one() -> None:
    assert VISIBLE == {Status.ACTIVE, Status.PAUSED, Status.ENDED, Status.FORCE_ENDED}
