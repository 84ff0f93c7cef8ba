"""Money goes back to its payer through the gateway: reserved on the payment, held in the wallet, sent, and then taken or released.

Each step is decided by one write and can be taken again: the reservation by the payment's document, the hold and its close by the
ledger, the sending by the gateway, which knows our id as its reference. A runner that dies is followed by another one, which starts
from the top and finds what was decided. A reservation that is given up leaves a 0: a runner that slept does not take it again.

The record is due (`check_at_ms`) until nothing is left to do, also after the money has gone.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from billing_engine.clock import Clock
from billing_engine.errors import BillingError, InvariantBroken, Unavailable
from billing_engine.ledger.accounts import gateway_of
from billing_engine.ledger.model import Account, Entry, Hold, KeyReused, KeyState
from billing_engine.ledger.service import Ledger
from billing_engine.money import ASSETS
from billing_engine.payments.collected import ATTEMPTS, CollectedPayments
from billing_engine.payments.desk_ports import PayerRefundRows, ReturnNews
from billing_engine.payments.disputes import Disputes
from billing_engine.payments.errors import GatewayRefused, GatewayUnavailable
from billing_engine.payments.model import (
    Attempt,
    GatewayRefund,
    Payment,
    PaymentStatus,
    Purpose,
    RefundStatus,
)
from billing_engine.payments.ports import PaymentObserver
from billing_engine.payments.refund_errors import (
    NotRefundable,
    PurchaseNotRefundable,
    RefundAmountInvalid,
    RefundExceedsPayment,
    WalletTooLow,
)
from billing_engine.payments.refund_model import (
    BEGUN_MS,
    REFUNDABLE,
    PayerRefund,
    PayerRefundStatus,
    next_look_ms,
    outranks,
    refund_outside,
    second_payment,
)
from billing_engine.payments.returns import (
    PAYER_REFUND,
    PAYER_REFUND_FAILED,
    PAYER_REFUND_RETURNED,
    HoldMoved,
    Return,
    end,
    put_back,
    set_aside_all,
    set_aside_spare,
    taken_minor,
)
from billing_engine.payments.service import PaymentService

log = logging.getLogger(__name__)

#: Refunds that are looked at at once, and in one round.
_AT_ONCE: Final = 8
_PER_ROUND: Final = 200
#: No gateway takes a part of a cent.
_CENTS: Final = 2
#: Why a refund was refused by us.
EXCEEDS_PAYMENT: Final = "EXCEEDS_PAYMENT"
INSUFFICIENT_BALANCE: Final = "INSUFFICIENT_BALANCE"


class PayerRefunds:
    """The use cases of refunds to the payer (SPEC 11)."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Clock,
        gateways: PaymentService,
        payments: CollectedPayments,
        rows: PayerRefundRows,
        disputes: Disputes,
        observer: PaymentObserver,
        news: ReturnNews,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._gateways = gateways
        self._payments = payments
        self._rows = rows
        self._disputes = disputes
        self._observer = observer
        self._news = news

    # -- asking for one ----------------------------------------------------------------------------------------------

    async def request(
        self, *, payment_id: str, amount_minor: int, reason: str, by: str, operation_id: str
    ) -> PayerRefund:
        """Send money back to the payer, once per operation. PENDING: it is set aside, and the gateway is asked until it is known.

        Raises:
            PaymentNotFound: no such payment.
            RefundAmountInvalid: nothing, or less, or a part of a cent; names `amount`.
            NotRefundable: it was not collected.
            PurchaseNotRefundable: it bought credits.
            RefundExceedsPayment: more than is left of it.
            WalletTooLow: the payer has spent it. After all of these nothing is changed.
            Unavailable: nobody knows; a repeat finds what there is, and without one it is finished all the same.
        """
        require_amount(amount_minor)
        refund = await self._rows.get(operation_id)
        if refund is None:
            payment = await self._gateways.own(payment_id, payer_id=None)
            refund = await self._added(
                payment, amount_minor=amount_minor, reason=reason, by=by, id_=operation_id
            )
        if (refund.payment_id, refund.amount_minor) != (payment_id, amount_minor):
            raise KeyReused(key=operation_id)
        if refund.check_at_ms is not None:
            refund = await self._advance(refund)
        if refund.status is PayerRefundStatus.REFUSED:
            raise await self._refusal(refund)
        return refund

    async def _added(
        self, payment: Payment, *, amount_minor: int, reason: str, by: str, id_: str
    ) -> PayerRefund:
        if payment.purpose is Purpose.CREDITS:
            raise PurchaseNotRefundable(payment=payment.id)
        if payment.status not in REFUNDABLE or payment.collected_id is None:
            raise NotRefundable(payment=payment.id, status=payment.status.value)
        if amount_minor % 10 ** max(0, ASSETS[payment.currency].decimals - _CENTS):
            raise RefundAmountInvalid(field="amount", problem=f"has more than {_CENTS} decimals")
        if amount_minor > payment.refundable_minor:
            raise RefundExceedsPayment(
                payment=payment.id,
                required_minor=amount_minor,
                available_minor=payment.refundable_minor,
                asset=ASSETS[payment.currency],
            )
        now_ms = self._clock.now_ms()
        refund = PayerRefund(
            id=id_,
            payment_id=payment.id,
            payer_id=payment.payer_id,
            account=payment.account,
            gateway=payment.gateway,
            attempt_id=payment.collected_id,
            amount_minor=amount_minor,
            currency=payment.currency,
            reason=reason,
            created_at_ms=now_ms,
            by=by,
            check_at_ms=now_ms + BEGUN_MS,
        )
        # Another run of the same operation may have been faster.
        return refund if await self._rows.add(refund) else await self._get(id_)

    async def _refusal(self, refund: PayerRefund) -> BillingError:
        if refund.failure == INSUFFICIENT_BALANCE:
            entry = await self._ledger.entry(refund.account, refund.hold_id)
            available_minor = 0 if entry is None else entry.posted_before - entry.facts["held"]
            return WalletTooLow(
                account=refund.account,
                required_minor=refund.amount_minor,
                available_minor=max(0, available_minor),
                asset=ASSETS[refund.currency],
            )
        payment = await self._payments.get(refund.payment_id)
        return RefundExceedsPayment(
            payment=payment.id,
            required_minor=refund.amount_minor,
            available_minor=payment.refundable_minor,
            asset=ASSETS[refund.currency],
        )

    # -- hearing of one ----------------------------------------------------------------------------------------------

    async def take(self, gateway: str, news: GatewayRefund) -> bool:
        """Take note of what the gateway says of a refund, ours or begun there; whether it is of a payment of ours. Repeating it, or
        being late, changes nothing.

        Raises:
            Unavailable: the store or the gateway did not answer; come again with the same news.
        """
        if news.reference == second_payment(news.payment_id):
            # What came twice was never credited, so nothing is to be taken.
            return True
        refund = await self._known(gateway, news)
        if refund is None:
            payment = await self._payments.of_attempt(gateway, news.payment_id)
            if payment is None:
                return False
            if payment.collected_id != news.payment_id:
                return True
            if payment.currency != news.currency:
                self._trouble("a refund is in another currency than its payment", payment, news)
                return True
            refund = await self._outside(payment, news)
        elif (refund.amount_minor, refund.currency) != (news.amount_minor, news.currency):
            payment = await self._payments.get(refund.payment_id)
            self._trouble("a refund is not of the amount that was asked for", payment, news)
            return True
        await self._hear(refund, news)
        return True

    async def look(self, payment: Payment, attempt: Attempt) -> None:
        """The gateway says how much of a try has gone back: what is not known here is asked for. `PaymentService.on_refunded`."""
        known = await self._rows.of_payment(payment.id)
        gone = {RefundStatus.PENDING, RefundStatus.DONE}
        if sum(refund.amount_minor for refund in known if refund.heard in gone) == attempt.refunded_minor:
            return
        for news in await self._gateways.gateway(payment.gateway).refunds(attempt.id):
            await self.take(payment.gateway, news)

    async def _known(self, gateway: str, news: GatewayRefund) -> PayerRefund | None:
        for id_ in (news.reference, refund_outside(gateway, news.id)):
            refund = None if id_ is None else await self._rows.get(id_)
            if refund is not None and (refund.gateway, refund.attempt_id) == (gateway, news.payment_id):
                return refund
        return None

    async def _outside(self, payment: Payment, news: GatewayRefund) -> PayerRefund:
        now_ms = self._clock.now_ms()
        refund = PayerRefund(
            id=refund_outside(payment.gateway, news.id),
            payment_id=payment.id,
            payer_id=payment.payer_id,
            account=payment.account,
            gateway=payment.gateway,
            attempt_id=news.payment_id,
            amount_minor=news.amount_minor,
            currency=news.currency,
            reason="begun at the gateway",
            created_at_ms=now_ms,
            by=None,
            heard=news.status,
            gateway_id=news.id,
            check_at_ms=now_ms + BEGUN_MS,
        )
        if not await self._rows.add(refund):
            return await self._get(refund.id)
        self._trouble("a payment was refunded past us", payment, news)
        return refund

    async def _hear(self, refund: PayerRefund, news: GatewayRefund) -> PayerRefund:
        now_ms = self._clock.now_ms()

        def heard(known: PayerRefund) -> PayerRefund | None:
            if not outranks(news.status, known.heard):
                return None
            next_ms = next_look_ms(known, now_ms)
            return replace(known, heard=news.status, gateway_id=news.id, check_at_ms=next_ms)

        refund = await self._move(refund, heard)
        return refund if refund.check_at_ms is None else await self._advance(refund, asks=False)

    # -- doing what is missing ---------------------------------------------------------------------------------------

    async def look_at_due(self) -> int:
        """Go on with what is due; how many there were. A gateway that does not answer is asked again later."""
        due = await self._rows.due(self._clock.now_ms(), limit=_PER_ROUND)
        turn = asyncio.Semaphore(_AT_ONCE)

        async def one(refund: PayerRefund) -> None:
            async with turn:
                try:
                    # Written first: a question that hangs or kills this process must not be asked again at once by everybody.
                    await self._advance(await self._move(refund, self._later))
                except Unavailable as exc:
                    log.warning("a refund waits: %r", exc, extra={"refund": refund.id})
                except BillingError as exc:
                    log.error("a refund cannot be finished: %r", exc, extra={"refund": refund.id})  # noqa: TRY400

        await asyncio.gather(*map(one, due))
        return len(due)

    def _later(self, known: PayerRefund) -> PayerRefund | None:
        if known.check_at_ms is None:
            return None
        next_ms = next_look_ms(known, self._clock.now_ms())
        return replace(known, checks=known.checks + 1, check_at_ms=next_ms)

    async def _advance(self, refund: PayerRefund, *, asks: bool = True) -> PayerRefund:
        """Everything that is missing, from whatever point. The refund as it is then. `asks`: at the gateway, if it is not known."""
        payment = await self._reserved(refund)
        if payment.refunds.get(refund.id, 0) == 0:
            return await self._finished(refund, await self._ledger.entry(refund.account, refund.hold_id))
        standing = await self._set_aside(refund, payment)
        if isinstance(standing, Hold):
            refund = await self._asked(refund, asks=asks)
            if refund.heard in (None, RefundStatus.PENDING):
                return refund
            standing = await self._closed(refund)
        return await self._finished(refund, standing)

    async def _reserved(self, refund: PayerRefund) -> Payment:
        """The payment with this refund's place in it: the amount, or 0 for one that has none. The first write decides."""

        def reserve(payment: Payment) -> Payment | None:
            if refund.id in payment.refunds:
                return None
            fits = refund.by is None or refund.amount_minor <= payment.refundable_minor
            # What was begun at the gateway is a fact; it is not asked whether it fits.
            return replace(
                payment, refunds={**payment.refunds, refund.id: refund.amount_minor if fits else 0}
            )

        return await self._payments.change(refund.payment_id, reserve)

    async def _set_aside(self, refund: PayerRefund, payment: Payment) -> Hold | Entry:
        if refund.by is None:
            return await self._set_aside_spare(refund, payment)

        def decide(account: Account, known: Entry | None) -> tuple[Account, Hold | Entry]:
            at_ms = self._clock.now_ms()
            day = self._ledger.day_of(at_ms)
            return set_aside_all(account, known, wanted=return_of(refund), at_ms=at_ms, day=day)

        held: Hold | Entry = await self._changed(refund, decide)
        return held

    async def _set_aside_spare(self, refund: PayerRefund, payment: Payment) -> Hold | Entry:
        """What the wallet can spare for a refund that was begun at the gateway, and what the payment's disputes must leave to it."""
        if payment.refunded_minor > payment.amount_minor:
            await self._settle_ours(refund)
        never_frozen: set[str] = set()
        for _ in range(ATTEMPTS):
            payment = await self._payments.get(refund.payment_id)
            holds, lost_minor = await self._disputes.yielding(payment)
            others_minor = payment.refunded_minor - payment.refunds[refund.id]
            room_minor = max(0, payment.amount_minor - others_minor - lost_minor)
            decide = partial(
                set_aside_spare,
                wanted=return_of(refund),
                bound_minor=min(refund.amount_minor, room_minor),
                disputes={id_: bound for id_, bound in holds.items() if id_ not in never_frozen},
            )
            try:
                held: Hold | Entry = await self._changed(refund, decide)
            except HoldMoved as moved:
                if await self._ledger.entry(refund.account, moved.facts["hold"]) is None:
                    never_frozen.add(moved.facts["hold"])
            else:
                return held
        raise Unavailable(reason="the payment's disputes are being changed by others", refund=refund.id)

    async def _settle_ours(self, refund: PayerRefund) -> None:
        """There is no room for both: a refund of our own in doubt holds the money that was sent past us. What became of it first."""
        for other in await self._rows.of_payment(refund.payment_id):
            if other.by is not None and other.check_at_ms is not None:
                known = await self._advance(other)
                if known.status is PayerRefundStatus.PENDING and known.heard is None:
                    raise GatewayUnavailable(reason="another refund is in doubt", refund=other.id)

    async def _asked(self, refund: PayerRefund, *, asks: bool) -> PayerRefund:
        """The refund with what the gateway says of it, if that is not final yet. One that does not answer is asked again later."""
        first = refund.checks == 0

        def pending(known: PayerRefund) -> PayerRefund | None:
            if known.status is PayerRefundStatus.PENDING and known.checks > 0:
                return None
            next_ms = next_look_ms(known, self._clock.now_ms())
            checks = max(1, known.checks)
            return replace(known, status=PayerRefundStatus.PENDING, checks=checks, check_at_ms=next_ms)

        if refund.heard not in (RefundStatus.DONE, RefundStatus.FAILED):
            refund = await self._move(refund, pending)
        if not asks or refund.heard in (RefundStatus.DONE, RefundStatus.FAILED):
            return refund
        try:
            news = await self._at_gateway(refund, first=first)
        except GatewayUnavailable as exc:
            log.warning("a refund is in doubt: %r", exc, extra={"refund": refund.id})
            return refund
        except GatewayRefused as refused:
            why = str(refused.facts.get("reason") or "refused")
            return await self._move(refund, partial(_refused_there, why=why))
        return await self._move(refund, partial(_said, news=news))

    async def _at_gateway(self, refund: PayerRefund, *, first: bool) -> GatewayRefund:
        """Ask for the refund; from the second time on look whether it is there already, whatever became of our first try.

        Raises:
            GatewayRefused: it is not there and will not be.
            GatewayUnavailable: nobody knows.
        """
        known = None if first and refund.by is not None else await self._found(refund)
        if known is not None:
            return known
        if refund.by is None:
            raise GatewayUnavailable(reason="the gateway does not list a refund of its own", refund=refund.id)
        try:
            return await self._gateways.gateway(refund.gateway).refund(
                refund.attempt_id,
                amount_minor=refund.amount_minor,
                currency=refund.currency,
                reference=refund.id,
            )
        except GatewayRefused:
            # Somebody else may have been faster with this very refund, and left no room for a second one.
            known = await self._found(refund)
            if known is None:
                raise
            return known

    async def _found(self, refund: PayerRefund) -> GatewayRefund | None:
        for news in await self._gateways.gateway(refund.gateway).refunds(refund.attempt_id):
            if news.id == refund.gateway_id or (news.reference == refund.id and refund.by is not None):
                return news
        return None

    async def _closed(self, refund: PayerRefund) -> Entry:
        done = refund.heard is RefundStatus.DONE

        def decide(account: Account, known: Entry | None) -> tuple[Account, Entry]:
            at_ms = self._clock.now_ms()
            return end(
                account,
                known,
                wanted=return_of(refund),
                kind=PAYER_REFUND if done else PAYER_REFUND_FAILED,
                takes=done,
                facts={"failure": refund.failure},
                at_ms=at_ms,
                day=self._ledger.day_of(at_ms),
            )

        entry: Entry = await self._changed(refund, decide)
        return entry

    # -- what follows ------------------------------------------------------------------------------------------------

    async def _finished(self, refund: PayerRefund, entry: Entry | None) -> PayerRefund:
        """What the ledger has decided, written down everywhere. The record's `check_at_ms` goes last: until then this comes again."""
        if entry is None or entry.state is not KeyState.POSTED:
            why = EXCEEDS_PAYMENT if entry is None else INSUFFICIENT_BALANCE
            await self._given_up(refund)
            return await self._move(refund, partial(_settled, status=PayerRefundStatus.REFUSED, failure=why))
        if entry.kind == PAYER_REFUND and refund.heard is not RefundStatus.FAILED:
            return await self._sent(refund, entry)
        if entry.kind == PAYER_REFUND:
            await self._ledger.post(
                put_back(
                    return_of(refund),
                    entry,
                    kind=PAYER_REFUND_RETURNED,
                    source=refund.returned_source,
                    facts={},
                )
            )
        await self._given_up(refund)
        await self._disputes.rebalance(refund.payment_id)
        if refund.status is not PayerRefundStatus.FAILED:
            payment = await self._payments.get(refund.payment_id)
            self._observer.trouble(
                "a refund to the payer failed", payment, refund=refund.id, why=refund.failure
            )
        await self._news.refund_failed(refund, was_sent=entry.kind == PAYER_REFUND)
        return await self._move(refund, partial(_settled, status=PayerRefundStatus.FAILED))

    async def _sent(self, refund: PayerRefund, entry: Entry) -> PayerRefund:
        lost_minor = refund.amount_minor - taken_minor(entry)
        if lost_minor > 0 and refund.status is not PayerRefundStatus.DONE:
            payment = await self._payments.get(refund.payment_id)
            self._observer.trouble(
                "a refund took more than the wallet had", payment, refund=refund.id, lost_minor=lost_minor
            )
        # First that it is done, then whether all are: of two that end at once the later one sees both.
        refund = await self._move(refund, _done)
        if refund.heard is RefundStatus.FAILED:
            return await self._advance(refund)
        rows = await self._rows.of_payment(refund.payment_id)
        done = {row.id for row in rows if row.status is PayerRefundStatus.DONE}
        await self._payments.change(refund.payment_id, partial(_all_back, done=done))
        await self._news.refunded(refund)
        return await self._move(refund, partial(_settled, status=PayerRefundStatus.DONE))

    async def _given_up(self, refund: PayerRefund) -> None:
        """Its place in the payment is free; a payment that was refunded whole is not any more."""

        def give_up(payment: Payment) -> Payment | None:
            if payment.refunds.get(refund.id) == 0:
                return None
            status = PaymentStatus.PAID if payment.status is PaymentStatus.REFUNDED else payment.status
            return replace(payment, refunds={**payment.refunds, refund.id: 0}, status=status)

        await self._payments.change(refund.payment_id, give_up)

    # -- looking and writing -----------------------------------------------------------------------------------------

    async def of_payment(self, payment_id: str) -> list[PayerRefund]:
        """The payment's refunds, oldest first."""
        return await self._rows.of_payment(payment_id)

    async def _get(self, refund_id: str) -> PayerRefund:
        refund = await self._rows.get(refund_id)
        if refund is None:
            raise InvariantBroken(rule="a refund is never deleted", refund=refund_id)
        return refund

    async def _changed(self, refund: PayerRefund, decide: Callable[..., Any]) -> Any:
        return await self._ledger.change(refund.account, refund.currency, decide, source=refund.hold_id)

    async def _move(
        self, refund: PayerRefund, change: Callable[[PayerRefund], PayerRefund | None]
    ) -> PayerRefund:
        """Replace the record by `change` of its newest state; None leaves it. The record as it is then."""
        for _ in range(ATTEMPTS):
            changed = change(refund)
            if changed is None:
                return refund
            changed = replace(changed, revision=refund.revision + 1)
            if await self._rows.replace(changed, expect_revision=refund.revision):
                return changed
            refund = await self._get(refund.id)
        raise Unavailable(reason="the refund is being changed by others", refund=refund.id)

    def _trouble(self, what: str, payment: Payment, news: GatewayRefund) -> None:
        self._observer.trouble(what, payment, refund=news.id, amount_minor=news.amount_minor)


def require_amount(amount_minor: int) -> None:
    """Raises `RefundAmountInvalid` for nothing, and less."""
    if amount_minor <= 0:
        raise RefundAmountInvalid(field="amount", problem="must be more than nothing")


def return_of(refund: PayerRefund) -> Return:
    """The refund's money, on its way back."""
    return Return(
        account=refund.account,
        gateway=gateway_of(refund.gateway),
        asset=refund.currency,
        amount_minor=refund.amount_minor,
        source=refund.hold_id,
        facts={"refundId": refund.id, "paymentId": refund.payment_id, "amount": refund.amount_minor},
    )


def _said(known: PayerRefund, *, news: GatewayRefund) -> PayerRefund | None:
    if not outranks(news.status, known.heard):
        return None
    return replace(known, heard=news.status, gateway_id=news.id)


def _refused_there(known: PayerRefund, *, why: str) -> PayerRefund | None:
    if not outranks(RefundStatus.FAILED, known.heard):
        return None
    return replace(known, heard=RefundStatus.FAILED, failure=why)


def _done(known: PayerRefund) -> PayerRefund | None:
    if known.heard is RefundStatus.FAILED or known.status is PayerRefundStatus.DONE:
        return None
    return replace(known, status=PayerRefundStatus.DONE)


def _settled(
    known: PayerRefund, *, status: PayerRefundStatus, failure: str | None = None
) -> PayerRefund | None:
    if status is PayerRefundStatus.DONE and known.heard is RefundStatus.FAILED:
        # It came back while this was written down: that is still to be done.
        return None
    if known.status is status and known.check_at_ms is None:
        return None
    return replace(known, status=status, failure=failure or known.failure, check_at_ms=None)


def _all_back(payment: Payment, *, done: set[str]) -> Payment | None:
    gone_minor = sum(amount for id_, amount in payment.refunds.items() if id_ in done)
    if payment.status is not PaymentStatus.PAID or gone_minor < payment.amount_minor:
        return None
    return replace(payment, status=PaymentStatus.REFUNDED)
