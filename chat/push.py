"""The only place that sends events to clients.

A bare emit with an empty target reaches *every* client of a Socket.IO server: in a chat between a lawyer and
a client that is a breach of confidence. So there are two targets, a session's room and a person, and neither
may be empty. `tests/unit/test_chat_push.py` forbids emitting anywhere else.
"""

from collections.abc import Mapping
from typing import Any, Final

import structlog

from chat.events import EPHEMERAL
from chat.ports import Transport

log = structlog.get_logger(__name__)


#: How rooms' names start: of sessions, and of people.
SESSIONS: Final = "s:"
PEOPLE: Final = "u:"
#: Of one socket that is in a call, reachable from every process.
DEVICES: Final = "p:"


class EmptyTarget(ValueError):
    """An event without a recipient. A programming error: never swallowed, never sent."""


def session_room(session_id: str) -> str:
    """The room of the sockets that joined a session. Raises `EmptyTarget`."""
    return SESSIONS + _named(session_id)


def user_room(user_id: str) -> str:
    """The room of all of a person's sockets. Raises `EmptyTarget`."""
    return PEOPLE + _named(user_id)


def device_room(sid: str) -> str:
    """The room of one socket alone. Raises `EmptyTarget`."""
    return DEVICES + _named(sid)


def _named(target: object) -> str:
    if not isinstance(target, str) or not target.strip():
        raise EmptyTarget(f"an event needs a target, not {target!r}")
    return target


class Push:
    """Tells a session's room or a person. Nothing here waits; events for one target keep their order."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def to_session(
        self,
        session_id: str,
        event: str,
        payload: Mapping[str, Any],
        *,
        skip: str | None = None,
        here_only: bool = False,
    ) -> None:
        """Every socket that joined the session, of both participants, except the socket `skip`; with `here_only` those of this
        process. Raises `EmptyTarget`.
        """
        self._transport.send(
            session_room(session_id),
            event,
            payload,
            ephemeral=event in EPHEMERAL,
            skip=skip,
            here_only=here_only,
        )

    def to_processes(self, session_id: str, facts: Mapping[str, Any]) -> None:
        """The other processes that have sockets in the session, not their clients. Raises `EmptyTarget`."""
        self._transport.tell_processes(session_room(session_id), facts)

    def to_user(
        self, user_id: str, event: str, payload: Mapping[str, Any], *, skip: str | None = None
    ) -> None:
        """Every socket of the person, joined or not, except the socket `skip`. Raises `EmptyTarget`."""
        self._transport.send(user_room(user_id), event, payload, ephemeral=event in EPHEMERAL, skip=skip)

    def to_device(self, sid: str, event: str, payload: Mapping[str, Any]) -> None:
        """One socket, at whatever process, that was bound before (`Devices.bind`). Raises `EmptyTarget`."""
        self._transport.send(device_room(sid), event, payload, ephemeral=event in EPHEMERAL)

    def to_socket(self, sid: str, event: str, payload: Mapping[str, Any]) -> None:
        """One connection: only what concerns the connection itself. Raises `EmptyTarget`."""
        self._transport.send(_named(sid), event, payload)

    def post_to_user(
        self, user_id: str, event: str, payload: Mapping[str, Any], *, skip: str | None = None
    ) -> None:
        """`to_user` for callers that must not fail because of a listener, billing above all: what goes wrong
        is logged.
        """
        try:
            self.to_user(user_id, event, payload, skip=skip)
        except Exception:
            log.exception("push_failed", event_name=event)

    def watching(self, user_id: str) -> bool:
        """Whether the person has a socket open to this process."""
        return self._transport.occupied(user_room(user_id))

    def looked_at(self, room: str) -> bool:
        """Whether a socket of this process is in the room."""
        return self._transport.occupied(room)

    @property
    def reaches_beyond(self) -> bool:
        """Whether others may be watching at other processes."""
        return self._transport.reaches_beyond
