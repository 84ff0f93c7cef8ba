"""What benchmarks of the production path share: consultations of made-up people, and what each process says and costs."""

import asyncio
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp

from tests.e2e.people import Person, World
from tests.support.server_process import ServerProcess

_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
#: Nothing waited for takes this long; it ends a run that hangs.
PATIENCE_S: Final = 60.0

#: Enough money for any run, at the lowest cost a second.
MONEY: Final = "10000.00"
RATE: Final = "1.00"


def machine() -> str:
    """What the figures depend on, and who else was at work."""
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return f"{os.cpu_count()} cores, {platform.python_implementation()} {platform.python_version()}, load {loads}"


def cpu_s(pid: int) -> float:
    """Of all threads of a process since its start, in steps of the kernel's tick (10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that `part` of them do not exceed; of nothing, nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * round(part * 1000) // 1000) - 1))]


async def metrics_of(http: aiohttp.ClientSession, url: str) -> dict[str, float]:
    """Every series of a process, labels included in its name."""
    async with http.get(url + "/metrics") as response:
        lines = (await response.text()).splitlines()
    return {
        name: float(value) for line in lines if line[0] != "#" for name, _, value in (line.rpartition(" "),)
    }


async def pairs(world: World, count: int) -> list[tuple[Person, Person]]:
    """Users with money and lawyers who are online."""
    return list(await asyncio.gather(*(world.pair(MONEY, RATE) for _ in range(count))))


async def start_all(
    people: Sequence[tuple[Person, Person]], webs: Sequence[ServerProcess], *, at_once: int = 16
) -> list[str]:
    """Start a consultation for each pair, through each its web process; their ids."""
    gate = asyncio.Semaphore(at_once)

    async def start(user: Person, lawyer: Person, web: ServerProcess) -> str:
        async with gate:
            answer = await user.api.call_at(web.url, "POST", "/consult/start", {"lawyerId": lawyer.id})
            if answer.status != 201:
                raise SystemExit(f"a start was answered with {answer.status}: {answer.json}")
            session_id: str = answer.json["sessionId"]
            return session_id

    started = (start(*pair, web) for pair, web in zip(people, webs, strict=True))
    return list(await asyncio.gather(*started))


async def end_all(people: Sequence[tuple[Person, Person]], ids: Sequence[str], *, at_once: int = 16) -> None:
    gate = asyncio.Semaphore(at_once)

    async def end(user: Person, session_id: str) -> None:
        async with gate:
            await user.end(session_id)

    await asyncio.gather(*(end(user, id_) for (user, _), id_ in zip(people, ids, strict=True)))
