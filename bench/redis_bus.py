"""What another process adds to an event: published by one bus, heard by another, both in this process.

    python -m bench.redis_bus [--messages 20000] [--bytes 400] [--trips 500]

The CPU is that of one process doing both halves; with two, each has about half. A trip is one message at a time, from `publish`
to the other's `take`.
"""

import argparse
import asyncio
import statistics
import time

import uvloop

from server.realtime.redis_bus import RedisBus
from server.redis_client import open_redis
from tests.support.valkey import running_valkey

ROOM = "s:bench"


async def measure(url: str, messages: int, size: int, trips: int) -> None:
    async with open_redis(url) as redis_a, open_redis(url) as redis_b:
        a, b = RedisBus(redis_a), RedisBus(redis_b)
        await a.start()
        await b.start()
        heard, arrived = 0, asyncio.Event()

        def take(_room: str, _message: bytes) -> None:
            nonlocal heard
            heard += 1
            arrived.set()

        b.take = take
        b.subscribe(ROOM)
        if not await b.subscribed(ROOM, patience_s=5):
            raise SystemExit("the bus does not answer")
        body = b"x" * size
        times_us = []
        for _ in range(trips):
            arrived.clear()
            started_s = time.perf_counter()
            a.publish(ROOM, body)
            await arrived.wait()
            times_us.append((time.perf_counter() - started_s) * 1e6)
        heard = 0
        cpu_s, started_s = time.process_time(), time.perf_counter()
        for first in range(0, messages, 100):
            for _ in range(100):
                a.publish(ROOM, body)
            while heard < first - 1_000:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        while heard < messages:
            await asyncio.sleep(0.001)
        took_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
        await a.stop()
        await b.stop()
        if a.dropped:
            raise SystemExit(f"{a.dropped} messages were dropped")
    times_us.sort()
    print(
        f"{messages:,} messages of {size} bytes: {messages / took_s:,.0f}/s, {cpu_s / messages * 1e6:.1f} µs of CPU each"
    )
    print(
        f"one at a time: p50 {statistics.median(times_us):,.0f} µs, p99 {times_us[int(len(times_us) * 0.99)]:,.0f} µs"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=400)
    parser.add_argument("--trips", type=int, default=500)
    args = parser.parse_args()
    with running_valkey() as server:
        uvloop.run(measure(server.url, args.messages, args.bytes, args.trips))


if __name__ == "__main__":
    main()
