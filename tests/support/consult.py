"""The consultation engine on a real SQLite file, with a clock that the test moves."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from billing_engine.consultations.engine import Engine
from billing_engine.consultations.model import LawyerTerms, SessionEvent
from billing_engine.consultations.ports import Peers
from billing_engine.consultations.recovery import Recovery
from billing_engine.consultations.request_model import RequestChanged, RequestEvent, state_of
from billing_engine.consultations.requests import Requests
from billing_engine.consultations.rules import Rules
from billing_engine.consultations.served import ServedElsewhere
from billing_engine.consultations.service import Consultations
from billing_engine.consultations.settlement import Settlement
from billing_engine.consultations.takeover import WEB, Takeover
from billing_engine.consultations.waiting import WaitingLists
from billing_engine.credits.purchases import sale_of
from billing_engine.ledger.service import Ledger
from billing_engine.money import INR
from billing_engine.payments.model import Payment, Purpose
from billing_engine.payments.service import PaymentService
from billing_engine.payments.webhooks import Webhooks
from billing_engine.wallets.service import WalletRules, Wallets, recharge_of
from server.gateways.simulated import SimulatedGateway
from server.locks.local import LocalLocks
from server.storage.repositories.claims import CollectionClaims
from server.storage.repositories.gateway_events import CollectionInbox
from server.storage.repositories.leases import CollectionLeases
from server.storage.repositories.payments import CollectionPayments
from server.storage.repositories.sessions import CollectionSessions
from server.storage.repositories.timeline import CollectionTimeline
from server.storage.repositories.waiting import CollectionWaiting
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteDatabase, SqliteOptions, open_database
from server.storage.sqlite.ledger import SqliteLedgerStore
from tests.support.manual_clock import ManualClock
from tests.support.sockets import Sockets


class Terms:
    """Lawyers as a dict."""

    def __init__(self) -> None:
        self.by_id: dict[str, LawyerTerms] = {}

    def add(
        self,
        lawyer_id: str,
        rate_minor_per_min: int = 6_000,
        *,
        verified: bool = True,
        online: bool = True,
        **more: Any,
    ) -> None:
        self.by_id[lawyer_id] = LawyerTerms(lawyer_id, rate_minor_per_min, verified, online, **more)

    async def terms(self, lawyer_id: str) -> LawyerTerms | None:
        return self.by_id.get(lawyer_id)

    async def set_away(self, lawyer_id: str, *, online_at_ms: int) -> bool:
        terms = self.by_id[lawyer_id]
        if not terms.is_online or terms.online_at_ms != online_at_ms:
            return False
        self.by_id[lawyer_id] = replace(terms, is_online=False)
        return True


@dataclass
class QuietRooms:
    """Conversations that nobody writes in; `evidence` is what the chat would tell."""

    evidence: dict[str, int] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    closed: dict[str, int] = field(default_factory=dict)

    async def open(self, session_id: str, *, user_id: str, lawyer_id: str, at_ms: int) -> None:
        del user_id, lawyer_id, at_ms
        self.opened.append(session_id)

    async def close(self, session_id: str, *, at_ms: int) -> None:
        self.closed[session_id] = at_ms

    async def evidence_ms(self, session_ids: Sequence[str]) -> dict[str, int]:
        return {session_id: self.evidence.get(session_id, 0) for session_id in session_ids}


@dataclass
class Heard:
    """What was announced, in order."""

    events: list[SessionEvent] = field(default_factory=list)

    def announce(self, event: SessionEvent) -> None:
        self.events.append(event)

    def names(self, session_id: str | None = None) -> list[str]:
        return [e.name for e in self.events if session_id in (None, e.view.session.id)]


@dataclass
class HeardOfRequests:
    """What was told of requests, in order."""

    events: list[RequestEvent] = field(default_factory=list)

    def tell(self, event: RequestEvent) -> None:
        self.events.append(event)

    def states(self, session_id: str) -> list[str]:
        return [
            str(state_of(event.session))
            for event in self.events
            if isinstance(event, RequestChanged) and event.session.id == session_id
        ]


class Punctuality:
    """Collects lateness."""

    def __init__(self) -> None:
        self.ticks: list[int] = []
        self.cut_offs: list[int] = []

    def ticked(self, lateness_ms: int) -> None:
        self.ticks.append(lateness_ms)

    def cut_off(self, error_ms: int) -> None:
        self.cut_offs.append(error_ms)


@dataclass
class Extending:
    """`PaymentObserver`: a running consultation has more money."""

    consultations: Consultations
    troubles: list[str]

    def credited(self, payment: Payment) -> None:
        self.consultations.recharged(payment.payer_id)

    def trouble(self, what: str, payment: Payment, **facts: Any) -> None:
        self.troubles.append(what)


class WatchedDatabase:
    """The database, with a view of what is under way."""

    def __init__(self, db: SqliteDatabase) -> None:
        self._db = db
        self._pending: set[asyncio.Future[Any]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def submit(self, lane: Any, work: Any) -> "asyncio.Future[Any]":
        future = self._db.submit(lane, work)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    async def write(self, lane: Any, work: Any) -> Any:
        return await self.submit(lane, work)

    async def scan(self, work: Any) -> Any:
        scan = asyncio.ensure_future(self._db.scan(work))
        self._pending.add(scan)
        scan.add_done_callback(self._pending.discard)
        return await scan

    async def until_idle(self) -> None:
        while self._pending:
            await asyncio.wait(set(self._pending))

    @property
    def busy(self) -> bool:
        return bool(self._pending)


class World:
    """One process's consultations. `clock.advance` returns when everything that came due has been done and stored."""

    def __init__(
        self,
        db: SqliteDatabase,
        clock: ManualClock,
        rules: Rules,
        *,
        atomic: bool = True,
        role: str | None = None,
        peers: Peers | None = None,
        gateway: Any = None,
    ) -> None:
        """With a `role` it is one of several processes that watch each other; without, it is alone."""
        self.role = role
        self.peers = peers
        self.gateway: Any = gateway or SimulatedGateway()
        self.troubles: list[str] = []
        self.takeover: Takeover | None = None
        self.db: Any = WatchedDatabase(db)
        self.clock = clock
        self.rules = rules
        self.store: Any = SqliteLedgerStore(self.db, atomic=atomic)
        self.lawyers = Terms()
        self.rooms = QuietRooms()
        self.heard = Heard()
        self.asked = HeardOfRequests()
        self.punctuality = Punctuality()
        self.crashed = False
        self.sockets = Sockets(clock)
        self._ids = 0

    async def build(self, wrap: Callable[[str, Any], Any] = lambda _, port: port) -> "World":
        """Wire everything. `wrap(name, port)` may put something between the engine and a port (to crash it, to stop it)."""
        await self.store.prepare()
        collections = SqliteCollections(self.db)
        self.sessions = wrap("sessions", await CollectionSessions.open(collections))
        self.claims = wrap("claims", await CollectionClaims.open(collections))
        self.timeline = wrap("timeline", await CollectionTimeline.open(collections))
        self.locks = wrap("locks", LocalLocks(self.clock, ttl_ms=self.rules.lock_ttl_ms))
        rooms = wrap("rooms", self.rooms)
        self.ledger = Ledger(
            wrap("ledger", self.store), self.clock, lambda ms: f"2026-01-{1 + ms // 86_400_000 % 28:02d}"
        )
        self.settlement = Settlement(self.sessions, self.timeline, rooms, self.claims, self.locks)
        self.engine = Engine(
            ledger=self.ledger,
            clock=self.clock,
            rules=self.rules,
            timeline=self.timeline,
            locks=self.locks,
            settlement=self.settlement,
            announcer=self.heard,
            observer=self.punctuality,
            peers=self.peers,
            attending=wrap("attending", self.sockets),
        )
        self.sockets.presence.listen(lambda session_id, _: self.engine.heard_presence(session_id))
        self.elsewhere = ServedElsewhere(ledger=self.ledger, sessions=self.sessions, clock=self.clock)
        owner = secrets.token_hex(8)
        self.requests = Requests(
            ledger=self.ledger,
            clock=self.clock,
            rules=self.rules,
            sessions=self.sessions,
            locks=self.locks,
            lawyers=self.lawyers,
            engine=self.engine,
            settlement=self.settlement,
            news=self.asked,
            owner=owner,
            may_live=lambda owner: self.takeover is not None and self.takeover.may_live(owner),
        )
        self.waiting = WaitingLists(
            rows=wrap("waiting", await CollectionWaiting.open(collections)),
            sessions=self.sessions,
            claims=self.claims,
            lawyers=self.lawyers,
            clock=self.clock,
            rules=self.rules,
            news=self.asked,
            owner=owner,
            new_id=lambda: self.new_id("turn"),
            may_live=lambda owner: self.takeover is not None and self.takeover.may_live(owner),
        )
        self.settlement.on_freed.append(self.waiting.look)
        self.consultations = Consultations(
            ledger=self.ledger,
            clock=self.clock,
            rules=self.rules,
            sessions=self.sessions,
            claims=self.claims,
            timeline=self.timeline,
            locks=self.locks,
            lawyers=self.lawyers,
            rooms=rooms,
            engine=self.engine,
            settlement=self.settlement,
            owner=owner,
            requests=self.requests,
            waiting=self.waiting,
            elsewhere=None if self.role is None else self.elsewhere,
        )
        self.recovery = Recovery(
            ledger=self.ledger,
            clock=self.clock,
            rules=self.rules,
            sessions=self.sessions,
            rooms=rooms,
            locks=self.locks,
            engine=self.engine,
            consultations=self.consultations,
            serves=self.role in (None, WEB),
        )
        if self.role is not None:
            self.leases = wrap("leases", await CollectionLeases.open(collections))
            self.takeover = Takeover(
                owner=self.consultations.owner,
                role=self.role,
                leases=self.leases,
                ledger=self.ledger,
                sessions=self.sessions,
                engine=self.engine,
                recovery=self.recovery,
                clock=self.clock,
                rules=self.rules,
            )
        self.payments = PaymentService(
            ledger=self.ledger,
            clock=self.clock,
            payments=wrap("payments", await CollectionPayments.open(collections)),
            gateways={self.gateway.name: wrap("gateway", self.gateway)},
            movements={Purpose.WALLET: recharge_of, Purpose.CREDITS: sale_of},
            observer=Extending(self.consultations, self.troubles),
        )
        self.wallets = Wallets(
            ledger=self.ledger,
            payments=self.payments,
            gateway=self.gateway.name,
            rules=WalletRules(INR, 100, 10_000_000),
        )
        inbox = wrap("inbox", await CollectionInbox.open(collections))
        self.webhooks = Webhooks(payments=self.payments, inbox=inbox, clock=self.clock)
        return self

    async def start(self) -> int:
        """Start as the server does: redo, then take up the unfinished sessions."""
        await self.ledger.start()
        taken_up = await (self.recovery.run() if self.takeover is None else self.takeover.begin())
        await self.requests.sweep()
        await self.waiting.sweep()
        return taken_up

    async def stop(self) -> None:
        await self.requests.stop()
        await self.waiting.stop()
        if self.takeover is not None:
            await self.takeover.end()
        await self.engine.stop()
        if self.takeover is not None:
            await self.takeover.give_up()
        await self.ledger.stop()

    async def crash(self) -> None:
        """Die as a process does: no last write, no goodbye; what was not committed is gone."""
        self.crashed = True
        tasks = [live.task for live in self.engine._live.values()] + list(self.engine._settling.values())
        tasks.append(self.ledger.committer._worker)
        for timer in (*self.requests._timers.values(), *self.waiting._timers.values()):
            timer.cancel()
        tasks += [*self.requests._tasks, *self.waiting._tasks]
        if self.takeover is not None:
            tasks += [self.takeover._task, self.takeover._sweeping, *self.takeover._burying.values()]
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)

    def new_id(self, prefix: str = "op") -> str:
        self._ids += 1
        return f"{prefix}-{self.clock.now_ms()}-{self._ids:06d}"

    async def recharge(self, user_id: str, amount_minor: int) -> None:
        await self.wallets.recharge(
            user_id=user_id, amount_minor=amount_minor, operation_id=self.new_id("pay")
        )

    async def begin(self, user_id: str = "u1", lawyer_id: str = "l1", **more: Any) -> str:
        """Start a consultation; its id."""
        view = await self.consultations.start(
            user_id=user_id, lawyer_id=lawyer_id, operation_id=self.new_id("session"), **more
        )
        return view.session.id

    async def advance(self, seconds: float) -> None:
        """Move the clock, letting everything that comes due finish before it moves on."""
        await self.clock.advance_ms(round(seconds * 1000), idle=self.idle)

    async def idle(self) -> None:
        """Return when no write is under way and no task has anything left to do now."""
        quiet = 0
        while quiet < 5:
            await asyncio.sleep(0)
            if self.db.busy:
                quiet = 0
                await self.db.until_idle()
            else:
                quiet += 1


@asynccontextmanager
async def open_world(
    path: Path,
    *,
    rules: Rules | None = None,
    clock: ManualClock | None = None,
    atomic: bool = True,
    prepare: Callable[[World], None] = lambda _: None,
    wrap: Callable[[str, Any], Any] = lambda _, port: port,
) -> AsyncIterator[World]:
    """A started world on the file; stopped cleanly at the end, unless `world.crash()` came first. `prepare` runs before recovery."""
    async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
        world = await World(db, clock or ManualClock(), rules or Rules(), atomic=atomic).build(wrap)
        prepare(world)
        await world.start()
        try:
            yield world
        finally:
            if not world.crashed:
                await world.stop()
