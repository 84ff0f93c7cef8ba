"""What can go wrong in a chat, by kind; `retryable` tells the client whether the same call may work later."""

from typing import Any, ClassVar


class ChatError(Exception):
    """Base of every expected failure of the chat package."""

    code: ClassVar[str] = "CHAT_ERROR"
    detail: ClassVar[str] = "The event could not be handled."
    retryable: ClassVar[bool] = False

    def __init__(self, **facts: Any) -> None:
        self.facts = facts
        super().__init__(self.code, facts)


class NotFound(ChatError):
    """No such conversation, or the caller is no participant: one answer for both."""

    code = "NOT_FOUND"
    detail = "There is no such session."


class MessageNotFound(NotFound):
    """The session is the caller's own, the message is not in it."""

    detail = "There is no such message in this session."


class Conflict(ChatError):
    """The state of the conversation does not allow it."""

    code = "CONFLICT"
    detail = "The current state does not allow this."


class SessionNotActive(Conflict):
    """The session is not being served at this instant: paused, unpaid or over. Reading and receipts go on."""

    code = "SESSION_NOT_ACTIVE"
    detail = "The session is not active, so nothing can be sent in it."


class SessionPaused(SessionNotActive):
    """It waits for somebody who has lost the connection. It goes on, or ends, by itself; the same `clientMsgId` may be sent again."""

    code = "SESSION_PAUSED"
    detail = "The session is paused until both are connected again. Send it again when it goes on."
    retryable = True


class IdempotencyMismatch(Conflict):
    """This sender used the `clientMsgId` before, for another body. The first message stands."""

    code = "IDEMPOTENCY_MISMATCH"
    detail = "This clientMsgId was used before with another body."


class NotJoined(Conflict):
    """The event belongs into a room that this socket has not joined."""

    code = "NOT_JOINED"
    detail = "Join the session with this socket first."


class Invalid(ChatError):
    """The payload is not what the event takes; `fields` is a list of (field, message)."""

    code = "VALIDATION_FAILED"
    detail = "A field is not valid."


class UnknownEvent(Invalid):
    """The client sent an event that is in no table."""

    code = "UNKNOWN_EVENT"
    detail = "There is no such event."


class Refused(ChatError):
    """This caller may not do it, or not now."""

    code = "FORBIDDEN"
    detail = "You may not do this."


class Unauthenticated(Refused):
    """The token is missing, malformed, expired or revoked: one answer for all."""

    code = "UNAUTHENTICATED"
    detail = "A valid access token is needed: connect with auth: {token}."


class RateLimited(Refused):
    """More events than a person can make. Nothing was done with this one; `retry_after_ms` says when it is worth sending again."""

    code = "RATE_LIMITED"
    detail = "Too many events. Send this one and what follows it again, in order, after retryAfterMs."
    retryable = True


class ConnectTimeout(Refused):
    """The WebSocket was opened and no Socket.IO CONNECT came; it is closed now."""

    code = "CONNECT_TIMEOUT"
    detail = "The connection was opened and not used. Connect with auth: {token} at once."
    retryable = True


class OtherPerson(Refused):
    """The token is good, and another person's. A connection belongs to one person from beginning to end."""

    code = "OTHER_PERSON"
    detail = "This token is another person's. Open another connection for them."


class Unavailable(ChatError):
    """The store did not answer: nothing was acknowledged, the same `clientMsgId` may be sent again."""

    code = "STORAGE_UNAVAILABLE"
    detail = "The storage did not answer. Send the event again."
    retryable = True


class Draining(Unavailable):
    """The process is going down; another one takes over. Nothing was done with this event."""

    code = "DRAINING"
    detail = "The server is restarting. Connect again and send the event again."
