"""Clients that stay connected and read nothing: how long they are kept, and what they cost meanwhile.

    python -m bench.deaf_clients [--clients 50] [--rate 10] [--dir DIR]

One side of each session stops reading its socket; the other goes on sending messages of 8,000 characters, and billing ticks. The whole server as
`tarazu serve` starts it, in a process of its own: its memory is looked at, and what its metrics say waits for its clients.
"""

import argparse
import asyncio
import itertools
import os
import re
import tempfile
import time
from pathlib import Path

import aiohttp

from bench.chat_throughput import Target, load_of, many_files, sessions, tarazu

_PATIENCE_S = 60


async def figures(http: aiohttp.ClientSession, target: Target) -> tuple[float, float]:
    """Bytes that wait for clients, and how many clients were cut off."""
    async with http.get(f"{target.url}/metrics") as response:
        text = await response.text()

    def figure(name: str) -> float:
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert found, name
        return float(found[1])

    return figure("tarazu_socket_queue_bytes"), figure("tarazu_sockets_cut_total")


async def run(arguments: argparse.Namespace, directory: Path) -> None:
    count: int = arguments.clients
    print(
        f"load {os.getloadavg()[0]:.1f}; {count} clients that read nothing, {arguments.rate:g} messages of 8,000 characters a second to each"
    )
    async with (
        tarazu(directory, "deaf") as target,
        load_of(directory) as load,
        aiohttp.ClientSession() as http,
    ):
        seats = await sessions(target, count)
        await load("connect", port=target.port, seats=seats)
        # First with everybody reading, twice: what the server grows by anyway.
        grown = [target.rss_kb()]
        for _ in range(2):
            await load("long_messages", rate=arguments.rate, seconds=8, size=8_000)
            await asyncio.sleep(1)
            grown.append(target.rss_kb())
        before_kb = grown[-1]
        print(f"everybody reads: the process grows by {[b - a for a, b in itertools.pairwise(grown)]} KB")
        await load("deafen", every=2)
        began, peak_bytes, peak_kb, cut, first = time.perf_counter(), 0.0, 0, 0.0, 0.0
        sending = asyncio.create_task(
            load("long_messages", rate=arguments.rate, seconds=_PATIENCE_S - 5, size=8_000)
        )
        while cut < count and time.perf_counter() - began < _PATIENCE_S:
            waiting, cut = await figures(http, target)
            first = first or (time.perf_counter() - began if cut else 0.0)
            peak_bytes, peak_kb = max(peak_bytes, waiting), max(peak_kb, target.rss_kb())
            await asyncio.sleep(0.1)
        last = time.perf_counter() - began
        print(
            f"cut {cut:.0f} of {count} between {first:.1f} and {last:.1f} s after they stopped reading; at most {peak_bytes / count / 1024:.0f} KB a "
            f"client waited, the process grew by {(peak_kb - before_kb) / count:.0f} KB a client"
        )
        sending.cancel()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rate", type=float, default=10)
    parser.add_argument(
        "--dir", type=Path, default=None, help="where the database lies: a real disk, not tmpfs"
    )
    arguments = parser.parse_args()
    many_files()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        asyncio.run(run(arguments, Path(directory)))


if __name__ == "__main__":
    main()
