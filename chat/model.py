"""What a conversation is: messages, receipts and watermarks. Pure: no clock, no I/O.

A receipt says "everything up to here". So a participant's receipts are two numbers (the watermarks), a bulk
"seen" is one write, and a message's state is *derived* from the watermarks of the participant who did not
write it. Counters kept beside it could disagree with it; there are none.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

#: "Everything there is": every store clamps a receipt to the conversation's last message.
EVERYTHING: Final = 2**53 - 1


class Delivery(StrEnum):
    """How far one message has come. SEEN implies DELIVERED."""

    SENT = "SENT"
    DELIVERED = "DELIVERED"
    SEEN = "SEEN"


class ReceiptKind(StrEnum):
    """What a recipient can report."""

    DELIVERED = "DELIVERED"
    SEEN = "SEEN"


#: A state machine is a table; what is not in it does not happen. So nothing ever goes back.
MOVES: Final = {
    (Delivery.SENT, ReceiptKind.DELIVERED): Delivery.DELIVERED,
    # The delivered receipt was lost or overtaken; having seen it is proof enough.
    (Delivery.SENT, ReceiptKind.SEEN): Delivery.SEEN,
    (Delivery.DELIVERED, ReceiptKind.SEEN): Delivery.SEEN,
}


def move(state: Delivery, receipt: ReceiptKind) -> Delivery:
    """Next state of one message. A late or repeated receipt changes nothing."""
    return MOVES.get((state, receipt), state)


@dataclass(frozen=True, slots=True)
class Watermarks:
    """How far one participant has received and read. `seen_seq <= delivered_seq <= last_seq`, always."""

    delivered_seq: int = 0
    seen_seq: int = 0

    def raised(self, *, delivered_seq: int = 0, seen_seq: int = 0, last_seq: int) -> "Watermarks":
        """The marks after a receipt: never lower, never past `last_seq`, seen implies delivered."""
        seen = max(self.seen_seq, min(seen_seq, last_seq))
        delivered = max(self.delivered_seq, min(delivered_seq, last_seq), seen)
        return Watermarks(delivered, seen)

    def status(self, seq: int) -> Delivery:
        """State of message `seq` when these are the marks of the participant who did not write it."""
        if seq <= self.seen_seq:
            return Delivery.SEEN
        if seq <= self.delivered_seq:
            return Delivery.DELIVERED
        return Delivery.SENT


@dataclass(frozen=True, slots=True)
class Message:
    """One stored message. `seq` counts from 1 without a gap in its session; instants are in milliseconds.

    `erased_at_ms`: retention took the body, which is empty now. The message keeps its place, or the sequence had a gap.
    """

    session_id: str
    seq: int
    sender_id: str
    client_msg_id: str
    body: str
    created_at_ms: int
    erased_at_ms: int | None = None

    def says(self, body: str) -> bool:
        """Whether a repeat with this body is the same message. What was erased cannot be compared: the id decides alone."""
        return self.erased_at_ms is not None or self.body == body

    @property
    def id(self) -> str:
        """Opaque to clients. Made of the position, so it sorts by creation and needs no index of its own."""
        return f"{self.session_id}:{self.seq:09d}"


def seq_of(message_id: str, *, session_id: str) -> int | None:
    """The position that `message_id` names in this session; None if it names none."""
    session, _, digits = message_id.rpartition(":")
    if session != session_id or len(digits) < 9 or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits[:16])


@dataclass(frozen=True, slots=True)
class Receipt:
    """One advance of a watermark: at `at_ms` the participant had everything up to `upto_seq`."""

    upto_seq: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Receipts:
    """The advances of one participant that concern some page of messages, each list by rising `upto_seq`."""

    delivered: tuple[Receipt, ...] = ()
    seen: tuple[Receipt, ...] = ()


def covered_at_ms(receipts: Sequence[Receipt], seq: int) -> int | None:
    """When message `seq` was first covered by a receipt, None if it is not."""
    k = bisect_left(receipts, seq, key=lambda receipt: receipt.upto_seq)
    return receipts[k].at_ms if k < len(receipts) else None


@dataclass(frozen=True, slots=True)
class Conversation:
    """The chat of one session. Exactly two people are in it, for ever."""

    session_id: str
    user_id: str
    lawyer_id: str
    last_seq: int
    opened_at_ms: int
    closed_at_ms: int | None = None
    #: Instant of the last message or receipt that was stored while the session was being served; 0 when there
    #: is none.
    evidence_ms: int = 0
    watermarks: Mapping[str, Watermarks] = field(default_factory=dict)
    #: Since when the bodies of all its messages count as erased.
    erased_at_ms: int | None = None

    @property
    def participants(self) -> tuple[str, str]:
        return (self.user_id, self.lawyer_id)

    def has(self, person_id: str) -> bool:
        return person_id in self.participants

    def peer_of(self, person_id: str) -> str:
        """The other one of the two."""
        return self.lawyer_id if person_id == self.user_id else self.user_id

    def marks_of(self, person_id: str) -> Watermarks:
        return self.watermarks.get(person_id, Watermarks())


@dataclass(frozen=True, slots=True)
class Advance:
    """What a receipt did: the marks after it, how many of the peer's messages it newly marked as seen, and
    whether anything moved.
    """

    watermarks: Watermarks
    newly_seen: int
    changed: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Some messages of a conversation by rising `seq`, with what is needed to tell the state of each. One
    snapshot.
    """

    conversation: Conversation
    messages: tuple[Message, ...]
    #: By participant: the receipts that cover these messages.
    receipts: Mapping[str, Receipts]
    has_more: bool

    def state_of(self, message: Message) -> "MessageState":
        """State and instants of a message of this page; the sender's own receipts do not count."""
        peer_id = self.conversation.peer_of(message.sender_id)
        receipts = self.receipts.get(peer_id, Receipts())
        return MessageState(
            self.conversation.marks_of(peer_id).status(message.seq),
            covered_at_ms(receipts.delivered, message.seq),
            covered_at_ms(receipts.seen, message.seq),
        )


@dataclass(frozen=True, slots=True)
class MessageState:
    """How far a message has come, and since when."""

    status: Delivery = Delivery.SENT
    delivered_at_ms: int | None = None
    seen_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Overview:
    """A conversation in a list: its newest message and how many of the peer's messages the viewer has not
    seen.
    """

    last_message: Message | None
    unread: int
