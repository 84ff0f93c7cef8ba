"""Calls with every await in the hands of the test: who goes on next, who dies there, and all that anybody was told."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from chat.calls.model import Call, Signal
from chat.calls.service import CallService
from chat.model import Conversation
from chat.push import Push

SESSION = "ses"
USER = "user"
LAWYER = "lawyer"
#: What became of whoever died.
DEAD = object()


class Turns:
    """Whoever awaits the store waits here until the test lets them on: one at a time."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def turn(self) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        await mine

    async def run(
        self,
        work: list[Coroutine[Any, Any, Any]],
        choose: Callable[[int], int],
        *,
        dies_at: int | None = None,
    ) -> list[Any]:
        """Do all of it at once; `choose(n)` says which of n waiting ones goes on. At the turn `dies_at` that one dies instead.
        What each came to: its result, its error, or `DEAD`.
        """
        tasks = [asyncio.create_task(one) for one in work]
        turns = 0
        while not all(task.done() for task in tasks):
            # Everybody who can goes on as far as the next await.
            for _ in range(4):
                await asyncio.sleep(0)
            self._waiting = [one for one in self._waiting if not one.done()]
            if not self._waiting:
                continue
            one = self._waiting.pop(choose(len(self._waiting)))
            if turns == dies_at:
                one.cancel()
            else:
                one.set_result(None)
            turns += 1
        results = await asyncio.gather(*tasks, return_exceptions=True)
        return [DEAD if isinstance(result, asyncio.CancelledError) else result for result in results]


class TurnStore:
    """`CallStore` in two dicts. Before each step it waits for its turn, and the step itself is one."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.calls: dict[str, Call] = {}
        self.signals: dict[tuple[str, str, str, int], Signal] = {}

    async def get(self, session_id: str) -> Call | None:
        await self._turns.turn()
        return self.calls.get(session_id)

    async def add(self, call: Call) -> bool:
        await self._turns.turn()
        return self.calls.setdefault(call.session_id, call) is call

    async def exchange(self, old: Call, new: Call) -> bool:
        await self._turns.turn()
        assert new.revision == old.revision + 1
        if self.calls[old.session_id].revision != old.revision:
            return False
        self.calls[old.session_id] = new
        return True

    async def due(self, now_ms: int, *, limit: int) -> list[Call]:
        await self._turns.turn()
        return [
            call for call in self.calls.values() if call.due_at_ms is not None and call.due_at_ms <= now_ms
        ]

    async def tell(self, signal: Signal) -> Signal | None:
        await self._turns.turn()
        key = (signal.call_id, signal.person_id, signal.party_id, signal.n)
        before = self.signals.get(key)
        self.signals.setdefault(key, signal)
        return before

    async def told_by(self, call_id: str, person_id: str, *, since_ms: int) -> list[Signal]:
        await self._turns.turn()
        found = [s for s in self.signals.values() if (s.call_id, s.person_id) == (call_id, person_id)]
        return sorted((s for s in found if s.at_ms >= since_ms), key=lambda s: s.n)

    async def forget(self, call_id: str) -> None:
        await self._turns.turn()
        self.signals = {key: s for key, s in self.signals.items() if s.call_id != call_id}

    async def forget_before(self, at_ms: int, *, limit: int) -> int:
        await self._turns.turn()
        return 0


class Wire:
    """A transport that remembers: (room, event, payload, skipped sid)."""

    reaches_beyond = True

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, Mapping[str, Any], str | None]] = []

    def send(
        self,
        room: str,
        event: str,
        payload: Mapping[str, Any],
        *,
        ephemeral: bool = False,
        skip: str | None = None,
        here_only: bool = False,
    ) -> None:
        self.sent.append((room, event, payload, skip))

    def told(self, event: str) -> list[tuple[str, Mapping[str, Any]]]:
        return [(room, payload) for room, name, payload, _ in self.sent if name == event]


class Clock:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def now_ms(self) -> int:
        return self.ms


@dataclass
class Stage:
    """One session's calls, and the session itself."""

    turns: Turns = field(default_factory=Turns)
    wire: Wire = field(default_factory=Wire)
    clock: Clock = field(default_factory=Clock)
    is_served: bool = True
    is_closed: bool = False

    def __post_init__(self) -> None:
        self.store = TurnStore(self.turns)
        self.bound: set[str] = set()
        self.calls = CallService(
            store=self.store,
            chat=self,  # type: ignore[arg-type]
            gate=self,  # type: ignore[arg-type]
            push=Push(self.wire),  # type: ignore[arg-type]
            devices=self,
            clock=self.clock,
            new_id=iter(f"call-{n}" for n in range(1_000)).__next__,
        )

    @property
    def call(self) -> Call:
        return self.store.calls[SESSION]

    # --- the ports

    async def membership(self, person_id: str, session_id: str) -> Conversation:
        await self.turns.turn()
        return Conversation(session_id, USER, LAWYER, 0, 0, closed_at_ms=5 if self.is_closed else None)

    async def bind(self, sid: str) -> None:
        await self.turns.turn()
        self.bound.add(sid)

    def is_open(self, session_id: str) -> bool:
        return self.is_served

    async def look(self, session_id: str) -> bool:
        raise NotImplementedError

    # --- what befalls the session

    async def ends(self) -> None:
        """As settlement and announcer do it: the conversation is closed, later the news goes out."""
        await self.turns.turn()
        self.is_served, self.is_closed = False, True
        await self.turns.turn()
        await self.calls._end_with_session(SESSION)


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """In a loop of its own, with whatever was left behind cancelled."""
    with asyncio.Runner() as runner:
        return runner.run(main)


async def looked(stage: Stage, times: int = 3) -> None:
    """Some process looks, a minute apart."""
    for _ in range(times):
        stage.clock.ms += 60_000
        (done,) = await stage.turns.run([stage.calls.look()], lambda _: 0)
        assert isinstance(done, int), done
