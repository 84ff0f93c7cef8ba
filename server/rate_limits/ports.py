"""Where the uses of an allowance are counted."""

from typing import Protocol

from server.rate_limits.model import Allowance


class Buckets(Protocol):
    """One count for each key. It may forget what would be whole again anyway; it is never the guard of money."""

    async def take(self, key: str, allowance: Allowance) -> int:
        """Use one: 0 if granted, else the milliseconds until it would be; nothing is used then.

        Raises:
            Unavailable: nobody can tell.
        """
        ...

    async def give_back(self, key: str, allowance: Allowance) -> None:
        """Undo one use that was granted: it turned out not to count. Harmless when the key is forgotten."""
        ...

    async def clear(self, key: str) -> None:
        """Make the key's allowance whole."""
        ...
