"""Payouts and refunds to be disturbed: a database file, the processes that live on it one after the other, and how each call of a
path goes wrong in its turn.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from billing_engine.money import INR
from billing_engine.payouts.model import Payout, PayoutStatus, Verdict
from billing_engine.payouts.service import PayoutRules, Payouts
from billing_engine.refunds.model import Decision, RefundBook, RefundRequest
from billing_engine.refunds.service import Refunds
from billing_engine.verification import Findings
from server.storage.errors import StoreUnavailable
from server.storage.repositories.payouts import CollectionPayouts
from server.storage.repositories.refunds import CollectionRefundBooks, CollectionRefundRequests
from server.storage.sqlite.books import verify_books
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.consult_paths import Stage, survived
from tests.support.faults import Fuse, Moment

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

    async def refund_decided(self, book: RefundBook, decision: Decision) -> None:
        del book
        self.letters.setdefault(f"refund:{decision.id}", decision)


@dataclass
class DeskStage(Stage):
    """A stage with the admins' desk: lawyers are paid out, users get money back."""

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
        self.refunds = Refunds(
            ledger=self.world.ledger,
            sessions=self.world.sessions,
            books=wrap("books", await CollectionRefundBooks.opened(collections)),
            requests=wrap("requests", await CollectionRefundRequests.open(collections)),
            news=wrap("news", self.told),
            clock=self.clock,
            on_credited=self.world.consultations.recharged,
        )

    async def heal(self) -> int:
        """What housekeeping does."""
        return await self.payouts.heal() + await self.refunds.heal()

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

    async def give_back(self, refund_id: str = "r1", amount: int = 2_001) -> tuple[RefundBook, Decision]:
        return await self.refunds.refund(
            "s1", amount_minor=amount, reason="Bad line.", by="an admin", operation_id=refund_id
        )

    async def file(self, operation_id: str = "ask") -> RefundRequest:
        return await self.refunds.ask(
            "s1", user_id="u1", amount_minor=2_001, reason="No sound.", operation_id=operation_id
        )

    async def approve(self) -> RefundRequest:
        return await self.refunds.approve("s1-1", amount_minor=None, reason=None, by="an admin")

    async def reject(self) -> RefundRequest:
        return await self.refunds.reject("s1-1", reason="No.", by="an admin")


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


async def filed(stage: DeskStage) -> None:
    """A refund is asked for."""
    await earned(stage)
    await stage.file()


@dataclass(frozen=True)
class DeskPath:
    """What comes before, what is disturbed, and the calls that it must at least have made."""

    name: str
    before: Step
    act: Step
    touches: frozenset[str]


#: What must hold after healing, before and after everybody asks again.
Promises = Callable[[DeskStage, DeskPath], Awaitable[None]]


async def cut_off(stage: DeskStage, act: Step, label: str) -> None:
    """The process died in `act`, before the call of this name; the next one has not healed yet."""
    stage.fuse.counting = False
    stage.fuse.die_at(label, Moment.BEFORE)
    assert not await survived(stage, act)  # type: ignore[arg-type]
    await reborn(stage, heals=False)


async def reborn(stage: DeskStage, *, heals: bool = True) -> None:
    """Die, if that has not happened, and start anew."""
    await stage.die()
    stage.clock.jump_ms(3_000)
    await stage.reborn(Fuse(counting=False))
    if heals:
        await stage.heal()


async def trouble_at_every_await(
    directory: Path, path: Any, promises: Any, *, atomic: bool, dies: bool, opened: Any = a_desk
) -> None:
    """Once for each call of an undisturbed run, before and after its effect: the process dies there, or the call alone fails."""
    calls = await _calls_of(directory / "whole.db", path, promises, opened, atomic=atomic)
    for at, label in enumerate(calls):
        for moment in Moment:
            async with opened(directory / f"{at}{moment}.db", atomic=atomic) as stage:
                try:
                    await _one_trouble(stage, path, promises, at, moment, dies=dies)
                except Exception as exc:
                    exc.add_note(f"{path.name}: {'died' if dies else 'failed'} {moment} call {at}, {label}")
                    raise


async def _calls_of(file: Path, path: Any, promises: Any, opened: Any, *, atomic: bool) -> list[str]:
    async with opened(file, atomic=atomic) as stage:
        stage.fuse.counting = False
        await path.before(stage)
        stage.fuse.counting = True
        await path.act(stage)
        calls = list(stage.fuse.calls)
        stage.fuse.counting = False
        await reborn(stage)
        await promises(stage, path)
        await stage.world.stop()
    assert set(calls) >= path.touches, sorted(path.touches - set(calls))
    return calls


async def _one_trouble(
    stage: DeskStage, path: DeskPath, promises: Promises, at: int, moment: Moment, *, dies: bool
) -> None:
    stage.fuse.counting = False
    await path.before(stage)
    fuse = stage.fuse
    fuse.at, fuse.moment, fuse.counting, fuse.calls = at, moment, True, []
    if dies:
        assert not await survived(stage, path.act)  # type: ignore[arg-type]
        await reborn(stage)
    else:
        fuse.error = StoreUnavailable
        with pytest.raises(StoreUnavailable):
            await path.act(stage)
        fuse.counting = False
        # Stepwise, an entry may wait in its tail for whoever reads next.
        await stage.world.ledger.recover()
        await stage.heal()
    await promises(stage, path)
    await stage.world.stop()
