"""Many at once: starts, ends, recharges and whole processes meet in the same instant, and one of them wins."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from billing_engine.consultations.errors import LawyerBusy, StartAborted, UserBusy
from billing_engine.consultations.model import EndReason, SessionView, Status
from billing_engine.consultations.rules import Rules
from billing_engine.errors import BillingError
from billing_engine.ledger.accounts import earnings_of, wallet_of
from server.storage.errors import StoreUnavailable
from server.storage.sqlite.engine import SqliteDatabase, SqliteOptions, open_database
from tests.support.consult import World, open_world
from tests.support.consult_checks import check_books, check_sessions
from tests.support.faults import Outage
from tests.support.manual_clock import ManualClock


async def all_at_once(calls: Sequence[Callable[[], Awaitable[Any]]]) -> list[Any]:
    """Every call waits at one barrier; their results, or what they raised."""
    barrier = asyncio.Event()

    async def run(call: Callable[[], Awaitable[Any]]) -> Any:
        await barrier.wait()
        return await call()

    tasks = [asyncio.create_task(run(call)) for call in calls]
    await asyncio.sleep(0)
    barrier.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


def ports(*, locks: bool) -> Callable[[str, Any], Any]:
    """With or without locks: where Redis has vanished, the claims in the store decide alone."""
    return Outage(StoreUnavailable, only=lambda label: label.startswith("locks."), failing=not locks).wrap


def start(world: World, user_id: str, lawyer_id: str, key: str) -> Callable[[], Awaitable[SessionView]]:
    return lambda: world.consultations.start(user_id=user_id, lawyer_id=lawyer_id, operation_id=key)


def end(world: World, session_id: str, caller_id: str) -> Callable[[], Awaitable[SessionView]]:
    return lambda: world.consultations.end(session_id, caller_id=caller_id, is_admin=caller_id == "admin")


# -- starts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("locks", [True, False], ids=["with locks", "without locks"])
async def test_a_thousand_users_start_with_one_lawyer_and_one_gets_in(locks: bool, tmp_path: Path) -> None:
    async with open_world(tmp_path / "tarazu.db", wrap=ports(locks=locks)) as world:
        world.lawyers.add("l1", 6_000)
        users = [f"u{number}" for number in range(1_000)]
        await asyncio.gather(*(world.recharge(user, 10_000) for user in users))
        results = await all_at_once([start(world, user, "l1", f"s-{user}") for user in users])
        started = [result for result in results if isinstance(result, SessionView)]
        assert len(started) == 1
        assert sum(isinstance(result, LawyerBusy) for result in results) == 999
        documents = await check_books(world)
        winner = started[0].session.user_id
        assert [a.id for a in documents.values() if a.held or a.holds] == [wallet_of(winner)]
        assert await world.claims.everyone() == {
            f"user:{winner}": started[0].session.id,
            "lawyer:l1": started[0].session.id,
        }
        assert [s.id for s in await world.sessions.unfinished()] == [started[0].session.id]
        assert world.engine.live_count == 1
        # The losers are as free as before.
        await world.consultations.end(started[0].session.id, caller_id="l1")
        loser = next(user for user in users if user != winner)
        await world.begin(loser, "l1")


@pytest.mark.parametrize("locks", [True, False], ids=["with locks", "without locks"])
async def test_one_user_starts_with_a_hundred_lawyers_and_gets_one(locks: bool, tmp_path: Path) -> None:
    async with open_world(tmp_path / "tarazu.db", wrap=ports(locks=locks)) as world:
        lawyers = [f"l{number}" for number in range(100)]
        for lawyer in lawyers:
            world.lawyers.add(lawyer, 6_000)
        await world.recharge("u1", 10_000)
        results = await all_at_once([start(world, "u1", lawyer, f"s-{lawyer}") for lawyer in lawyers])
        started = [result for result in results if isinstance(result, SessionView)]
        assert len(started) == 1
        assert sum(isinstance(result, UserBusy) for result in results) == 99
        await check_sessions(world, [f"s-{lawyer}" for lawyer in lawyers], ["u1", *lawyers])


async def test_everybody_with_everybody_leaves_each_person_in_one_session(tmp_path: Path) -> None:
    """Ten users and ten lawyers, all hundred pairs at once, no locks: whoever got in is in once, and no one is stuck."""
    async with open_world(tmp_path / "tarazu.db", wrap=ports(locks=False)) as world:
        people = [f"{side}{number}" for side in "ul" for number in range(10)]
        for number in range(10):
            world.lawyers.add(f"l{number}", 6_000)
            await world.recharge(f"u{number}", 10_000)
        pairs = [(f"u{u}", f"l{w}") for u in range(10) for w in range(10)]
        await all_at_once([start(world, user, lawyer, f"{user}-{lawyer}") for user, lawyer in pairs])
        sessions = await check_sessions(world, [f"{user}-{lawyer}" for user, lawyer in pairs], people)
        live = [s for s in sessions if s.status is Status.ACTIVE]
        assert len({s.user_id for s in live}) == len({s.lawyer_id for s in live}) == len(live) >= 1


@pytest.mark.parametrize("times", [2, 50])
async def test_one_operation_run_many_times_at_once_starts_one_session(times: int, tmp_path: Path) -> None:
    """An idempotency row past its lease is run again while the first run is still on its way."""
    async with open_world(tmp_path / "tarazu.db") as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 100_000)
        results = await all_at_once([start(world, "u1", "l1", "s1")] * times)
        assert {result.session.id for result in results} == {"s1"}
        assert {result.status for result in results} == {Status.ACTIVE}
        assert world.heard.names() == ["session:started"]
        await check_sessions(world, ["s1"], ["u1", "l1"])
        await world.advance(20)
        assert (await world.consultations.end("s1", caller_id="u1")).total_minor == 2_000


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_a_client_that_hangs_up_during_the_start_leaves_nobody_busy(turns: int, tmp_path: Path) -> None:
    async with open_world(tmp_path / "tarazu.db") as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 10_000)
        call = asyncio.ensure_future(start(world, "u1", "l1", "s1")())
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await world.advance(10)
        await check_sessions(world, ["s1"], ["u1", "l1"])


# -- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", range(8))
async def test_both_parties_an_admin_and_the_empty_wallet_end_it_at_one_instant(
    order: int, tmp_path: Path
) -> None:
    async with open_world(tmp_path / "tarazu.db") as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 6_050)
        session_id = await world.begin()
        await world.advance(59.999)
        world.clock.jump_ms(1)
        callers = ["u1", "l1", "admin", "u1", "l1"]
        calls: list[Callable[[], Awaitable[Any]]] = [end(world, session_id, caller) for caller in callers]
        calls.insert(order % (len(calls) + 1), lambda: world.advance(0))
        if order > 5:
            calls.reverse()
        results = await all_at_once(calls)
        views = [result for result in results if result is not None]
        assert len(views) == 5
        # The lawyer and the user see one outcome; the wallet's balance beside it is read for each.
        assert len({view.session for view in views}) == 1
        session = views[0].session
        assert session.end_reason in {
            EndReason.USER_ENDED,
            EndReason.LAWYER_ENDED,
            EndReason.ADMIN_ENDED,
            EndReason.WALLET_EMPTY,
        }
        assert (session.duration_s, session.total_minor) == (60, 6_000)
        assert await world.ledger.balance(wallet_of("u1"), "INR") == 50
        assert await world.ledger.balance(earnings_of("l1"), "INR") == 6_000
        await world.advance(1)
        assert world.heard.names().count("session:ended") == 1
        await check_sessions(world, [session_id], ["u1", "l1"])


@pytest.mark.parametrize("turns", range(0, 24, 2))
async def test_a_client_that_hangs_up_during_the_end_has_ended_it(turns: int, tmp_path: Path) -> None:
    async with open_world(tmp_path / "tarazu.db") as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 10_000)
        session_id = await world.begin()
        await world.advance(7)
        call = asyncio.ensure_future(end(world, session_id, "u1")())
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await world.idle()
        session = await world.sessions.get(session_id)
        assert session.status is (Status.ENDED if turns > 1 else session.status)
        await check_sessions(world, [session_id], ["u1", "l1"])


async def test_an_account_is_disabled_while_its_sessions_end_by_themselves(tmp_path: Path) -> None:
    async with open_world(tmp_path / "tarazu.db") as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 10_000)
        await world.consultations.end_for_account("u1")  # in no session: nothing to end
        for number in range(6):
            session_id = await world.begin()
            await world.advance(5)
            person = "u1" if number % 2 else "l1"
            disable = partial(world.consultations.end_for_account, person)
            calls: list[Callable[[], Awaitable[Any]]] = [disable, end(world, session_id, "l1")]
            results = await all_at_once(calls if number < 3 else calls[::-1])
            assert not [result for result in results if isinstance(result, Exception)]
            session = await world.sessions.get(session_id)
            assert session.end_reason in (EndReason.ACCOUNT_DISABLED, EndReason.LAWYER_ENDED)
            assert session.total_minor == 500
            await check_sessions(world, [session_id], ["u1", "l1"])
        assert world.heard.names().count("session:ended") == 6


# -- a recharge against the forced end --------------------------------------------------------------------------------


@pytest.mark.parametrize("recharge_first", [True, False])
@pytest.mark.parametrize("turns", [*range(8), 10, 13, 17, 22, 28, 35, 50, None])
async def test_a_recharge_in_the_instant_of_the_forced_end_is_served_or_kept(
    turns: int | None, recharge_first: bool, tmp_path: Path
) -> None:
    """`turns` of the event loop lie between the two (None: the first is stored before the second begins)."""
    async with open_world(tmp_path / "tarazu.db") as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 6_000)
        session_id = await world.begin()
        started_ms = world.clock.now_ms()
        await world.advance(59.999)
        world.clock.jump_ms(1)

        async def later(act: Callable[[], Awaitable[None]]) -> None:
            for _ in range(turns or 0):
                await asyncio.sleep(0)
            await act()

        acts: list[Callable[[], Awaitable[None]]] = [
            lambda: world.recharge("u1", 1_000),
            lambda: world.advance(0),
        ]
        first, second = acts if recharge_first else acts[::-1]
        if turns is None:
            await first()
            await second()
        else:
            assert await all_at_once([first, lambda: later(second)]) == [None, None]
        await world.idle()
        session = await world.sessions.get(session_id)
        if turns is None:
            assert (session.status is Status.ACTIVE) == recharge_first
        if session.status is Status.ACTIVE:
            assert world.consultations.is_open(session_id)
            await world.advance(9.999)
            assert world.consultations.is_open(session_id)
            await world.advance(0.001)
            session = await world.sessions.get(session_id)
            assert (session.total_minor, session.ended_at_ms) == (7_000, started_ms + 70_000)
        else:
            assert (session.total_minor, session.ended_at_ms) == (6_000, started_ms + 60_000)
        assert session.end_reason is EndReason.WALLET_EMPTY
        assert [row.event for row in await world.consultations.timeline(session_id)] == ["start", "end"]
        assert (await world.wallets.balance("u1")).spendable_minor == 7_000 - session.total_minor
        assert world.heard.names().count("session:ended") == 1
        await check_sessions(world, [session_id], ["u1", "l1"])


async def test_recharges_and_ends_in_storms_lose_no_paisa(tmp_path: Path) -> None:
    async with open_world(tmp_path / "tarazu.db") as world:
        world.lawyers.add("l1", 6_000)
        recharged = 0
        ids = []
        for _ in range(10):
            await world.recharge("u1", 6_000)
            recharged += 6_000
            ids.append(session_id := await world.begin())
            await world.advance(30)
            calls = [lambda: world.recharge("u1", 100)] * 20
            calls.insert(10, end(world, session_id, "l1"))  # type: ignore[arg-type]  # another result
            await all_at_once(calls)
            recharged += 2_000
        sessions = await check_sessions(world, ids, ["u1", "l1"])
        assert await world.ledger.balance(wallet_of("u1"), "INR") == recharged - sum(
            s.total_minor for s in sessions
        )
        assert {session.total_minor for session in sessions} == {3_000}


async def test_a_lock_whose_release_was_lost_keeps_nobody_out(tmp_path: Path) -> None:
    """Redis was away when the session ended: its people would be busy for the lock's whole minute."""
    outage = Outage(StoreUnavailable, only=lambda label: label == "locks.release")
    async with open_world(tmp_path / "tarazu.db", wrap=outage.wrap) as world:
        world.lawyers.add("l1")
        await world.recharge("u1", 100_000)
        first = await world.begin()
        outage.failing = True
        await world.consultations.end(first, caller_id="u1")
        outage.failing = False
        assert await world.locks.holder("lock:lawyer:l1") == first
        second = await world.begin()
        await check_sessions(world, [first, second], ["u1", "l1"])
        # One that is in use still refuses, and so does one whose session is only about to be recorded.
        await world.recharge("u2", 100_000)
        world.lawyers.add("l2")
        await world.locks.acquire(("lock:lawyer:l2",), "somebody who starts")
        for lawyer_id in ("l1", "l2"):
            with pytest.raises(LawyerBusy):
                await world.begin("u2", lawyer_id)


# -- two processes, one session ---------------------------------------------------------------------------------------


@asynccontextmanager
async def two_worlds(
    tmp_path: Path, *, wrap: Callable[[str, Any], Any] = lambda _, port: port, funds: int = 100_000
) -> AsyncIterator[tuple[World, World, str]]:
    """The first bills a session (its ports wrapped) and is frozen for 5 s; the second has just adopted it."""
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(
            open_database(tmp_path / "tarazu.db", SqliteOptions(synchronous="OFF"))
        )
        clock = ManualClock()
        first = await a_process(db, clock, wrap)
        stack.push_async_callback(first.crash)
        await first.recharge("u1", funds)
        session_id = await first.begin()
        await advance([first], 12)
        clock.jump_ms(5_000)
        second = await a_process(db, clock)
        stack.push_async_callback(second.stop)
        assert second.engine.is_live(session_id)
        yield first, second, session_id


async def a_process(
    db: SqliteDatabase, clock: ManualClock, wrap: Callable[[str, Any], Any] = lambda _, port: port
) -> World:
    world = await World(db, clock, Rules()).build(wrap)
    world.lawyers.add("l1", 6_000)
    await world.start()
    return world


async def advance(worlds: Sequence[World], seconds: float) -> None:
    async def idle() -> None:
        for world in [*worlds, *worlds]:
            await world.idle()

    await worlds[0].clock.advance_ms(round(seconds * 1000), idle=idle)


async def hold_of(world: World, session_id: str) -> Any:
    account = await world.ledger.account(wallet_of("u1"), "INR")
    return account.holds[f"consult:{session_id}"]


async def test_a_former_owner_is_refused_and_lets_go(tmp_path: Path) -> None:
    """Two processes that both tick would hold twice; one that goes on after it was replaced would bill the pause."""
    async with two_worlds(tmp_path) as (first, second, session_id):
        adopted = await hold_of(second, session_id)
        assert (adopted.epoch, adopted.owner) == (2, second.consultations.owner)
        first.heard.events.clear()
        await advance([first, second], 3)  # the grid's next tick, for both
        assert not first.engine.is_live(session_id)
        assert first.engine.live_count == 0
        assert not first.consultations.is_open(session_id)
        assert first.heard.names() == []
        assert second.consultations.is_open(session_id)
        held = await hold_of(second, session_id)
        assert (held.epoch, held.owner, held.n) == (2, second.consultations.owner, adopted.n + 1)
        await advance([first, second], 10)
        view = await second.consultations.end(session_id, caller_id="u1")
        # 10 s proven by the first, 7 s without anybody, then the second's.
        assert view.total_minor == 100 * (10 + 13)
        assert first.heard.names() == []
        assert second.heard.names().count("session:ended") == 1
        await check_sessions(second, [session_id], ["u1", "l1"])


async def test_a_former_owners_last_slice_at_its_stop_is_refused(tmp_path: Path) -> None:
    async with two_worlds(tmp_path) as (first, second, session_id):
        before = await hold_of(second, session_id)
        await first.engine.stop()
        assert await hold_of(second, session_id) == before


async def test_a_write_that_was_on_its_way_when_the_session_was_adopted_is_refused(tmp_path: Path) -> None:
    """A frozen owner decides on an old document; when it wakes, the version has moved and the fence is in its way."""
    outage = Outage(StoreUnavailable, only=lambda label: label == "ledger.commit_all")
    async with two_worlds(tmp_path, wrap=outage.wrap) as (first, second, session_id):
        before = await hold_of(second, session_id)
        outage.hang()
        first.engine.recharged("u1")  # decides its next slice now, and hangs before it commits
        await first.idle()
        assert outage.seen
        outage.over()
        await first.idle()
        assert await hold_of(second, session_id) == before
        assert first.engine.live_count == 0


async def test_a_former_owner_cannot_cut_off_what_the_next_one_serves(tmp_path: Path) -> None:
    """For the first, the money ends at 70 s; the pause that the second has recorded moves that to 77 s."""
    async with two_worlds(tmp_path, funds=7_000) as (first, second, session_id):
        assert first.engine.is_live(session_id)
        await advance([first, second], 70 - 17 + 6.999)
        assert second.consultations.is_open(session_id)
        await advance([first, second], 0.001)
        session = await second.sessions.get(session_id)
        assert (session.end_reason, session.total_minor) == (EndReason.WALLET_EMPTY, 7_000)
        await check_sessions(second, [session_id], ["u1", "l1"])


async def test_a_party_may_end_it_through_a_process_that_does_not_own_it(tmp_path: Path) -> None:
    async with two_worlds(tmp_path) as (first, second, session_id):
        await advance([second], 2)
        view = await first.consultations.end(session_id, caller_id="l1")
        await advance([first, second], 30)
        assert second.engine.live_count == 0
        assert first.engine.live_count == 0
        again = await second.consultations.end(session_id, caller_id="u1")
        assert again.session == view.session
        assert [*first.heard.names(), *second.heard.names()].count("session:ended") == 1
        await check_sessions(second, [session_id], ["u1", "l1"])


async def test_of_two_processes_that_adopt_at_once_one_bills(tmp_path: Path) -> None:
    async with open_database(tmp_path / "tarazu.db", SqliteOptions(synchronous="OFF")) as db:
        clock = ManualClock()
        first = await a_process(db, clock)
        await first.recharge("u1", 100_000)
        session_id = await first.begin()
        await advance([first], 12)
        await first.crash()
        clock.jump_ms(5_000)
        others = [await World(db, clock, Rules()).build() for _ in range(4)]
        await asyncio.gather(*(world.start() for world in others))
        await advance(others, 25)
        owners = [world for world in others if world.engine.is_live(session_id)]
        assert len(owners) == 1
        assert sum(len(world.heard.names()) for world in others if world is not owners[0]) == 0
        view = await owners[0].consultations.end(session_id, caller_id="u1")
        assert view.total_minor == 100 * (10 + 25)
        await check_sessions(owners[0], [session_id], ["u1", "l1"])
        for world in others:
            await world.stop()


async def test_who_finds_a_session_abandoned_does_not_end_one_that_was_just_adopted(tmp_path: Path) -> None:
    """Clocks differ: for one process 121 s have passed, for the other 119."""
    async with open_database(tmp_path / "tarazu.db", SqliteOptions(synchronous="OFF")) as db:
        clock = ManualClock()
        first = await a_process(db, clock)
        await first.recharge("u1", 100_000)
        session_id = await first.begin()
        await advance([first], 10)
        await first.crash()
        outage = Outage(StoreUnavailable, only=lambda label: label == "ledger.commit_all")
        late = await World(db, ManualClock(clock.now_ms() + 121_000), Rules()).build(outage.wrap)
        outage.hang()
        starting = asyncio.ensure_future(late.start())
        await late.idle()
        assert outage.seen
        clock.jump_ms(119_000)
        second = await a_process(db, clock)
        assert second.engine.is_live(session_id)
        outage.over()
        await starting
        assert (await second.sessions.get(session_id)).status is Status.ACTIVE
        await advance([second], 20)
        assert (await second.consultations.end(session_id, caller_id="u1")).total_minor == 100 * (10 + 20)
        await late.stop()
        await second.stop()


async def test_a_start_that_another_process_began_is_not_billed_under_its_name(tmp_path: Path) -> None:
    """The first died with the hold open; the client asks again at a process that did not recover it."""
    outage = Outage(StoreUnavailable, only=lambda label: label == "sessions.move")
    async with open_database(tmp_path / "tarazu.db", SqliteOptions(synchronous="OFF")) as db:
        clock = ManualClock()
        second = await a_process(db, clock)
        first = await a_process(db, clock, outage.wrap)
        await first.recharge("u1", 100_000)
        outage.failing = True
        with pytest.raises(BillingError):
            await start(first, "u1", "l1", "s1")()
        await first.crash()
        with pytest.raises(StartAborted):
            await start(second, "u1", "l1", "s1")()
        await check_sessions(second, ["s1"], ["u1", "l1"])
        await start(second, "u1", "l1", "s2")()
        await second.stop()


@pytest.mark.parametrize("cleanly", [True, False])
async def test_a_session_taken_up_in_the_very_millisecond_of_its_last_evidence_keeps_its_bill(
    cleanly: bool, tmp_path: Path
) -> None:
    """Another node's clock may run ahead: its message is then no older than our taking over, and there is no gap to record."""
    clock = ManualClock()
    async with open_world(tmp_path / "tarazu.db", clock=clock) as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 100_000)
        session_id = await world.begin()
        await world.advance(12)
        if not cleanly:
            await world.crash()

    def chat_knows(world: World) -> None:
        world.rooms.evidence[session_id] = clock.now_ms() + 500

    async with open_world(tmp_path / "tarazu.db", clock=clock, prepare=chat_knows) as world:
        await world.advance(3)
        assert world.consultations.is_open(session_id)
        assert [row.event for row in await world.consultations.timeline(session_id)] == ["start"]
        assert (await world.consultations.end(session_id, caller_id="u1")).total_minor == 1_500


async def test_a_late_giving_back_leaves_a_session_alone_that_has_begun(tmp_path: Path) -> None:
    """A reaper that looked before the start came through must not free the two people who are talking."""
    async with open_world(tmp_path / "tarazu.db") as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 100_000)
        session_id = await world.begin()
        session = await world.sessions.get(session_id)
        await world.consultations.give_back(replace(session, status=Status.STARTING))
        await check_sessions(world, [session_id], ["u1", "l1"])
        assert world.consultations.is_open(session_id)


async def test_billing_begins_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    async with open_world(tmp_path / "tarazu.db") as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 100_000)
        session_id = await world.begin()
        live = world.engine._live[session_id]
        world.engine.launch(live.session, live.bill, announce="session:started")
        assert world.engine._live[session_id] is live
        assert world.heard.names() == ["session:started"]
