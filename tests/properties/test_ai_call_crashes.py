"""Death, failure of the store, and a caller who goes away, at every await of an AI call: whole or streamed, good or failed.

Whatever the moment: no hold stays, what is charged is what is known, what the provider failed at costs nothing, and the log is the entries.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from billing_engine.errors import BillingError
from billing_engine.subscriptions.calls import FIRST_READ_MS, NEXT_READ_MS, MeteredStream
from billing_engine.subscriptions.model import Tokens, cost_of
from server.storage.errors import StoreUnavailable
from tests.support.ai_stage import COST, PRICE, TIERS, USER, AiStage, Script, an_ai_stage, survived
from tests.support.faults import Interruption, Moment
from tests.support.manual_clock import turns


@dataclass(frozen=True)
class CallPath:
    """What is disturbed. `most` is what it costs undisturbed."""

    name: str
    act: Callable[[AiStage], Awaitable[Any]]
    script: Callable[[], Script] = Script
    most: int = COST

    def __str__(self) -> str:
        return self.name


def cost(output: int) -> int:
    """Of a stream that has put out so much."""
    return cost_of(Tokens(100, output), PRICE, TIERS.free.credit_markup).credits_milli


async def streaming(stage: AiStage) -> None:
    """A piece a second: its progress is noted every other one."""
    await stage.stream(between_ms=1_000)


async def leaving(stage: AiStage) -> None:
    await stage.stream(between_ms=1_000, until=2)


PATHS = (
    CallPath("whole", AiStage.call),
    CallPath("stream", streaming),
    CallPath("stream closed early", leaving, most=cost(50)),
    CallPath("refused", AiStage.call, lambda: Script(status=500), most=0),
    CallPath("unavailable", AiStage.call, lambda: Script(unavailable=True), most=0),
    CallPath("not counted", AiStage.call, lambda: Script(tokens=None), most=0),
    CallPath("stream refused", streaming, lambda: Script(status=429), most=0),
    CallPath("stream broken off at once", streaming, lambda: Script(cut_after=0), most=0),
    CallPath("stream broken off", streaming, lambda: Script(cut_after=3), most=cost(75)),
)
MODES = pytest.mark.parametrize(
    "atomic",
    [pytest.param(True, id="atomic", marks=pytest.mark.exhaustive), pytest.param(False, id="stepwise")],
)


async def undisturbed(path: CallPath, directory: Path, *, atomic: bool) -> list[str]:
    async with an_ai_stage(directory / "whole.db", atomic=atomic) as stage:
        stage.ai.script = path.script()
        await stage.plans.view(USER)
        stage.fuse.counting = True
        assert await survived(stage, path.act)
        stage.fuse.counting = False
        await stage.check()
        assert await taken(stage) == path.most
        return list(stage.fuse.calls)


async def taken(stage: AiStage) -> int:
    return sum(entry.facts["creditsMilli"] for entry in await stage.called())


@MODES
@pytest.mark.parametrize("path", PATHS, ids=str)
async def test_death_at_every_await(path: CallPath, atomic: bool, tmp_path: Path) -> None:
    calls = await undisturbed(path, tmp_path, atomic=atomic)
    assert {"calls.add", "calls.finish"} <= set(calls)
    for at, label in enumerate(calls):
        for moment in Moment:
            async with an_ai_stage(tmp_path / f"{at}{moment}.db", atomic=atomic) as stage:
                try:
                    await one_death(stage, path, at, moment)
                except BaseException as exc:
                    exc.add_note(f"died {moment} call {at}, {label}, of {calls}")
                    raise


async def one_death(stage: AiStage, path: CallPath, at: int, moment: Moment) -> None:
    stage.ai.script = path.script()
    await stage.plans.view(USER)
    fuse = stage.fuse
    fuse.at, fuse.moment, fuse.counting, fuse.calls = at, moment, True, []
    if await survived(stage, path.act):
        # The provider's failure is this call's effect: there is nothing after it.
        assert moment is Moment.AFTER
        assert fuse.calls[at].startswith("ai.")
        return
    await stage.die()
    await stage.reborn()
    left = list((await stage.account()).holds.values())
    await stage.heal()
    await stage.check()
    if left:
        # It is what the hold knows, no more and no less.
        seen = Tokens(*left[0].facts["seen"])
        assert await taken(stage) == cost_of(seen, PRICE, TIERS.free.credit_markup).credits_milli
        assert [entry.facts["outcome"] for entry in await stage.called()] == ["ABANDONED"]
    else:
        assert await taken(stage) in (0, path.most)
    assert await taken(stage) <= path.most
    assert await stage.heal() == 0
    # And it goes on.
    stage.ai.script = Script()
    await stage.call()
    await stage.check(audits=False)


async def test_a_stream_that_a_death_has_cut_is_paid_as_far_as_it_was_noted(tmp_path: Path) -> None:
    async with an_ai_stage(tmp_path / "t.db") as stage:
        stream = await opened(stage)
        pieces = stream.pieces()
        for _ in range(3):
            await anext(pieces)
            stage.clock.jump_ms(2_000)
        await stage.die()
        await stage.reborn()
        await stage.heal()
        await stage.check()
        # The third piece came after the last note.
        assert await taken(stage) == cost(50)


@MODES
@pytest.mark.parametrize("path", PATHS, ids=str)
async def test_a_store_that_fails_at_every_await(path: CallPath, atomic: bool, tmp_path: Path) -> None:
    """The process lives on and knows how the call ended: that is what is charged, later."""
    calls = await undisturbed(path, tmp_path, atomic=atomic)
    for at, label in enumerate(calls):
        if label.startswith("ai."):
            continue
        for moment in Moment:
            async with an_ai_stage(tmp_path / f"{at}{moment}.db", atomic=atomic) as stage:
                try:
                    await one_failure(stage, path, at, moment)
                except BaseException as exc:
                    exc.add_note(f"failed {moment} call {at}, {label}, of {calls}")
                    raise


async def one_failure(stage: AiStage, path: CallPath, at: int, moment: Moment) -> None:
    stage.ai.script = path.script()
    await stage.plans.view(USER)
    fuse = stage.fuse
    fuse.at, fuse.moment, fuse.counting, fuse.calls, fuse.error = at, moment, True, [], StoreUnavailable
    with suppress(StoreUnavailable):
        await survived(stage, path.act)
    fuse.counting = False
    await stage.ledger.recover()
    await stage.heal()
    await stage.check()
    assert await taken(stage) == (path.most if stage.ai.asked else 0)
    assert await stage.heal() == 0


@MODES
@pytest.mark.parametrize("path", PATHS, ids=str)
async def test_a_caller_who_goes_away_at_every_await(path: CallPath, atomic: bool, tmp_path: Path) -> None:
    """Nothing heals here: who serves the call ends it."""
    calls = await undisturbed(path, tmp_path, atomic=atomic)
    for at, label in enumerate(calls):
        for moment in Moment:
            leaving = Interruption(at=at, moment=moment)
            async with an_ai_stage(tmp_path / f"{at}{moment}.db", atomic=atomic, wrap=leaving.wrap) as stage:
                stage.ai.script = path.script()
                await stage.plans.view(USER)
                task = asyncio.ensure_future(path.act(stage))

                async def gone(task: "asyncio.Future[Any]" = task) -> None:
                    task.cancel()

                leaving.then, leaving.counting = gone, True
                with suppress(asyncio.CancelledError, BillingError):
                    await task
                try:
                    await quiet(stage)
                    assert not stage.calls._streams, "nobody reads it, and it is not ended"
                    await stage.calls.stop()
                    await stage.check()
                    assert await taken(stage) <= max(path.most, cost(0))
                    if path.name == "whole" and stage.ai.asked:
                        assert await taken(stage) == COST
                except BaseException as exc:
                    exc.add_note(f"went away {moment} call {at}, {label}, of {calls}")
                    raise


# -- readers that do not read -----------------------------------------------------------------------------------------------


async def opened(stage: AiStage) -> MeteredStream:
    found = await stage.calls.call(USER, "openai", body=b'{"stream": true}', query={})
    assert isinstance(found, MeteredStream)
    return found


async def quiet(stage: AiStage) -> None:
    for _ in range(5):
        await turns()
        await stage.watched.until_idle()


async def test_a_stream_that_nobody_begins_to_read_ends(tmp_path: Path) -> None:
    async with an_ai_stage(tmp_path / "t.db") as stage:
        stream = await opened(stage)
        await stage.clock.advance_ms(FIRST_READ_MS - 1, idle=lambda: quiet(stage))
        assert len((await stage.account()).holds) == 1
        await stage.clock.advance_ms(1, idle=lambda: quiet(stage))
        await stage.check()
        assert stage.ai.streams[0].is_closed
        # The provider has taken it in.
        assert await taken(stage) == cost(0)
        with pytest.raises(BillingError):
            await anext(stream.pieces())


async def test_a_stream_that_nobody_reads_on_ends(tmp_path: Path) -> None:
    async with an_ai_stage(tmp_path / "t.db") as stage:
        pieces = (await opened(stage)).pieces()
        await anext(pieces)
        await stage.clock.advance_ms(NEXT_READ_MS - 1, idle=lambda: quiet(stage))
        await anext(pieces)
        await stage.clock.advance_ms(NEXT_READ_MS - 1, idle=lambda: quiet(stage))
        assert len((await stage.account()).holds) == 1
        await stage.clock.advance_ms(1, idle=lambda: quiet(stage))
        await stage.check()
        assert await taken(stage) == cost(50)
        with pytest.raises(BillingError):
            await anext(pieces)
        assert len(await stage.called()) == 1


async def test_a_provider_that_thinks_is_no_reader_that_is_away(tmp_path: Path) -> None:
    async with an_ai_stage(tmp_path / "t.db") as stage:

        async def think() -> None:
            await stage.clock.advance_ms(2 * NEXT_READ_MS)

        stage.ai.script.then = think
        assert await stage.stream() == 4
        await stage.check()
        assert await taken(stage) == COST


async def test_a_stop_ends_what_nobody_reads(tmp_path: Path) -> None:
    async with an_ai_stage(tmp_path / "t.db") as stage:
        await opened(stage)
        await stage.calls.stop()
        await stage.check()


async def test_a_live_neighbours_calls_are_left_alone(tmp_path: Path) -> None:
    async with an_ai_stage(tmp_path / "t.db") as stage:
        await opened(stage)
        await stage.heal()
        assert len((await stage.account()).holds) == 1, "its own"
        stage.calls._owner = "another"
        await stage.calls.heal(may_live=lambda owner: owner == "process-1", abandoned_after_ms=0)
        assert len((await stage.account()).holds) == 1, "a living one's"
        await stage.calls.heal(may_live=lambda owner: False)
        await stage.check()
