"""What was given back of a consultation, and what is asked for. Arithmetic and states only, no clock and no I/O.

Each session has one *book* of the admins' decisions about it. A decision is one compare-and-set on the book, which is also where
the bound stands: the sum of the refunds is never above what the session cost. The ledger's entry, the request's record and the
letter follow, each by the decision's id, and a decision is *settled* when all of them have.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from billing_engine.consultations.model import Session
from billing_engine.ledger.accounts import REVENUE_CONSULTATIONS, earnings_of, wallet_of
from billing_engine.ledger.model import KeyReused, Movement, Transfer
from billing_engine.refunds.errors import RefundRequestDecided, RefundTooLarge

REFUND: Final = "consultation_refund"
REFUND_NET: Final = "consultation_refund_net"
REFUND_COMMISSION: Final = "consultation_refund_commission"
#: A reversal may take earnings below zero, whatever they are: a receivable (LEDGER 5).
_NO_FLOOR: Final = -(2**62)


@dataclass(frozen=True, slots=True)
class Decision:
    """An admin gives `amount_minor` back, of which the platform pays `commission_minor` and the lawyer the rest. An amount of
    nothing is a request that is turned down. `answers_request`: the id is that of a user's request.
    """

    id: str
    amount_minor: int
    commission_minor: int
    at_ms: int
    by: str
    reason: str
    answers_request: bool = False
    is_settled: bool = False

    @property
    def net_minor(self) -> int:
        """The lawyer's share."""
        return self.amount_minor - self.commission_minor

    @property
    def is_refund(self) -> bool:
        return self.amount_minor > 0


@dataclass(frozen=True, slots=True)
class RefundBook:
    """Every decision about one ended session, in their order. `revision` rises with each write: what it is compared with."""

    session_id: str
    user_id: str
    lawyer_id: str
    currency: str
    gross_minor: int
    commission_minor: int
    decisions: tuple[Decision, ...] = ()
    revision: int = 0

    @property
    def refunded_minor(self) -> int:
        """What has been given back, or is on its way: decisions are completed and never taken back."""
        return sum(decision.amount_minor for decision in self.decisions)

    @property
    def refundable_minor(self) -> int:
        """What can still be given back."""
        return self.gross_minor - self.refunded_minor

    @property
    def net_back_minor(self) -> int:
        """What the lawyer has given back."""
        return sum(decision.net_minor for decision in self.decisions)

    @property
    def is_open(self) -> bool:
        """Whether something of a decision is still to be done."""
        return any(not decision.is_settled for decision in self.decisions)

    def decision(self, decision_id: str) -> Decision | None:
        return next((one for one in self.decisions if one.id == decision_id), None)

    def refunded_up_to(self, decision: Decision) -> int:
        """What had been given back right after this decision."""
        upto = 0
        for one in self.decisions:
            upto += one.amount_minor
            if one.id == decision.id:
                break
        return upto


def book_of(session: Session) -> RefundBook:
    """An ended session's book before any decision."""
    return RefundBook(
        session_id=session.id,
        user_id=session.user_id,
        lawyer_id=session.lawyer_id,
        currency=session.currency,
        gross_minor=session.total_minor,
        commission_minor=session.commission_minor,
    )


def commission_back(book: RefundBook, refunded_minor: int) -> int:
    """What of the commission is given back once so much of the price is. The parts of any refunds add up to it, whatever their
    sizes, since each takes the difference of two of these: the whole price back is the whole commission back.
    """
    return book.commission_minor * refunded_minor // book.gross_minor if refunded_minor else 0


@dataclass(frozen=True, slots=True)
class Order:
    """What an admin decides, at which instant and why. `amount_minor` None: all that is left."""

    id: str
    amount_minor: int | None
    at_ms: int
    by: str
    reason: str
    answers_request: bool = False


def refund(book: RefundBook, order: Order) -> tuple[RefundBook, Decision]:
    """Decide a refund. A repeat answers the first decision.

    Raises:
        RefundTooLarge: more than what is left; nothing is changed.
        RefundRequestDecided: the request was turned down.
        KeyReused: the id stands for another amount.
    """
    known = book.decision(order.id)
    if known is not None:
        if not known.is_refund:
            raise RefundRequestDecided(request=order.id)
        # Whoever approves a request again may have meant another amount: the first one stands.
        if not order.answers_request and known.amount_minor != order.amount_minor:
            raise KeyReused(key=order.id)
        return book, known
    amount_minor = book.refundable_minor if order.amount_minor is None else order.amount_minor
    if not 0 < amount_minor <= book.refundable_minor:
        raise RefundTooLarge(session=book.session_id, available_minor=book.refundable_minor)
    before = book.refunded_minor
    commission = commission_back(book, before + amount_minor) - commission_back(book, before)
    decision = Decision(
        id=order.id,
        amount_minor=amount_minor,
        commission_minor=commission,
        at_ms=order.at_ms,
        by=order.by,
        reason=order.reason,
        answers_request=order.answers_request,
    )
    return _with(book, decision), decision


def reject(book: RefundBook, order: Order) -> tuple[RefundBook, Decision]:
    """Decide that a request is turned down. A repeat answers the first decision. Raises `RefundRequestDecided`: it was approved."""
    known = book.decision(order.id)
    if known is not None:
        if known.is_refund:
            raise RefundRequestDecided(request=order.id)
        return book, known
    decision = Decision(order.id, 0, 0, order.at_ms, order.by, order.reason, answers_request=True)
    return _with(book, decision), decision


def settle(book: RefundBook, decision_id: str) -> RefundBook:
    """Everything of the decision is done."""
    known = book.decision(decision_id)
    if known is None or known.is_settled:
        return book
    decisions = tuple(replace(one, is_settled=True) if one is known else one for one in book.decisions)
    return replace(book, decisions=decisions, revision=book.revision + 1)


def movement_of(book: RefundBook, decision: Decision) -> Movement:
    """The ledger's side of a refund. It commits on the lawyer's earnings; a share of nothing has no transfer."""
    wallet, earnings = wallet_of(book.user_id), earnings_of(book.lawyer_id)
    shares = (
        Transfer(earnings, wallet, decision.net_minor, REFUND_NET),
        Transfer(REVENUE_CONSULTATIONS, wallet, decision.commission_minor, REFUND_COMMISSION),
    )
    return Movement(
        account=earnings,
        source=source_of(decision.id),
        kind=REFUND,
        asset=book.currency,
        reference=book.session_id,
        transfers=tuple(share for share in shares if share.amount_minor > 0),
        floor=_NO_FLOOR,
        facts={
            "refundId": decision.id,
            "sessionId": book.session_id,
            "user": book.user_id,
            "lawyer": book.lawyer_id,
            "amount": decision.amount_minor,
            "commission": decision.commission_minor,
            "net": decision.net_minor,
            "by": decision.by,
        },
    )


def source_of(decision_id: str) -> str:
    """The ledger's name of a refund."""
    return f"refund:{decision_id}"


def _with(book: RefundBook, decision: Decision) -> RefundBook:
    return replace(book, decisions=(*book.decisions, decision), revision=book.revision + 1)


class RequestStatus(StrEnum):
    """OPEN → APPROVED | REJECTED."""

    OPEN = "OPEN"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """A user asks for money of a session back: `amount_minor`, or None for all that is left. `number` counts the session's requests.

    How it was decided is copied from the book: by whom, why (`answer`) and how much was given back.
    """

    id: str
    session_id: str
    number: int
    user_id: str
    lawyer_id: str
    currency: str
    amount_minor: int | None
    reason: str
    created_at_ms: int
    operation_id: str
    status: RequestStatus = RequestStatus.OPEN
    decided_at_ms: int | None = None
    decided_by: str | None = None
    answer: str | None = None
    refunded_minor: int = 0


def request_id_of(session_id: str, number: int) -> str:
    """The id of a session's request number `number`: two people or devices cannot file it both."""
    return f"{session_id}-{number}"


def decided(request: RefundRequest, decision: Decision) -> RefundRequest:
    """The request's record once the book has its decision."""
    return replace(
        request,
        status=RequestStatus.APPROVED if decision.is_refund else RequestStatus.REJECTED,
        decided_at_ms=decision.at_ms,
        decided_by=decision.by,
        answer=decision.reason,
        refunded_minor=decision.amount_minor,
    )
