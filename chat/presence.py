"""Who is looking at a session: by person, not by socket, and a person who blinks has not left.

Presence is state, asked for when it is needed; its edges are only for the other person's screen. A process knows its own
sockets. What the others know comes from a `PresenceStore`, where there is one; then each process tells its own clients, and
only what is news to them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import structlog

from chat.errors import Unavailable
from chat.push import PEOPLE, SESSIONS, Push, session_room, user_room
from chat.whereabouts import HERE, KEEP_S, NO_TRACE, Signs, Together, Whereabouts

log = structlog.get_logger(__name__)

ONLINE: Final = "ONLINE"
OFFLINE: Final = "OFFLINE"
#: A reconnect takes a moment; the peer need not hear of it.
GRACE_S: Final = 10.0
#: How often what the store says is compared with what clients were told.
SWEEP_S: Final = 5.0
#: Every so many sweeps the store is told again who is here.
_SWEEPS_A_REFRESH: Final = 2
#: How long a question waits for the store before this process answers alone.
_PATIENCE_S: Final = 0.5

#: A person in a room.
Key = tuple[str, str]


class Timer(Protocol):
    """A pending callback."""

    def cancel(self) -> None: ...


class PresenceStore(Protocol):
    """Who is in which room, over all processes. What a process has written vanishes soon after its last refresh."""

    @property
    def is_complete(self) -> bool:
        """Whether every living process has had the time to write since the store last forgot something, or could not be reached."""
        ...

    async def enter(self, room: str, person_id: str) -> None:
        """The person is in the room through this process, until `leave`. Raises `Unavailable`; `refresh` then writes it."""
        ...

    async def leave(self, room: str, person_id: str, *, sign_ms: int = NO_TRACE) -> bool:
        """No more through this process, and the last sign of life was given then; whether through no other one either. Raises
        `Unavailable`: nobody knows.
        """
        ...

    async def whereabouts(self, rooms: Sequence[str]) -> list[dict[str, Whereabouts]]:
        """Room by room who is `HERE` through other processes, and the last sign of who was there lately: of a process that died, its
        last refresh. Who is in none of it left no trace there. Raises `Unavailable`.
        """
        ...

    async def elsewhere(self, rooms: Sequence[str]) -> list[set[str]]:
        """Room by room who is there through other processes. Raises `Unavailable`."""
        ...

    async def refresh(self) -> None:
        """Write all of this process's people again. Raises `Unavailable`."""
        ...


def _later(delay_s: float, callback: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(delay_s, callback)


class Presence:
    """Counts each person's sockets in each session's room, and tells the room when the first came or the last
    is gone.
    """

    def __init__(
        self,
        *,
        push: Push,
        grace_s: float = GRACE_S,
        later: Callable[[float, Callable[[], None]], Timer] = _later,
        store: PresenceStore | None = None,
        sweep_s: float = SWEEP_S,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        keep_s: float = KEEP_S,
        is_alone: bool = True,
    ) -> None:
        """`is_alone`: without a store there is no other process, so that who is not here is nowhere."""
        self._signs = Signs(now_ms, keep_s=keep_s)
        self._is_alone = is_alone
        self._is_closing = False
        self._push = push
        self._grace_s = grace_s
        self._later = later
        self._store = store
        self._together = Together(store.whereabouts) if store is not None else None
        self._sweep_s = sweep_s
        self._sockets: dict[Key, int] = {}
        #: People whose last socket left a moment ago: still here until the timer ends.
        self._leaving: dict[Key, Timer] = {}
        #: With a store: whom our clients in a room believe to be there through other processes.
        self._elsewhere: dict[str, set[str]] = {}
        #: With a store: what it was told, and what it is being told.
        self._written: set[Key] = set()
        self._settling: dict[Key, asyncio.Task[None]] = {}
        self._listeners: list[Callable[[str, str], None]] = []

    def listen(self, listener: Callable[[str, str], None]) -> None:
        """Call `listener(session_id, person_id)` whenever somebody may have come to a session or gone from it, at whatever process: at
        the edge, before any grace. A hint to look, and no more: it comes for nothing at times, and may not come at all.
        """
        self._listeners.append(listener)

    def _hint(self, key: Key) -> None:
        room, person_id = key
        if room.startswith(SESSIONS):
            for listener in self._listeners:
                try:
                    listener(room.removeprefix(SESSIONS), person_id)
                except Exception:
                    log.exception("presence_listener_failed")

    # --- sockets that come and go ---

    def entered(self, session_id: str, person_id: str, *, sid: str | None = None) -> None:
        """One more of the person's sockets, `sid`, is in the room. It is not told of its own arrival."""
        self._add((session_room(session_id), person_id), skip=sid)

    def left(self, session_id: str, person_id: str, *, ago_s: float = 0) -> None:
        """One of the person's sockets has left the room, and was last heard so long ago."""
        key = (session_room(session_id), person_id)
        if key in self._sockets:
            self._signs.note(key, ago_s)
        self._remove(key)

    def came(self, person_id: str) -> None:
        """One more of the person's sockets is connected."""
        if self._store is not None:
            self._add((user_room(person_id), person_id))

    def went(self, person_id: str) -> None:
        """One of the person's sockets is gone."""
        if self._store is not None:
            self._remove((user_room(person_id), person_id))

    def _add(self, key: Key, *, skip: str | None = None) -> None:
        sockets = self._sockets.get(key, 0)
        self._sockets[key] = sockets + 1
        if timer := self._leaving.pop(key, None):
            timer.cancel()
        elif not sockets:
            room, person_id = key
            # Also whoever left and whose leaving is still being written: nobody was told of it.
            is_news = key not in self._settling and person_id not in self._elsewhere.get(room, ())
            if is_news:
                self._tell(key, ONLINE, skip=skip)
            self._settle(key)
        if not sockets:
            self._hint(key)

    def _remove(self, key: Key) -> None:
        sockets = self._sockets.get(key, 0) - 1
        if sockets > 0:
            self._sockets[key] = sockets
        elif self._sockets.pop(key, None) is not None:
            self._leaving[key] = self._later(self._grace_s, lambda: self._gone(key))
            self._hint(key)

    def _gone(self, key: Key) -> None:
        if self._leaving.pop(key, None) is None:
            return
        if self._store is None:
            self._tell(key, OFFLINE)
        else:
            self._settle(key)

    # --- questions ---

    def is_here(self, session_id: str, person_id: str) -> bool:
        """Whether the person looks at the session through this process, or did so a moment ago."""
        return self._is_here((session_room(session_id), person_id))

    async def of(self, session_id: str, people: Iterable[str]) -> dict[str, str]:
        """Each one's state, for the wire. While the store does not answer: as this process last knew."""
        room = session_room(session_id)
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await self._compare([room])
        if self._store is not None and self._push.looked_at(room):
            # From now on our clients have been told something, if only that nobody is known.
            self._elsewhere.setdefault(room, set())
        elsewhere = self._elsewhere.get(room, set())
        return {p: ONLINE if p in elsewhere or self._is_here((room, p)) else OFFLINE for p in people}

    async def whereabouts(self, session_id: str, people: Sequence[str]) -> dict[str, Whereabouts]:
        """Where each one is, with no grace: `HERE` with a socket in the session's room at any process, else the last sign of life.
        None while nobody can tell: the store does not answer or has forgotten, or this process says goodbye to everybody.
        """
        room = session_room(session_id)
        store = self._store
        found: dict[str, Whereabouts] | None = {} if store is None and self._is_alone else None
        if store is not None and self._together is not None:
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(_PATIENCE_S):
                    found = await self._together.of(room)
        is_known = found is not None and (store is None or store.is_complete) and not self._is_closing
        answer: dict[str, Whereabouts] = {}
        for person_id in people:
            key, elsewhere = (room, person_id), (found or {}).get(person_id, NO_TRACE)
            if key in self._sockets or elsewhere == HERE:
                answer[person_id] = HERE
            elif is_known:
                answer[person_id] = max(self._signs.of(key), int(elsewhere or NO_TRACE))
            else:
                answer[person_id] = None
        return answer

    async def connected(self, person_id: str) -> bool:
        """Whether the person is connected, wherever. While the store does not answer: whether to this process."""
        room = user_room(person_id)
        if self._push.watching(person_id) or self._is_here((room, person_id)):
            return True
        if self._store is None:
            return False
        try:
            (people,) = await self._store.elsewhere([room])
        except Unavailable:
            return False
        return person_id in people

    def _is_here(self, key: Key) -> bool:
        return key in self._sockets or key in self._leaving

    # --- the store, and the other processes ---

    async def run(self) -> None:
        """Keep the store and our clients up to date until cancelled. Returns at once without a store."""
        sweeps = 0
        while self._store is not None:
            await asyncio.sleep(self._sweep_s)
            sweeps += 1
            try:
                if sweeps % _SWEEPS_A_REFRESH == 0:
                    await self._store.refresh()
                await self.sweep()
            except Unavailable as exc:
                log.debug("presence_unknown", error=repr(exc))
            except Exception:
                log.exception("presence_sweep_failed")

    async def sweep(self) -> None:
        """Tell our clients whom other processes have lost, or found, without our hearing of it. Raises `Unavailable`."""
        await self._compare(sorted({room for room, _ in self._sockets if room.startswith(SESSIONS)}))

    def closing(self) -> None:
        """Everybody is being sent away: from now on who is not here has not left by that."""
        self._is_closing = True

    async def stop(self) -> None:
        """Write nothing more: who leaves now comes back to another process, or lapses there."""
        self._is_closing = True
        self._store = None
        for timer in self._leaving.values():
            timer.cancel()
        tasks = list(self._settling.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def heard(self, room: str, facts: Mapping[str, Any]) -> None:
        """What another process tells of a person in a room where we have sockets."""
        person_id, state = str(facts["person"]), facts["state"]
        key = (room, person_id)
        self._hint(key)
        believed = self._elsewhere.setdefault(room, set()) if self._push.looked_at(room) else set()
        if state == ONLINE and person_id not in believed:
            believed.add(person_id)
            if not self._is_here(key):
                self._tell(key, ONLINE)
        elif state == OFFLINE:
            if self._is_here(key):
                # They were about to say so when the person came to us.
                believed.discard(person_id)
                self._tell_processes(key, ONLINE)
            elif person_id in believed:
                believed.discard(person_id)
                self._tell(key, OFFLINE)

    async def _compare(self, rooms: list[str]) -> None:
        if self._store is None or not rooms:
            return
        before = {room: set(self._elsewhere.get(room, ())) for room in rooms}
        found = await self._store.elsewhere(rooms)
        is_complete = self._store.is_complete
        for room, people in zip(rooms, found, strict=True):
            if not self._push.looked_at(room):
                continue
            # The first to look is answered by `of`, and there is nobody else yet who could be wrong.
            believed = self._elsewhere.setdefault(room, people)
            for person_id in people - believed:
                believed.add(person_id)
                if not self._is_here((room, person_id)):
                    self._tell((room, person_id), ONLINE)
            # Who is missing where data is missing is not offline. Whom we heard of only since we asked is not missing.
            for person_id in (before[room] & believed) - people if is_complete else ():
                believed.discard(person_id)
                if not self._is_here((room, person_id)):
                    self._tell((room, person_id), OFFLINE)

    def _settle(self, key: Key) -> None:
        """Tell the store what is true of the key, once at a time: what is told last is what is true last."""
        if self._store is not None and key not in self._settling:
            task = asyncio.create_task(self._write(key, self._store), name="presence")
            self._settling[key] = task
            task.add_done_callback(lambda _task: self._settling.pop(key, None))

    async def _write(self, key: Key, store: PresenceStore) -> None:
        while self._is_here(key) is not (key in self._written):
            if key not in self._written:
                self._written.add(key)
                with suppress(Unavailable):
                    await store.enter(*key)
                self._tell_processes(key, ONLINE)
            else:
                self._written.discard(key)
                await self._write_off(key, store.leave(*key, sign_ms=self._signs.of(key)))

    async def _write_off(self, key: Key, leaving: Awaitable[bool]) -> None:
        room, person_id = key
        try:
            is_gone = await leaving
        except Unavailable:
            is_gone = False
        if self._is_here(key):
            return
        if is_gone:
            self._elsewhere.get(room, set()).discard(person_id)
            self._tell(key, OFFLINE)
            self._tell_processes(key, OFFLINE)
        elif self._push.looked_at(room):
            # There through another process; or nobody knows, and a later comparison tells.
            self._elsewhere.setdefault(room, set()).add(person_id)
        if not self._push.looked_at(room):
            self._elsewhere.pop(room, None)

    # --- telling ---

    def _tell(self, key: Key, state: str, *, skip: str | None = None) -> None:
        room, person_id = key
        if room.startswith(PEOPLE):
            return
        session_id = room.removeprefix(SESSIONS)
        view = {"sessionId": session_id, "userId": person_id, "state": state}
        here_only = self._store is not None
        try:
            self._push.to_session(session_id, "presence", view, skip=skip, here_only=here_only)
        except Exception:
            log.exception("push_failed", event_name="presence")

    def _tell_processes(self, key: Key, state: str) -> None:
        room, person_id = key
        if room.startswith(SESSIONS):
            self._push.to_processes(room.removeprefix(SESSIONS), {"person": person_id, "state": state})
