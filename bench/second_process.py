"""What a second web process adds: to chat throughput, to starts, and to ticking; and what it costs.

    python -m bench.second_process [--phases chat,engine] [--rounds 2] [--seconds 3] [--sessions 40] [--billed 100] [--dir DIR]

One deployment with two web processes, a worker, Redis, and the tests' stand-in for MongoDB. In turns:

  one     everything at the first process; the second one is idle
  same    half the sessions at each process, both sides of a session at one
  apart   users at the first process, lawyers at the second: each message crosses the bus

On a machine with two cores, which the store, Redis, and the load generator share, and with a store that serves one command at a time,
two processes cannot show twice the throughput. What travels is the CPU that all web processes together spend on a message or a tick.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from bench.chat_throughput import load_of
from bench.production import PATIENCE_S, cpu_s, end_all, machine, metrics_of, pairs, start_all
from tests.e2e.people import Person, people_of
from tests.support.cluster import Cluster
from tests.support.server_process import ServerProcess

SHAPES = ("one", "same", "apart")
#: While ticks are measured: ten times as many as by default, so that few sessions weigh as much as many.
TICK_S = 1
TICK = "tarazu_tick_lateness_seconds"

Pairs = list[tuple[Person, Person]]


@dataclass
class Spent:
    """CPU seconds of each process of the deployment."""

    webs: list[float]
    store: float
    redis: float

    def __sub__(self, other: "Spent") -> "Spent":
        webs = [a - b for a, b in zip(self.webs, other.webs, strict=True)]
        return Spent(webs, self.store - other.store, self.redis - other.redis)

    def each(self, pieces: float) -> str:
        """Microseconds for each piece of work."""
        webs = " + ".join(f"{1e6 * web / pieces:5,.0f}" for web in self.webs)
        return f"web {webs}, store {1e6 * self.store / pieces:6,.0f}, redis {1e6 * self.redis / pieces:4,.0f} µs of CPU"


@dataclass
class Found:
    """Of one shape, an item for each round."""

    rates: list[float] = field(default_factory=list)
    web_cpu_s: list[float] = field(default_factory=list)
    store_cpu_s: list[float] = field(default_factory=list)

    def add(self, pieces: float, seconds: float, spent: Spent) -> None:
        self.rates.append(pieces / seconds)
        self.web_cpu_s.append(sum(spent.webs) / pieces)
        self.store_cpu_s.append(spent.store / pieces)


def compare(found: dict[str, Found], what: str) -> None:
    """Medians of the ratios of the rounds."""
    one = found["one"]
    for shape, other in found.items():
        if shape == "one" or not other.rates:
            continue
        rate, web, store = (
            statistics.median(b / a for a, b in zip(ours, theirs, strict=True) if a)
            for ours, theirs in (
                (one.rates, other.rates),
                (one.web_cpu_s, other.web_cpu_s),
                (one.store_cpu_s, other.store_cpu_s),
            )
        )
        print(
            f"{shape:5} to one: {rate:.2f} x {what}/s, {web:.2f} x CPU of the web processes each, {store:.2f} x the store's"
        )


class Deployment:
    """The cluster, and the same people at either process."""

    def __init__(self, cluster: Cluster, http: aiohttp.ClientSession) -> None:
        self.cluster = cluster
        self.http = http

    def spent(self) -> Spent:
        assert self.cluster.mongo._process is not None
        return Spent(
            [cpu_s(web.pid) for web in self.cluster.webs],
            cpu_s(self.cluster.mongo._process.pid),
            cpu_s(self.cluster.redis.pid),
        )

    async def end(self, people: Pairs, ids: Sequence[str]) -> None:
        await end_all(people, ids)
        deadline_s = time.monotonic() + PATIENCE_S
        while sum([(await self.metrics(web))["tarazu_sessions_live"] for web in self.cluster.webs]):
            if time.monotonic() > deadline_s:
                raise SystemExit("sessions that have ended are still billed")
            await asyncio.sleep(0.05)

    async def messages(self) -> Counter[str]:
        """What became of the messages that either process was sent."""
        told: Counter[str] = Counter()
        for web in self.cluster.webs:
            for name, value in (await self.metrics(web)).items():
                if name.startswith('tarazu_socket_events_total{event="send_message"'):
                    told[name.split('"')[3]] += int(value)
        return told

    async def metrics(self, web: ServerProcess) -> dict[str, float]:
        return await metrics_of(self.http, web.url)


def port_of(web: ServerProcess) -> int:
    return int(web.url.rpartition(":")[2])


# -- chat ---------------------------------------------------------------------------------------------------------------


async def chat(deployment: Deployment, people: Pairs, args: argparse.Namespace) -> None:
    """As fast as it goes: both sides of each session keep some messages under way."""
    first, second = deployment.cluster.webs
    half = len(people) // 2
    print(f"\n-- chat: {len(people)} sessions, {args.window} messages under way on each of their sockets")
    found = {shape: Found() for shape in SHAPES}
    for _ in range(args.rounds):
        for shape in SHAPES:
            # Billed where the user is.
            billed = [*[first] * half, *[second if shape == "same" else first] * (len(people) - half)]
            ids = await start_all(people, billed)
            seats: dict[int, list[tuple[str, str | None]]] = {}
            for (user, lawyer), web, id_ in zip(people, billed, ids, strict=True):
                seats.setdefault(port_of(web), []).append((id_, user.api.token))
                theirs = second if shape == "apart" else web
                seats.setdefault(port_of(theirs), []).append((id_, lawyer.api.token))
            async with load_of(deployment.cluster.directory) as load:
                for port, some in seats.items():
                    await load("connect", port=port, seats=some)
                sent = await deployment.messages()
                before, started_s = deployment.spent(), time.perf_counter()
                result = await load("closed", window=args.window, warm_s=1, seconds=args.seconds)
                spent, took_s = deployment.spent() - before, time.perf_counter() - started_s
                # All of them: those of the warming up and those that were under way at the end, too, whose CPU this is.
                outcomes = await deployment.messages() - sent
                messages = outcomes.pop("ok")
            await deployment.end(people, ids)
            rate = result["acks"] / result["seconds"]
            found[shape].add(messages, messages / rate, spent)
            print(
                f"{shape:5} {rate:7,.0f} messages/s   ack ms p50 {result['ack_ms'][0]:6.1f} p99 {result['ack_ms'][1]:6.1f}   "
                f"each {spent.each(messages)}   {busy(spent, took_s)}   load generator {result['load_cpu']:.0%}   "
                f"lost {result['lost']}, refused {dict(outcomes)}",
                flush=True,
            )
    compare(found, "messages")


def busy(spent: Spent, took_s: float) -> str:
    webs = " + ".join(f"{web / took_s:.0%}" for web in spent.webs)
    return f"cores: web {webs}, store {spent.store / took_s:.0%}"


# -- engine -------------------------------------------------------------------------------------------------------------


async def engine(deployment: Deployment, people: Pairs, args: argparse.Namespace) -> None:
    """Starts, then ticks; everything at one process or half at each."""
    first, second = deployment.cluster.webs
    half = len(people) // 2
    print(f"\n-- engine: {len(people)} sessions with a tick every {TICK_S} s")
    started: dict[str, Found] = {shape: Found() for shape in ("one", "same")}
    ticked: dict[str, Found] = {shape: Found() for shape in ("one", "same")}
    for _ in range(args.rounds):
        for shape in ("one", "same"):
            before, began_s = deployment.spent(), time.perf_counter()
            ids = await start_all(people, [first, second if shape == "same" else first] * half)
            took_s, spent = time.perf_counter() - began_s, deployment.spent() - before
            started[shape].add(len(people), took_s, spent)
            line = f"{shape:5} {len(people) / took_s:6,.0f} starts/s, each {spent.each(len(people))}"
            webs = deployment.cluster.webs
            await asyncio.sleep(TICK_S)
            early = [await deployment.metrics(web) for web in webs]
            before, began_s = deployment.spent(), time.perf_counter()
            await asyncio.sleep(args.seconds)
            took_s, spent = time.perf_counter() - began_s, deployment.spent() - before
            late = [await deployment.metrics(web) for web in webs]
            lateness = Lateness.between(early, late)
            ticked[shape].add(lateness.ticks, took_s, spent)
            print(
                f"{line}\n      {lateness.ticks / took_s:6,.0f} ticks/s of {len(people) / TICK_S:,.0f}, lateness "
                f"p50 {lateness.bound(0.5)}, p99 {lateness.bound(0.99)}, "
                f"{lateness.within(0.25):.1%} within 250 ms   each {spent.each(lateness.ticks)}   {busy(spent, took_s)}",
                flush=True,
            )
            await deployment.end(people, ids)
    compare(started, "starts")
    compare(ticked, "ticks")


@dataclass(frozen=True)
class Lateness:
    """What the histograms of all web processes say of a stretch: upper edge in seconds -> ticks up to it."""

    edges: dict[float, float]

    @classmethod
    def between(cls, early: list[dict[str, float]], late: list[dict[str, float]]) -> "Lateness":
        edges: dict[float, float] = {}
        for before, after in zip(early, late, strict=True):
            for name, value in after.items():
                if name.startswith(f"{TICK}_bucket"):
                    edge = float(name.split('"')[1])
                    edges[edge] = edges.get(edge, 0.0) + value - before[name]
        return cls(dict(sorted(edges.items())))

    @property
    def ticks(self) -> float:
        return max(1.0, *self.edges.values())

    def within(self, edge_s: float) -> float:
        return self.edges[edge_s] / self.ticks

    def bound(self, part: float) -> str:
        edge_s = next(edge for edge, count in self.edges.items() if count >= part * self.ticks)
        return f"under {edge_s * 1000:,.0f} ms"


async def run(phase: str, args: argparse.Namespace, cluster: Cluster) -> None:
    async with aiohttp.ClientSession() as http, people_of(cluster.webs[0]) as world:
        deployment = Deployment(cluster, http)
        people: Pairs = []
        wanted = args.sessions if phase == "chat" else args.billed
        while len(people) < wanted:
            people += await pairs(world, min(100, wanted - len(people)))
        if phase == "chat":
            await chat(deployment, people, args)
        else:
            await engine(deployment, people, args)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--phases", default="chat,engine")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--sessions", type=int, default=40, help="that chat")
    parser.add_argument("--window", type=int, default=4)
    parser.add_argument("--billed", type=int, default=100, help="sessions that tick")
    parser.add_argument("--dir", type=Path, default=None)
    args = parser.parse_args()
    print(machine())
    # A tick of its own for each: what a process asks of the ledger about another's sessions, it asks once a slice.
    for phase, tick_s in (("chat", 10), ("engine", TICK_S)):
        if phase in args.phases.split(","):
            with (
                tempfile.TemporaryDirectory(dir=args.dir) as directory,
                Cluster(Path(directory), TICK_SECONDS=str(tick_s), ACCESS_TOKEN_MINUTES="600") as cluster,
            ):
                asyncio.run(run(phase, args, cluster))
    print(machine())


if __name__ == "__main__":
    main()
