"""What payouts need from the outside, in their own words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from billing_engine.payouts.model import Payout, PayoutStatus


@dataclass(frozen=True, slots=True)
class OpenPayouts:
    """What is requested and not decided, of all lawyers."""

    amount_minor: int
    count: int


class PayoutRows(Protocol):
    """The payouts' records: copies of what the ledger says. All methods raise `Unavailable`."""

    async def add(self, payout: Payout) -> None:
        """Insert; harmless if the id exists."""
        ...

    async def get(self, payout_id: str) -> Payout | None: ...

    async def get_many(self, payout_ids: Sequence[str]) -> dict[str, Payout]:
        """Those that exist, by id."""
        ...

    async def settle(self, payout: Payout) -> None:
        """Write how a requested payout was decided. One that is decided stays as it is."""
        ...

    async def list_for(self, lawyer_id: str, *, limit: int, before: tuple[int, str] | None) -> list[Payout]:
        """The lawyer's, newest first; `before` is (created_at_ms, id) of the last one of the previous page."""
        ...

    async def queue(
        self, status: PayoutStatus | None, *, limit: int, after: tuple[int, str] | None
    ) -> list[Payout]:
        """All lawyers': the requested ones oldest first, others and all together newest first. `after` as above."""
        ...

    async def open_total(self) -> OpenPayouts:
        """What is requested and not decided."""
        ...


class PayoutNews(Protocol):
    """Tells the lawyer. On return it will be told, once for the same payout; raises `Unavailable`."""

    async def payout_decided(self, payout: Payout) -> None: ...
