"""Several processes on one store, each with a clock of its own: a clock that does not move is a process that is frozen."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from billing_engine.consultations.billing import hold_id_of
from billing_engine.consultations.model import EndReason, Session, Status
from billing_engine.consultations.rules import Rules
from billing_engine.consultations.takeover import SWEEP_MS, WEB, WORKER
from billing_engine.errors import Unavailable
from billing_engine.ledger.accounts import wallet_of
from server.storage.errors import StoreUnavailable
from server.storage.sqlite.engine import SqliteDatabase, SqliteOptions, open_database
from tests.support.consult import World
from tests.support.consult_checks import check_sessions
from tests.support.faults import Fuse, Moment, Outage
from tests.support.manual_clock import ManualClock
from tests.support.sockets import Sockets

RULES = Rules()
#: A dead process is noticed and replaced within two seconds of its last beat.
TAKEOVER_S = 2.0


class Relay:
    """Hints between the processes of a test; `lost` ones never arrive."""

    def __init__(self) -> None:
        self.worlds: list[World] = []
        self.lost = False

    def recharged(self, user_id: str) -> None:
        for world in self._hearing():
            world.engine.heard_recharged(user_id)

    def ended(self, session_id: str) -> None:
        for world in self._hearing():
            world.engine.heard_ended(session_id)

    def paused_or_resumed(self, session_id: str) -> None:
        for world in self._hearing():
            world.elsewhere.forget(session_id)

    def _hearing(self) -> list[World]:
        return [] if self.lost else [world for world in self.worlds if not world.crashed]


class Deployment:
    """Processes that come and go on one file."""

    def __init__(self, db: SqliteDatabase) -> None:
        self.db = db
        self.relay = Relay()
        self.worlds: list[World] = []
        self._time = ManualClock()
        #: Who is connected anywhere, as all of them know it.
        self.sockets = Sockets(self._time)

    async def process(self, role: str = WEB, *, fuse: Fuse | Outage | None = None) -> World:
        clock = ManualClock(self._time.now_ms())
        world = World(self.db, clock, RULES, role=role, peers=self.relay)
        world.sockets = self.sockets
        await world.build(fuse.wrap if fuse is not None else lambda _, port: port)
        for number in range(1, 60):
            world.lawyers.add(f"l{number}", 6_000)
        await world.start()
        self.worlds.append(world)
        self.relay.worlds.append(world)
        return world

    async def advance(self, seconds: float, *, frozen: Sequence[World] = ()) -> None:
        """Time passes for all but the frozen ones, in steps, so that nobody's second comes long before another's."""
        left_ms = round(seconds * 1000)
        while left_ms > 0:
            step_ms = min(100, left_ms)
            left_ms -= step_ms
            self._time.jump_ms(step_ms)
            for world in self.running(frozen):
                await world.clock.advance_ms(step_ms, idle=self.idle)

    def wake(self, world: World) -> None:
        """The frozen one finds that it is later than it thought."""
        world.clock.jump_ms(self._time.now_ms() - world.clock.now_ms())

    def running(self, frozen: Sequence[World] = ()) -> list[World]:
        return [world for world in self.worlds if not world.crashed and world not in frozen]

    async def idle(self) -> None:
        for world in [*self.running(), *self.running()]:
            await world.idle()

    def owner_of(self, session_id: str) -> World:
        (owner,) = [world for world in self.running() if world.engine.is_live(session_id)]
        return owner

    async def close(self) -> None:
        for world in self.running():
            await world.stop()


@asynccontextmanager
async def deployment(path: Path) -> AsyncIterator[Deployment]:
    async with open_database(path / "tarazu.db", SqliteOptions(synchronous="OFF")) as db:
        them = Deployment(db)
        try:
            yield them
        finally:
            await them.close()


async def hold_of(world: World, session_id: str, user_id: str = "u1") -> Any:
    account = await world.ledger.account(wallet_of(user_id), "INR")
    return account.holds[hold_id_of(session_id)]


async def pauses_of(world: World, session_id: str) -> list[tuple[str | None, int]]:
    """Reason and length in milliseconds of each pause that is over."""
    rows = await world.consultations.timeline(session_id)
    return [
        (row.reason, after.at_ms - row.at_ms)
        for row, after in itertools.pairwise(rows)
        if row.event == "pause" and after.event == "resume"
    ]


async def test_a_dead_process_is_noticed_and_its_session_goes_on_elsewhere(tmp_path: Path) -> None:
    async with deployment(tmp_path) as them:
        first, second = await them.process(), await them.process()
        await first.recharge("u1", 100_000)
        session_id = await first.begin()
        await them.advance(12)
        await first.crash()
        await them.advance(TAKEOVER_S)
        assert second.engine.is_live(session_id)
        held = await hold_of(second, session_id)
        assert (held.epoch, held.owner) == (2, second.consultations.owner)
        ((reason, length_ms),) = await pauses_of(second, session_id)
        # Since the last tick, of the tenth second: nothing else proves that it was served until the death.
        assert reason == "SERVER"
        assert 2_000 < length_ms <= 2_000 + TAKEOVER_S * 1000
        await them.advance(10)
        view = await second.consultations.end(session_id, caller_id="u1")
        assert view.total_minor == 100 * view.duration_s
        assert view.duration_s == (12_000 + round(TAKEOVER_S * 1000) + 10_000 - length_ms) // 1000
        assert await second.leases.all() == [
            (second.consultations.owner, *(await second.leases.all())[0][1:])
        ]
        await check_sessions(second, [session_id], ["u1", "l1"])


async def test_an_adoption_whose_answer_is_lost_is_found_at_once(tmp_path: Path) -> None:
    """The hold has its name on it, and nobody else looks for it any more."""
    async with deployment(tmp_path) as them:
        outage = Outage(StoreUnavailable, only="ledger.commit_all".__eq__)
        first, second = await them.process(), await them.process(fuse=outage)
        await first.recharge("u1", 100_000)
        session_id = await first.begin()
        await them.advance(12)
        await first.crash()
        outage.failing, outage.lost_answers = True, 1
        while not outage.seen:
            await them.advance(0.1)
        outage.over()
        assert not second.engine.is_live(session_id)
        assert (await hold_of(second, session_id)).owner == second.consultations.owner
        await them.advance(0.5)
        assert second.engine.is_live(session_id)
        await second.consultations.end(session_id, caller_id="u1")
        await check_sessions(second, [session_id], ["u1", "l1"])


async def test_nobody_takes_what_a_living_process_bills(tmp_path: Path) -> None:
    async with deployment(tmp_path) as them:
        first, second = await them.process(), await them.process()
        await first.recharge("u1", 100_000)
        session_id = await first.begin()
        await them.advance(2 * SWEEP_MS / 1000)
        assert them.owner_of(session_id) is first
        assert (await hold_of(first, session_id)).epoch == 1
        assert second.engine.live_count == 0
        third = await them.process()
        await them.advance(5)
        assert third.engine.live_count == 0
        assert them.owner_of(session_id) is first


@pytest.mark.parametrize("frozen_s", [1.9, 5.0, 60.0])
async def test_a_frozen_owner_that_wakes_is_refused_and_lets_go(tmp_path: Path, frozen_s: float) -> None:
    """Two that bill would bill twice; and what it still believes must not be told to anybody."""
    async with deployment(tmp_path) as them:
        first, second = await them.process(), await them.process()
        await first.recharge("u1", 100_000)
        session_id = await first.begin()
        await them.advance(12)
        first.heard.events.clear()
        await them.advance(frozen_s, frozen=[first])
        assert second.engine.is_live(session_id)
        before = await hold_of(second, session_id)
        them.wake(first)
        await them.advance(0.3)
        assert not first.engine.is_live(session_id)
        assert first.engine.let_go == 1
        assert first.heard.names() == []
        after = await hold_of(second, session_id)
        assert (after.epoch, after.owner) == (before.epoch, before.owner)
        # It is a process like any other again, and takes over when the other one dies.
        await them.advance(5)
        await second.crash()
        await them.advance(TAKEOVER_S)
        assert first.engine.is_live(session_id)
        view = await first.consultations.end(session_id, caller_id="l1")
        assert view.total_minor == 100 * view.duration_s
        await check_sessions(first, [session_id], ["u1", "l1"])


async def test_an_observer_that_was_frozen_robs_nobody(tmp_path: Path) -> None:
    async with deployment(tmp_path) as them:
        first, second = await them.process(), await them.process()
        await first.recharge("u1", 100_000)
        session_id = await first.begin()
        await them.advance(5)
        await them.advance(30, frozen=[second])
        them.wake(second)
        # The first has no chance to beat before the second looks.
        await second.clock.advance_ms(RULES.beat_ms, idle=them.idle)
        await them.advance(5)
        assert them.owner_of(session_id) is first
        assert (await hold_of(first, session_id)).epoch == 1


async def test_the_survivors_share_what_the_dead_one_left(tmp_path: Path) -> None:
    async with deployment(tmp_path) as them:
        first, *others = [await them.process() for _ in range(4)]
        ids = []
        for number in range(1, 41):
            await first.recharge(f"u{number}", 100_000)
            ids.append(await first.begin(f"u{number}", f"l{number}"))
        await them.advance(3)
        await first.crash()
        await them.advance(TAKEOVER_S)
        shares = [world.engine.live_count for world in others]
        assert sum(shares) == 40
        assert min(shares) > 0, shares
        for number, session_id in enumerate(ids, 1):
            owner = them.owner_of(session_id)
            held = await hold_of(owner, session_id, f"u{number}")
            assert (held.epoch, held.owner) == (2, owner.consultations.owner), "adopted twice"


async def test_a_process_that_stops_hands_over_at_once(tmp_path: Path) -> None:
    async with deployment(tmp_path) as them:
        first, second = await them.process(), await them.process()
        await first.recharge("u1", 100_000)
        session_id = await first.begin()
        await them.advance(12.5)
        await first.stop()
        them.worlds.remove(first)
        await them.advance(0.3)
        assert second.engine.is_live(session_id)
        ((reason, length_ms),) = await pauses_of(second, session_id)
        assert (reason, length_ms <= 300) == ("SERVER", True), (
            "its last write proves that it served until its end"
        )
        assert "session:ended" not in [*first.heard.names(), *second.heard.names()]


async def test_a_half_begun_start_of_a_dead_process_is_given_back(tmp_path: Path) -> None:
    """Else its two people would be busy until somebody restarts something."""
    async with deployment(tmp_path) as them:
        fuse = Fuse(counting=False)
        first, second = await them.process(fuse=fuse), await them.process()
        await first.recharge("u1", 100_000)
        # It dies when the hold is open and the record still says STARTING.
        fuse.die_at("sessions.move", Moment.BEFORE)
        start = asyncio.ensure_future(
            first.consultations.start(user_id="u1", lawyer_id="l1", operation_id="s1")
        )
        await them.idle()
        await first.crash()
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        await them.advance(TAKEOVER_S)
        session = await second.sessions.get("s1")
        assert session.status is Status.ABORTED
        account = await second.ledger.account(wallet_of("u1"), "INR")
        assert (account.holds, account.spendable) == ({}, 100_000)
        await second.begin("u1", "l1")


async def test_a_start_that_somebody_is_giving_back_is_given_back_and_no_broken_session(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its hold was seen open, its record says ABORTED by now."""
    async with deployment(tmp_path) as them:
        fuse = Fuse(counting=False)
        first, second = await them.process(fuse=fuse), await them.process()
        await first.recharge("u1", 100_000)
        fuse.die_at("sessions.move", Moment.BEFORE)
        start = asyncio.ensure_future(
            first.consultations.start(user_id="u1", lawyer_id="l1", operation_id="s1")
        )
        await them.idle()
        await first.crash()
        session = await second.sessions.get("s1")
        aborted = replace(session, status=Status.ABORTED)
        assert await second.sessions.move("s1", expect=frozenset({Status.STARTING}), to=aborted)
        for _ in range(2):
            assert await second.recovery.take_up([aborted]) == 0
            account = await second.ledger.account(wallet_of("u1"), "INR")
            assert (account.holds, account.spendable) == ({}, 100_000)
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)


async def test_a_start_that_is_repeated_at_another_process_outlives_the_first(tmp_path: Path) -> None:
    """Its client has sent it again since nobody answered; what the dead process began is not given back under the living one's hands."""
    async with deployment(tmp_path) as them:
        fuse, outage = Fuse(counting=False), Outage(StoreUnavailable, only="rooms.open".__eq__)
        first, second = await them.process(fuse=fuse), await them.process(fuse=outage)
        await first.recharge("u1", 100_000)
        fuse.die_at("rooms.open", Moment.BEFORE)
        asked = {"user_id": "u1", "lawyer_id": "l1", "operation_id": "s1"}
        start = asyncio.ensure_future(first.consultations.start(**asked))
        await them.idle()
        await first.crash()
        outage.hang()
        again = asyncio.ensure_future(second.consultations.start(**asked))
        await them.advance(TAKEOVER_S)
        outage.over()
        assert (await again).status is Status.ACTIVE
        assert them.owner_of("s1") is second
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        await second.consultations.end("s1", caller_id="u1")
        await check_sessions(second, ["s1"], ["u1", "l1"])


async def test_a_close_that_nobody_settled_is_settled_by_the_sweep(tmp_path: Path) -> None:
    """The party ended it through a process that died between the money and the record, and the owner never heard of it."""
    async with deployment(tmp_path) as them:
        fuse = Fuse(counting=False)
        first, second, third = await them.process(), await them.process(fuse=fuse), await them.process()
        them.relay.lost = True
        await first.recharge("u1", 100_000)
        session_id = await first.begin()
        await them.advance(7)
        fuse.die_at("timeline.add", Moment.BEFORE)
        end = asyncio.ensure_future(second.consultations.end(session_id, caller_id="u1"))
        await them.idle()
        await second.crash()
        end.cancel()
        await asyncio.gather(end, return_exceptions=True)
        await first.crash()
        await them.advance(SWEEP_MS / 1000 + 1)
        session = await third.sessions.get(session_id)
        assert (session.status, session.end_reason, session.total_minor) == (
            Status.ENDED, EndReason.USER_ENDED, 700,
        )  # fmt: skip
        await check_sessions(third, [session_id], ["u1", "l1"])


@pytest.mark.parametrize("hints", ["arrive", "are lost"])
async def test_a_session_is_ended_through_a_process_that_does_not_bill_it(tmp_path: Path, hints: str) -> None:
    async with deployment(tmp_path) as them:
        first, second = await them.process(), await them.process()
        them.relay.lost = hints == "are lost"
        await first.recharge("u1", 100_000)
        session_id = await first.begin()
        await them.advance(7)
        view = await second.consultations.end(session_id, caller_id="l1")
        assert (view.status, view.total_minor) == (Status.ENDED, 700)
        await them.idle()
        # At once where it is told, else with the owner's next tick: a message is refused by the conversation either way.
        assert first.engine.is_live(session_id) == them.relay.lost
        await them.advance(4)
        assert first.engine.live_count == 0
        assert [*first.heard.names(), *second.heard.names()].count("session:ended") == 1
        assert (await first.consultations.end(session_id, caller_id="u1")).session == view.session
        await check_sessions(second, [session_id], ["u1", "l1"])


@pytest.mark.parametrize("hints", ["arrive", "are lost"])
async def test_a_recharge_through_another_process_extends_without_a_gap(tmp_path: Path, hints: str) -> None:
    async with deployment(tmp_path) as them:
        first, second = await them.process(), await them.process()
        them.relay.lost = hints == "are lost"
        await first.recharge("u1", 6_000)
        session_id = await first.begin()
        await them.advance(58)
        first.heard.events.clear()
        await second.recharge("u1", 3_000)
        await them.idle()
        assert ("session:recharged" in first.heard.names()) == (not them.relay.lost)
        await them.advance(20)
        assert first.engine.is_open(session_id)
        assert await pauses_of(first, session_id) == []
        await them.advance(13)
        session = await second.sessions.get(session_id)
        assert (session.end_reason, session.total_minor) == (EndReason.WALLET_EMPTY, 9_000)
        await check_sessions(first, [session_id], ["u1", "l1"])


async def test_who_does_not_bill_it_knows_whether_a_session_is_served(tmp_path: Path) -> None:
    async with deployment(tmp_path) as them:
        first, second = await them.process(), await them.process()
        await first.recharge("u1", 6_000)
        session_id = await first.begin()
        assert second.consultations.is_open(session_id) is None
        assert await second.consultations.look(session_id)
        assert second.consultations.is_open(session_id) is True
        assert not await second.consultations.look("another")
        await them.advance(30)
        # The slice that it had read is over: it does not guess, it asks.
        assert second.consultations.is_open(session_id) is None
        assert await second.consultations.look(session_id)
        await them.advance(31)
        assert not await second.consultations.look(session_id)
        assert second.consultations.is_open(session_id) is False


async def test_those_who_wait_for_the_answer_go_on_in_their_order(tmp_path: Path) -> None:
    """A message must not overtake the one before it because that one had to ask."""
    async with deployment(tmp_path) as them:
        first, second = await them.process(), await them.process()
        await first.recharge("u1", 6_000)
        session_id = await first.begin()
        done: list[int] = []

        async def send(number: int) -> None:
            if second.consultations.is_open(session_id) is None:
                await second.consultations.look(session_id)
            done.append(number)

        tasks = []
        for number in range(20):
            tasks.append(asyncio.create_task(send(number)))
            for _ in range(number % 3):
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert done == list(range(20))


async def test_those_who_wait_behind_an_answer_that_fails_fail_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message whose process could not ask is sent again; the one behind it must not be stored before that."""
    async with deployment(tmp_path) as them:
        first, second = await them.process(), await them.process()
        await first.recharge("u1", 6_000)
        session_id = await first.begin()
        true = second.sessions.get
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def fails_once(session_id: str) -> Session | None:
            if not answer.done():
                await answer
                raise Unavailable(session_id=session_id)
            return await true(session_id)

        monkeypatch.setattr(second.sessions, "get", fails_once)
        outcomes: list[str] = []

        async def send(number: int) -> None:
            try:
                if second.consultations.is_open(session_id) is None:
                    await second.consultations.look(session_id)
            except Unavailable:
                outcomes.append(f"{number} refused")
            else:
                outcomes.append(f"{number} stored")

        early = [asyncio.create_task(send(number)) for number in range(5)]
        await asyncio.sleep(0)
        answer.set_result(None)
        await asyncio.gather(*early)
        await asyncio.gather(*(send(number) for number in range(5)))
        assert outcomes == [f"{k} refused" for k in range(5)] + [f"{k} stored" for k in range(5)]


async def test_nobody_overtakes_those_who_wait_because_the_session_was_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deployment(tmp_path) as them:
        first, second = await them.process(), await them.process()
        await first.recharge("u1", 6_000)
        session_id = await first.begin()
        true = second.sessions.get
        held: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def slow_once(session_id: str) -> Session | None:
            monkeypatch.setattr(second.sessions, "get", true)
            await held
            return await true(session_id)

        monkeypatch.setattr(second.sessions, "get", slow_once)
        done: list[int] = []

        async def send(number: int) -> None:
            answer = second.consultations.is_open(session_id)
            assert await second.consultations.look(session_id) if answer is None else answer
            done.append(number)

        waiting = [asyncio.create_task(send(number)) for number in range(2)]
        await asyncio.sleep(0)
        await first.crash()
        await them.advance(5)
        assert second.engine.is_live(session_id)
        waiting += [asyncio.create_task(send(number)) for number in range(2, 4)]
        await asyncio.sleep(0)
        held.set_result(None)
        await asyncio.gather(*waiting)
        assert done == [0, 1, 2, 3]
        assert second.consultations.is_open(session_id) is True


async def test_a_worker_bills_nobody_and_ends_what_was_abandoned(tmp_path: Path) -> None:
    async with deployment(tmp_path) as them:
        first, worker = await them.process(), await them.process(WORKER)
        await first.recharge("u1", 100_000)
        session_id = await first.begin()
        await them.advance(12)
        await first.crash()
        await them.advance(RULES.abandon_ms / 1000 - 10)
        assert worker.engine.live_count == 0
        assert (await worker.sessions.get(session_id)).status is Status.ACTIVE
        await them.advance(10 + SWEEP_MS / 1000)
        session = await worker.sessions.get(session_id)
        assert (session.end_reason, session.total_minor) == (EndReason.ABANDONED, 1_000)
        await check_sessions(worker, [session_id], ["u1", "l1"])


async def test_a_process_started_after_the_last_one_died_takes_over_too(tmp_path: Path) -> None:
    """Nobody was there to watch: the new one watches the dead one's lease itself."""
    async with deployment(tmp_path) as them:
        first = await them.process()
        await first.recharge("u1", 100_000)
        session_id = await first.begin()
        await them.advance(12)
        await first.crash()
        await them.advance(20)
        second = await them.process()
        assert not second.engine.is_live(session_id)
        await them.advance(TAKEOVER_S)
        assert second.engine.is_live(session_id)
        assert len(await second.leases.all()) == 1
