"""2,000 clients lose their connections in one instant and are back in the next, while their consultations tick.

    python -m bench.reconnect_storm [--sessions 1000] [--storms 3] [--dir DIR]

The whole server as `tarazu serve` starts it, with the paces that ship, durable SQLite, a tick every ten seconds for each session. The clients are a
process of their own, which connects all of them at once, without any of the spreading that `retryAfterMs` asks for. The ticks' lateness
and the loop's lag are the server's own histograms: what was counted from the cut until five seconds after the last one was back.
"""

import argparse
import asyncio
import os
import re
import tempfile
from pathlib import Path
from typing import Final

import aiohttp

from bench.chat_throughput import Target, load_of, many_files, sessions, tarazu

_BUCKET: Final = re.compile(r'^(\w+)_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)
_TICKS, _LAG = "tarazu_tick_lateness_seconds", "tarazu_loop_lag_seconds"
#: What is still on its way when the last client is back.
_AFTER_S: Final = 5

Histogram = dict[float, float]


async def histograms(target: Target) -> dict[str, Histogram]:
    """Upper bound in seconds to how many were at or below it, by name."""
    async with aiohttp.ClientSession() as http, http.get(f"{target.url}/metrics") as response:
        text = await response.text()
    found: dict[str, Histogram] = {}
    for name, bound, count in _BUCKET.findall(text):
        found.setdefault(name, {})[float(bound)] = float(count)
    return found


def told(before: Histogram, after: Histogram) -> str:
    """How many there were, and below which bounds 99 % and all of them lay."""
    new = {bound: count - before.get(bound, 0.0) for bound, count in after.items()}
    total = new[float("inf")]

    def bound_of(part: float) -> str:
        bound = next(bound for bound, count in sorted(new.items()) if count >= part * total)
        return f"<= {1000 * bound:g} ms" if bound != float("inf") else "above all bounds"

    return f"{total:.0f}, p99 {bound_of(0.99)}, latest {bound_of(1.0)}"


async def run(arguments: argparse.Namespace, directory: Path) -> None:
    print(
        f"load {os.getloadavg()[0]:.1f}; {arguments.sessions:,} sessions, {2 * arguments.sessions:,} clients"
    )
    async with tarazu(directory, "storm", RATE_LIMITS="on") as target, load_of(directory) as load:
        seats = await sessions(target, arguments.sessions)
        await load("connect", port=target.port, seats=seats)
        before, cpu = await histograms(target), target.cpu_s()
        await asyncio.sleep(10)
        calm = await histograms(target)
        print(
            f"calm, 10 s: ticks {told(before[_TICKS], calm[_TICKS])}; loop's lag {told(before[_LAG], calm[_LAG])}; "
            f"{(target.cpu_s() - cpu) / 10:.0%} of a core"
        )
        for _ in range(arguments.storms):
            before, cpu = await histograms(target), target.cpu_s()
            result = await load("storm", port=target.port, seats=seats)
            took_s = result["back_ms"][2] / 1_000
            await asyncio.sleep(_AFTER_S)
            after = await histograms(target)
            cpu = target.cpu_s() - cpu
            print(
                f"storm: all {result['sockets']:,} back after {took_s:.2f} s (p50 {result['back_ms'][0]:.0f} ms, p99 "
                f"{result['back_ms'][1]:.0f} ms, {result['tries']:,} tries), server {1e3 * cpu / result['sockets']:.2f} ms of CPU a client\n"
                f"       ticks {told(before[_TICKS], after[_TICKS])}; loop's lag {told(before[_LAG], after[_LAG])}; load {os.getloadavg()[0]:.1f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=1_000)
    parser.add_argument("--storms", type=int, default=3)
    parser.add_argument(
        "--dir", type=Path, default=None, help="where the database lies: a real disk, not tmpfs"
    )
    arguments = parser.parse_args()
    many_files()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        asyncio.run(run(arguments, Path(directory)))


if __name__ == "__main__":
    main()
