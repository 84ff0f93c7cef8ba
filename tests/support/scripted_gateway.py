"""A gateway in memory that outlives the processes of a test: what it knows is the truth, what they hear of it is up to the test."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from billing_engine.payments.errors import GatewayRefused, GatewayUnavailable, WebhookInvalid
from billing_engine.payments.model import (
    Attempt,
    AttemptStatus,
    GatewayEvent,
    GatewayRefund,
    Order,
    RefundStatus,
    SavedMethod,
    Wish,
)


@dataclass
class ScriptedGateway:
    """`Gateway` as Razorpay behaves: orders, tries, captures, refunds by reference. Events are tuples: nothing is signed here."""

    name: str = "razorpay"
    currencies: frozenset[str] = frozenset({"INR", "USD"})
    is_instant: bool = False
    orders: dict[str, Wish] = field(default_factory=dict)
    tries: dict[str, Attempt] = field(default_factory=dict)
    sent_back: dict[str, GatewayRefund] = field(default_factory=dict)
    #: Every call fails while it is set, done or not.
    is_down: bool = False
    #: The next calls do what they are asked and their answers are lost.
    lost_answers: int = 0
    captures: list[str] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    # -- what a payer and his bank do

    def pay(self, order_id: str, *, status: AttemptStatus = AttemptStatus.COLLECTED) -> Attempt:
        """One try to pay the order, which is then in this status."""
        wish = self.orders[order_id]
        attempt = Attempt(
            id=f"pay_{next(self._numbers)}",
            order_id=order_id,
            reference=wish.reference,
            amount_minor=wish.amount_minor,
            currency=wish.currency,
            status=status,
            at_ms=0,
        )
        self.tries[attempt.id] = attempt
        return attempt

    def becomes(self, attempt_id: str, status: AttemptStatus, failure: str | None = None) -> Attempt:
        attempt = replace(self.tries[attempt_id], status=status, failure=failure)
        self.tries[attempt_id] = attempt
        return attempt

    # -- what we ask

    def _answer(self) -> None:
        if self.is_down:
            raise GatewayUnavailable(reason="down")

    def _answered(self) -> None:
        if self.lost_answers > 0:
            self.lost_answers -= 1
            raise GatewayUnavailable(reason="its answer was lost")

    async def create_order(self, wish: Wish) -> Order:
        self._answer()
        order_id = f"order_{wish.reference}"
        known = self.orders.setdefault(order_id, wish)
        assert known == wish, "the same reference with another wish"
        self._answered()
        return Order(order_id, {"keyId": "key", "amount": str(wish.amount_minor)})

    async def attempts(self, order_id: str) -> Sequence[Attempt]:
        self._answer()
        return [attempt for attempt in self.tries.values() if attempt.order_id == order_id]

    async def attempt(self, attempt_id: str) -> Attempt:
        self._answer()
        if attempt_id not in self.tries:
            raise GatewayRefused(reason="NO_SUCH_PAYMENT")
        return self.tries[attempt_id]

    async def capture(self, attempt: Attempt) -> Attempt:
        self._answer()
        known = self.tries[attempt.id]
        if known.status is AttemptStatus.FAILED:
            raise GatewayRefused(reason="FAILED")
        self.captures.append(attempt.id)
        taken = self.becomes(attempt.id, AttemptStatus.COLLECTED)
        self._answered()
        return taken

    async def refund(
        self, attempt_id: str, *, amount_minor: int, currency: str, reference: str
    ) -> GatewayRefund:
        self._answer()
        known = self.sent_back.get(reference)
        if known is None:
            attempt = self.tries[attempt_id]
            if attempt.refunded_minor + amount_minor > attempt.amount_minor:
                raise GatewayRefused(reason="TOO_MUCH")
            self.tries[attempt_id] = replace(attempt, refunded_minor=attempt.refunded_minor + amount_minor)
            known = self.sent_back[reference] = GatewayRefund(
                id=f"rfnd_{next(self._numbers)}",
                payment_id=attempt_id,
                reference=reference,
                amount_minor=amount_minor,
                currency=currency,
                status=RefundStatus.DONE,
                at_ms=0,
            )
        self._answered()
        return known

    async def refunds(self, attempt_id: str) -> Sequence[GatewayRefund]:
        self._answer()
        return [refund for refund in self.sent_back.values() if refund.payment_id == attempt_id]

    async def charge_saved(self, wish: Wish, method: SavedMethod) -> Attempt:
        self._answer()
        del method
        order = await self.create_order(wish)
        for attempt in self.tries.values():
            if attempt.order_id == order.id:
                return attempt
        return self.pay(order.id)

    async def forget_method(self, method: SavedMethod) -> None:
        self._answer()
        del method

    async def attempts_between(self, from_ms: int, to_ms: int) -> Sequence[Attempt]:
        self._answer()
        return [attempt for attempt in self.tries.values() if from_ms <= attempt.at_ms < to_ms]

    async def refunds_between(self, from_ms: int, to_ms: int) -> Sequence[GatewayRefund]:
        self._answer()
        return [refund for refund in self.sent_back.values() if from_ms <= refund.at_ms < to_ms]

    def signature(self, order_id: str, attempt_id: str) -> str:
        """As the gateway would sign it."""
        return f"signed:{order_id}|{attempt_id}"

    def verify_callback(self, order_id: str, attempt_id: str, signature: str) -> bool:
        return signature == self.signature(order_id, attempt_id)

    def read_webhook(self, body: bytes, headers: Mapping[str, str]) -> GatewayEvent:
        """`event ATTEMPT_ID STATUS`, signed by a header."""
        if headers.get("signature") != f"signed:{body.decode()}":
            raise WebhookInvalid(reason="not signed")
        event_id, attempt_id, status = body.decode().rsplit(maxsplit=2)
        attempt = replace(self.tries[attempt_id], status=AttemptStatus(status))
        return GatewayEvent(event_id, "payment", 0, attempt=attempt)

    def event(self, event_id: str, attempt: Attempt) -> tuple[bytes, dict[str, str]]:
        """Body and headers of an event that says what the attempt says."""
        body = f"{event_id} {attempt.id} {attempt.status.value}"
        return body.encode(), {"signature": f"signed:{body}"}
