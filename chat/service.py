"""What two people do in a conversation. Each use case: load, decide, store, and tell once the store has
committed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import structlog

from chat import wire
from chat.errors import (
    IdempotencyMismatch,
    MessageNotFound,
    NotFound,
    SessionNotActive,
    SessionPaused,
)
from chat.model import EVERYTHING, Advance, Conversation, Message, Overview, Page, Watermarks, seq_of
from chat.ports import Clock, MessageStore, SessionGate
from chat.push import Push

log = structlog.get_logger(__name__)

#: A page of history.
DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200
#: A join's messages, so that its answer stays under 256 KB whatever is in them.
JOIN_LIMIT: Final = 200
JOIN_BYTES: Final = 192 * 1024
#: What a message costs on the wire beside its body.
_ENVELOPE_BYTES: Final = 700


@dataclass(frozen=True, slots=True)
class Joined:
    """What a participant needs in order to go on: after a first join, a lost connection, or a week."""

    page: Page
    billing: dict[str, Any]
    stored: Mapping[str, Message]


class ChatService:
    """The use cases of the chat. `person_id` is always the authenticated caller."""

    def __init__(
        self,
        *,
        store: MessageStore,
        gate: SessionGate,
        push: Push,
        clock: Clock,
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        self._store = store
        self._gate = gate
        self._push = push
        self._clock = clock
        self._new_id = new_id

    # --- for billing: a session's conversation lives as long as the session is served ---

    async def open(self, session_id: str, *, user_id: str, lawyer_id: str, at_ms: int) -> None:
        """Make the conversation; harmless when it exists. Raises `Unavailable`."""
        await self._store.open_conversation(session_id, user_id=user_id, lawyer_id=lawyer_id, at_ms=at_ms)

    async def close(self, session_id: str, *, at_ms: int) -> None:
        """No message is stored after this returns. Harmless when closed or missing. Raises `Unavailable`."""
        await self._store.close_conversation(session_id, at_ms=at_ms)

    async def evidence_ms(self, session_ids: Sequence[str]) -> dict[str, int]:
        """Instant of the last message or receipt stored in service, by session; nothing for one without any
        conversation. Raises `Unavailable`.
        """
        return await self._store.last_activities_ms(session_ids)

    async def last_seq(self, session_id: str) -> int:
        """The last stored position: what a client compares with its own to know that it missed something."""
        return await self._store.last_seq(session_id)

    # --- for the two participants ---

    async def join(
        self, person_id: str, session_id: str, *, after_seq: int = 0, pending_ids: Sequence[str] = ()
    ) -> Joined:
        """Everything after `after_seq` (as much as fits), the billing state, and which `pending_ids` are
        stored.

        The caller is in the room before this reads, so a message can arrive twice but never be missed.
        Raises `NotFound`.
        """
        page = await self._store.page(session_id, after_seq=after_seq, limit=JOIN_LIMIT)
        if page is None or not page.conversation.has(person_id):
            raise NotFound(session_id=session_id)
        stored = (
            await self._store.stored(session_id, sender_id=person_id, client_msg_ids=pending_ids)
            if pending_ids
            else {}
        )
        return Joined(_fitting(page), await self._gate.state(session_id, person_id), stored)

    async def send(
        self, person_id: str, session_id: str, *, body: str, client_msg_id: str | None = None
    ) -> tuple[Message, bool]:
        """Store a message and tell the room. True beside it: it was stored before, and nothing was told
        again.

        Nothing is awaited before the store has the write in its queue (or awaited in the order of asking), so
        sends that start in order are stored in order. Raises `NotFound`, `SessionNotActive` (`SessionPaused` while it is paused),
        `IdempotencyMismatch`, `Unavailable`.
        """
        if not await self._is_open(session_id):
            return await self._sent_before(person_id, session_id, body=body, client_msg_id=client_msg_id)
        message, duplicate = await self._store.append(
            session_id=session_id,
            sender_id=person_id,
            client_msg_id=client_msg_id or self._new_id(),
            body=body,
            at_ms=self._clock.now_ms(),
        )
        if not duplicate:
            self._tell(session_id, "new_message", wire.message_view(message))
        return message, duplicate

    async def delivered(
        self, person_id: str, session_id: str, *, upto_seq: int | None = None, message_id: str | None = None
    ) -> Watermarks:
        """Everything up to `upto_seq` or `message_id` has arrived. Raises `NotFound`, `MessageNotFound`,
        `Unavailable`.
        """
        seq = EVERYTHING if upto_seq is None else upto_seq
        if message_id is not None:
            seq = await self._seq_of(person_id, session_id, message_id)
        return (await self._advance(person_id, session_id, delivered_seq=seq)).watermarks

    async def seen(self, person_id: str, session_id: str, *, upto_seq: int | None = None) -> Advance:
        """Everything up to `upto_seq` (all when None) was read. Raises `NotFound`, `Unavailable`."""
        return await self._advance(
            person_id, session_id, seen_seq=EVERYTHING if upto_seq is None else upto_seq
        )

    async def typing(
        self, person_id: str, session_id: str, *, is_typing: bool, skip: str | None = None
    ) -> None:
        """Tell the room, except the socket `skip`. The caller has checked that the person is in it. Raises
        `SessionNotActive` (`SessionPaused`), `Unavailable`.
        """
        if not await self._is_open(session_id):
            raise self._not_open(session_id)
        view = {"sessionId": session_id, "userId": person_id, "isTyping": is_typing}
        self._push.to_session(session_id, "typing", view, skip=skip)

    async def history(
        self,
        person_id: str,
        session_id: str,
        *,
        after_seq: int | None = None,
        before_seq: int | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> Page:
        """A page by rising seq: after `after_seq`, or the last before `before_seq`, or the newest. Raises
        `NotFound`.
        """
        page = await self._store.page(
            session_id, after_seq=after_seq, before_seq=before_seq, limit=max(1, min(limit, MAX_LIMIT))
        )
        if page is None or not page.conversation.has(person_id):
            raise NotFound(session_id=session_id)
        return page

    async def overview(self, person_id: str, session_ids: Sequence[str]) -> dict[str, Overview]:
        """Last message and unread count of the person's own conversations among `session_ids`."""
        return await self._store.overview(session_ids, viewer_id=person_id)

    async def membership(self, person_id: str, session_id: str) -> Conversation:
        """The conversation, if the person is in it. Raises `NotFound`."""
        conversation = await self._store.conversation(session_id)
        if conversation is None or not conversation.has(person_id):
            raise NotFound(session_id=session_id)
        return conversation

    # --- what they share ---

    async def _is_open(self, session_id: str) -> bool:
        known = self._gate.is_open(session_id)
        return await self._gate.look(session_id) if known is None else known

    async def _sent_before(
        self, person_id: str, session_id: str, *, body: str, client_msg_id: str | None
    ) -> tuple[Message, bool]:
        """Nothing can be sent now; but whoever repeats a send whose answer was lost gets that answer."""
        await self.membership(person_id, session_id)
        if client_msg_id is not None:
            stored = await self._store.stored(session_id, sender_id=person_id, client_msg_ids=[client_msg_id])
            if message := stored.get(client_msg_id):
                if not message.says(body):
                    raise IdempotencyMismatch(session_id=session_id, client_msg_id=client_msg_id)
                return message, True
        raise self._not_open(session_id)

    def _not_open(self, session_id: str) -> SessionNotActive:
        refusal = SessionPaused if self._gate.is_paused(session_id) else SessionNotActive
        return refusal(session_id=session_id)

    async def _seq_of(self, person_id: str, session_id: str, message_id: str) -> int:
        conversation = await self.membership(person_id, session_id)
        seq = seq_of(message_id, session_id=session_id)
        if seq is None or not 1 <= seq <= conversation.last_seq:
            raise MessageNotFound(session_id=session_id, message_id=message_id)
        return seq

    async def _advance(
        self, person_id: str, session_id: str, *, delivered_seq: int = 0, seen_seq: int = 0
    ) -> Advance:
        advance = await self._store.advance(
            session_id=session_id,
            reader_id=person_id,
            delivered_seq=delivered_seq,
            seen_seq=seen_seq,
            at_ms=self._clock.now_ms(),
            # Read after the end, or while nothing is served: true, but no evidence that the session went on.
            in_service=await self._is_open(session_id),
        )
        if advance.changed:
            self._tell(
                session_id, "message_status", wire.status_view(session_id, person_id, advance.watermarks)
            )
        return advance

    def _tell(self, session_id: str, event: str, view: dict[str, Any]) -> None:
        # What is stored is stored: a listener's trouble must not make the sender believe otherwise.
        try:
            self._push.to_session(session_id, event, view)
        except Exception:
            log.exception("push_failed", event_name=event)


def _fitting(page: Page) -> Page:
    """The page, cut so that its answer fits a frame. At least one message stays: the largest alone fits."""
    room = JOIN_BYTES
    for k, message in enumerate(page.messages):
        room -= _ENVELOPE_BYTES + wire.json_bytes(message.body)
        if room < 0 and k > 0:
            return Page(page.conversation, page.messages[:k], page.receipts, has_more=True)
    return page
