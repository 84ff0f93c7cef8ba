"""A subscriber of the fake Stripe: what happens there, when word of it arrives here, and how everything stands in the end."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from billing_engine.ledger.accounts import REVENUE_SUBSCRIPTIONS, gateway_of
from billing_engine.payments.model import Payment
from billing_engine.subscriptions.account import GRANTED, UPGRADED
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.ai_stage import USER, AiStage, a_stripe
from tests.support.fake_stripe import FakeStripe
from tests.support.manual_clock import ManualClock

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000


class Standing(NamedTuple):
    """What the subscriber has, and what was booked."""

    tier: str
    starts_ms: int
    ends_ms: int
    ends: bool
    allowance: int
    credits: int
    row: tuple[Any, ...]
    booked: int


@dataclass
class Subscriber:
    """One user."""

    stage: AiStage
    stripe: FakeStripe
    told: int = 0
    pages: int = 0

    async def buys(self, tier: str = "starter") -> str:
        """Asks for a page and pays there; the subscription."""
        page = await self.opens(tier)
        self.stripe.pay(page)
        return self.stripe.subscription_at(page)

    async def opens(self, tier: str = "starter") -> str:
        self.pages += 1
        known = await self.stage.plans.checkout(
            user_id=USER, email="", tier=tier, operation_id=f"page{self.pages}"
        )
        return str(known.checkout_id)

    async def orders(
        self, tier: str = "professional", key: str = "upgrade1", *, resets: bool = False
    ) -> Payment:
        payment, _ = await self.stage.plans.upgrade(
            user_id=USER, email="", tier=tier, resets=resets, operation_id=key
        )
        return payment

    async def upgrades(self, tier: str = "professional", key: str = "upgrade1", **more: Any) -> Payment:
        payment = await self.orders(tier, key, **more)
        self.stripe.pay(payment.order_id)
        return payment

    def passes(self, duration_ms: int) -> None:
        self.stage.clock.jump_ms(duration_ms)
        self.stripe.advance()

    async def hears(self) -> None:
        """What is new at Stripe arrives, and the chores are done."""
        events = self.stripe.events
        news, self.told = events[self.told :], len(events)
        for body, headers in news:
            await self.stage.webhooks.take("stripe", body=body, headers=headers)
            await self.worked_off()
        await self.chores()

    async def hears_all(self, order: random.Random | None) -> None:
        """Everything that ever happened, in any order, and half of it again."""
        events = list(self.stripe.events)
        self.told = len(events)
        if order is not None:
            order.shuffle(events)
        for body, headers in events:
            await self.stage.webhooks.take("stripe", body=body, headers=headers)
            await self.worked_off()
        for name in self.stripe.books.subscriptions:
            await self.stage.plans.take(name)
        await self.chores()

    async def worked_off(self) -> None:
        for task in list(self.stage.webhooks._working):
            await task

    async def chores(self) -> None:
        """What the worker does every second, once."""
        await self.stage.payments.ask_about_due()
        await self.stage.webhooks.work_off()
        await self.worked_off()
        await self.stage.plans.work_off()

    async def settles(self) -> None:
        """No word comes any more; the chores go on for a while."""
        for _ in range(4):
            self.stage.clock.jump_ms(61_000)
            await self.chores()

    async def standing(self) -> Standing:
        view = await self.stage.plans.view(USER)
        known = await self.stage.subscriptions.get(USER)
        assert known is not None
        row = (known.tier, known.status, known.subscription_id, known.cancels, known.wanted_tier)
        plan = view.plan
        # The gateway's word: the next invoice.
        row = (*row, known.next_tier)
        return Standing(
            plan.tier,
            plan.start_ms,
            plan.end_ms,
            plan.ends,
            plan.allowance_milli,
            view.remaining_milli,
            row,
            await self.stage.ledger.balance(REVENUE_SUBSCRIPTIONS, "USD"),
        )

    async def check(self) -> None:
        """Every invoice and upgrade that is paid is booked once; every period is granted at most once; the books are clean."""
        await self.stage.check()
        books = self.stripe.books
        paid = sum(one["amount_paid"] for one in books.invoices.values() if one["status"] == "paid")
        paid += sum(
            one["amount_total"]
            for one in books.sessions.values()
            if one["mode"] == "payment" and one["payment_status"] == "paid"
        )
        booked = await self.stage.ledger.balance(REVENUE_SUBSCRIPTIONS, "USD")
        assert booked == paid * 10_000, "money"
        assert await self.stage.ledger.balance(gateway_of("stripe"), "USD") == -booked
        entries = await self.stage.entries()
        granted = [entry.key for entry in entries if entry.kind in (GRANTED, UPGRADED)]
        assert len(granted) == len(set(granted))


@asynccontextmanager
async def a_subscriber(path: Path, *, atomic: bool = True) -> AsyncIterator[Subscriber]:
    clock = ManualClock()
    async with (
        a_stripe(clock) as (fake, gateways),
        open_database(path, SqliteOptions(synchronous="OFF")) as db,
    ):
        stage = AiStage(db, atomic, stripe=fake, gateways=gateways, clock=clock)
        await stage.boot()
        await stage.plans.view(USER)
        stage.clock.jump_ms(10_000)
        try:
            yield Subscriber(stage, fake)
        finally:
            if not stage.fuse.burnt:
                await stage.stop()
