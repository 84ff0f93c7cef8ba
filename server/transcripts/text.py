"""A transcript to be read by people: times of the place, names, and no way to write into somebody else's mouth.

A body may hold anything. So it stands on lines of its own, each of them indented, and characters that steer a screen or turn
the direction of writing are shown and not obeyed: what begins at the left margin was written by the server.
"""

import re
import unicodedata
from collections.abc import Iterable
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from billing_engine.consultations.model import ASKED, LIVE, TimelineRow
from billing_engine.money import ASSETS, format_minor
from server.transcripts.model import Entry, Heading, Party, Spoken

_EVENTS: Final = {
    "start": "The consultation began",
    "pause": "Paused",
    "resume": "Resumed",
    "end": "The consultation ended",
}
_INDENT: Final = "    "
#: Controls, and the marks that embed or override a direction.
_STEERING: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class TextTranscript:
    """Renders the parts of one transcript; `zone` is the place whose clock is shown."""

    def __init__(self, heading: Heading, zone: ZoneInfo) -> None:
        self._heading = heading
        self._zone = zone
        self._session = heading.view.session
        self._asset = ASSETS[self._session.currency]

    def begin(self) -> bytes:
        """Whose it is."""
        user, lawyer = self._heading.parties
        rate = format_minor(self._session.rate_minor_per_min, self._asset)
        return _lines(
            f"Consultation {self._session.id}",
            f"between {_who(user)} and {_who(lawyer)}",
            f"Rate: {rate} {self._session.currency} a minute. Times: {self._zone.key}.",
        )

    def entries(self, entries: Iterable[Entry]) -> bytes:
        """Messages and events, in their order."""
        return b"".join(self._entry(entry) for entry in entries)

    def end(self, count: int) -> bytes:
        """What it cost, and that nothing is missing: a transcript without its last line was cut short."""
        view = self._heading.view
        so_far = " so far" if view.status in LIVE | ASKED else ""
        total = format_minor(view.total_minor, self._asset)
        return _lines(
            "",
            f"Total{so_far}: {total} {self._session.currency} for {view.duration_s} seconds.",
            f"End of the transcript. Messages: {count}.",
        )

    def _entry(self, entry: Entry) -> bytes:
        if isinstance(entry, TimelineRow):
            reason = "" if entry.reason is None else f": {entry.reason}"
            return _lines("", f"[{self._time(entry.at_ms)}] * {_EVENTS[entry.event]}{reason}.")
        return self._spoken(entry)

    def _spoken(self, spoken: Spoken) -> bytes:
        message = spoken.message
        head = f"[{self._time(message.created_at_ms)}] {_who(self._heading.party(message.sender_id))}:"
        if message.erased_at_ms is not None:
            return _lines("", head.removesuffix(":") + f" * Erased on {self._time(message.erased_at_ms)}.")
        # `splitlines` knows all that moves to a new line somewhere.
        return _lines("", head, *(_INDENT + _shown(line) for line in message.body.splitlines()))

    def _time(self, at_ms: int) -> str:
        # With the offset: an hour that a clock shows twice a year is still one instant.
        return datetime.fromtimestamp(at_ms // 1000, self._zone).strftime("%Y-%m-%d %H:%M:%S %z")


def _who(party: Party) -> str:
    name = " ".join(_shown(party.name).split()) or "Somebody"
    return f"{name} ({party.role.lower()})"


def _shown(text: str) -> str:
    return _STEERING.sub(_named, text)


def _named(match: re.Match[str]) -> str:
    return f"<{unicodedata.name(match[0], '') or f'U+{ord(match[0]):04X}'}>"


def _lines(*lines: str) -> bytes:
    # Half a surrogate pair can be stored in no body; should one be, it does not break the document.
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
