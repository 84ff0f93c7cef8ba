"""Requests and turns over several processes: answered at another one than they were made at, and kept when their process dies."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from billing_engine.consultations.errors import LawyerBusy
from billing_engine.consultations.model import EndReason, Status
from billing_engine.consultations.waiting_model import TurnGiven
from tests.integration.test_takeover import Deployment, deployment
from tests.support.consult import World
from tests.support.consult_checks import check_sessions
from tests.support.faults import Interruption, Moment

#: How often each process looks, here as in the composition.
LOOK_S = 5


@pytest.fixture
async def them(tmp_path: Path) -> AsyncIterator[Deployment]:
    async with deployment(tmp_path) as them:
        yield them


async def process(them: Deployment) -> World:
    world = await them.process()
    world.lawyers.add("l1", 6_000, auto_accept=False)
    world.lawyers.add("l2", 6_000, has_waiting_list=True)
    return world


async def look(them: Deployment) -> None:
    for world in them.running():
        await world.requests.sweep()
        await world.waiting.sweep()
    await them.idle()


async def test_asked_at_one_accepted_at_another_and_joined_at_both(them: Deployment) -> None:
    a, b, c = [await process(them) for _ in range(3)]
    await a.recharge("u1", 100_000)
    session_id = await a.begin()
    await them.advance(1)
    await b.requests.accept(session_id, lawyer_id="l1", device="phone")
    await a.requests.joined(session_id, "u1")
    await c.requests.joined(session_id, "l1")
    await them.idle()
    assert them.owner_of(session_id) is c
    # The first deadline, whose time is kept where it was asked, ends nothing any more.
    await them.advance(60)
    await look(them)
    view = await a.consultations.get(session_id, caller_id="u1")
    assert (view.status, view.duration_s) == (Status.ACTIVE, 60)
    await b.consultations.end(session_id, caller_id="l1")
    await them.advance(1)
    assert await a.claims.everyone() == {}


async def test_a_ring_goes_on_when_its_process_dies(them: Deployment) -> None:
    a, b = await process(them), await process(them)
    await a.recharge("u1", 100_000)
    session_id = await a.begin()
    await them.advance(10)
    await look(them)
    assert b.asked.states(session_id) == [], "its own process rings it"
    await a.crash()
    await them.advance(5)
    await look(them)
    assert b.asked.states(session_id) == ["RINGING"]
    await them.advance(29.9)
    assert (await b.sessions.get(session_id)).status is Status.REQUESTED  # type: ignore[union-attr]
    await them.advance(0.2)
    session = await b.sessions.get(session_id)
    assert session is not None
    assert (session.status, session.end_reason) == (Status.MISSED, EndReason.NO_ANSWER)
    assert await b.claims.everyone() == {}


async def test_an_accepted_request_outlives_the_process_that_accepted_it(them: Deployment) -> None:
    a, b = await process(them), await process(them)
    await a.recharge("u1", 100_000)
    session_id = await b.begin()
    await a.requests.accept(session_id, lawyer_id="l1", device="phone")
    await a.requests.joined(session_id, "u1")
    await a.crash()
    await them.advance(3)
    await look(them)
    await b.requests.joined(session_id, "l1")
    await them.idle()
    await check_sessions(b, [session_id], ["u1", "l1"])
    assert (await b.consultations.get(session_id, caller_id="u1")).status is Status.ACTIVE


@pytest.mark.parametrize("moment", list(Moment))
@pytest.mark.parametrize("at", range(12))
async def test_two_processes_that_begin_it_at_once_bill_it_once(
    tmp_path: Path, at: int, moment: Moment
) -> None:
    """At any call of the one, the other looks, sees that both are there, and begins it, too."""
    stop = Interruption(at=at, moment=moment)
    async with deployment(tmp_path) as them:
        b = await process(them)
        a = await them.process(fuse=stop)  # type: ignore[arg-type]  # it wraps ports as the others do
        a.lawyers.add("l1", 6_000, auto_accept=False)
        await b.recharge("u1", 100_000)
        session_id = await b.begin()
        await b.requests.joined(session_id, "u1")
        await b.requests.joined(session_id, "l1")
        stop.then, stop.counting = b.requests.sweep, True
        await a.requests.accept(session_id, lawyer_id="l1", device="phone")
        stop.counting = False
        await them.idle()
        them.owner_of(session_id)
        await them.advance(20)
        ended = await b.consultations.end(session_id, caller_id="u1")
        assert ended.total_minor == 2_000
        await them.advance(1)
        assert await b.claims.everyone() == {}


async def test_a_turn_outlives_its_process(them: Deployment) -> None:
    a, b = await process(them), await process(them)
    for user in ("u1", "u2", "u3"):
        await a.recharge(user, 100_000)
    session_id = await a.begin("u1", "l2")
    await b.waiting.join(user_id="u2", lawyer_id="l2")
    await b.waiting.join(user_id="u3", lawyer_id="l2")
    await a.consultations.end(session_id, caller_id="u1")
    await them.idle()
    await a.crash()
    await them.advance(LOOK_S)
    await look(them)
    assert [event.waiting.user_id for event in b.asked.events if isinstance(event, TurnGiven)] == ["u2"]
    with pytest.raises(LawyerBusy):
        await b.begin("u3", "l2")
    await them.advance(120 - LOOK_S)
    await look(them)
    place = await b.waiting.place(user_id="u3", lawyer_id="l2")
    assert place.waiting.turn_id
    await b.begin("u3", "l2")
