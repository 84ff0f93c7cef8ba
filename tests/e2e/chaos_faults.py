"""What breaks, when and for how long. The seed alone says it: `draw` needs no cluster, `Breaker` needs no luck."""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pymongo
from pymongo.errors import PyMongoError

from tests.e2e.chaos_doors import PATIENCE_S, Doors
from tests.e2e.chaos_roaming import Orphaned, Outages
from tests.e2e.people import wall_ms
from tests.support.cluster import Cluster
from tests.support.server_process import ServerDidNotStart, ServerProcess

#: How often each kind is drawn. `store` and `redis` come back on their data.
WEIGHTS: Final = {
    "kill web": 18,
    "kill web, and again while it starts": 7,
    "kill all webs": 5,
    "kill worker": 6,
    "kill redis": 9,
    "kill store": 12,
    "freeze web": 16,
    "freeze worker": 2,
    "freeze redis": 7,
    "freeze store": 8,
    "flush redis": 8,
    "deploy web": 10,
}
#: Of freezes, in a long run: one of so many lasts for up to a minute.
_LONG: Final = 25
#: Who watches a process shuts its door after so long without an answer; two failed checks of the proxy in `deploy/` take 3 s.
_WATCHED_S: Final = (0.5, 3.0)
#: A process's sessions are read from the store this long after its death: before anybody can take them up.
_UNTOUCHED_S: Final = 0.5


@dataclass(frozen=True)
class Fault:
    """One fault, drawn. `at_s` counts from the moment when everybody is busy."""

    kind: str
    at_s: float
    #: Until it is repaired: started again, thawed.
    for_s: float
    #: Which web process, where one is meant.
    web: int = 0
    #: Until the door of a frozen process is shut, or the second kill of a starting one.
    then_s: float = 0.0

    def __str__(self) -> str:
        name = (
            self.kind.replace("web", f"web{self.web + 1}")
            if self.kind.endswith("web") or ", " in self.kind
            else self.kind
        )
        return f"{name} at {self.at_s:.1f} for {self.for_s:.1f}"


def draw(rng: random.Random, *, webs: int, long: bool) -> tuple[Fault, ...]:
    """One to three faults; some of them at the same instant."""
    faults: list[Fault] = []
    count = rng.choices((1, 2, 3), (45, 35, 20))[0]
    while len(faults) < count:
        kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        faults.append(drawn(kind, rng, webs=webs, long=long))
    if count > 1 and rng.random() < 0.35:
        faults[1] = Fault(**{**vars(faults[1]), "at_s": faults[0].at_s})
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


def drawn(kind: str, rng: random.Random, *, webs: int, long: bool = False) -> Fault:
    """A fault of this kind at a drawn instant."""
    if kind.startswith("freeze"):
        for_s = rng.uniform(1, 60) if long and rng.randrange(_LONG) == 0 else rng.uniform(1, 4)
        then_s = rng.uniform(*_WATCHED_S)
    elif "again" in kind:
        for_s, then_s = rng.uniform(0.0, 1.0), rng.uniform(0.1, 1.2)
    else:
        for_s, then_s = rng.uniform(0.0, 1.8), 0.0
    return Fault(kind, rng.uniform(0.2, 1.5), for_s, rng.randrange(webs), then_s)


@dataclass
class Breaker:
    """Carries faults out. Two that want the same process take turns."""

    cluster: Cluster
    doors: Doors
    outages: Outages = field(default_factory=Outages)
    _busy: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def carry_out(self, faults: tuple[Fault, ...]) -> None:
        """Returns when every one is over and what it broke runs again."""
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                group.create_task(self._one(fault))

    async def _one(self, fault: Fault) -> None:
        # The instant is what is drawn; there is nothing to wait for.
        await asyncio.sleep(fault.at_s)
        web = self.cluster.webs[fault.web % len(self.cluster.webs)]
        worker = self.cluster.worker
        assert worker is not None
        match fault.kind:
            case "kill web":
                await self._kill_web(web, fault.for_s)
            case "kill web, and again while it starts":
                await self._kill_web(web, fault.for_s, again_after_s=fault.then_s)
            case "kill all webs":
                await self._kill_all(fault.for_s)
            case "kill worker":
                async with self._alone(worker.name):
                    await asyncio.to_thread(worker.kill)
                    await asyncio.sleep(fault.for_s)
                    worker.spawn()
            case "deploy web":
                await self._deploy(web, fault.for_s)
            case "freeze web":
                await self._freeze_web(web, fault.for_s, watched_s=fault.then_s)
            case "freeze worker":
                async with self._alone(worker.name):
                    self.cluster.freeze(worker)
                    await self._wait(fault.for_s, finally_=lambda: self.cluster.thaw(worker))
            case "kill store":
                async with self._storeless():
                    await asyncio.to_thread(self.cluster.mongo.kill)
                    await asyncio.sleep(fault.for_s)
                    await asyncio.to_thread(self.cluster.mongo.start)
            case "freeze store":
                async with self._storeless():
                    self.cluster.mongo.freeze()
                    await self._wait(fault.for_s, finally_=self.cluster.mongo.thaw)
            case "kill redis":
                async with self._alone("redis"):
                    await asyncio.to_thread(self.cluster.redis.kill)
                    await asyncio.sleep(fault.for_s)
                    await asyncio.to_thread(self.cluster.redis.start)
            case "freeze redis":
                async with self._alone("redis"):
                    self.cluster.redis.stop()
                    await self._wait(fault.for_s, finally_=self.cluster.redis.cont)
            case "flush redis":
                async with self._alone("redis"):
                    await asyncio.to_thread(self.cluster.redis.flush)
            case _:
                raise ValueError(fault.kind)

    @asynccontextmanager
    async def _alone(self, *names: str) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for name in sorted(names):
                await stack.enter_async_context(self._busy[name])
            yield

    @asynccontextmanager
    async def _storeless(self) -> AsyncIterator[None]:
        async with self._alone("store"):
            broken_ms = wall_ms()
            yield
            self.outages.storeless.append((broken_ms, wall_ms()))

    @staticmethod
    async def _wait(for_s: float, *, finally_: Callable[[], None]) -> None:
        try:
            await asyncio.sleep(for_s)
        finally:
            finally_()

    # -- web processes ---------------------------------------------------------------------------------------------

    async def _kill_web(
        self, web: ServerProcess, down_s: float, *, again_after_s: float | None = None
    ) -> None:
        async with self._alone(web.name):
            door = self.doors.of(web)
            door.close()
            await asyncio.to_thread(web.kill)
            killed_ms = wall_ms()
            await self._look_for_orphans(killed_ms)
            await asyncio.sleep(down_s)
            if again_after_s is not None:
                web.spawn()
                await asyncio.sleep(again_after_s)
                await asyncio.to_thread(web.kill)
            await self._start(web)

    async def _kill_all(self, down_s: float) -> None:
        webs = self.cluster.webs
        async with self._alone(*(web.name for web in webs)):
            for web in webs:
                self.doors.of(web).close()
            await asyncio.gather(*(asyncio.to_thread(web.kill) for web in webs))
            killed_ms = wall_ms()
            await asyncio.sleep(down_s)
            serving_ms = await asyncio.gather(*(self._start(web) for web in webs))
            self.outages.dark.append((killed_ms, min(serving_ms)))

    async def _deploy(self, web: ServerProcess, down_s: float) -> None:
        async with self._alone(web.name):
            self.doors.of(web).close()
            web.terminate()
            code = await asyncio.to_thread(web.wait, PATIENCE_S)
            assert code == 0, f"{web.name} was asked to stop and ended with {code}"
            await asyncio.sleep(down_s)
            await self._start(web)

    async def _freeze_web(self, web: ServerProcess, for_s: float, *, watched_s: float) -> None:
        async with self._alone(web.name):
            door = self.doors.of(web)
            self.cluster.freeze(web)
            try:
                await asyncio.sleep(min(for_s, watched_s))
                if for_s > watched_s:
                    door.shut()
                    await asyncio.sleep(for_s - watched_s)
            finally:
                self.cluster.thaw(web)
            door.open()

    async def _start(self, web: ServerProcess) -> int:
        """As a supervisor does: a process that finds no store ends, and is started again. When it was seen to serve."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                await asyncio.to_thread(web.start)
                break
            except ServerDidNotStart:
                assert time.monotonic() < deadline_s, web.log[-4_000:]
                # No store just now. What else it may have been, its log tells.
                await asyncio.sleep(0.2)
        self.doors.of(web).open()
        return wall_ms()

    async def mend(self) -> None:
        """A worker that found no store has ended; nobody waits for its start as for a web process's."""
        worker = self.cluster.worker
        if worker is not None and not worker.is_running:
            await asyncio.to_thread(worker.wait, 1)
            worker.spawn()

    # -- whose sessions --------------------------------------------------------------------------------------------

    async def _look_for_orphans(self, killed_ms: int) -> None:
        """Read from the store which sessions the dead process billed. Without a store there is nothing to be read, nor taken up."""
        try:
            found = await asyncio.to_thread(self._orphans)
        except PyMongoError:
            return
        self.outages.orphaned.append(Orphaned(killed_ms, found))

    def _orphans(self) -> frozenset[str]:
        running = [web for web in self.cluster.webs if web.is_running]
        if any(map(self.cluster.is_frozen, running)):
            return frozenset()
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
            self.cluster.mongo.url(self.cluster.database), timeoutMS=400
        )
        with client:
            database = client[self.cluster.database]
            before, _, now = (_beats(database), time.sleep(_UNTOUCHED_S), _beats(database))
            silent = {owner for owner, beat in before.items() if now.get(owner) == beat}
            if len(now) - len(silent) < len(running):
                # One of the living beats slowly: who is dead cannot be told.
                return frozenset()
            return frozenset(
                hold[0].removeprefix("consult:")
                for account in database["ledger_accounts"].find({"owners": {"$in": sorted(silent)}})
                for hold in account["holds"]
                if hold[4] in silent
            )


def _beats(database: Any) -> dict[str, int]:
    return {lease["_id"]: lease["beat"] for lease in database["leases"].find({"role": "web"})}
