"""Saved means of payment: kept when the gateway reports one, charged while their owner is away, told to the gateway when they go.

Whoever the payer is, a user or a company, is all the same here. A charge is a `Payment` like any other, with `charge` set: the intent
is stored before the gateway is asked, and what the gateway says is learned where all payments are.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, cast

from billing_engine.clock import Clock
from billing_engine.errors import BillingError, InvariantBroken, Unavailable
from billing_engine.payments.errors import (
    GatewayRefused,
    GatewayUnavailable,
    NotSupported,
    PaymentMethodNotFound,
)
from billing_engine.payments.method_records import (
    MethodRows,
    MethodWish,
    PaymentMethod,
    next_look_ms,
)
from billing_engine.payments.model import (
    Attempt,
    AttemptStatus,
    Charge,
    MethodNews,
    Payment,
    PaymentStatus,
    SavedMethod,
    Wish,
)
from billing_engine.payments.ports import Gateway, MethodGateway, Payments
from billing_engine.payments.schedule import next_check_ms
from billing_engine.payments.service import Due, PaymentService

log = logging.getLogger(__name__)

#: Gateways keep our keys for 24 hours: from here on a charge is looked up and never asked for again (LEDGER 5).
REPEAT_WITHIN_MS: Final = 23 * 3_600_000
#: So long a charge that somebody has begun may still be under way, whatever its answer: nobody repeats it before.
IN_FLIGHT_MS: Final = 180_000
_TELL_AGAIN_MS: Final = 15 * 60_000
_AT_ONCE: Final = 8
_PER_ROUND: Final = 100
_LABEL_CHARACTERS: Final = 64
_SETUP: Final = "Save a means of payment"


class PaymentMethods:
    """The use cases; also the `MethodKeeper` of the payments."""

    def __init__(
        self, *, rows: MethodRows, payments: Payments, service: PaymentService, clock: Clock
    ) -> None:
        self._rows = rows
        self._payments = payments
        self._service = service
        self._clock = clock
        service.keeper = self

    # -- looking and deleting ----------------------------------------------------------------------------------------

    async def list_for(
        self, payer_id: str, *, limit: int, before: tuple[int, str] | None
    ) -> list[PaymentMethod]:
        """The payer's saved means of payment, newest first."""
        return await self._rows.list_for(payer_id, limit=limit, before=before)

    async def own(self, method_id: str, *, payer_id: str) -> PaymentMethod:
        """The payer's, and not deleted. Raises `PaymentMethodNotFound`."""
        method = await self._own(method_id, payer_id)
        if method.gone_at_ms is not None:
            raise PaymentMethodNotFound(method=method_id)
        return method

    async def _own(self, method_id: str, payer_id: str) -> PaymentMethod:
        method = await self._rows.get(method_id)
        if method is None or method.payer_id != payer_id:
            raise PaymentMethodNotFound(method=method_id)
        return method

    async def forget(self, method_id: str, *, payer_id: str) -> None:
        """Delete it: nothing is charged to it any more, and the gateway is told, later if it does not answer. Repeating harms nobody.

        Raises:
            PaymentMethodNotFound: there never was such a one, or it is another payer's.
        """
        method = await self._own(method_id, payer_id)
        if method.gone_at_ms is None:
            now_ms = self._clock.now_ms()
            # Ours first: who dies in between leaves a record that says whom to tell.
            await self._rows.mark_gone(method.id, at_ms=now_ms, tell_at_ms=now_ms)
        elif method.tell_at_ms is None:
            return
        await self._guarded(method.id, self._tell(method))

    async def forget_all(self, payer_id: str) -> None:
        """Delete every one of the payer's, whose account is deleted. Repeating harms nobody."""
        while found := await self._rows.list_for(payer_id, limit=_PER_ROUND, before=None):
            for method in found:
                await self.forget(method.id, payer_id=payer_id)

    async def _tell(self, method: PaymentMethod) -> None:
        await self._rows.tell_at(method.id, self._clock.now_ms() + _TELL_AGAIN_MS)
        try:
            await self._service.gateway(method.gateway).forget_method(method.saved)
        except GatewayRefused as refused:
            log.error(  # noqa: TRY400 - what it refuses is said, how we got there is not news
                "a gateway keeps a means of payment that its owner has deleted",
                extra={
                    "method": method.id,
                    "gateway": method.gateway,
                    "why": str(refused.facts.get("reason")),
                },
            )
            return
        await self._rows.tell_at(method.id, None)

    # -- keeping -----------------------------------------------------------------------------------------------------

    async def setup(
        self, *, payer_id: str, email: str, gateway: str, currency: str, operation_id: str
    ) -> MethodWish:
        """A page to leave a means of payment at, without paying; the same one for the same operation. An instant gateway keeps one at
        once.

        Raises:
            NotSupported: this gateway keeps one with a payment alone.
            GatewayRefused: it will not.
            Unavailable: nobody knows whether there is a page; a repeat finds it.
        """
        keeper = _able(self._service.gateway(gateway))
        wish = await self._rows.get_wish(operation_id)
        if wish is None:
            wish = await self._add_wish(payer_id, gateway, currency, operation_id)
        if wish.order_id is None:
            try:
                order = await keeper.setup_order(
                    Wish(
                        reference=wish.id,
                        amount_minor=0,
                        currency=wish.currency,
                        description=_SETUP,
                        payer_email=email,
                        customer_id=wish.customer_id,
                    )
                )
            except GatewayRefused:
                await self._refused_for(payer_id, gateway, wish.customer_id)
                raise
            ordered = replace(wish, order_id=order.id, shown=dict(order.shown))
            await self._rows.replace_wish(ordered, expect_checks=wish.checks)
            wish = ordered
        return await self._look(wish) if keeper.is_instant and wish.method_id is None else wish

    async def _add_wish(self, payer_id: str, gateway: str, currency: str, operation_id: str) -> MethodWish:
        now_ms = self._clock.now_ms()
        customer_id = await self._rows.customer_of(payer_id, gateway)
        wish = MethodWish(operation_id, payer_id, gateway, currency, now_ms, None, customer_id=customer_id)
        wish = replace(wish, check_at_ms=next_look_ms(wish, now_ms))
        if await self._rows.add_wish(wish):
            return wish
        known = await self._rows.get_wish(operation_id)
        if known is None:
            raise InvariantBroken(rule="a wish for a means of payment is never deleted", wish=operation_id)
        return known

    async def customer_of(self, payer_id: str, gateway: str) -> str | None:
        """`MethodKeeper`."""
        return await self._rows.customer_of(payer_id, gateway)

    async def order_refused(self, payment: Payment) -> None:
        """`MethodKeeper`."""
        await self._refused_for(payment.payer_id, payment.gateway, payment.customer_id)

    async def _refused_for(self, payer_id: str, gateway: str, customer_id: str | None) -> None:
        """Whatever was refused: a customer who was deleted at the gateway would else keep the payer from paying for ever. With the
        next means of payment that is kept there is one again.
        """
        if customer_id is not None:
            await self._rows.forget_customer(payer_id, gateway, customer_id)

    async def collected(self, payment: Payment, attempt: Attempt) -> None:
        """`MethodKeeper`: keep what the payer agreed to; where the news does not name it, the gateway is asked for it soon."""
        if attempt.method is not None:
            await self._keep(payment.payer_id, payment.gateway, attempt.method)
            return
        now_ms = self._clock.now_ms()
        wish = MethodWish(
            payment.id,
            payment.payer_id,
            payment.gateway,
            payment.currency,
            now_ms,
            now_ms,
            attempt_id=attempt.id,
        )
        await self._rows.add_wish(wish)

    async def _keep(self, payer_id: str, gateway: str, saved: SavedMethod) -> str:
        """Once per payer and the gateway's means of payment. What was deleted stays deleted, however late the news."""
        method = PaymentMethod(
            id=_id_of(payer_id, gateway, saved.id),
            payer_id=payer_id,
            gateway=gateway,
            gateway_id=saved.id,
            customer_id=saved.customer_id,
            label=saved.label[:_LABEL_CHARACTERS],
            created_at_ms=self._clock.now_ms(),
        )
        if saved.customer_id:
            await self._rows.remember_customer(payer_id, gateway, saved.customer_id)
        await self._rows.add(method)
        return method.id

    async def hear(self, gateway: str, news: MethodNews) -> bool:
        """What the gateway tells of means of payment by itself; whether it concerns one of ours."""
        if not news.is_usable:
            found = await self._rows.of_gateway(gateway, news.method.id)
            for method in found:
                await self._rows.mark_gone(method.id, at_ms=self._clock.now_ms(), tell_at_ms=None)
            return bool(found)
        payer_id = await self._payer_of(gateway, news)
        if payer_id is None:
            return False
        await self._keep(payer_id, gateway, news.method)
        return True

    async def _payer_of(self, gateway: str, news: MethodNews) -> str | None:
        if news.reference is not None:
            wish = await self._rows.get_wish(news.reference)
            if wish is not None and wish.gateway == gateway:
                return wish.payer_id
            payment = await self._payments.get(news.reference)
            if payment is not None and payment.gateway == gateway and payment.save_method:
                return payment.payer_id
        return await self._rows.payer_of(gateway, news.method.customer_id)

    # -- charging ----------------------------------------------------------------------------------------------------

    async def charge(self, due: Due, *, method_id: str, operation_id: str) -> Payment:
        """Charge the payer's saved means of payment, once per operation, whatever happens to the answer.

        It comes back PAID; FAILED with the bank's reason, and then no money moved; or PENDING: nobody knows yet, the gateway is asked
        until somebody does, and a repeat tells. Who may not risk a second charge waits for that before there is another operation.

        Raises:
            PaymentMethodNotFound: deleted, or another payer's.
            Unavailable: the store or the gateway is not there; a repeat with the same operation is safe.
        """
        payment = await self._payments.get(operation_id)
        if payment is None:
            method = await self.own(method_id, payer_id=due.payer_id)
            self._service.gateway(method.gateway)
            payment = self._intent(due, method, operation_id)
            if await self._payments.add(payment):
                return await self._ask_to_charge(payment, method)
            payment = await self._payments.get(operation_id)
        if payment is None or payment.charge is None or _words(payment) != _words_of(due, method_id):
            raise InvariantBroken(rule="one operation is one charge", payment=operation_id)
        if payment.status is PaymentStatus.PENDING:
            return await self.ask_charge(payment)
        return await self._service.credited(payment)

    def _intent(self, due: Due, method: PaymentMethod, operation_id: str) -> Payment:
        now_ms = self._clock.now_ms()
        intent = Payment(
            id=operation_id,
            purpose=due.purpose,
            payer_id=due.payer_id,
            account=due.account,
            amount_minor=due.amount_minor,
            currency=due.currency,
            gateway=method.gateway,
            # From the first moment nobody knows, should this process die.
            status=PaymentStatus.PENDING,
            created_at_ms=now_ms,
            customer_id=method.customer_id,
            charge=Charge(method.id, due.description, now_ms),
            quantity=due.quantity,
            item=due.item,
        )
        return replace(intent, check_at_ms=next_check_ms(intent, now_ms))

    async def _ask_to_charge(self, payment: Payment, method: PaymentMethod) -> Payment:
        """Ask the gateway to charge. Only who has just written `begun_at_ms` comes here."""
        try:
            attempt = await self._service.gateway(payment.gateway).charge_saved(
                _wish_of(payment), method.saved
            )
        except NotSupported as refused:
            return await self._service.failed(payment, refused.code)
        except GatewayRefused as refused:
            return await self._service.failed(payment, str(refused.facts.get("reason") or refused.code))
        except GatewayUnavailable as exc:
            log.warning("a charge is in doubt: %r", exc, extra={"payment": payment.id})
            return payment
        return await self._service.learn(payment, attempt)

    async def ask_charge(self, payment: Payment) -> Payment:
        """`MethodKeeper`: look the charge up by its reference; ask for it again only where the gateway has never heard of it, nobody
        can be at it any more, the gateway still knows our key, and the method is not deleted. What failed is not tried again.
        """
        if payment.charge is None:
            raise InvariantBroken(rule="only a charge is looked up by its reference", payment=payment.id)
        method = await self._rows.get(payment.charge.method_id)
        if method is None:
            raise InvariantBroken(rule="a means of payment is never deleted whole", payment=payment.id)
        found = await self._service.gateway(payment.gateway).find_charge(_wish_of(payment), method.saved)
        if found is not None:
            return await self._service.learn(payment, found)
        now_ms = self._clock.now_ms()
        if payment.status is not PaymentStatus.PENDING or now_ms - payment.charge.begun_at_ms < IN_FLIGHT_MS:
            return payment
        if now_ms - payment.created_at_ms >= REPEAT_WITHIN_MS:
            return await self._service.failed(payment, "NEVER_CHARGED")
        if method.gone_at_ms is not None:
            return await self._service.failed(payment, "METHOD_DELETED")
        begun = replace(
            payment, charge=replace(payment.charge, begun_at_ms=now_ms), revision=payment.revision + 1
        )
        if not await self._payments.replace(begun, expect_revision=payment.revision):
            # Somebody else has news, or is at it.
            return await self._payments.get(payment.id) or payment
        return await self._ask_to_charge(begun, method)

    # -- chores ------------------------------------------------------------------------------------------------------

    async def work_off(self) -> int:
        """Ask for what payers were to leave, and tell gateways what is deleted; how many were looked at."""
        now_ms = self._clock.now_ms()
        wishes = await self._rows.due_wishes(now_ms, limit=_PER_ROUND)
        untold = await self._rows.untold(now_ms, limit=_PER_ROUND)
        turn = asyncio.Semaphore(_AT_ONCE)

        async def in_turn(id_: str, work: Callable[[], Awaitable[object]]) -> None:
            async with turn:
                await self._guarded(id_, work())

        looks = [in_turn(wish.id, lambda wish=wish: self._look(wish)) for wish in wishes]  # type: ignore[misc]
        tells = [in_turn(method.id, lambda method=method: self._tell(method)) for method in untold]  # type: ignore[misc]
        await asyncio.gather(*looks, *tells)
        return len(wishes) + len(untold)

    async def _guarded(self, id_: str, work: Awaitable[object]) -> None:
        try:
            await work
        except Unavailable as exc:
            log.warning("a saved means of payment waits: %r", exc, extra={"method": id_})
        except BillingError as exc:
            log.error("a saved means of payment cannot be looked after: %r", exc, extra={"method": id_})  # noqa: TRY400

    async def _look(self, wish: MethodWish) -> MethodWish:
        """Ask the gateway what the payer has left; and when it is asked next."""
        asked = replace(wish, checks=wish.checks + 1)
        asked = replace(asked, check_at_ms=next_look_ms(asked, self._clock.now_ms()))
        if not await self._rows.replace_wish(asked, expect_checks=wish.checks):
            return await self._rows.get_wish(wish.id) or wish
        gateway = self._service.gateway(wish.gateway)
        saved: SavedMethod | None = None
        if asked.attempt_id is not None:
            attempt = await gateway.attempt(asked.attempt_id)
            saved = attempt.method if attempt.status is AttemptStatus.COLLECTED else None
        elif asked.order_id is not None:
            saved = await _able(gateway).kept_method(asked.order_id)
        if saved is None:
            return asked
        method_id = await self._keep(wish.payer_id, wish.gateway, saved)
        kept = replace(asked, check_at_ms=None, method_id=method_id)
        await self._rows.replace_wish(kept, expect_checks=asked.checks)
        return kept


def _able(gateway: Gateway) -> MethodGateway:
    """The gateway, where it can keep a means of payment without a payment. Raises `NotSupported`."""
    if not hasattr(gateway, "setup_order"):
        raise NotSupported(gateway=gateway.name, reason="it keeps a means of payment with a payment alone")
    return cast("MethodGateway", gateway)


def _id_of(payer_id: str, gateway: str, gateway_id: str) -> str:
    """Ours: the same for the same, and telling nothing of the gateway's."""
    return hashlib.sha256(f"{payer_id}|{gateway}|{gateway_id}".encode()).hexdigest()[:32]


def _wish_of(payment: Payment) -> Wish:
    """The same words at every try. The gateway knows the payer's address from the customer."""
    return Wish(
        reference=payment.id,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        description="" if payment.charge is None else payment.charge.description,
        payer_email="",
        customer_id=payment.customer_id,
    )


def _words(payment: Payment) -> tuple[object, ...]:
    method_id = None if payment.charge is None else payment.charge.method_id
    return payment.payer_id, payment.account, payment.amount_minor, payment.currency, method_id


def _words_of(due: Due, method_id: str) -> tuple[object, ...]:
    return due.payer_id, due.account, due.amount_minor, due.currency, method_id
