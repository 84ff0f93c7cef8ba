"""The server's clock: never back, never jumping, and never early."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.clock import SystemClock

MS = 1_000_000
S = 1_000 * MS


class Machine:
    """A wall and a monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.wall_ns = 1_700_000_000 * S
        self.monotonic_ns = 55 * S

    def clock(self, not_before_ms: int = 0) -> SystemClock:
        return SystemClock(
            not_before_ms=not_before_ms, wall_ns=lambda: self.wall_ns, monotonic_ns=lambda: self.monotonic_ns
        )

    def run(self, ns: int, clock: SystemClock, step_ns: int = 100 * MS) -> None:
        while ns > 0:
            step = min(step_ns, ns)
            self.wall_ns += step
            self.monotonic_ns += step
            ns -= step
            clock.now_ms()


def test_it_starts_at_the_wall():
    machine = Machine()
    assert machine.clock().now_ms() == machine.wall_ns // MS


def test_it_starts_at_the_last_stored_instant_when_the_wall_was_set_back():
    """Else the second start writes entries before those of the first."""
    machine = Machine()
    later_ms = machine.wall_ns // MS + 60_000
    clock = machine.clock(later_ms)
    assert clock.now_ms() == later_ms

    known_later = machine.clock()
    known_later.not_before(later_ms)
    assert known_later.now_ms() == later_ms
    known_later.not_before(5)
    assert known_later.now_ms() == later_ms


def test_a_wall_that_jumps_does_not_move_it():
    """An operator who corrects the clock by an hour must not bill every session for an hour."""
    machine = Machine()
    clock = machine.clock()
    before = clock.now_ms()
    machine.wall_ns += 3_600 * S
    assert clock.now_ms() == before
    machine.wall_ns -= 7_200 * S
    assert clock.now_ms() == before


@pytest.mark.parametrize("jump_s", [60, -60])
def test_it_follows_the_wall_at_500_ppm(jump_s):
    machine = Machine()
    clock = machine.clock()
    machine.run(S, clock)
    machine.wall_ns += jump_s * S
    machine.run(S, clock)
    start_ms, start_wall = clock.now_ms(), machine.wall_ns
    machine.run(1_000 * S, clock)

    gained_ms = (clock.now_ms() - start_ms) - (machine.wall_ns - start_wall) // MS
    assert gained_ms == pytest.approx(500 if jump_s > 0 else -500, abs=2)


def test_it_meets_the_wall_and_stays_there():
    machine = Machine()
    clock = machine.clock()
    machine.wall_ns += 200 * MS
    machine.run(3_600 * S, clock, step_ns=500 * MS)
    assert abs(clock.offset_ms()) <= 1


def test_the_offset_tells_how_far_it_is_from_the_wall():
    machine = Machine()
    clock = machine.clock()
    machine.wall_ns += 700 * MS
    assert clock.offset_ms() == -700
    machine.wall_ns -= 1_400 * MS
    assert clock.offset_ms() == 700


@given(
    st.lists(
        st.tuples(st.integers(0, 2 * S), st.integers(-3_600 * S, 3_600 * S) | st.just(0)),
        min_size=1,
        max_size=60,
    )
)
def test_it_never_goes_back_and_never_runs_more_than_500_ppm_off(steps):
    machine = Machine()
    clock = machine.clock()
    last_ms = clock.now_ms()
    for elapsed_ns, jump_ns in steps:
        machine.monotonic_ns += elapsed_ns
        machine.wall_ns += elapsed_ns + jump_ns
        now_ms = clock.now_ms()
        assert now_ms >= last_ms
        # One millisecond for cutting each of the two to whole ones.
        assert abs((now_ms - last_ms) - elapsed_ns / MS) <= elapsed_ns / MS * 0.000_5 + 1.001
        last_ms = now_ms


async def test_a_timer_fires_at_its_time_and_not_before():
    clock = SystemClock()
    fired: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    when_ms = clock.now_ms() + 20
    clock.call_at_ms(when_ms, lambda: fired.set_result(clock.now_ms()))
    assert await fired >= when_ms


async def test_a_timer_of_the_past_fires_on_the_next_turn():
    clock = SystemClock()
    fired = asyncio.Event()
    clock.call_at_ms(clock.now_ms() - 5_000, fired.set)
    assert not fired.is_set()
    await asyncio.wait_for(fired.wait(), 1)


async def test_a_cancelled_timer_does_not_fire():
    clock = SystemClock()
    fired = asyncio.Event()
    late = asyncio.Event()
    timer = clock.call_at_ms(clock.now_ms() + 5, fired.set)
    clock.call_at_ms(clock.now_ms() + 15, late.set)
    timer.cancel()
    timer.cancel()
    await late.wait()
    assert not fired.is_set()


async def test_a_timer_that_its_loop_fires_early_waits_on():
    """A loop's clock and ours differ by the slew; a session must not be cut a millisecond before its money ends."""
    machine = Machine()
    clock = machine.clock()
    seen: list[int] = []
    now_ms = clock.now_ms()
    fired = asyncio.Event()
    clock.call_at_ms(now_ms + 1, lambda: (seen.append(clock.now_ms()), fired.set()))
    early = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, early.set)
    await early.wait()
    assert seen == []
    machine.monotonic_ns += MS
    await asyncio.wait_for(fired.wait(), 1)
    assert seen == [now_ms + 1]
