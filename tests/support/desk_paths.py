"""Payouts to be disturbed: a database file, the processes that live on it one after the other, and what must hold afterwards."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from billing_engine.money import INR
from billing_engine.payouts.model import Payout, PayoutStatus, Verdict
from billing_engine.payouts.service import PayoutRules, Payouts
from billing_engine.verification import Findings
from server.storage.repositories.payouts import CollectionPayouts
from server.storage.sqlite.books import verify_books
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.consult_paths import Stage

#: What a consultation of the stage's user cost: a minute and seven seconds at 60.00.
GROSS: Final = 6_700
COMMISSION: Final = 837
NET: Final = GROSS - COMMISSION


@dataclass
class Told:
    """What people were told, by the notice's id, as a durable outbox keeps it."""

    letters: dict[str, Any] = field(default_factory=dict)

    async def payout_decided(self, payout: Payout) -> None:
        self.letters.setdefault(f"payout:{payout.id}", payout)


@dataclass
class DeskStage(Stage):
    """A stage with the admins' desk: lawyers are paid out."""

    told: Told = field(default_factory=Told)

    async def boot(self) -> None:
        await super().boot()
        wrap, collections = self.fuse.wrap, SqliteCollections(self.world.db)
        self.payouts = Payouts(
            ledger=self.world.ledger,
            rows=wrap("payouts", await CollectionPayouts.open(collections)),
            news=wrap("news", self.told),
            clock=self.clock,
            rules=PayoutRules(INR, 100),
        )

    async def heal(self) -> int:
        """What housekeeping does."""
        return await self.payouts.heal()

    async def audit(self) -> Findings:
        """What `verify-ledger` says."""
        await self.world.idle()
        return verify_books(self.db.path, now_ms=self.clock.now_ms(), abandon_ms=self.rules.abandon_ms)

    async def ask(self, payout_id: str = "p1", amount: int = NET) -> Payout:
        return await self.payouts.request(lawyer_id="l1", amount_minor=amount, operation_id=payout_id)

    async def pay(self, payout_id: str = "p1", reference: str = "UTR") -> Payout:
        return await self.payouts.decide(
            payout_id, Verdict(PayoutStatus.PAID, "an admin", reference=reference)
        )

    async def fail(self, payout_id: str = "p1") -> Payout:
        return await self.payouts.decide(payout_id, Verdict(PayoutStatus.FAILED, "an admin", reason="No."))


Step = Callable[[DeskStage], Awaitable[Any]]


@asynccontextmanager
async def a_desk(path: Path, *, atomic: bool) -> AsyncIterator[DeskStage]:
    async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
        yield DeskStage(db, atomic)


async def earned(stage: DeskStage) -> None:
    """A consultation has ended, and its lawyer has earnings."""
    await stage.boot()
    await stage.recharge()
    await stage.start()
    await stage.world.advance(67)
    await stage.end()


async def asked(stage: DeskStage) -> None:
    """A payout is requested."""
    await earned(stage)
    await stage.ask()
