"""What stands in a transcript, and in which order. Pure."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from billing_engine.consultations.model import SessionView, TimelineRow
from chat.model import Message, MessageState, Page
from server.auth.model import Role

#: These begin a stretch of service, so they stand before what was said at the same instant; a pause and the end stand after it.
_OPENING: Final = frozenset({"start", "resume"})


@dataclass(frozen=True, slots=True)
class Party:
    """One of the two."""

    id: str
    role: Role
    name: str


@dataclass(frozen=True, slots=True)
class Heading:
    """Whose transcript it is. `last_seq` is the last message in it: what is said while it is written stays out."""

    view: SessionView
    parties: tuple[Party, Party]
    last_seq: int

    def party(self, person_id: str) -> Party:
        """Who that is."""
        user, lawyer = self.parties
        return user if person_id == user.id else lawyer


@dataclass(frozen=True, slots=True)
class Spoken:
    """A message and how far it has come."""

    message: Message
    state: MessageState


Entry = Spoken | TimelineRow


class Weaver:
    """Puts the events of the timeline between the messages. Pages come by rising `seq`, and their order is kept."""

    def __init__(self, rows: Iterable[TimelineRow]) -> None:
        self._rows = deque(rows)

    def page(self, page: Page, upto_seq: int) -> Iterator[Entry]:
        """The messages of a page, with what happened before each."""
        for message in page.messages:
            if message.seq <= upto_seq:
                while self._rows and _comes_before(self._rows[0], message):
                    yield self._rows.popleft()
                yield Spoken(message, page.state_of(message))

    def rest(self) -> Iterator[Entry]:
        """What happened after the last message."""
        yield from self._rows


def _comes_before(row: TimelineRow, message: Message) -> bool:
    if row.at_ms == message.created_at_ms:
        return row.event in _OPENING
    return row.at_ms < message.created_at_ms
