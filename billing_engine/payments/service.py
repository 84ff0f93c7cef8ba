"""From the wish to be paid to the credit in the ledger: once, whoever brings the news, in whatever order, and however often.

What is known of a payment is one document that moves forward by compare-and-set; what is credited is one entry of the ledger whose key
is the gateway's own payment. Callback, webhook and our own question bring the same kind of news, an `Attempt`, to the same method.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from billing_engine.clock import Clock
from billing_engine.errors import BillingError, InvariantBroken, Unavailable
from billing_engine.ledger.model import Entry, Movement
from billing_engine.ledger.service import Ledger
from billing_engine.payments.errors import (
    GatewayRefused,
    GatewayUnavailable,
    PaymentNotFound,
    SignatureInvalid,
)
from billing_engine.payments.model import (
    OPEN,
    REACHED_FROM,
    Attempt,
    AttemptStatus,
    Payment,
    PaymentStatus,
    Purpose,
    Wish,
)
from billing_engine.payments.ports import Gateway, MethodKeeper, PaymentObserver, Payments
from billing_engine.payments.schedule import is_given_up, next_check_ms

log = logging.getLogger(__name__)

#: How often a compare-and-set may lose to another process before somebody is told to come again.
_ATTEMPTS: Final = 20
#: Payments that are asked about at once, and in one round.
_AT_ONCE: Final = 8
_PER_ROUND: Final = 200


@dataclass(frozen=True, slots=True)
class Due:
    """What somebody is to pay, and for what."""

    purpose: Purpose
    payer_id: str
    payer_email: str
    account: str
    amount_minor: int
    currency: str
    description: str
    save_method: bool = False
    quantity: int = 0
    item: str = ""


class PaymentService:
    """Payments through the gateways of this deployment. `movements` says, by purpose, what a collected payment moves."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Clock,
        payments: Payments,
        gateways: Mapping[str, Gateway],
        movements: Mapping[Purpose, Callable[[Payment], Movement]],
        observer: PaymentObserver,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._payments = payments
        self._gateways = gateways
        self._movements = movements
        self._observer = observer
        #: What a collected payment brings beside its movement, by purpose; done before the payment is PAID, and again after a crash,
        #: so each step of it is harmless when repeated. Set once both are built.
        self.fulfil: dict[Purpose, Callable[[Payment], Awaitable[None]]] = {}
        #: How a collected payment is booked, by purpose, where its movement's write is to do more; once, by the movement's source. Set
        #: once both are built.
        self.book: dict[Purpose, Callable[[Payment], Awaitable[Entry]]] = {}
        #: Hears by purpose that a payment is about to be FAILED, before it is written, and so maybe more than once.
        self.on_failed: dict[Purpose, Callable[[Payment, str], Awaitable[None]]] = {}
        #: Set once both are built.
        self.keeper: MethodKeeper | None = None
        #: Hears of a collected try of which the gateway says that some of it has gone back. Set once both are built.
        self.on_refunded: Callable[[Payment, Attempt], Awaitable[None]] | None = None

    def gateway(self, name: str) -> Gateway:
        """The gateway of that name. Raises `GatewayUnavailable` for one that is not set up here: its keys may come back."""
        found = self._gateways.get(name)
        if found is None:
            raise GatewayUnavailable(reason="this gateway is not set up", gateway=name)
        return found

    # -- asking to be paid -------------------------------------------------------------------------------------------

    async def begin(self, due: Due, *, gateway: str, operation_id: str) -> Payment:
        """Make the order that the payer pays; the same payment for the same operation. With an instant gateway it comes back PAID.

        Raises:
            GatewayRefused: the gateway will not take this payment.
            Unavailable: nobody knows whether the order was made; a repeat finds it.
        """
        payment = await self._payments.get(operation_id)
        if payment is None:
            payment = await self._add(due, gateway, operation_id)
        if payment.order_id is None:
            payment = await self._order(payment, due)
        if payment.order_id is not None and payment.status in OPEN and self.gateway(gateway).is_instant:
            return await self._ask(payment)
        return await self._credited(payment)

    async def _add(self, due: Due, gateway: str, operation_id: str) -> Payment:
        customer_id = None
        if self.keeper is not None and not self.gateway(gateway).is_instant:
            customer_id = await self.keeper.customer_of(due.payer_id, gateway)
        now_ms = self._clock.now_ms()
        payment = Payment(
            id=operation_id,
            purpose=due.purpose,
            payer_id=due.payer_id,
            account=due.account,
            amount_minor=due.amount_minor,
            currency=due.currency,
            gateway=gateway,
            status=PaymentStatus.CREATED,
            created_at_ms=now_ms,
            customer_id=customer_id,
            save_method=due.save_method,
            quantity=due.quantity,
            item=due.item,
        )
        payment = replace(payment, check_at_ms=next_check_ms(payment, now_ms))
        if await self._payments.add(payment):
            return payment
        # Another run of the same operation was faster.
        return await self._get(operation_id)

    async def _order(self, payment: Payment, due: Due) -> Payment:
        wish = Wish(
            reference=payment.id,
            amount_minor=payment.amount_minor,
            currency=payment.currency,
            description=due.description,
            payer_email=due.payer_email,
            customer_id=payment.customer_id,
            save_method=payment.save_method,
        )
        try:
            order = await self.gateway(payment.gateway).create_order(wish)
        except GatewayRefused as refused:
            await self.failed(payment, str(refused.facts.get("reason", "")))
            if self.keeper is not None and payment.customer_id is not None:
                await self.keeper.order_refused(payment)
            raise

        def ordered(known: Payment) -> Payment | None:
            return None if known.order_id else replace(known, order_id=order.id, shown=dict(order.shown))

        return await self._move(payment, ordered)

    # -- what we hear of it ------------------------------------------------------------------------------------------

    async def verify(
        self, *, gateway: str, payer_id: str, order_id: str, attempt_id: str, signature: str
    ) -> Payment:
        """The payer's client says that it has paid: believed when the gateway has signed it for *our* order, and then asked for there.

        PENDING comes back when the gateway does not answer now: it is asked again until it is known.

        Raises:
            PaymentNotFound: no such order, or not this payer's.
            SignatureInvalid: not signed by the gateway, or for another order or payment.
        """
        payment = await self._payments.of_order(gateway, order_id)
        if payment is None or payment.payer_id != payer_id:
            raise PaymentNotFound(order=order_id)
        if payment.order_id is None or not self.gateway(gateway).verify_callback(
            payment.order_id, attempt_id, signature
        ):
            raise SignatureInvalid(
                field="razorpaySignature", problem="does not belong to this payment and order"
            )
        # Before the question: should this process die in it, somebody else asks within seconds.
        payment = await self._move(payment, lambda known: _in_doubt(known, self._clock.now_ms()))
        try:
            attempt = await self.gateway(gateway).attempt(attempt_id)
        except GatewayUnavailable as exc:
            log.warning("a payment is in doubt: %r", exc, extra={"payment": payment.id})
            return payment
        if attempt.order_id not in (None, payment.order_id):
            raise SignatureInvalid(field="razorpayPaymentId", problem="is of another order")
        return await self.learn(payment, attempt)

    async def learn(self, payment: Payment, attempt: Attempt) -> Payment:
        """Take note of what the gateway says of one try; the payment as it is then. Repeating it, late or early, changes nothing.

        Raises:
            Unavailable: the store or the gateway did not answer; come again with the same news.
        """
        if attempt.status is AttemptStatus.AUTHORIZED and payment.collected_id is None:
            if not self._fits(payment, attempt):
                return payment
            attempt = await self._captured(payment, attempt)
        if attempt.status is AttemptStatus.COLLECTED:
            return await self._collect(payment, attempt)
        if attempt.status is AttemptStatus.FAILED:
            return await self.failed(payment, attempt.failure or "FAILED")
        return await self._move(payment, lambda known: _in_doubt(known, self._clock.now_ms()))

    async def _captured(self, payment: Payment, attempt: Attempt) -> Attempt:
        try:
            return await self.gateway(payment.gateway).capture(attempt)
        except GatewayRefused as refused:
            # It may have been taken, given back or have run out meanwhile: the news was old.
            now = await self.gateway(payment.gateway).attempt(attempt.id)
            if now.status is AttemptStatus.AUTHORIZED:
                self._observer.trouble(
                    "an authorised payment cannot be captured", payment, attempt=attempt.id, why=refused.facts
                )
            return now

    def _fits(self, payment: Payment, attempt: Attempt) -> bool:
        """Whether the try is of this amount; what is not is nobody's to credit by himself."""
        fits = (attempt.amount_minor, attempt.currency) == (payment.amount_minor, payment.currency)
        if not fits:
            self._observer.trouble(
                "a payment is not of its order's amount",
                payment,
                attempt=attempt.id,
                amount_minor=attempt.amount_minor,
                currency=attempt.currency,
            )
        return fits

    async def _collect(self, payment: Payment, attempt: Attempt) -> Payment:
        if payment.collected_id != attempt.id:
            if not self._fits(payment, attempt):
                return payment
            await self._keep_method(payment, attempt)
            payment = await self._move(
                payment, lambda known: _collected(known, attempt, self._clock.now_ms())
            )
            if payment.collected_id != attempt.id:
                await self._send_back(payment, attempt)
                return payment
        elif attempt.method is not None:
            # Of several pieces of news about one payment, not each one names the means of payment.
            await self._keep_method(payment, attempt)
        payment = await self._credited(payment)
        if attempt.refunded_minor > 0 and self.on_refunded is not None:
            await self.on_refunded(payment, attempt)
        return payment

    async def _keep_method(self, payment: Payment, attempt: Attempt) -> None:
        """Before the money is noted: who dies in between hears the news again."""
        if self.keeper is not None and payment.save_method and payment.collected_id in (None, attempt.id):
            await self.keeper.collected(payment, attempt)

    async def _send_back(self, payment: Payment, attempt: Attempt) -> None:
        """The order was paid twice. The second money never was ours: it goes back, once, by a name of its own."""
        left_minor = attempt.amount_minor - attempt.refunded_minor
        if left_minor <= 0:
            return
        await self.gateway(payment.gateway).refund(
            attempt.id, amount_minor=left_minor, currency=attempt.currency, reference=f"second-{attempt.id}"
        )
        self._observer.trouble(
            "an order was paid twice; the second payment goes back", payment, attempt=attempt.id
        )

    async def _credited(self, payment: Payment) -> Payment:
        """The payment with its entry in the ledger, if it is collected."""
        if payment.status is not PaymentStatus.COLLECTED:
            return payment
        if (book := self.book.get(payment.purpose)) is not None:
            await book(payment)
        else:
            await self._ledger.post(self._movements[payment.purpose](payment))
        if (fulfil := self.fulfil.get(payment.purpose)) is not None:
            await fulfil(payment)
        # Told before the mark, so that no crash leaves a running session without its money; to be told twice harms nobody.
        self._observer.credited(payment)
        return await self._move(payment, _paid)

    async def failed(self, payment: Payment, reason: str) -> Payment:
        """The gateway has refused; the payment as it is then."""
        if (hear := self.on_failed.get(payment.purpose)) is not None and _can(payment, PaymentStatus.FAILED):
            await hear(payment, reason)
        return await self._move(payment, lambda known: _failed(known, reason))

    async def credited(self, payment: Payment) -> Payment:
        """The payment, with its entry in the ledger if it is collected."""
        return await self._credited(payment)

    # -- asking ------------------------------------------------------------------------------------------------------

    async def ask_about_due(self) -> int:
        """Ask the gateways about what is due; how many were looked at. One that does not answer is asked again later."""
        due = await self._payments.due(self._clock.now_ms(), limit=_PER_ROUND)
        turn = asyncio.Semaphore(_AT_ONCE)

        async def one(payment: Payment) -> None:
            async with turn:
                try:
                    await self._ask(payment)
                except Unavailable as exc:
                    log.warning("a payment stays in doubt: %r", exc, extra={"payment": payment.id})
                except BillingError as exc:
                    log.error("a payment cannot be settled: %r", exc, extra={"payment": payment.id})  # noqa: TRY400

        await asyncio.gather(*map(one, due))
        return len(due)

    async def _ask(self, payment: Payment) -> Payment:
        """What the gateway knows, learned; and when it is asked next."""
        # Written first: a question that hangs or kills this process must not be asked again at once by everybody.
        payment = await self._move(payment, lambda known: _asked(known, self._clock.now_ms()))
        if payment.status is PaymentStatus.COLLECTED:
            return await self._credited(payment)
        given_up = is_given_up(payment, self._clock.now_ms())
        if payment.charge is not None:
            if payment.status in OPEN and self.keeper is not None:
                payment = await self.keeper.ask_charge(payment)
        elif payment.status in OPEN and payment.order_id is not None:
            for attempt in await self.gateway(payment.gateway).attempts(payment.order_id):
                payment = await self.learn(payment, attempt)
        # Only after a last answer: money that is there is never given up.
        return await self._move(payment, _expired) if given_up else payment

    # -- looking -----------------------------------------------------------------------------------------------------

    async def own(self, payment_id: str, *, payer_id: str | None) -> Payment:
        """The payment for its payer (or, with None, for an admin). Raises `PaymentNotFound` for anyone else."""
        payment = await self._payments.get(payment_id)
        if payment is None or payer_id not in (None, payment.payer_id):
            raise PaymentNotFound(payment=payment_id)
        return payment

    async def find(self, gateway: str, attempt: Attempt) -> Payment | None:
        """The payment that an attempt of the gateway belongs to; None: not ours."""
        found = None
        if attempt.order_id is not None:
            found = await self._payments.of_order(gateway, attempt.order_id)
        if found is None and attempt.reference is not None:
            found = await self._payments.get(attempt.reference)
        if found is None:
            found = await self._payments.of_attempt(gateway, attempt.id)
        return found if found is not None and found.gateway == gateway else None

    async def credit_of(self, payment: Payment, attempt_id: str) -> Entry | None:
        """What the ledger has under the key that this try's credit has, whatever the payment's document says."""
        movement = self._movements[payment.purpose](replace(payment, collected_id=attempt_id))
        return await self._ledger.entry(movement.account, movement.source)

    async def list_for(self, payer_id: str, *, limit: int, before: tuple[int, str] | None) -> list[Payment]:
        """The payer's payments, newest first."""
        return await self._payments.list_for(payer_id, limit=limit, before=before)

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _get(self, payment_id: str) -> Payment:
        payment = await self._payments.get(payment_id)
        if payment is None:
            raise InvariantBroken(rule="a payment is never deleted", payment=payment_id)
        return payment

    async def _move(self, payment: Payment, change: Callable[[Payment], Payment | None]) -> Payment:
        """Replace the document by `change` of its newest state; None leaves it. The document as it is then."""
        for _ in range(_ATTEMPTS):
            changed = change(payment)
            if changed is None:
                return payment
            changed = replace(changed, revision=payment.revision + 1)
            if await self._payments.replace(changed, expect_revision=payment.revision):
                return changed
            payment = await self._get(payment.id)
        raise Unavailable(reason="the payment is being changed by others", payment=payment.id)


def _can(payment: Payment, status: PaymentStatus) -> bool:
    return payment.status in REACHED_FROM[status]


def _failed(payment: Payment, reason: str) -> Payment | None:
    if not _can(payment, PaymentStatus.FAILED):
        return None
    return replace(payment, status=PaymentStatus.FAILED, failure=reason)


def _in_doubt(payment: Payment, now_ms: int) -> Payment | None:
    """Somebody is paying: PENDING, and asked for within seconds. What has failed keeps its status until there is money."""
    if _can(payment, PaymentStatus.PENDING):
        pending = replace(payment, status=PaymentStatus.PENDING, checks=0)
        return replace(pending, check_at_ms=next_check_ms(pending, now_ms))
    if payment.status in (PaymentStatus.FAILED, PaymentStatus.EXPIRED):
        return replace(payment, check_at_ms=now_ms)
    return None


def _collected(payment: Payment, attempt: Attempt, now_ms: int) -> Payment | None:
    if not _can(payment, PaymentStatus.COLLECTED):
        return None
    collected = replace(
        payment, status=PaymentStatus.COLLECTED, collected_id=attempt.id, failure=None, checks=0
    )
    return replace(collected, check_at_ms=next_check_ms(collected, now_ms))


def _paid(payment: Payment) -> Payment | None:
    if not _can(payment, PaymentStatus.PAID):
        return None
    return replace(payment, status=PaymentStatus.PAID, check_at_ms=None)


def _asked(payment: Payment, now_ms: int) -> Payment:
    asked = replace(payment, checks=payment.checks + 1)
    return replace(asked, check_at_ms=next_check_ms(asked, now_ms))


def _expired(payment: Payment) -> Payment | None:
    if not _can(payment, PaymentStatus.EXPIRED):
        return None
    return replace(payment, status=PaymentStatus.EXPIRED, check_at_ms=None)
