"""What the chat needs from the outside, in its own words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from chat.model import Advance, Conversation, Message, Overview, Page


class Clock(Protocol):
    """Milliseconds since the epoch, UTC. Never lower than an earlier answer."""

    def now_ms(self) -> int: ...


class SessionGate(Protocol):
    """Billing's answers about a session. The chat never computes them."""

    def is_open(self, session_id: str) -> bool | None:
        """Whether the session is ACTIVE and paid at this very instant. Never waits. None: this process does not know; `look` does."""
        ...

    async def look(self, session_id: str) -> bool:
        """The answer where `is_open` has none. Whoever asks first goes on first: what is sent in order is stored in order.

        Raises:
            Unavailable: the store does not answer.
        """
        ...

    def is_paused(self, session_id: str) -> bool:
        """Whether what was found not open is paused, and may be open again. Never waits."""
        ...

    async def state(self, session_id: str, viewer_id: str) -> dict[str, Any]:
        """The billing state that this participant may see, ready for the wire."""
        ...


class MessageStore(Protocol):
    """Messages and receipts of all conversations. Every adapter passes
    `tests/contract/message_store_contract.py`.

    A write has happened durably when its method returns. Writes on one conversation take effect in the order
    in which their calls were *started* (a caller may start the second before the first has returned), and a
    cancelled caller's write happens whole or not at all. Every method raises `Unavailable` when the store
    does not answer.
    """

    async def open_conversation(self, session_id: str, *, user_id: str, lawyer_id: str, at_ms: int) -> None:
        """Make the conversation; harmless when it exists, whatever has happened in it since."""
        ...

    async def close_conversation(self, session_id: str, *, at_ms: int) -> None:
        """No message is stored after this returns; receipts still are. Harmless when closed or missing."""
        ...

    async def conversation(self, session_id: str) -> Conversation | None: ...

    async def append(
        self, *, session_id: str, sender_id: str, client_msg_id: str, body: str, at_ms: int
    ) -> tuple[Message, bool]:
        """Store a message under the next `seq`, once per (session, sender, `client_msg_id`), for ever.

        Returns:
            The stored message and whether it was stored before (then nothing changed, also after the close).

        Raises:
            NotFound: no such conversation, or the sender is no participant.
            SessionNotActive: the conversation is closed.
            IdempotencyMismatch: the id is known with another body; nothing is stored.
        """
        ...

    async def advance(
        self,
        *,
        session_id: str,
        reader_id: str,
        delivered_seq: int = 0,
        seen_seq: int = 0,
        at_ms: int,
        in_service: bool,
    ) -> Advance:
        """Raise the reader's watermarks, clamped to the last message; lower values change nothing.

        Args:
            session_id: the conversation, open or closed.
            reader_id: the participant who reports.
            delivered_seq: everything up to here has arrived.
            seen_seq: everything up to here was read, which implies that it has arrived.
            at_ms: kept with each mark that moved: it is the message's deliveredAt and seenAt.
            in_service: whether the session is being served; only then a receipt is evidence of service.

        Raises:
            NotFound: no such conversation, or the reader is no participant.
        """
        ...

    async def erase_closed(self, *, closed_before_ms: int, at_ms: int, limit: int) -> int:
        """Erase the bodies of conversations that were closed before then, the longest closed first; open ones are never touched.

        A conversation is erased for its readers by one write, and then physically, a part in each call. A call does about
        `limit` messages' work and answers how much it did; 0 when there is none left. Cut short anywhere, the next call goes
        on. Positions, senders, instants and receipts stay.
        """
        ...

    async def page(
        self, session_id: str, *, after_seq: int | None = None, before_seq: int | None = None, limit: int
    ) -> Page | None:
        """Up to `limit` messages by rising seq: the first ones after `after_seq`, or the last ones before
        `before_seq` (the newest of all when both are None). None if there is no such conversation.
        """
        ...

    async def stored(
        self, session_id: str, *, sender_id: str, client_msg_ids: Sequence[str]
    ) -> dict[str, Message]:
        """Which of the sender's ids are stored in this conversation, by id."""
        ...

    async def overview(self, session_ids: Sequence[str], *, viewer_id: str) -> dict[str, Overview]:
        """Newest message and unread count of the conversations in which the viewer takes part, by session."""
        ...

    async def last_seq(self, session_id: str) -> int:
        """The last stored position, 0 when there is none. Cheap: every tick asks."""
        ...

    async def last_activities_ms(self, session_ids: Sequence[str]) -> dict[str, int]:
        """Instant of the last message or receipt stored in service, 0 when there is none, by session; a conversation that does not
        exist is absent. Billing's evidence after a crash.
        """
        ...


class Transport(Protocol):
    """Puts events on the wire. Synchronous by contract: it queues, it never waits and never fails for a slow
    or gone client.
    """

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
        """Queue the event on every socket in `room` but `skip`, in call order for each. An ephemeral one is
        dropped where a client lags.

        Sockets of other processes get it, too, unless `here_only` or unless the way to them is cut; a client notices by `lastSeq`.
        """
        ...

    def tell_processes(self, room: str, facts: Mapping[str, Any]) -> None:
        """Tell the other processes that have sockets in the room; their clients hear nothing of it. As lossy as `send`."""
        ...

    async def hears(self, room: str) -> None:
        """Return once what other processes send to the room will arrive here, or after a moment if that cannot be had."""
        ...

    @property
    def reaches_beyond(self) -> bool:
        """Whether there may be sockets at other processes, so that nobody here does not mean nobody."""
        ...

    def occupied(self, room: str) -> bool:
        """Whether a socket of this process is in the room."""
        ...

    def pulse(self, sid: str) -> Callable[[], float]:
        """Tells how long ago the last frame came on this connection (s), also after it is gone."""
        ...

    def close(self, sid: str, *, final: bool) -> None:
        """Close the connection once what is queued for it was sent, or soon if it does not take it.

        `final` tells the client's library not to connect again by itself.
        """
        ...


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is behind a token. `family` names the login that the token came from, so that a logout can find its
    sockets.
    """

    user_id: str
    role: str
    family: str | None = None


#: Verifies an access token without I/O. Raises `Unauthenticated`.
Authenticate = Callable[[str], Principal]
