"""A paid consultation on a real SQLite file: slices, cut-off, recharge, end, recovery."""

from pathlib import Path

import pytest

from billing_engine.consultations.errors import (
    InsufficientBalance,
    LawyerBusy,
    LawyerNotFound,
    LawyerNotVerified,
    LawyerOffline,
    MaxAmountTooSmall,
    SessionNotFound,
    UserBusy,
)
from billing_engine.consultations.meter import served_ms_of
from billing_engine.consultations.model import EndReason, Status
from billing_engine.consultations.rules import Rules
from billing_engine.ledger.accounts import REVENUE_CONSULTATIONS, earnings_of, wallet_of
from tests.support.consult import World, open_world
from tests.support.manual_clock import ManualClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tarazu.db"


async def balance(world: World, account_id: str) -> int:
    return await world.ledger.balance(account_id, "INR")


async def test_a_session_is_served_to_the_last_paid_second_and_then_ended(path: Path) -> None:
    async with open_world(path) as world:
        world.lawyers.add("l1", 6_000)  # 100 paise a second
        await world.recharge("u1", 9_050)  # 90.5 seconds
        session_id = await world.begin()
        started_ms = world.clock.now_ms()

        await world.advance(89.999)
        view = await world.consultations.get(session_id, caller_id="u1")
        assert (view.status, view.duration_s, view.remaining_s) == (Status.ACTIVE, 89, 1)
        assert world.consultations.is_open(session_id)

        await world.advance(0.001)
        assert not world.consultations.is_open(session_id)
        view = await world.consultations.get(session_id, caller_id="u1")
        assert view.status is Status.FORCE_ENDED
        assert view.session.end_reason is EndReason.WALLET_EMPTY
        assert view.session.ended_at_ms == started_ms + 90_000
        assert (view.duration_s, view.total_minor, view.wallet_minor) == (90, 9_000, 50)
        assert await balance(world, earnings_of("l1")) == 9_000
        assert world.heard.names()[-1] == "session:ended"
        assert world.punctuality.cut_offs == [0]


async def test_ticks_hold_slices_ahead_and_spendable_falls(path: Path) -> None:
    async with open_world(path) as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 100_000)
        session_id = await world.begin()
        held = (await world.wallets.balance("u1")).held_minor
        assert held == 13 * 100  # ten seconds to the tick and three of lead
        await world.advance(10)
        assert (await world.wallets.balance("u1")).held_minor == 23 * 100
        assert world.heard.names() == ["session:started", "session:tick"]
        tick = world.heard.events[-1].view
        assert (tick.duration_s, tick.total_minor, tick.remaining_s) == (10, 1_000, 990)
        assert tick.paid_until_ms == world.clock.now_ms() + 13_000
        await world.advance(5)
        view = await world.consultations.end(session_id, caller_id="u1")
        assert (view.status, view.total_minor, view.wallet_minor) == (Status.ENDED, 1_500, 98_500)
        assert (await world.wallets.balance("u1")).held_minor == 0


async def test_commission_is_rounded_down_and_the_lawyer_gets_the_rest(path: Path) -> None:
    async with open_world(path, rules=Rules(commission_bp=1_250)) as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 10_000)
        session_id = await world.begin()
        await world.advance(7)
        await world.consultations.end(session_id, caller_id="l1")
        assert await balance(world, REVENUE_CONSULTATIONS) == 87  # 12.5 % of 700 is 87.5
        assert await balance(world, earnings_of("l1")) == 613
        assert await balance(world, wallet_of("u1")) == 9_300
        assert await balance(world, "gateway:simulated") == -10_000


async def test_a_recharge_extends_the_session_without_a_gap(path: Path) -> None:
    async with open_world(path) as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 6_000)
        session_id = await world.begin()
        await world.advance(59.5)
        await world.recharge("u1", 6_000)
        await world.advance(0.4)
        assert "session:recharged" in world.heard.names()
        await world.advance(60.09)
        assert world.consultations.is_open(session_id)
        await world.advance(0.01)
        view = await world.consultations.get(session_id, caller_id="u1")
        assert (view.status, view.duration_s, view.total_minor) == (Status.FORCE_ENDED, 120, 12_000)
        assert [row.event for row in await world.consultations.timeline(session_id)] == ["start", "end"]


async def test_max_amount_caps_what_the_session_may_cost(path: Path) -> None:
    async with open_world(path) as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 100_000)
        with pytest.raises(MaxAmountTooSmall):
            await world.begin(max_minor=5_999)
        session_id = await world.begin(max_minor=7_050)
        await world.advance(200)
        view = await world.consultations.get(session_id, caller_id="u1")
        assert (view.session.end_reason, view.duration_s, view.total_minor) == (
            EndReason.MAX_AMOUNT,
            70,
            7_000,
        )


async def test_low_balance_is_announced_once_a_threshold_at_its_instant(path: Path) -> None:
    async with open_world(path) as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 13_500)  # 135 s
        await world.begin()
        started = world.clock.now_ms()
        seen = []
        for _ in range(140):
            await world.advance(1)
            for event in world.heard.events:
                if event.name == "session:low_balance":
                    seen.append(
                        (
                            (world.clock.now_ms() - started) // 1000,
                            event.extra["threshold"],
                            event.view.remaining_s,
                        )
                    )
            world.heard.events.clear()
        assert seen == [(15, 120, 120), (75, 60, 60), (105, 30, 30)]


async def test_start_checks_run_in_order_each_with_its_code(path: Path) -> None:
    async with open_world(path) as world:
        world.lawyers.add("poor", 6_000, verified=False, online=False)
        world.lawyers.add("offline", 6_000, online=False)
        world.lawyers.add("l1", 6_000)
        world.lawyers.add("l2", 6_000)
        world.lawyers.add("dear", 600_000)
        with pytest.raises(LawyerNotFound):
            await world.begin(lawyer_id="nobody")
        with pytest.raises(InsufficientBalance):
            await world.begin(lawyer_id="poor")
        await world.recharge("u1", 10_000)
        with pytest.raises(InsufficientBalance) as short:
            await world.begin(lawyer_id="dear")
        assert short.value.facts == {"required_minor": 600_000, "available_minor": 10_000}
        with pytest.raises(LawyerNotVerified):
            await world.begin(lawyer_id="poor")
        with pytest.raises(LawyerOffline):
            await world.begin(lawyer_id="offline")
        await world.begin()
        with pytest.raises(UserBusy):
            await world.begin(lawyer_id="l2")
        await world.recharge("u2", 10_000)
        with pytest.raises(LawyerBusy):
            await world.begin(user_id="u2")


async def test_a_refused_start_leaves_nothing_behind(path: Path) -> None:
    async with open_world(path) as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 4_000)
        with pytest.raises(InsufficientBalance):
            await world.begin()
        assert (await world.wallets.balance("u1")).held_minor == 0
        assert await world.sessions.unfinished() == []
        await world.recharge("u1", 6_000)
        await world.begin()


async def test_the_same_operation_starts_one_session(path: Path) -> None:
    async with open_world(path) as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 10_000)
        first = await world.consultations.start(user_id="u1", lawyer_id="l1", operation_id="op")
        again = await world.consultations.start(user_id="u1", lawyer_id="l1", operation_id="op")
        assert first.session.id == again.session.id == "op"
        assert world.engine.live_count == 1


async def test_ending_again_answers_the_first_outcome(path: Path) -> None:
    async with open_world(path) as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 10_000)
        session_id = await world.begin()
        await world.advance(20)
        first = await world.consultations.end(session_id, caller_id="l1")
        await world.advance(5)
        await world.recharge("u1", 5_000)
        second = await world.consultations.end(session_id, caller_id="u1")
        assert first == second
        assert second.session.end_reason is EndReason.LAWYER_ENDED
        assert world.heard.names().count("session:ended") == 1
        with pytest.raises(SessionNotFound):
            await world.consultations.end(session_id, caller_id="stranger")
        await world.begin()  # both are free again


async def test_a_session_of_no_second_costs_nothing_and_makes_no_row(path: Path) -> None:
    async with open_world(path) as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 10_000)
        session_id = await world.begin()
        await world.advance(0.999)
        view = await world.consultations.end(session_id, caller_id="u1")
        assert (view.duration_s, view.total_minor) == (0, 0)
        assert [line.kind for line in await world.wallets.transactions("u1", limit=10, before=None)] == [
            "recharge"
        ]


@pytest.mark.parametrize(("evidence_s", "proven_s"), [(0, 10), (14, 14), (600, 23)])
async def test_after_a_crash_the_bill_runs_to_the_last_evidence_and_the_gap_is_a_pause(
    path: Path, evidence_s: int, proven_s: int
) -> None:
    """The user is hurt if time without a server is billed, the lawyer if proven service is not. 23 s is paid-until."""
    clock = ManualClock()
    async with open_world(path, clock=clock) as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 100_000)
        session_id = await world.begin()
        started = clock.now_ms()
        await world.advance(17)  # a tick at 10 s, then nothing
        await world.crash()
    clock.jump_ms(30_000)

    def chat_knows(world: World) -> None:
        world.rooms.evidence[session_id] = started + evidence_s * 1000

    async with open_world(path, clock=clock, prepare=chat_knows) as world:
        view = await world.consultations.get(session_id, caller_id="u1")
        assert (view.status, view.duration_s) == (Status.ACTIVE, proven_s)
        await world.advance(20)
        view = await world.consultations.end(session_id, caller_id="u1")
        rows = await world.consultations.timeline(session_id)
        assert [row.event for row in rows] == ["start", "pause", "resume", "end"]
        assert (rows[1].at_ms - started, rows[1].reason) == (proven_s * 1000, "SERVER")
        assert (
            served_ms_of((row.at_ms, row.event) for row in rows) // 1000 == view.duration_s == proven_s + 20
        )


async def test_a_session_left_alone_for_too_long_is_ended_at_its_evidence(path: Path) -> None:
    clock = ManualClock()
    async with open_world(path, clock=clock) as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 100_000)
        session_id = await world.begin()
        await world.advance(35)
        await world.crash()
    clock.jump_ms(120_000)
    async with open_world(path, clock=clock) as world:
        view = await world.consultations.get(session_id, caller_id="u1")
        assert (view.status, view.session.end_reason) == (Status.FORCE_ENDED, EndReason.ABANDONED)
        assert (view.duration_s, view.total_minor) == (30, 3_000)
        assert world.engine.live_count == 0
        world.lawyers.add("l1", 6_000)
        await world.begin()


async def test_a_clean_stop_bills_to_the_stop_and_ends_nothing(path: Path) -> None:
    clock = ManualClock()
    async with open_world(path, clock=clock) as world:
        world.lawyers.add("l1", 6_000)
        await world.recharge("u1", 100_000)
        session_id = await world.begin()
        await world.advance(17)
    clock.jump_ms(5_000)
    async with open_world(path, clock=clock) as world:
        view = await world.consultations.get(session_id, caller_id="u1")
        assert (view.status, view.duration_s) == (Status.ACTIVE, 17)
