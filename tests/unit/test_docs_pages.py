"""The pages of `docs/` that are made from tables are those tables."""

from billing_engine.consultations.model import MOVES, EndReason
from chat.events import CLIENT_EVENTS
from chat.model import MOVES as DELIVERY_MOVES
from server.api_docs.errors_table import ack_errors, http_errors
from server.api_docs.problems import errors_of
from server.api_docs.states import delivery_arrows, session_arrows, states_markdown
from server.docs_pages import DOCS, generated_pages
from server.problems import status_of
from server.routes import ROUTES


def test_the_pages_in_the_repository_are_up_to_date() -> None:
    """If it fails: `python -m server.docs_pages`."""
    for name, text in generated_pages().items():
        assert (DOCS / name).read_text("utf-8") == text, name


def test_every_move_of_a_session_and_of_a_message_is_drawn() -> None:
    session = {(start, to) for start, to, _ in session_arrows()}
    message = {(start, to) for start, to, _ in delivery_arrows()}

    assert {(state.value, to.value) for (state, _), to in MOVES.items() if state is not to} <= session
    assert {(state.value, to.value) for (state, _), to in DELIVERY_MOVES.items()} <= message
    assert all(f"`{reason}`" in states_markdown() for reason in EndReason)


def test_every_code_that_a_route_or_an_event_gives_is_listed_once() -> None:
    listed = [(row.status, row.code) for row in http_errors(ROUTES)]
    given = {(status_of(error), error.code) for route in ROUTES for error in errors_of(route)}  # type: ignore[attr-defined]

    assert len(listed) == len(set(listed))
    assert given <= set(listed)
    acks = {row.code for row in ack_errors()}
    assert {error.code for event in CLIENT_EVENTS.values() for error in event.errors} <= acks
    assert all(row.meaning for row in http_errors(ROUTES))
