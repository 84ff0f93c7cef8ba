"""The settings that a consultation is billed by, fixed at start-up."""

from dataclasses import dataclass

from billing_engine.money import INR, Asset


@dataclass(frozen=True, slots=True)
class Rules:
    """SPEC 5. Money in smallest units of `asset`, durations in milliseconds unless named `_s`.

    `lead_ms` is how far past the next tick a slice reaches: at least 2 s and two store timeouts, or every tick would leave
    the time of its own commit unpaid (LEDGER 3). `slot_ms` groups ticks so that they meet in one commit; deadlines of money
    are never rounded. A process beats every sixth of `lease_ms`; unmoved for all of it, its lease is stale to whoever has watched it.
    Somebody who had joined and is lost for `peer_grace_ms` pauses the session, for `peer_gone_ms` ends it.

    A request rings for `ring_ms`; then both have `join_ms` to join. `missed_rings` in a row take a lawyer offline. A turn of the
    waiting list, which takes `queue_limit` people, is kept for `turn_ms`.
    """

    asset: Asset = INR
    tick_ms: int = 10_000
    lead_ms: int = 3_000
    slot_ms: int = 50
    min_balance_minor: int = 5_000
    min_seconds: int = 60
    commission_bp: int = 0
    abandon_ms: int = 120_000
    peer_grace_ms: int = 15_000
    peer_gone_ms: int = 120_000
    store_timeout_ms: int = 1_000
    lock_ttl_ms: int = 60_000
    lease_ms: int = 1_200
    warnings_s: tuple[int, ...] = (120, 60, 30)
    ring_ms: int = 45_000
    join_ms: int = 60_000
    turn_ms: int = 120_000
    queue_limit: int = 20
    missed_rings: int = 2

    @property
    def beat_ms(self) -> int:
        """How often a process writes its lease and looks at the others'."""
        return max(1, self.lease_ms // 6)
