"""Who of a session's two people is lost, and since when. Pure: presence is asked as a state, never built from edges.

*Lost* is who had joined and is known to be gone. Who never joined, and of whom nothing is known, is not lost. Nobody is lost
since before the meter began to run (again): what came before is settled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from billing_engine.consultations.meter import Meter
from billing_engine.consultations.model import LostReason


@dataclass(frozen=True, slots=True)
class Present:
    """The person is connected to the session."""


@dataclass(frozen=True, slots=True)
class GoneSince:
    """The person is not, and gave the last sign of life then (epoch ms). None: nobody remembers any."""

    at_ms: int | None


#: None: nobody knows, and nothing is paused, resumed or ended by it.
Whereabouts = Present | GoneSince | None
PRESENT: Final = Present()


class Loss(NamedTuple):
    """Somebody who had joined is lost since then."""

    since_ms: int
    reason: LostReason


class Absence(NamedTuple):
    """Those who are gone, each with the last sign of life, and how long that must last to count."""

    people: tuple[tuple[str, int], ...] = ()
    grace_ms: int = 0

    def loss(self, meter: Meter) -> Loss | None:
        """Of those who are lost the one that was lost first; the user before the lawyer. None: nobody is."""
        floor_ms = meter.running_since_ms if meter.waiting_since_ms is None else meter.waiting_since_ms
        gone = dict(self.people)
        losses = [
            Loss(max(gone[person], floor_ms or 0), reason)
            for person, reason in (
                (meter.user_id, LostReason.USER_LOST),
                (meter.lawyer_id, LostReason.LAWYER_LOST),
            )
            if person in gone
        ]
        return min(losses, key=lambda loss: loss.since_ms, default=None)

    def due(self, meter: Meter, at_ms: int) -> Loss | None:
        """The loss that pauses a running session at `at_ms`: it has lasted for the grace."""
        loss = self.loss(meter) if meter.running_since_ms is not None else None
        return loss if loss is not None and at_ms - loss.since_ms >= self.grace_ms else None


NOBODY: Final = Absence()


class Attendance:
    """What one process knows of a session's people, from look to look."""

    def __init__(self, people: Sequence[str], now_ms: int) -> None:
        self._seen: Mapping[str, Whereabouts] = dict.fromkeys(people)
        #: When each was last not known to be gone: who vanished without any trace is lost since then. What nobody knows for a while
        #: changes nothing of it.
        self._not_gone_ms = dict.fromkeys(people, now_ms)
        self._gone: set[str] = set()

    def take(self, seen: Mapping[str, Whereabouts], now_ms: int) -> None:
        """What was answered at `now_ms`."""
        self._seen = seen
        for person, where in seen.items():
            if isinstance(where, GoneSince):
                self._gone.add(person)
                continue
            if isinstance(where, Present):
                self._gone.discard(person)
            if person not in self._gone:
                self._not_gone_ms[person] = now_ms

    def arrived(self, meter: Meter) -> tuple[str, ...]:
        """Who has joined and is not noted in the meter. Who left a trace has joined, too, and be it between two looks."""
        return tuple(
            person
            for person, where in self._seen.items()
            if person not in meter.joined
            and (isinstance(where, Present) or (isinstance(where, GoneSince) and where.at_ms is not None))
        )

    def absence(self, meter: Meter, grace_ms: int) -> Absence:
        """Who is known to be gone, of those who had joined."""
        people = []
        for person, where in self._seen.items():
            if isinstance(where, GoneSince):
                if where.at_ms is not None:
                    people.append((person, where.at_ms))
                elif person in meter.joined:
                    people.append((person, self._not_gone_ms[person]))
        return Absence(tuple(people), grace_ms)

    def traced(self, grace_ms: int) -> Absence:
        """Who is gone and had joined for certain, whatever the meter says of it."""
        return Absence(
            tuple(
                (person, where.at_ms)
                for person, where in self._seen.items()
                if isinstance(where, GoneSince) and where.at_ms is not None
            ),
            grace_ms,
        )

    def is_whole(self, meter: Meter) -> bool:
        """Whether everybody who had joined is present."""
        return all(isinstance(self._seen.get(person), Present) for person in meter.joined)
