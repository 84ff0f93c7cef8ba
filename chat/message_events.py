"""The events of a conversation: messages, receipts, typing, who is looking."""

from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from chat.billing_events import BillView
from chat.buckets import Kind
from chat.call_events import CallView, PartyId
from chat.errors import IdempotencyMismatch, MessageNotFound, NotJoined, SessionNotActive, SessionPaused
from chat.event_types import (
    Ack,
    ClientEvent,
    Instant,
    ServerEvent,
    SessionPayload,
    Turn,
    View,
    printable_ascii,
)
from chat.model import EVERYTHING

#: Characters, not bytes: 8,000 emoji are 32 KB, or 96 KB when a client escapes them in its JSON.
MAX_BODY: Final = 8_000
MAX_CLIENT_MSG_ID: Final = 128
MAX_PENDING_IDS: Final = 50


def _says_something(text: str) -> str:
    if "\x00" in text:
        raise PydanticCustomError("null_character", "null characters are not allowed")
    if not text.strip():
        raise PydanticCustomError("blank", "there must be more in it than white space")
    return text


ClientMsgId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_CLIENT_MSG_ID),
    AfterValidator(printable_ascii),
]
#: Kept as it came: nothing is trimmed.
Body = Annotated[str, StringConstraints(min_length=1, max_length=MAX_BODY), AfterValidator(_says_something)]
Seq = Annotated[int, Field(ge=0, le=EVERYTHING)]


class JoinSession(SessionPayload):
    """`afterSeq` is the last message that the client has; `pendingIds` are its own messages that were never acknowledged; `partyId` is
    the device's name in a call, for one that has connected again.
    """

    after_seq: Seq = 0
    pending_ids: list[ClientMsgId] = Field(default_factory=list, max_length=MAX_PENDING_IDS)
    party_id: PartyId | None = None


class SendMessage(SessionPayload):
    """`clientMsgId` is the client's own name for the message; with it, sending again is safe."""

    body: Body
    client_msg_id: ClientMsgId | None = None


class MessageDelivered(SessionPayload):
    """Either the message, or everything up to a `seq`."""

    message_id: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    upto_seq: Seq | None = Field(default=None, validate_default=True)

    @field_validator("upto_seq")
    @classmethod
    def one_of_both(cls, upto_seq: int | None, info: ValidationInfo) -> int | None:
        if "message_id" in info.data and (upto_seq is None) is (info.data["message_id"] is None):
            raise PydanticCustomError("one_of_both", "exactly one of messageId and uptoSeq is needed")
        return upto_seq


class MarkSeen(SessionPayload):
    """Without `uptoSeq`: everything there is."""

    upto_seq: Seq | None = None


class Typing(SessionPayload):
    is_typing: bool


class LeaveSession(SessionPayload):
    pass


class MessageView(View):
    """A stored message. `seq` counts from 1 without a gap in its session. With `erasedAt`, retention took the body: it is empty."""

    id: str
    session_id: str
    seq: int
    sender_id: str
    client_msg_id: str
    body: str
    status: Literal["SENT", "DELIVERED", "SEEN"]
    created_at: Instant
    delivered_at: Instant | None
    seen_at: Instant | None
    erased_at: Instant | None


class MarksView(View):
    delivered_seq: int
    seen_seq: int


class StoredView(View):
    id: str
    seq: int
    created_at: Instant


class JoinAck(Ack):
    """What there is to catch up with. `stored` says which of the `pendingIds` are safe, by `clientMsgId`; `call` is the one
    that rings or runs.
    """

    session_id: str
    last_seq: int
    messages: list[MessageView]
    has_more: bool
    watermarks: dict[str, MarksView]
    presence: dict[str, Literal["ONLINE", "OFFLINE"]]
    billing: BillView
    stored: dict[str, StoredView]
    call: CallView | None


class SendAck(Ack):
    """The message is durable. `duplicate`: it was already, under the same `clientMsgId`."""

    id: str
    seq: int
    status: Literal["SENT"]
    created_at: Instant
    client_msg_id: str
    duplicate: bool


class DeliveredAck(Ack):
    delivered_seq: int
    seen_seq: int


class SeenAck(Ack):
    delivered_seq: int
    seen_seq: int
    updated: int


class StatusView(View):
    """How far `userId` has received and read."""

    session_id: str
    user_id: str
    delivered_seq: int
    seen_seq: int


class TypingView(View):
    session_id: str
    user_id: str
    is_typing: bool


class PresenceView(View):
    session_id: str
    user_id: str
    state: Literal["ONLINE", "OFFLINE"]


CLIENT_CHAT_EVENTS: Final = (
    ClientEvent(
        "join_session",
        JoinSession,
        JoinAck,
        Turn.ALONE,
        "Enter the session's room and catch up: messages after `afterSeq`, watermarks, billing, "
        "which `pendingIds` are stored. `hasMore`: ask again after the last seq of the answer.",
        kind=Kind.JOIN,
    ),
    ClientEvent(
        "send_message",
        SendMessage,
        SendAck,
        Turn.PIPELINED,
        "Store a message. Acknowledged once it is durable; the same `clientMsgId` again gets the "
        "same answer and stores nothing.",
        (SessionNotActive, SessionPaused, IdempotencyMismatch),
        Kind.MESSAGE,
    ),
    ClientEvent(
        "message_delivered",
        MessageDelivered,
        DeliveredAck,
        Turn.PIPELINED,
        "Everything up to this message has arrived on this person's device.",
        (MessageNotFound,),
        Kind.RECEIPT,
    ),
    ClientEvent(
        "mark_seen",
        MarkSeen,
        SeenAck,
        Turn.PIPELINED,
        "Everything up to `uptoSeq` (default: all) was read. Implies delivered.",
        kind=Kind.RECEIPT,
    ),
    ClientEvent(
        "typing",
        Typing,
        Ack,
        Turn.PIPELINED,
        "Tell the room; never stored, may be dropped.",
        (NotJoined, SessionNotActive, SessionPaused),
        Kind.TYPING,
    ),
    ClientEvent(
        "leave_session",
        LeaveSession,
        Ack,
        Turn.ALONE,
        "Leave the room with this socket. Does not end the session.",
        kind=Kind.JOIN,
    ),
)

SERVER_CHAT_EVENTS: Final = (
    ServerEvent("new_message", MessageView, "session", "A message was stored."),
    ServerEvent(
        "message_status",
        StatusView,
        "session",
        "A participant's watermarks moved; one event for a bulk change.",
    ),
    ServerEvent("typing", TypingView, "session", "The other side types, or stopped to.", ephemeral=True),
    ServerEvent(
        "presence",
        PresenceView,
        "session",
        "A participant opened the session on a first device, or has been gone from the last one for a moment.",
    ),
)
