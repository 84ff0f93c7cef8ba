"""A payer's bank asks for the money back: it is frozen, and then released or gone. Forward only, whatever comes first or twice.

What the gateway has said last is on the record; what was done about it is in the ledger, as a hold and then a chain of entries, one
for each word that changed the outcome. News comes through the inbox of webhooks, which brings a letter again until it is worked off:
whoever dies on the way is followed by somebody who finds what is missing. So a dispute needs no schedule of its own.

Of two final words the one counts that the gateway said later by its own clock: a bank may reverse its decision, and a payer may
challenge a dispute that was won (Razorpay's pre-arbitration). One that is open again is not frozen anew before it is decided; a person
hears of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from billing_engine.clock import Clock
from billing_engine.errors import InvariantBroken, Unavailable
from billing_engine.ledger.accounts import gateway_of
from billing_engine.ledger.model import Account, Entry, Hold, KeyState
from billing_engine.ledger.service import Ledger
from billing_engine.payments.collected import ATTEMPTS, CollectedPayments
from billing_engine.payments.desk_ports import DisputeRows, ReturnNews
from billing_engine.payments.model import DisputeStatus, GatewayDispute, Payment
from billing_engine.payments.ports import PaymentObserver
from billing_engine.payments.refund_model import Dispute, bounds_of, counts_more, dispute_name
from billing_engine.payments.returns import (
    CHARGEBACK,
    CHARGEBACK_RETURNED,
    DISPUTE_WON,
    HoldMoved,
    Return,
    bounded,
    end,
    put_back,
    set_aside_spare,
    take_again,
    taken_minor,
)

#: In the facts of an entry: the word that it carried out, and when the gateway said it.
OUTCOME: Final = "outcome"
WORD_AT: Final = "wordAt"
_ENTRY: Final = {DisputeStatus.LOST: CHARGEBACK, DisputeStatus.WON: DISPUTE_WON}


@dataclass(frozen=True, slots=True)
class _Chain:
    """The entries of a dispute so far: how many, the last one, and the last one that took money."""

    length: int = 0
    last: Entry | None = None
    taking: Entry | None = None


class Disputes:
    """The use cases of disputes (SPEC 14)."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Clock,
        payments: CollectedPayments,
        rows: DisputeRows,
        observer: PaymentObserver,
        news: ReturnNews,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._payments = payments
        self._rows = rows
        self._observer = observer
        self._news = news

    # -- hearing -----------------------------------------------------------------------------------------------------

    async def take(self, gateway: str, news: GatewayDispute, at_ms: int) -> bool:
        """Take note of what the gateway says; whether it is about a payment of ours. Repeating it, late or early, changes nothing.

        Raises:
            Unavailable: the store or the gateway did not answer; come again with the same news.
        """
        payment = await self._payments.of_attempt(gateway, news.payment_id)
        if payment is None:
            return False
        if payment.collected_id != news.payment_id or payment.currency != news.currency:
            # Money of a second payment never was in a wallet, and of another currency nobody knows how much it is.
            self._trouble("a dispute is nothing that can be booked", payment, news)
            return True
        dispute = await self._heard(payment, news, at_ms)
        await self._advance(dispute.id)
        return True

    async def _heard(self, payment: Payment, news: GatewayDispute, at_ms: int) -> Dispute:
        name = dispute_name(payment.gateway, news.id)
        fresh = Dispute(
            id=name,
            dispute_id=news.id,
            payment_id=payment.id,
            payer_id=payment.payer_id,
            account=payment.account,
            gateway=payment.gateway,
            amount_minor=news.amount_minor,
            currency=news.currency,
            reason=news.reason,
            created_at_ms=news.at_ms,
            status=news.status,
            word_at_ms=at_ms,
        )
        if await self._rows.add(fresh):
            self._trouble("a payment is disputed", payment, news)
            return fresh
        for _ in range(ATTEMPTS):
            known = await self._get(name)
            if not counts_more(news.status, at_ms, known):
                if news.status is DisputeStatus.OPEN and at_ms > known.word_at_ms and _is_final(known):
                    self._trouble("a decided dispute is open again", payment, news)
                return known
            heard = replace(known, status=news.status, word_at_ms=at_ms, revision=known.revision + 1)
            if await self._rows.replace(heard, expect_revision=known.revision):
                return heard
        raise Unavailable(reason="the dispute is being changed by others", dispute=name)

    # -- carrying out ------------------------------------------------------------------------------------------------

    async def _advance(self, dispute_id: str) -> None:
        """Everything that the record's word asks for and the ledger does not have yet; then the record's copy of it."""
        for _ in range(ATTEMPTS):
            dispute = await self._get(dispute_id)
            payment = await self._payments.change(dispute.payment_id, partial(_claimed, dispute=dispute))
            if _is_final(dispute):
                frozen_minor = await self._decided(dispute, payment)
            else:
                frozen_minor = await self._frozen(dispute, payment)
            # Of the payment's other disputes, and of this one if the payment was changed meanwhile.
            await self.rebalance(dispute.payment_id)
            if frozen_minor is not None and await self._noted(dispute, frozen_minor):
                return
        raise Unavailable(reason="the dispute is being changed by others", dispute=dispute_id)

    async def _frozen(self, dispute: Dispute, payment: Payment) -> int | None:
        """What is frozen; None: it has been decided meanwhile."""
        held: Hold | Entry = await self._ledger.change(
            dispute.account,
            dispute.currency,
            partial(
                set_aside_spare, wanted=return_of(dispute), bound_minor=bounds_of(payment).get(dispute.id, 0)
            ),
            source=dispute.hold_id,
        )
        return held.amount_minor if isinstance(held, Hold) else None

    async def _decided(self, dispute: Dispute, payment: Payment) -> int | None:
        """Carry the final word out, if the ledger does not say so yet. What is taken; None: look again."""
        chain = await self._chain(dispute)
        if chain.last is None:
            # Frozen first, if the last word came before the first: what else goes back of the payment meanwhile finds the hold, or is
            # found when it is looked at again.
            await self._frozen(dispute, payment)
            await self.rebalance(dispute.payment_id)
            await self._closed(dispute)
            return None
        if chain.last.facts[OUTCOME] == dispute.status.value:
            return taken_minor(chain.last) if dispute.status is DisputeStatus.LOST else 0
        if chain.last.facts[WORD_AT] > dispute.word_at_ms:
            # Somebody has heard a later word than this record that we have read.
            return None
        source = dispute.source(chain.length + 1)
        if dispute.status is DisputeStatus.LOST:
            await self._taken_again(dispute, payment, source)
        elif chain.taking is not None:
            movement = put_back(
                return_of(dispute),
                chain.taking,
                kind=CHARGEBACK_RETURNED,
                source=source,
                facts=_word(dispute),
            )
            await self._ledger.post(movement)
        return None

    async def _closed(self, dispute: Dispute) -> None:
        """The first final word."""

        def decide(account: Account, known: Entry | None) -> tuple[Account, Entry]:
            at_ms = self._clock.now_ms()
            return end(
                account,
                known,
                wanted=return_of(dispute),
                kind=_ENTRY[dispute.status],
                takes=dispute.status is DisputeStatus.LOST,
                facts=_word(dispute),
                at_ms=at_ms,
                day=self._ledger.day_of(at_ms),
            )

        await self._ledger.change(dispute.account, dispute.currency, decide, source=dispute.hold_id)

    async def _taken_again(self, dispute: Dispute, payment: Payment, source: str) -> None:
        def decide(account: Account, known: Entry | None) -> tuple[Account, Entry]:
            at_ms = self._clock.now_ms()
            return take_again(
                account,
                known,
                wanted=return_of(dispute),
                bound_minor=bounds_of(payment).get(dispute.id, 0),
                source=source,
                facts=_word(dispute),
                at_ms=at_ms,
                day=self._ledger.day_of(at_ms),
            )

        await self._ledger.change(dispute.account, dispute.currency, decide, source=source)

    async def _chain(self, dispute: Dispute) -> _Chain:
        chain = _Chain()
        while True:
            entry = await self._ledger.entry(dispute.account, dispute.source(chain.length + 1))
            if entry is None or entry.state is not KeyState.POSTED:
                return chain
            took = entry.facts[OUTCOME] == DisputeStatus.LOST.value
            chain = _Chain(chain.length + 1, entry, entry if took else chain.taking)

    async def _noted(self, dispute: Dispute, frozen_minor: int) -> bool:
        """The record's copy of what was done, last of all: until it is there, the letter comes again. False: there is a later word."""
        noted = replace(dispute, frozen_minor=frozen_minor)
        if _is_final(dispute):
            await self._news.dispute_decided(dispute)
            noted = replace(noted, decided_at_ms=dispute.decided_at_ms or self._clock.now_ms())
        if noted == dispute:
            return (await self._get(dispute.id)).revision == dispute.revision
        noted = replace(noted, revision=dispute.revision + 1)
        return await self._rows.replace(noted, expect_revision=dispute.revision)

    # -- what else happens to the payment ----------------------------------------------------------------------------

    async def rebalance(self, payment_id: str) -> None:
        """Freeze for each dispute of the payment what it may still take: less after a refund, more after one that failed."""
        bounds = bounds_of(await self._payments.get(payment_id))
        for dispute in await self._rows.of_payment(payment_id):
            if dispute.id not in bounds:
                continue

            def decide(
                account: Account, _known: Entry | None, dispute: Dispute = dispute
            ) -> tuple[Account, int]:
                changed = bounded(account, {dispute.hold_id: bounds[dispute.id]})
                return changed, changed.holds[dispute.hold_id].amount_minor

            try:
                frozen_minor: int = await self._ledger.change(dispute.account, dispute.currency, decide)
            except HoldMoved:
                # Not frozen yet: whoever does that comes here afterwards. Or decided.
                continue
            if frozen_minor != dispute.frozen_minor:
                changed = replace(dispute, frozen_minor=frozen_minor, revision=dispute.revision + 1)
                await self._rows.replace(changed, expect_revision=dispute.revision)

    async def yielding(self, payment: Payment) -> tuple[dict[str, int], int]:
        """What the payment's disputes may still hold at most, by hold; and what lost ones have taken out of the wallet."""
        bounds = bounds_of(payment)
        holds: dict[str, int] = {}
        taken = 0
        for dispute in await self._rows.of_payment(payment.id):
            last = (await self._chain(dispute)).last
            if last is not None:
                # Not what it was about: it may have found nothing left.
                taken += max(0, taken_minor(last))
            elif dispute.id in bounds:
                holds[dispute.hold_id] = bounds[dispute.id]
        return holds, taken

    # -- looking -----------------------------------------------------------------------------------------------------

    async def of_payment(self, payment_id: str) -> list[Dispute]:
        """The payment's disputes, oldest first."""
        return await self._rows.of_payment(payment_id)

    async def queue(
        self, status: DisputeStatus | None, *, limit: int, after: tuple[int, str] | None
    ) -> list[Dispute]:
        """The open ones oldest first, others and all together newest first."""
        return await self._rows.queue(status, limit=limit, after=after)

    async def _get(self, dispute_id: str) -> Dispute:
        dispute = await self._rows.get(dispute_id)
        if dispute is None:
            raise InvariantBroken(rule="a dispute is never deleted", dispute=dispute_id)
        return dispute

    def _trouble(self, what: str, payment: Payment, news: GatewayDispute) -> None:
        self._observer.trouble(
            what,
            payment,
            dispute=news.id,
            amount_minor=news.amount_minor,
            currency=news.currency,
            status=news.status.value,
            why=news.reason,
        )


def return_of(dispute: Dispute) -> Return:
    """The money that the dispute is about, on its way back."""
    return Return(
        account=dispute.account,
        gateway=gateway_of(dispute.gateway),
        asset=dispute.currency,
        amount_minor=dispute.amount_minor,
        source=dispute.hold_id,
        facts={
            "disputeId": dispute.id,
            "paymentId": dispute.payment_id,
            "amount": dispute.amount_minor,
            "why": dispute.reason,
        },
    )


def _is_final(dispute: Dispute) -> bool:
    return dispute.status is not DisputeStatus.OPEN


def _word(dispute: Dispute) -> Mapping[str, str | int]:
    return {OUTCOME: dispute.status.value, WORD_AT: dispute.word_at_ms}


def _claimed(payment: Payment, *, dispute: Dispute) -> Payment | None:
    """The payment knows what is disputed of it, before any of it is frozen."""
    amount_minor = 0 if dispute.status is DisputeStatus.WON else dispute.amount_minor
    if payment.disputes.get(dispute.id) == amount_minor:
        return None
    return replace(payment, disputes={**payment.disputes, dispute.id: amount_minor})
