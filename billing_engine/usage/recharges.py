"""Recharging a company's wallet: by hand, or by itself when a usage finds it short.

A recharge is a payment like any other. What makes an automatic one happen exactly once for each time the balance runs out is the
wallet's own write that opens it (`book.charge`): it names the payment, and nobody opens another while it is open. Here it is carried
out: the intent is stored under that name before the gateway is asked, repeated only as `PaymentMethods.charge` repeats, and what the
gateway says closes it. Its invoice is the payment itself; the number comes with the credit.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from billing_engine.clock import Clock, Moment
from billing_engine.errors import InvariantBroken, NotFound, Unavailable
from billing_engine.ledger.accounts import company_wallet_of, gateway_of
from billing_engine.ledger.model import Account, Entry, Movement, Transfer
from billing_engine.ledger.service import Ledger
from billing_engine.money import Asset, format_minor
from billing_engine.payments.errors import AmountOutOfRange, GatewayUnavailable, PaymentMethodNotFound
from billing_engine.payments.methods import PaymentMethods
from billing_engine.payments.model import FULFILLED, Payment, PaymentStatus, Purpose
from billing_engine.payments.service import Due, PaymentService
from billing_engine.usage.book import (
    AUTO_RECHARGE,
    RECHARGE,
    AutoRecharge,
    Book,
    Credit,
    OpenRecharge,
    book_of,
    credit,
    declined,
    set_auto,
    set_thresholds,
)
from billing_engine.usage.days import day_in
from billing_engine.usage.ports import Companies, CompanyEvent, CompanyNews, EventKind

log = logging.getLogger(__name__)

#: What a payment is called that the wallet has decided on itself, and one that somebody asked for.
AUTO: Final = "auto"
BY_HAND: Final = "by hand"
_DESCRIPTION: Final = "Wallet recharge"


@dataclass(frozen=True, slots=True)
class RechargeRules:
    """Bounds of one recharge in smallest units of `asset`; `gateway` is the name of the one that is paid through. `wait_s`: how long
    usages wait for an automatic recharge before they are owed.
    """

    asset: Asset
    min_minor: int
    max_minor: int
    gateway: str
    wait_s: float = 10


def recharge_of(payment: Payment) -> Movement:
    """What a collected recharge moves. The gateway's payment is the key: it is credited once, whoever brings the news (LEDGER 2).

    Raises `InvariantBroken` for a payment that is not collected.
    """
    if payment.collected_id is None:
        raise InvariantBroken(rule="only what is collected is credited", payment=payment.id)
    kind = AUTO_RECHARGE if payment.item == AUTO else RECHARGE
    return Movement(
        account=payment.account,
        source=f"payment:{payment.gateway}:{payment.collected_id}",
        kind=kind,
        asset=payment.currency,
        reference=payment.id,
        transfers=(Transfer(gateway_of(payment.gateway), payment.account, payment.amount_minor, kind),),
    )


class Recharges:
    """The use cases; also how collected and declined payments of companies are booked."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Clock,
        payments: PaymentService,
        methods: PaymentMethods,
        companies: Companies,
        news: CompanyNews,
        rules: RechargeRules,
        new_id: Callable[[], str],
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._payments = payments
        self._methods = methods
        self._companies = companies
        self._news = news
        self.rules = rules
        self.new_id = new_id
        self._pursued: dict[str, asyncio.Task[bool]] = {}
        #: Automatic recharges that were credited, and declined, in this process since it began.
        self.auto_paid = 0
        self.auto_declined = 0
        payments.book[Purpose.COMPANY] = self._book
        payments.fulfil[Purpose.COMPANY] = self._fulfil
        payments.on_failed[Purpose.COMPANY] = self._declined

    # -- by hand -----------------------------------------------------------------------------------------------------

    async def recharge(
        self,
        *,
        company_id: str,
        amount_minor: int,
        operation_id: str,
        email: str,
        method_id: str | None = None,
        save_method: bool = False,
    ) -> Payment:
        """Ask to be paid, once per operation: at a page of the gateway, or by a saved means of payment.

        Raises:
            AmountOutOfRange: outside the bounds; nothing was asked for.
            PaymentMethodNotFound: deleted, or another company's.
            GatewayRefused: the gateway will not take it.
            Unavailable: nobody knows; a repeat finds what there is.
        """
        self.require_amount(amount_minor)
        due = self._due(company_id, amount_minor, BY_HAND, email=email, save_method=save_method)
        if method_id is not None:
            return await self._methods.charge(due, method_id=method_id, operation_id=operation_id)
        return await self._payments.begin(due, gateway=self.rules.gateway, operation_id=operation_id)

    def require_amount(self, amount_minor: int) -> None:
        """Raises `AmountOutOfRange`, which names `amount`."""
        low, high = self.rules.min_minor, self.rules.max_minor
        if not low <= amount_minor <= high:
            bounds = f"{format_minor(low, self.rules.asset)} to {format_minor(high, self.rules.asset)}"
            raise AmountOutOfRange(field="amount", problem=f"must be from {bounds}")

    def _due(
        self, company_id: str, amount_minor: int, item: str, *, email: str = "", save_method: bool = False
    ) -> Due:
        return Due(
            purpose=Purpose.COMPANY,
            payer_id=company_id,
            payer_email=email,
            account=company_wallet_of(company_id),
            amount_minor=amount_minor,
            currency=self.rules.asset.code,
            description=_DESCRIPTION,
            save_method=save_method,
            item=item,
        )

    # -- by itself ---------------------------------------------------------------------------------------------------

    async def set_auto(
        self, *, company_id: str, is_enabled: bool, amount_minor: int, method_id: str | None
    ) -> Book:
        """What the company asks for from now on; a pause after declined payments ends. Setting it again harms nobody.

        Raises:
            AmountOutOfRange: outside the bounds.
            PaymentMethodNotFound: deleted, or another company's.
            Unavailable: it may be set, and a recharge opened that nobody is at; a repeat goes on.
        """
        self.require_amount(amount_minor)
        if method_id is not None:
            await self._methods.own(method_id, payer_id=company_id)
        auto = AutoRecharge(is_enabled, amount_minor, method_id)
        next_id = self.new_id()

        def change(account: Account, _known: Entry | None) -> tuple[Account, Book]:
            return set_auto(
                account,
                auto=auto,
                at_ms=self._clock.now_ms(),
                next_id=next_id,
                largest_recharge_minor=self.rules.max_minor,
            )

        await self._change(company_id, change)
        await self.pursue(company_id)
        return await self.book(company_id)

    async def book(self, company_id: str) -> Book:
        """The wallet's facts of now."""
        return book_of(await self.account(company_id))

    async def account(self, company_id: str) -> Account:
        """The wallet of now. Raises `Unavailable`: unknown is never 0."""
        return await self._ledger.account(company_wallet_of(company_id), self.rules.asset.code)

    async def set_thresholds(self, company_id: str, thresholds: Sequence[int]) -> Book:
        """At which balances the company wants to be told; the book with them."""

        def change(account: Account, _known: Entry | None) -> tuple[Account, Book]:
            return set_thresholds(account, thresholds)

        book: Book = await self._change(company_id, change)
        return book

    # -- looking -----------------------------------------------------------------------------------------------------

    async def list_for(self, company_id: str, *, limit: int, before: tuple[int, str] | None) -> list[Payment]:
        """The company's recharges, newest first."""
        return await self._payments.list_for(company_id, limit=limit, before=before)

    async def credit_of(self, payment: Payment) -> Entry | None:
        """The entry that a recharge made; None while it is not credited."""
        return (await self.credits_of([payment])).get(payment.id)

    async def credits_of(self, payments: Sequence[Payment]) -> dict[str, Entry]:
        """The entries of those that are credited, by payment."""
        keys = {recharge_of(one).key: one.id for one in payments if one.status in FULFILLED}
        rows = await self._ledger.copied_out(list(keys))
        return {keys[key]: row.entry for key, row in rows.items()}

    async def pursue(self, company_id: str) -> bool:
        """Carry out the recharge that is open, one at a time in this process; whether the wallet may have more than before. A gateway
        that takes longer than `wait_s` goes on without its caller.

        Raises:
            Unavailable: the store did not answer, and maybe nobody is at it: a repeat goes on. Whatever the gateway does raises
                nothing: who asks has usages that are owed then.
        """
        task = self._pursued.get(company_id)
        if task is None or task.done():
            task = asyncio.create_task(self._pursue(company_id), name="company-recharge")
            self._pursued[company_id] = task
            task.add_done_callback(lambda done: self._forget(company_id, done))
        done, _ = await asyncio.wait((task,), timeout=self.rules.wait_s)
        if not done or task.cancelled():
            return False
        error = task.exception()
        if isinstance(error, Unavailable) and not isinstance(error, GatewayUnavailable):
            raise Unavailable(
                reason="nobody knows whether a recharge is under way", company=company_id
            ) from error
        return error is None and task.result()

    def _forget(self, company_id: str, task: "asyncio.Task[bool]") -> None:
        if self._pursued.get(company_id) is task:
            del self._pursued[company_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning(
                "an automatic recharge is not known to have ended: %r", error, extra={"company": company_id}
            )

    async def stop(self) -> None:
        """Wait for what is under way."""
        while self._pursued:
            await asyncio.wait(set(self._pursued.values()))

    async def _pursue(self, company_id: str) -> bool:
        opened = (await self.book(company_id)).open
        # None: it has ended between the usage's write and ours.
        return opened is None or await self._carry_out(company_id, opened)

    async def _carry_out(self, company_id: str, opened: OpenRecharge) -> bool:
        """Charge what the wallet has decided on, once; whether it is paid. Raises `Unavailable`: a repeat goes on."""
        try:
            payment = await self._methods.charge(
                self._due(company_id, opened.amount_minor, AUTO),
                method_id=opened.method_id,
                operation_id=opened.id,
            )
        except PaymentMethodNotFound:
            await self._close(company_id, opened, "METHOD_DELETED")
            return False
        if payment.status in (PaymentStatus.FAILED, PaymentStatus.EXPIRED):
            # Its failure was heard before it was written; after a crash in between, it is said here. Of one that the gateway has not
            # decided on for days nobody hears: it must not forbid the next one for ever.
            await self._close(company_id, opened, payment.failure or payment.status.value)
        return payment.status is PaymentStatus.PAID

    # -- what became of a payment ------------------------------------------------------------------------------------

    async def _book(self, payment: Payment) -> Entry:
        """Credit the wallet and pay what is owed: one write. `PaymentService.book`."""
        movement = recharge_of(payment)
        time_zone = await self._time_zone(payment.payer_id)
        paid = Credit(
            payment_id=payment.id,
            company_id=payment.payer_id,
            source=movement.source,
            gateway=payment.gateway,
            gateway_payment_id=str(payment.collected_id),
            amount_minor=payment.amount_minor,
            is_auto=payment.item == AUTO,
        )
        next_id = self.new_id()

        def change(account: Account, known: Entry | None) -> tuple[Account, Entry]:
            at_ms = self._clock.now_ms()
            return credit(
                account,
                known,
                paid=paid,
                moment=Moment(at_ms, day_in(time_zone, at_ms)),
                next_id=next_id,
                largest_recharge_minor=self.rules.max_minor,
            )

        entry: Entry = await self._change(payment.payer_id, change, source=movement.source)
        return entry

    async def _time_zone(self, company_id: str) -> str:
        try:
            return (await self._companies.terms(company_id)).time_zone
        except NotFound:
            # A company that is closed is still credited with what it has paid.
            return "UTC"

    async def _fulfil(self, payment: Payment) -> None:
        """What follows a credit, before the payment is PAID: the news. `PaymentService.fulfil`."""
        account = await self.account(payment.payer_id)
        self.auto_paid += payment.item == AUTO
        await self._news.tell(
            [
                CompanyEvent(
                    id=f"recharged-{payment.id}",
                    company_id=payment.payer_id,
                    kind=EventKind.RECHARGED,
                    at_ms=self._clock.now_ms(),
                    facts={
                        "invoiceId": payment.id,
                        "amount": format_minor(payment.amount_minor, self.rules.asset),
                        "currency": self.rules.asset.code,
                        "automatic": payment.item == AUTO,
                        "walletBalance": format_minor(account.spendable, self.rules.asset),
                    },
                )
            ]
        )
        self._news.changed(payment.payer_id)
        book = book_of(account)
        if book.open is not None and book.open.id != payment.id:
            # Debts that came meanwhile have opened the next one. Until it is under way this one is not PAID, and so followed up.
            try:
                await self._carry_out(payment.payer_id, book.open)
            except GatewayUnavailable as exc:
                # That one is asked for by itself: what is paid here is paid.
                log.warning("another recharge is in doubt: %r", exc, extra={"payment": book.open.id})

    async def _declined(self, payment: Payment, reason: str) -> None:
        """`PaymentService.on_failed`: told first, so that no crash leaves a company without word of it."""
        if payment.item != AUTO:
            return
        opened = (await self.book(payment.payer_id)).open
        if opened is not None and opened.id == payment.id:
            await self._close(payment.payer_id, opened, reason)

    async def _close(self, company_id: str, opened: OpenRecharge, reason: str) -> None:
        before = await self.book(company_id)
        if before.open is None or before.open.id != opened.id:
            return
        facts = {
            "invoiceId": opened.id,
            "amount": format_minor(opened.amount_minor, self.rules.asset),
            "currency": self.rules.asset.code,
            "reason": reason,
        }
        now_ms = self._clock.now_ms()
        events = [
            CompanyEvent(f"recharge-failed-{opened.id}", company_id, EventKind.RECHARGE_FAILED, now_ms, facts)
        ]
        _, after = declined(await self.account(company_id), payment_id=opened.id, at_ms=now_ms)
        if after.is_stopped:
            events.append(
                CompanyEvent(
                    f"recharge-stopped-{opened.id}",
                    company_id,
                    EventKind.AUTO_RECHARGE_STOPPED,
                    now_ms,
                    facts,
                )
            )
        await self._news.tell(events)

        def change(account: Account, _known: Entry | None) -> tuple[Account, Book]:
            return declined(account, payment_id=opened.id, at_ms=self._clock.now_ms())

        await self._change(company_id, change)
        self.auto_declined += 1
        self._news.changed(company_id)

    async def _change(
        self,
        company_id: str,
        change: Callable[[Account, Entry | None], tuple[Account, Any]],
        *,
        source: str | None = None,
    ) -> Any:
        return await self._ledger.change(
            company_wallet_of(company_id), self.rules.asset.code, change, source=source
        )
