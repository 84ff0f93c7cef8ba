"""The billing page over a million usages, while usages keep coming: p50 and p99 of each of its questions, through HTTP.

    python -m bench.usage_reads [--rows N] [--seconds S] [--clients 1,8] [--pause S] [--rate N] [--database FILE] [--only NAME,…]

One company with 200 jobs that were all used on each of 365 days, on the whole server as `tarazu serve` starts it, pinned to one core. Its
back end reports 100 usages a second meanwhile. Without `--pause` each client asks again as soon as it has its answer: 8 clients take the
whole core, and an answer waits for seven others. CPU is of the server's process, the usages beside included. `/healthz` stands beside: what the same server takes for an answer that is always the same. `--database`
keeps the file, which takes minutes to write, for the next run.
"""

import argparse
import asyncio
import gc
import itertools
import json
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import uvloop

from bench.chat_throughput import Target
from bench.usage_history import job_id, write_history
from bench.usage_support import (
    Company,
    Connection,
    companies,
    connected,
    load,
    on_one_core,
    percentiles,
    request,
)

#: Of issue 7.
TARGET_P99_MS: Final = 50
QUESTIONS: Final = {
    "healthz": "/healthz",
    "status": "/api/billing/status",
    **{f"usage {days} days": f"/api/billing/usage?days={days}" for days in (7, 30, 90, 365)},
    "usage 365 with 100 jobs": "/api/billing/usage?days=365&limit=100",
    **{f"one job {days} days": f"/api/billing/usage?days={days}&jobId={job_id(17)}" for days in (30, 365)},
    "usage 365 of a type": "/api/billing/usage?days=365&type=cv-parsing",
    "ledger": "/api/billing/ledger?limit=100",
    "ledger of a type": "/api/billing/ledger?limit=100&type=CV_PARSE",
    "usages": "/api/usage?limit=100",
    "usages of a job": f"/api/usage?limit=100&jobId={job_id(17)}",
    "usages of a type": "/api/usage?limit=100&type=cv-parsing",
}


async def ask(
    connections: list[Connection], wires: list[bytes], seconds: float, pause_s: float = 0
) -> list[float]:
    """Milliseconds of all answers; each client waits so long between two questions."""
    found: list[float] = []
    began = time.perf_counter()

    async def one(connection: Connection, first: int) -> None:
        for wire in itertools.islice(itertools.cycle(wires), first, None):
            if time.perf_counter() - began >= seconds:
                return
            found.append(await connection.timed(wire))
            if pause_s:
                await asyncio.sleep(pause_s)

    async def late(connection: Connection, n: int) -> None:
        await asyncio.sleep(pause_s * n / len(connections))
        await one(connection, n)

    await asyncio.gather(*(late(connection, n) for n, connection in enumerate(connections)))
    return found


class Reporting:
    """The back end: so many usages a second, whatever becomes of the ones before."""

    def __init__(self, company: Company, connections: list[Connection], rate: float) -> None:
        self._company = company
        self._connections = connections
        self._rate = rate
        self.took_ms: list[float] = []

    async def run(self) -> None:
        free: asyncio.Queue[Connection] = asyncio.Queue()
        for connection in self._connections:
            free.put_nowait(connection)
        began, events = time.perf_counter(), itertools.count(time.time_ns())

        async def report(connection: Connection, n: int) -> None:
            body = {"eventId": f"event-{n}", "jobId": job_id(n % 200)}
            wire = request("POST", "/api/usage/cv-parsing", self._company.key, body)
            self.took_ms.append(await connection.timed(wire))
            free.put_nowait(connection)

        async with asyncio.TaskGroup() as tasks:
            for k, n in enumerate(events):
                await asyncio.sleep(max(0.0, began + k / self._rate - time.perf_counter()))
                tasks.create_task(report(await free.get(), n))


async def measure(target: Target, company: Company, arguments: argparse.Namespace) -> None:
    wanted = arguments.only.split(",") if arguments.only else list(QUESTIONS)
    wires = {name: request("GET", QUESTIONS[name], company.key) for name in wanted}
    async with connected(target, 16) as back_end:
        reporting = Reporting(company, back_end, arguments.rate)
        writing = asyncio.create_task(reporting.run())
        for clients in map(int, arguments.clients.split(",")):
            print(
                f"\n-- {clients} clients, {arguments.pause:g} s between two questions of each, {arguments.rate:g} usages/s beside;"
                f" {load()}"
            )
            async with connected(target, clients) as connections:
                everything = [("all in turns", list(wires.values()))] if len(wires) > 1 else []
                for name, some in [*((name, [wire]) for name, wire in wires.items()), *everything]:
                    await ask(connections[:1], some, 0.3)
                    reporting.took_ms.clear()
                    cpu = target.cpu_s()
                    began = time.perf_counter()
                    found = await ask(connections, some, arguments.seconds, arguments.pause)
                    took = time.perf_counter() - began
                    cpu = target.cpu_s() - cpu
                    p99 = sorted(found)[min(len(found) - 1, len(found) * 99 // 100)]
                    print(
                        f"{name:23} {percentiles(found)}   {len(found) / took:6.0f}/s   server {cpu / took:4.0%} of a core,"
                        f" {1_000 * cpu / len(found):6.2f} ms an answer"
                        f"   reported: {percentiles(reporting.took_ms)}   {load()}"
                        f"   {'met' if p99 < TARGET_P99_MS else 'MISSED'}",
                        flush=True,
                    )
                    if writing.done():
                        await writing
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing


async def run(arguments: argparse.Namespace, directory: Path) -> None:
    database: Path = arguments.database or directory / "million.db"
    kept = database.with_suffix(".json")
    if not kept.exists():
        async with on_one_core(directory, database) as target:
            (company,) = await companies(target, 1)
        await write_history(database, company.id, arguments.rows)
        kept.write_text(json.dumps([company.id, company.token, company.key]))
    company = Company(*json.loads(kept.read_text()))
    async with on_one_core(directory, database) as target:
        if arguments.profile is None:
            await measure(target, company, arguments)
            return
        command = ("py-spy", "record", "-p", str(target.process.pid), "-d", str(int(arguments.seconds)))
        spy = await asyncio.create_subprocess_exec(
            *command, "-r", "250", "-f", "raw", "-o", str(arguments.profile), stdout=subprocess.DEVNULL
        )
        await measure(target, company, arguments)
        await spy.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=5, help="for each question")
    parser.add_argument("--clients", default="1,8")
    parser.add_argument("--pause", type=float, default=0, help="seconds from an answer to the next question")
    parser.add_argument("--rate", type=float, default=100, help="usages a second that come meanwhile")
    parser.add_argument("--database", type=Path, default=None, help="is written if it is not there, and kept")
    parser.add_argument("--only", default="", help="some of: " + ", ".join(QUESTIONS))
    parser.add_argument("--profile", type=Path, default=None, help="py-spy's samples meanwhile, folded")
    parser.add_argument("--dir", type=Path, default=None, help="a real disk, not tmpfs")
    arguments = parser.parse_args()
    gc.set_threshold(50_000, 20, 50)  # as the server sets it
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        uvloop.run(run(arguments, Path(directory)))


if __name__ == "__main__":
    main()
