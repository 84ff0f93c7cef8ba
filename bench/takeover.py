"""How soon another process goes on with the sessions of one that is killed, frozen, or told to stop.

    python -m bench.takeover [--sessions 200] [--rounds 10] [--webs 2] [--drain 500] [--store-timeout 4] [--dir DIR]

A whole deployment on one machine: web processes, a worker, Redis, and the tests' stand-in for MongoDB. In each round the process
that bills the most is sent SIGKILL, SIGSTOP or SIGTERM, at a random point of its beat. Measured from that signal: when each of its
sessions was among another process's live ones, that is, adopted durably (asked every 10 ms), and the instant of `resume` in its
timeline. Compared, in turns, with the takeover of one single session and with the lease's own bound: a lease is seen stale
at most 4/3 of LEASE_MS after the death (decision 0013). The stand-in serves one command at a time: its share is printed.
"""

import argparse
import asyncio
import itertools
import os
import random
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import aiohttp
import pymongo

from bench.production import PATIENCE_S, cpu_s, end_all, machine, metrics_of, pairs, percentile, start_all
from tests.e2e.people import Person, people_of
from tests.support.cluster import Cluster
from tests.support.server_process import ServerProcess

LEASE_MS = 1_200
#: The last beat is at most a sixth of the lease old at the death, and looked at a sixth late at most.
BOUND_MS = LEASE_MS * 4 // 3
GOAL_MS = 2_000
POLL_S = 0.01


class Kind(StrEnum):
    KILL = "SIGKILL"
    FREEZE = "SIGSTOP"
    DRAIN = "SIGTERM"


@dataclass
class Round:
    """One takeover. Milliseconds since the signal."""

    kind: Kind
    #: Of each session: another process counts it among its own.
    adopted_ms: list[float] = field(default_factory=list)
    #: Of each session: the instant at which its timeline resumes.
    resumed_ms: list[float] = field(default_factory=list)
    noticed_ms: float = 0.0
    exit_s: float = 0.0
    #: From the noticing to the last adoption.
    store_cpu_s: float = 0.0
    heirs_cpu_s: float = 0.0

    @property
    def adopting_ms(self) -> float:
        return max(1.0, max(self.adopted_ms) - self.noticed_ms)


@dataclass(frozen=True)
class Sample:
    at_ms: float
    taken: int
    store_cpu_s: float
    heirs_cpu_s: float


class Deployment:
    """A running cluster and what is asked of it."""

    def __init__(self, cluster: Cluster, http: aiohttp.ClientSession) -> None:
        self.cluster = cluster
        self.http = http
        assert cluster.mongo._process is not None
        self.store_pid = cluster.mongo._process.pid

    async def live(self, web: ServerProcess) -> int:
        return int((await metrics_of(self.http, web.url))["tarazu_sessions_live"])

    async def lives(self, webs: Iterable[ServerProcess]) -> int:
        return sum(await asyncio.gather(*(self.live(web) for web in webs)))

    async def taken(self, webs: Iterable[ServerProcess]) -> int:
        """Sessions of others that they have taken up so far, with all that is copied after the adoption."""
        told = await asyncio.gather(*(metrics_of(self.http, web.url) for web in webs))
        return sum(int(one["tarazu_takeovers_total"]) for one in told)

    async def owner(self) -> ServerProcess:
        """The process that bills the most."""
        counts = [await self.live(web) for web in self.cluster.webs]
        return self.cluster.webs[counts.index(max(counts))]

    async def at_peace(self, sessions: int) -> None:
        """Return once every session is billed once and every process sees every other one's lease."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            told = await asyncio.gather(*(metrics_of(self.http, web.url) for web in self.cluster.webs))
            living = {int(one["tarazu_leases_live"]) for one in told}
            billed = sum(int(one["tarazu_sessions_live"]) for one in told)
            if billed == sessions and living == {len(self.cluster.processes)}:
                return
            if time.monotonic() > deadline_s:
                said = "\n".join(_warnings(self.cluster.webs))
                raise SystemExit(f"no peace: {billed} of {sessions} sessions billed, leases {living}\n{said}")
            await asyncio.sleep(0.05)

    async def take_away(self, kind: Kind, victim: ServerProcess) -> Round:
        """One round; the process is back at the end of it."""
        survivors = [web for web in self.cluster.webs if web is not victim]
        count, before = await self.live(victim), await self.lives(survivors)
        copied = await self.taken(survivors) + count
        await asyncio.sleep(random.uniform(0, LEASE_MS / 6 / 1000))
        round_ = Round(kind)
        sent_at_s = time.time()
        exiting = self._send(victim, kind, sent_at_s)
        samples = await self._watch(survivors, before, count, sent_at_s)
        for earlier, later in itertools.pairwise(samples):
            round_.adopted_ms += [later.at_ms] * (later.taken - earlier.taken)
        round_.noticed_ms = min(_noticed_ms(survivors, sent_at_s), default=round_.adopted_ms[0])
        round_.resumed_ms = self._resumed_ms(sent_at_s)
        round_.exit_s = await exiting if exiting is not None else 0.0
        first = next(sample for sample in reversed(samples) if sample.at_ms <= round_.noticed_ms)
        round_.store_cpu_s = samples[-1].store_cpu_s - first.store_cpu_s
        round_.heirs_cpu_s = samples[-1].heirs_cpu_s - first.heirs_cpu_s
        print(
            f"  {kind} of {count:4}: noticed {round_.noticed_ms:5,.0f} ms, all adopted {max(round_.adopted_ms):6,.0f} ms, "
            f"load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        await self._bring_back(victim, kind)
        # What follows an adoption (timeline, locks) is not to be the next round's neighbour.
        deadline_s = time.monotonic() + PATIENCE_S
        while await self.taken(survivors) < copied and time.monotonic() < deadline_s:
            await asyncio.sleep(0.05)
        return round_

    def _send(self, victim: ServerProcess, kind: Kind, sent_at_s: float) -> "asyncio.Future[float] | None":
        if kind is Kind.FREEZE:
            self.cluster.freeze(victim)
            return None
        assert victim._process is not None
        victim._process.send_signal(signal.SIGKILL if kind is Kind.KILL else signal.SIGTERM)

        def ended() -> float:
            victim.wait(PATIENCE_S)
            return time.time() - sent_at_s

        return asyncio.ensure_future(asyncio.to_thread(ended))

    async def _watch(
        self, survivors: list[ServerProcess], before: int, count: int, sent_at_s: float
    ) -> list[Sample]:
        def sample(at_ms: float, taken: int) -> Sample:
            return Sample(at_ms, taken, cpu_s(self.store_pid), sum(cpu_s(web.pid) for web in survivors))

        samples = [sample(0.0, 0)]
        deadline_s = time.monotonic() + PATIENCE_S
        while samples[-1].taken < count:
            await asyncio.sleep(POLL_S)
            taken = await self.lives(survivors) - before
            samples.append(sample((time.time() - sent_at_s) * 1000, taken))
            if time.monotonic() > deadline_s:
                said = "\n".join(_warnings(survivors))
                raise SystemExit(f"{taken} of {count} sessions were taken up in {PATIENCE_S:g} s\n{said}")
        return samples

    def _resumed_ms(self, sent_at_s: float) -> list[float]:
        """From the open holds: since when each meter runs. Those that ran on elsewhere all the time began before the signal."""
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
            self.cluster.mongo.url(self.cluster.database)
        )
        with client:
            found = client[self.cluster.database]["ledger_accounts"].find(
                {"owners": {"$gte": ""}}, {"holds": 1}
            )
            since_ms = [facts["runningSince"] for document in found for facts in _facts(document["holds"])]
        return [at_ms - sent_at_s * 1000 for at_ms in since_ms if at_ms >= sent_at_s * 1000]

    async def _bring_back(self, victim: ServerProcess, kind: Kind) -> None:
        if kind is not Kind.FREEZE:
            await asyncio.to_thread(victim.start)
            return
        self.cluster.thaw(victim)
        deadline_s = time.monotonic() + PATIENCE_S
        while await self.live(victim):
            if time.monotonic() > deadline_s:
                raise SystemExit("the woken process does not let go")
            await asyncio.sleep(0.05)


def _facts(holds: Any) -> Iterable[dict[str, Any]]:
    """The facts of each hold of a document, however the codec lays holds out."""
    if isinstance(holds, dict):
        if "runningSince" in holds:
            yield holds
        else:
            for value in holds.values():
                yield from _facts(value)
    elif isinstance(holds, list):
        for value in holds:
            yield from _facts(value)


def _warnings(webs: list[ServerProcess]) -> list[str]:
    """What they logged that is no request, in order; lines of one kind and second are counted."""
    kinds = Counter(
        (line.get("timestamp", "")[:19], web.name, str(line.get("event", line))[:160].partition("(")[0])
        for web in webs
        for line in web.log_events()
        if line.get("event") != "request"
    )
    return [f"{at} {name} {count} x {event}" for (at, name, event), count in sorted(kinds.items())]


def _noticed_ms(survivors: list[ServerProcess], sent_at_s: float) -> Iterable[float]:
    for web in survivors:
        for line in web.log_events():
            if str(line.get("event", "")).startswith("a process is gone"):
                at_ms = (datetime.fromisoformat(line["timestamp"]).timestamp() - sent_at_s) * 1000
                if at_ms >= 0:
                    yield at_ms


def report(rounds: list[Round], alone: list[Round]) -> None:
    """A paragraph for each kind of death."""
    for kind in Kind:
        mine = [round_ for round_ in rounds if round_.kind is kind]
        base = [round_ for round_ in alone if round_.kind is kind]
        if not mine:
            continue
        adopted = [ms for round_ in mine for ms in round_.adopted_ms]
        single = [ms for round_ in base for ms in round_.adopted_ms]
        ratio = statistics.median(
            max(a.adopted_ms) / max(b.adopted_ms) for a, b in zip(mine, base, strict=True)
        )
        print(f"{kind}, {len(mine)} times, {len(adopted):,} sessions; milliseconds since the signal")
        print(
            f"  adopted            {spread(adopted)}   p99 is {percentile(adopted, 0.99) / BOUND_MS:.2f} of the lease's bound"
        )
        print(
            f"  one session alone  {spread(single)}   all of them to it: {ratio:.2f} (median of the rounds)"
        )
        print(f"  timeline resumes   {spread([ms for round_ in mine for ms in round_.resumed_ms])}")
        print(f"  noticed            {spread([round_.noticed_ms for round_ in mine])}")
        print(f"  from that to all   {spread([round_.adopting_ms for round_ in mine])}")
        store, heirs = (
            statistics.mean(getattr(one, name) for one in mine) for name in ("store_cpu_s", "heirs_cpu_s")
        )
        print(f"  of which CPU       store {1000 * store:,.0f} ms, heirs {1000 * heirs:,.0f} ms a time")
        if kind is Kind.DRAIN:
            print(f"  exit               {spread([1000 * round_.exit_s for round_ in mine])}")


def spread(values: list[float]) -> str:
    cuts = "  ".join(f"p{100 * part:g} {percentile(values, part):6,.0f}" for part in (0.5, 0.9, 0.99))
    return f"{cuts}  max {max(values, default=0.0):6,.0f}"


async def run(args: argparse.Namespace, cluster: Cluster) -> None:
    async with (
        aiohttp.ClientSession() as http,
        people_of(cluster.webs[0]) as world,
    ):
        deployment = Deployment(cluster, http)

        async def begin(people: list[tuple[Person, Person]], web: ServerProcess) -> list[str]:
            return await start_all(people, [web] * len(people))

        first, single = cluster.webs[0], await pairs(world, 1)
        people = await pairs(world, args.sessions)
        await begin(people, first)
        many: list[Round] = []
        alone: list[Round] = []
        for _ in range(args.rounds):
            for kind in args.kinds:
                # In turns, so that both have the same neighbours: one session of the process that has no other, then all.
                await deployment.at_peace(args.sessions)
                owner = await deployment.owner()
                other = next(web for web in cluster.webs if web is not owner)
                (id_,) = await begin(single, other)
                alone.append(await deployment.take_away(kind, other))
                world.server = owner
                await end_all(single, [id_])
                await deployment.at_peace(args.sessions)
                many.append(await deployment.take_away(kind, owner))
        print(
            f"\n{args.sessions} sessions, {args.rounds} rounds of each kind, {args.webs} web processes; "
            f"the lease's bound {BOUND_MS:,} ms, the goal {GOAL_MS:,} ms"
        )
        report(many, alone)
        if args.drain > args.sessions:
            await deployment.at_peace(args.sessions)
            await begin(await pairs(world, args.drain - args.sessions), await deployment.owner())
            for _ in range(args.rounds):
                await deployment.at_peace(args.drain)
                round_ = await deployment.take_away(Kind.DRAIN, await deployment.owner())
                print(
                    f"exit after SIGTERM with {len(round_.adopted_ms)}: {round_.exit_s:.2f} s; "
                    f"all adopted after {max(round_.adopted_ms):,.0f} ms; load {os.getloadavg()[0]:.1f}"
                )
    print(machine())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--webs", type=int, default=2)
    parser.add_argument(
        "--drain", type=int, default=0, help="sessions of one more SIGTERM, timed to its exit"
    )
    parser.add_argument("--kinds", type=Kind, nargs="+", default=list(Kind))
    parser.add_argument("--store-timeout", type=int, default=4)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server"
    )
    parser.add_argument("--dir", type=Path, default=None)
    args = parser.parse_args()
    print(machine())
    with (
        tempfile.TemporaryDirectory(dir=args.dir) as directory,
        Cluster(
            Path(directory),
            webs=args.webs,
            store_timeout_s=args.store_timeout,
            LEASE_MS=str(LEASE_MS),
            ACCESS_TOKEN_MINUTES="600",
            **dict(one.split("=", 1) for one in args.set),
        ) as cluster,
    ):
        asyncio.run(run(args, cluster))


if __name__ == "__main__":
    main()
