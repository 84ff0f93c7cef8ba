"""Buying credits: an order through the gateway, and once it is collected its money, its credits and its receipt, each once (SPEC 8).

An account has one asset, so a purchase is two entries: its money (gateway to revenue, committed on `sales:<user>`, which stays at
nothing) and its credits (committed on `credits:<user>`). What decides is neither: it is the payment's record, which says by one
compare-and-set that the gateway has the money, and names the gateway's payment that both keys are made of. The record is asked about
until it is PAID, and that is written last: so whoever dies between the two entries is followed by somebody who makes the other one.
See docs/decisions/0020-credits.md.
"""

import asyncio
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from billing_engine.credits.errors import PurchaseNotAllowed, TooManyUnpaidOrders
from billing_engine.credits.model import PURCHASED
from billing_engine.credits.ports import PurchaseNews, Standing, UnpaidOrders
from billing_engine.credits.prices import CreditPrices
from billing_engine.errors import InvariantBroken
from billing_engine.ledger.accounts import (
    ISSUED_CREDITS,
    REVENUE_CREDITS,
    application_credits_of,
    credit_sales_of,
    gateway_of,
)
from billing_engine.ledger.model import Entry, Movement, Transfer
from billing_engine.ledger.service import Ledger
from billing_engine.money import APPLICATION_CREDIT
from billing_engine.payments.errors import PaymentNotFound
from billing_engine.payments.model import FULFILLED, Payment, Purpose
from billing_engine.payments.service import Due, PaymentService

#: Kind of the money's entry and of its transfer.
SALE: Final = "credit_sale"


def source_of(payment: Payment) -> str:
    """What both entries of a purchase are named after: the gateway's payment. Raises `InvariantBroken` for one not collected."""
    if payment.collected_id is None:
        raise InvariantBroken(rule="only what is collected is credited", payment=payment.id)
    return f"payment:{payment.gateway}:{payment.collected_id}"


def sale_of(payment: Payment) -> Movement:
    """The money of a purchase."""
    return Movement(
        account=payment.account,
        source=source_of(payment),
        kind=SALE,
        asset=payment.currency,
        reference=payment.id,
        transfers=(Transfer(gateway_of(payment.gateway), REVENUE_CREDITS, payment.amount_minor, SALE),),
        facts={"gatewayPayment": payment.collected_id, "credits": payment.quantity},
    )


def credits_of(payment: Payment) -> Movement:
    """The credits of a purchase."""
    account = application_credits_of(payment.payer_id)
    return Movement(
        account=account,
        source=source_of(payment),
        kind=PURCHASED,
        asset=APPLICATION_CREDIT.code,
        reference=payment.id,
        transfers=(Transfer(ISSUED_CREDITS, account, payment.quantity, PURCHASED),),
        facts={"gatewayPayment": payment.collected_id, "item": payment.item},
    )


@dataclass(frozen=True, slots=True)
class PurchaseRules:
    """`gateway` is the name of the one that is paid through; nobody has more than `max_unpaid` orders that are not paid."""

    gateway: str
    max_unpaid: int


@dataclass(frozen=True, slots=True)
class Purchase:
    """A purchase and the entry that brought its credits; None as long as it is not PAID."""

    payment: Payment
    entry: Entry | None


class CreditPurchases:
    """The use cases of purchases."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        payments: PaymentService,
        unpaid: UnpaidOrders,
        prices: CreditPrices,
        standing: Standing,
        news: PurchaseNews,
        rules: PurchaseRules,
    ) -> None:
        self._ledger = ledger
        self._payments = payments
        self._unpaid = unpaid
        self._prices = prices
        self._standing = standing
        self._news = news
        self._rules = rules
        #: So that orders of one person, asked for at once, are counted one after the other. Of several processes each has its own.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def gateway(self) -> str:
        """The name of the gateway that is paid through."""
        return self._rules.gateway

    async def initiate(self, *, user_id: str, email: str, package_id: int, operation_id: str) -> Purchase:
        """Order a package at the price of now, once per operation: a repeat answers the first order, whatever the price is by then.
        With the simulated gateway it comes back PAID.

        Raises:
            PackageNotFound: no such package.
            PurchaseNotAllowed, TooManyUnpaidOrders: nothing was ordered.
            GatewayRefused: the gateway will not take it.
            Unavailable: nobody knows; a repeat finds what there is.
        """
        async with self._turns.setdefault(user_id, asyncio.Lock()):
            try:
                known = await self._payments.own(operation_id, payer_id=user_id)
            except PaymentNotFound:
                due = await self._due(user_id, package_id)
            else:
                due = _Order(known.amount_minor, known.currency, known.quantity, known.item)
            payment = await self._payments.begin(
                Due(
                    purpose=Purpose.CREDITS,
                    payer_id=user_id,
                    payer_email=email,
                    account=credit_sales_of(user_id),
                    amount_minor=due.amount_minor,
                    currency=due.currency,
                    description=f"{due.quantity} application credits",
                    quantity=due.quantity,
                    item=due.item,
                ),
                gateway=self._rules.gateway,
                operation_id=operation_id,
            )
        return await self._with_entry(payment)

    async def _due(self, user_id: str, package_id: int) -> "_Order":
        """What the package costs now, if the person may buy (the document's canPurchase; the role is looked at before)."""
        offer = await self._prices.offer(package_id)
        if await self._standing.any_shut((user_id,)):
            raise PurchaseNotAllowed(user=user_id)
        if await self._unpaid.unpaid(user_id) >= self._rules.max_unpaid:
            raise TooManyUnpaidOrders(user=user_id, limit=self._rules.max_unpaid)
        package = offer.package
        return _Order(offer.price_minor, self._prices.asset.code, package.credits, package.name)

    async def verify(self, *, user_id: str, order_id: str, attempt_id: str, signature: str) -> Purchase:
        """The payer's client says that it has paid. Raises what `PaymentService.verify` raises."""
        payment = await self._payments.verify(
            gateway=self._rules.gateway,
            payer_id=user_id,
            order_id=order_id,
            attempt_id=attempt_id,
            signature=signature,
        )
        return await self._with_entry(payment)

    async def purchase(self, payment_id: str, *, user_id: str) -> Purchase:
        """The person's purchase. Raises `PaymentNotFound`."""
        payment = await self._payments.own(payment_id, payer_id=user_id)
        if payment.purpose is not Purpose.CREDITS:
            raise PaymentNotFound(payment=payment_id)
        return await self._with_entry(payment)

    async def list_for(self, user_id: str, *, limit: int, before: tuple[int, str] | None) -> list[Payment]:
        """The person's purchases, newest first."""
        return await self._payments.list_for(user_id, limit=limit, before=before)

    async def fulfil(self, payment: Payment) -> None:
        """What a collected purchase brings beside its money: the credits, then the receipt. `PaymentService.fulfil`."""
        entry = await self._ledger.post(credits_of(payment))
        await self._news.credits_purchased(payment, credits_after=entry.posted_after)

    async def _with_entry(self, payment: Payment) -> Purchase:
        if payment.status not in FULFILLED:
            return Purchase(payment, None)
        entry = await self._ledger.entry(application_credits_of(payment.payer_id), source_of(payment))
        if entry is None:
            raise InvariantBroken(rule="what is paid is credited", payment=payment.id)
        return Purchase(payment, entry)


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be paid, and for what."""

    amount_minor: int
    currency: str
    quantity: int
    item: str
