"""The chat against relays that store nothing: throughput, latency, memory and what a disconnect costs, in one run on one machine.

    python -m bench.chat_throughput [--phases idle,throughput,latency,join,flood] [--rounds N] [--seconds S] [--dir DIR]

`tarazu` is the whole server as `tarazu serve` starts it: every message checked, stored durably (`synchronous=FULL`) and only then
acknowledged, in running, billed sessions. `python-socketio` (`bench/chat_relay.py`) and `node` (`bench/js/relay.mjs`, when Node is
there: `npm ci` in `bench/js`) relay and acknowledge. One load generator in a process of its own drives them in turns.
"""

import argparse
import asyncio
import json
import os
import resource
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

ROOT: Final = Path(__file__).resolve().parents[1]
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
#: Nothing here takes so long; it ends a run that hangs.
PATIENCE_S: Final = 180.0
_PASSWORD: Final = "a password of the bench"

Seat = tuple[str, str]
Json = dict[str, Any]


@dataclass
class Target:
    """A server under load. `seats` are (session, token), the two sides of a session one after the other."""

    name: str
    process: asyncio.subprocess.Process
    url: str = ""
    seats: list[Seat] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def cpu_s(self) -> float:
        """Of all its threads, since its start."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND

    def rss_kb(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


class Load:
    """The load generator's process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    async def __call__(self, do: str, **more: Any) -> Json:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
        async with asyncio.timeout(PATIENCE_S):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load generator ended in {do}: {self._log.read_text()[-2_000:]}")
        result: Json = json.loads(line)
        return result


@asynccontextmanager
async def child(*command: str, cwd: Path, log: Path, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of ours, ended at the end."""
    with log.open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            limit=2**24,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


@asynccontextmanager
async def load_of(directory: Path) -> AsyncIterator[Load]:
    log = directory / "load.log"
    async with child(sys.executable, "-m", "bench.chat_load", cwd=ROOT, log=log) as process:
        yield Load(process, log)


@asynccontextmanager
async def started(name: str, command: tuple[str, ...], directory: Path, **env: str) -> AsyncIterator[Target]:
    """A server that says its address on its first line."""
    async with child(*command, cwd=directory, log=directory / f"{name}.log", **env) as process:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = (await process.stdout.readline()).decode().strip()
        if not line.startswith("http://"):
            raise RuntimeError(f"{name} did not start: {(directory / f'{name}.log').read_text()[-2_000:]}")
        yield Target(name, process, line)


#: Limits of the preparations, where `RATE_LIMITS` is on: a thousand people register from one address.
_OFF: Final = {
    f"RATE_LIMIT_{name}": "off"
    for name in (
        "LOGIN_ADDRESS",
        "LOGIN_FAILURES",
        "LOGIN_STRANGERS",
        "REGISTER_ADDRESS",
        "REGISTER_ACCOUNT",
        "RECHARGE_ADDRESS",
        "RECHARGE_ACCOUNT",
    )
}


def tarazu(directory: Path, name: str = "tarazu", **settings: str) -> Any:
    """The server with its defaults, but for what would only slow down the preparations, and the paces of its clients."""
    env = {**_OFF, "RATE_LIMITS": "off", **settings}
    return started(
        name,
        (sys.executable, "-m", "server", "serve", "--announce-address"),
        directory,
        APP_ENV="test",
        HOST="127.0.0.1",
        PORT="0",
        DATABASE_URL=f"sqlite:///{directory / name}.db",
        BCRYPT_COST="4",
        **env,
        ACCESS_TOKEN_MINUTES="600",
        ADMIN_EMAIL="admin@example.com",
        ADMIN_PASSWORD=_PASSWORD,
        LOG_FORMAT="json",
    )


def bare(directory: Path) -> Any:
    return started("python-socketio", (sys.executable, "-m", "bench.chat_relay"), directory)


def node(directory: Path) -> Any:
    return started("node", ("node", str(ROOT / "bench/js/relay.mjs")), directory, NODE_ENV="production")


async def sessions(target: Target, count: int) -> list[Seat]:
    """`count` running consultations of new people."""
    seats: list[Seat] = []
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(target.url, timeout=timeout) as http:

        async def call(method: str, path: str, body: Json, token: str = "") -> Json:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with http.request(method, path, json=body, headers=headers) as response:
                answer: Json = await response.json(content_type=None)
                assert response.status < 300, answer
                return answer

        admin = await call("POST", "/auth/login", {"email": "admin@example.com", "password": _PASSWORD})
        gate = asyncio.Semaphore(16)

        async def one(n: int) -> tuple[Seat, Seat]:
            async with gate:
                mark = f"{n}-{secrets.token_hex(4)}"
                who = {"password": _PASSWORD, "name": "Somebody"}
                user = await call("POST", "/auth/register", {**who, "email": f"u{mark}@example.com"})
                papers = {"ratePerMinute": "1.00", "barCouncilNumber": f"KAR/{mark}"}
                lawyer = await call(
                    "POST", "/lawyer/register", {**who, **papers, "email": f"l{mark}@example.com"}
                )
                lawyer_id = lawyer["user"]["id"]
                await call("PATCH", f"/lawyer/{lawyer_id}/verify", {}, admin["accessToken"])
                await call("PATCH", "/lawyer/availability", {"isOnline": True}, lawyer["accessToken"])
                await call("POST", "/wallet/recharge", {"amount": "10000.00"}, user["accessToken"])
                session = await call("POST", "/consult/start", {"lawyerId": lawyer_id}, user["accessToken"])
                return (session["sessionId"], user["accessToken"]), (
                    session["sessionId"],
                    lawyer["accessToken"],
                )

        for sides in await asyncio.gather(*(one(n) for n in range(count))):
            seats += sides
    return seats


def many_files() -> None:
    """A socket is a file: raise our limit, and that of the processes we start, as far as we may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def made_up(count: int) -> list[Seat]:
    """Seats at a relay, which knows neither people nor sessions; the ids are as long as ours."""
    return [(session_id, "") for _ in range(count) for session_id in [secrets.token_hex(16)] * 2]


async def throughput(targets: list[Target], directory: Path, rounds: int, seconds: float) -> None:
    """As fast as each goes: 50 sessions, both sides keep 16 messages under way. The targets take turns."""
    print(
        f"\n-- throughput: 50 sessions, 100 sockets, 16 messages under way on each, {rounds} rounds of {seconds:g} s"
    )
    rates: dict[str, list[float]] = {target.name: [] for target in targets}
    costs: dict[str, list[float]] = {target.name: [] for target in targets}
    for _ in range(rounds):
        for target in targets:
            async with load_of(directory) as load:
                await load("connect", port=target.port, seats=target.seats[:100])
                cpu, began = target.cpu_s(), time.perf_counter()
                result = await load("closed", window=16, warm_s=1, seconds=seconds)
                cpu, took = target.cpu_s() - cpu, time.perf_counter() - began
            rate = result["acks"] / result["seconds"]
            all_of_it = rate * (seconds + 1)
            rates[target.name].append(rate)
            costs[target.name].append(cpu / all_of_it)
            print(
                f"{target.name:16} {rate:8.0f} messages/s   ack ms p50 {result['ack_ms'][0]:7.2f} p99 {result['ack_ms'][1]:7.2f}"
                f"   server {cpu / took:4.0%} of a core, {1e6 * cpu / all_of_it:5.0f} us a message"
                f"   load {result['load_cpu']:4.0%}   lost {result['lost']}"
            )
    bare_rate = statistics.median(rates["python-socketio"])
    bare_cost = statistics.median(costs["python-socketio"])
    for name, found in rates.items():
        print(
            f"median {name:16} {statistics.median(found):8.0f} messages/s = {statistics.median(found) / bare_rate:.2f} of bare "
            f"python-socketio; CPU a message {statistics.median(costs[name]) / bare_cost:.2f} of its"
        )


async def latency(targets: list[Target], directory: Path, rounds: int, seconds: float) -> None:
    """500 messages a second over 500 sessions."""
    print(f"\n-- latency: 500 messages/s over 500 sessions, 1,000 sockets, {rounds} rounds of {seconds:g} s")
    for _ in range(rounds):
        for target in targets:
            async with load_of(directory) as load:
                await load("connect", port=target.port, seats=target.seats[:1_000])
                cpu = target.cpu_s()
                result = await load("open", rate=500, seconds=seconds)
                cpu = target.cpu_s() - cpu
            print(
                f"{target.name:16} ack ms p50 {result['ack_ms'][0]:6.2f} p99 {result['ack_ms'][1]:6.2f} p99.9 {result['ack_ms'][2]:6.2f}"
                f"   peer ms p50 {result['peer_ms'][0]:6.2f} p99 {result['peer_ms'][1]:6.2f} p99.9 {result['peer_ms'][2]:6.2f}"
                f"   server {cpu / result['seconds']:4.0%} of a core   load {result['load_cpu']:4.0%}   lost {result['lost']}"
            )


async def idle(targets: list[Target], directory: Path, count: int) -> None:
    """What connections that have joined and say nothing take of memory, and what it costs when 1,000 of them go."""
    print(f"\n-- idle: {count:,} connections, joined; then 1,000 of them cut at once")
    for target in targets:
        async with load_of(directory) as load:
            # The first connections make the process grow for good; they are not what the next thousand cost.
            await load("connect", port=target.port, seats=target.seats[:100])
            before = target.rss_kb()
            # A person has several devices, so that the preparations take minutes and not hours.
            seats = (target.seats * (count // len(target.seats) + 1))[100:count]
            await load("connect", port=target.port, seats=seats)
            await asyncio.sleep(3)
            after = target.rss_kb()
            calm = await _cpu_during(target, 4)
            await load("drop", count=0)
            cpu = target.cpu_s()
            await load("drop", count=1_000)
            await asyncio.sleep(4)
            cpu = target.cpu_s() - cpu
            print(
                f"{target.name:16} {(after - before) / len(seats):6.1f} KB a connection   idle {calm / 4:5.1%} of a core"
                f"   a disconnect {1e3 * max(0.0, cpu - calm * 0.75) / 1_000:6.3f} ms of CPU"
            )


async def _cpu_during(target: Target, seconds: float) -> float:
    cpu = target.cpu_s()
    await asyncio.sleep(seconds)
    return target.cpu_s() - cpu


async def flood(directory: Path, rounds: int, seconds: float) -> None:
    """The p99 of 100 sessions at 200 messages a second, with and without one client that sends 1,000 a second and comes back at once
    when it is sent away; at a server without paces, and at one with those that ship.
    """
    print(
        f"\n-- flood: 200 messages/s over 100 sessions; every other time one more client sends 1,000/s; {rounds} rounds"
    )
    async with tarazu(directory, "no-paces") as free, tarazu(directory, "paces", RATE_LIMITS="on") as paced:
        for target in (free, paced):
            target.seats = await sessions(target, 101)
        found = {
            name: await _flooded(target, directory, rounds, seconds)
            for name, target in (("without paces", free), ("with paces", paced))
        }
    for name, times in found.items():
        for k, what in enumerate(("ack", "peer")):
            alone, beside = (statistics.median(pair[k] for pair in times[rate]) for rate in (0, 1_000))
            print(
                f"median p99 {what}, {name}: {alone:.2f} ms alone, {beside:.2f} ms beside the flood ({beside / alone - 1:+.0%})"
            )


async def _flooded(
    target: Target, directory: Path, rounds: int, seconds: float
) -> dict[int, list[tuple[float, float]]]:
    found: dict[int, list[tuple[float, float]]] = {0: [], 1_000: []}
    async with load_of(directory) as load:
        await load("connect", port=target.port, seats=target.seats[2:202])
        for k in range(rounds):
            for hostile in (0, 1_000) if k % 2 else (1_000, 0):
                cpu = target.cpu_s()
                result = await load(
                    "flooded",
                    port=target.port,
                    seat=target.seats[0],
                    rate=200,
                    seconds=seconds,
                    flood=hostile,
                )
                cpu = target.cpu_s() - cpu
                found[hostile].append((result["ack_ms"][1], result["peer_ms"][1]))
                print(
                    f"{target.name:9} {hostile:5} hostile events/s ({result.get('sent_away', 0)} times sent away)   ack ms p50 {result['ack_ms'][0]:6.2f} p99 {result['ack_ms'][1]:6.2f}"
                    f"   peer ms p50 {result['peer_ms'][0]:6.2f} p99 {result['peer_ms'][1]:6.2f}"
                    f"   server {cpu / result['seconds']:4.0%} of a core   load {result['load_cpu']:4.0%}   lost {result['lost']}"
                )
    return found


async def join(target: Target, directory: Path, rounds: int) -> None:
    """Connect and join with 200 missed messages, one after the other, while 1,000 others are online and billed sessions tick."""
    print(f"\n-- join: 200 missed messages, 1,000 clients online, {rounds} times")
    async with load_of(directory) as load:
        await load("connect", port=target.port, seats=target.seats[:1_000])
        result = await load(
            "catch_up", port=target.port, seats=target.seats[1_000:], missed=200, rounds=rounds
        )
    print(
        f"join ms p50 {result['join_ms'][0]:6.2f} p99 {result['join_ms'][1]:6.2f} max {result['join_ms'][2]:6.2f}"
        f"   with connecting p50 {result['all_ms'][0]:6.2f} p99 {result['all_ms'][1]:6.2f}"
        f"   {result['messages']} messages an answer, {result['bytes'] / 1024:.0f} KB"
    )


async def profile(targets: list[Target], directory: Path, out: Path, seconds: float) -> None:
    """py-spy's samples of our server under the throughput load, folded, into `out`."""
    target = targets[0]
    async with load_of(directory) as load:
        await load("connect", port=target.port, seats=target.seats[:100])
        command = (
            "py-spy",
            "record",
            "-p",
            str(target.process.pid),
            "-d",
            str(int(seconds)),
            "-r",
            "200",
            "-f",
            "raw",
            "-o",
            str(out),
        )
        spy = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        await load("closed", window=16, warm_s=1, seconds=seconds)
        await spy.wait()
    print(f"\n-- profile: {out}")


async def run(arguments: argparse.Namespace, directory: Path) -> None:
    phases: list[str] = arguments.phases.split(",")
    makers: list[Callable[[Path], Any]] = [tarazu]
    print(f"load {os.getloadavg()[0]:.1f}")
    if set(phases) == {"flood"}:
        makers = []
    if set(phases) & {"throughput", "latency", "idle"}:
        makers.append(bare)
        if shutil.which("node") and (ROOT / "bench/js/node_modules").is_dir():
            makers.append(node)
        else:
            print("NODE IS MISSING (or `npm ci` in bench/js): its relay is left out", file=sys.stderr)
    async with AsyncExitStack() as stack:
        targets = [await stack.enter_async_context(make(directory)) for make in makers]
        for target in targets:
            more = 20 if "join" in phases else 0
            target.seats = await sessions(target, 500 + more) if target.name == "tarazu" else made_up(500)
        work: dict[str, Callable[[], Awaitable[None]]] = {
            # First, while no process has grown yet.
            "idle": lambda: idle(targets, directory, arguments.idle),
            "throughput": lambda: throughput(targets, directory, arguments.rounds, arguments.seconds),
            "latency": lambda: latency(targets, directory, arguments.rounds, 2 * arguments.seconds),
            "flood": lambda: flood(directory, 2 * arguments.rounds, 2 * arguments.seconds),
            "join": lambda: join(targets[0], directory, 100 * arguments.rounds),
            "profile": lambda: profile(targets, directory, arguments.out, 2 * arguments.seconds),
        }
        for name, begin in work.items():
            if name in phases:
                await begin()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--phases", default="idle,throughput,latency,join,flood")
    parser.add_argument("--idle", type=int, default=5_000, help="connections of the phase `idle`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument(
        "--dir", type=Path, default=None, help="where the database lies: a real disk, not tmpfs"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("chat.folded"), help="where `profile` (py-spy) writes"
    )
    arguments = parser.parse_args()
    many_files()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        asyncio.run(run(arguments, Path(directory)))


if __name__ == "__main__":
    main()
