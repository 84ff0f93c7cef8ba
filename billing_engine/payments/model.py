"""A payment: money that a payer owes us through a gateway, from the order to the credit. Pure: no I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Purpose(StrEnum):
    """What is credited when the payment is collected."""

    WALLET = "wallet"
    CREDITS = "credits"
    COMPANY = "company"
    PLAN = "plan"


class PaymentStatus(StrEnum):
    """How far a payment has come. It moves forward only, but for one edge: what has failed may still be paid (late authorisation)."""

    #: We want the money; nobody has tried to pay yet, as far as we know.
    CREATED = "CREATED"
    #: Somebody is paying, or nobody knows: the gateway is asked until it is known.
    PENDING = "PENDING"
    #: The last try failed. A later one, or a bank that answers late, may still make it paid.
    FAILED = "FAILED"
    #: Nobody has paid for so long that we ask no more. Should the gateway report money after all, it is taken.
    EXPIRED = "EXPIRED"
    #: The gateway has the money; our ledger's entry follows. Told to the payer as PENDING.
    COLLECTED = "COLLECTED"
    #: Collected and credited.
    PAID = "PAID"
    #: All of it has gone back to the payer.
    REFUNDED = "REFUNDED"


#: What the payer may still do something about, or wait for: the gateway is asked about these.
OPEN: Final = frozenset({PaymentStatus.CREATED, PaymentStatus.PENDING, PaymentStatus.FAILED})
#: What is credited for good, whatever went back later.
FULFILLED: Final = frozenset({PaymentStatus.PAID, PaymentStatus.REFUNDED})
#: A state machine is a table: the statuses from which each one is reached. What is not in it does not happen.
REACHED_FROM: Final[Mapping[PaymentStatus, frozenset[PaymentStatus]]] = {
    # Not from FAILED: of two tries on one order the news may come in any order, and must leave the same status.
    PaymentStatus.PENDING: frozenset({PaymentStatus.CREATED}),
    PaymentStatus.FAILED: frozenset({PaymentStatus.CREATED, PaymentStatus.PENDING}),
    PaymentStatus.EXPIRED: OPEN,
    PaymentStatus.COLLECTED: OPEN | {PaymentStatus.EXPIRED},
    PaymentStatus.PAID: frozenset({PaymentStatus.COLLECTED}),
    PaymentStatus.REFUNDED: frozenset({PaymentStatus.PAID}),
}


@dataclass(frozen=True, slots=True)
class Charge:
    """What a payment without its payer's presence is made of. `method_id` is our id of the means of payment; the words are kept, since
    a gateway takes a repeat for the same only in the same words; `begun_at_ms` is when the gateway was last asked to charge.
    """

    method_id: str
    description: str
    begun_at_ms: int


@dataclass(frozen=True, slots=True)
class Payment:
    """The stored record, in smallest units of `currency`; instants in epoch milliseconds.

    `id` is the operation's that asked for it, and the gateway's receipt: a repeat finds the same one. `account` is the ledger account
    that is credited, fixed here once, since it is part of the entry's key (LEDGER 2). `order_id` is the gateway's order (or checkout
    session), None while nobody knows whether there is one; `collected_id` the gateway's payment that brought the money: the first one,
    and never another. `check_at_ms` says when the gateway is asked next; None: not any more. `refunds` are what has been promised back
    to the payer, by refund: their sum is never above the amount. `shown` is what the payer's client needs to pay (a key id, a URL).
    """

    id: str
    purpose: Purpose
    payer_id: str
    account: str
    amount_minor: int
    currency: str
    gateway: str
    status: PaymentStatus
    created_at_ms: int
    order_id: str | None = None
    collected_id: str | None = None
    check_at_ms: int | None = None
    checks: int = 0
    failure: str | None = None
    refunds: Mapping[str, int] = field(default_factory=dict)
    #: What payers' banks ask back or have taken, by dispute, in the order of coming; 0: it stays with us after all.
    disputes: Mapping[str, int] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)
    #: The payer at the gateway, as the order was made for: a repeat must say the same.
    customer_id: str | None = None
    #: The payer has agreed that the means of payment is kept.
    save_method: bool = False
    #: A saved means of payment is charged; there is no order that anybody could pay.
    charge: Charge | None = None
    #: How many of what was sold (application credits), and under which name: fixed with the amount, whatever the price is later.
    quantity: int = 0
    item: str = ""
    #: Rises with every write: what it is compared with.
    revision: int = 0

    @property
    def refunded_minor(self) -> int:
        """What is promised back, whether it has arrived or not."""
        return sum(self.refunds.values())

    @property
    def refundable_minor(self) -> int:
        """What may still be promised back: what is disputed counts as gone until it is won."""
        return max(0, self.amount_minor - self.refunded_minor - sum(self.disputes.values()))


class AttemptStatus(StrEnum):
    """What the gateway says of one try to pay."""

    PENDING = "PENDING"
    #: The bank has agreed; the money is ours only when it is captured.
    AUTHORIZED = "AUTHORIZED"
    COLLECTED = "COLLECTED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to pay an order, in the gateway's words put into ours. `reference` is our payment's id, where the gateway repeats it.

    `method` is a means of payment that may be charged again without its owner, where the payer has agreed to that.
    """

    id: str
    order_id: str | None
    reference: str | None
    amount_minor: int
    currency: str
    status: AttemptStatus
    at_ms: int
    refunded_minor: int = 0
    failure: str | None = None
    method: "SavedMethod | None" = None


@dataclass(frozen=True, slots=True)
class SavedMethod:
    """A card or a mandate at the gateway. `customer_id` and `id` are the gateway's; `label` is for people (`visa •••• 4242`)."""

    id: str
    customer_id: str
    label: str


class RefundStatus(StrEnum):
    """What the gateway says of a refund to the payer."""

    PENDING = "PENDING"
    DONE = "DONE"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class GatewayRefund:
    """Money on its way back to the payer. `reference` is our refund's id, where the gateway repeats it."""

    id: str
    payment_id: str
    reference: str | None
    amount_minor: int
    currency: str
    status: RefundStatus
    at_ms: int


class DisputeStatus(StrEnum):
    """A payer's bank asks for the money back."""

    OPEN = "OPEN"
    #: The money stays with us.
    WON = "WON"
    #: The gateway has taken the money.
    LOST = "LOST"


@dataclass(frozen=True, slots=True)
class GatewayDispute:
    """A dispute about one payment."""

    id: str
    payment_id: str
    amount_minor: int
    currency: str
    status: DisputeStatus
    reason: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class MethodNews:
    """A means of payment may be charged from now on while its owner is away, or cannot be any more. `reference` is the wish's that it
    was kept for, where the gateway repeats it.
    """

    method: SavedMethod
    is_usable: bool
    reference: str | None = None


class SubscriptionHint(StrEnum):
    """What an event says of a subscription; what is true, the gateway is asked for."""

    CHANGED = "CHANGED"
    INVOICE_PAID = "INVOICE_PAID"
    PAYMENT_FAILED = "PAYMENT_FAILED"
    #: The payer's bank wants the payer to confirm.
    ACTION_REQUIRED = "ACTION_REQUIRED"


@dataclass(frozen=True, slots=True)
class SubscriptionNews:
    """Something has happened to a subscription at the gateway; whether it is one of ours, the gateway's answer tells."""

    subscription_id: str
    kind: SubscriptionHint


@dataclass(frozen=True, slots=True)
class GatewayEvent:
    """One signed message of a gateway. `id` is its own and the same when it is sent again. At most one of the five is set: what is
    none of them does not concern us.
    """

    id: str
    kind: str
    at_ms: int
    attempt: Attempt | None = None
    refund: GatewayRefund | None = None
    dispute: GatewayDispute | None = None
    method: MethodNews | None = None
    subscription: SubscriptionNews | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What the gateway made of our wish to be paid. `shown` is what the payer's client needs to pay it."""

    id: str
    shown: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Wish:
    """We want to be paid. `reference` is our payment's id; a repeat with it answers the same order.

    `customer_id` is the payer at the gateway, with `save_method` the means of payment is kept for later charges.
    """

    reference: str
    amount_minor: int
    currency: str
    description: str
    payer_email: str
    customer_id: str | None = None
    save_method: bool = False
