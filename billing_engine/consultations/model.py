"""What a consultation is: its states, its record, and what callers see of it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final


class Status(StrEnum):
    """States of a session. STARTING, ABORTED, ACCEPTED, TURN and PASSED are internal: clients see an ACCEPTED request as REQUESTED,
    and the others not at all.
    """

    STARTING = "STARTING"
    REQUESTED = "REQUESTED"
    ACCEPTED = "ACCEPTED"
    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    ENDED = "ENDED"
    FORCE_ENDED = "FORCE_ENDED"
    ABORTED = "ABORTED"
    DECLINED = "DECLINED"
    MISSED = "MISSED"
    CANCELLED = "CANCELLED"
    #: Of the waiting list: a lawyer who is kept free for one user, and one who was.
    TURN = "TURN"
    PASSED = "PASSED"


class EndReason(StrEnum):
    """Why a session ended (SPEC 5)."""

    USER_ENDED = "USER_ENDED"
    LAWYER_ENDED = "LAWYER_ENDED"
    ADMIN_ENDED = "ADMIN_ENDED"
    WALLET_EMPTY = "WALLET_EMPTY"
    MAX_AMOUNT = "MAX_AMOUNT"
    PEER_GONE = "PEER_GONE"
    ABANDONED = "ABANDONED"
    ACCOUNT_DISABLED = "ACCOUNT_DISABLED"
    LAWYER_DECLINED = "LAWYER_DECLINED"
    NO_ANSWER = "NO_ANSWER"
    LAWYER_NOT_JOINED = "LAWYER_NOT_JOINED"
    USER_CANCELLED = "USER_CANCELLED"
    USER_NOT_JOINED = "USER_NOT_JOINED"
    INSUFFICIENT_BALANCE = "INSUFFICIENT_BALANCE"


class LostReason(StrEnum):
    """Who is waited for while a session is paused, as the timeline says it. Pauses that are over by the time they are known have other
    reasons: `SERVER`, `STORE_DOWN`.
    """

    USER_LOST = "USER_LOST"
    LAWYER_LOST = "LAWYER_LOST"


#: The final status that each reason gives a session; one of the first group closes a request just so, with CANCELLED.
END_STATUS: Final = {
    EndReason.USER_ENDED: Status.ENDED,
    EndReason.LAWYER_ENDED: Status.ENDED,
    EndReason.ADMIN_ENDED: Status.ENDED,
    EndReason.WALLET_EMPTY: Status.FORCE_ENDED,
    EndReason.MAX_AMOUNT: Status.FORCE_ENDED,
    EndReason.PEER_GONE: Status.FORCE_ENDED,
    EndReason.ABANDONED: Status.FORCE_ENDED,
    EndReason.ACCOUNT_DISABLED: Status.FORCE_ENDED,
    EndReason.LAWYER_DECLINED: Status.DECLINED,
    EndReason.NO_ANSWER: Status.MISSED,
    EndReason.LAWYER_NOT_JOINED: Status.MISSED,
    EndReason.USER_CANCELLED: Status.CANCELLED,
    EndReason.USER_NOT_JOINED: Status.CANCELLED,
    EndReason.INSUFFICIENT_BALANCE: Status.CANCELLED,
}

LIVE: Final = frozenset({Status.ACTIVE, Status.PAUSED})
#: A lawyer is being asked, or has said yes and both are on their way.
ASKED: Final = frozenset({Status.REQUESTED, Status.ACCEPTED})
#: Of requests that never became a consultation.
UNSERVED: Final = frozenset({Status.DECLINED, Status.MISSED, Status.CANCELLED})
#: Of consultations that were served and have a bill.
BILLED: Final = frozenset({Status.ENDED, Status.FORCE_ENDED})
FINISHED: Final = BILLED | UNSERVED | {Status.ABORTED, Status.PASSED}
#: Records that clients may see. The others are the engine's own business.
VISIBLE: Final = LIVE | ASKED | UNSERVED | BILLED
#: The states by the names that clients know.
PUBLIC: Final = VISIBLE - {Status.ACCEPTED}


class Step(StrEnum):
    """What can happen to a session, in the words of the documents."""

    OPEN = "the first slice is held"
    GIVE_BACK = "the start is given back"
    ASK = "the lawyer is asked"
    ACCEPT = "the lawyer accepts"
    BEGIN = "both have joined and the first slice is held"
    DECLINE = "the lawyer declines"
    MISS = "the lawyer does not answer or does not come"
    CANCEL = "the user cancels, does not come or cannot pay"
    LAPSE = "the turn is used or over"
    PAUSE = "nobody serves it"
    RESUME = "service goes on"
    END = "a party or an admin ends it"
    FORCE_END = "the money or a party is gone"


#: A state machine is a table; what is not in it does not happen: every write of a record's status is conditional on it.
#: PAUSE and RESUME are moves of the meter in the ledger's hold; the record keeps ACTIVE and the view tells.
MOVES: Final = {
    (Status.STARTING, Step.OPEN): Status.ACTIVE,
    (Status.STARTING, Step.GIVE_BACK): Status.ABORTED,
    # Giving back has several writes after this one; whoever finds them undone does it again.
    (Status.ABORTED, Step.GIVE_BACK): Status.ABORTED,
    (Status.STARTING, Step.ASK): Status.REQUESTED,
    (Status.REQUESTED, Step.ACCEPT): Status.ACCEPTED,
    (Status.ACCEPTED, Step.BEGIN): Status.ACTIVE,
    (Status.REQUESTED, Step.DECLINE): Status.DECLINED,
    (Status.ACCEPTED, Step.DECLINE): Status.DECLINED,
    (Status.REQUESTED, Step.MISS): Status.MISSED,
    (Status.ACCEPTED, Step.MISS): Status.MISSED,
    (Status.REQUESTED, Step.CANCEL): Status.CANCELLED,
    (Status.ACCEPTED, Step.CANCEL): Status.CANCELLED,
    (Status.TURN, Step.LAPSE): Status.PASSED,
    (Status.ACTIVE, Step.PAUSE): Status.PAUSED,
    (Status.PAUSED, Step.RESUME): Status.ACTIVE,
    (Status.ACTIVE, Step.END): Status.ENDED,
    (Status.PAUSED, Step.END): Status.ENDED,
    (Status.ACTIVE, Step.FORCE_END): Status.FORCE_ENDED,
    (Status.PAUSED, Step.FORCE_END): Status.FORCE_ENDED,
}
#: The step that each final status is reached by.
LAST_STEP: Final = {
    Status.ENDED: Step.END,
    Status.FORCE_ENDED: Step.FORCE_END,
    Status.DECLINED: Step.DECLINE,
    Status.MISSED: Step.MISS,
    Status.CANCELLED: Step.CANCEL,
}


def states_before(step: Step) -> frozenset[Status]:
    """The states in which `step` can happen."""
    return frozenset(status for status, taken in MOVES if taken is step)


@dataclass(frozen=True, slots=True)
class Session:
    """The stored record. Money in the currency's smallest unit, instants in epoch milliseconds.

    While the session lives, its bill is in the ledger's hold; `duration_s`, `total_minor` and `commission_minor`
    are copied here from the ledger's closing entry and never computed again. `owner` names the process that began the start: if it
    dies half-way, others know whom to wait for no longer. Who bills a live session is the hold's word, never this field's.

    Of a request (`asked`): `deadline_ms` is when the answer, and after it both people, must be there; `accepted_by` names the
    lawyer's device, and the two `..._joined_at_ms` say when each first joined the conversation. Of a TURN the deadline is its end.
    """

    id: str
    user_id: str
    lawyer_id: str
    rate_minor_per_min: int
    currency: str
    commission_bp: int
    max_minor: int | None
    status: Status
    created_at_ms: int
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    end_reason: EndReason | None = None
    duration_s: int = 0
    total_minor: int = 0
    commission_minor: int = 0
    owner: str = ""
    asked: bool = False
    deadline_ms: int | None = None
    accepted_at_ms: int | None = None
    accepted_by: str = ""
    user_joined_at_ms: int | None = None
    lawyer_joined_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session with its bill at one instant. `remaining_s` counts the whole wallet, `wallet_minor` is spendable money;
    both are for the user's eyes (the lawyer sees `remaining_s` from 120 downwards only).

    `paid_ahead_s` is how far `paid_until_ms` lies ahead: with long ticks it is the wallet's end, and as telling. None: not known.
    `pause_reason` says who is lost while it is paused.
    """

    session: Session
    status: Status
    duration_s: int
    total_minor: int
    paid_until_ms: int | None
    remaining_s: int
    wallet_minor: int
    paid_ahead_s: int | None = None
    pause_reason: str | None = None


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One event of a session's life. Rows `start, pause, resume, ..., end` recompute the bill (SPEC 5)."""

    session_id: str
    k: int
    at_ms: int
    event: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Quote:
    """How long this user's wallet lasts with this lawyer."""

    lawyer_id: str
    rate_minor_per_min: int
    currency: str
    wallet_minor: int
    affordable_s: int
    min_needed_minor: int
    can_start: bool


@dataclass(frozen=True, slots=True)
class LawyerTerms:
    """What the start of a session must know of a lawyer, read at that moment.

    Without `auto_accept` the lawyer is asked first. `online_at_ms`: since when the lawyer says to be online, if that is known.
    """

    id: str
    rate_minor_per_min: int
    is_verified: bool
    is_online: bool
    auto_accept: bool = True
    has_waiting_list: bool = False
    online_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """Something both parties hear of: `session:started`, `session:tick`, `session:low_balance`, `session:recharged`, `session:paused`,
    `session:resumed`, `session:ended`.

    `low_balance` events carry the threshold (s) in `extra`; `paused` and `resumed` ones the reason, and `paused` ones the instant at
    which it ends if nobody comes back. The announcer turns it into one payload for the user and one for the
    lawyer, who never sees the balance.
    """

    name: str
    view: SessionView
    extra: dict[str, Any] = field(default_factory=dict)
