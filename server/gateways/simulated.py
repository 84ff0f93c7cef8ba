"""The gateway without money: every order is paid at once. The default without keys, refused in production.

It keeps nothing: what it would have to remember stands in the ids that it gives out, so it answers the same after a restart.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from billing_engine.payments.errors import GatewayRefused, WebhookInvalid
from billing_engine.payments.model import (
    Attempt,
    AttemptStatus,
    GatewayEvent,
    GatewayRefund,
    Order,
    RefundStatus,
    SavedMethod,
    Wish,
)

_ORDER: Final = "simorder"
_PAYMENT: Final = "sim"
#: Of orders whose payment keeps its means of payment: order, payment.
_KEEPING_ORDER: Final = "simkeeporder"
_KEEPING: Final = "simkeep"
_SETUP: Final = "simsetup"
_ORDERS: Final = (_ORDER, _KEEPING_ORDER)
_PAYMENTS: Final = (_PAYMENT, _KEEPING)
_LABEL: Final = "simulated •••• 4242"


class SimulatedGateway:
    """`MethodGateway` where wishing is paying. Ids are `kind_REFERENCE_AMOUNT_CURRENCY`."""

    name = "simulated"
    currencies = frozenset({"INR", "USD"})
    is_instant = True

    async def create_order(self, wish: Wish) -> Order:
        return Order(_id(_KEEPING_ORDER if wish.save_method else _ORDER, wish), shown={})

    async def attempts(self, order_id: str) -> Sequence[Attempt]:
        return [_paid(order_id, _ORDERS)]

    async def attempt(self, attempt_id: str) -> Attempt:
        return _paid(attempt_id, _PAYMENTS)

    async def capture(self, attempt: Attempt) -> Attempt:
        return attempt

    async def refund(
        self, attempt_id: str, *, amount_minor: int, currency: str, reference: str
    ) -> GatewayRefund:
        return GatewayRefund(
            id=f"simrefund_{reference}",
            payment_id=attempt_id,
            reference=reference,
            amount_minor=amount_minor,
            currency=currency,
            status=RefundStatus.DONE,
            at_ms=0,
        )

    async def refunds(self, attempt_id: str) -> Sequence[GatewayRefund]:
        """None: each was done when it was asked for, and its answer cannot be lost."""
        del attempt_id
        return []

    async def charge_saved(self, wish: Wish, method: SavedMethod) -> Attempt:
        del method
        return _paid(_id(_ORDER, wish), _ORDERS)

    async def find_charge(self, wish: Wish, method: SavedMethod) -> Attempt | None:
        return await self.charge_saved(wish, method)

    async def forget_method(self, method: SavedMethod) -> None:
        del method

    async def setup_order(self, wish: Wish) -> Order:
        return Order(_id(_SETUP, wish), shown={})

    async def kept_method(self, order_id: str) -> SavedMethod | None:
        reference, _, _ = _parts(order_id, _SETUP)
        return _card(reference)

    async def attempts_between(self, from_ms: int, to_ms: int) -> Sequence[Attempt]:
        """Nothing to compare with: it keeps no books."""
        del from_ms, to_ms
        return []

    async def refunds_between(self, from_ms: int, to_ms: int) -> Sequence[GatewayRefund]:
        del from_ms, to_ms
        return []

    def verify_callback(self, order_id: str, attempt_id: str, signature: str) -> bool:
        """Never: it signs nothing, so whoever shows a signature has made it up."""
        del order_id, attempt_id, signature
        return False

    def read_webhook(self, body: bytes, headers: Mapping[str, str]) -> GatewayEvent:
        del body, headers
        raise WebhookInvalid(reason="the simulated gateway sends nothing")


def _id(kind: str, wish: Wish) -> str:
    return f"{kind}_{wish.reference}_{wish.amount_minor}_{wish.currency}"


def _paid(id_: str, kinds: tuple[str, str]) -> Attempt:
    """What the id of an order or of a payment tells. Raises `GatewayRefused` for one that was not given out here."""
    kind, _, rest = id_.partition("_")
    reference, amount_minor, currency = _parts(id_, kind if kind in kinds else "")
    keeps = kind in {_KEEPING, _KEEPING_ORDER}
    return Attempt(
        id=f"{_KEEPING if keeps else _PAYMENT}_{rest}",
        order_id=f"{_KEEPING_ORDER if keeps else _ORDER}_{rest}",
        reference=reference,
        amount_minor=amount_minor,
        currency=currency,
        status=AttemptStatus.COLLECTED,
        at_ms=0,
        method=_card(reference) if keeps else None,
    )


def _parts(id_: str, kind: str) -> tuple[str, int, str]:
    """Reference, amount and currency in an id of this kind."""
    prefix, _, rest = id_.partition("_")
    words = rest.rsplit("_", 2)
    if prefix != kind or len(words) != 3 or not words[1].isdigit():
        raise GatewayRefused(reason="NO_SUCH_PAYMENT")
    return words[0], int(words[1]), words[2]


def _card(reference: str) -> SavedMethod:
    """A card of its own for each wish to keep one."""
    return SavedMethod(id=f"simcard_{reference}", customer_id=f"simcustomer_{reference}", label=_LABEL)
