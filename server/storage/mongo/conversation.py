"""What a conversation's document says, and what each operation makes of it. Pure: the lane reads and writes.

The document is its own write-ahead log, as an account of the ledger is (LEDGER 1). Its `tail` holds the newest rows (messages and
receipts), which writes have committed and which may not lie in the collection of rows yet. When it has become long, the next write
copies it there first and drops it; each row has an `_id` made of what it is, so copying again changes nothing.

People are stored as a side: "u" the user, "l" the lawyer. `from_user` counts how many of the messages 1..seq the user wrote, so that
how many of the peer's messages lie between two positions is a subtraction.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Protocol

from chat.errors import IdempotencyMismatch, NotFound, SessionNotActive
from chat.model import Advance, Conversation, Message, Watermarks

Side = Literal["u", "l"]
Row = dict[str, Any]
SIDES: Final[tuple[Side, Side]] = ("u", "l")
#: Kind of a message's row; a receipt's is its side and what it reports.
MESSAGE: Final = "m"
DELIVERED: Final = "d"
SEEN: Final = "s"
_TAIL_ROWS: Final = 16
_TAIL_CHARS: Final = 16 * 1024
RECEIPTS: Final = tuple(side + what for side in SIDES for what in (DELIVERED, SEEN))


@dataclass(slots=True)
class Marks:
    """How far one of the two has come. `seen_from_user`: how many of the messages up to `seen` the user wrote."""

    delivered: int = 0
    seen: int = 0
    seen_from_user: int = 0


@dataclass(slots=True)
class State:
    """A conversation as it is stored. `version` is None for one that is not stored yet."""

    session_id: str
    user_id: str
    lawyer_id: str
    opened_at_ms: int
    version: str | None = None
    closed_at_ms: int | None = None
    erased_at_ms: int | None = None
    wiping: bool = False
    last_seq: int = 0
    last_id: str | None = None
    from_user: int = 0
    last_at_ms: int = 0
    evidence_ms: int = 0
    marks: dict[Side, Marks] = field(default_factory=lambda: {"u": Marks(), "l": Marks()})
    tail: tuple[Row, ...] = ()

    def side_of(self, person_id: str) -> Side:
        """Raises `NotFound` for anybody else: for a stranger it is not there."""
        if person_id == self.user_id:
            return "u"
        if person_id == self.lawyer_id:
            return "l"
        raise NotFound(session_id=self.session_id)

    def copy(self) -> "State":
        return replace(self, marks={side: replace(marks) for side, marks in self.marks.items()})

    def conversation(self) -> Conversation:
        return Conversation(
            self.session_id,
            self.user_id,
            self.lawyer_id,
            self.last_seq,
            self.opened_at_ms,
            self.closed_at_ms,
            self.evidence_ms,
            {
                self.user_id: self._watermarks("u"),
                self.lawyer_id: self._watermarks("l"),
            },
            self.erased_at_ms,
        )

    def _watermarks(self, side: Side) -> Watermarks:
        return Watermarks(self.marks[side].delivered, self.marks[side].seen)

    def message(self, row: Row) -> Message:
        erased = self.erased_at_ms is not None
        return Message(
            self.session_id,
            row["seq"],
            self.user_id if row["side"] == "u" else self.lawyer_id,
            row["client_msg_id"],
            "" if erased else row["body"],  # whether or not it is overwritten yet
            row["created_at_ms"],
            self.erased_at_ms,
        )

    def unread_by(self, side: Side) -> int:
        """How many of the peer's messages this side has not seen."""
        marks = self.marks[side]
        from_user = self.from_user - marks.seen_from_user
        return from_user if side == "l" else self.last_seq - marks.seen - from_user


def state_of(doc: Mapping[str, Any]) -> State:
    """The other way round: `fields_of`. A document read without its tail has an empty one."""
    return State(
        doc["_id"],
        doc["user_id"],
        doc["lawyer_id"],
        doc["opened_at_ms"],
        doc["version"],
        doc["closed_at_ms"],
        doc["erased_at_ms"],
        doc["wiping"],
        doc["last_seq"],
        doc["last_id"],
        doc["from_user"],
        doc["last_at_ms"],
        doc["evidence_ms"],
        {side: Marks(**doc["marks"][side]) for side in SIDES},
        tuple(doc.get("tail", ())),
    )


def fields_of(state: State) -> dict[str, Any]:
    """All that a write may change; `wiping` it can only begin, see `Erase`."""
    return {
        "version": state.version,
        "closed_at_ms": state.closed_at_ms,
        "erased_at_ms": state.erased_at_ms,
        "last_seq": state.last_seq,
        "last_id": state.last_id,
        "from_user": state.from_user,
        "last_at_ms": state.last_at_ms,
        "evidence_ms": state.evidence_ms,
        "marks": {
            side: {
                "delivered": marks.delivered,
                "seen": marks.seen,
                "seen_from_user": marks.seen_from_user,
            }
            for side, marks in state.marks.items()
        },
        "tail": list(state.tail),
        # What `redo_pending` finds it by.
        "tail_at_ms": state.last_at_ms if state.tail else None,
    }


def row_id(session_id: str, kind: str, *parts: str) -> str:
    """No two rows share one, whatever the ids are made of: the session's length says where it ends."""
    return ":".join((str(len(session_id)), session_id, kind, *parts))


def message_id(session_id: str, side: Side, client_msg_id: str) -> str:
    return row_id(session_id, MESSAGE, side, client_msg_id)


class Change:
    """Operations applied to a state one after another, as one write will store them.

    Args:
        session_id: the conversation.
        state: as it is stored, or None. It stays as it is.
        version: of the state to be; also written into each new row, so that a writer knows its own after a lost reply.
        stored: rows that lie in the collection, by `_id`: at least those of the messages that the operations name.
        counts: `from_user` at positions that are neither in the tail nor the last.
        copied: whether the tail lies in the collection of rows by now, so that it can be dropped.
    """

    def __init__(
        self,
        session_id: str,
        state: State | None,
        *,
        version: str,
        stored: Mapping[str, Row],
        counts: Mapping[int, int],
        copied: bool = False,
    ) -> None:
        self.session_id = session_id
        self.state = None if state is None else state.copy()
        self.changed = False
        self.version = version
        self._kept: tuple[Row, ...] = () if state is None or copied else state.tail
        self._known = dict(stored)
        self._counts = {0: 0, **counts}
        self.rows: list[Row] = []
        if state is not None:
            self._counts.update(_counts_of(state))
            self._learn(state.tail)

    def result(self) -> State:
        """The state to store."""
        if self.state is None:
            raise ValueError("nothing is to be stored")
        return replace(self.state, version=self.version, tail=(*self._kept, *self.rows))

    def existing(self) -> State:
        """Raises `NotFound`."""
        if self.state is None:
            raise NotFound(session_id=self.session_id)
        return self.state

    def known(self, id_: str) -> Row | None:
        return self._known.get(id_)

    def from_user_at(self, seq: int) -> int:
        return self._counts[seq]

    def add(self, row: Row) -> None:
        row["commit"] = self.version
        self.rows.append(row)
        self._learn([row])
        self.changed = True

    def _learn(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._known[row["_id"]] = row
            if row["kind"] == MESSAGE:
                self._counts[row["seq"]] = row["from_user"]


class Operation(Protocol):
    """One thing to do with a conversation. Applied again to a later state, it answers for that one."""

    def apply(self, change: Change) -> Any:
        """The caller's answer; raises the chat's errors. Sets `change.changed` where there is something to store."""
        ...


@dataclass(frozen=True, slots=True)
class Open:
    user_id: str
    lawyer_id: str
    at_ms: int

    def apply(self, change: Change) -> None:
        if change.state is None:
            change.state = State(change.session_id, self.user_id, self.lawyer_id, self.at_ms)
            change.changed = True


@dataclass(frozen=True, slots=True)
class Close:
    at_ms: int

    def apply(self, change: Change) -> None:
        if change.state is not None and change.state.closed_at_ms is None:
            change.state.closed_at_ms = self.at_ms
            change.changed = True


@dataclass(frozen=True, slots=True)
class Erase:
    """Whether it is erased now and was not before: the one write by which it is, for everybody who reads."""

    at_ms: int

    def apply(self, change: Change) -> bool:
        state = change.state
        if state is None or state.closed_at_ms is None or state.erased_at_ms is not None:
            return False
        state.erased_at_ms = self.at_ms
        state.wiping = True
        change.changed = True
        return True


@dataclass(frozen=True, slots=True)
class Redo:
    """Nothing but to drop the tail, which is copied by then: `wants_copy`."""

    def apply(self, change: Change) -> None:
        if change.state is not None and change.state.tail:
            change.changed = True


@dataclass(frozen=True, slots=True)
class Append:
    sender_id: str
    client_msg_id: str
    body: str
    at_ms: int

    def apply(self, change: Change) -> tuple[Message, bool]:
        state = change.existing()
        side = state.side_of(self.sender_id)
        id_ = message_id(state.session_id, side, self.client_msg_id)
        if (earlier := change.known(id_)) is not None:
            message = state.message(earlier)
            if not message.says(self.body):
                raise IdempotencyMismatch(session_id=state.session_id, client_msg_id=self.client_msg_id)
            return message, True
        if state.closed_at_ms is not None:
            raise SessionNotActive(session_id=state.session_id)
        state.last_seq += 1
        state.last_id = id_
        state.last_at_ms = max(self.at_ms, state.last_at_ms)  # stored instants only move forward
        state.evidence_ms = state.last_at_ms
        state.from_user += side == "u"
        row: Row = {
            "_id": id_,
            "session_id": state.session_id,
            "kind": MESSAGE,
            "seq": state.last_seq,
            "side": side,
            "client_msg_id": self.client_msg_id,
            "body": self.body,
            "created_at_ms": state.last_at_ms,
            "from_user": state.from_user,
        }
        change.add(row)
        return state.message(row), False


@dataclass(frozen=True, slots=True)
class Raise:
    """A receipt: raise the reader's marks."""

    reader_id: str
    delivered_seq: int
    seen_seq: int
    at_ms: int
    in_service: bool

    def apply(self, change: Change) -> Advance:
        state = change.existing()
        side = state.side_of(self.reader_id)
        marks = state.marks[side]
        before = Watermarks(marks.delivered, marks.seen)
        after = before.raised(
            delivered_seq=self.delivered_seq, seen_seq=self.seen_seq, last_seq=state.last_seq
        )
        if after == before:
            return Advance(before, 0, changed=False)
        state.last_at_ms = max(self.at_ms, state.last_at_ms)
        if self.in_service:
            state.evidence_ms = state.last_at_ms
        for what, upto_seq, old in (
            (DELIVERED, after.delivered_seq, before.delivered_seq),
            (SEEN, after.seen_seq, before.seen_seq),
        ):
            if upto_seq > old:
                change.add(
                    {
                        "_id": row_id(state.session_id, side + what, str(upto_seq)),
                        "session_id": state.session_id,
                        "kind": side + what,
                        "seq": upto_seq,
                        "at_ms": state.last_at_ms,
                    }
                )
        seen_from_user = change.from_user_at(after.seen_seq)
        by_user = seen_from_user - marks.seen_from_user
        newly_seen = by_user if side == "l" else after.seen_seq - before.seen_seq - by_user
        state.marks[side] = Marks(after.delivered_seq, after.seen_seq, seen_from_user)
        return Advance(after, newly_seen, changed=True)


def wants_copy(state: State, operations: Iterable[Operation]) -> bool:
    """Whether the tail is to be copied out and dropped with this write.

    It need not be each time: then a message would cost two writes. But it is read and written with the document, so it stays short.
    """
    return (
        len(state.tail) >= _TAIL_ROWS
        or sum(len(row.get("body", "")) for row in state.tail) >= _TAIL_CHARS
        or any(isinstance(operation, (Erase, Redo)) for operation in operations)
    )


def rows_asked(state: State, operations: Iterable[Operation]) -> list[str]:
    """The `_id` of each message that the operations name and that may lie in the collection of rows."""
    people: dict[str, Side] = {state.user_id: "u", state.lawyer_id: "l"}
    in_tail = {row["_id"] for row in state.tail}
    ids = {
        message_id(state.session_id, people[operation.sender_id], operation.client_msg_id): None
        for operation in operations
        if isinstance(operation, Append) and operation.sender_id in people
    }
    return [id_ for id_ in ids if id_ not in in_tail]


def counts_asked(state: State, operations: Iterable[Operation]) -> list[int]:
    """The positions at which `from_user` is asked for and known to the rows alone."""
    known = {row["seq"] for row in state.tail if row["kind"] == MESSAGE}
    known.update((0, *_counts_of(state)))
    asked: dict[int, None] = {}
    for operation in operations:
        if isinstance(operation, Raise) and 0 < operation.seen_seq < state.last_seq:
            asked[operation.seen_seq] = None
    return [seq for seq in asked if seq not in known]


def _counts_of(state: State) -> dict[int, int]:
    """`from_user` at the positions for which the document itself knows it."""
    marks = {mark.seen: mark.seen_from_user for mark in state.marks.values()}
    return {**marks, state.last_seq: state.from_user}
