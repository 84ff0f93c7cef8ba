"""Usages recorded and charged per second: one hot company wallet beside 1,000 wallets, through HTTP and through the service.

    python -m bench.usage [--phases http,batch,service,profile] [--rounds N] [--seconds S] [--wallets N] [--dir DIR]

HTTP is the whole server as `tarazu serve` starts it, pinned to one core, `synchronous=FULL`; companies' back ends call it with their
API keys over 32 keep-alive connections from the other core, one usage each (`eventId`, `jobId`), or 500 in a batch. An answer counts
that says CHARGED. The service is `UsageService` in this process over the same store and ledger, with the same 32 under way. Hot and
many take turns, so that both had the same machine; CPU is of the server's process, and does not depend on who else uses its core.
"""

import argparse
import asyncio
import gc
import itertools
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import uvloop

from bench.chat_throughput import Target
from bench.support import BenchClock
from bench.usage_service import UsageWorld, usages_on
from bench.usage_support import (
    SERVER_CORE,
    Company,
    Connection,
    companies,
    connected,
    load,
    on_one_core,
    percentiles,
    request,
)
from billing_engine.usage.model import CV_PARSING, Measured, UsageStatus
from billing_engine.usage.service import Report

IN_FLIGHT: Final = 32
BATCH: Final = 500
#: Batches under way: one is being charged while the next one is read.
BATCHES_IN_FLIGHT: Final = 2
#: Of issue 7: one hot wallet, through HTTP, on one core.
TARGET_PER_S: Final = 500
_JOBS: Final = 20
_EVENTS = itertools.count(time.time_ns())


def _single(company: Company) -> bytes:
    n = next(_EVENTS)
    body = {"eventId": f"event-{n}", "jobId": f"job-{n % _JOBS}", "candidateId": f"candidate-{n}"}
    return request("POST", "/api/usage/cv-parsing", company.key, body)


def _batch(company: Company) -> bytes:
    events = [
        {"type": "cv-parsing", "eventId": f"event-{n}", "jobId": f"job-{n % _JOBS}"}
        for n in itertools.islice(_EVENTS, BATCH)
    ]
    return request("POST", "/api/usage/batch", company.key, {"events": events})


async def _closed(
    connections: Sequence[Connection],
    wires: Iterator[bytes],
    seconds: float,
) -> tuple[int, float, list[float]]:
    """As fast as it goes, one request under way on each connection: how many, in which time, each one's milliseconds."""
    found: list[float] = []
    began = time.perf_counter()

    async def one(connection: Connection) -> None:
        while time.perf_counter() - began < seconds:
            wire = next(wires)
            asked = time.perf_counter()
            answer = await connection.ask(wire)
            found.append((time.perf_counter() - asked) * 1_000)
            assert b'"QUEUED"' not in answer, answer[:300]

    await asyncio.gather(*map(one, connections))
    return len(found), time.perf_counter() - began, found


async def over_http(
    target: Target, kinds: dict[str, list[Company]], rounds: int, seconds: float, *, batch: int
) -> None:
    """Both kinds in turns."""
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    costs: dict[str, list[float]] = {name: [] for name in kinds}
    make = _single if batch == 1 else _batch
    async with connected(target, IN_FLIGHT if batch == 1 else BATCHES_IN_FLIGHT) as connections:
        for k in range(rounds + 1):
            for name, some in kinds.items():
                cpu = target.cpu_s()
                asked, took, found = await _closed(
                    connections, map(make, itertools.cycle(some)), seconds if k else 1.0
                )
                cpu = target.cpu_s() - cpu
                if not k:
                    continue  # the first round warms up
                usages = asked * batch
                rates[name].append(usages / took)
                costs[name].append(1e6 * cpu / usages)
                print(
                    f"{name:14} {usages / took:7.0f} usages/s   server {cpu / took:4.0%} of a core, {costs[name][-1]:5.0f} us a usage"
                    f"   {percentiles(found)}   {load()}",
                    flush=True,
                )
    _ratio(rates, costs)


def _ratio(rates: dict[str, list[float]], costs: dict[str, list[float]]) -> None:
    """Medians. What a whole core would do follows from the CPU alone."""
    (hot, hot_rates), (many, many_rates) = rates.items()
    rate, other = statistics.median(hot_rates), statistics.median(many_rates)
    cost, other_cost = statistics.median(costs[hot]), statistics.median(costs[many])
    print(
        f"median: {hot} {rate:.0f}/s ({1e6 / cost:.0f}/s of a core alone), {many} {other:.0f}/s ({1e6 / other_cost:.0f}/s);"
        f" hot is {rate / other:.2f} of many, CPU {cost / other_cost:.2f}"
    )


async def through_service(directory: Path, wallets: int, rounds: int, seconds: float) -> None:
    """The same without HTTP, keys and companies' rows, in this process."""
    async with usages_on(directory / "service.db", BenchClock()) as world:
        kinds = {
            "hot wallet": ["company-hot"],
            f"{wallets} wallets": [f"company-{n}" for n in range(wallets)],
        }
        for company_id in itertools.chain.from_iterable(kinds.values()):
            await world.recharge(company_id, 10**12)
        rates: dict[str, list[float]] = {name: [] for name in kinds}
        costs: dict[str, list[float]] = {name: [] for name in kinds}
        for k in range(rounds + 1):
            for name, ids in kinds.items():
                cpu = time.process_time()
                count, took = await _service_loop(world, ids, seconds if k else 1.0)
                cpu = time.process_time() - cpu
                if k:
                    rates[name].append(count / took)
                    costs[name].append(1e6 * cpu / count)
                    print(
                        f"{name:14} {count / took:7.0f} usages/s   {cpu / took:4.0%} of a core, {costs[name][-1]:5.0f} us a usage"
                        f"   {load()}",
                        flush=True,
                    )
        _ratio(rates, costs)


async def _service_loop(world: UsageWorld, ids: Sequence[str], seconds: float) -> tuple[int, float]:
    turns = itertools.cycle(ids)
    began, count = time.perf_counter(), 0

    async def one() -> None:
        nonlocal count
        while time.perf_counter() - began < seconds:
            n = next(_EVENTS)
            report = Report(CV_PARSING, Measured({"cv": 1}), event_id=f"event-{n}", job_id=f"job-{n % _JOBS}")
            recorded = await world.meter.record(next(turns), report)
            assert recorded.usage.status is UsageStatus.CHARGED, recorded
            count += 1

    await asyncio.gather(*(one() for _ in range(IN_FLIGHT)))
    return count, time.perf_counter() - began


async def profile(target: Target, hot: Company, out: Path, seconds: float, *, batch: int) -> None:
    """py-spy's samples of the server under the hot load, folded, into `out`."""
    command = ("py-spy", "record", "-p", str(target.process.pid), "-d", str(int(seconds)), "-r", "250")
    spy = await asyncio.create_subprocess_exec(
        *command, "-f", "raw", "-o", str(out), stdout=subprocess.DEVNULL
    )
    make = _single if batch == 1 else _batch
    async with connected(target, IN_FLIGHT if batch == 1 else BATCHES_IN_FLIGHT) as connections:
        await _closed(connections, map(make, itertools.repeat(hot)), seconds + 1)
    await spy.wait()
    print(f"profile: {out}")


async def run(arguments: argparse.Namespace, directory: Path) -> None:
    phases: list[str] = arguments.phases.split(",")
    rounds, seconds, wallets = arguments.rounds, arguments.seconds, arguments.wallets
    if {"http", "batch", "profile"} & set(phases):
        async with on_one_core(directory, directory / "http.db") as target:
            hot, *many = await companies(target, 1 + (wallets if phases != ["profile"] else 0))
            kinds = {"hot wallet": [hot], f"{wallets} wallets": many}
            if "http" in phases:
                print(
                    f"\n-- HTTP, single usages, {IN_FLIGHT} under way, server on core {SERVER_CORE}; {load()}"
                )
                await over_http(target, kinds, rounds, seconds, batch=1)
                print(f"target {TARGET_PER_S}/s on the hot wallet")
            if "batch" in phases:
                print(f"\n-- HTTP, batches of {BATCH}, {BATCHES_IN_FLIGHT} under way; {load()}")
                await over_http(target, kinds, rounds, seconds, batch=BATCH)
            if "profile" in phases:
                await profile(target, hot, arguments.out, seconds, batch=arguments.batch)
    if "service" in phases:
        print(f"\n-- UsageService in this process, {IN_FLIGHT} under way; {load()}")
        await through_service(directory, wallets, rounds, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--phases", default="http,batch,service")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--wallets", type=int, default=1_000)
    parser.add_argument(
        "--dir", type=Path, default=None, help="where the database lies: a real disk, not tmpfs"
    )
    parser.add_argument("--batch", type=int, default=1, help="what `profile` sends: 1 or 500")
    parser.add_argument(
        "--out", type=Path, default=Path("usage.folded"), help="where `profile` (py-spy) writes"
    )
    arguments = parser.parse_args()
    gc.set_threshold(50_000, 20, 50)  # as the server sets it
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        uvloop.run(run(arguments, Path(directory)))


if __name__ == "__main__":
    main()
