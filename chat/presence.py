"""Who is looking at a session: by person, not by socket, and a person who blinks has not left.

Presence is state, asked for when it is needed; its edges are only for the other person's screen. This process
knows its own sockets and no others.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import structlog

from chat.push import Push

log = structlog.get_logger(__name__)

ONLINE: Final = "ONLINE"
OFFLINE: Final = "OFFLINE"
#: A reconnect takes a moment; the peer need not hear of it.
GRACE_S: Final = 10.0


class Timer(Protocol):
    """A pending callback."""

    def cancel(self) -> None: ...


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
    ) -> None:
        self._push = push
        self._grace_s = grace_s
        self._later = later
        self._sockets: dict[tuple[str, str], int] = {}
        #: People whose last socket left a moment ago: still here until the timer ends.
        self._leaving: dict[tuple[str, str], Timer] = {}

    def entered(self, session_id: str, person_id: str, *, sid: str | None = None) -> None:
        """One more of the person's sockets, `sid`, is in the room. It is not told of its own arrival."""
        key = (session_id, person_id)
        sockets = self._sockets.get(key, 0)
        self._sockets[key] = sockets + 1
        if timer := self._leaving.pop(key, None):
            timer.cancel()
        elif not sockets:
            self._tell(key, ONLINE, skip=sid)

    def left(self, session_id: str, person_id: str) -> None:
        """One of the person's sockets has left the room."""
        key = (session_id, person_id)
        sockets = self._sockets.get(key, 0) - 1
        if sockets > 0:
            self._sockets[key] = sockets
        elif self._sockets.pop(key, None) is not None:
            self._leaving[key] = self._later(self._grace_s, lambda: self._gone(key))

    def is_here(self, session_id: str, person_id: str) -> bool:
        """Whether the person looks at the session, or did so a moment ago."""
        key = (session_id, person_id)
        return key in self._sockets or key in self._leaving

    def of(self, session_id: str, people: Iterable[str]) -> dict[str, str]:
        """Each one's state, for the wire."""
        return {person: ONLINE if self.is_here(session_id, person) else OFFLINE for person in people}

    def _gone(self, key: tuple[str, str]) -> None:
        if self._leaving.pop(key, None) is not None:
            self._tell(key, OFFLINE)

    def _tell(self, key: tuple[str, str], state: str, *, skip: str | None = None) -> None:
        session_id, person_id = key
        view = {"sessionId": session_id, "userId": person_id, "state": state}
        try:
            self._push.to_session(session_id, "presence", view, skip=skip)
        except Exception:
            log.exception("push_failed", event_name="presence")
