"""Death at every await of a request and of a turn, once before each call takes effect and once after; then a new process on the same
file. Whatever was answered is there and can go on, and after every deadline nobody is busy and no money is held.
"""

import asyncio
from pathlib import Path

import pytest

from billing_engine.consultations.model import Status
from billing_engine.errors import BillingError
from server.storage.errors import StoreUnavailable
from server.storage.sqlite.engine import SqliteOptions, open_database
from tests.properties.test_consultation_crashes import moments_of
from tests.support.consult import World
from tests.support.consult_checks import check_sessions
from tests.support.consult_paths import survived
from tests.support.faults import Fuse, Moment
from tests.support.request_paths import (
    PATHS,
    AskingStage,
    RequestPath,
    coming,
    everybody_is_free_in_the_end,
    nothing_is_lost,
    one_there,
)

#: Seconds without a process, after the death.
GAP_S = 3


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
async def test_death_at_every_await_of_a_request(path: RequestPath, tmp_path: Path) -> None:
    calls = await undisturbed(tmp_path / "whole.db", path)
    assert set(calls) >= path.touches, sorted(path.touches - set(calls))
    for at, label in enumerate(calls):
        for moment in moments_of(label):
            await one_death(tmp_path / f"{at}{moment}.db", path, at, moment)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
async def test_a_call_that_fails_leaves_nobody_busy(path: RequestPath, tmp_path: Path) -> None:
    """The same calls fail instead, once each, before and after their effect, and the process lives on: no restart puts it right."""
    calls = await undisturbed(tmp_path / "whole.db", path)
    for at, label in enumerate(calls):
        for moment in moments_of(label):
            await one_failure(tmp_path / f"{at}{moment}.db", path, at, moment)


async def one_failure(file: Path, path: RequestPath, at: int, moment: Moment) -> None:
    async with open_database(file, SqliteOptions(synchronous="OFF")) as db:
        stage = AskingStage(db, atomic=True)
        fuse = stage.fuse
        fuse.counting = False
        await path.before(stage)
        fuse.at, fuse.moment, fuse.counting, fuse.error = at, moment, True, StoreUnavailable
        try:
            acting = asyncio.ensure_future(path.act(stage))
            await stage.world.idle()
            while not acting.done():  # what is tried again waits for the clock
                await stage.world.advance(0.25)
            if not isinstance(acting.exception(), BillingError):
                acting.result()
            fuse.counting = False
            # What is put right later is put right within seconds.
            await stage.world.advance(10)
            await stage.look()
            await stage.world.ledger.recover()
            if at % 2:
                await nothing_is_lost(stage, path)
            await everybody_is_free_in_the_end(stage, path)
            await stage.world.stop()
        except BaseException as exc:
            exc.add_note(f"{path.name}: call {at} failed {moment} its effect, {fuse.calls[at : at + 1]}")
            raise


async def test_a_slice_that_was_held_makes_a_consultation_whoever_finds_it(tmp_path: Path) -> None:
    """The process dies between the hold and the record. Recovery alone, without a look at requests, goes on with it as ACTIVE: taken
    for a request still, it would be served, and then given back.
    """
    async with open_database(tmp_path / "held.db", SqliteOptions(synchronous="OFF")) as db:
        stage = AskingStage(db, atomic=True)
        await one_there(stage)
        stage.fuse.die_at("ledger.commit_all", Moment.AFTER)
        assert not await survived(stage, coming)
        await stage.die()
        stage.clock.jump_ms(GAP_S * 1000)
        world = World(db, stage.clock, stage.rules)
        world.lawyers = stage.lawyers
        await world.build()
        await world.ledger.start()
        assert await world.recovery.run() == 1
        session = await world.sessions.get("s1")
        assert session is not None
        assert session.status is Status.ACTIVE
        await world.advance(10)
        # What nobody served is not billed.
        ended = await world.consultations.end("s1", caller_id="u1")
        assert ended.duration_s == 10
        await check_sessions(world, ["s1"], ["u1", "l1"])
        await world.stop()


async def undisturbed(file: Path, path: RequestPath) -> list[str]:
    async with open_database(file, SqliteOptions(synchronous="OFF")) as db:
        stage = AskingStage(db, atomic=True)
        stage.fuse.counting = False
        await path.before(stage)
        stage.fuse.counting = True
        assert await survived(stage, path.act)
        await stage.world.idle()
        calls = list(stage.fuse.calls)
        stage.fuse.counting = False
        await everybody_is_free_in_the_end(stage, path)
        await stage.world.stop()
    return calls


async def one_death(file: Path, path: RequestPath, at: int, moment: Moment) -> None:
    async with open_database(file, SqliteOptions(synchronous="OFF")) as db:
        stage = AskingStage(db, atomic=True)
        stage.fuse.counting = False
        await path.before(stage)
        stage.fuse.at, stage.fuse.moment, stage.fuse.counting = at, moment, True
        try:
            await survived(stage, path.act)
            if not stage.fuse.burnt:
                # In a task that the act does not wait for.
                await stage.world.idle()
            await stage.die()
            stage.clock.jump_ms(GAP_S * 1000)
            await stage.reborn(Fuse(counting=False))
            # Half of them go on as if nothing had happened; of the others nobody is heard again.
            if at % 2:
                await nothing_is_lost(stage, path)
            await everybody_is_free_in_the_end(stage, path)
            await stage.world.stop()
        except BaseException as exc:
            exc.add_note(f"{path.name}: died {moment} call {at}, {stage.fuse.calls[at : at + 1]}")
            raise
