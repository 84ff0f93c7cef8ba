"""A notifier that keeps what it is given, and fails on command."""

from dataclasses import dataclass, field

from server.notifications.model import Kind, Notification
from server.notifications.ports import NotDelivered


@dataclass
class Letters:
    """`Notifier` for tests. `failures` are raised first, one an attempt; a lost reply is a failure after the letter was taken."""

    taken: list[Notification] = field(default_factory=list)
    failures: list[NotDelivered] = field(default_factory=list)
    lost_replies: int = 0

    async def notify(self, notification: Notification) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append(notification)
        if self.lost_replies > 0:
            self.lost_replies -= 1
            raise NotDelivered("the answer was lost")

    def of(self, kind: Kind) -> list[Notification]:
        """Those of this kind, in the order in which they were taken."""
        return [letter for letter in self.taken if letter.kind is kind]

    def tokens(self) -> list[str]:
        """The one-time tokens of password resets."""
        return [letter.facts["token"] for letter in self.of(Kind.PASSWORD_RESET)]
