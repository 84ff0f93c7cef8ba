"""The engine as benchmarks run it: everything real but the people, who are made up by the thousand."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

from billing_engine.consultations.engine import Engine
from billing_engine.consultations.model import LawyerTerms, SessionEvent
from billing_engine.consultations.rules import Rules
from billing_engine.consultations.service import Consultations
from billing_engine.consultations.settlement import Settlement
from billing_engine.ledger.service import Ledger
from billing_engine.money import INR
from billing_engine.payments.model import Payment, Purpose
from billing_engine.payments.service import PaymentService
from billing_engine.wallets.service import WalletRules, Wallets, recharge_of
from server.gateways.simulated import SimulatedGateway
from server.locks.local import LocalLocks
from server.storage.repositories.claims import CollectionClaims
from server.storage.repositories.payments import CollectionPayments
from server.storage.repositories.sessions import CollectionSessions
from server.storage.repositories.timeline import CollectionTimeline
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from server.storage.sqlite.ledger import SqliteLedgerStore


class BenchClock:
    """Milliseconds of the monotonic clock, started at the wall's."""

    def __init__(self) -> None:
        self._offset_ms = time.time_ns() // 1_000_000 - time.monotonic_ns() // 1_000_000

    def now_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000 + self._offset_ms

    def call_at_ms(self, when_ms: int, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(max(0, when_ms - self.now_ms()) / 1000, callback)


class AnyLawyer:
    """Every id is a verified lawyer who is online, at 10.00 a minute."""

    async def terms(self, lawyer_id: str) -> LawyerTerms:
        return LawyerTerms(lawyer_id, 1_000, is_verified=True, is_online=True)


class Extending:
    """A running session has more money."""

    def __init__(self, consultations: Consultations) -> None:
        self._consultations = consultations

    def credited(self, payment: Payment) -> None:
        self._consultations.recharged(payment.payer_id)

    def trouble(self, what: str, payment: Payment, **facts: object) -> None:
        raise AssertionError((what, payment, facts))


class NoRooms:
    """Conversations are not what is measured."""

    async def open(self, session_id: str, *, user_id: str, lawyer_id: str, at_ms: int) -> None: ...

    async def close(self, session_id: str, *, at_ms: int) -> None: ...

    async def evidence_ms(self, session_ids: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(session_ids, 0)


class Silence:
    """Nobody listens."""

    def __init__(self) -> None:
        self.told = 0

    def announce(self, event: SessionEvent) -> None:
        self.told += 1


class Observed:
    """Lateness of ticks and cut-offs, in milliseconds."""

    def __init__(self) -> None:
        self.ticks: list[int] = []
        self.cut_offs: list[int] = []

    def ticked(self, lateness_ms: int) -> None:
        self.ticks.append(lateness_ms)

    def cut_off(self, error_ms: int) -> None:
        self.cut_offs.append(error_ms)


class BenchWorld:
    """Wired services and two shortcuts."""

    def __init__(
        self,
        ledger: Ledger,
        engine: Engine,
        consultations: Consultations,
        wallets: Wallets,
        observer: Observed,
    ) -> None:
        self.ledger = ledger
        self.engine = engine
        self.consultations = consultations
        self.wallets = wallets
        self.observer = observer
        self._ids = count()

    async def recharge(self, user_id: str, amount_minor: int) -> None:
        await self.wallets.recharge(
            user_id=user_id, amount_minor=amount_minor, operation_id=f"pay-{next(self._ids):010d}"
        )

    async def begin(self, user_id: str, lawyer_id: str) -> None:
        operation_id = f"session-{next(self._ids):024d}"
        await self.consultations.start(user_id=user_id, lawyer_id=lawyer_id, operation_id=operation_id)

    def abandon(self) -> None:
        """Stop billing without the farewell writes: the file is thrown away."""
        for live in self.engine._live.values():
            live.task.cancel()
        self.engine._live.clear()


@asynccontextmanager
async def engine_on(path: Path, clock: BenchClock, rules: Rules) -> AsyncIterator[BenchWorld]:
    """A started engine on a durable SQLite file."""
    async with open_database(path, SqliteOptions(synchronous="FULL")) as db:
        store = SqliteLedgerStore(db)
        await store.prepare()
        collections = SqliteCollections(db)
        sessions = await CollectionSessions.open(collections)
        claims = await CollectionClaims.open(collections)
        timeline = await CollectionTimeline.open(collections)
        locks = LocalLocks(clock, ttl_ms=rules.lock_ttl_ms)
        rooms = NoRooms()
        observer = Observed()
        ledger = Ledger(store, clock, lambda _ms: "2026-01-01")
        await ledger.start()
        settlement = Settlement(sessions, timeline, rooms, claims, locks)
        engine = Engine(
            ledger=ledger,
            clock=clock,
            rules=rules,
            timeline=timeline,
            locks=locks,
            settlement=settlement,
            announcer=Silence(),
            observer=observer,
        )
        consultations = Consultations(
            ledger=ledger,
            clock=clock,
            rules=rules,
            sessions=sessions,
            claims=claims,
            timeline=timeline,
            locks=locks,
            lawyers=AnyLawyer(),
            rooms=rooms,
            engine=engine,
            settlement=settlement,
        )
        payments = PaymentService(
            ledger=ledger,
            clock=clock,
            payments=await CollectionPayments.open(collections),
            gateways={"simulated": SimulatedGateway()},
            movements={Purpose.WALLET: recharge_of},
            observer=Extending(consultations),
        )
        rules_of_wallets = WalletRules(INR, 100, 1_000_000_000)
        wallets = Wallets(ledger=ledger, payments=payments, gateway="simulated", rules=rules_of_wallets)
        yield BenchWorld(ledger, engine, consultations, wallets, observer)
        await engine.stop()
        await ledger.stop()
