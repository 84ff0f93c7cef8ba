"""What admins look at and what is written down of what they do. No clock and no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from billing_engine.consultations.model import EndReason, Session, SessionView, Status
from billing_engine.ledger.model import Hold
from billing_engine.money import Asset
from server.auth.model import Account, Role
from server.people.model import LawyerCard


class AuditState(StrEnum):
    """How far an admin's act has come.

    INTENDED is written before the act. It stays where nobody can say how the act ended (the process died, the store did not
    answer): it may have happened or not, and nothing that happened is without a row.
    """

    INTENDED = "INTENDED"
    DONE = "DONE"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One act of an admin. `subject` is the id of whom or what it is about, `asked` the request's body as it was understood.

    `before` and `after` are facts of the subject, read right before and right after the act. `code` says why it was refused.
    """

    id: str
    at_ms: int
    admin_id: str
    action: str
    subject: str
    reason: str | None
    asked: Mapping[str, Any]
    before: Mapping[str, Any]
    request_id: str
    state: AuditState = AuditState.INTENDED
    after: Mapping[str, Any] | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which rows; None asks for nothing. From `from_ms` on, before `to_ms`."""

    admin_id: str | None = None
    action: str | None = None
    subject: str | None = None
    state: AuditState | None = None
    from_ms: int | None = None
    to_ms: int | None = None


@dataclass(frozen=True, slots=True)
class UserFilter:
    """Which accounts; None asks for nothing. `query` is an id, the beginning of an address, or beginnings of words of a name."""

    query: str | None = None
    role: Role | None = None
    is_disabled: bool | None = None


@dataclass(frozen=True, slots=True)
class UserPage:
    """Part of a list of accounts. It may be shorter than asked for; only `next` being None says that it was the last."""

    accounts: list[Account]
    next: tuple[int | str, ...] | None


@dataclass(frozen=True, slots=True)
class Wallet:
    """What a person has in the ledger: a user's or a company's prepaid money, or a lawyer's earnings. Smallest units of `asset`; a
    hold sets money aside for a session. `id` is the ledger's name of the account.
    """

    id: str
    asset: Asset
    spendable_minor: int
    held_minor: int
    holds: tuple[Hold, ...]


@dataclass(frozen=True, slots=True)
class UserDetail:
    """Everything that support asks about one account. `acts` counts what admins did to it."""

    account: Account
    lawyer: LawyerCard | None
    wallet: Wallet | None
    active: SessionView | None
    sessions: int
    acts: int


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions; None asks for nothing. Started from `from_ms` on and before `to_ms`."""

    status: Status | None = None
    user_id: str | None = None
    lawyer_id: str | None = None
    reason: EndReason | None = None
    from_ms: int | None = None
    to_ms: int | None = None


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Part of a list of sessions, with their bills as of now; only `next` being None says that it was the last."""

    views: list[SessionView]
    next: tuple[int, str] | None


def place_of(session: Session) -> tuple[int, str]:
    """Where a list of sessions goes on after this one."""
    return session.created_at_ms, session.id
