"""A transcript for programs: one JSON document, written piece by piece."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from billing_engine.consultations.model import ASKED, LIVE, TimelineRow
from billing_engine.money import ASSETS, format_minor
from chat.model import Delivery
from server.auth.model import Role
from server.session_views import EndReasonOut, StatusOut, TimelineOut
from server.transcripts.model import Entry, Heading, Party, Spoken
from server.wire import Instant, MoneyOut, WireModel, one_of


class PartyOut(WireModel):
    """One of the two who talked."""

    id: str
    role: Annotated[str, one_of((Role.USER, Role.LAWYER))]
    name: str


class MessageEntryOut(WireModel):
    """Something that was said. With `erasedAt`, retention took the body: it is empty."""

    type: Literal["message"] = "message"
    at: Instant
    seq: int
    id: str
    sender: PartyOut
    body: str
    status: Annotated[str, one_of(Delivery)]
    delivered_at: Instant | None
    seen_at: Instant | None
    erased_at: Instant | None


class EventEntryOut(TimelineOut):
    """Something that the bill is made of."""

    type: Literal["event"] = "event"


EntryOut = Annotated[MessageEntryOut | EventEntryOut, Field(discriminator="type")]


class HeadingOut(WireModel):
    """Whose consultation it is, and at what price."""

    session_id: str
    parties: list[PartyOut]
    rate_per_minute: MoneyOut
    currency: str
    timezone: str


class TotalOut(WireModel):
    """What it cost; so far, while it is not `isFinal`."""

    total_amount: MoneyOut
    duration_seconds: int
    status: StatusOut
    end_reason: EndReasonOut | None
    is_final: bool
    message_count: int


class TranscriptOut(HeadingOut):
    """A consultation from its start on: messages and events in their order, and what it cost.

    Messages that arrive while it is written are not in it. With `format=text` the same as a text to be read, in the server's
    time zone.
    """

    entries: list[EntryOut]
    total: TotalOut


class JsonTranscript:
    """Writes the parts of one transcript. Together they are one `TranscriptOut`."""

    def __init__(self, heading: Heading, timezone: str) -> None:
        self._heading = heading
        self._timezone = timezone
        self._asset = ASSETS[heading.view.session.currency]
        self._is_first = True

    def begin(self) -> bytes:
        """All before the entries."""
        session = self._heading.view.session
        heading = HeadingOut(
            session_id=session.id,
            parties=[_party(party) for party in self._heading.parties],
            rate_per_minute=format_minor(session.rate_minor_per_min, self._asset),
            currency=session.currency,
            timezone=self._timezone,
        )
        return heading.model_dump_json().encode()[:-1] + b',"entries":['

    def entries(self, entries: Iterable[Entry]) -> bytes:
        """Messages and events, in their order."""
        written = b",".join(self._entry(entry).model_dump_json().encode() for entry in entries)
        if written and not self._is_first:
            return b"," + written
        self._is_first = self._is_first and not written
        return written

    def end(self, count: int) -> bytes:
        """All after the entries."""
        view = self._heading.view
        total = TotalOut(
            total_amount=format_minor(view.total_minor, self._asset),
            duration_seconds=view.duration_s,
            status=view.status.value,
            end_reason=None if view.session.end_reason is None else view.session.end_reason.value,
            is_final=view.status not in LIVE | ASKED,
            message_count=count,
        )
        return b'],"total":' + total.model_dump_json().encode() + b"}"

    def _entry(self, entry: Entry) -> WireModel:
        if isinstance(entry, TimelineRow):
            return EventEntryOut(at=entry.at_ms, event=entry.event, reason=entry.reason)
        return self._spoken(entry)

    def _spoken(self, spoken: Spoken) -> MessageEntryOut:
        message, state = spoken.message, spoken.state
        return MessageEntryOut(
            at=message.created_at_ms,
            seq=message.seq,
            id=message.id,
            sender=_party(self._heading.party(message.sender_id)),
            body=message.body,
            status=state.status.value,
            delivered_at=state.delivered_at_ms,
            seen_at=state.seen_at_ms,
            erased_at=message.erased_at_ms,
        )


def _party(party: Party) -> PartyOut:
    return PartyOut(id=party.id, role=party.role.value, name=party.name)
