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


class Conflict(ChatError):
    """The state of the conversation does not allow it."""

    code = "CONFLICT"
    detail = "The current state does not allow this."


class Unavailable(ChatError):
    """The store did not answer: nothing was acknowledged, the same `clientMsgId` may be sent again."""

    code = "STORAGE_UNAVAILABLE"
    detail = "The storage did not answer. Send the event again."
    retryable = True
