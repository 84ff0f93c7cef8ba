"""A waiting list's words and arithmetic: pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from billing_engine.consultations.model import BILLED, Session

#: How many of a lawyer's latest consultations an estimate is made from.
SAMPLE: Final = 10


class WaitOver(StrEnum):
    """Why somebody waits no longer without having been served."""

    TURN_MISSED = "TURN_MISSED"
    LAWYER_OFFLINE = "LAWYER_OFFLINE"
    LIST_CLOSED = "LIST_CLOSED"


@dataclass(frozen=True, slots=True)
class Waiting:
    """One user who waits for one lawyer; the first to come is the first to be served.

    With a `turn_id` it is the user's turn until `turn_until_ms`: a record of that id keeps the lawyer free meanwhile.
    """

    lawyer_id: str
    user_id: str
    since_ms: int
    turn_id: str = ""
    turn_until_ms: int = 0

    @property
    def id(self) -> str:
        return waiting_id(self.lawyer_id, self.user_id)


def waiting_id(lawyer_id: str, user_id: str) -> str:
    """One for each pair: a user waits once for a lawyer."""
    return f"{lawyer_id}|{user_id}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where somebody waits; 1 is next. `estimated_s` is None where nothing is known of how long this lawyer's consultations take."""

    waiting: Waiting
    position: int
    estimated_s: int | None


def mean_duration_s(sessions: Sequence[Session]) -> int | None:
    """The mean length of the latest consultations among a lawyer's records (newest first), in whole seconds."""
    lengths = [
        session.duration_s for session in sessions if session.status in BILLED and session.duration_s > 0
    ]
    sample = lengths[:SAMPLE]
    return sum(sample) // len(sample) if sample else None


def estimated_wait_s(position: int, mean_s: int | None, elapsed_s: int | None) -> int | None:
    """How long the one at `position` will wait. `elapsed_s`: how far the consultation is that keeps the lawyer busy, if one does."""
    if mean_s is None:
        return None
    current_s = 0 if elapsed_s is None else max(0, mean_s - elapsed_s)
    return current_s + (position - 1) * mean_s


@dataclass(frozen=True, slots=True)
class PlaceChanged:
    """Somebody's place is another, or (`over`) gone."""

    place: Place
    over: WaitOver | None = None


@dataclass(frozen=True, slots=True)
class TurnGiven:
    """It is somebody's turn."""

    waiting: Waiting
