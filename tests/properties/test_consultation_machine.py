"""Consultations against a plain model: dicts of paise and milliseconds, no ledger, no tasks, no storage.

The machine drives several users and lawyers through starts, time, recharges, messages, ends, crashes and clean stops on a real
SQLite file. After every step the file must say what the model says.
"""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from billing_engine.consultations.errors import InsufficientBalance, LawyerBusy, UserBusy
from billing_engine.consultations.model import LIVE
from billing_engine.consultations.rules import Rules
from billing_engine.ledger.accounts import earnings_of, wallet_of
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.consult import QuietRooms, World
from tests.support.consult_checks import check_sessions
from tests.support.manual_clock import ManualClock

USERS: Final = ("u1", "u2", "u3")
#: A rate that 60 does not divide, a round one, one that eats a wallet in a minute.
LAWYERS: Final = {"l1": 7, "l2": 6_000, "l3": 49_999}
RULES: Final = Rules(commission_bp=1_250)
SLOT_MS: Final = RULES.slot_ms


@dataclass
class Served:
    """What the model knows of one session. Everything in milliseconds and paise."""

    user: str
    lawyer: str
    cap: int | None
    started_ms: int
    proof_ms: int
    pauses_ms: int = 0
    ended_ms: int | None = None
    reason: str | None = None

    @property
    def rate(self) -> int:
        return LAWYERS[self.lawyer]

    @property
    def live(self) -> bool:
        return self.ended_ms is None

    def seconds_at(self, at_ms: int) -> int:
        return (at_ms - self.started_ms - self.pauses_ms) // 1000

    def cost_at(self, at_ms: int) -> int:
        return self.rate * self.seconds_at(at_ms) // 60

    def last_paid_ms(self, funds: int) -> int:
        """The instant at which this money is used up: the first second that it does not pay begins there."""
        money = funds if self.cap is None else min(funds, self.cap)
        seconds = ((money + 1) * 60 - 1) // self.rate
        return self.started_ms + self.pauses_ms + seconds * 1000

    def last_tick_ms(self, now_ms: int) -> int:
        """Ticks stand on the grid of the start, each waits for the end of its slot."""
        k = (now_ms - self.started_ms) // RULES.tick_ms
        due_ms = -(-(self.started_ms + k * RULES.tick_ms) // SLOT_MS) * SLOT_MS
        if due_ms > now_ms:
            due_ms = -(-(self.started_ms + (k - 1) * RULES.tick_ms) // SLOT_MS) * SLOT_MS
        return due_ms if k >= 1 else self.started_ms


@dataclass
class Model:
    wallets: dict[str, int] = field(default_factory=lambda: dict.fromkeys(USERS, 0))
    earnings: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LAWYERS, 0))
    revenue: int = 0
    recharged: int = 0
    sessions: dict[str, Served] = field(default_factory=dict)

    def running(self, *, user: str | None = None, lawyer: str | None = None) -> list[str]:
        return [
            id_
            for id_, s in self.sessions.items()
            if s.live and user in (None, s.user) and lawyer in (None, s.lawyer)
        ]

    def close(self, id_: str, at_ms: int, reason: str) -> None:
        served = self.sessions[id_]
        gross = served.cost_at(at_ms)
        commission = gross * RULES.commission_bp // 10_000
        served.ended_ms, served.reason = at_ms, reason
        self.wallets[served.user] -= gross
        self.earnings[served.lawyer] += gross - commission
        self.revenue += commission

    def pass_time(self, now_ms: int) -> None:
        for id_ in self.running():
            served = self.sessions[id_]
            funds = self.wallets[served.user]
            last_ms = served.last_paid_ms(funds)
            if last_ms <= now_ms:
                capped = served.cap is not None and served.cap <= funds
                self.close(id_, last_ms, "MAX_AMOUNT" if capped else "WALLET_EMPTY")
            else:
                served.proof_ms = max(served.proof_ms, served.last_tick_ms(now_ms))

    def interrupted(self, now_ms: int) -> None:
        """A new process takes over."""
        for id_ in self.running():
            served = self.sessions[id_]
            if now_ms - served.proof_ms > RULES.abandon_ms:
                self.close(id_, served.proof_ms, "ABANDONED")
            else:
                served.pauses_ms += now_ms - served.proof_ms
                served.proof_ms = now_ms


class Consultations(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock()
        self.rooms = QuietRooms()
        self.model = Model()
        self.seen: dict[str, object] = {}
        self.ids = 0
        self.stack = AsyncExitStack()
        self.world: World

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        self.run(self._boot())
        for user, lawyer in zip(USERS, LAWYERS, strict=True):
            self.recharge(user, 100_000)
            self.start_whoever_is_free((user, lawyer))

    async def _boot(self) -> None:
        path = Path(self.folder.name) / "tarazu.db"
        db = await self.stack.enter_async_context(open_database(path, SqliteOptions(synchronous="OFF")))
        self.world = World(db, self.clock, RULES)
        self.world.rooms = self.rooms
        await self.world.build()
        for lawyer, rate in LAWYERS.items():
            self.world.lawyers.add(lawyer, rate)
        await self.world.start()
        await self.world.idle()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.run(self.world.stop())
        self.run(self.stack.aclose())
        self.runner.close()
        self.folder.cleanup()

    # -- what may happen ----------------------------------------------------------------------------------------------

    @rule(
        user=st.sampled_from(USERS), amount=st.one_of(st.integers(100, 20_000), st.integers(100, 1_000_000))
    )
    def recharge(self, user: str, amount: int) -> None:
        self.ids += 1
        key = f"pay-{self.ids}"

        async def act() -> None:
            for _ in range(2):  # a repeat with the same key credits nothing
                await self.world.wallets.recharge(user_id=user, amount_minor=amount, operation_id=key)
            await self.world.idle()

        self.run(act())
        self.model.wallets[user] += amount
        self.model.recharged += amount
        for id_ in self.model.running(user=user):
            self.model.sessions[id_].proof_ms = self.clock.now_ms()

    @rule(
        user=st.sampled_from(USERS),
        lawyer=st.sampled_from(sorted(LAWYERS)),
        cap=st.one_of(st.none(), st.none(), st.integers(50_000, 200_000)),
    )
    def start(self, user: str, lawyer: str, cap: int | None) -> None:
        self.ids += 1
        id_ = f"s-{self.ids:04d}"
        needed = max(RULES.min_balance_minor, LAWYERS[lawyer])

        async def act() -> None:
            await self.world.consultations.start(
                user_id=user, lawyer_id=lawyer, operation_id=id_, max_minor=cap
            )

        if self.model.running(user=user):
            refusal: type[Exception] | None = UserBusy
        elif self.model.wallets[user] < needed:
            refusal = InsufficientBalance
        else:
            refusal = LawyerBusy if self.model.running(lawyer=lawyer) else None
        if refusal is not None:
            with pytest.raises(refusal):
                self.run(act())
            return
        self.run(act())
        self.run(act())  # the same operation again finds the same session
        now_ms = self.clock.now_ms()
        self.model.sessions[id_] = Served(user, lawyer, cap, now_ms, now_ms)

    @rule(pair=st.tuples(st.sampled_from(USERS), st.sampled_from(sorted(LAWYERS))))
    def start_whoever_is_free(self, pair: tuple[str, str]) -> None:
        """Refusals are dull after a while: this one always serves somebody."""
        users = [user for user in (pair[0], *USERS) if not self.model.running(user=user)]
        lawyers = [lawyer for lawyer in (pair[1], *LAWYERS) if not self.model.running(lawyer=lawyer)]
        if users and lawyers:
            if self.model.wallets[users[0]] < 2 * LAWYERS[lawyers[0]]:
                self.recharge(users[0], 3 * LAWYERS[lawyers[0]] + 5_000)
            self.start(users[0], lawyers[0], None)

    @rule(ms=st.one_of(st.integers(1, 999), st.integers(1, 30_000), st.integers(1, 150_000)))
    def advance(self, ms: int) -> None:
        self.run(self.world.advance(ms / 1000))
        self.model.pass_time(self.clock.now_ms())

    @rule(which=st.integers(0, 2))
    def message(self, which: int) -> None:
        """A stored message is evidence of service."""
        running = self.model.running()
        if not running:
            return
        id_ = running[which % len(running)]
        assert self.world.consultations.is_open(id_)
        self.rooms.evidence[id_] = self.model.sessions[id_].proof_ms = self.clock.now_ms()

    @rule(which=st.integers(0, 2), who=st.sampled_from(["USER", "LAWYER", "ADMIN", "both", "account"]))
    def end(self, which: int, who: str) -> None:
        running = self.model.running()
        if len(running) <= which:
            return
        id_ = running[which]
        served = self.model.sessions[id_]
        caller = {"USER": served.user, "LAWYER": served.lawyer}.get(who, "admin")
        consultations = self.world.consultations

        async def act() -> None:
            if who == "both":
                both = (consultations.end(id_, caller_id=person) for person in (served.user, served.lawyer))
                one, other = await asyncio.gather(*both)
                assert one == other
            elif who == "account":
                await consultations.end_for_account(served.lawyer)
            else:
                await consultations.end(id_, caller_id=caller, is_admin=who == "ADMIN")

        self.run(act())
        reason = {"both": "USER_ENDED", "account": "ACCOUNT_DISABLED"}.get(who, f"{who}_ENDED")
        self.model.close(id_, self.clock.now_ms(), reason)

    @rule(gap_ms=st.one_of(st.integers(0, 5_000), st.integers(0, 119_000), st.integers(100_000, 400_000)))
    def crash_and_restart(self, gap_ms: int) -> None:
        async def act() -> None:
            await self.world.crash()
            await self.stack.aclose()
            self.clock.jump_ms(gap_ms)
            await self._boot()

        self.run(act())
        for id_ in self.model.running():
            away_ms = self.clock.now_ms() - self.model.sessions[id_].proof_ms
            event("crash: abandoned" if away_ms > RULES.abandon_ms else "crash: goes on")
        self.model.interrupted(self.clock.now_ms())

    @rule(gap_ms=st.one_of(st.just(0), st.integers(0, 5_000), st.integers(0, 400_000)))
    def stop_and_restart(self, gap_ms: int) -> None:
        for id_ in self.model.running():
            self.model.sessions[id_].proof_ms = self.clock.now_ms()

        async def act() -> None:
            await self.world.stop()
            await self.stack.aclose()
            self.clock.jump_ms(gap_ms)
            await self._boot()

        self.run(act())
        self.model.interrupted(self.clock.now_ms())

    # -- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def the_file_says_what_the_model_says(self) -> None:
        if hasattr(self, "world"):
            self.run(self._check())

    async def _check(self) -> None:
        model, world = self.model, self.world
        await check_sessions(world, model.sessions, [*USERS, *LAWYERS])
        for user, amount in model.wallets.items():
            assert await world.ledger.balance(wallet_of(user), "INR") == amount >= 0
        for lawyer, amount in model.earnings.items():
            assert await world.ledger.balance(earnings_of(lawyer), "INR") == amount
        assert await world.ledger.balance("revenue:consultations", "INR") == model.revenue
        assert await world.ledger.balance("gateway:simulated", "INR") == -model.recharged
        now_ms = self.clock.now_ms()
        for id_, served in model.sessions.items():
            view = await world.consultations.get(id_, caller_id=served.user)
            assert (view.status in LIVE) == served.live == world.consultations.is_open(id_)
            at_ms = now_ms if served.ended_ms is None else served.ended_ms
            assert (view.duration_s, view.total_minor) == (served.seconds_at(at_ms), served.cost_at(at_ms))
            if served.live:
                limit_s = (
                    served.last_paid_ms(model.wallets[served.user]) - served.started_ms - served.pauses_ms
                ) // 1000
                assert view.remaining_s == limit_s - view.duration_s
                assert view.wallet_minor == (await world.wallets.balance(served.user)).spendable_minor >= 0
                continue
            assert view.session.end_reason is not None
            assert (view.session.ended_at_ms, view.session.end_reason.value) == (
                served.ended_ms,
                served.reason,
            )
            # The first outcome stands, whatever happens afterwards.
            assert self.seen.setdefault(id_, view.session) == view.session
        announced = [event.view.session.id for event in world.heard.events if event.name == "session:ended"]
        assert len(announced) == len(set(announced))


TestConsultations = Consultations.TestCase
TestConsultations.settings = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
