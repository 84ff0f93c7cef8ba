"""A store that fails, hangs or loses its answers while sessions run: what nobody could use is on nobody's bill.

Numbers: 100 paise a second, a tick every 10 s, 3 s of lead. A slice taken at the start pays 13 s.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from billing_engine.consultations.model import EndReason, Session, Status
from billing_engine.errors import Unavailable
from billing_engine.ledger.accounts import earnings_of
from server.storage.errors import StoreUnavailable
from tests.support.consult import World, open_world
from tests.support.consult_checks import check_sessions
from tests.support.faults import Outage
from tests.support.manual_clock import ManualClock

TROUBLES = ("fails", "loses an answer and fails", "hangs")
LOST = TROUBLES[1]


@dataclass
class Scene:
    """A running session, 5 s old, and the switch of its store."""

    world: World
    outage: Outage
    session_id: str
    started_ms: int

    async def go_to(self, second: float) -> None:
        """Advance to so many seconds after the start."""
        await self.world.advance(second - (self.world.clock.now_ms() - self.started_ms) / 1000)

    def begin(self, trouble: str) -> None:
        if trouble == "hangs":
            self.outage.hang()
        else:
            self.outage.failing, self.outage.lost_answers = True, int(trouble == LOST)

    def over(self) -> None:
        self.outage.over()

    async def end(self, caller_id: str = "u1") -> int:
        """What it cost in the end, by a party's end."""
        view = await self.world.consultations.end(self.session_id, caller_id=caller_id)
        return view.total_minor

    async def timeline(self) -> list[tuple[float, str, str | None]]:
        rows = await self.world.consultations.timeline(self.session_id)
        return [((row.at_ms - self.started_ms) / 1000, row.event, row.reason) for row in rows]

    async def record(self) -> Session:
        session: Session | None = await self.world.sessions.get(self.session_id)
        assert session is not None
        return session

    async def books(self) -> None:
        await check_sessions(self.world, [self.session_id], ["u1", "u2", "l1", "l2"])


@asynccontextmanager
async def a_scene(
    tmp_path: Path, *, funds: int = 100_000, only: str = "ledger.commit"
) -> AsyncIterator[Scene]:
    outage = Outage(StoreUnavailable, only=lambda label: label.startswith(only))
    async with open_world(tmp_path / "tarazu.db", clock=ManualClock(), wrap=outage.wrap) as world:
        world.lawyers.add("l1", 6_000)
        world.lawyers.add("l2", 6_000)
        await world.recharge("u1", funds)
        await world.recharge("u2", 100_000)
        scene = Scene(world, outage, await world.begin(), world.clock.now_ms())
        await scene.go_to(5)
        try:
            yield scene
        finally:
            scene.over()


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_the_gate_shuts_at_paid_until_and_the_shut_time_is_a_pause(
    trouble: str, tmp_path: Path
) -> None:
    """Served to the last paid second, not one unpaid; and the user does not pay for what he could not use."""
    async with a_scene(tmp_path) as scene:
        scene.begin(trouble)
        await scene.go_to(12.999)
        assert scene.world.consultations.is_open(scene.session_id)
        await scene.go_to(13)
        assert not scene.world.consultations.is_open(scene.session_id)
        await scene.go_to(40)
        assert not scene.world.consultations.is_open(scene.session_id)
        assert scene.outage.seen
        scene.over()
        await scene.go_to(40.5)
        assert scene.world.consultations.is_open(scene.session_id)
        await scene.go_to(50.5)
        rows = await scene.timeline()
        assert rows[:2] == [(0.0, "start", None), (13.0, "pause", "STORE_DOWN")]
        resumed_s = rows[-1][0]
        assert 40 <= resumed_s <= 40.25
        assert rows[-1][1:] == ("resume", "STORE_DOWN")
        assert await scene.end() == 100 * int(13 + 50.5 - resumed_s)
        await scene.books()
        totals = [event.view.total_minor for event in scene.world.heard.events]
        assert totals == sorted(totals), "what was shown as used was taken back"


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_a_trouble_that_is_over_before_paid_until_leaves_no_trace(trouble: str, tmp_path: Path) -> None:
    async with a_scene(tmp_path) as scene:
        scene.begin(trouble)
        await scene.go_to(12.5)
        scene.over()
        await scene.go_to(20)
        assert await scene.timeline() == [(0.0, "start", None)]
        assert await scene.end() == 2_000


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("back_s", [13 + 119.5, 13 + 121])
async def test_after_abandon_seconds_the_session_ends_where_the_gate_shut(
    trouble: str, back_s: float, tmp_path: Path
) -> None:
    async with a_scene(tmp_path) as scene:
        scene.begin(trouble)
        await scene.go_to(back_s)
        scene.over()
        await scene.go_to(back_s + 0.5)
        session = await scene.record()
        if back_s < 133:
            assert session.status is Status.ACTIVE
            assert scene.world.consultations.is_open(scene.session_id)
        else:
            assert (session.status, session.end_reason) == (Status.FORCE_ENDED, EndReason.ABANDONED)
            assert (session.duration_s, session.total_minor) == (13, 1_300)
            assert scene.world.heard.names().count("session:ended") == 1
        await scene.books()


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("second", [8, 20])
async def test_an_end_while_the_gate_is_shut_bills_to_the_gate(
    trouble: str, second: int, tmp_path: Path
) -> None:
    """At 8 s the session is served, at 20 s it is shut since 13."""
    async with a_scene(tmp_path) as scene:
        if second == 20:
            scene.begin(trouble)
        await scene.go_to(second)
        scene.begin(trouble)
        ending = asyncio.ensure_future(scene.end())
        await scene.world.idle()
        if trouble != "hangs":
            with pytest.raises(Unavailable):
                await ending
            scene.over()
            ending = asyncio.ensure_future(scene.end("l1"))
        else:
            await scene.world.advance(30)
            scene.over()
        assert await ending == 100 * min(second, 13)
        await scene.world.idle()
        first = await scene.record()
        who = EndReason.LAWYER_ENDED if trouble == "fails" else EndReason.USER_ENDED
        if trouble == LOST and second == 20:
            who = first.end_reason if first.end_reason is not None else who  # the first end that took effect
        assert first.end_reason is who
        assert await scene.end() == await scene.end("l1") == first.total_minor
        assert scene.world.heard.names().count("session:ended") == 1
        await scene.books()


async def test_an_end_whose_answer_was_lost_is_final_though_nobody_asks_again(tmp_path: Path) -> None:
    """The client that got a 503 and went away must not keep the lawyer busy, and the first outcome stands."""
    async with a_scene(tmp_path) as scene:
        scene.begin(LOST)
        with pytest.raises(Unavailable):
            await scene.end()
        scene.over()
        await scene.go_to(30)
        session = await scene.record()
        assert (session.end_reason, session.total_minor) == (EndReason.USER_ENDED, 500)
        assert scene.world.heard.names().count("session:ended") == 1
        await scene.books()


async def test_the_cut_off_waits_for_the_store_and_bills_to_the_last_paid_second(tmp_path: Path) -> None:
    async with a_scene(tmp_path, funds=6_050) as scene:
        await scene.go_to(59)
        scene.begin("fails")
        await scene.go_to(75)
        assert not scene.world.consultations.is_open(scene.session_id)
        assert (await scene.record()).status is Status.ACTIVE
        scene.over()
        await scene.go_to(75.5)
        session = await scene.record()
        assert (session.end_reason, session.duration_s) == (EndReason.WALLET_EMPTY, 60)
        assert session.ended_at_ms == scene.started_ms + 60_000
        await scene.books()


async def test_a_recharge_during_the_outage_of_a_session_without_money_is_served_after_it(
    tmp_path: Path,
) -> None:
    """The cut-off is due at 60 s but the store is away; the recharge is the first write that it takes again."""
    async with a_scene(tmp_path, funds=6_000) as scene:
        await scene.go_to(59)
        scene.begin("fails")
        await scene.go_to(70)
        scene.over()
        await scene.world.recharge("u1", 6_000)
        await scene.go_to(71)
        assert scene.world.consultations.is_open(scene.session_id)
        rows = await scene.timeline()
        assert [row[1] for row in rows] == ["start", "pause", "resume"]
        assert rows[1] == (60.0, "pause", "STORE_DOWN")
        await scene.go_to(200)
        session = await scene.record()
        assert (session.end_reason, session.duration_s, session.total_minor) == (
            EndReason.WALLET_EMPTY,
            120,
            12_000,
        )
        await scene.books()


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_one_outage_after_the_other_bills_what_was_open_between(times: int, tmp_path: Path) -> None:
    async with a_scene(tmp_path) as scene:
        for _ in range(times):
            scene.begin(LOST)
            await scene.world.advance(30)
            scene.begin("hangs")
            await scene.world.advance(10)
            scene.over()
            await scene.world.advance(7)
        rows = await scene.timeline()
        open_ms = 0.0
        opened = True
        total = await scene.end()
        rows = await scene.timeline()
        opened_at = rows[0][0]
        for at_s, event, reason in rows[1:]:
            if event in ("pause", "end") and opened:
                open_ms += at_s - opened_at
            opened, opened_at = event == "resume", at_s
            assert event == "end" or reason == "STORE_DOWN"
        assert total == 100 * int(open_ms + 1e-9)
        await scene.books()


async def test_a_crash_in_an_outage_bills_to_the_last_evidence(tmp_path: Path) -> None:
    clock = ManualClock()
    outage = Outage(StoreUnavailable, only=lambda label: label.startswith("ledger.commit"))
    async with open_world(tmp_path / "tarazu.db", clock=clock, wrap=outage.wrap) as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 100_000)
        session_id = await world.begin()
        await world.advance(12)
        outage.failing = True
        await world.advance(60)
        await world.crash()
    clock.jump_ms(3_000)
    async with open_world(tmp_path / "tarazu.db", clock=clock) as world:
        view = await world.consultations.end(session_id, caller_id="u1")
        assert view.total_minor == 1_000  # the tick at 10 s is the last proof
        assert await world.ledger.balance(earnings_of("l1"), "INR") == 1_000
        await check_sessions(world, [session_id], ["u1", "l1"])


@pytest.mark.parametrize("trouble", ["fails", LOST])
@pytest.mark.parametrize("port", ["sessions.move", "timeline.add", "claims.release", "rooms.close"])
async def test_what_follows_an_end_is_repeated_until_the_store_takes_it(
    port: str, trouble: str, tmp_path: Path
) -> None:
    async with a_scene(tmp_path, funds=6_000, only=port) as scene:
        await scene.go_to(59)
        scene.begin(trouble)
        await scene.go_to(63)
        assert not scene.world.consultations.is_open(scene.session_id)
        scene.over()
        await scene.go_to(64)
        session = await scene.record()
        assert (session.end_reason, session.total_minor) == (EndReason.WALLET_EMPTY, 6_000)
        assert scene.world.heard.names().count("session:ended") == 1
        await scene.books()


async def test_locks_that_do_not_answer_move_no_money(tmp_path: Path) -> None:
    async with a_scene(tmp_path, only="locks.") as scene:
        scene.begin("fails")
        session_id = await scene.world.begin("u2", "l2")
        await scene.go_to(25)
        assert scene.world.consultations.is_open(scene.session_id)
        assert scene.world.consultations.is_open(session_id)
        assert await scene.end() == 2_500
        await scene.world.consultations.end(session_id, caller_id="l2")
        await check_sessions(scene.world, [scene.session_id, session_id], ["u1", "u2", "l1", "l2"])


async def test_locks_that_hang_keep_nobody_waiting_for_the_news(tmp_path: Path) -> None:
    async with a_scene(tmp_path, only="locks.renew") as scene:
        scene.begin("hangs")
        await scene.go_to(10.2)
        assert scene.world.heard.names().count("session:tick") == 1
        scene.over()


async def start_second(scene: Scene) -> int:
    view = await scene.world.consultations.start(user_id="u2", lawyer_id="l2", operation_id="s2")
    return view.total_minor


@pytest.mark.parametrize("port", ["sessions.move", "ledger.commit"])
async def test_a_start_that_hangs_is_billed_from_the_moment_it_is_served(port: str, tmp_path: Path) -> None:
    """Its hold may be open for long before its user hears of it: that time was not served."""
    async with a_scene(tmp_path, only=port) as scene:
        scene.begin("hangs")
        starting = asyncio.ensure_future(start_second(scene))
        await scene.world.advance(8)
        assert not scene.world.consultations.is_open("s2")
        scene.over()
        await starting
        await scene.world.advance(0)
        assert scene.world.consultations.is_open("s2")
        await scene.world.advance(10)
        assert (await scene.world.consultations.end("s2", caller_id="l2")).total_minor == 1_000
        await check_sessions(scene.world, [scene.session_id, "s2"], ["u1", "u2", "l1", "l2"])


@pytest.mark.parametrize("again", [True, False], ids=["asked again", "never asked again"])
@pytest.mark.parametrize("trouble", ["fails", LOST])
@pytest.mark.parametrize("port", ["sessions.move", "ledger.commit", "claims.take", "sessions.add"])
async def test_a_start_that_nobody_knows_of_goes_on_or_is_given_back(
    port: str, trouble: str, again: bool, tmp_path: Path
) -> None:
    """A lawyer who is claimed by a start that came to nothing earns nothing until the next deploy."""
    async with a_scene(tmp_path, only=port) as scene:
        scene.begin(trouble)
        with pytest.raises(Unavailable):
            await start_second(scene)
        scene.over()
        await scene.world.advance(2)
        if again:
            await start_second(scene)
            assert scene.world.engine.is_live("s2")
        await scene.world.advance(6)
        await check_sessions(scene.world, [scene.session_id, "s2"], ["u1", "u2", "l1", "l2"])
        session = await scene.world.sessions.get("s2")
        if again or (trouble == LOST and port == "sessions.move"):
            assert session.status is Status.ACTIVE
            assert scene.world.heard.names("s2").count("session:started") == 1
            view = await scene.world.consultations.end("s2", caller_id="u2")
            assert view.total_minor <= 600
        else:
            assert session is None or session.status is Status.ABORTED
            assert await scene.world.begin("u2", "l2")
