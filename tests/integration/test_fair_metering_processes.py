"""A lost participant where several processes serve: the one that bills pauses, the others know, whoever takes over goes on."""

from pathlib import Path

import pytest

from billing_engine.consultations.model import EndReason, Status
from tests.integration.test_takeover import Deployment, deployment
from tests.support.consult import World
from tests.support.consult_checks import check_sessions


async def at_two(them: Deployment) -> tuple[World, World, str]:
    """A session that the first process bills, its people there, 20 s old; the second process has read that it is served."""
    first, second = await them.process(), await them.process()
    await first.recharge("u1", 100_000)
    session_id = await first.begin()
    for person in ("u1", "l1"):
        them.sockets.come(person, session_id)
    await them.advance(20)
    assert await second.consultations.look(session_id)
    return first, second, session_id


async def lost(them: Deployment, session_id: str) -> None:
    them.sockets.go("u1", session_id)
    await them.advance(15)


@pytest.mark.parametrize("hints", ["arrive", "are lost"])
async def test_those_who_do_not_bill_it_know_that_it_is_paused(tmp_path: Path, hints: str) -> None:
    async with deployment(tmp_path) as them:
        first, second, session_id = await at_two(them)
        await them.advance(10)
        assert await second.consultations.look(session_id)
        them.relay.lost = hints == "are lost"
        them.sockets.go("u1", session_id)
        await them.advance(14.9)
        assert await second.consultations.look(session_id)
        await them.advance(0.1)
        assert first.consultations.is_paused(session_id)
        # A lost hint costs what is left of the slice that it has read.
        assert second.consultations.is_open(session_id) is (True if them.relay.lost else None)
        await them.advance(13)
        assert not await second.consultations.look(session_id)
        assert second.consultations.is_paused(session_id)
        them.sockets.come("u1", session_id)
        await them.advance(0.3)
        assert await second.consultations.look(session_id)
        assert not second.consultations.is_paused(session_id)
        view = await second.consultations.end(session_id, caller_id="u1")
        assert view.total_minor == 3_000
        await them.idle()
        await check_sessions(second, [session_id], ["u1", "l1"])


async def test_whoever_takes_a_paused_session_up_resumes_it_or_ends_it(tmp_path: Path) -> None:
    async with deployment(tmp_path) as them:
        first, second, session_id = await at_two(them)
        await lost(them, session_id)
        await first.crash()
        await them.advance(3)
        assert them.owner_of(session_id) is second
        assert second.consultations.is_paused(session_id)
        them.sockets.come("u1", session_id)
        await them.advance(7)
        assert second.consultations.is_open(session_id)
        them.sockets.go("l1", session_id)
        await them.advance(121)
        session = await second.sessions.get(session_id)
        assert (session.status, session.end_reason) == (Status.FORCE_ENDED, EndReason.PEER_GONE)
        rows = await second.consultations.timeline(session_id)
        assert [(row.event, row.reason) for row in rows] == [
            ("start", None),
            ("pause", "USER_LOST"),
            ("resume", "USER_LOST"),
            ("pause", "LAWYER_LOST"),
            ("end", "PEER_GONE"),
        ]
        assert session.total_minor == 2_700
        await check_sessions(second, [session_id], ["u1", "l1"])


async def test_an_end_at_another_process_leaves_a_due_loss_out_before_the_pause_is_written(
    tmp_path: Path,
) -> None:
    """Who bills it is late; the bill is the same as if it had been in time."""
    async with deployment(tmp_path) as them:
        first, second, session_id = await at_two(them)
        them.sockets.go("u1", session_id)
        await them.advance(14)
        second.clock.jump_ms(1_000)
        view = await second.consultations.end(session_id, caller_id="l1")
        assert (view.status, view.total_minor) == (Status.ENDED, 2_000)
        await them.advance(4)
        assert first.engine.live_count == 0
        rows = await second.consultations.timeline(session_id)
        assert [(row.event, row.reason) for row in rows][1:] == [
            ("pause", "USER_LOST"),
            ("end", "LAWYER_ENDED"),
        ]
        await check_sessions(second, [session_id], ["u1", "l1"])


async def test_a_process_that_goes_pauses_nobody(tmp_path: Path) -> None:
    """A deploy: its clients come back, to another one, within the grace."""
    async with deployment(tmp_path) as them:
        first, second, session_id = await at_two(them)
        for person in ("u1", "l1"):
            them.sockets.go(person, session_id)
        await first.stop()
        first.crashed = True
        await them.advance(10)
        for person in ("u1", "l1"):
            them.sockets.come(person, session_id)
        await them.advance(30)
        rows = await second.consultations.timeline(session_id)
        assert {row.reason for row in rows} <= {None, "SERVER"}
        assert second.consultations.is_open(session_id)
