"""How fast a client may send: token buckets by kind of event, arithmetic only; the caller brings the time.

Two buckets have to grant an event: the connection's, and the person's over all connections of this process, so that many sockets buy
little. One instant says what a bucket has used, *full at* (decision 0009). An empty bucket shuts for a moment: what comes after a
refused event is refused too, until the instant that the refusal names. Otherwise the third of five quick messages would be
taken because it came a little later than the second, and a conversation would lose its order.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Final

#: A bucket that was found empty stays shut until this part of its burst is back.
_REGAINED: Final = 0.25
#: What adding up a thousand intervals may be wrong by.
_ROUNDING_MS: Final = 1e-3
#: People who have left, and whose buckets are not full yet.
_REMEMBERED: Final = 50_000


class Kind(Enum):
    """What is counted together."""

    MESSAGE = "message"
    RECEIPT = "receipt"
    TYPING = "typing"
    JOIN = "join"
    LOGIN = "login"
    RING = "ring"
    SIGNAL = "signal"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Pace:
    """`burst` at once, then one every `interval_ms`."""

    burst: int
    interval_ms: float

    def times(self, factor: float) -> "Pace":
        """The same for so many."""
        return Pace(int(self.burst * factor), self.interval_ms / factor)


#: What one connection may do. An honest client stays far below: a thumb makes 15 key presses a second, a reconnect repeats at most 50
#: messages, a conversation of 10,000 messages is read in 50 joins.
CONNECTION: Final[Mapping[Kind, Pace]] = {
    Kind.MESSAGE: Pace(100, 50),
    Kind.RECEIPT: Pace(200, 25),
    Kind.TYPING: Pace(100, 50),
    Kind.JOIN: Pace(100, 100),
    Kind.LOGIN: Pace(10, 6_000),
    # Somebody's telephone rings: often enough for whoever calls again, too seldom to pester.
    Kind.RING: Pace(10, 6_000),
    Kind.SIGNAL: Pace(150, 20),
    Kind.OTHER: Pace(100, 50),
}
#: A person has a few devices.
_DEVICES: Final = 3
#: Refusals before a client that does not listen is sent away. Who waits as told and then sends 50 again never gets there.
REFUSALS: Final = Pace(200, 50)


@dataclass(frozen=True, slots=True)
class Limits:
    """The whole table."""

    connection: Mapping[Kind, Pace]
    person: Mapping[Kind, Pace]
    refusals: Pace = REFUSALS


def limits(**connection: Pace) -> Limits:
    """The table that ships, with other paces for some kinds, by their name in lower case."""
    mine = {**CONNECTION, **{Kind(name): pace for name, pace in connection.items()}}
    return Limits(mine, {kind: pace.times(_DEVICES) for kind, pace in mine.items()})


class Bucket:
    """What one has used of one pace."""

    __slots__ = ("full_at_ms", "shut_until_ms")

    def __init__(self) -> None:
        self.full_at_ms = 0.0
        self.shut_until_ms = 0.0

    def wait_ms(self, pace: Pace, now_ms: float) -> float:
        """How long until one more is granted; 0 is now."""
        used_ms = self.full_at_ms - now_ms - pace.interval_ms * (pace.burst - 1)
        return max(0.0, self.shut_until_ms - now_ms, used_ms if used_ms > _ROUNDING_MS else 0.0)

    def use(self, pace: Pace, now_ms: float) -> None:
        """Take one. Only after `wait_ms` has said 0."""
        self.full_at_ms = max(now_ms, self.full_at_ms) + pace.interval_ms


class Person:
    """What a person has used over all their connections to this process."""

    __slots__ = ("buckets", "sockets")

    def __init__(self) -> None:
        self.buckets: dict[Kind, Bucket] = {}
        self.sockets = 0

    def is_whole(self, now_ms: float) -> bool:
        """Whether nothing would be forgiven by forgetting them."""
        return all(bucket.full_at_ms <= now_ms for bucket in self.buckets.values())


class Sender:
    """One connection, as its events are counted."""

    __slots__ = ("_limits", "_own", "_refusals", "person")

    def __init__(self, limits: Limits, person: Person) -> None:
        self._limits = limits
        self.person = person
        self._own: dict[Kind, Bucket] = {}
        self._refusals = Bucket()

    def take(self, kind: Kind, now_ms: float) -> int:
        """Count one event: 0 if it may be handled, else the milliseconds until it is worth sending again."""
        own = self._own.get(kind) or self._own.setdefault(kind, Bucket())
        shared = self.person.buckets.get(kind) or self.person.buckets.setdefault(kind, Bucket())
        mine, ours = self._limits.connection[kind], self._limits.person[kind]
        wait_ms = max(own.wait_ms(mine, now_ms), shared.wait_ms(ours, now_ms))
        if wait_ms <= 0:
            own.use(mine, now_ms)
            shared.use(ours, now_ms)
            return 0
        if own.shut_until_ms <= now_ms:
            # Only this connection is shut: another device's order is its own.
            own.shut_until_ms = now_ms + max(wait_ms, mine.burst * _REGAINED * mine.interval_ms)
        return max(1, round(own.shut_until_ms - now_ms))

    def overruns(self, now_ms: float) -> bool:
        """Count one refusal; whether there were too many of them."""
        if self._refusals.wait_ms(self._limits.refusals, now_ms) > 0:
            return True
        self._refusals.use(self._limits.refusals, now_ms)
        return False


class Senders:
    """Everybody at this process. Who leaves is remembered until their buckets are full: coming back is no way to new ones."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._people: dict[str, Person] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()

    def came(self, person_id: str) -> Sender:
        """One more connection of the person."""
        person = self._people.setdefault(person_id, Person())
        person.sockets += 1
        self._gone.pop(person_id, None)
        return Sender(self._limits, person)

    def went(self, person_id: str, now_ms: float) -> None:
        """One connection of the person is gone."""
        person = self._people.get(person_id)
        if person is None:
            return
        person.sockets -= 1
        if person.sockets <= 0:
            self._gone[person_id] = None
        self._forget(now_ms)

    def _forget(self, now_ms: float) -> None:
        # Two at each departure, so the list does not grow; who is not whole yet goes to its back.
        for person_id in list(islice(self._gone, 2)):
            if self._people[person_id].is_whole(now_ms) or len(self._gone) > _REMEMBERED:
                del self._people[person_id], self._gone[person_id]
            else:
                self._gone.move_to_end(person_id)

    def __len__(self) -> int:
        """People who are remembered."""
        return len(self._people)
