"""Applications and their credits: pure, no clock and no I/O.

The ledger decides and remembers: a credit is taken by one entry and given back by another, each at most once, since its key is made of
the application's id. The application's record is a copy of what they say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from billing_engine.credits.errors import InsufficientCredits, RefundNotEligible
from billing_engine.ledger.accounts import ISSUED_CREDITS, application_credits_of
from billing_engine.ledger.model import Account, Entry, KeyReused, KeyState, Movement, Transfer, post
from billing_engine.money import APPLICATION_CREDIT

#: Kinds of the entries on a credits account, and of their one transfer.
PURCHASED: Final = "credit_purchase"
USED: Final = "credit_used"
REFUNDED: Final = "credit_refund"
ADJUSTED: Final = "credit_adjustment"
#: What an application costs.
COST: Final = 1
#: An application that is this old, to the millisecond, is not refunded any more.
REFUND_WITHIN_MS: Final = 24 * 3_600_000
#: Where credits are bought.
BUY_AT: Final = "/credits/packages"


class ProjectStatus(StrEnum):
    """OPEN → CLOSED."""

    OPEN = "OPEN"
    CLOSED = "CLOSED"


@dataclass(frozen=True, slots=True)
class Project:
    """A company looks for somebody. `is_closing`: applications that had begun may still have to be turned away."""

    id: str
    company_id: str
    title: str
    description: str
    created_at_ms: int
    status: ProjectStatus = ProjectStatus.OPEN
    closed_at_ms: int | None = None
    is_closing: bool = False


class ApplicationStatus(StrEnum):
    """PENDING → ACTIVE → WITHDRAWN, or PENDING → REFUSED, as the ledger's keys ended."""

    #: Begun; nobody but its owner is told of it.
    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    #: No credit was taken.
    REFUSED = "REFUSED"
    #: Its credit was given back.
    WITHDRAWN = "WITHDRAWN"


#: A state machine is a table: what is left is left for good.
LEFT_FOR: Final[Mapping[ApplicationStatus, frozenset[ApplicationStatus]]] = {
    ApplicationStatus.ACTIVE: frozenset({ApplicationStatus.PENDING}),
    ApplicationStatus.REFUSED: frozenset({ApplicationStatus.PENDING}),
    # The record may have missed that the credit was taken.
    ApplicationStatus.WITHDRAWN: frozenset({ApplicationStatus.PENDING, ApplicationStatus.ACTIVE}),
}


@dataclass(frozen=True, slots=True)
class Application:
    """One try of a freelancer for a project; `attempt` counts them, and `operation_id` is the request that made it.

    `applied_at_ms` is when its credit was taken, `credits_left` the balance right after; the same of its return. `is_open`: something
    was begun of which the record does not know how it ended.
    """

    id: str
    user_id: str
    project_id: str
    attempt: int
    operation_id: str
    created_at_ms: int
    status: ApplicationStatus = ApplicationStatus.PENDING
    applied_at_ms: int | None = None
    credits_left: int | None = None
    withdrawn_at_ms: int | None = None
    credits_after_refund: int | None = None
    is_open: bool = True

    @property
    def account(self) -> str:
        return application_credits_of(self.user_id)

    @property
    def taking(self) -> str:
        """The source of the entry that takes its credit."""
        return f"apply:{self.id}"

    @property
    def returning(self) -> str:
        """The source of the entry that gives it back."""
        return f"withdraw:{self.id}"


def application_id_of(user_id: str, project_id: str, attempt: int) -> str:
    """Two devices of one person cannot make it both."""
    return f"{user_id}:{project_id}:{attempt}"


def taking_of(application: Application) -> Movement:
    """What applying moves."""
    return Movement(
        account=application.account,
        source=application.taking,
        kind=USED,
        asset=APPLICATION_CREDIT.code,
        reference=application.id,
        transfers=(Transfer(application.account, ISSUED_CREDITS, COST, USED),),
        facts={
            "applicationId": application.id,
            "user": application.user_id,
            "project": application.project_id,
            "attempt": application.attempt,
            "operation": application.operation_id,
            "begunAt": application.created_at_ms,
        },
    )


def settled_by(application: Application, taken: Entry, returned: Entry | None = None) -> Application:
    """The record as the ended keys tell it."""
    if taken.state is not KeyState.POSTED:
        return replace(application, status=ApplicationStatus.REFUSED, is_open=False)
    active = replace(
        application,
        status=ApplicationStatus.ACTIVE,
        applied_at_ms=taken.at_ms,
        credits_left=taken.posted_after,
        is_open=False,
    )
    if returned is None:
        return active
    return replace(
        active,
        status=ApplicationStatus.WITHDRAWN,
        withdrawn_at_ms=returned.at_ms,
        credits_after_refund=returned.posted_after,
    )


class NotEligible(StrEnum):
    """Why a credit is not given back, in the words that people are told. Of several the first one here is named."""

    REFUNDED = "Credit already refunded"
    NOT_DEDUCTED = "No credit was deducted for this application"
    TOO_OLD = "Application older than 24 hours"


def not_eligible(taken: Entry | None, returned: Entry | None, *, now_ms: int) -> NotEligible | None:
    """Why the credit that `taken` took is not given back now; None: it is. At exactly 24 hours it is too late."""
    if returned is not None:
        return NotEligible.REFUNDED
    if taken is None or taken.state is not KeyState.POSTED:
        return NotEligible.NOT_DEDUCTED
    if now_ms >= taken.at_ms + REFUND_WITHIN_MS:
        return NotEligible.TOO_OLD
    return None


def give_back(
    account: Account,
    known: Entry | None,
    *,
    application: Application,
    taken: Entry | None,
    operation_id: str,
    at_ms: int,
    day: str,
) -> tuple[Account, Entry]:
    """Give the credit back, in the write that has looked whether it may be. The same operation again finds what it did.

    Raises:
        RefundNotEligible: nothing is changed.
    """
    if known is not None and known.facts.get("operation") == operation_id:
        return account, known
    if (why := not_eligible(taken, known, now_ms=at_ms)) is not None:
        raise RefundNotEligible(application=application.id, not_eligible=why.value)
    movement = Movement(
        account=application.account,
        source=application.returning,
        kind=REFUNDED,
        asset=APPLICATION_CREDIT.code,
        reference=application.id,
        transfers=(Transfer(ISSUED_CREDITS, application.account, COST, REFUNDED),),
        facts={"applicationId": application.id, "operation": operation_id},
    )
    return post(account, movement, at_ms=at_ms, day=day)


@dataclass(frozen=True, slots=True)
class Adjustment:
    """An admin adds credits (or takes them, below nothing) for a reason. `id` is the operation's: a repeat finds the first."""

    id: str
    user_id: str
    amount: int
    reason: str
    by: str

    @property
    def account(self) -> str:
        return application_credits_of(self.user_id)

    @property
    def source(self) -> str:
        return f"adjust:{self.id}"


def adjust(
    account: Account, known: Entry | None, *, wanted: Adjustment, at_ms: int, day: str
) -> tuple[Account, Entry]:
    """Add or take, never below zero.

    Raises:
        InsufficientCredits: there are fewer to take; nothing is changed, and the same operation may be tried again.
        KeyReused: the operation stands for another amount.
    """
    number = abs(wanted.amount)
    if wanted.amount > 0:
        transfer = Transfer(ISSUED_CREDITS, wanted.account, number, ADJUSTED)
    else:
        transfer = Transfer(wanted.account, ISSUED_CREDITS, number, ADJUSTED)
    if known is not None:
        if known.transfers != (transfer,):
            raise KeyReused(key=known.key)
        return account, known
    if account.spendable + wanted.amount < 0:
        raise insufficient(required=number, available=account.spendable, account=account.id)
    movement = Movement(
        account=wanted.account,
        source=wanted.source,
        kind=ADJUSTED,
        asset=APPLICATION_CREDIT.code,
        reference=wanted.id,
        transfers=(transfer,),
        facts={"by": wanted.by, "reason": wanted.reason},
    )
    return post(account, movement, at_ms=at_ms, day=day)


def insufficient(*, required: int, available: int, **facts: Any) -> InsufficientCredits:
    """What is missing, and where it is to be had."""
    return InsufficientCredits(
        required_credits=required,
        available_credits=max(0, available),
        missing_credits=required - max(0, available),
        buy_at=BUY_AT,
        **facts,
    )
