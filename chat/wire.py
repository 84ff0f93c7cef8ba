"""How the chat's facts look to clients: camelCase, RFC 3339 UTC instants with milliseconds."""

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from chat.errors import ChatError
from chat.model import Conversation, Message, MessageState, Page, Watermarks


def instant(at_ms: int) -> str:
    """`2026-11-21T02:17:05.123Z`."""
    return f"{_second(at_ms // 1000)}.{at_ms % 1000:03d}Z"


@lru_cache(maxsize=256)
def _second(at_s: int) -> str:
    # Most instants on the wire are of this second; formatting one costs more than a message's JSON.
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _instant_or_none(at_ms: int | None) -> str | None:
    return None if at_ms is None else instant(at_ms)


def message_view(message: Message, state: MessageState | None = None) -> dict[str, Any]:
    """A message as clients see it; without `state` it has just been stored, so it is SENT."""
    state = state or MessageState()
    return {
        "id": message.id,
        "sessionId": message.session_id,
        "seq": message.seq,
        "senderId": message.sender_id,
        "clientMsgId": message.client_msg_id,
        "body": message.body,
        "status": state.status.value,
        "createdAt": instant(message.created_at_ms),
        "deliveredAt": _instant_or_none(state.delivered_at_ms),
        "seenAt": _instant_or_none(state.seen_at_ms),
        "erasedAt": _instant_or_none(message.erased_at_ms),
    }


def messages_view(page: Page) -> list[dict[str, Any]]:
    return [message_view(message, page.state_of(message)) for message in page.messages]


def sent_view(message: Message, *, duplicate: bool) -> dict[str, Any]:
    """The acknowledgement of a send; a repeat gets the first one again."""
    return {
        "id": message.id,
        "seq": message.seq,
        "status": "SENT",
        "createdAt": instant(message.created_at_ms),
        "clientMsgId": message.client_msg_id,
        "duplicate": duplicate,
    }


def marks_view(marks: Watermarks) -> dict[str, int]:
    return {"deliveredSeq": marks.delivered_seq, "seenSeq": marks.seen_seq}


def watermarks_view(conversation: Conversation) -> dict[str, dict[str, int]]:
    """By participant."""
    return {person: marks_view(conversation.marks_of(person)) for person in conversation.participants}


def status_view(session_id: str, reader_id: str, marks: Watermarks) -> dict[str, Any]:
    """`message_status`: one event, however many messages it changed."""
    return {"sessionId": session_id, "userId": reader_id, **marks_view(marks)}


def stored_view(message: Message) -> dict[str, Any]:
    return {"id": message.id, "seq": message.seq, "createdAt": instant(message.created_at_ms)}


def json_bytes(text: str) -> int:
    """What the text takes on the wire: a line break is two bytes there, a control character six."""
    return len(json.dumps(text, ensure_ascii=False).encode())


def ok(data: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"ok": True, **(data or {})}


def failure(error: ChatError) -> dict[str, Any]:
    """An expected failure. An invalid payload names fields, a limit its wait; other facts stay in the log."""
    body: dict[str, Any] = {"code": error.code, "message": error.detail, "retryable": error.retryable}
    if retry_after_ms := error.facts.get("retry_after_ms"):
        body["retryAfterMs"] = retry_after_ms
    if fields := error.facts.get("fields"):
        body["fields"] = [{"field": name, "message": message} for name, message in fields]
    return {"ok": False, "error": body}


def internal(error_id: str) -> dict[str, Any]:
    """Something unexpected: the id is in the log beside the traceback. Every event may be repeated, so it is
    retryable.
    """
    return {
        "ok": False,
        "error": {
            "code": "INTERNAL",
            "message": "An internal error occurred.",
            "retryable": True,
            "errorId": error_id,
        },
    }
