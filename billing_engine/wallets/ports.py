"""What wallets need of a payment gateway."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Payment:
    """Money that a gateway has collected: its id there, and the gateway's name."""

    id: str
    gateway: str


class InstantGateway(Protocol):
    """A gateway that answers a charge at once."""

    async def charge(self, *, reference: str, amount_minor: int, currency: str) -> Payment:
        """Collect the amount once per reference; a repeat answers the first payment."""
        ...
