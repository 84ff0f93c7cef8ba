"""`Locks` inside one process: a fast refusal before any write, for the default with no other server."""

from billing_engine.clock import Clock


class LocalLocks:
    """Names held by tokens until they expire. A token is a session id.

    No method awaits while it works, so each runs whole on the event loop and "all or none" needs no
    further care. Nothing depends on these locks: the claims in storage decide (LEDGER 5).
    """

    def __init__(self, clock: Clock, *, ttl_ms: int) -> None:
        self._clock = clock
        self._ttl_ms = ttl_ms
        self._held: dict[str, tuple[str, int]] = {}

    async def acquire(self, names: tuple[str, ...], token: str) -> str | None:
        for name in names:
            # Ours counts as success: a start that is run again meets the locks of its first try.
            if self._holder(name) not in (None, token):
                return name
        self._keep(names, token)
        return None

    async def holder(self, name: str) -> str | None:
        return self._holder(name)

    async def renew(self, names: tuple[str, ...], token: str) -> None:
        """Lengthen what is ours, take again what expired, leave alone what another token took meanwhile."""
        self._keep(tuple(name for name in names if self._holder(name) in (None, token)), token)

    async def release(self, names: tuple[str, ...], token: str) -> None:
        for name in names:
            if self._holder(name) == token:
                del self._held[name]

    async def ping(self) -> None:
        """This process answers, or nothing does."""

    def _keep(self, names: tuple[str, ...], token: str) -> None:
        expires_at_ms = self._clock.now_ms() + self._ttl_ms
        for name in names:
            self._held[name] = (token, expires_at_ms)

    def _holder(self, name: str) -> str | None:
        """The token that holds `name` now. An expired lock is dropped as it is met."""
        held = self._held.get(name)
        if held is None:
            return None
        token, expires_at_ms = held
        if self._clock.now_ms() >= expires_at_ms:
            del self._held[name]
            return None
        return token
