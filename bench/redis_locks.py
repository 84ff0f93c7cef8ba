"""What both locks of a start cost in Redis, against one lock of redis-py: taken and given back.

    python -m bench.redis_locks [--rounds 5] [--pairs 3000] [--callers 16]

One Valkey on this machine, one client each with the same settings, in turns; compare the ratios, not the figures of two
machines. redis-py's lock takes one name and cannot take two together; two of them, one after the other, are the third line.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import uvloop
from redis.asyncio import Redis

from server.locks.redis import RedisLocks
from server.redis_client import open_redis
from tests.support.valkey import running_valkey

TTL_MS = 30_000
Pair = Callable[[int], Awaitable[None]]


async def pairs_a_second(pair: Pair, pairs: int, callers: int) -> float:
    async def caller(first: int) -> None:
        for number in range(first, pairs, callers):
            await pair(number)

    started_s = time.perf_counter()
    await asyncio.gather(*(caller(first) for first in range(callers)))
    return pairs / (time.perf_counter() - started_s)


async def measure(url: str, rounds: int, pairs: int, callers: int) -> dict[str, list[float]]:
    library = Redis.from_url(url)
    async with open_redis(url) as redis:
        locks = RedisLocks(redis, ttl_ms=TTL_MS)

        async def both(number: int) -> None:
            names = (f"lock:user:{number}", f"lock:lawyer:{number}")
            if await locks.acquire(names, "session") is not None:
                raise SystemExit("a free pair was refused")
            await locks.release(names, "session")

        async def one(number: int) -> None:
            lock = library.lock(f"one:{number}", timeout=TTL_MS / 1000, blocking=False)
            if not await lock.acquire():
                raise SystemExit("a free lock was refused")
            await lock.release()

        async def two(number: int) -> None:
            first = library.lock(f"user:{number}", timeout=TTL_MS / 1000, blocking=False)
            second = library.lock(f"lawyer:{number}", timeout=TTL_MS / 1000, blocking=False)
            await first.acquire()
            await second.acquire()
            await second.release()
            await first.release()

        ways: dict[str, Pair] = {"both, ours": both, "one, redis-py": one, "two, redis-py": two}
        figures: dict[str, list[float]] = {name: [] for name in ways}
        for pair in ways.values():
            await pairs_a_second(pair, 200, callers)
        for _ in range(rounds):
            for name, pair in ways.items():
                figures[name].append(await pairs_a_second(pair, pairs, callers))
    await library.aclose()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=3_000)
    parser.add_argument("--callers", type=int, default=16)
    args = parser.parse_args()
    for callers in (1, args.callers):
        with running_valkey() as server:
            figures = uvloop.run(measure(server.url, args.rounds, args.pairs, callers))
        print(f"{callers} at a time, {args.rounds} rounds of {args.pairs:,}, medians")
        for name, rates in figures.items():
            rate = statistics.median(rates)
            print(f"  {name:<16}{rate:>8,.0f}/s {1e6 / rate:>8,.0f} µs")
        ours, theirs = figures["both, ours"], figures["one, redis-py"]
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        print(f"  both of ours to one of redis-py: {ratio:.2f} x as many")


if __name__ == "__main__":
    main()
