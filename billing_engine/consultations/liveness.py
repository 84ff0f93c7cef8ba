"""Which processes live, as one observer sees it. Pure: no clock, no I/O.

A lease carries no instant, so two machines' clocks need not agree: an observer looks at a lease again and again, and calls it stale
when its beat has not moved for `lease_ms` of the *observer's* time. An observer that stood still itself, or could not read, has
not watched meanwhile: of the time between two looks no more counts than a third of that. So after a pause of its own, or of the store,
the others have two thirds to beat in; and an observer that is merely slow still comes to know who is dead.
"""

from collections.abc import Iterable
from typing import NamedTuple

from billing_engine.consultations.ports import Lease


class Seen(NamedTuple):
    """A lease as it was when it last moved before our eyes."""

    lease: Lease
    #: For how long it has not moved while we watched.
    watched_ms: int = 0
    #: Whether it has ever moved before our eyes.
    moved: bool = False


class Liveness:
    """What one process knows of the others. `now_ms` must never go back."""

    def __init__(self, owner: str, *, lease_ms: int) -> None:
        self._owner = owner
        self._lease_ms = lease_ms
        self._seen: dict[str, Seen] = {}
        #: Given up, or taken for dead: until somebody has taken over what was theirs.
        self._gone: dict[str, Lease] = {}
        self._looked_at_ms: int | None = None

    def look(self, leases: Iterable[Lease], now_ms: int) -> None:
        """Take note of all leases as read from the store at `now_ms`."""
        since_ms = 0 if self._looked_at_ms is None else now_ms - self._looked_at_ms
        watched_ms = min(since_ms, self._lease_ms // 3)
        self._looked_at_ms = now_ms
        stored = {lease.owner: lease for lease in leases if lease.owner != self._owner}
        for owner in self._seen.keys() - stored.keys():
            # It went by itself, or another observer has buried it.
            self._gone[owner] = self._seen.pop(owner).lease
        for owner, lease in stored.items():
            before = self._seen.get(owner)
            if before is None or before.lease.beat != lease.beat:
                self._seen[owner] = Seen(lease, moved=before is not None)
                self._gone.pop(owner, None)
                continue
            self._seen[owner] = before._replace(watched_ms=before.watched_ms + watched_ms)
            if self._seen[owner].watched_ms >= self._lease_ms:
                self._gone[owner] = lease

    def dead(self) -> list[Lease]:
        """Those whose sessions are to be taken up, until `buried`."""
        return list(self._gone.values())

    def undecided(self, role: str) -> frozenset[str]:
        """Those in that role of whom nobody can say yet whether they live, and the dead who are not buried."""
        return frozenset(
            owner
            for owner, lease, known in (
                *((owner, seen.lease, seen.moved) for owner, seen in self._seen.items()),
                *((owner, lease, False) for owner, lease in self._gone.items()),
            )
            if lease.role == role and not known
        )

    def buried(self, owner: str) -> None:
        """Nothing of the owner's is left."""
        self._gone.pop(owner, None)
        self._seen.pop(owner, None)

    def alive(self, *, role: str | None = None) -> frozenset[str]:
        """The others that are not known to be dead (with `role`: of that role only). Who has not been watched for long enough counts
        as alive.
        """
        return frozenset(
            owner
            for owner, seen in self._seen.items()
            if owner not in self._gone and role in (None, seen.lease.role)
        )
