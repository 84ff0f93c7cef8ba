"""What payments need from the outside, in their own words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from billing_engine.payments.model import (
    Attempt,
    GatewayEvent,
    GatewayRefund,
    Order,
    Payment,
    SavedMethod,
    Wish,
)


class Gateway(Protocol):
    """A payment gateway. Every adapter passes `tests/contract/gateway_contract.py`.

    Every method but the last two asks the gateway and raises `GatewayUnavailable` when the outcome is not known (no answer in time, a
    lost reply, 429, 5xx, an answer that is none): whether it was done is then unknown, and a repeat is harmless, since `reference` and
    `key` name what was asked for. `GatewayRefused`: the gateway has understood and will not; nothing was done.
    """

    name: str
    #: What it can be paid in.
    currencies: frozenset[str]
    #: Whether a payment is collected without anybody doing anything: the simulated one.
    is_instant: bool

    async def create_order(self, wish: Wish) -> Order:
        """An order to pay, or a page to pay at. The same order for the same reference."""
        ...

    async def attempts(self, order_id: str) -> Sequence[Attempt]:
        """Every try to pay the order that the gateway knows of."""
        ...

    async def attempt(self, attempt_id: str) -> Attempt:
        """One try to pay."""
        ...

    async def capture(self, attempt: Attempt) -> Attempt:
        """Take what the bank has agreed to. What is taken already is answered as it is."""
        ...

    async def refund(
        self, attempt_id: str, *, amount_minor: int, currency: str, reference: str
    ) -> GatewayRefund:
        """Send money back to the payer, once per reference."""
        ...

    async def refunds(self, attempt_id: str) -> Sequence[GatewayRefund]:
        """Every refund of a payment that the gateway knows of: a refund in doubt is looked for here."""
        ...

    async def charge_saved(self, wish: Wish, method: SavedMethod) -> Attempt:
        """Charge a saved means of payment while its owner is away, once per reference.

        Raises:
            GatewayRefused: the bank declines, or wants its owner there.
            NotSupported: this gateway cannot.
        """
        ...

    async def find_charge(self, wish: Wish, method: SavedMethod) -> Attempt | None:
        """What became of the charge of this reference, failed or not; None: the gateway has never heard of it. Nothing is charged."""
        ...

    async def forget_method(self, method: SavedMethod) -> None:
        """The means of payment cannot be charged any more. Harmless when it is gone."""
        ...

    async def attempts_between(self, from_ms: int, to_ms: int) -> Sequence[Attempt]:
        """Every try to pay that was begun in [from, to): for the daily comparison."""
        ...

    async def refunds_between(self, from_ms: int, to_ms: int) -> Sequence[GatewayRefund]:
        """Every refund that was begun in [from, to)."""
        ...

    def verify_callback(self, order_id: str, attempt_id: str, signature: str) -> bool:
        """Whether the gateway itself signed that this try paid *our* order. False for anything that is no signature."""
        ...

    def read_webhook(self, body: bytes, headers: Mapping[str, str]) -> GatewayEvent:
        """The event in a raw body. Header names are in lower case. Raises `WebhookInvalid`: it was not signed by the gateway,
        signed too long ago, or is no event.
        """
        ...


class MethodGateway(Gateway, Protocol):
    """A gateway where a payer can leave a means of payment without paying. Failures as in `Gateway`."""

    async def setup_order(self, wish: Wish) -> Order:
        """A page to leave a means of payment at. Nothing is charged: the wish's amount is 0, its currency the later charges'."""
        ...

    async def kept_method(self, order_id: str) -> SavedMethod | None:
        """What the payer left there; None as long as nothing is."""
        ...


class Payments(Protocol):
    """The stored payments. All methods raise `Unavailable`."""

    async def add(self, payment: Payment) -> bool:
        """Insert; False if the id exists."""
        ...

    async def get(self, payment_id: str) -> Payment | None: ...

    async def of_order(self, gateway: str, order_id: str) -> Payment | None:
        """The payment that an order of the gateway is for."""
        ...

    async def of_attempt(self, gateway: str, attempt_id: str) -> Payment | None:
        """The payment that this try brought the money of."""
        ...

    async def replace(self, payment: Payment, *, expect_revision: int) -> bool:
        """Compare-and-set on the revision; whether it was."""
        ...

    async def due(self, now_ms: int, *, limit: int) -> list[Payment]:
        """Those whose gateway is to be asked by now, the longest due first."""
        ...

    async def list_for(self, payer_id: str, *, limit: int, before: tuple[int, str] | None) -> list[Payment]:
        """The payer's, newest first; `before` is (created_at_ms, id) of the last one of the previous page."""
        ...

    async def unpaid(self, payer_id: str) -> int:
        """How many of the payer's wait to be paid: what has failed does not, though it may still be paid."""
        ...

    async def between(self, gateway: str, from_ms: int, to_ms: int) -> list[Payment]:
        """Those of the gateway created in [from, to), oldest first."""
        ...


class InboxState(StrEnum):
    """What became of a gateway's event."""

    NEW = "NEW"
    DONE = "DONE"
    #: It concerns nothing of ours.
    IGNORED = "IGNORED"


@dataclass(frozen=True, slots=True)
class Letter:
    """A gateway's event, in our words: stored before it is answered, worked off after. What else the gateway wrote about the payer is
    not kept.
    """

    id: str
    gateway: str
    event: GatewayEvent
    received_at_ms: int
    state: InboxState = InboxState.NEW


class Inbox(Protocol):
    """The stored events of all gateways. All methods raise `Unavailable`."""

    async def add(self, letter: Letter) -> bool:
        """Insert; False if it came before."""
        ...

    async def get(self, letter_id: str) -> Letter | None: ...

    async def settle(self, letter_id: str, state: InboxState) -> None:
        """Say what became of it, once."""
        ...

    async def waiting(self, *, received_before_ms: int, limit: int) -> list[Letter]:
        """Those that are NEW and came before then, oldest first."""
        ...

    async def drop_settled(self, *, received_before_ms: int, limit: int) -> int:
        """Delete those that are not NEW and came before then; how many there were."""
        ...


class MethodKeeper(Protocol):
    """What payments have to do with saved means of payment. All methods raise `Unavailable`."""

    async def customer_of(self, payer_id: str, gateway: str) -> str | None:
        """Who the payer is at the gateway, if it has kept a means of payment of theirs."""
        ...

    async def order_refused(self, payment: Payment) -> None:
        """The gateway has refused an order for a customer: maybe it knows the customer no more, and must not be asked for it again."""
        ...

    async def collected(self, payment: Payment, attempt: Attempt) -> None:
        """The try brought the money of a payment with `save_method`. Told before that is stored, and maybe more than once."""
        ...

    async def ask_charge(self, payment: Payment) -> Payment:
        """What became of a charge in doubt, learned."""
        ...


class PaymentObserver(Protocol):
    """Hears of payments after they are durable; must not raise and never waits."""

    def credited(self, payment: Payment) -> None:
        """The account has the money."""
        ...

    def trouble(self, what: str, payment: Payment, **facts: Any) -> None:
        """Something that a person has to look at: money that does not fit its order, a second payment of one order."""
        ...
