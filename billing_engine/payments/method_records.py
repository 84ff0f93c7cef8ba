"""What is stored of saved means of payment: ids of the gateway and a label for people. A card's number never comes here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from billing_engine.payments.model import SavedMethod

_MINUTE_MS: Final = 60_000
_FIRST_LOOK_MS: Final = 2_000
_LONGEST_PAUSE_MS: Final = 15 * _MINUTE_MS
#: A page to leave a means of payment at is open for a day (Stripe).
GIVE_UP_WISH_MS: Final = 26 * 60 * _MINUTE_MS


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    """A payer's saved means of payment. Deleted, the record stays: news that is late must not bring it back, and a charge in doubt is
    looked up under it. `tell_at_ms` says when the gateway is told (again) that it is gone; None: not needed, or done.
    """

    id: str
    payer_id: str
    gateway: str
    #: The gateway's ids.
    gateway_id: str
    customer_id: str
    label: str
    created_at_ms: int
    gone_at_ms: int | None = None
    tell_at_ms: int | None = None

    @property
    def saved(self) -> SavedMethod:
        """As the gateway knows it."""
        return SavedMethod(self.gateway_id, self.customer_id, self.label)


@dataclass(frozen=True, slots=True)
class MethodWish:
    """A payer has agreed to leave a means of payment, and nobody knows yet which: with a payment (`attempt_id`), or at a page for it
    (`order_id`). `method_id` is ours, once it is kept.
    """

    id: str
    payer_id: str
    gateway: str
    currency: str
    created_at_ms: int
    check_at_ms: int | None
    checks: int = 0
    attempt_id: str | None = None
    order_id: str | None = None
    customer_id: str | None = None
    method_id: str | None = None
    shown: Mapping[str, str] = field(default_factory=dict)


def next_look_ms(wish: MethodWish, now_ms: int) -> int | None:
    """The instant of the next question after `wish.checks` questions; None: given up."""
    if now_ms - wish.created_at_ms >= GIVE_UP_WISH_MS:
        return None
    return now_ms + min(_FIRST_LOOK_MS << min(wish.checks, 20), _LONGEST_PAUSE_MS)


class MethodRows(Protocol):
    """The stored records. All methods raise `Unavailable`."""

    async def add(self, method: PaymentMethod) -> None:
        """Insert; harmless if the id is there, deleted or not."""
        ...

    async def get(self, method_id: str) -> PaymentMethod | None: ...

    async def of_gateway(self, gateway: str, gateway_id: str) -> list[PaymentMethod]:
        """Whoever has saved this means of payment of the gateway."""
        ...

    async def list_for(
        self, payer_id: str, *, limit: int, before: tuple[int, str] | None
    ) -> list[PaymentMethod]:
        """The payer's that are not deleted, newest first."""
        ...

    async def mark_gone(self, method_id: str, *, at_ms: int, tell_at_ms: int | None) -> None:
        """Delete it, once; what people call it is forgotten."""
        ...

    async def tell_at(self, method_id: str, at_ms: int | None) -> None:
        """When the gateway is told next."""
        ...

    async def untold(self, now_ms: int, *, limit: int) -> list[PaymentMethod]:
        """Those whose gateway is to be told by now."""
        ...

    async def customer_of(self, payer_id: str, gateway: str) -> str | None:
        """Who the payer is at the gateway."""
        ...

    async def payer_of(self, gateway: str, customer_id: str) -> str | None:
        """Whose the gateway's customer is."""
        ...

    async def remember_customer(self, payer_id: str, gateway: str, customer_id: str) -> None:
        """The newest one counts."""
        ...

    async def forget_customer(self, payer_id: str, gateway: str, customer_id: str) -> None:
        """If it is still this one."""
        ...

    async def add_wish(self, wish: MethodWish) -> bool:
        """Insert; False if the id exists."""
        ...

    async def get_wish(self, wish_id: str) -> MethodWish | None: ...

    async def replace_wish(self, wish: MethodWish, *, expect_checks: int) -> bool:
        """Compare-and-set on the number of questions so far; whether it was. A wish with a method is never changed."""
        ...

    async def due_wishes(self, now_ms: int, *, limit: int) -> list[MethodWish]:
        """Those that the gateway is to be asked about by now, the longest due first."""
        ...
