"""No session is lost when its process dies: each process beats, watches the others, and takes up what a dead one billed.

Correct without any of this, since every write of a hold is fenced by epoch and owner (LEDGER 3): a process that was taken for dead
and lives is refused by the ledger and lets go. This decides only how *soon* somebody else goes on.
"""

import asyncio
import hashlib
import logging
from typing import Final, Protocol

from billing_engine.clock import Clock
from billing_engine.consultations.engine import Engine
from billing_engine.consultations.liveness import Liveness
from billing_engine.consultations.ports import Lease, Leases, Sessions
from billing_engine.consultations.recovery import HOLDS, Recovery
from billing_engine.consultations.rules import Rules
from billing_engine.errors import BillingError, Unavailable
from billing_engine.ledger.service import Ledger
from billing_engine.stopping import stop_tasks

log = logging.getLogger(__name__)

#: Who bills sessions, and so may take others' up.
WEB: Final = "web"
WORKER: Final = "worker"
#: How often one of the living looks for what fell between two processes.
SWEEP_MS: Final = 30_000
#: Rounds in which the survivors share a dead process's sessions; then whoever sees one takes it.
_SHARED_ROUNDS: Final = 2
#: How many times `LEASE_MS` a process that starts waits for those who may be dead.
_LEASES_WAITED_FOR: Final = 5
#: After a round that failed.
_RETRY_MS: Final = 1_000


class TakeoverObserver(Protocol):
    """Hears of takeovers; must not raise."""

    def took_over(self, sessions: int, after_ms: int) -> None:
        """So many sessions of a process that is gone go on here, this long after that was noticed."""
        ...


class Takeover:
    """The lease of this process, and its eye on the others."""

    def __init__(
        self,
        *,
        owner: str,
        role: str,
        leases: Leases,
        ledger: Ledger,
        sessions: Sessions,
        engine: Engine,
        recovery: Recovery,
        clock: Clock,
        rules: Rules,
        observer: TakeoverObserver | None = None,
    ) -> None:
        self._owner = owner
        self._role = role
        self._leases = leases
        self._ledger = ledger
        self._sessions = sessions
        self._engine = engine
        self._recovery = recovery
        self._clock = clock
        self._rules = rules
        self._observer = observer
        self._liveness = Liveness(owner, lease_ms=rules.lease_ms)
        self._beat = 0
        self._beaten_at_ms: int | None = None
        self._sweep_at_ms = 0
        self._rounds: dict[str, int] = {}
        self._noticed_ms: dict[str, int] = {}
        self._burying: dict[str, asyncio.Task[None]] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def living(self) -> int:
        """Processes that hold a lease, this one included, as far as it knows."""
        return 1 + len(self._liveness.alive())

    def may_live(self, owner: str) -> bool:
        """Whether another process holds a lease that is not known to be stale."""
        return owner in self._liveness.alive()

    async def begin(self) -> int:
        """Take a lease, take up what belongs to nobody, and begin to watch; how many sessions go on here.

        The lease comes before the first hold: a process without one counts as gone.

        Raises:
            Unavailable: the store does not answer; a server that cannot recover does not serve.
        """
        await self._write_beat()
        self._liveness.look(await self._leases.all(), self._clock.now_ms())
        self._sweep_at_ms = self._clock.now_ms() + SWEEP_MS
        taken_up = await self._recovery.run(self._liveness.alive())
        self._task = asyncio.create_task(self._run(), name="takeover")
        return taken_up

    async def know_the_others(self) -> None:
        """After `begin`: return when each other process was seen to live, or is buried, its sessions going on with their pause.

        Served before that, an end or a message of a session whose process is dead would make the time in which nobody served
        it part of the bill, since either is taken for proof of service. Bounded: who cannot know, serves.
        """
        until_ms = self._clock.now_ms() + _LEASES_WAITED_FOR * self._rules.lease_ms
        while self._liveness.undecided(WEB) and self._clock.now_ms() < until_ms:
            await self._wait(self._rules.beat_ms)

    async def end(self) -> None:
        """Stop watching. The lease stays until `give_up`: sessions are still billed here."""
        await stop_tasks((self._task, self._sweeping, *self._burying.values()))
        self._task = None

    async def give_up(self) -> None:
        """Drop the lease: whatever this process has left, others take up at once. Nothing is billed here any more."""
        try:
            await self._leases.drop(self._owner)
        except Unavailable as exc:
            log.warning("the lease stays until it is stale: %r", exc)

    def look_now(self) -> None:
        """A hint that some process is going: look without waiting for the next beat."""
        self._news.set()

    async def _run(self) -> None:
        failing = False
        while True:
            await self._pause(self._rules.beat_ms)
            try:
                await self._round()
                if failing:
                    log.warning("leases can be read again")
                failing = False
            except Unavailable as exc:
                log.warning("leases cannot be read: %r", exc)
                failing = True
            except Exception:
                log.exception("watching the other processes stumbled")

    async def _round(self) -> None:
        await self._write_beat()
        leases = await self._leases.all()
        now_ms = self._clock.now_ms()
        self._liveness.look(leases, now_ms)
        dead = self._liveness.dead()
        self._forget_the_living({lease.owner for lease in dead})
        # Workers bill nobody: what is left to them is what the sweep finds abandoned.
        for lease in dead if self._role == WEB else ():
            if lease.owner not in self._noticed_ms:
                self._noticed_ms[lease.owner] = now_ms
                how = "stale" if lease in leases else "given up"
                log.warning("a process is gone: its lease is %s", how, extra={"lease": lease.owner})
            if lease.owner not in self._burying:
                # In a task of its own: a beat that waits for a thousand adoptions would look like another death.
                self._burying[lease.owner] = asyncio.create_task(self._bury(lease))
        if now_ms >= self._sweep_at_ms and (self._sweeping is None or self._sweeping.done()):
            self._sweep_at_ms = now_ms + SWEEP_MS
            if self._is_mine("sweep", self._liveness.alive(role=self._role) | {self._owner}):
                self._sweeping = asyncio.create_task(self._sweep())

    def _forget_the_living(self, dead: set[str]) -> None:
        """Who was taken for dead and beats again dies anew another time: noticed then, its sessions shared then."""
        for owner in (self._noticed_ms.keys() | self._rounds.keys()) - dead:
            self._noticed_ms.pop(owner, None)
            self._rounds.pop(owner, None)

    async def _write_beat(self) -> None:
        now_ms = self._clock.now_ms()
        stood_still = self._beaten_at_ms is not None and now_ms - self._beaten_at_ms >= self._rules.lease_ms
        self._beat += 1
        known = await self._leases.beat(Lease(self._owner, self._beat, self._role))
        if (stood_still or not known) and self._beat > 1:
            await self._look_what_is_ours()
        self._beaten_at_ms = self._clock.now_ms()

    async def _look_what_is_ours(self) -> None:
        """Others may have taken our sessions up, and the ledger would refuse us at each one's next tick. Ask it now, with one
        question: who was late has no time for hundreds.
        """
        log.warning(
            "this process was taken for dead, or nearly; it looks whether its sessions are still its own"
        )
        held = await self._ledger.open_holds(HOLDS, owner=self._owner)
        self._engine.look_again(ours={hold.hold_id.removeprefix(HOLDS) for hold in held})

    async def _bury(self, dead: Lease) -> None:
        try:
            if await self._take_over(dead.owner):
                await self._leases.drop(dead.owner, beat=dead.beat)
                self._liveness.buried(dead.owner)
                self._rounds.pop(dead.owner, None)
                self._noticed_ms.pop(dead.owner, None)
        except BillingError as exc:
            log.warning("a dead process's sessions are not all taken up yet: %r", exc)
            await self._wait(_RETRY_MS)
        except Exception:
            log.exception("taking over stumbled")
            await self._wait(_RETRY_MS)
        finally:
            del self._burying[dead.owner]

    async def _take_over(self, owner: str) -> bool:
        """Take up this process's share of what `owner` left; whether nothing is left."""
        held = await self._ledger.open_holds(HOLDS, owner=owner)
        begun = [session for session in await self._sessions.starting() if session.owner == owner]
        if not held and not begun:
            # Between two steps of an end or of giving back there is no hold: finish these, too.
            await self._ledger.recover()
            return True
        rounds = self._rounds[owner] = self._rounds.get(owner, 0) + 1
        ids = [hold.hold_id.removeprefix(HOLDS) for hold in held]
        if rounds <= _SHARED_ROUNDS:
            heirs = self._liveness.alive(role=WEB) | {self._owner}
            ids = [id_ for id_ in ids if self._is_mine(id_, heirs)]
        found = await self._sessions.get_many(ids)
        taken = await self._recovery.take_up([*found.values(), *begun], self._liveness.alive())
        if taken:
            now_ms = self._clock.now_ms()
            log.warning("took over %d sessions of a process that is gone", taken, extra={"lease": owner})
            if self._observer is not None:
                self._observer.took_over(taken, now_ms - self._noticed_ms.get(owner, now_ms))
        return False

    def _is_mine(self, name: str, heirs: frozenset[str]) -> bool:
        """Whether this process is the one of `heirs` that `name` falls to: all of them agree without a word (rendezvous hashing)."""
        return max(heirs, key=lambda heir: _weight(heir, name)) == self._owner

    async def _sweep(self) -> None:
        try:
            if taken := await self._recovery.run(self._liveness.alive()):
                log.warning("the sweep took up %d sessions that nobody billed", taken)
        except Unavailable as exc:
            log.warning("the sweep comes again: %r", exc)
        except Exception:
            log.exception("the sweep stumbled")

    async def _pause(self, duration_ms: int) -> None:
        """Wait for so long, or for `look_now`."""
        self._news.clear()
        await self._wait(duration_ms, self._news)

    async def _wait(self, duration_ms: int, turn: asyncio.Event | None = None) -> None:
        turn = turn or asyncio.Event()
        timer = self._clock.call_at_ms(self._clock.now_ms() + duration_ms, turn.set)
        try:
            await turn.wait()
        finally:
            timer.cancel()


def _weight(heir: str, name: str) -> bytes:
    return hashlib.blake2b(f"{heir}|{name}".encode(), digest_size=8).digest()
