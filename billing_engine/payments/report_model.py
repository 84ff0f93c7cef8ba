"""What the daily comparison of our books with a gateway's list can find, and what to do about it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class ReportStatus(StrEnum):
    """How a comparison ended."""

    CLEAN = "CLEAN"
    DIFFERENCES = "DIFFERENCES"
    #: Nobody knows: something that had to be asked did not answer. It is made again later, and is never called clean.
    UNAVAILABLE = "UNAVAILABLE"


class DifferenceKind(StrEnum):
    """What does not agree."""

    NOT_CREDITED = "NOT_CREDITED"
    NOT_COLLECTED = "NOT_COLLECTED"
    AMOUNT_DIFFERS = "AMOUNT_DIFFERS"
    UNKNOWN_PAYMENT = "UNKNOWN_PAYMENT"
    PAID_TWICE = "PAID_TWICE"
    RECORD_ALONE = "RECORD_ALONE"
    REFUND_NOT_BOOKED = "REFUND_NOT_BOOKED"
    REFUND_NOT_SENT = "REFUND_NOT_SENT"
    REFUND_AMOUNT_DIFFERS = "REFUND_AMOUNT_DIFFERS"


#: For the person who reads it in the morning.
WHAT_TO_DO: Final[Mapping[DifferenceKind, str]] = {
    DifferenceKind.NOT_CREDITED: (
        "The gateway has the payer's money and the ledger has no credit. Look for this payment in the log; when the cause "
        "is gone, make the report again, which credits it."
    ),
    DifferenceKind.NOT_COLLECTED: (
        "The ledger has a credit for which the gateway has no money. Stop taking payments through this gateway, run "
        "verify-ledger, and find out who wrote the entry."
    ),
    DifferenceKind.AMOUNT_DIFFERS: (
        "The gateway has taken another amount or currency than the order asked for. Nothing is credited by itself: refund "
        "it at the gateway, or settle it with the payer."
    ),
    DifferenceKind.UNKNOWN_PAYMENT: (
        "The gateway's payment names a payment that is not in this database. After a restore: credit or refund the payer "
        "by hand. Else another deployment uses the same keys."
    ),
    DifferenceKind.PAID_TWICE: (
        "An order was paid twice and the second payment has not gone back. Make the report again; if it stays, refund it "
        "at the gateway."
    ),
    DifferenceKind.RECORD_ALONE: (
        "The payment's record says that it was paid; neither the ledger nor the gateway knows of it. No money is missing: "
        "find out who wrote the record."
    ),
    DifferenceKind.REFUND_NOT_BOOKED: (
        "The gateway has sent money back and the ledger has not taken it. Look for this refund in the log; when the cause "
        "is gone, make the report again, which books it."
    ),
    DifferenceKind.REFUND_NOT_SENT: (
        "The ledger has taken a refund that the gateway has not sent. The payer waits: refund it at the gateway by hand, "
        "or find out why it refused."
    ),
    DifferenceKind.REFUND_AMOUNT_DIFFERS: (
        "A refund is of another amount or currency at the gateway than here. Compare both, and settle the rest with the "
        "payer."
    ),
}


@dataclass(frozen=True, slots=True)
class Amount:
    """Money in smallest units."""

    minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that does not agree. `our_id` is a payment's or a refund's, `gateway_id` the gateway's; None: there is none."""

    kind: DifferenceKind
    our_id: str | None
    gateway_id: str | None
    ours: Amount | None
    theirs: Amount | None

    @property
    def what_to_do(self) -> str:
        """For people."""
        return WHAT_TO_DO[self.kind]


@dataclass(frozen=True, slots=True)
class Foreign:
    """A payment or refund at the gateway that is none of ours: somebody else's shop under the same keys, or made by hand."""

    gateway_id: str
    amount: Amount
    is_refund: bool


@dataclass(frozen=True, slots=True)
class Report:
    """The comparison of one gateway's local day. `healed` did not agree when it was found and does now. `not_ours` may be cut short;
    `foreign` counts all of it. `problem` says why nobody knows.
    """

    gateway: str
    day: str
    made_at_ms: int
    status: ReportStatus
    collected: int = 0
    credited: int = 0
    refunded: int = 0
    foreign: int = 0
    differences: tuple[Difference, ...] = ()
    healed: tuple[Difference, ...] = ()
    not_ours: tuple[Foreign, ...] = ()
    problem: str | None = None
