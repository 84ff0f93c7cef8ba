"""A cluster of real processes in which everything breaks while people talk and pay; after each round all of it is compared."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import redis

from tests.e2e.chaos import living
from tests.e2e.chaos_doors import PATIENCE_S, RoamingWorld, people_of_cluster
from tests.e2e.chaos_faults import Breaker, Fault
from tests.e2e.chaos_logs import Logs, may_lose_answers, takeovers, told, unexplained
from tests.e2e.chaos_roaming import RoamingPair, assert_one_at_a_time
from tests.e2e.people import minor
from tests.support.cluster import Cluster
from tests.support.server_process import QUICK

#: Every one of these pairs has a lawyer who also talks with somebody else's user.
_SHARED: Final = 6
_RATES: Final = ("60.00", "37.77", "120.00", "1.00")
_COMMISSION_BP: Final = 1250
_LOCK_TTL_MS: Final = 60_000
#: So many who are free start and end a consultation at the end of each round.
_STARTED_AT_REST: Final = 3
#: What Redis says of a key that has just expired.
_NO_KEY: Final = -2
SETTINGS: Final = {
    **QUICK,
    "MIN_SECONDS": "1",
    "COMMISSION_PERCENT": "12.5",
    "ACCESS_TOKEN_MINUTES": "600",
}


@dataclass(frozen=True)
class Tally:
    """How much was looked at: a clean verdict over nothing would be worth nothing."""

    sessions: int = 0
    messages: int = 0
    recharges: int = 0
    takeovers: int = 0
    late_starts: int = 0

    def __sub__(self, other: "Tally") -> "Tally":
        return Tally(*(a - b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass
class Campaign:
    """One cluster and its people, for a number of rounds."""

    cluster: Cluster
    world: RoamingWorld
    pairs: list[RoamingPair]
    breaker: Breaker
    logs: Logs
    taken_over: int = 0
    #: Faults since the cluster was started: what is written at the very end may come of any of the last round.
    _last: tuple[Fault, ...] = ()
    #: (name of a lock, its session) → when it expires, for sessions that are over.
    _left_locks: dict[tuple[bytes, bytes], float] = field(default_factory=dict)

    # -- a round ---------------------------------------------------------------------------------------------------

    async def round(self, faults: tuple[Fault, ...]) -> Tally:
        """Everybody lives while `faults` happen. Raises when anything is not as it must be; what was looked at, otherwise."""
        before = self.tally()
        kept = not any(may_lose_answers(fault) for fault in (*self._last, *faults))
        for pair in self.pairs:
            pair.answers_are_kept = kept
        self._last = faults
        async with living(self.pairs):
            await self.breaker.carry_out(faults)
            # A moment of life after the last repair.
            await asyncio.sleep(0.4)
        await self._quiet()
        await self._each(lambda pair: pair.reconcile())
        await self._each(lambda pair: pair.check_all(self.breaker.outages))
        assert_one_at_a_time(self.pairs)
        await self._nobody_is_busy_without_a_session()
        await self._who_is_free_can_start()
        await asyncio.to_thread(self._no_lock_outlives_its_session)
        await self._books_are_settled()
        self._logs_are_explained(faults)
        return self.tally() - before

    async def finish(self) -> None:
        """Everybody goes on and ends; what ended long ago is as it was; both sides' sums are right."""
        await self._each(lambda pair: pair.end())
        # Nothing is left of the faults: everybody is free and can start.
        by_lawyer: dict[str, list[RoamingPair]] = {}
        for pair in self.pairs:
            by_lawyer.setdefault(pair.lawyer.id, []).append(pair)
        await asyncio.gather(*map(_in_turn, by_lawyer.values()))
        await self._each(lambda pair: pair.check_all(self.breaker.outages))
        await self._each(lambda pair: pair.check_settled())
        assert_one_at_a_time(self.pairs)
        for lawyer_id in {pair.lawyer.id for pair in self.pairs}:
            await self._earned(lawyer_id)
        await self._books_are_settled()
        self._logs_are_explained(self._last)

    def tally(self) -> Tally:
        messages = [sent for pair in self.pairs for sent in pair.messages]
        return Tally(
            sessions=sum(len(pair.sessions) for pair in self.pairs),
            messages=sum(sent.ack is not None for sent in messages),
            recharges=sum(len(pair.recharges) for pair in self.pairs),
            takeovers=self.taken_over,
            late_starts=sum(pair.late_starts for pair in self.pairs),
        )

    async def _each(self, work: Callable[[RoamingPair], Awaitable[None]]) -> None:
        async with asyncio.TaskGroup() as group:
            for pair in self.pairs:
                group.create_task(_done(work(pair)))

    # -- at rest ---------------------------------------------------------------------------------------------------

    async def _quiet(self) -> None:
        """Return when every process is ready, hears the others and takes all of them for alive."""
        everybody = float(len(self.cluster.processes))

        async def all_see_each_other() -> str | None:
            await self.breaker.mend()
            for door in self.world.doors.all:
                async with self.world.anyone._http.get(door.url + "/readyz") as response:
                    if response.status != 200:
                        return f"{door.process.name}: {await response.text()}"
                metrics = await self._metrics(door.url)
                if (metrics["tarazu_leases_live"], metrics["tarazu_bus_connected"]) != (everybody, 1.0):
                    return f"{door.process.name}: {metrics}"
            return None

        await self._until(all_see_each_other)

    async def _metrics(self, url: str) -> dict[str, float]:
        async with self.world.anyone._http.get(url + "/metrics") as response:
            lines = (await response.text()).splitlines()
        rows = (line.partition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in rows if "{" not in name}

    async def _nobody_is_busy_without_a_session(self) -> None:
        """What the processes bill, together, is what lives; and who talks with nobody is free."""

        async def the_same() -> str | None:
            actives = await asyncio.gather(*(pair.user.api.get("/consult/active") for pair in self.pairs))
            live = {active["sessionId"] for active in actives if active is not None}
            talking = {active["lawyerId"] for active in actives if active is not None}
            billed = [
                (await self._metrics(door.url))["tarazu_sessions_live"] for door in self.world.doors.all
            ]
            if sum(billed) != len(live):
                return f"{billed} are billed, {len(live)} live"
            for lawyer_id in {pair.lawyer.id for pair in self.pairs}:
                shown = (await self.pairs[0].user.api.get(f"/lawyer/{lawyer_id}"))["isBusy"]
                if shown != (lawyer_id in talking):
                    return f"lawyer {lawyer_id} is shown as busy: {shown}"
            return None

        await self._until(the_same)

    async def _who_is_free_can_start(self) -> None:
        talking = {pair.lawyer.id for pair in self.pairs if pair.session_id is not None}
        free = [pair for pair in self.pairs if pair.lawyer.id not in talking]
        by_lawyer = {pair.lawyer.id: pair for pair in free}
        first = list(by_lawyer.values())[:_STARTED_AT_REST]
        await asyncio.gather(*(pair.consult_once_more() for pair in first))

    async def _until(self, condition: Callable[[], Awaitable[str | None]]) -> None:
        """Wait for it to say nothing."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                wrong = await condition()
            except aiohttp.ClientError as exc:
                wrong = repr(exc)
            if wrong is None:
                return
            assert time.monotonic() < deadline_s, wrong
            await asyncio.sleep(0.1)

    def _no_lock_outlives_its_session(self) -> None:
        """A lock in Redis whose session is over may wait for its end there, but nobody renews it."""
        live = {pair.session_id for pair in self.pairs}
        now_s = time.monotonic()
        left: dict[tuple[bytes, bytes], float] = {}
        with redis.Redis.from_url(self.cluster.redis.url) as client:
            for name in client.scan_iter("*{lock}:*", count=1_000):
                token, ttl_ms = client.get(name), client.pttl(name)
                if token is None or ttl_ms == _NO_KEY:
                    continue
                assert 0 <= ttl_ms <= _LOCK_TTL_MS, f"{name!r} expires in {ttl_ms} ms"
                if token.decode() not in live:
                    expires_s = left[name, token] = now_s + ttl_ms / 1000
                    known_s = self._left_locks.get((name, token), expires_s)
                    assert expires_s <= known_s + 1, f"{name!r} is renewed, and its session {token!r} is over"
        self._left_locks = left

    async def _books_are_settled(self) -> None:
        # The stand-in has no snapshot: on a busy machine many readings meet a tick.
        code, output = await asyncio.to_thread(self.cluster.settled_books, 3 * PATIENCE_S)
        assert code == 0, output

    def _logs_are_explained(self, faults: tuple[Fault, ...]) -> None:
        lines = self.logs.news()
        self.taken_over += takeovers(lines)
        bad = unexplained(lines, faults)
        assert not bad, "\n".join(map(told, bad[:10]))

    # -- in the end ------------------------------------------------------------------------------------------------

    async def _earned(self, lawyer_id: str) -> None:
        pairs = self._with(lawyer_id)
        gross = [minor(session["totalAmount"]) for pair in pairs for session, _ in pair.settled.values()]
        net = sum(amount - amount * _COMMISSION_BP // 10_000 for amount in gross)
        summary = await pairs[0].lawyer.api.get("/lawyer/earnings/summary")
        assert minor(summary["totalEarnings"]) == net, "a lawyer earned otherwise than the sessions cost"

    def _with(self, lawyer_id: str) -> list[RoamingPair]:
        return [pair for pair in self.pairs if pair.lawyer.id == lawyer_id]


async def _in_turn(pairs: list[RoamingPair]) -> None:
    for pair in pairs:
        await pair.consult_once_more()


async def _done(work: Awaitable[None]) -> None:
    await work


@asynccontextmanager
async def campaign(
    directory: Path, *, seed: str, pairs: int, webs: int, store_timeout_s: int = 3
) -> AsyncIterator[Campaign]:
    """Everything started, everybody in a consultation. At the end all is stopped; the files stay."""
    rng = random.Random(seed)
    cluster = Cluster(directory, webs=webs, store_timeout_s=store_timeout_s, **SETTINGS)
    logs = Logs([process.log_path for process in cluster.processes])
    for process in cluster.processes:
        # The campaign reads the logs itself, round by round.
        process.tolerated = lambda _event: True
    await asyncio.to_thread(cluster.__enter__)
    failure: BaseException | None = None
    try:
        async with people_of_cluster(cluster, rng) as world:
            people = await _pairs_of(world, rng, pairs, commit_s=store_timeout_s)
            yield Campaign(cluster, world, people, Breaker(cluster, world.doors), logs)
    except BaseException as exc:
        failure = exc
        raise
    finally:
        kind = type(failure) if failure else None
        await asyncio.to_thread(cluster.__exit__, kind, failure, None)


async def _pairs_of(
    world: RoamingWorld, rng: random.Random, count: int, *, commit_s: int
) -> list[RoamingPair]:
    """`count` pairs. Some have money for a few seconds only, some share a lawyer."""
    pairs: list[RoamingPair] = []
    for number in range(count):
        own = random.Random(rng.random())
        user = await world.user()
        shares = number % _SHARED == _SHARED - 1
        lawyer = pairs[-1].lawyer if shares else await world.lawyer(own.choice(_RATES))
        if shares:
            pairs[-1].shares_lawyer = True
        pairs.append(RoamingPair(user, lawyer, own, shares_lawyer=shares, commit_s=commit_s))
    await asyncio.gather(*(pair.begin("5.00" if n % 5 == 0 else "500.00") for n, pair in enumerate(pairs)))
    return pairs
