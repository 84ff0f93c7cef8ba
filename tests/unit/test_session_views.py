"""What billing tells over the socket is what the event table says."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from billing_engine.consultations.model import (
    END_STATUS,
    VISIBLE,
    EndReason,
    Session,
    SessionEvent,
    SessionView,
    Status,
)
from chat.billing_events import BillView
from chat.events import SERVER_EVENTS
from server.session_views import billing_state, event_payload

SESSION = Session(
    id="s1",
    user_id="asha",
    lawyer_id="rao",
    rate_minor_per_min=3_000,
    currency="INR",
    commission_bp=0,
    max_minor=None,
    status=Status.ACTIVE,
    created_at_ms=1_795_226_400_005,
    started_at_ms=1_795_226_400_005,
)
VIEW = SessionView(
    session=SESSION,
    status=Status.ACTIVE,
    duration_s=250,
    total_minor=12_500,
    paid_until_ms=1_795_226_663_005,
    remaining_s=750,
    wallet_minor=34_500,
)
EXTRA: dict[str, dict[str, Any]] = {
    "session:low_balance": {"threshold": 120},
    "session:paused": {"reason": "USER_LOST", "ends_at_ms": 1_795_226_800_005},
    "session:resumed": {"reason": "USER_LOST"},
}
BILLING_EVENTS = [name for name in SERVER_EVENTS if name.startswith("session:")]


@pytest.mark.parametrize(("name", "viewer"), list(product(BILLING_EVENTS, ("asha", "rao"))))
def test_every_event_of_billing_has_the_fields_of_the_table(name: str, viewer: str) -> None:
    """Who is hurt if it fails: app teams, who generate their code from the table."""
    extra = EXTRA.get(name, {})

    payload = event_payload(SessionEvent(name, VIEW, extra), viewer, last_seq=42)

    SERVER_EVENTS[name].payload.model_validate(payload)


@pytest.mark.parametrize("status", sorted(VISIBLE))
def test_a_bill_has_its_fields_in_every_state(status: Status) -> None:
    view = replace(VIEW, status=status, paid_until_ms=None)

    assert BillView.model_validate(billing_state(view, "asha", last_seq=0)).status == status


@pytest.mark.parametrize("reason", EndReason)
def test_the_last_bill_names_its_reason(reason: EndReason) -> None:
    session = replace(SESSION, status=END_STATUS[reason], end_reason=reason)
    view = replace(VIEW, session=session, status=session.status, paid_until_ms=None, remaining_s=0)

    assert BillView.model_validate(billing_state(view, "rao", last_seq=3)).reason == reason


def test_the_lawyer_is_told_neither_the_balance_nor_what_would_tell_it() -> None:
    told = BillView.model_validate(billing_state(VIEW, "rao", last_seq=0))

    assert (told.wallet_balance, told.remaining_seconds) == (None, None)
