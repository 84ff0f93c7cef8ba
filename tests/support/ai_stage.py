"""AI calls and subscriptions to be disturbed: a database file, the processes that live on it one after the other, a scripted provider
of AI, and (where there is one) the fake Stripe, which outlives them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from billing_engine.clock import Moment as Instant
from billing_engine.errors import BillingError
from billing_engine.ledger.accounts import ai_credits_of
from billing_engine.ledger.model import Account, Entry, KeyState
from billing_engine.ledger.service import Ledger
from billing_engine.money import USD
from billing_engine.payments.model import Purpose
from billing_engine.payments.service import PaymentService
from billing_engine.payments.webhooks import Webhooks
from billing_engine.subscriptions.account import CALL_HOLDS, CALLED, PaidCycle, begin_paid
from billing_engine.subscriptions.calls import AiCalls, MeteredStream, row_of
from billing_engine.subscriptions.catalogue import ModelPrices, Tiers
from billing_engine.subscriptions.errors import AiUnavailable
from billing_engine.subscriptions.model import CYCLE_MS, ModelPrice, Provider, Tier, Tokens
from billing_engine.subscriptions.plans import Plans, upgrade_sale_of
from billing_engine.subscriptions.ports import AiAnswer, AiRequest
from billing_engine.verification import Verdict
from server.gateways.simulated import SimulatedGateway
from server.gateways.simulated_subscriptions import SimulatedSubscriptions
from server.gateways.stripe import StripeGateway
from server.gateways.stripe_subscriptions import StripeSubscriptions
from server.storage.repositories.ai_calls import CollectionCalls
from server.storage.repositories.gateway_events import CollectionInbox
from server.storage.repositories.payments import CollectionPayments
from server.storage.repositories.simulated_subscriptions import CollectionAgreements
from server.storage.repositories.subscriptions import (
    CollectionQuotes,
    CollectionSubscriptions,
    CollectionTierChanges,
)
from server.storage.sqlite.books import verify_books
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteDatabase, SqliteOptions, open_database
from server.storage.sqlite.ledger import SqliteLedgerStore
from tests.support.consult import WatchedDatabase
from tests.support.fake_stripe import FakeStripe
from tests.support.faults import Died, Fuse
from tests.support.manual_clock import ManualClock

USER: Final = "u1"
MODEL: Final = "m"
PRICE: Final = ModelPrice(Provider.OPENAI, MODEL, Decimal("0.01"), Decimal("0.03"), 100_000, 4_000)
OPEN_AI: Final = frozenset({Provider.OPENAI})
TIERS: Final = Tiers(
    [
        Tier("free", 0, 0, 100_000, 10_000, 100, OPEN_AI, 5),
        Tier("starter", 1, 19_000_000, 1_900_000, 500_000, 1_000, OPEN_AI, 20),
        Tier("professional", 2, 99_000_000, 9_900_000, 5_000_000, 10_000, OPEN_AI, 50),
        Tier("enterprise", 3, 499_000_000, 49_900_000, 50_000_000, 100_000, OPEN_AI, 100),
    ]
)
#: What a whole answer counts, and what a stream's pieces add up to: 0.001 + 0.003 USD = 0.4 credits.
COUNTED: Final = Tokens(100, 100)
COST: Final = 400


@dataclass
class Script:
    """How the provider answers. `then` happens before each piece of a stream, and before a whole answer."""

    status: int = 200
    tokens: Tokens | None = COUNTED
    unavailable: bool = False
    pieces: int = 4
    #: A stream breaks off after so many pieces.
    cut_after: int | None = None
    then: Callable[[], Awaitable[None]] | None = None


class ScriptedStream:
    """`AiStream`: each piece is a fourth of the output."""

    content_type = "text/event-stream"

    def __init__(self, provider: "ScriptedAi") -> None:
        self._provider = provider
        self._script = provider.script
        self.sent = 0
        self.is_closed = False
        self.counted: Tokens | None = None

    def __aiter__(self) -> "ScriptedStream":
        return self

    async def __anext__(self) -> bytes:
        return await self._provider.around("ai.piece", self._next)

    async def _next(self) -> bytes:
        if self._script.then is not None:
            await self._script.then()
        if self.is_closed or self.sent == self._script.cut_after:
            raise AiUnavailable(provider="openai")
        if self.sent == self._script.pieces:
            self.counted = COUNTED
            # Through a coroutine, StopAsyncIteration would be an error.
            return b""
        self.sent += 1
        return b"piece"

    @property
    def produced(self) -> Tokens:
        return Tokens(COUNTED.input, COUNTED.output * self.sent // self._script.pieces)

    async def close(self) -> None:
        self.is_closed = True


class _Ending:
    """Turns the empty piece into the end."""

    def __init__(self, stream: ScriptedStream) -> None:
        self._stream = stream
        self.content_type = stream.content_type

    def __aiter__(self) -> "_Ending":
        return self

    async def __anext__(self) -> bytes:
        piece = await self._stream.__anext__()
        if not piece:
            raise StopAsyncIteration
        return piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class ScriptedAi:
    """`AiProvider` in memory; `asked` counts. It needs at most `most` for a call. Each step passes through `around`."""

    name = Provider.OPENAI

    def __init__(self, around: Callable[[str, Callable[[], Any]], Any]) -> None:
        self.around = around
        self.script = Script()
        self.most_tokens = Tokens(200, 200)
        self.asked = 0
        self.streams: list[ScriptedStream] = []

    def read(self, body: bytes, query: Mapping[str, str]) -> AiRequest:
        parsed = json.loads(body)
        return AiRequest(self.name, MODEL, body, parsed, bool(parsed.get("stream")))

    def most(self, request: AiRequest, price: ModelPrice) -> Tokens:
        del request, price
        return self.most_tokens

    async def call(self, request: AiRequest) -> AiAnswer:
        return await self.around("ai.call", self._answer)

    async def stream(self, request: AiRequest) -> Any:
        return await self.around("ai.stream", self._stream)

    async def _answer(self) -> AiAnswer:
        self.asked += 1
        if self.script.then is not None:
            await self.script.then()
        if self.script.unavailable:
            raise AiUnavailable(provider="openai")
        ok = self.script.status == 200
        return AiAnswer(self.script.status, "application/json", b"{}", self.script.tokens if ok else None)

    async def _stream(self) -> Any:
        if self.script.status != 200 or self.script.unavailable:
            return await self._answer()
        self.asked += 1
        stream = ScriptedStream(self)
        self.streams.append(stream)
        return _Ending(stream)


class Quiet:
    """`PaymentObserver` and `PlanNews`: what was told, by id, as a durable outbox keeps it."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}

    def credited(self, payment: Any) -> None:
        pass

    def trouble(self, what: str, payment: Any, **facts: Any) -> None:
        raise AssertionError((what, payment, facts))

    async def began(self, id_: str, user_id: str, **facts: Any) -> None:
        self.told.setdefault(id_, facts)

    async def payment_failed(self, id_: str, user_id: str, **facts: Any) -> None:
        self.told.setdefault(id_, facts)

    async def ended(self, id_: str, user_id: str, **facts: Any) -> None:
        self.told.setdefault(id_, facts)

    async def upgraded(self, id_: str, user_id: str, **facts: Any) -> None:
        self.told.setdefault(id_, facts)


@dataclass
class AiStage:
    """One file, and whatever lives longer than a process."""

    db: SqliteDatabase
    atomic: bool = True
    stripe: FakeStripe | None = None
    #: What connects to it; outlives processes here, which saves time.
    gateways: tuple[Any, Any] | None = None
    clock: ManualClock = field(default_factory=ManualClock)
    fuse: Fuse = field(default_factory=lambda: Fuse(counting=False))
    news: Quiet = field(default_factory=Quiet)
    ai: ScriptedAi = field(init=False)
    watched: Any = field(init=False)
    #: Put between a port and the engine beside the fuse.
    wrap: Callable[[str, Any], Any] = lambda _, port: port
    tiers: Tiers = TIERS
    lives: int = 0
    _ids: int = 0

    def __post_init__(self) -> None:
        self.ai = ScriptedAi(self._around)

    async def _around(self, label: str, call: Callable[[], Any]) -> Any:
        port = self.wrap("ai", _One(call))
        return await self.fuse._around(label, port.piece)

    def _port(self, name: str, port: Any) -> Any:
        return self.fuse.wrap(name, self.wrap(name, port))

    def new_id(self) -> str:
        self._ids += 1
        return f"id-{self._ids:06d}"

    async def boot(self) -> None:
        """A new process on the same file."""
        self.lives += 1
        self.watched = WatchedDatabase(self.db)
        store = SqliteLedgerStore(self.watched, atomic=self.atomic)
        await store.prepare()
        collections = SqliteCollections(self.watched)
        self.ledger = Ledger(self._port("ledger", store), self.clock, day_of)
        if self.gateways is None:
            agreements = await CollectionAgreements.open(collections)
            subscriptions: Any = SimulatedSubscriptions(agreements, self.clock)
            gateway: Any = SimulatedGateway()
        else:
            gateway, subscriptions = self.gateways
        self.payments = PaymentService(
            ledger=self.ledger,
            clock=self.clock,
            payments=self._port("payments", await CollectionPayments.open(collections)),
            gateways={gateway.name: self._port("gateway", gateway)},
            movements={Purpose.PLAN: upgrade_sale_of},
            observer=self.news,
        )
        self.subscriptions = await CollectionSubscriptions.open(collections)
        self.changes = await CollectionTierChanges.open(collections)
        self.plans = Plans(
            ledger=self.ledger,
            clock=self.clock,
            tiers=self.tiers,
            gateway=self._port("stripe", subscriptions),
            payments=self.payments,
            rows=self._port("subscriptions", self.subscriptions),
            changes=self._port("changes", self.changes),
            quotes=self._port("quotes", await CollectionQuotes.open(collections)),
            news=self._port("news", self.news),
            asset=USD,
            new_id=self.new_id,
        )
        self.rows = await CollectionCalls.open(collections)
        self.calls = AiCalls(
            ledger=self.ledger,
            clock=self.clock,
            rows=self._port("calls", self.rows),
            tiers=self.tiers,
            prices=ModelPrices([PRICE], version=1),
            providers={Provider.OPENAI: self.ai},
            owner=f"process-{self.lives}",
            new_id=self.new_id,
        )
        self.webhooks = Webhooks(
            payments=self.payments,
            inbox=self._port("inbox", await CollectionInbox.open(collections)),
            clock=self.clock,
            on_subscription=self.plans.hear,
        )
        await self.ledger.start()

    async def die(self) -> None:
        """What was handed to the database still lands; nothing else."""
        self.fuse.burnt = True
        calls = self.calls
        tasks = [*calls._tasks, *self.webhooks._working, self.ledger.committer._worker]
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)
        await self.watched.until_idle()

    async def reborn(self) -> None:
        self.fuse = Fuse(counting=False)
        await self.boot()

    async def stop(self) -> None:
        await self.calls.stop()
        await self.webhooks.stop()
        await self.ledger.stop()

    async def heal(self) -> int:
        return await self.calls.heal(may_live=lambda _: False, abandoned_after_ms=0)

    # -- acts --------------------------------------------------------------------------------------------------------

    async def call(self, user_id: str = USER) -> Any:
        return await self.calls.call(user_id, "openai", body=b"{}", query={})

    async def stream(self, user_id: str = USER, *, between_ms: int = 0, until: int = 99) -> int:
        """Reads it; how many pieces came. `until` closes it early."""
        stream = await self.calls.call(user_id, "openai", body=b'{"stream": true}', query={})
        if not isinstance(stream, MeteredStream):
            return 0
        pieces, read = stream.pieces(), 0
        try:
            async for _ in pieces:
                read += 1
                self.clock.jump_ms(between_ms)
                if read == until:
                    break
        finally:
            await pieces.aclose()
        return read

    async def subscribe(self, tier: str = "starter", *, cycle: str = "c1") -> None:
        """Straight in the ledger: a paid cycle."""
        now_ms = self.clock.now_ms()
        paid = PaidCycle(cycle, tier, now_ms, now_ms + CYCLE_MS)

        def change(account: Account, known: Entry | None) -> Any:
            return begin_paid(
                account, known, paid=paid, tiers=self.tiers, moment=Instant(now_ms, day_of(now_ms))
            )

        await self.ledger.change(ai_credits_of(USER), "AI_CREDIT", change, source=f"grant:{cycle}")

    # -- what must hold ----------------------------------------------------------------------------------------------

    async def account(self, user_id: str = USER) -> Account:
        return await self.ledger.account(ai_credits_of(user_id), "AI_CREDIT")

    async def entries(self, user_id: str = USER) -> list[Entry]:
        await self.account(user_id)
        return await self.ledger.entries(ai_credits_of(user_id), limit=100_000)

    async def called(self, user_id: str = USER) -> list[Entry]:
        return [entry for entry in await self.entries(user_id) if entry.kind == CALLED]

    async def check(self, user_id: str = USER, *, audits: bool = True) -> None:
        """No hold; granted less taken less expired is the balance; the log is the entries; the books are clean."""
        account, entries = await self.account(user_id), await self.entries(user_id)
        assert not account.holds, account.holds
        sums: dict[str, int] = {}
        for entry in entries:
            assert entry.posted_after >= 0, entry
            assert entry.state is KeyState.POSTED, entry
            for transfer in entry.transfers:
                gets = transfer.credit == account.id
                sums[transfer.kind] = sums.get(transfer.kind, 0) + transfer.amount_minor * (1 if gets else -1)
        assert sum(sums.values()) == account.posted == account.spendable >= 0, sums
        rows = await self.rows.list_for(user_id, limit=100_000, before=None)
        called = {
            entry.reference.removeprefix(CALL_HOLDS): entry for entry in entries if entry.kind == CALLED
        }
        assert {row.id for row in rows} == set(called), "the log is not the entries"
        for row in rows:
            assert not row.is_open
            assert row == row_of(row, called[row.id])
        taken = sum(row.credits_milli for row in rows)
        assert taken == -sums.get("ai_call", 0) - sums.get("ai_over", 0)
        if audits:
            await self.watched.until_idle()
            found = verify_books(self.db.path, now_ms=self.clock.now_ms(), abandon_ms=60_000)
            assert found.verdict is Verdict.CLEAN, (found.broken, found.unfinished)


class _One:
    """A call, as a port with one method."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call

    async def piece(self) -> Any:
        return await self._call()


def day_of(at_ms: int) -> str:
    return f"2026-01-{1 + at_ms // 86_400_000 % 28:02d}"


@asynccontextmanager
async def an_ai_stage(path: Path, *, atomic: bool = True, **facts: Any) -> AsyncIterator[AiStage]:
    """Booted; stopped at the end, unless it is dead."""
    async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
        stage = AiStage(db, atomic, **facts)
        await stage.boot()
        try:
            yield stage
        finally:
            if not stage.fuse.burnt:
                await stage.stop()


@asynccontextmanager
async def a_stripe(clock: ManualClock) -> AsyncIterator[tuple[FakeStripe, tuple[Any, Any]]]:
    """The fake Stripe by this clock, and the two gateways that talk to it."""
    async with FakeStripe(lambda: clock.now_ms() / 1000) as fake:
        gateway = StripeGateway(
            fake.key,
            fake.webhook_secret,
            success_url="https://example.com/paid",
            cancel_url="https://example.com/left",
            base_url=fake.url,
            timeout_s=30,
            now_s=lambda: clock.now_ms() / 1000,
        )
        subscriptions = StripeSubscriptions(
            gateway.connection, success_url="https://example.com/paid", cancel_url="https://example.com/left"
        )
        try:
            yield fake, (gateway, subscriptions)
        finally:
            await gateway.connection.close()


async def survived(stage: AiStage, act: Callable[[AiStage], Awaitable[Any]]) -> bool:
    """Run it until it is done or the process dies in it, or in what it left running."""

    async def whole() -> None:
        with suppress(AiUnavailable):
            await act(stage)
        await stage.calls.stop()

    task = asyncio.ensure_future(whole())
    burning = asyncio.ensure_future(stage.fuse.burning.wait())
    await asyncio.wait({task, burning}, return_when=asyncio.FIRST_COMPLETED)
    burning.cancel()
    if not stage.fuse.burnt:
        await task
        return True
    task.cancel()
    with suppress(asyncio.CancelledError, Died, BillingError):
        await task
    return False
