"""Money that goes back to its payer through the gateway: the records of refunds and disputes, and their schedule. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from billing_engine.payments.model import DisputeStatus, Payment, PaymentStatus, RefundStatus

#: Prefixes of the holds, which are also the sources of the entries that end them.
REFUND_PREFIX: Final = "payer-refund:"
DISPUTE_PREFIX: Final = "dispute:"
#: What of a payment's money is ours to send back.
REFUNDABLE: Final = frozenset({PaymentStatus.PAID, PaymentStatus.REFUNDED})


class PayerRefundStatus(StrEnum):
    """REQUESTED → PENDING → DONE | FAILED, or REQUESTED → REFUSED. What was done may still fail: banks send money back."""

    REQUESTED = "REQUESTED"
    #: The money is set aside, and the gateway is asked until it is known.
    PENDING = "PENDING"
    DONE = "DONE"
    #: The gateway has not sent it, or has it back: it is in the wallet again.
    FAILED = "FAILED"
    #: Nothing was set aside, since there was not enough.
    REFUSED = "REFUSED"


#: Of what a gateway says, the later word: news comes in any order, and money that has come back does not leave again.
_RANK: Final[Mapping[RefundStatus, int]] = {
    RefundStatus.PENDING: 1,
    RefundStatus.DONE: 2,
    RefundStatus.FAILED: 3,
}


@dataclass(frozen=True, slots=True)
class PayerRefund:
    """The stored record of one refund to the payer; money in smallest units, instants in epoch milliseconds.

    `id` is the operation's that asked for it, and the gateway's reference. `by` is the admin; None: it was begun at the gateway, as by
    its dashboard, and `id` is made of the gateway's own. `heard` is what the gateway has said last, by rank and not by time of coming.
    `check_at_ms` says when it is looked at next: None once nothing is left to do.
    """

    id: str
    payment_id: str
    payer_id: str
    account: str
    gateway: str
    attempt_id: str
    amount_minor: int
    currency: str
    reason: str
    created_at_ms: int
    by: str | None
    status: PayerRefundStatus = PayerRefundStatus.REQUESTED
    heard: RefundStatus | None = None
    failure: str | None = None
    gateway_id: str | None = None
    check_at_ms: int | None = None
    checks: int = 0
    revision: int = 0

    @property
    def hold_id(self) -> str:
        """The hold's id and the source of the entry that ends it."""
        return f"{REFUND_PREFIX}{self.id}"

    @property
    def returned_source(self) -> str:
        """The source of the entry that puts the money back, should it return after it was sent."""
        return f"{self.hold_id}:returned"


@dataclass(frozen=True, slots=True)
class Dispute:
    """The stored record of one dispute. `status` is the gateway's word and `word_at_ms` when it said so: of two final words the later
    one counts. `frozen_minor` is what is, or was, taken out of the wallet for it.
    """

    id: str
    dispute_id: str
    payment_id: str
    payer_id: str
    account: str
    gateway: str
    amount_minor: int
    currency: str
    reason: str
    created_at_ms: int
    status: DisputeStatus = DisputeStatus.OPEN
    word_at_ms: int = 0
    frozen_minor: int = 0
    decided_at_ms: int | None = None
    revision: int = 0

    @property
    def hold_id(self) -> str:
        """The hold's id and the source of the entry that ends it."""
        return f"{DISPUTE_PREFIX}{self.id}"

    def source(self, number: int) -> str:
        """The source of the dispute's entry of that number, from 1 on: a later word has a later entry."""
        return self.hold_id if number == 1 else f"{self.hold_id}:{number}"


def refund_outside(gateway: str, gateway_id: str) -> str:
    """The id of a refund that was begun at the gateway."""
    return f"outside-{gateway}-{gateway_id}"


def second_payment(attempt_id: str) -> str:
    """The reference of what is sent back because an order was paid twice: it never was credited."""
    return f"second-{attempt_id}"


def dispute_name(gateway: str, dispute_id: str) -> str:
    """Our id of a dispute."""
    return f"{gateway}-{dispute_id}"


def outranks(news: RefundStatus, known: RefundStatus | None) -> bool:
    """Whether the news is the later word."""
    return known is None or _RANK[news] > _RANK[known]


def counts_more(status: DisputeStatus, at_ms: int, known: Dispute) -> bool:
    """Whether the news is the later word on a dispute. A final word stands against every open one; of two in one instant it is lost,
    since gateways' instants are whole seconds and the money is then rather gone.
    """
    rank = {DisputeStatus.OPEN: 0, DisputeStatus.WON: 1, DisputeStatus.LOST: 2}
    if status is DisputeStatus.OPEN or known.status is DisputeStatus.OPEN:
        return status is not DisputeStatus.OPEN
    return (at_ms, rank[status]) > (known.word_at_ms, rank[known.status])


def bounds_of(payment: Payment) -> dict[str, int]:
    """What each dispute may take out of the wallet: of what was paid, what has not gone back, and no paisa for two of them."""
    left_minor = max(0, payment.amount_minor - payment.refunded_minor)
    bounds = {}
    for name, amount_minor in payment.disputes.items():
        bounds[name] = min(amount_minor, left_minor)
        left_minor -= bounds[name]
    return bounds


_FIRST_MS: Final = 2_000
_LONGEST_MS: Final = 3_600_000
#: How long whoever asks for a refund may take, until somebody else goes on with it.
BEGUN_MS: Final = 15_000


def next_look_ms(refund: PayerRefund, now_ms: int) -> int:
    """When the gateway is asked next: within seconds, then less and less often, as a bank may take days."""
    return now_ms + min(_FIRST_MS << min(refund.checks, 20), _LONGEST_MS)
