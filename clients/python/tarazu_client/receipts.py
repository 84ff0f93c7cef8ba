"""Which receipts are still to be told: what this device has and has shown, against what the server has confirmed. No I/O."""

from typing import Literal, NamedTuple, TypeAlias

from tarazu_client.marks import Mark


class Report(NamedTuple):
    """One event that says it for all messages up to `upto_seq`."""

    event: Literal["mark_seen", "message_delivered"]
    upto_seq: int


Confirmed: TypeAlias = Mark


class Receipts:
    """What arrived and what was read, by position. Only the last position counts, so many messages are one event."""

    def __init__(self) -> None:
        self._delivered_seq = 0
        self._seen_seq = 0

    def arrived(self, seq: int) -> None:
        """A message of somebody else is on this device."""
        self._delivered_seq = max(self._delivered_seq, seq)

    def seen(self, seq: int) -> None:
        """The person has read everything up to it."""
        self._seen_seq = max(self._seen_seq, seq)

    def due(self, confirmed: Confirmed) -> Report | None:
        """What to tell next. Having seen says that it was delivered as well."""
        if self._seen_seq > confirmed.seen_seq:
            return Report("mark_seen", self._seen_seq)
        if self._delivered_seq > confirmed.delivered_seq:
            return Report("message_delivered", self._delivered_seq)
        return None
