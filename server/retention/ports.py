"""What retention needs of the stores, in its own words."""

from typing import Protocol


class ErasableMessages(Protocol):
    """Conversations whose bodies can be erased. `chat.ports.MessageStore` is one."""

    async def erase_closed(self, *, closed_before_ms: int, at_ms: int, limit: int) -> int:
        """Erase the bodies of conversations closed before then, about `limit` messages; how much was done, 0 when there is
        none left. Harmless when cut short or repeated. Raises `Unavailable`.
        """
        ...
