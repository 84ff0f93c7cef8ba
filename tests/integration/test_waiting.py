"""Waiting lists on the engine's own world: places, turns, and what a start may take."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from billing_engine.consultations.errors import (
    LawyerBusy,
    LawyerFree,
    LawyerOffline,
    NotWaiting,
    WaitingListClosed,
    WaitingListFull,
)
from billing_engine.consultations.model import SessionView, Status
from billing_engine.consultations.rules import Rules
from billing_engine.consultations.waiting_model import Place, PlaceChanged, TurnGiven, WaitOver
from billing_engine.ledger.accounts import wallet_of
from tests.support.consult import World, open_world
from tests.support.faults import Interruption

RULES = Rules(queue_limit=3)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path / "tarazu.db", rules=RULES) as world:
        world.lawyers.add("l1", 60, has_waiting_list=True)
        world.lawyers.add("l2", 60)
        for number in range(1, 8):
            await world.recharge(f"u{number}", 10_000)
        yield world


async def join(world: World, user: str, lawyer: str = "l1") -> Place:
    return await world.waiting.join(user_id=user, lawyer_id=lawyer)


async def busy(world: World, *waiting: str) -> str:
    """u7 talks to l1, and these wait for it; the session's id."""
    session_id = await world.begin("u7", "l1")
    for user in waiting:
        await join(world, user)
        await world.advance(1)
    return session_id


async def free(world: World, session_id: str) -> None:
    await world.consultations.end(session_id, caller_id="admin", is_admin=True)
    await world.idle()


def turns(world: World) -> list[str]:
    return [event.waiting.user_id for event in world.asked.events if isinstance(event, TurnGiven)]


def told(world: World, user: str) -> list[tuple[int, str | None]]:
    return [
        (event.place.position, event.over)
        for event in world.asked.events
        if isinstance(event, PlaceChanged) and event.place.waiting.user_id == user
    ]


async def positions(world: World) -> list[str]:
    return [place.waiting.user_id for place in await world.waiting.of_lawyer("l1")]


async def test_only_who_must_wait_may(world: World) -> None:
    with pytest.raises(LawyerFree):
        await join(world, "u1")
    with pytest.raises(WaitingListClosed):
        await join(world, "u1", "l2")
    world.lawyers.add("l3", online=False, has_waiting_list=True)
    with pytest.raises(LawyerOffline):
        await join(world, "u1", "l3")
    await busy(world, "u1", "u2", "u3")
    assert (await join(world, "u1")).position == 1
    with pytest.raises(WaitingListFull):
        await join(world, "u4")
    assert await positions(world) == ["u1", "u2", "u3"]
    assert (await world.ledger.account(wallet_of("u1"), "INR")).held == 0


async def test_more_than_may_wait_come_at_once_and_no_more_stay(world: World) -> None:
    await busy(world)
    results = await asyncio.gather(
        *(join(world, f"u{number}") for number in range(1, 7)), return_exceptions=True
    )
    stay = await positions(world)
    assert len(stay) <= 3
    assert sum(isinstance(result, Place) for result in results) == len(stay)
    assert all(isinstance(result, Place | WaitingListFull) for result in results)


async def test_the_first_gets_the_turn_and_nobody_else_the_lawyer(world: World) -> None:
    session_id = await busy(world, "u1", "u2")
    await free(world, session_id)
    assert turns(world) == ["u1"]
    place = await world.waiting.place(user_id="u1", lawyer_id="l1")
    assert place.waiting.turn_until_ms == world.clock.now_ms() + 120_000
    for other in ("u2", "u5"):
        with pytest.raises(LawyerBusy):
            await world.begin(other, "l1")
    await world.advance(119)
    started = await world.begin("u1", "l1")
    assert (await world.consultations.get(started, caller_id="u1")).status is Status.ACTIVE
    assert await positions(world) == ["u2"]
    assert told(world, "u2") == [(1, None)]
    # The turn's own end finds nothing to end.
    await world.advance(30)
    assert (await world.consultations.get(started, caller_id="u1")).status is Status.ACTIVE
    await free(world, started)
    assert turns(world) == ["u1", "u2"]


async def test_a_turn_that_is_not_used_passes_to_the_next(world: World) -> None:
    session_id = await busy(world, "u1", "u2")
    await free(world, session_id)
    await world.advance(120)
    assert told(world, "u1") == [(0, WaitOver.TURN_MISSED)]
    assert turns(world) == ["u1", "u2"]
    with pytest.raises(LawyerBusy):
        await world.begin("u1", "l1")
    await world.advance(120)
    assert await positions(world) == []
    assert await world.claims.everyone() == {}
    await world.begin("u5", "l1")


async def test_who_leaves_gives_the_turn_on(world: World) -> None:
    session_id = await busy(world, "u1", "u2", "u3")
    await world.waiting.leave(user_id="u2", lawyer_id="l1")
    assert told(world, "u3") == [(2, None)]
    await free(world, session_id)
    await world.waiting.leave(user_id="u1", lawyer_id="l1")
    assert turns(world) == ["u1", "u3"]
    with pytest.raises(NotWaiting):
        await world.waiting.leave(user_id="u1", lawyer_id="l1")


@pytest.mark.parametrize("why", ["offline", "closed"])
async def test_a_lawyer_who_goes_ends_the_list_and_everybody_is_told(world: World, why: str) -> None:
    session_id = await busy(world, "u1", "u2")
    await free(world, session_id)
    world.lawyers.add("l1", 60, online=why != "offline", has_waiting_list=why != "closed")
    world.waiting.look("l1")
    await world.idle()
    reason = WaitOver.LAWYER_OFFLINE if why == "offline" else WaitOver.LIST_CLOSED
    assert told(world, "u1")[-1] == (0, reason)
    assert told(world, "u2")[-1] == (0, reason)
    assert await positions(world) == []
    assert await world.claims.everyone() == {}


async def test_who_is_busy_elsewhere_keeps_the_place_and_holds_nobody_up(world: World) -> None:
    session_id = await busy(world, "u1", "u2")
    elsewhere = await world.begin("u1", "l2")
    await free(world, session_id)
    assert turns(world) == ["u2"]
    started = await world.begin("u2", "l1")
    assert await positions(world) == ["u1"]
    await free(world, elsewhere)
    await free(world, started)
    assert turns(world) == ["u2", "u1"]


async def test_the_estimate_is_the_lawyers_own_and_null_without_any(world: World) -> None:
    session_id = await busy(world)
    assert (await join(world, "u1")).estimated_s is None
    await world.advance(100)
    await world.consultations.end(session_id, caller_id="l1")
    await world.idle()
    session_id = await world.begin("u1", "l1")
    await world.advance(30)
    assert (await join(world, "u2")).estimated_s == 70
    assert (await join(world, "u3")).estimated_s == 170


async def test_a_turn_and_a_lawyer_who_wants_to_be_asked(world: World) -> None:
    session_id = await busy(world, "u1", "u2")
    world.lawyers.add("l1", 60, has_waiting_list=True, auto_accept=False)
    await free(world, session_id)
    asked = await world.begin("u1", "l1")
    assert await positions(world) == ["u2"]
    await world.requests.decline(asked, lawyer_id="l1")
    await world.idle()
    assert turns(world) == ["u1", "u2"]


@pytest.mark.parametrize("lead", range(0, 60, 4))
async def test_a_stranger_never_takes_the_lawyer_from_who_is_next(world: World, lead: int) -> None:
    """The lawyer becomes free while a stranger tries again and again."""
    session_id = await busy(world, "u1")
    ending = asyncio.ensure_future(world.consultations.end(session_id, caller_id="l1"))
    for _ in range(lead):
        await asyncio.sleep(0)
    results = []
    for number in range(4):
        results.append(
            await asyncio.gather(
                world.consultations.start(user_id="u5", lawyer_id="l1", operation_id=f"x{number}"),
                return_exceptions=True,
            )
        )
    await ending
    await world.idle()
    assert not [result for (result,) in results if isinstance(result, SessionView)]
    assert turns(world) == ["u1"]
    await world.begin("u1", "l1")


@pytest.mark.parametrize("lead", range(0, 60, 4))
async def test_a_start_at_the_end_of_the_turn_wins_or_loses_whole(world: World, lead: int) -> None:
    session_id = await busy(world, "u1", "u2")
    await free(world, session_id)
    world.clock.jump_ms(120_000)
    ending = asyncio.ensure_future(world.waiting.advance("l1"))
    for _ in range(lead):
        await asyncio.sleep(0)
    (result,) = await asyncio.gather(
        world.consultations.start(user_id="u1", lawyer_id="l1", operation_id="s"), return_exceptions=True
    )
    await ending
    await world.idle()
    holder = await world.claims.holder("lawyer:l1")
    if isinstance(result, SessionView):
        assert holder == "s"
        await free(world, "s")
    else:
        assert isinstance(result, LawyerBusy)
    assert turns(world)[-1] == "u2"
    assert await positions(world) == ["u2"]


async def test_a_turn_that_is_given_while_a_stranger_starts_is_not_the_strangers(tmp_path: Path) -> None:
    """Who was next is busy elsewhere, so the stranger may start; then who was next is free, and gets the turn, in between."""
    stop = Interruption()

    def wrap(name: str, port: Any) -> Any:
        return stop.wrap(name, port) if name == "claims" else port

    async with open_world(tmp_path / "tarazu.db", rules=RULES, wrap=wrap) as world:
        world.lawyers.add("l1", 60, has_waiting_list=True)
        world.lawyers.add("l2", 60)
        for number in (1, 5, 7):
            await world.recharge(f"u{number}", 10_000)
        session_id = await busy(world, "u1")
        elsewhere = await world.begin("u1", "l2")
        await free(world, session_id)
        stop.counting = True
        calls = stop.calls

        async def in_between() -> None:
            await free(world, elsewhere)
            await world.waiting.advance("l1")

        stop.then = in_between
        # Before the claim of the lawyer: the last take of the start.
        stop.at = 4
        (result,) = await asyncio.gather(
            world.consultations.start(user_id="u5", lawyer_id="l1", operation_id="x"), return_exceptions=True
        )
        assert calls[3:] == ["claims.take", "claims.take"], calls
        assert isinstance(result, LawyerBusy)
        await world.idle()
        assert turns(world) == ["u1"]
        await world.begin("u1", "l1")
