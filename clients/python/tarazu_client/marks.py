"""How far each person has received and read; from that, the state of every message."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias, TypedDict

State: TypeAlias = Literal["SENT", "DELIVERED", "SEEN"]


class Mark(NamedTuple):
    """Everything up to these positions."""

    delivered_seq: int = 0
    seen_seq: int = 0


class _Told(TypedDict):
    deliveredSeq: int
    seenSeq: int


class Marks:
    """Watermarks by person. They only rise: an older word that comes late changes nothing."""

    def __init__(self) -> None:
        self._marks: dict[str, Mark] = {}

    def of(self, user_id: str) -> Mark:
        return self._marks.get(user_id, Mark())

    def take(self, user_id: str, told: Mapping[str, int] | _Told) -> bool:
        """Whether it is news."""
        old = self.of(user_id)
        seen_seq = max(old.seen_seq, told["seenSeq"])
        new = Mark(max(old.delivered_seq, told["deliveredSeq"], seen_seq), seen_seq)
        self._marks[user_id] = new
        return new != old

    def state(self, seq: int, sender_id: str) -> State:
        """Of a stored message: what those have done who did not write it."""
        others = [mark for user_id, mark in self._marks.items() if user_id != sender_id]
        if any(seq <= mark.seen_seq for mark in others):
            return "SEEN"
        return "DELIVERED" if any(seq <= mark.delivered_seq for mark in others) else "SENT"
