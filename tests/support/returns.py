"""Refunds to the payer and disputes to be disturbed: a gateway in memory, and the processes that live beside it one after the other."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from billing_engine.ledger.accounts import REVENUE_CHARGEBACKS, gateway_of, wallet_of
from billing_engine.ledger.model import Movement, Transfer
from billing_engine.payments.collected import CollectedPayments
from billing_engine.payments.disputes import Disputes
from billing_engine.payments.errors import GatewayRefused
from billing_engine.payments.model import (
    Attempt,
    DisputeStatus,
    GatewayDispute,
    GatewayEvent,
    GatewayRefund,
    Payment,
    RefundStatus,
)
from billing_engine.payments.payer_refunds import PayerRefunds
from billing_engine.payments.ports import Letter
from billing_engine.payments.refund_model import Dispute, PayerRefund
from billing_engine.payments.webhooks import Webhooks
from billing_engine.verification import Findings, Verdict
from server.storage.repositories.gateway_events import CollectionInbox
from server.storage.repositories.payer_refunds import CollectionDisputes, CollectionPayerRefunds
from server.storage.repositories.payments import CollectionPayments
from server.storage.sqlite.books import verify_books
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.consult import Extending
from tests.support.payments import AMOUNT, Till
from tests.support.scripted_gateway import ScriptedGateway

#: Longer than anything waits for its next look.
LONG_MS: Final = 3_600_000


@dataclass
class ReturningGateway(ScriptedGateway):
    """A gateway that sends money back as a test wants it to, and tells of it."""

    #: What becomes of a refund when it is asked for.
    refunds_are: RefundStatus = RefundStatus.DONE
    #: Why every refund is refused, if it is.
    refuses: str | None = None
    #: A repeat is refused for being too much, instead of being answered as before.
    refuses_repeats: bool = False
    told: dict[str, GatewayEvent] = field(default_factory=dict)

    async def refund(
        self, attempt_id: str, *, amount_minor: int, currency: str, reference: str
    ) -> GatewayRefund:
        self._answer()
        if self.refuses is not None and reference not in self.sent_back:
            raise GatewayRefused(reason=self.refuses)
        is_new = reference not in self.sent_back
        if self.refuses_repeats and not is_new:
            raise GatewayRefused(reason="TOO_MUCH")
        lost, self.lost_answers = self.lost_answers, 0
        refund = await super().refund(
            attempt_id, amount_minor=amount_minor, currency=currency, reference=reference
        )
        if is_new:
            refund = self.sent_back[reference] = replace(refund, status=self.refunds_are)
        self.lost_answers = lost
        self._answered()
        return refund

    def refund_becomes(self, reference: str, status: RefundStatus) -> GatewayRefund:
        self.sent_back[reference] = replace(self.sent_back[reference], status=status)
        return self.sent_back[reference]

    def refund_outside(
        self, attempt_id: str, amount_minor: int, status: RefundStatus = RefundStatus.DONE
    ) -> GatewayRefund:
        """Somebody at the gateway's dashboard."""
        attempt = self.tries[attempt_id]
        assert attempt.refunded_minor + amount_minor <= attempt.amount_minor
        self.tries[attempt_id] = replace(attempt, refunded_minor=attempt.refunded_minor + amount_minor)
        id_ = f"rfnd_{next(self._numbers)}"
        refund = GatewayRefund(id_, attempt_id, None, amount_minor, attempt.currency, status, 0)
        self.sent_back[id_] = refund
        return refund

    def dispute(
        self,
        attempt_id: str,
        status: DisputeStatus = DisputeStatus.OPEN,
        *,
        id_: str = "d1",
        amount: int | None = None,
    ) -> GatewayDispute:
        attempt = self.tries[attempt_id]
        minor = attempt.amount_minor if amount is None else amount
        return GatewayDispute(id_, attempt_id, minor, attempt.currency, status, "fraudulent", 0)

    def tells(self, event_id: str, news: Attempt | GatewayRefund | GatewayDispute, at_ms: int = 0) -> str:
        """Write an event, for `Desk.hears`."""
        kind = {Attempt: "attempt", GatewayRefund: "refund", GatewayDispute: "dispute"}[type(news)]
        parts: dict[str, Any] = {kind: news}
        self.told[event_id] = GatewayEvent(event_id, kind, at_ms, **parts)
        return event_id

    def read_webhook(self, body: bytes, headers: Any) -> GatewayEvent:
        return self.told.get(body.decode()) or super().read_webhook(body, headers)


class HeardWebhooks(Webhooks):
    """Whose letters can be waited for one by one."""

    def __init__(self, **ports: Any) -> None:
        super().__init__(**ports)
        self._over: dict[str, asyncio.Event] = {}

    def _guarded(self, letter: Letter) -> Coroutine[Any, Any, None]:  # type: ignore[override]  # called at once, run later
        over = self._over[letter.id] = asyncio.Event()

        async def work() -> None:
            try:
                await super(HeardWebhooks, self)._guarded(letter)
            finally:
                over.set()

        return work()

    async def worked_off(self, gateway: str, event_id: str) -> None:
        """Until nobody is at work on the event."""
        over = self._over.get(f"{gateway}:{event_id}")
        if over is not None:
            await over.wait()


@dataclass
class ToldPeople:
    """What people were told, by the notice's id, as a durable outbox keeps it."""

    letters: dict[str, Any] = field(default_factory=dict)

    async def refunded(self, refund: PayerRefund) -> None:
        self.letters.setdefault(f"{refund.id}:sent", refund)

    async def refund_failed(self, refund: PayerRefund, *, was_sent: bool) -> None:
        self.letters.setdefault(f"{refund.id}:failed:{was_sent}", refund)

    async def dispute_decided(self, dispute: Dispute) -> None:
        self.letters.setdefault(f"{dispute.id}:{dispute.status.value}", dispute)


@dataclass
class Desk(Till):
    """A till with the admins' payment desk."""

    gateway: ReturningGateway = field(default_factory=ReturningGateway)
    people: ToldPeople = field(default_factory=ToldPeople)

    async def boot(self) -> None:
        await super().boot()
        world, wrap, collections = self.world, self.fuse.wrap, SqliteCollections(self.world.db)
        observer = Extending(world.consultations, world.troubles)
        payments = CollectedPayments(
            payments=world.payments, store=wrap("payments", await CollectionPayments.open(collections))
        )
        self.disputes = Disputes(
            ledger=world.ledger,
            clock=self.clock,
            payments=payments,
            rows=wrap("disputes", await CollectionDisputes.open(collections)),
            observer=observer,
            news=wrap("news", self.people),
        )
        self.refunds = PayerRefunds(
            ledger=world.ledger,
            clock=self.clock,
            gateways=world.payments,
            payments=payments,
            rows=wrap("payer_refunds", await CollectionPayerRefunds.open(collections)),
            disputes=self.disputes,
            observer=observer,
            news=wrap("news", self.people),
        )
        world.payments.on_refunded = self.refunds.look
        world.webhooks = HeardWebhooks(
            payments=world.payments,
            inbox=wrap("inbox", await CollectionInbox.open(collections)),
            clock=self.clock,
            on_refund=self.refunds.take,
            on_dispute=self.disputes.take,
        )

    async def chores(self) -> None:
        await super().chores()
        await self.refunds.look_at_due()

    async def time_passes(self, rounds: int = 4) -> None:
        """The chores, as often as it takes for whatever waits."""
        for _ in range(rounds):
            self.clock.jump_ms(LONG_MS)
            await self.chores()

    async def paid(self, key: str = "r1", amount: int = AMOUNT) -> Payment:
        """A recharge that was paid and credited."""
        payment = await self.order(key, amount=amount)
        attempt = self.gateway.pay(payment.order_id or "")
        return await self.world.payments.learn(payment, attempt)

    async def refund(self, amount: int = AMOUNT, key: str = "f1", payment_id: str = "r1") -> PayerRefund:
        return await self.refunds.request(
            payment_id=payment_id, amount_minor=amount, reason="Asked for.", by="a1", operation_id=key
        )

    async def hears(self, *event_ids: str) -> None:
        """Webhooks, one after the other, each worked off."""
        for event_id in event_ids:
            await self.world.webhooks.take(self.gateway.name, body=event_id.encode(), headers={})
            await self.world.webhooks.worked_off(self.gateway.name, event_id)

    async def spend(self, amount: int, key: str = "spent") -> None:
        """Money of the wallet goes elsewhere."""
        wallet = wallet_of("u1")
        taken = Transfer(wallet, "revenue:elsewhere", amount, "elsewhere")
        await self.world.ledger.post(Movement(wallet, key, "elsewhere", "INR", key, (taken,)))

    async def money(self) -> dict[str, int]:
        """Where it all is."""
        ledger = self.world.ledger
        account = await ledger.account(wallet_of("u1"), "INR")
        return {
            "wallet": account.spendable,
            "held": account.held,
            "gateway": -await ledger.balance(gateway_of(self.gateway.name), "INR"),
            "loss": -await ledger.balance(REVENUE_CHARGEBACKS, "INR"),
        }

    async def audit(self) -> Findings:
        """What `verify-ledger` says."""
        await self.world.idle()
        return verify_books(self.db.path, now_ms=self.clock.now_ms(), abandon_ms=120_000)

    async def is_clean(self) -> None:
        found = await self.audit()
        assert found.verdict is Verdict.CLEAN, (found.broken, found.unfinished)


@asynccontextmanager
async def a_desk(path: Path, *, atomic: bool = True) -> AsyncIterator[Desk]:
    """Booted."""
    async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
        desk = Desk(db, atomic)
        await desk.boot()
        try:
            yield desk
        finally:
            await desk.world.webhooks.stop()
            if not desk.world.crashed:
                await desk.world.stop()
