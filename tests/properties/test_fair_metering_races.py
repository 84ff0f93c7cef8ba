"""A party ends the session, through another process, in the middle of its pause, its resumption, or its end without the peer: at every
call that the billing process makes, before its effect and after. Whichever write wins, the bill is the same.

The user was last heard at 20 s.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from billing_engine.consultations.model import EndReason, Status
from billing_engine.consultations.rules import Rules
from billing_engine.consultations.takeover import WEB
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.support.consult import World
from tests.support.consult_checks import check_sessions
from tests.support.faults import Interruption, Moment
from tests.support.manual_clock import ManualClock
from tests.support.sockets import Sockets

#: Quick to give up, so that little else happens meanwhile.
RULES: Final = Rules(peer_gone_ms=22_000, lease_ms=60_000)


@dataclass
class Pair:
    """Two processes on one file: `first` bills, `second` is where the lawyer ends it."""

    first: World
    second: World
    clock: ManualClock
    between: Interruption

    async def idle(self) -> None:
        for world in (self.first, self.second, self.first):
            await world.idle()

    async def advance(self, seconds: float) -> None:
        await self.clock.advance_ms(round(seconds * 1_000), idle=self.idle)

    async def end(self) -> None:
        await self.second.consultations.end("s1", caller_id="l1")


@asynccontextmanager
async def a_pair(path: Path, between: Interruption, *, atomic: bool) -> AsyncIterator[Pair]:
    clock = ManualClock()
    sockets = Sockets(clock)
    async with open_database(path, SqliteOptions(synchronous="OFF")) as db:
        worlds = []
        for wrap in (between.wrap, lambda _, port: port):
            world = World(db, clock, RULES, atomic=atomic, role=WEB)
            world.sockets = sockets
            await world.build(wrap)
            world.lawyers.add("l1", 6_000)
            await world.start()
            worlds.append(world)
        pair = Pair(worlds[0], worlds[1], clock, between)
        await pair.first.recharge("u1", 100_000)
        await pair.first.consultations.start(user_id="u1", lawyer_id="l1", operation_id="s1")
        for person in ("u1", "l1"):
            sockets.come(person)
        await pair.advance(20)
        sockets.go("u1")
        await pair.advance(14.99)
        try:
            yield pair
        finally:
            for world in worlds:
                await world.stop()


Act = Callable[[Pair], Awaitable[None]]


async def pausing(pair: Pair) -> None:
    await pair.advance(0.02)


async def resuming(pair: Pair) -> None:
    pair.first.sockets.come("u1")
    await pair.advance(0)


#: What happens meanwhile, and how long before: of each, what comes first and what is disturbed.
ACTS: Final[dict[str, tuple[float, Act]]] = {
    "pause": (0, pausing),
    "resumption": (3.005, resuming),
    "end without the peer": (7, pausing),
}


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "stepwise"])
@pytest.mark.parametrize("name", ACTS)
async def test_the_bill_is_the_same_whichever_write_wins(name: str, atomic: bool, tmp_path: Path) -> None:
    wait_s, act = ACTS[name]
    undisturbed = Interruption()
    async with a_pair(tmp_path / "whole.db", undisturbed, atomic=atomic) as pair:
        await pair.advance(wait_s)
        undisturbed.counting = True
        await act(pair)
        await pair.idle()
        undisturbed.counting = False
    calls = undisturbed.calls
    assert any(call.startswith("ledger.commit") for call in calls), calls
    assert "attending.of" in calls
    for at in range(len(calls)):
        for moment in Moment:
            await one_race(tmp_path / f"{at}{moment}.db", name, at, moment, atomic=atomic)


async def one_race(path: Path, name: str, at: int, moment: Moment, *, atomic: bool) -> None:
    wait_s, act = ACTS[name]
    between = Interruption(at=at, moment=moment)
    async with a_pair(path, between, atomic=atomic) as pair:
        between.then = pair.end
        await pair.advance(wait_s)
        between.counting = True
        await act(pair)
        await pair.idle()
        between.counting = False
        if at >= len(between.calls):
            await pair.end()
        await pair.advance(11)
        try:
            session = await pair.first.sessions.get("s1")
            assert session is not None
            reasons = {EndReason.LAWYER_ENDED, *([EndReason.PEER_GONE] if "peer" in name else [])}
            assert session.end_reason in reasons
            assert session.status in (Status.ENDED, Status.FORCE_ENDED)
            assert session.total_minor == 2_000
            assert pair.first.engine.live_count == 0
            await check_sessions(pair.second, ["s1"], ("u1", "l1"))
            rows = await pair.first.consultations.timeline("s1")
            assert (rows[1].event, rows[1].reason) == ("pause", "USER_LOST")
            told = [*pair.first.heard.names("s1"), *pair.second.heard.names("s1")]
            assert told.count("session:ended") == 1
        except AssertionError as exc:
            exc.add_note(f"{name}: ended {moment} call {at}, {between.calls[at : at + 1]}")
            raise
