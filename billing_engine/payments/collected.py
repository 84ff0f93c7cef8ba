"""The payments that money goes back from: whose money a try brought, and what is promised back of it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final
from weakref import WeakValueDictionary

from billing_engine.errors import InvariantBroken, Unavailable
from billing_engine.ledger.rivals import let_rivals_finish
from billing_engine.payments.errors import GatewayRefused
from billing_engine.payments.model import Payment
from billing_engine.payments.ports import Payments
from billing_engine.payments.refund_model import REFUNDABLE
from billing_engine.payments.service import PaymentService

#: How often a compare-and-set may lose to others before somebody is told to come again.
ATTEMPTS: Final = 20


class CollectedPayments:
    """Payments as what was collected with them goes back. `payments` are asked to learn what they do not know yet."""

    def __init__(self, *, payments: PaymentService, store: Payments) -> None:
        self._payments = payments
        self._store = store
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def get(self, payment_id: str) -> Payment:
        payment = await self._store.get(payment_id)
        if payment is None:
            raise InvariantBroken(rule="a payment is never deleted", payment=payment_id)
        return payment

    async def of_attempt(self, gateway: str, attempt_id: str) -> Payment | None:
        """The payment that the gateway's try is for, credited if its money is here; None: not ours.

        News of a refund or a dispute may come before the news that there was money. Then the gateway is asked, so that the order of
        coming decides nothing. Raises `Unavailable`.
        """
        payment = await self._store.of_attempt(gateway, attempt_id)
        if payment is not None and payment.status in REFUNDABLE:
            return payment
        try:
            attempt = await self._payments.gateway(gateway).attempt(attempt_id)
        except GatewayRefused:
            return None
        payment = await self._payments.find(gateway, attempt)
        return None if payment is None else await self._payments.learn(payment, attempt)

    async def change(self, payment_id: str, decide: Callable[[Payment], Payment | None]) -> Payment:
        """Replace the payment by `decide` of its newest state; None leaves it. The payment as it is then."""
        # Within this process one at a time: of fifty at once nobody loses twenty times. The revision keeps other processes out.
        async with self._turns.setdefault(payment_id, asyncio.Lock()):
            for attempt in range(ATTEMPTS):
                await let_rivals_finish(attempt)
                payment = await self.get(payment_id)
                changed = decide(payment)
                if changed is None:
                    return payment
                changed = replace(changed, revision=payment.revision + 1)
                if await self._store.replace(changed, expect_revision=payment.revision):
                    return changed
        raise Unavailable(reason="the payment is being changed by others", payment=payment_id)
