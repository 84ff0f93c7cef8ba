"""What was said and is not known to be stored: which of it may be sent now. No clock and no I/O."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

#: So many may be without an answer at once.
WINDOW: Final = 20


@dataclass(frozen=True, slots=True)
class Draft:
    """A message before it is stored. Its `client_msg_id` makes sending it again harmless."""

    session_id: str
    client_msg_id: str
    body: str


class Outbox:
    """Drafts in the order in which they were said, and which of them are on their way.

    After a loss or a refusal one alone goes first: only when it is stored do the others follow, so that none of them gets
    before it.
    """

    def __init__(self, drafts: Iterable[Draft] = (), *, window: int = WINDOW) -> None:
        self._drafts: dict[str, Draft] = {draft.client_msg_id: draft for draft in drafts}
        self._on_their_way: set[str] = set()
        self._window = window
        self._one_alone = True
        self._not_before_s = 0.0

    def __len__(self) -> int:
        return len(self._drafts)

    def __contains__(self, client_msg_id: str) -> bool:
        return client_msg_id in self._drafts

    def __iter__(self) -> Iterator[Draft]:
        return iter(self._drafts.values())

    def add(self, draft: Draft) -> None:
        """Raises `ValueError`: there is one of that name."""
        if draft.client_msg_id in self._drafts:
            raise ValueError(f"clientMsgId {draft.client_msg_id!r} is waiting already")
        self._drafts[draft.client_msg_id] = draft

    def first_ids(self, limit: int) -> list[str]:
        """What to ask the server about: those that may have been sent are always among the first."""
        return list(self._drafts)[:limit]

    def next(self, now_s: float) -> Draft | None:
        """The next to send, which is on its way from now on; None: nothing at present."""
        if now_s < self._not_before_s or len(self._on_their_way) >= (1 if self._one_alone else self._window):
            return None
        for client_msg_id, draft in self._drafts.items():
            if client_msg_id not in self._on_their_way:
                self._on_their_way.add(client_msg_id)
                return draft
        return None

    def wait_s(self, now_s: float) -> float | None:
        """How long a refusal still forbids sending; None: it does not."""
        return self._not_before_s - now_s if self._drafts and now_s < self._not_before_s else None

    def stored(self, client_msg_id: str) -> Draft | None:
        """It is safe: by an acknowledgement, by a join, or because it came back as a message. None: that was known."""
        # Only the one that went alone says that the others may follow; what a join finds was sent before.
        if client_msg_id in self._on_their_way and client_msg_id == next(iter(self._drafts), None):
            self._one_alone = False
        self._on_their_way.discard(client_msg_id)
        return self._drafts.pop(client_msg_id, None)

    def failed(self, client_msg_id: str) -> Draft | None:
        """It will never be stored."""
        self._on_their_way.discard(client_msg_id)
        return self._drafts.pop(client_msg_id, None)

    def again(self, client_msg_id: str, *, not_before_s: float = 0.0) -> None:
        """It was not stored, or nobody knows: it is to be sent again."""
        self._on_their_way.discard(client_msg_id)
        self._one_alone = True
        self._not_before_s = max(self._not_before_s, not_before_s)

    def now(self) -> None:
        """Whatever was waited for has happened."""
        self._not_before_s = 0.0

    def lost(self) -> None:
        """The connection is gone, and with it every answer."""
        self._on_their_way.clear()
        self._one_alone = True
        self._not_before_s = 0.0
