"""A session's states as a table."""

from billing_engine.consultations.model import (
    ASKED,
    BILLED,
    END_STATUS,
    FINISHED,
    LAST_STEP,
    LIVE,
    MOVES,
    PUBLIC,
    UNSERVED,
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


def test_every_reason_to_end_is_a_step_out_of_every_state_that_it_can_end() -> None:
    assert set(END_STATUS) == set(EndReason)
    for reason, status in END_STATUS.items():
        before = states_before(LAST_STEP[status])
        if status in BILLED:
            assert before == LIVE, reason
        else:
            assert status in UNSERVED
            assert before == ASKED, reason
        assert all(MOVES[state, LAST_STEP[status]] is status for state in before)


def test_only_a_start_that_is_not_given_back_can_become_active() -> None:
    assert states_before(Step.OPEN) == {Status.STARTING}


def test_every_state_can_be_reached_and_every_step_is_in_the_table() -> None:
    assert {to for to in MOVES.values()} | {Status.STARTING, Status.TURN} == set(Status)
    assert {step for _, step in MOVES} == set(Step)


def test_only_an_accepted_request_becomes_active_without_a_start_of_its_own() -> None:
    """Who is hurt if it fails: a user who pays while the lawyer has not said yes."""
    assert states_before(Step.BEGIN) == {Status.ACCEPTED}
    assert states_before(Step.ACCEPT) == {Status.REQUESTED}


def test_clients_see_no_state_that_a_session_has_before_it_is_one() -> None:
    internal = {Status.STARTING, Status.ABORTED, Status.TURN, Status.PASSED}
    assert set(Status) - VISIBLE == internal
    # The record says ACCEPTED; clients read REQUESTED, and where the request is.
    assert set(Status) - PUBLIC == internal | {Status.ACCEPTED}
    assert FINISHED & (LIVE | ASKED) == set()
