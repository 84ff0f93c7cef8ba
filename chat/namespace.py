"""The Socket.IO edge of the chat: parse, call one service method, acknowledge exactly once.

The library's own dispatch is not used: it lets events overtake each other, sends no acknowledgement when a
handler raises and an empty one when it is cancelled, and takes a client's event named "disconnect" for the
real thing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from uuid import uuid4

import socketio
import structlog
from socketio.exceptions import ConnectionRefusedError as ConnectRefused

from chat import wire
from chat.buckets import Kind, Limits, Senders
from chat.byes import ACCOUNT_DISABLED, DRAIN, RATE, TOKEN_REVOKED, bye_view
from chat.connections import Connection, Connections
from chat.errors import (
    ChatError,
    Draining,
    NotJoined,
    RateLimited,
    Unauthenticated,
    Unavailable,
    UnknownEvent,
)
from chat.event_types import ClientEvent, parse
from chat.events import CLIENT_EVENTS
from chat.inbox import UNDER_WAY, WAITING, Inbox
from chat.login_events import MAX_TOKEN
from chat.message_events import (
    JoinSession,
    LeaveSession,
    MarkSeen,
    MessageDelivered,
    SendMessage,
    Typing,
)
from chat.model import Conversation
from chat.ports import Authenticate, Principal, Transport
from chat.presence import Presence
from chat.push import Push, session_room, user_room
from chat.service import ChatService

log = structlog.get_logger(__name__)

Ack = dict[str, Any]
Handler = Callable[[Connection, Any], Awaitable[Ack]]
#: What a join's answer has as `call`, for a connection that has joined the conversation, and the name of its device.
CallOf = Callable[[Connection, Conversation, str | None], Awaitable[dict[str, Any] | None]]
#: Sends an event's acknowledgement. When that cannot be written as JSON it raises, and gets another one.
Answer = Callable[[Ack], None]

#: Codes of `server:bye` (`chat/byes.py`).
BYE_DRAIN: Final = DRAIN.code
BYE_TOKEN: Final = TOKEN_REVOKED.code
BYE_DISABLED: Final = ACCOUNT_DISABLED.code


class ChatNamespace(socketio.AsyncNamespace):  # type: ignore[misc]  # python-socketio ships no types
    """Every socket of the default namespace. One instance serves all connections of the process."""

    def __init__(
        self,
        *,
        chat: ChatService,
        authenticate: Authenticate,
        push: Push,
        transport: Transport,
        presence: Presence,
        remote_of: Callable[[Mapping[str, Any]], str] = lambda _environ: "",
        waiting: int = WAITING,
        under_way: int = UNDER_WAY,
        on_event: Callable[[str, str], None] = lambda _name, _outcome: None,
        handlers: Mapping[str, Handler] | None = None,
        limits: Limits | None = None,
        call_of: CallOf | None = None,
    ) -> None:
        """`handlers` serve those events of the table that are not the chat's own, by name. Without `limits` nobody is slowed down,
        without `call_of` there are no calls.
        """
        super().__init__("/")
        self._on_event = on_event
        self.connections = Connections()
        self._chat = chat
        self._authenticate = authenticate
        self._push = push
        self._transport = transport
        self._presence = presence
        self._remote_of = remote_of
        self._waiting = waiting
        self._under_way = under_way
        self._draining = False
        self._senders = None if limits is None else Senders(limits)
        #: Connections that were closed for sending too much.
        self.flooding = 0
        self._call_of = call_of
        own: dict[str, Handler] = {
            "join_session": self.join_session,
            "send_message": self.send_message,
            "message_delivered": self.message_delivered,
            "mark_seen": self.mark_seen,
            "typing": self.typing,
            "leave_session": self.leave_session,
        }
        self._handlers: dict[str, tuple[ClientEvent, Handler]] = {
            name: (CLIENT_EVENTS[name], handler) for name, handler in {**own, **(handlers or {})}.items()
        }

    # --- what the library calls ---

    async def trigger_event(self, event: object, *args: Any) -> None:
        """Connections come and go here. What clients send goes to `take`, past the library's dispatch."""
        if event == "connect":
            await self._connect(*args)
        elif event == "disconnect":
            self._disconnect(*args)

    async def _connect(self, sid: str, environ: Mapping[str, Any], auth: object = None) -> None:
        """The token and nothing else: no database, so a storm of reconnects costs only arithmetic."""
        try:
            principal = self._principal(auth)
            connection = Connection(
                sid,
                principal,
                self._remote_of(environ),
                Inbox(waiting=self._waiting, under_way=self._under_way),
                self._transport.pulse(sid),
            )
            await self.enter_room(sid, user_room(principal.user_id))
        except ChatError as exc:
            log.info("socket_refused", code=exc.code, remote=self._remote_of(environ))
            raise _refusal(exc.code, exc.detail, retryable=exc.retryable) from exc
        except Exception as exc:
            error_id = _log_unexpected("connect", exc)
            raise _refusal("INTERNAL", f"An internal error occurred ({error_id}).", retryable=True) from exc
        if self._senders is not None:
            connection.sender = self._senders.came(principal.user_id)
        self.connections.add(connection)
        self._presence.came(principal.user_id)

    def _principal(self, auth: object) -> Principal:
        if self._draining:
            raise Draining
        token = auth.get("token") if isinstance(auth, dict) else None
        if not isinstance(token, str) or not 0 < len(token) <= MAX_TOKEN:
            raise Unauthenticated
        return self._authenticate(token)

    def _disconnect(self, sid: str, *_reason: object) -> None:
        """One thing that cannot fail: a raising handler here would leak the client for ever, or run twice."""
        try:
            if connection := self.connections.remove(sid):
                ago_s = connection.pulse()
                while connection.joined:
                    self._presence.left(connection.joined.pop(), connection.user_id, ago_s=ago_s)
                self._presence.went(connection.user_id)
                if self._senders is not None:
                    self._senders.went(connection.user_id, _now_ms())
        except Exception as exc:  # noqa: BLE001  see above
            _log_unexpected("disconnect", exc)

    # --- one event ---

    def take(self, sid: str, event: object, payload: object, answer: Answer) -> None:
        """Give the event its place in its connection's queue, and call `answer` with its acknowledgement: once, whatever
        happens, and not at all when the connection is gone already.

        Called in the order of arrival, and nothing is awaited before the place is taken.
        """
        connection = self.connections.get(sid)
        if connection is None:
            return
        # A client may invent names without end; a counter has only those of the table.
        name = event if isinstance(event, str) and event in self._handlers else "unknown"
        try:
            self._queue(connection, name, payload, answer)
        except ChatError as exc:
            self._answer(name, exc.code, wire.failure(exc), answer)
        except Exception as exc:  # noqa: BLE001  whatever it is, the client gets its one acknowledgement
            self._answer(name, "INTERNAL", wire.internal(_log_unexpected(str(event)[:64], exc)), answer)

    def _queue(self, connection: Connection, name: str, payload: object, answer: Answer) -> None:
        if self._draining:
            raise Draining
        # Before anything is looked at: a refusal must cost little.
        self._count(connection, self._handlers[name][0].kind if name in self._handlers else Kind.OTHER)
        if name not in self._handlers:
            raise UnknownEvent
        known, handler = self._handlers[name]
        request = parse(known.payload, payload)

        async def work() -> None:
            try:
                ack, outcome = await handler(connection, request), "ok"
            except ChatError as exc:
                ack, outcome = wire.failure(exc), exc.code
            except Exception as exc:  # noqa: BLE001  as above
                ack, outcome = wire.internal(_log_unexpected(name, exc)), "INTERNAL"
            self._answer(name, outcome, ack, answer)

        connection.inbox.put(work, known.turn)

    def _count(self, connection: Connection, kind: Kind) -> None:
        """Raises `RateLimited`; who never listens to that is sent away."""
        if connection.sender is None:
            return
        now_ms = _now_ms()
        wait_ms = connection.sender.take(kind, now_ms)
        if not wait_ms:
            return
        if connection.sender.overruns(now_ms) and not connection.is_leaving:
            self.flooding += 1
            log.info("flooding_client_closed", user_id=connection.user_id, remote=connection.remote)
            self._bye(connection, code=RATE.code, reason=RATE.reason, reconnect=True)
            self._transport.close(connection.sid, final=False)
        raise RateLimited(retry_after_ms=wait_ms)

    def unreadable(self, sid: str) -> Ack | None:
        """Count an event of which not even the name could be read; the refusal, if there were too many."""
        connection = self.connections.get(sid)
        try:
            if connection is not None:
                self._count(connection, Kind.OTHER)
        except RateLimited as exc:
            self._on_event("unknown", exc.code)
            return wire.failure(exc)
        return None

    def _answer(self, name: str, outcome: str, ack: Ack, answer: Answer) -> None:
        self._on_event(name, outcome)
        try:
            answer(ack)
        except Exception as exc:  # noqa: BLE001  what cannot be written down is answered too
            answer(wire.internal(_log_unexpected(name, exc)))

    async def space(self, sid: str | None, patience_s: float) -> None:
        """Wait until this connection can take another event, so that reading from it stops meanwhile."""
        connection = self.connections.get(sid) if sid else None
        if connection is not None:
            await connection.inbox.space(patience_s)

    # --- the events of the table ---

    async def join_session(self, connection: Connection, request: JoinSession) -> Ack:
        """Room first, then the reading: a message stored in between arrives twice, but is never missed."""
        session_id = request.session_id
        await self._chat.membership(connection.user_id, session_id)
        newly = session_id not in connection.joined
        await self._enter(connection, session_id)
        try:
            joined = await self._chat.join(
                connection.user_id,
                session_id,
                after_seq=request.after_seq,
                pending_ids=request.pending_ids,
            )
            conversation = joined.page.conversation
            call = self._call_of and await self._call_of(connection, conversation, request.party_id)
        except BaseException:
            if newly:
                await self._leave(connection, session_id)
            raise
        page = joined.page
        return wire.ok(
            {
                "sessionId": session_id,
                "lastSeq": page.conversation.last_seq,
                "messages": wire.messages_view(page),
                "hasMore": page.has_more,
                "watermarks": wire.watermarks_view(page.conversation),
                "presence": await self._presence.of(session_id, page.conversation.participants),
                "billing": joined.billing,
                "stored": {key: wire.stored_view(message) for key, message in joined.stored.items()},
                "call": call,
            }
        )

    async def send_message(self, connection: Connection, request: SendMessage) -> Ack:
        message, duplicate = await self._chat.send(
            connection.user_id,
            request.session_id,
            body=request.body,
            client_msg_id=request.client_msg_id,
        )
        return wire.ok(wire.sent_view(message, duplicate=duplicate))

    async def message_delivered(self, connection: Connection, request: MessageDelivered) -> Ack:
        marks = await self._chat.delivered(
            connection.user_id,
            request.session_id,
            upto_seq=request.upto_seq,
            message_id=request.message_id,
        )
        return wire.ok(wire.marks_view(marks))

    async def mark_seen(self, connection: Connection, request: MarkSeen) -> Ack:
        advance = await self._chat.seen(connection.user_id, request.session_id, upto_seq=request.upto_seq)
        return wire.ok({**wire.marks_view(advance.watermarks), "updated": advance.newly_seen})

    async def typing(self, connection: Connection, request: Typing) -> Ack:
        session_id = request.session_id
        if session_id not in connection.joined:
            await self._chat.membership(connection.user_id, session_id)
            raise NotJoined(session_id=session_id)
        if connection.says_typing(
            session_id, is_typing=request.is_typing, at_s=asyncio.get_running_loop().time()
        ):
            await self._chat.typing(
                connection.user_id, session_id, is_typing=request.is_typing, skip=connection.sid
            )
        return wire.ok()

    async def leave_session(self, connection: Connection, request: LeaveSession) -> Ack:
        session_id = request.session_id
        if session_id not in connection.joined:
            await self._chat.membership(connection.user_id, session_id)
        await self._leave(connection, session_id)
        return wire.ok()

    async def _enter(self, connection: Connection, session_id: str) -> None:
        try:
            await self.enter_room(connection.sid, session_room(session_id))
        except (KeyError, ValueError) as exc:
            # The socket went away while we read; nobody will hear this.
            raise Unavailable(reason="the connection is gone") from exc
        if session_id not in connection.joined:
            connection.joined.add(session_id)
            self._presence.entered(session_id, connection.user_id, sid=connection.sid)
        # Last: who is gone by the end of this wait has been tidied up after, as everybody else.
        await self._transport.hears(session_room(session_id))

    async def _leave(self, connection: Connection, session_id: str) -> None:
        if session_id in connection.joined:
            connection.joined.remove(session_id)
            await self.leave_room(connection.sid, session_room(session_id))
            self._presence.left(session_id, connection.user_id)

    # --- the server's own initiative ---

    def disconnect_user(
        self, user_id: str, *, family: str | None = None, code: int, reason: str, reconnect: bool = False
    ) -> int:
        """Say goodbye to the person's sockets (with `family`: those of that login) and close them; how many
        there were.
        """
        connections = self.connections.of_user(user_id, family=family)
        for connection in connections:
            self._bye(connection, code=code, reason=reason, reconnect=reconnect)
            self._transport.close(connection.sid, final=not reconnect)
        return len(connections)

    async def drain(self) -> None:
        """Take nothing new, tell everybody, and finish what was taken. The caller closes the sockets."""
        self._draining = True
        connections = list(self.connections)
        for connection in connections:
            self._bye(
                connection, code=DRAIN.code, reason=DRAIN.reason, reconnect=True, others=len(connections)
            )
        await asyncio.gather(*(connection.inbox.idle() for connection in connections))

    def _bye(
        self, connection: Connection, *, code: int, reason: str, reconnect: bool, others: int = 0
    ) -> None:
        connection.is_leaving = True
        self._push.to_socket(
            connection.sid, "server:bye", bye_view(code, reason, reconnect=reconnect, others=others)
        )


def _now_ms() -> float:
    return asyncio.get_running_loop().time() * 1_000


def _refusal(code: str, message: str, *, retryable: bool) -> Exception:
    """The library's way to refuse a connection: clients see the message, and the code in the error's data."""
    refused: Exception = ConnectRefused(message, {"code": code, "message": message, "retryable": retryable})
    return refused


def _log_unexpected(what: str, exc: Exception) -> str:
    """Log what nobody expected; the id goes to the client, the traceback stays here."""
    error_id = uuid4().hex[:16]
    log.error("chat_unexpected", exc_info=exc, event_name=what, error_id=error_id)
    return error_id
