"""People who come and go at random, and processes that die: the bill is the time served by the rule, to the second.

The rule, told a second time in the plainest words: no ledger, no tasks, no looks, integers of milliseconds.
"""

import asyncio
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from billing_engine.consultations.model import LIVE
from billing_engine.consultations.rules import Rules
from billing_engine.money import affordable_seconds, price
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.consult import World
from tests.support.consult_checks import check_sessions
from tests.support.faults import Outage
from tests.support.manual_clock import ManualClock

RULES: Final = Rules()
GRACE_MS, GONE_MS, TICK_MS = 15_000, 120_000, 10_000
USER, LAWYER = "u1", "l1"
REASONS: Final = {USER: "USER_LOST", LAWYER: "LAWYER_LOST"}


@dataclass
class Model:
    """One session. Instants in ms; `running` and `waiting`: since when it runs, or waits for somebody."""

    start: int
    limit_s: int
    now: int
    running: int | None
    waiting: int = 0
    served: int = 0
    #: The last durable proof of service.
    proof: int = 0
    is_dark: bool = False
    joined: set[str] = field(default_factory=set)
    sockets: dict[str, int] = field(default_factory=lambda: {USER: 0, LAWYER: 0})
    signs: dict[str, int] = field(default_factory=dict)
    pauses: list[tuple[int, int | None, str]] = field(default_factory=list)
    end: tuple[int, str] | None = None

    def lost(self) -> list[tuple[int, str]]:
        """Since when who is lost, the first one first."""
        since = self.waiting if self.running is None else self.running
        people = () if self.is_dark else (USER, LAWYER)
        found = [
            (max(self.signs.get(p, 0), since), p) for p in people if p in self.joined and not self.sockets[p]
        ]
        return sorted(found, key=lambda one: one[0])

    def advance(self, ms: int) -> None:
        """Time passes, and what it brings with it happens."""
        target = self.now + ms
        while self.end is None:
            lost = self.lost()
            if self.running is not None:
                dry = self.running + 1_000 * self.limit_s - self.served
                due = lost[0][0] + GRACE_MS if lost else None
                if due is not None and due <= min(dry, target):
                    self.now = max(self.now, due)
                    self.pause(*lost[0])
                    continue
                if dry > target:
                    break
                self.close(dry, "WALLET_EMPTY")
            elif lost and lost[0][0] + GONE_MS <= target:
                self.close(max(self.now, lost[0][0] + GONE_MS), "PEER_GONE")
            else:
                break
        self.now = target
        k = (target - self.start) // TICK_MS
        self.proof = max(self.proof, self.start + k * TICK_MS)

    def pause(self, since: int, person: str) -> None:
        assert self.running is not None
        self.served += since - self.running
        self.running, self.waiting = None, since
        self.proof = max(self.proof, self.now)
        self.pauses.append((since, None, REASONS[person]))

    def happened(self) -> None:
        """Somebody has come or gone, or it can be seen again who is there."""
        if not self.is_dark and self.end is None:
            here = {p for p in self.sockets if self.sockets[p] or p in self.signs}
            if here - self.joined:
                self.joined |= here
                self.proof = self.now
            if self.running is None and all(self.sockets[p] for p in self.joined):
                self.running = self.proof = self.now
                since, _, reason = self.pauses.pop()
                self.pauses.append((since, self.now, reason))
        self.advance(0)

    def crash(self, gap: int) -> None:
        """Everybody's sockets are gone, and so is what was known of who had left."""
        self.sockets, self.signs, self.is_dark = {USER: 0, LAWYER: 0}, {}, False
        self.now += gap
        if self.end is not None:
            return
        if self.now - self.proof > RULES.abandon_ms:
            self.close(self.proof, "ABANDONED")
        elif self.running is None:
            self.waiting = self.now
        else:
            self.served += self.proof - self.running
            if self.now > self.proof:
                self.pauses.append((self.proof, self.now, "SERVER"))
                self.running = self.now
            else:
                self.running = self.now
        self.proof = self.now
        self.advance(0)

    def close(self, at: int, reason: str) -> None:
        """A loss that is due by then is left out, whether it was noticed or not."""
        if self.running is not None:
            lost = [one for one in self.lost() if at - one[0] >= GRACE_MS]
            if lost and reason != "ABANDONED":
                self.pause(*lost[0])
            else:
                self.served += at - self.running
        self.running, self.end = None, (at, reason)


class Stage:
    """The engine on a file, and the processes that live on it one after the other."""

    def __init__(self, folder: Path, rate: int, funds: int) -> None:
        self.folder, self.rate, self.funds = folder, rate, funds
        self.clock = ManualClock()
        self.outage = Outage(RuntimeError, only=lambda label: label.startswith("ledger.commit"))
        self._db: Any = None

    async def boot(self) -> None:
        self._db = open_database(self.folder / "tarazu.db", SqliteOptions(synchronous="OFF"))
        self.world = World(await self._db.__aenter__(), self.clock, RULES)
        await self.world.build(self.outage.wrap)
        self.world.lawyers.add(LAWYER, self.rate)
        await self.world.start()
        await self.world.idle()

    async def begin(self) -> int:
        await self.boot()
        await self.world.recharge(USER, self.funds)
        await self.world.consultations.start(user_id=USER, lawyer_id=LAWYER, operation_id="s1")
        await self.world.idle()
        return self.clock.now_ms()

    async def crash(self, gap: int) -> None:
        await self.world.crash()
        await self.close()
        self.clock.jump_ms(gap)
        await self.boot()

    async def close(self) -> None:
        if not self.world.crashed:
            await self.world.stop()
        await self._db.__aexit__(None, None, None)

    async def wait(self, ms: int) -> None:
        await self.world.advance(ms / 1_000)

    async def wait_for_a_late_store(self, ms: int) -> None:
        """What is written meanwhile takes that long, which is no longer than a store may take."""
        self.outage.hang()
        hanging = asyncio.ensure_future(self._wait_hanging(ms))
        await hanging
        self.outage.over()
        await self.world.idle()

    async def _wait_hanging(self, ms: int) -> None:
        await self.clock.advance_ms(ms, idle=self.world.idle)


async def play(
    folder: Path, rate: int, funds: int, story: list[tuple[Any, ...]], last: tuple[str, int]
) -> None:
    stage = Stage(folder, rate, funds)
    start = await stage.begin()
    model = Model(start, affordable_seconds(rate, funds), start, start, proof=start)
    entered: dict[str, list[int]] = {USER: [], LAWYER: []}
    is_late = False
    try:
        for kind, *args in story:
            sockets = stage.world.sockets
            if kind == "wait":
                await stage.wait(args[0])
                model.advance(args[0])
            elif kind == "late":
                is_late = True
                await stage.wait_for_a_late_store(args[0])
                model.advance(args[0])
            elif kind == "come":
                sockets.come(args[0])
                await stage.wait(0)
                entered[args[0]].append(model.now)
                model.sockets[args[0]] += 1
                model.happened()
            elif kind == "go" and entered[args[0]]:
                # Nobody was last heard before he came.
                ago = min(args[1], model.now - entered[args[0]].pop())
                sockets.go(args[0], ago_s=ago / 1_000)
                await stage.wait(0)
                model.sockets[args[0]] -= 1
                model.signs[args[0]] = max(model.signs.get(args[0], 0), model.now - ago)
                model.happened()
            elif kind == "dark":
                sockets.is_known, model.is_dark = False, True
            elif kind == "light":
                sockets.is_known, model.is_dark = True, False
                stage.world.engine.heard_presence("s1")
                await stage.wait(0)
                model.happened()
            elif kind == "crash":
                await stage.crash(args[0])
                entered = {USER: [], LAWYER: []}
                model.crash(args[0])
            await check(stage, model)
        await finish(stage, model, *last, is_late=is_late)
    finally:
        await stage.close()


async def check(stage: Stage, model: Model) -> None:
    """At any moment: it says what the model says."""
    view = await stage.world.consultations.get("s1", caller_id=USER)
    assert (view.status in LIVE) is (model.end is None), (view, model)
    if model.end is None:
        assert stage.world.consultations.is_open("s1") is (model.running is not None), model
        served = model.served + (0 if model.running is None else model.now - model.running)
        assert (view.duration_s, view.total_minor) == (served // 1_000, price(stage.rate, served // 1_000))
        assert view.wallet_minor >= 0


async def finish(stage: Stage, model: Model, caller: str, jump: int, *, is_late: bool) -> None:
    """A party ends it, and be it before the engine has looked at what is due."""
    was_over = model.end
    if was_over is None:
        stage.clock.jump_ms(jump)
        model.now += jump
    view = await stage.world.consultations.end("s1", caller_id=caller)
    if was_over is None:
        dry = None if model.running is None else model.running + 1_000 * model.limit_s - model.served
        model.close(model.now if dry is None else min(model.now, dry), f"{caller}_ENDED")
    assert model.end is not None
    assert (view.duration_s, view.total_minor) == (
        model.served // 1_000,
        price(stage.rate, model.served // 1_000),
    )
    await check_sessions(stage.world, ["s1"], (USER, LAWYER))
    rows = await stage.world.consultations.timeline("s1")
    pauses = [(row.at_ms, row.reason) for row in rows if row.event == "pause"]
    assert pauses == [(since, reason) for since, _, reason in model.pauses]
    resumed = [row.at_ms for row in rows if row.event == "resume"]
    assert resumed == [until for _, until, _ in model.pauses if until is not None]
    for _, _, reason in model.pauses:
        event(reason)
    if was_over is not None:
        reason = view.session.end_reason
        assert reason is not None
        assert reason.value == model.end[1]
        assert is_late or view.session.ended_at_ms == model.end[0]
        event(reason.value)


people = st.sampled_from([USER, LAWYER])
goings = st.tuples(st.just("go"), people, st.one_of(st.just(0), st.integers(0, 20_000)))
comings = st.tuples(st.just("come"), people)
disturbances = st.one_of(
    st.tuples(st.sampled_from(["dark", "light"])),
    st.tuples(st.just("late"), st.integers(1, 900)),
    st.tuples(st.just("crash"), st.one_of(st.integers(0, 5_000), st.integers(0, 140_000))),
)
waits = st.tuples(
    st.just("wait"),
    st.one_of(st.integers(0, 16_000), st.integers(13_000, 40_000), st.integers(30_000, 130_000)),
)
steps = st.tuples(st.one_of(goings, comings, goings, comings, disturbances), waits)
stories = st.lists(steps, min_size=2, max_size=7).map(
    lambda steps: [("come", USER), ("come", LAWYER), *(part for step in steps for part in step)]
)


@settings(max_examples=int(os.environ.get("TARAZU_FAIR_STORIES") or 50), deadline=None)
@given(
    rate=st.sampled_from([7, 6_000, 49_999]),
    paid_s=st.one_of(st.integers(60, 200), st.just(100_000)),
    story=stories,
    last=st.tuples(people, st.integers(0, 2_900)),
)
@example(
    6_000, 100_000, [("come", USER), ("wait", 20_000), ("go", USER, 0), ("wait", 13_000)], (LAWYER, 2_000)
)
def test_the_bill_is_the_time_that_was_served(
    rate: int, paid_s: int, story: list[tuple[Any, ...]], last: tuple[str, int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        funds = min(max(price(rate, paid_s), RULES.min_balance_minor), 10_000_000)
        asyncio.run(play(Path(folder), rate, funds, story, last))
