"""Requests on the engine's own world: the whole way, every way out, and who wins when two answers meet."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from billing_engine.consultations.errors import (
    AnsweredElsewhere,
    InsufficientBalance,
    LawyerBusy,
    RequestClosed,
    SessionNotFound,
    UserBusy,
)
from billing_engine.consultations.model import EndReason, Session, SessionView, Status
from billing_engine.consultations.opening import hold_first_slice
from billing_engine.consultations.request_model import LawyerAway
from billing_engine.errors import BillingError
from billing_engine.ledger.accounts import wallet_of
from tests.support.consult import World, open_world
from tests.support.consult_checks import check_books, check_sessions
from tests.support.faults import Interruption, Moment


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path / "tarazu.db") as world:
        world.lawyers.add("l1", 6_000, auto_accept=False)
        world.lawyers.add("l2", 6_000)
        for user in ("u1", "u2"):
            await world.recharge(user, 10_000)
        yield world


async def accept(world: World, session_id: str, device: str = "phone") -> Session:
    return await world.requests.accept(session_id, lawyer_id="l1", device=device)


async def both_join(world: World, session_id: str) -> None:
    await world.requests.joined(session_id, "u1")
    await world.requests.joined(session_id, "l1")


async def state(world: World, session_id: str) -> tuple[Status, EndReason | None]:
    view = await world.consultations.get(session_id, caller_id="u1")
    return view.status, view.session.end_reason


async def nobody_is_busy(world: World) -> None:
    assert await world.claims.everyone() == {}
    await check_books(world)
    account = await world.ledger.account(wallet_of("u1"), "INR")
    assert (account.held, account.spendable) == (0, 10_000)


async def test_a_request_rings_and_reserves_both_and_holds_no_money(world: World) -> None:
    session_id = await world.begin()
    view = await world.consultations.get(session_id, caller_id="u1")
    assert (view.status, view.session.deadline_ms) == (Status.REQUESTED, world.clock.now_ms() + 45_000)
    assert world.asked.states(session_id) == ["RINGING"]
    assert await world.claims.everyone() == {"user:u1": session_id, "lawyer:l1": session_id}
    assert (await world.ledger.account(wallet_of("u1"), "INR")).held == 0
    with pytest.raises(LawyerBusy):
        await world.begin("u2", "l1")
    with pytest.raises(UserBusy):
        await world.begin("u1", "l2")
    assert not world.consultations.is_open(session_id)


async def test_billing_begins_when_both_have_joined_and_not_before(world: World) -> None:
    session_id = await world.begin()
    await world.requests.joined(session_id, "u1")
    await world.advance(10)
    accepted = await accept(world, session_id)
    assert accepted.status is Status.ACCEPTED
    # To clients it is still a request, with another deadline.
    view = await world.consultations.get(session_id, caller_id="l1")
    assert (view.status, view.session.deadline_ms) == (Status.REQUESTED, world.clock.now_ms() + 60_000)
    await world.advance(20)
    assert (await world.ledger.account(wallet_of("u1"), "INR")).held == 0
    await world.requests.joined(session_id, "stranger")
    await world.requests.joined(session_id, "l1")
    assert await state(world, session_id) == (Status.ACTIVE, None)
    assert world.heard.names(session_id)[0] == "session:started"
    await world.advance(30)
    ended = await world.consultations.end(session_id, caller_id="u1")
    assert (ended.duration_s, ended.total_minor) == (30, 3_000)
    assert world.asked.states(session_id) == ["RINGING", "ACCEPTED"]
    await check_sessions(world, [session_id], ["u1", "l1"])


async def test_the_rate_is_the_one_of_the_request(world: World) -> None:
    session_id = await world.begin()
    world.lawyers.add("l1", 60_000, auto_accept=False)
    await accept(world, session_id)
    await both_join(world, session_id)
    await world.advance(10)
    assert (await world.consultations.end(session_id, caller_id="l1")).total_minor == 1_000


async def test_a_lawyer_who_was_there_first_makes_it_begin_with_the_yes(world: World) -> None:
    session_id = await world.begin()
    await both_join(world, session_id)
    assert await state(world, session_id) == (Status.REQUESTED, None)
    assert (await accept(world, session_id)).status is Status.ACTIVE


WAYS_OUT: dict[str, tuple[Callable[[World, str], Awaitable[Any]], Status, EndReason]] = {
    "decline": (
        lambda w, s: w.requests.decline(s, lawyer_id="l1"),
        Status.DECLINED,
        EndReason.LAWYER_DECLINED,
    ),
    "cancel": (lambda w, s: w.requests.cancel(s, user_id="u1"), Status.CANCELLED, EndReason.USER_CANCELLED),
    "end by the user": (
        lambda w, s: w.consultations.end(s, caller_id="u1"),
        Status.CANCELLED,
        EndReason.USER_CANCELLED,
    ),
    "end by the lawyer": (
        lambda w, s: w.consultations.end(s, caller_id="l1"),
        Status.DECLINED,
        EndReason.LAWYER_DECLINED,
    ),
    "end by an admin": (
        lambda w, s: w.consultations.end(s, caller_id="a", is_admin=True),
        Status.CANCELLED,
        EndReason.ADMIN_ENDED,
    ),
    "account shut": (
        lambda w, s: w.consultations.end_for_account("l1"),
        Status.CANCELLED,
        EndReason.ACCOUNT_DISABLED,
    ),
}


@pytest.mark.parametrize("is_accepted", [False, True], ids=["ringing", "accepted"])
@pytest.mark.parametrize("way", WAYS_OUT)
async def test_every_way_out_frees_both_and_costs_nothing(world: World, way: str, is_accepted: bool) -> None:
    leave, status, reason = WAYS_OUT[way]
    session_id = await world.begin()
    if is_accepted:
        await accept(world, session_id)
    await leave(world, session_id)
    assert await state(world, session_id) == (status, reason)
    assert world.asked.states(session_id)[-1] == status.value
    await nobody_is_busy(world)
    # Whoever comes too late changes nothing, and whoever repeats hears the same.
    for late in (
        lambda: accept(world, session_id, "tablet"),
        lambda: world.requests.joined(session_id, "l1"),
    ):
        with contextlib.suppress(RequestClosed):
            await late()
    if way in ("decline", "cancel") or way.startswith("end"):
        await leave(world, session_id)
    assert await state(world, session_id) == (status, reason)
    await world.advance(200)
    assert await state(world, session_id) == (status, reason)
    await nobody_is_busy(world)
    assert world.rooms.closed.keys() == {session_id}
    await world.begin("u1", "l1")


async def test_nobody_answers_for_someone_else(world: World) -> None:
    session_id = await world.begin()
    with pytest.raises(SessionNotFound):
        await world.requests.accept(session_id, lawyer_id="l2", device="x")
    with pytest.raises(SessionNotFound):
        await world.requests.decline(session_id, lawyer_id="l2")
    with pytest.raises(SessionNotFound):
        await world.requests.cancel(session_id, user_id="u2")
    plain = await world.begin("u2", "l2")
    with pytest.raises(SessionNotFound):
        await world.requests.accept(plain, lawyer_id="l2", device="x")
    assert await state(world, session_id) == (Status.REQUESTED, None)


async def test_a_ring_ends_at_its_deadline_to_the_millisecond(world: World) -> None:
    session_id = await world.begin()
    await world.advance(44.999)
    assert await state(world, session_id) == (Status.REQUESTED, None)
    await world.advance(0.001)
    assert await state(world, session_id) == (Status.MISSED, EndReason.NO_ANSWER)
    await nobody_is_busy(world)
    with pytest.raises(RequestClosed):
        await accept(world, session_id)


async def test_a_yes_after_the_deadline_comes_too_late_even_if_nobody_has_looked_yet(world: World) -> None:
    session_id = await world.begin()
    world.clock.jump_ms(45_000)
    with pytest.raises(RequestClosed):
        await accept(world, session_id)
    assert await state(world, session_id) == (Status.MISSED, EndReason.NO_ANSWER)
    await nobody_is_busy(world)


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ((), EndReason.LAWYER_NOT_JOINED),
        (("u1",), EndReason.LAWYER_NOT_JOINED),
        (("l1",), EndReason.USER_NOT_JOINED),
    ],
)
async def test_an_accepted_request_ends_when_somebody_does_not_come(
    world: World, who: tuple[str, ...], reason: EndReason
) -> None:
    session_id = await world.begin()
    await accept(world, session_id)
    for person in who:
        await world.requests.joined(session_id, person)
    await world.advance(60)
    status = Status.CANCELLED if reason is EndReason.USER_NOT_JOINED else Status.MISSED
    assert await state(world, session_id) == (status, reason)
    await nobody_is_busy(world)


async def test_money_that_is_gone_by_then_cancels_and_tells_both(world: World) -> None:
    """The funds are looked at again in the write that holds them."""
    session_id = await world.begin()
    await accept(world, session_id)
    from billing_engine.ledger.model import Movement, Transfer  # noqa: PLC0415

    wallet = wallet_of("u1")
    spent = Transfer(wallet, "revenue:elsewhere", 9_000, "elsewhere")
    await world.ledger.post(Movement(wallet, "elsewhere", "elsewhere", "INR", "x", (spent,)))
    await both_join(world, session_id)
    assert await state(world, session_id) == (Status.CANCELLED, EndReason.INSUFFICIENT_BALANCE)
    assert world.asked.states(session_id) == ["RINGING", "ACCEPTED", "CANCELLED"]
    assert await world.claims.everyone() == {}
    assert world.heard.events == []


async def test_the_first_device_wins_and_hears_the_same_again(world: World) -> None:
    session_id = await world.begin()
    devices = [f"device{number}" for number in range(20)]
    results = await asyncio.gather(
        *(accept(world, session_id, device) for device in devices), return_exceptions=True
    )
    won = [device for device, result in zip(devices, results, strict=True) if isinstance(result, Session)]
    assert len(won) == 1
    assert sum(isinstance(result, AnsweredElsewhere) for result in results) == 19
    assert (await accept(world, session_id, won[0])).accepted_by == won[0]
    await both_join(world, session_id)
    with pytest.raises(AnsweredElsewhere):
        await accept(world, session_id, "late")
    assert (await accept(world, session_id, won[0])).status is Status.ACTIVE


async def test_two_missed_rings_in_a_row_set_the_lawyer_away(world: World) -> None:
    async def miss() -> None:
        await world.begin()
        await world.advance(45)

    def is_online() -> bool:
        return world.lawyers.by_id["l1"].is_online

    await miss()
    assert is_online()
    # An answer breaks the row; a user who cancels does not, and counts for nothing.
    await world.requests.decline(await world.begin(), lawyer_id="l1")
    await miss()
    await world.requests.cancel(await world.begin(), user_id="u1")
    assert is_online()
    await miss()
    assert not is_online()
    assert LawyerAway("l1") in world.asked.events
    # Back again, the row begins anew.
    await world.advance(1)
    world.lawyers.add("l1", auto_accept=False, online_at_ms=world.clock.now_ms())
    await miss()
    assert is_online()
    await miss()
    assert not is_online()


Answer = Callable[[World, str], Awaitable[Any]]
ANSWERS: dict[str, Answer] = {
    "accept": accept,
    "accept too": lambda w, s: accept(w, s, "tablet"),
    "decline": lambda w, s: w.requests.decline(s, lawyer_id="l1"),
    "cancel": lambda w, s: w.requests.cancel(s, user_id="u1"),
}


@pytest.mark.parametrize("second", ["accept too", "decline", "cancel"])
@pytest.mark.parametrize("lead", range(0, 12, 3))
async def test_two_answers_that_meet_leave_one_outcome(world: World, second: str, lead: int) -> None:
    session_id = await world.begin()
    first = asyncio.ensure_future(ANSWERS[second](world, session_id))
    for _ in range(lead):
        await asyncio.sleep(0)
    results = await asyncio.gather(first, accept(world, session_id), return_exceptions=True)
    done = [result for result in results if not isinstance(result, BaseException)]
    assert len(done) == 1, results
    assert all(
        isinstance(result, RequestClosed | AnsweredElsewhere) for result in results if result not in done
    )
    status = (await world.sessions.get(session_id)).status
    if status is Status.ACCEPTED:
        assert set(await world.claims.everyone()) == {"user:u1", "lawyer:l1"}
    else:
        await nobody_is_busy(world)


@pytest.mark.parametrize("lead", range(0, 40, 2))
@pytest.mark.parametrize("by", ["decline", "cancel", "time"])
async def test_a_close_that_meets_the_beginning_leaves_a_consultation_or_nothing(
    world: World, by: str, lead: int
) -> None:
    """The last to join meets a decline, a cancel or the end of the time: the slice is billed, or given back whole."""
    session_id = await world.begin()
    await accept(world, session_id)
    await world.requests.joined(session_id, "u1")
    if by == "time":
        world.clock.jump_ms(60_000)
    beginning = asyncio.ensure_future(world.requests.joined(session_id, "l1"))
    for _ in range(lead):
        await asyncio.sleep(0)
    closing: Awaitable[Any] = world.requests.sweep() if by == "time" else ANSWERS[by](world, session_id)
    await asyncio.gather(beginning, closing, return_exceptions=True)
    await world.idle()
    status = (await world.sessions.get(session_id)).status
    assert status in {Status.ACTIVE, Status.DECLINED, Status.CANCELLED, Status.MISSED}
    await check_sessions(world, [session_id], ["u1", "l1"])
    if status is not Status.ACTIVE:
        await nobody_is_busy(world)


async def test_many_who_ask_one_lawyer_at_once_make_one_request(world: World) -> None:
    users = [f"x{number}" for number in range(30)]
    await asyncio.gather(*(world.recharge(user, 10_000) for user in users))
    results = await asyncio.gather(
        *(
            world.consultations.start(user_id=user, lawyer_id="l1", operation_id=f"s-{user}")
            for user in users
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(result, SessionView) for result in results) == 1
    assert sum(isinstance(result, LawyerBusy) for result in results) == 29
    assert len(await world.claims.everyone()) == 2


async def test_a_request_costs_the_same_checks_as_a_start(world: World) -> None:
    with pytest.raises(InsufficientBalance):
        await world.begin("poor", "l1")
    world.lawyers.add("l3", auto_accept=False, online=False)
    with pytest.raises(BillingError) as refused:
        await world.begin("u1", "l3")
    assert refused.value.code == "LAWYER_OFFLINE"


@pytest.mark.parametrize("moment", list(Moment))
@pytest.mark.parametrize("at", range(8))
async def test_who_joins_while_the_lawyer_accepts_is_not_forgotten(
    tmp_path: Path, at: int, moment: Moment
) -> None:
    """At any call of the yes, the user joins: else both would look at each other until the time is over."""
    stop = Interruption(at=at, moment=moment)
    async with open_world(tmp_path / "tarazu.db", wrap=stop.wrap) as world:
        world.lawyers.add("l1", 6_000, auto_accept=False)
        await world.recharge("u1", 10_000)
        session_id = await world.begin()
        stop.then, stop.counting = lambda: world.requests.joined(session_id, "u1"), True
        await accept(world, session_id)
        stop.counting = False
        if at >= len(stop.calls):
            await world.requests.joined(session_id, "u1")
        await world.requests.joined(session_id, "l1")
        assert await state(world, session_id) == (Status.ACTIVE, None)
        assert world.engine.live_count == 1


async def test_the_next_start_finishes_what_a_dead_process_has_closed(world: World) -> None:
    """It died between the close and the end of it, while a slice was held: the money is back before the claims are gone."""
    session_id = await world.begin()
    await accept(world, session_id)
    session = await world.sessions.get(session_id)
    assert session is not None
    await hold_first_slice(
        session, ledger=world.ledger, clock=world.clock, rules=world.rules, owner="whoever has died"
    )
    closed = {"status": Status.CANCELLED, "end_reason": EndReason.USER_CANCELLED, "ended_at_ms": 1}
    assert await world.sessions.change(session_id, expect=frozenset({Status.ACCEPTED}), **closed)
    assert (await world.ledger.account(wallet_of("u1"), "INR")).held > 0
    started = await world.begin("u2", "l1")
    assert await world.claims.everyone() == {"user:u2": started, "lawyer:l1": started}
    assert (await world.ledger.account(wallet_of("u1"), "INR")).held == 0
    assert world.rooms.closed.keys() == {session_id}


@pytest.mark.parametrize("lead", range(0, 24, 3))
async def test_a_request_and_a_start_that_meet_get_one_of_the_two(world: World, lead: int) -> None:
    """One user, a lawyer who is asked and one who accepts by himself; and one lawyer who changes his mind while two users come."""

    async def both(first: tuple[str, str], second: tuple[str, str]) -> list[Any]:
        one = asyncio.ensure_future(
            world.consultations.start(
                user_id=first[0], lawyer_id=first[1], operation_id=f"a-{first}-{second}"
            )
        )
        for _ in range(lead):
            await asyncio.sleep(0)
        world.lawyers.add("l1", 6_000, auto_accept=second == ("u2", "l1"))
        return await asyncio.gather(
            one,
            world.consultations.start(
                user_id=second[0], lawyer_id=second[1], operation_id=f"b-{first}-{second}"
            ),
            return_exceptions=True,
        )

    for first, second, busy in (
        (("u1", "l1"), ("u1", "l2"), UserBusy),
        (("u1", "l1"), ("u2", "l1"), LawyerBusy),
    ):
        results = await both(first, second)
        (view,) = [result for result in results if isinstance(result, SessionView)]
        assert sum(isinstance(result, busy) for result in results) == 1, results
        holders = await world.claims.everyone()
        assert set(holders.values()) == {view.session.id}
        assert len(holders) == 2
        await world.consultations.end(view.session.id, caller_id="a", is_admin=True)
        await world.advance(1)
        assert await world.claims.everyone() == {}
        # The next pair is another operation.
        world.lawyers.add("l1", 6_000, auto_accept=False)


@pytest.mark.parametrize("when", ["asked", "begun"])
async def test_an_account_that_is_shut_in_the_same_moment_ends_it(world: World, when: str) -> None:
    """Who shuts an account writes that first and looks for its session second: a request looks at the accounts once it is one."""

    class Standing:
        shut = False

        async def any_shut(self, person_ids: tuple[str, ...]) -> bool:
            return self.shut and "l1" in person_ids

    standing = Standing()
    world.requests._standing = standing
    standing.shut = when == "asked"
    view = await world.consultations.start(user_id="u1", lawyer_id="l1", operation_id="s")
    if when == "asked":
        assert (view.status, view.session.end_reason) == (Status.CANCELLED, EndReason.ACCOUNT_DISABLED)
        await nobody_is_busy(world)
        return
    await accept(world, "s")
    standing.shut = True
    await both_join(world, "s")
    await world.idle()
    assert await state(world, "s") == (Status.FORCE_ENDED, EndReason.ACCOUNT_DISABLED)
    await nobody_is_busy(world)
