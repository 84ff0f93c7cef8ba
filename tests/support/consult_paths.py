"""Money paths to be disturbed: what comes before, what is disturbed, and what must hold whatever went wrong."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from billing_engine.consultations.errors import InsufficientBalance, StartAborted
from billing_engine.consultations.model import LIVE, EndReason, SessionView, Status
from billing_engine.consultations.rules import Rules
from billing_engine.errors import BillingError
from billing_engine.ledger.accounts import earnings_of, wallet_of
from billing_engine.ledger.model import Movement, Transfer
from server.storage.sqlite.engine import SqliteDatabase, SqliteOptions, open_database
from tests.support.consult import QuietRooms, World
from tests.support.consult_checks import check_sessions
from tests.support.faults import Died, Fuse, Moment
from tests.support.manual_clock import ManualClock

FUNDS: Final = 7_000
RULES: Final = Rules(commission_bp=1_250)
PEOPLE: Final = ("u1", "u2", "l1", "l2")


@dataclass
class Stage:
    """One database file and the processes that live on it one after the other."""

    db: SqliteDatabase
    atomic: bool
    fuse: Fuse = field(default_factory=Fuse)
    clock: ManualClock = field(default_factory=ManualClock)
    rooms: QuietRooms = field(default_factory=QuietRooms)
    rules: Rules = RULES
    #: The payment gateway, which outlives processes; the simulated one if there is none.
    gateway: Any = None
    views: list[SessionView] = field(default_factory=list)
    _world: World | None = None

    @property
    def world(self) -> World:
        assert self._world is not None
        return self._world

    async def boot(self) -> None:
        """A new process: new objects, same file, same conversations, same clock."""
        world = World(self.db, self.clock, self.rules, atomic=self.atomic, gateway=self.gateway)
        world.rooms = self.rooms
        self._world = world

        def wrap(name: str, port: Any) -> Any:
            # Nobody waits here; that an end looks whether somebody does is a task of its own.
            return port if name == "waiting" else self.fuse.wrap(name, port)

        await world.build(wrap)
        world.lawyers.add("l1", 6_000)
        world.lawyers.add("l2", 7)
        await world.start()

    async def die(self) -> None:
        """What was handed to the database still lands: that, too, is what a killed process leaves."""
        self.fuse.burnt = True
        await self.world.crash()
        await self.world.db.until_idle()

    async def reborn(self, fuse: Fuse | None = None) -> None:
        self.fuse = fuse or Fuse(counting=False)
        await self.boot()

    async def recharge(self, user_id: str = "u1", key: str = "pay", amount: int = FUNDS) -> None:
        await self.world.wallets.recharge(user_id=user_id, amount_minor=amount, operation_id=key)

    async def start(self, key: str = "s1", user_id: str = "u1", lawyer_id: str = "l1") -> None:
        view = await self.world.consultations.start(user_id=user_id, lawyer_id=lawyer_id, operation_id=key)
        self.views.append(view)

    async def end(self, caller_id: str = "u1", key: str = "s1") -> None:
        self.views.append(await self.world.consultations.end(key, caller_id=caller_id))


Step = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True)
class MoneyPath:
    """A money path: what comes before, what is disturbed, the calls that it must at least have made."""

    name: str
    before: Step
    act: Step
    touches: frozenset[str]
    #: Seconds without a process, after the death.
    gap_s: int = 3
    #: Several tasks act at once, so that runs differ in their calls.
    races: bool = False
    #: The session may be paused: its user was last heard 7 s after its start, and no more than `SERVED_S` are billed of it.
    pauses: bool = False


async def funded(stage: Stage) -> None:
    await stage.boot()
    await stage.recharge()
    await stage.recharge("u2", "pay-2")


async def running(stage: Stage) -> None:
    await funded(stage)
    await stage.start()
    await stage.world.advance(7)


async def joined(stage: Stage) -> None:
    await running(stage)
    await joining(stage)


async def lost(stage: Stage) -> None:
    """The user was last heard at 7 s, and is missed for 14.9 s."""
    await joined(stage)
    stage.world.sockets.go("u1")
    await stage.world.advance(14.9)


async def lost_for_long(stage: Stage) -> None:
    """As nobody has looked since."""
    await lost(stage)
    stage.clock.jump_ms(200)


async def paused(stage: Stage) -> None:
    await lost(stage)
    await stage.world.advance(3)
    assert stage.world.consultations.is_paused("s1")


async def nearly_gone(stage: Stage) -> None:
    await lost(stage)
    await stage.world.advance(105)


async def killed_while_paused(stage: Stage) -> None:
    await paused(stage)
    await stage.die()
    stage.clock.jump_ms(5_000)


async def killed(stage: Stage) -> None:
    await running(stage)
    await stage.world.advance(10)
    await stage.die()
    stage.clock.jump_ms(5_000)


async def killed_after(stage: Stage, calls: int, act: Step) -> None:
    """Die in the middle of `act`, after so many calls; the disturbed part is then the recovery."""
    stage.fuse = Fuse(at=calls, moment=Moment.AFTER, counting=False)
    await running(stage) if act is ended else await funded(stage)
    stage.fuse.counting = True
    assert not await survived(stage, act)
    await stage.die()


async def starting(stage: Stage) -> None:
    await stage.start()


async def ended(stage: Stage) -> None:
    await stage.end()


async def joining(stage: Stage) -> None:
    for person in ("u1", "l1"):
        stage.world.sockets.come(person)
    await stage.world.advance(0)


async def pausing(stage: Stage) -> None:
    await stage.world.advance(0.2)


async def resuming(stage: Stage) -> None:
    stage.world.sockets.come("u1")
    await stage.world.advance(0)


async def ticking(stage: Stage) -> None:
    await stage.world.advance(10)


async def running_dry(stage: Stage) -> None:
    await stage.world.advance(FUNDS // 100)
    await stage.world.idle()


async def booting(stage: Stage) -> None:
    stage.fuse.burnt = False
    await stage.boot()
    await stage.world.idle()


async def died_in_start(stage: Stage) -> None:
    label = "ledger.commit_all" if stage.atomic else "ledger.commit"
    await killed_after(stage, (await calls_of(starting, funded, stage)).index(label), starting)


async def died_in_end(stage: Stage) -> None:
    label = "ledger.commit_all" if stage.atomic else "ledger.commit"
    await killed_after(stage, (await calls_of(ended, running, stage)).index(label), ended)


async def calls_of(act: Step, before: Step, like: Stage) -> list[str]:
    """The calls of an undisturbed run, in a database of its own."""
    path = like.db.path.with_name(f"undisturbed-{like.db.path.stem}.db")
    async with a_stage(path, atomic=like.atomic) as stage:
        stage.fuse.counting = False
        await before(stage)
        if act is booting:
            stage.fuse = Fuse()
        stage.fuse.counting = True
        await act(stage)
        await stage.world.idle()
        calls = list(stage.fuse.calls)
        await stage.die()
    for left in path.parent.glob(f"{path.name}*"):
        left.unlink()
    return calls


async def refused_at_the_hold(stage: Stage) -> None:
    """The wallet is emptied between the first look and the hold: the start gives back what it has taken."""
    opened = stage.rooms.open

    async def spend(session_id: str, **facts: Any) -> None:
        await opened(session_id, **facts)
        wallet = wallet_of("u1")
        taken = Transfer(wallet, "revenue:elsewhere", FUNDS - 100, "elsewhere")
        await stage.world.ledger.post(Movement(wallet, "elsewhere", "elsewhere", "INR", "x", (taken,)))

    stage.rooms.open = spend  # type: ignore[method-assign]  # for one start
    try:
        with pytest.raises(InsufficientBalance):
            await stage.start()
    finally:
        stage.rooms.open = opened  # type: ignore[method-assign]


async def both_end(stage: Stage) -> None:
    await asyncio.gather(stage.end("u1"), stage.end("l1"))


async def recharge_while_running(stage: Stage) -> None:
    await stage.recharge(key="pay-more", amount=1_000)
    await stage.world.idle()


async def recharge_as_the_money_ends(stage: Stage) -> None:
    await stage.world.advance(FUNDS // 100 - 7 - 0.001)
    stage.clock.jump_ms(1)
    await asyncio.gather(stage.recharge(key="pay-more", amount=1_000), stage.world.advance(0))


async def stopping(stage: Stage) -> None:
    await stage.world.stop()


async def disabling(stage: Stage) -> None:
    await stage.world.consultations.end_for_account("l1")


START: Final = frozenset(
    {"sessions.get", "sessions.add", "sessions.move", "claims.holder", "claims.take", "locks.acquire", "rooms.open",
     "ledger.load", "ledger.rows"}
)  # fmt: skip
SETTLE: Final = frozenset({"sessions.move", "timeline.add", "rooms.close", "claims.release", "locks.release"})
END: Final = SETTLE | {"sessions.get"}

PATHS: Final = (
    MoneyPath("start", funded, starting, START),
    MoneyPath("start, and nobody comes for long", funded, starting, START, gap_s=500),
    MoneyPath("refused start", funded, refused_at_the_hold, START | {"claims.release", "locks.release"}),
    MoneyPath("tick", running, ticking, frozenset({"timeline.add", "locks.renew"})),
    MoneyPath("tick, and nobody comes for long", running, ticking, frozenset({"timeline.add"}), gap_s=500),
    MoneyPath("recharge", funded, recharge_while_running, frozenset({"ledger.load", "ledger.rows"})),
    MoneyPath("recharge of a running session", running, recharge_while_running, frozenset({"locks.renew"})),
    MoneyPath("recharge against the forced end", running, recharge_as_the_money_ends, frozenset({"ledger.rows"}), races=True),
    MoneyPath("end", running, ended, END),
    MoneyPath("both end", running, both_end, END, races=True),
    MoneyPath("forced end", running, running_dry, SETTLE),
    MoneyPath("account disabled", running, disabling, END),
    MoneyPath("participants join", running, joining, frozenset({"attending.of"})),
    MoneyPath("pause", lost, pausing, frozenset({"attending.of", "timeline.add"}), pauses=True),
    MoneyPath("resumption", paused, resuming, frozenset({"attending.of", "timeline.add"}), pauses=True),
    MoneyPath("tick while paused", paused, ticking, frozenset({"attending.of", "locks.renew"}), pauses=True),
    MoneyPath("end while paused", paused, ended, END, pauses=True),
    MoneyPath("end when a participant has been lost for long", lost_for_long, ended, END, pauses=True),
    MoneyPath("forced end without the peer", nearly_gone, pausing, SETTLE | {"attending.of"}, pauses=True),
    MoneyPath("recovery of a paused session", killed_while_paused, booting,
          frozenset({"sessions.unfinished", "locks.acquire"}), pauses=True),
    MoneyPath("clean stop while paused", paused, stopping, frozenset(), pauses=True),
    MoneyPath("clean stop", running, stopping, frozenset()),
    MoneyPath("recovery of a running session", killed, booting,
          frozenset({"sessions.unfinished", "rooms.evidence_ms", "locks.acquire", "ledger.pending"})),
    MoneyPath("recovery of an abandoned session", killed, booting, frozenset({"sessions.unfinished"}), gap_s=500),
    MoneyPath("recovery of a half start", died_in_start, booting,
          frozenset({"sessions.unfinished", "sessions.move", "claims.release"})),
    MoneyPath("recovery of a half end", died_in_end, booting, SETTLE | {"sessions.unfinished"}),
)  # fmt: skip


#: What the paths together must have been killed at; the ledger's writes have other names when every step is its own.
EVERYTHING: Final = frozenset(
    {"sessions.add", "sessions.get", "sessions.move", "sessions.unfinished", "claims.take", "claims.release", "claims.holder",
     "claims.everyone", "timeline.add", "locks.acquire", "locks.renew", "locks.release", "rooms.open", "rooms.close",
     "rooms.evidence_ms", "ledger.load", "ledger.rows", "ledger.pending", "attending.of"}
)  # fmt: skip
READS: Final = frozenset(
    {"attending.of", "sessions.get", "sessions.unfinished", "claims.holder", "claims.everyone", "rooms.evidence_ms", "ledger.load",
     "ledger.rows", "ledger.pending"}
)  # fmt: skip
WRITES: Final = {
    True: frozenset({"ledger.commit_all"}),
    False: frozenset({"ledger.commit", "ledger.insert_rows", "ledger.mark_applied"}),
}


#: Whole seconds that a session may be billed whose process has died: 7 s until the loss; if no pause was stored by then, the last
#: tick; after a resumption, and as no time passes in `promises`, nothing more.
PAUSED_BILLS: Final = {
    "pause": {7, 20},
    "resumption": {7},
    "tick while paused": {7},
    "end while paused": {7},
    "end when a participant has been lost for long": {7, 20},
    "forced end without the peer": {7},
    "recovery of a paused session": {7},
    "clean stop while paused": {7},
}


@asynccontextmanager
async def a_stage(path: Path, *, atomic: bool) -> AsyncIterator[Stage]:
    async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
        yield Stage(db, atomic)


async def survived(stage: Stage, act: Step) -> bool:
    """Run `act` until it is done or the process dies in it. A dead process answers nobody, so do not wait for its answers."""
    task = asyncio.ensure_future(act(stage))
    burning = asyncio.ensure_future(stage.fuse.burning.wait())
    await asyncio.wait({task, burning}, return_when=asyncio.FIRST_COMPLETED)
    burning.cancel()
    if stage.fuse.burnt:
        task.cancel()
        with suppress(asyncio.CancelledError, Died, BillingError):
            await task
        return False
    await task
    return True


async def promises(stage: Stage, path: MoneyPath, *, reborn: bool = True) -> None:
    """What a new process must find, and what asking again must answer."""
    world = stage.world
    await check_sessions(world, ["s1"], PEOPLE)
    session = await world.sessions.get("s1")
    was_seen = bool(stage.views)
    if session is None or session.status is Status.ABORTED:
        assert not was_seen, "a session that its user has seen is gone"
        assert await world.ledger.balance(earnings_of("l1"), "INR") == 0
    # Nothing is lost by asking again with the same keys.
    await stage.recharge()
    await stage.recharge("u2", "pay-2")
    recharged = FUNDS
    if "recharge" in path.name:
        await stage.recharge(key="pay-more", amount=1_000)
        recharged += 1_000
    elsewhere = await world.ledger.balance("revenue:elsewhere", "INR")
    assert elsewhere in (0, FUNDS - 100)
    if session is not None and session.status in LIVE:
        assert world.consultations.is_open("s1") or (path.pauses and world.consultations.is_paused("s1"))
        assert path.gap_s * 1000 <= stage.rules.abandon_ms or not reborn
    if session is not None:
        await the_same_start_again(stage, aborted=session.status is Status.ABORTED)
        session = await world.sessions.get("s1")
        assert session is not None
    if session is not None and session.status is not Status.ABORTED:
        await world.idle()
        await stage.end()
        await stage.end("l1")
        assert stage.views[-1] == stage.views[-2]
        session = await world.sessions.get("s1")
        assert session is not None
        if any(view.status not in LIVE for view in stage.views[:-2]):
            first = next(view for view in stage.views if view.status not in LIVE)
            assert first.session == session, "an outcome that was told has changed"
        assert session.end_reason in (EndReason(reason) for reason in EndReason)
        if path.pauses and reborn:
            # Seven seconds before the loss; what a tick had proven by a death before the pause; what was served after it was over.
            assert session.duration_s in PAUSED_BILLS[path.name], session
    bill = session.total_minor if session is not None else 0
    commission = session.commission_minor if session is not None else 0
    assert await world.ledger.balance(wallet_of("u1"), "INR") == recharged - bill - elsewhere
    assert await world.ledger.balance(wallet_of("u2"), "INR") == FUNDS
    assert await world.ledger.balance(earnings_of("l1"), "INR") == bill - commission
    assert await world.ledger.balance("revenue:consultations", "INR") == commission
    assert (await world.wallets.balance("u1")).held_minor == 0
    # Nobody is left busy.
    await stage.start("s2", "u2", "l1")
    if elsewhere == 0 and recharged - bill >= 5_000:
        await stage.start("s3", "u1", "l2")
        await stage.end("u1", "s3")
    await stage.end("l1", "s2")
    await check_sessions(world, ["s1", "s2", "s3"], PEOPLE)


async def the_same_start_again(stage: Stage, *, aborted: bool) -> None:
    if aborted:
        with pytest.raises(StartAborted):
            await stage.start()
        return
    before = await stage.world.sessions.get("s1")
    await stage.start()
    assert stage.views[-1].session == before
    assert stage.world.engine.live_count <= 1
