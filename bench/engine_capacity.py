"""Live sessions in one process: tick lateness, CPU and memory, on a SQLite file with the real engine and real slices.

    python -m bench.engine_capacity [--sessions N] [--seconds S] [--dir DIR]

Prints, over the measured stretch: ticks, lateness percentiles, share of one core, kilobytes a session, commits a second; and,
from the same run, the CPU of an empty timer (a task and a timer per session that does nothing) as the ratio to compare with.
"""

import argparse
import asyncio
import gc
import resource
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from bench.support import BenchClock, engine_on
from billing_engine.consultations.rules import Rules


def rss_kb() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def empty_timers(sessions: int, seconds: float, tick_s: float) -> float:
    """Share of a core that the bare timers take."""

    async def one(offset: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + offset
        while True:
            waiter = asyncio.Event()
            loop.call_at(deadline, waiter.set)
            await waiter.wait()
            deadline += tick_s

    tasks = [asyncio.create_task(one(tick_s * k / sessions)) for k in range(sessions)]
    before, started = cpu_s(), time.perf_counter()
    await asyncio.sleep(seconds)
    share = (cpu_s() - before) / (time.perf_counter() - started)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return share


async def run(sessions: int, seconds: float, directory: Path) -> None:
    rules = Rules()
    timers = await empty_timers(sessions, min(seconds, 10), rules.tick_ms / 1000)
    async with engine_on(directory / "bench.db", BenchClock(), rules) as world:
        for k in range(0, sessions, 500):
            await asyncio.gather(*(world.recharge(f"user-{k + i:08d}", 10_000_000) for i in range(500)))
        gc.collect()
        base_kb = rss_kb()
        began = time.perf_counter()
        # Spread over one tick, as arrivals are.
        for k in range(0, sessions, 100):
            await asyncio.gather(
                *(world.begin(f"user-{k + i:08d}", f"lawyer-{k + i:08d}") for i in range(100))
            )
            ahead = began + rules.tick_ms / 1000 * (k + 100) / sessions - time.perf_counter()
            if ahead > 0:
                await asyncio.sleep(ahead)
        print(f"{sessions} sessions live after {time.perf_counter() - began:.1f} s")
        gc.collect()
        live_kb = rss_kb()
        await asyncio.sleep(rules.tick_ms / 1000)
        world.observer.ticks.clear()
        batches, before, started = world.ledger.committer.batches, cpu_s(), time.perf_counter()
        await asyncio.sleep(seconds)
        took = time.perf_counter() - started
        share = (cpu_s() - before) / took
        ticks = sorted(world.observer.ticks)
        commits = world.ledger.committer.batches - batches
        cuts = statistics.quantiles(ticks, n=1000)
        print(
            f"ticks        {len(ticks)} in {took:.1f} s ({len(ticks) / took:,.0f}/s; due {sessions / 10:,.0f}/s)"
        )
        print(
            f"lateness     p50 {cuts[499]:.0f} ms   p99 {cuts[989]:.0f} ms   p99.9 {cuts[998]:.0f} ms   max {ticks[-1]} ms"
        )
        print(f"CPU          {share:.1%} of one core, {share / timers:.1f} x empty timers ({timers:.1%})")
        print(f"memory       {(live_kb - base_kb) / sessions:.1f} KB a session (RSS)")
        print(f"commits      {commits / took:.0f}/s, {len(ticks) / max(1, commits):.0f} ticks each")
        world.abandon()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--dir", type=Path, default=None)
    args = parser.parse_args()
    gc.set_threshold(50_000, 20, 50)  # as the server sets it
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        uvloop.run(run(args.sessions, args.seconds, Path(directory)))


if __name__ == "__main__":
    main()
