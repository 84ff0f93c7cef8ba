"""Messages exactly once and in the order of their `seq`, however they come."""

from typing import Final

from tarazu_client.wire import MessageView

#: What may wait for the messages before it. More is not kept: the next join brings it.
_AHEAD: Final = 1_000


class Sequence:
    """`last_seq` is the last message that the app was given; everything up to it, it has."""

    def __init__(self, last_seq: int = 0) -> None:
        self.last_seq = last_seq
        self._ahead: dict[int, MessageView] = {}

    def take(self, message: MessageView) -> list[MessageView]:
        """What the app is to be given now, in order: nothing for what it has, nothing as long as one before is missing."""
        seq = message["seq"]
        if seq > self.last_seq and (seq == self.last_seq + 1 or len(self._ahead) < _AHEAD):
            self._ahead[seq] = message
        ready: list[MessageView] = []
        while (following := self._ahead.pop(self.last_seq + 1, None)) is not None:
            ready.append(following)
            self.last_seq += 1
        return ready

    @property
    def is_waiting(self) -> bool:
        """Whether something has come that cannot be given to the app yet."""
        return bool(self._ahead)
