"""What calls need from the outside."""

from typing import Protocol

from chat.calls.model import Call, Signal


class CallStore(Protocol):
    """The call of each session and what its devices told each other. Every method raises `Unavailable`.

    A write has happened durably when its method returns.
    """

    async def get(self, session_id: str) -> Call | None:
        """The session's call, the running one or the last."""
        ...

    async def add(self, call: Call) -> bool:
        """Store the first call of a session; False, and nothing changed, when there is one."""
        ...

    async def exchange(self, old: Call, new: Call) -> bool:
        """Store `new` if the call is still as in `old`; `new` has the next revision."""
        ...

    async def due(self, now_ms: int, *, limit: int) -> list[Call]:
        """Calls that a server has to look at by now, the most overdue first."""
        ...

    async def tell(self, signal: Signal) -> Signal | None:
        """Store a signal once per (call, person, party, `n`). The one that is there already under this `n`, or None."""
        ...

    async def told_by(self, call_id: str, person_id: str, *, since_ms: int) -> list[Signal]:
        """What the person's device has told in this call since then, by rising `n`; of very many the last ones."""
        ...

    async def forget(self, call_id: str) -> None:
        """Delete the call's signals. Harmless when repeated."""
        ...

    async def forget_before(self, at_ms: int, *, limit: int) -> int:
        """Delete signals that are older than this, whatever their call; how many."""
        ...


class Devices(Protocol):
    """The sockets that are in calls."""

    async def bind(self, sid: str) -> None:
        """From now on, what any process pushes to this very socket arrives. Raises `Unavailable` when the socket is gone."""
        ...
