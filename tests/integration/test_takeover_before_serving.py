"""A process that starts serves nobody until it knows who of the others lives: nobody pays for the time in which all were dead."""

import asyncio
from pathlib import Path

from billing_engine.consultations.liveness import Liveness
from billing_engine.consultations.ports import Lease
from billing_engine.consultations.rules import Rules
from billing_engine.consultations.takeover import WEB, WORKER
from tests.integration.test_takeover import Deployment, deployment, pauses_of
from tests.support.consult import World

RULES = Rules()
BEAT_S = RULES.beat_ms / 1000


def knowing(world: World) -> "asyncio.Task[None]":
    assert world.takeover is not None
    return asyncio.create_task(world.takeover.know_the_others())


async def known_after_s(them: Deployment, task: "asyncio.Task[None]", patience_s: float = 10) -> float:
    passed_s = 0.0
    while not task.done() and passed_s < patience_s:
        await them.advance(BEAT_S)
        passed_s += BEAT_S
    await task
    return passed_s


async def test_who_ends_a_session_right_after_all_were_dead_does_not_pay_for_that_time(
    tmp_path: Path,
) -> None:
    async with deployment(tmp_path) as them:
        first = await them.process()
        await first.recharge("u1", 100_000)
        session_id = await first.begin()
        await them.advance(12)
        await first.crash()
        # Less than is paid for: nothing but the pause keeps this from the bill.
        await them.advance(5)
        second = await them.process()
        await known_after_s(them, knowing(second))
        assert second.engine.is_live(session_id)
        ((reason, length_ms),) = await pauses_of(second, session_id)
        assert (reason, length_ms >= 5_000) == ("SERVER", True)
        view = await second.consultations.end(session_id, caller_id="u1")
        # The last tick, in the tenth second, is the last proof.
        assert view.duration_s == 10
        assert len(await second.leases.all()) == 1


async def test_nobody_waits_long_for_those_who_live(tmp_path: Path) -> None:
    async with deployment(tmp_path) as them:
        await them.process()
        await them.process(WORKER)
        await them.advance(1)
        third = await them.process()
        assert await known_after_s(them, knowing(third)) <= 2 * BEAT_S


async def test_a_first_process_waits_for_nobody(tmp_path: Path) -> None:
    async with deployment(tmp_path) as them:
        takeover = (await them.process()).takeover
        assert takeover is not None
        # No time passes.
        await takeover.know_the_others()


async def test_who_cannot_know_serves_all_the_same(tmp_path: Path) -> None:
    """One whose sessions nobody can take up just now must not keep the process from everybody else."""
    async with deployment(tmp_path) as them:
        first = await them.process()
        second = await them.process()
        assert second.takeover is not None
        second.takeover._liveness.undecided = lambda _role: frozenset({first.consultations.owner})  # type: ignore[method-assign]
        waited_s = await known_after_s(them, knowing(second))
        assert RULES.lease_ms <= waited_s * 1000 <= 6 * RULES.lease_ms


def test_who_has_not_moved_before_our_eyes_is_undecided_until_it_is_buried() -> None:
    liveness = Liveness("me", lease_ms=RULES.lease_ms)
    a, b, worker = Lease("a", 1, WEB), Lease("b", 1, WEB), Lease("c", 1, WORKER)
    liveness.look([a, b, worker], 0)
    assert liveness.undecided(WEB) == {"a", "b"}
    for now_ms in range(RULES.beat_ms, RULES.lease_ms + 1, RULES.beat_ms):
        liveness.look([Lease("a", 1 + now_ms, WEB), b, worker], now_ms)
        assert liveness.undecided(WEB) == {"b"}
    assert liveness.dead() == [b, worker]
    liveness.buried("b")
    assert liveness.undecided(WEB) == frozenset()
