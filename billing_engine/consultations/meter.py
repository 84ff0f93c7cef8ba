"""The running bill of one consultation: arithmetic only, no clock and no I/O.

*Served* is the time from start to end less the pauses. Milliseconds are summed and rounded down once; the price telescopes
over whole served seconds (SPEC 5), so neither the spacing of ticks nor a pause nor a restart changes what is paid.
The meter lives in the ledger's hold and changes only together with the money (LEDGER 3).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from billing_engine.errors import InvariantBroken
from billing_engine.money import affordable_seconds, price

#: (k, at_ms, event, reason): a timeline row that is not known to be copied out yet.
Trail = tuple[int, int, str, str | None]


#: Which event of a timeline may follow which; the first one follows "".
FOLLOWS: Final = {
    "": ("start",),
    "start": ("pause", "end"),
    "pause": ("resume", "end"),
    "resume": ("pause", "end"),
}


@dataclass(frozen=True, slots=True)
class Meter:
    """What has been served. Instants are epoch milliseconds.

    `running_since_ms` is None while paused. `evidence_at_ms` is the last instant at which service is proven by a durable
    write. `trail` are the timeline rows that still wait to be copied out, `next_k` the number of the next one.
    `joined` are those of the two who have been connected to the session. While paused `waiting_since_ms` is the instant from which
    the wait for the one who is lost counts, and `pause_reason` says who that is.
    """

    user_id: str
    lawyer_id: str
    rate_minor_per_min: int
    commission_bp: int
    max_minor: int | None
    started_at_ms: int
    served_ms: int
    running_since_ms: int | None
    evidence_at_ms: int
    trail: tuple[Trail, ...] = ()
    next_k: int = 0
    joined: tuple[str, ...] = ()
    waiting_since_ms: int | None = None
    pause_reason: str | None = None

    def served_ms_at(self, at_ms: int) -> int:
        """Milliseconds served by `at_ms`."""
        if self.running_since_ms is None:
            return self.served_ms
        return self.served_ms + max(0, at_ms - self.running_since_ms)

    def seconds_at(self, at_ms: int) -> int:
        """Whole seconds served by `at_ms`: the sum is rounded down once."""
        return self.served_ms_at(at_ms) // 1000

    def bill_minor(self, at_ms: int) -> int:
        """What the service until `at_ms` costs."""
        return price(self.rate_minor_per_min, self.seconds_at(at_ms))

    def limit_s(self, funds_minor: int) -> int:
        """Whole seconds that `funds_minor` and the session's own cap pay for, from its start."""
        if self.max_minor is not None:
            funds_minor = min(funds_minor, self.max_minor)
        return affordable_seconds(self.rate_minor_per_min, funds_minor)

    def reaches_ms(self, seconds: int) -> int | None:
        """The instant at which `seconds` are served if nothing pauses; None while paused."""
        if self.running_since_ms is None:
            return None
        return self.running_since_ms + seconds * 1000 - self.served_ms

    def noted(self, at_ms: int, event: str, reason: str | None = None) -> "Meter":
        """With one more timeline row."""
        return replace(self, trail=(*self.trail, (self.next_k, at_ms, event, reason)), next_k=self.next_k + 1)

    def skipping(self, from_ms: int, to_ms: int, reason: str) -> "Meter":
        """With the time from `from_ms` to `to_ms` left out of the bill and on the timeline as a pause."""
        if self.running_since_ms is None or to_ms <= from_ms:
            return self
        from_ms = max(from_ms, self.running_since_ms)
        paused = replace(self, served_ms=self.served_ms_at(from_ms), running_since_ms=to_ms)
        return paused.noted(from_ms, "pause", reason).noted(to_ms, "resume", reason)

    def pausing(self, from_ms: int, reason: str) -> "Meter":
        """Paused from `from_ms` on, and be that before the evidence; never from before it began to run."""
        if self.running_since_ms is None:
            return self
        from_ms = max(from_ms, self.running_since_ms)
        paused = replace(
            self,
            served_ms=self.served_ms_at(from_ms),
            running_since_ms=None,
            waiting_since_ms=from_ms,
            pause_reason=reason,
        )
        return paused.noted(from_ms, "pause", reason)

    def resuming(self, at_ms: int) -> "Meter":
        """Running again from `at_ms`; never from before what is proven."""
        if self.running_since_ms is not None:
            return self
        at_ms = max(at_ms, self.evidence_at_ms, self.waiting_since_ms or 0)
        resumed = replace(self, running_since_ms=at_ms, waiting_since_ms=None, pause_reason=None)
        return resumed.noted(at_ms, "resume", self.pause_reason).proven(at_ms)

    def waiting(self, from_ms: int) -> "Meter":
        """While paused: with the wait for whoever is lost counted from then. A server that was away let nobody come back."""
        return self if self.waiting_since_ms is None else replace(self, waiting_since_ms=from_ms)

    def joined_by(self, people: Iterable[str]) -> "Meter":
        """With these noted as having joined."""
        new = tuple(sorted({person for person in people if person not in self.joined}))
        return replace(self, joined=(*self.joined, *new)) if new else self

    def proven(self, at_ms: int) -> "Meter":
        """With evidence of service at `at_ms`; it never moves back."""
        return replace(self, evidence_at_ms=max(self.evidence_at_ms, at_ms))

    def copied(self, before_k: int) -> "Meter":
        """Without the timeline rows below `before_k`: they are copied out."""
        if not self.trail or self.trail[0][0] >= before_k:
            return self
        return replace(self, trail=tuple(row for row in self.trail if row[0] >= before_k))

    def to_facts(self, paid_until_ms: int | None) -> dict[str, Any]:
        """As the hold carries it."""
        return {
            "user": self.user_id,
            "lawyer": self.lawyer_id,
            "rate": self.rate_minor_per_min,
            "commissionBp": self.commission_bp,
            "max": self.max_minor,
            "startedAt": self.started_at_ms,
            "servedMs": self.served_ms,
            "runningSince": self.running_since_ms,
            "evidenceAt": self.evidence_at_ms,
            "paidUntil": paid_until_ms,
            "trail": self.trail,
            "k": self.next_k,
            "joined": self.joined,
            "waitingSince": self.waiting_since_ms,
            "pauseReason": self.pause_reason,
        }

    @staticmethod
    def of_facts(facts: Any) -> "Meter":
        """The meter that a hold carries."""
        return Meter(
            facts["user"],
            facts["lawyer"],
            facts["rate"],
            facts["commissionBp"],
            facts["max"],
            facts["startedAt"],
            facts["servedMs"],
            facts["runningSince"],
            facts["evidenceAt"],
            tuple((k, at_ms, event, reason) for k, at_ms, event, reason in facts["trail"]),
            facts["k"],
            # Holds that an older version has opened know nothing of these.
            tuple(facts.get("joined", ())),
            facts.get("waitingSince"),
            facts.get("pauseReason"),
        )


def served_ms_of(rows: Iterable[tuple[int, str]]) -> int:
    """Milliseconds served, recomputed from a finished timeline of (at_ms, event) in order: anyone can do it.

    Raises:
        InvariantBroken: the rows are no timeline (`start`, any number of `pause`/`resume`, `end`).
    """
    total = 0
    since: int | None = None
    last, last_ms = "", None
    for at_ms, event in rows:
        if event not in FOLLOWS.get(last, ()):
            raise InvariantBroken(rule="a timeline is start, pauses, end", event=event, after=last)
        if last_ms is not None and at_ms < last_ms:
            raise InvariantBroken(rule="a timeline moves forward", event=event, at_ms=at_ms)
        if event in ("start", "resume"):
            since = at_ms
        elif since is not None:
            total += at_ms - since
            since = None
        last, last_ms = event, at_ms
    if last != "end":
        raise InvariantBroken(rule="a finished timeline ends", last=last)
    return total
