"""Death at every await of every money path. The list of deaths is generated: each asynchronous call that an undisturbed run
makes to any port, once before it takes effect and once after. Then a new process starts on the same file.

Whatever the moment: the session goes on or never was, the money is in one place, nobody stays busy, and asking again with the
same key finds what the first try made.

The second half lets the same calls fail instead, and the process lives on.
"""

import asyncio
from pathlib import Path

import pytest

from billing_engine.errors import BillingError
from server.storage.errors import StoreUnavailable
from tests.support.consult_paths import (
    EVERYTHING,
    PATHS,
    READS,
    WRITES,
    MoneyPath,
    a_stage,
    booting,
    calls_of,
    promises,
    stopping,
    survived,
)
from tests.support.faults import Fuse, Moment


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "stepwise"])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
async def test_death_at_every_await(path: MoneyPath, atomic: bool, tmp_path: Path) -> None:
    async with a_stage(tmp_path / "whole.db", atomic=atomic) as stage:
        stage.fuse.counting = False
        await path.before(stage)
        stage.fuse = Fuse() if path.act is booting else stage.fuse
        stage.fuse.counting = True
        assert await survived(stage, path.act)
        calls = list(stage.fuse.calls)
        stage.fuse.counting = False
        await stage.die()
        stage.clock.jump_ms(path.gap_s * 1000)
        await stage.reborn()
        await promises(stage, path)
        await stage.world.stop()
    assert set(calls) >= path.touches, sorted(path.touches - set(calls))
    assert calls
    assert any(call.startswith("ledger.commit") for call in calls) or path.name == "recovery of a half end"
    for at, label in enumerate(calls):
        for moment in moments_of(label):
            await one_death(tmp_path / f"{at}{moment}.db", path, at, moment, atomic=atomic)


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "stepwise"])
async def test_the_deaths_cover_every_call_of_every_port(atomic: bool, tmp_path: Path) -> None:
    """A path that no longer reaches a port would make its deaths vanish from the list without a word."""
    made: set[str] = set()
    for number, path in enumerate(PATHS):
        async with a_stage(tmp_path / f"{number}.db", atomic=atomic) as stage:
            made |= set(await calls_of(path.act, path.before, stage))
    assert made >= EVERYTHING | WRITES[atomic], sorted((EVERYTHING | WRITES[atomic]) - made)


async def one_death(file: Path, path: MoneyPath, at: int, moment: Moment, *, atomic: bool) -> None:
    async with a_stage(file, atomic=atomic) as stage:
        stage.fuse.counting = False
        await path.before(stage)
        if path.act is booting:
            stage.fuse = Fuse()
        fuse = stage.fuse
        fuse.at, fuse.moment, fuse.counting = at, moment, True
        label = "?"
        try:
            lived = await survived(stage, path.act)
            label = fuse.calls[at] if at < len(fuse.calls) else "(not reached)"
            await stage.die()
            stage.clock.jump_ms(path.gap_s * 1000)
            await stage.reborn()
            await promises(stage, path)
            await stage.world.stop()
        except Exception as exc:
            exc.add_note(f"{path.name}: died {moment} call {at}, {label}")
            raise
        # Only where tasks race may a run take a shorter way than the one that was recorded.
        assert not lived or path.races, f"{path.name}: call {at} was never made"


@pytest.mark.parametrize(
    "atomic",
    [pytest.param(True, id="atomic", marks=pytest.mark.exhaustive), pytest.param(False, id="stepwise")],
)
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
async def test_a_failure_at_every_await(path: MoneyPath, atomic: bool, tmp_path: Path) -> None:
    """One call fails (or only its answer is lost) and the process lives on: nobody may have to wait for a restart."""
    async with a_stage(tmp_path / "whole.db", atomic=atomic) as stage:
        calls = await calls_of(path.act, path.before, stage)
    assert calls
    for at, label in enumerate(calls):
        for moment in moments_of(label):
            await one_failure(tmp_path / f"{at}{moment}.db", path, at, moment, atomic=atomic)


async def one_failure(file: Path, path: MoneyPath, at: int, moment: Moment, *, atomic: bool) -> None:
    async with a_stage(file, atomic=atomic) as stage:
        stage.fuse.counting = False
        await path.before(stage)
        if path.act is booting:
            stage.fuse = Fuse()
        fuse = stage.fuse
        fuse.at, fuse.moment, fuse.counting, fuse.error = at, moment, True, StoreUnavailable
        try:
            acting = asyncio.ensure_future(path.act(stage))
            await stage.world.idle()
            while not acting.done():  # what is tried again waits for the clock
                await stage.world.advance(0.25)
            failed = isinstance(acting.exception(), BillingError)
            if not failed:
                acting.result()
            fuse.counting = False
            if path.act is stopping or (failed and path.act is booting):
                # A server that cannot recover does not serve: its operator starts it again.
                await stage.die()
                stage.clock.jump_ms(path.gap_s * 1000)
                await stage.reborn()
            else:
                # A lock whose release is lost expires; everything else is put right within seconds.
                lost_lock = "locks.release" in fuse.calls[at : at + 1]
                await stage.world.advance(stage.rules.lock_ttl_ms / 1000 if lost_lock else 10)
                # Stepwise, an entry may wait in its tail for whoever reads next.
                await stage.world.ledger.recover()
            await promises(stage, path, reborn=stage.fuse is not fuse)
            await stage.world.stop()
        except Exception as exc:
            exc.add_note(f"{path.name}: call {at} failed {moment} its effect, {fuse.calls[at : at + 1]}")
            raise
        assert at < len(fuse.calls) or path.races


def moments_of(label: str) -> tuple[Moment, ...]:
    """A read has no effect: being cut off after it is being cut off before the next call, which is in the list."""
    return (Moment.BEFORE,) if label in READS else tuple(Moment)
