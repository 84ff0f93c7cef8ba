"""A request and a waiting list in the words that people are told of them: pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from billing_engine.consultations.model import Session, Status
from billing_engine.consultations.waiting_model import PlaceChanged, TurnGiven


class RequestState(StrEnum):
    """Where a request is. A lawyer's device hears ANSWERED_ELSEWHERE when another one has accepted."""

    RINGING = "RINGING"
    ACCEPTED = "ACCEPTED"
    DECLINED = "DECLINED"
    MISSED = "MISSED"
    CANCELLED = "CANCELLED"
    ANSWERED_ELSEWHERE = "ANSWERED_ELSEWHERE"


_STATE_OF: Final = {
    Status.REQUESTED: RequestState.RINGING,
    Status.ACCEPTED: RequestState.ACCEPTED,
    Status.DECLINED: RequestState.DECLINED,
    Status.MISSED: RequestState.MISSED,
    Status.CANCELLED: RequestState.CANCELLED,
}


def state_of(session: Session) -> RequestState | None:
    """The request's state; None of what was never asked for. A consultation that a request became was ACCEPTED."""
    if not session.asked:
        return None
    return _STATE_OF.get(session.status, RequestState.ACCEPTED)


@dataclass(frozen=True, slots=True)
class RequestChanged:
    """A request is in a new state. `socket` is the one that accepted, if one did: it alone is not told that it was elsewhere."""

    session: Session
    socket: str | None = None


@dataclass(frozen=True, slots=True)
class LawyerAway:
    """A lawyer was taken offline for not answering."""

    lawyer_id: str


RequestEvent = RequestChanged | LawyerAway | PlaceChanged | TurnGiven
