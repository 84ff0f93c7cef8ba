"""How exactly sessions without money end: durable close minus paid-until, beside a bare timer in the same loop.

    python -m bench.cut_off [--sessions N] [--spread S] [--dir DIR]

N sessions in one process, on a SQLite file with the real engine, begin spread over S seconds and run out of money at as many
different instants, while the others go on ticking. A close counts when its commit is on the disk. The bare timers are armed
for the very same instants in the same loop and do nothing, so they show what the loop itself is late. Both clocks count whole
milliseconds.
"""

import argparse
import asyncio
import gc
import os
import tempfile
import time
from pathlib import Path

import uvloop

from bench.engine_capacity import cpu_s
from bench.support import BenchClock, BenchWorld, engine_on
from billing_engine.consultations.rules import Rules
from billing_engine.ledger.accounts import wallet_of
from billing_engine.money import price

#: What `AnyLawyer` asks a minute.
RATE_MINOR_PER_MIN = 1_000
#: Every session ticks at least once before its end.
LEAST_S = 11
#: An acknowledged p99 of SPEC's issue 2, at 1,000 sessions.
TARGET_P99_MS = 50
RULES = Rules(min_balance_minor=1, min_seconds=1)


class Ends:
    """The instants at which money runs out, and how late the bare timers for them were."""

    def __init__(self, clock: BenchClock) -> None:
        self._clock = clock
        self.timer_errors_ms: list[int] = []
        self.last_ms = 0

    def expect(self, at_ms: int) -> None:
        self.last_ms = max(self.last_ms, at_ms)
        self._clock.call_at_ms(at_ms, lambda: self.timer_errors_ms.append(self._clock.now_ms() - at_ms))


async def begin(world: BenchWorld, ends: Ends, number: int) -> None:
    """One session with money for 11 to 20 whole seconds."""
    user_id, paid_s = f"user-{number:08d}", LEAST_S + number % 10
    await world.recharge(user_id, price(RATE_MINOR_PER_MIN, paid_s))
    view = await world.consultations.start(
        user_id=user_id, lawyer_id=f"lawyer-{number:08d}", operation_id=f"session-{number:024d}"
    )
    assert view.session.started_at_ms is not None
    ends.expect(view.session.started_at_ms + paid_s * 1000)


async def run(sessions: int, spread_s: float, directory: Path) -> None:
    clock = BenchClock()
    ends = Ends(clock)
    async with engine_on(directory / "bench.db", clock, RULES) as world:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(sessions):
            await asyncio.sleep(max(0.0, began + spread_s * number / sessions - loop.time()))
            await begin(world, ends, number)
        before, started = cpu_s(), time.perf_counter()
        while world.engine.live_count:
            await asyncio.sleep(0.1)
        took = time.perf_counter() - started
        share = (cpu_s() - before) / took
        late = sorted(world.observer.cut_offs)
        timers = sorted(ends.timer_errors_ms)
        assert len(late) == len(timers) == sessions, (len(late), len(timers))
        for number in range(sessions):
            wallet = await world.ledger.account(wallet_of(f"user-{number:08d}"), RULES.asset.code)
            assert (wallet.posted, wallet.held) == (0, 0), "cut off before the money was used up, or after"
    p50, p99, most = _cuts(late)
    t50, t99, t_most = _cuts(timers)
    print(f"{sessions} sessions cut off over {took:.0f} s, {os.cpu_count()} cores, {share:.0%} of one in use")
    print(f"durable close  p50 {p50} ms   p99 {p99} ms   max {most} ms   after paid-until")
    print(f"bare timer     p50 {t50} ms   p99 {t99} ms   max {t_most} ms")
    print(
        f"p99 is {p99 / max(1, t99):.1f} x the bare timer's; target {TARGET_P99_MS} ms: {'met' if p99 <= TARGET_P99_MS else 'MISSED'}"
    )


def _cuts(sorted_ms: list[int]) -> tuple[int, int, int]:
    """p50, p99 and the largest."""
    count = len(sorted_ms)
    return sorted_ms[count // 2], sorted_ms[min(count - 1, count * 99 // 100)], sorted_ms[-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=1_000)
    parser.add_argument("--spread", type=float, default=10, help="seconds over which they begin")
    parser.add_argument("--dir", type=Path, default=None)
    args = parser.parse_args()
    gc.set_threshold(50_000, 20, 50)  # as the server sets it
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        uvloop.run(run(args.sessions, args.spread, Path(directory)))


if __name__ == "__main__":
    main()
