"""What is sent, and what is stored until it is sent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final


class Kind(StrEnum):
    """What a notification is about; stable, for those who receive it by webhook."""

    PASSWORD_RESET = "PASSWORD_RESET"  # noqa: S105 (a kind)
    PASSWORD_CHANGED = "PASSWORD_CHANGED"  # noqa: S105 (a kind)
    ACCOUNT_DISABLED = "ACCOUNT_DISABLED"
    ACCOUNT_ENABLED = "ACCOUNT_ENABLED"
    ACCOUNT_DELETED = "ACCOUNT_DELETED"
    COMPANY_INVITATION = "COMPANY_INVITATION"
    LOW_BALANCE = "LOW_BALANCE"
    CONSULT_RING = "CONSULT_RING"
    CONSULT_TURN = "CONSULT_TURN"
    PAYOUT_PAID = "PAYOUT_PAID"
    PAYOUT_FAILED = "PAYOUT_FAILED"
    PAYMENT_DIFFERENCES = "PAYMENT_DIFFERENCES"
    PAYMENT_REFUNDED = "PAYMENT_REFUNDED"
    PAYMENT_REFUND_RETURNED = "PAYMENT_REFUND_RETURNED"
    PAYER_REFUND_FAILED = "PAYER_REFUND_FAILED"
    DISPUTE_WON = "DISPUTE_WON"
    DISPUTE_LOST = "DISPUTE_LOST"
    CONSULTATION_REFUNDED = "CONSULTATION_REFUNDED"
    REFUND_REJECTED = "REFUND_REJECTED"
    CREDITS_PURCHASED = "CREDITS_PURCHASED"
    COMPANY_LOW_BALANCE = "COMPANY_LOW_BALANCE"
    COMPANY_OWED = "COMPANY_OWED"
    COMPANY_RECHARGED = "COMPANY_RECHARGED"
    COMPANY_RECHARGE_FAILED = "COMPANY_RECHARGE_FAILED"
    COMPANY_AUTO_RECHARGE_STOPPED = "COMPANY_AUTO_RECHARGE_STOPPED"
    SUBSCRIPTION_BEGAN = "SUBSCRIPTION_BEGAN"
    SUBSCRIPTION_PAYMENT_FAILED = "SUBSCRIPTION_PAYMENT_FAILED"
    SUBSCRIPTION_ENDED = "SUBSCRIPTION_ENDED"
    SUBSCRIPTION_UPGRADED = "SUBSCRIPTION_UPGRADED"


class State(StrEnum):
    """PENDING → SENT | DEAD."""

    PENDING = "PENDING"
    SENT = "SENT"
    #: Given up; the row keeps the reason.
    DEAD = "DEAD"


@dataclass(frozen=True, slots=True)
class Notification:
    """A letter, ready to go. `id` is the same at every attempt: whoever receives it twice knows it by that.

    `facts` are for programs (camelCase, strings and integers); `text` says the same to people. Both may hold a one-time link.
    """

    id: str
    kind: Kind
    user_id: str
    email: str
    subject: str
    text: str
    facts: Mapping[str, Any]
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class Notice:
    """A row of the outbox: why somebody is to be told, and how far that is.

    The letter is composed anew for each attempt, from the account as it is then, so no row holds a secret, and only those that
    have no account to look it up in hold an address. `attempts` counts what was begun; `next_at_ms` is when the next one may
    begin, and moves on as an attempt begins, so that no other process begins it too.
    """

    id: str
    kind: Kind
    created_at_ms: int
    next_at_ms: int
    give_up_at_ms: int
    user_id: str | None = None
    email: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    state: State = State.PENDING
    attempts: int = 0
    problem: str | None = None


#: What is waited between attempts: a moment, then minutes, then hours. The last one goes on.
PAUSES_MS: Final = (2_000, 10_000, 60_000, 300_000, 900_000, 3_600_000)


def pause_ms(attempts: int) -> int:
    """How long to wait after so many attempts."""
    return PAUSES_MS[min(max(attempts, 1), len(PAUSES_MS)) - 1]
