"""What the outbox needs: a way out, somebody who writes the letters, and rows."""

from typing import Protocol

from server.notifications.model import Notice, Notification


class NotDelivered(Exception):
    """It did not go out, or nobody knows. `for_good`: another attempt would fail the same way."""

    def __init__(self, reason: str, *, for_good: bool = False) -> None:
        self.reason = reason
        self.for_good = for_good
        super().__init__(reason)


class Notifier(Protocol):
    """A way out. Every adapter passes `tests/contract/notifier_contract.py`."""

    async def notify(self, notification: Notification) -> None:
        """Hand the notification over; on return somebody else is responsible for it. It may be handed over more than once.

        Raises:
            NotDelivered: it was not taken, or the answer was lost.
        """
        ...


class Composer(Protocol):
    """Writes letters."""

    async def compose(self, notice: Notice) -> Notification | None:
        """The letter as of now; None if nobody is to be told any more. The same notice may be composed again.

        Raises:
            Unavailable: what it needs cannot be read.
        """
        ...


class OutboxRows(Protocol):
    """The stored notices. All methods raise `StoreUnavailable`."""

    async def add(self, notice: Notice) -> None:
        """Insert; harmless if the id is there already."""
        ...

    async def due(self, now_ms: int, *, limit: int) -> list[Notice]:
        """Pending ones whose time has come, the longest waiting first."""
        ...

    async def next_at_ms(self) -> int | None:
        """When the next pending one is due; None if none is pending."""
        ...

    async def begin(self, notice: Notice, *, until_ms: int) -> Notice | None:
        """Begin an attempt that nobody else begins before `until_ms`; None if somebody else did."""
        ...

    async def again(self, notice: Notice, *, at_ms: int, problem: str) -> None:
        """The attempt failed; the next one is at `at_ms`."""
        ...

    async def sent(self, notice: Notice) -> None:
        """It went out; what it held of a person is forgotten."""
        ...

    async def dead(self, notice: Notice, *, problem: str) -> None:
        """It is given up; what it held of a person is forgotten."""
        ...

    async def drop(self, notice: Notice) -> None:
        """Nobody is to be told any more."""
        ...

    async def drop_settled(self, *, before_ms: int, limit: int) -> int:
        """Delete rows that are sent or dead and were made before then; how many there were."""
        ...
