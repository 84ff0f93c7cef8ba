"""One recharge through a gateway, from the order to the credit, and what must hold whatever happened on the way."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from billing_engine.consultations.rules import Rules
from billing_engine.ledger.accounts import gateway_of, wallet_of
from billing_engine.payments.model import Payment, PaymentStatus
from billing_engine.payments.schedule import GIVE_UP_AFTER_MS
from server.storage.sqlite.engine import SqliteDatabase, SqliteOptions, open_database
from tests.support.consult import World
from tests.support.consult_checks import check_books
from tests.support.faults import Fuse
from tests.support.manual_clock import ManualClock
from tests.support.scripted_gateway import ScriptedGateway

AMOUNT: Final = 50_000


@dataclass
class Till:
    """One database file, one gateway, and the processes that live on them one after the other."""

    db: SqliteDatabase
    atomic: bool = True
    gateway: ScriptedGateway = field(default_factory=ScriptedGateway)
    clock: ManualClock = field(default_factory=ManualClock)
    fuse: Fuse = field(default_factory=lambda: Fuse(counting=False))
    _world: World | None = None

    @property
    def world(self) -> World:
        assert self._world is not None
        return self._world

    async def boot(self) -> None:
        """A new process on the same file."""
        self._world = World(self.db, self.clock, Rules(), atomic=self.atomic, gateway=self.gateway)
        await self._world.build(self.fuse.wrap)
        self._world.lawyers.add("l1", 6_000)
        await self._world.start()

    async def die(self) -> None:
        """What was handed to the database still lands: that, too, is what a killed process leaves."""
        self.fuse.burnt = True
        await self.world.webhooks.stop()
        await self.world.crash()
        await self.world.db.until_idle()

    async def reborn(self) -> None:
        self.fuse = Fuse(counting=False)
        await self.boot()

    async def order(self, key: str = "r1", user_id: str = "u1", amount: int = AMOUNT) -> Payment:
        return await self.world.wallets.recharge(user_id=user_id, amount_minor=amount, operation_id=key)

    async def verify(self, payment: Payment, attempt_id: str, user_id: str = "u1") -> Payment:
        order_id = payment.order_id or ""
        return await self.world.payments.verify(
            gateway=self.gateway.name,
            payer_id=user_id,
            order_id=order_id,
            attempt_id=attempt_id,
            signature=self.gateway.signature(order_id, attempt_id),
        )

    async def hear(self, event_id: str, attempt: Any) -> None:
        """A webhook, worked off."""
        body, headers = self.gateway.event(event_id, attempt)
        await self.world.webhooks.take(self.gateway.name, body=body, headers=headers)
        await self.worked_off()

    async def worked_off(self) -> None:
        for task in list(self.world.webhooks._working):
            await task

    async def chores(self) -> None:
        """What the worker does every second, once."""
        await self.world.payments.ask_about_due()
        await self.world.webhooks.work_off()

    async def settle(self) -> None:
        """Time passes, and the chores with it, until nothing is due any more."""
        deadline_ms = self.clock.now_ms() + 2 * GIVE_UP_AFTER_MS
        while True:
            await self.chores()
            due = await self.world.payments._payments.due(10**15, limit=1)
            if not due:
                return
            assert self.clock.now_ms() < deadline_ms, due
            self.clock.jump_ms(max(1_000, (due[0].check_at_ms or 0) - self.clock.now_ms()))

    async def stored(self, key: str = "r1") -> Payment:
        return await self.world.payments.own(key, payer_id=None)

    async def wallet(self, user_id: str = "u1") -> int:
        return (await self.world.wallets.balance(user_id)).spendable_minor

    async def check_paid_once(self) -> None:
        """The only payment there is: credited, and the books say the same."""
        await self.check_paid_once_of(await self.stored())
        await check_books(self.world)
        assert await self.world.ledger.balance(gateway_of(self.gateway.name), "INR") == -AMOUNT

    async def check_paid_once_of(self, payment: Payment) -> Payment:
        """The payer's only payment is credited once, with exactly the order's amount; as it is stored now."""
        stored = await self.stored(payment.id)
        assert (stored.status, stored.check_at_ms) == (PaymentStatus.PAID, None), stored
        assert await self.wallet(payment.payer_id) == AMOUNT
        lines = await self.world.ledger.lines(wallet_of(payment.payer_id), limit=10)
        assert [(line.kind, line.change_minor) for line in lines] == [("recharge", AMOUNT)]
        assert await self.world.wallets.credit_of(stored) is not None
        return stored


@asynccontextmanager
async def a_till(path: Path, *, atomic: bool = True) -> AsyncIterator[Till]:
    """Booted."""
    async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
        till = Till(db, atomic)
        await till.boot()
        try:
            yield till
        finally:
            await till.world.webhooks.stop()
            if not till.world.crashed:
                await till.world.stop()
