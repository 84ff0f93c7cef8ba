"""The sockets that are open to this process, by person and by login.

A sid is no identity: it names a socket, a person has many, and every reconnect makes a new one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from chat.buckets import Sender
from chat.inbox import Inbox
from chat.ports import Principal

#: A key press makes an event; the room needs to hear the same news once in a while only.
TYPING_REPEAT_S: Final = 1.0


@dataclass(slots=True, eq=False)
class Connection:
    """One socket after its token was verified."""

    sid: str
    principal: Principal
    remote: str
    inbox: Inbox
    #: How long ago the last frame came, in seconds.
    pulse: Callable[[], float] = lambda: 0.0
    #: Counts its events, where that is limited.
    sender: Sender | None = None
    #: It has been told to go.
    is_leaving: bool = False
    #: Sessions whose room this socket has joined.
    joined: set[str] = field(default_factory=set)

    #: What was last told of typing, by session: the state and when, in seconds of the loop's clock.
    _typing: dict[str, tuple[bool, float]] = field(default_factory=dict)

    @property
    def user_id(self) -> str:
        return self.principal.user_id

    def says_typing(self, session_id: str, *, is_typing: bool, at_s: float) -> bool:
        """Whether this is news for the room: a change, or a reminder that is due."""
        before, told_at_s = self._typing.get(session_id, (False, -TYPING_REPEAT_S))
        if is_typing is before and at_s - told_at_s < TYPING_REPEAT_S:
            return False
        self._typing[session_id] = (is_typing, at_s)
        return True


class Connections:
    """Who is connected. Adding or removing the same one twice is harmless."""

    def __init__(self) -> None:
        self._by_sid: dict[str, Connection] = {}
        self._by_user: dict[str, dict[str, Connection]] = {}

    def add(self, connection: Connection) -> None:
        self._by_sid[connection.sid] = connection
        self._by_user.setdefault(connection.user_id, {})[connection.sid] = connection

    def remove(self, sid: str) -> Connection | None:
        connection = self._by_sid.pop(sid, None)
        if connection is not None:
            of_user = self._by_user.get(connection.user_id, {})
            of_user.pop(sid, None)
            if not of_user:
                self._by_user.pop(connection.user_id, None)
        return connection

    def get(self, sid: str) -> Connection | None:
        return self._by_sid.get(sid)

    def of_user(self, user_id: str, *, family: str | None = None) -> list[Connection]:
        """The person's connections; with `family` only those of that login."""
        connections = self._by_user.get(user_id, {}).values()
        return [c for c in connections if family is None or c.principal.family == family]

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._by_sid.values()))

    def __len__(self) -> int:
        return len(self._by_sid)
