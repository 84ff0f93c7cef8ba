"""The calls of Razorpay's API that we make, each with its answer read. `Any` is the package's client, which has no types.

Every call raises `GatewayUnavailable` or `GatewayRefused`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from billing_engine.payments.errors import GatewayRefused, GatewayUnavailable
from billing_engine.payments.model import Attempt, AttemptStatus, GatewayRefund
from server.gateways.razorpay_client import Answer, RazorpayClient
from server.gateways.razorpay_shapes import (
    ShapeError,
    attempt_of,
    entity,
    is_chargeable,
    is_id,
    items_of,
    method_of,
    name,
    optional_name,
    order_of,
    refund_of,
)

#: The most that a list answers at once.
PAGE: Final = 100
#: The instants that lists may be asked for, in seconds: 2000 to 2120.
FIRST_S: Final = 946_684_800
LAST_S: Final = 4_765_046_400

_T = TypeVar("_T")
_Item = TypeVar("_Item", Attempt, GatewayRefund)
Call = Callable[[Any], object]


class RazorpayApi:
    """Typed calls over the client."""

    def __init__(self, client: RazorpayClient) -> None:
        self._client = client

    # --- orders and payments ---

    async def create_order(self, body: Mapping[str, object]) -> Mapping[str, Any]:
        """The order's entity."""
        return await self._ask(lambda api: api.order.create(dict(body)), order_of)

    async def order_with_receipt(self, receipt: str) -> Mapping[str, Any] | None:
        """The order's entity; None if there is none."""
        orders = await self._ask(lambda api: api.order.all({"receipt": receipt, "count": PAGE}), items_of)
        # "Contains the receipt", says the documentation of this filter.
        with reading():
            return next((order for order in map(order_of, orders) if order.get("receipt") == receipt), None)

    async def payments_of(self, order_id: str) -> Sequence[Attempt]:
        """Every payment of the order, with the means of payment that it kept."""
        check_id(order_id)
        payments = await self._ask(lambda api: api.order.payments(order_id), items_of)
        return [await self._with_method(payment) for payment in payments]

    async def payment(self, payment_id: str) -> Attempt:
        """The payment, with the means of payment that it kept."""
        check_id(payment_id)
        return await self._with_method(await self._ask(lambda api: api.payment.fetch(payment_id), dict))

    async def capture(self, payment_id: str, amount_minor: int, currency: str) -> Attempt:
        check_id(payment_id)
        # The package's own default for these data is one dict for all calls of all threads.
        data = {"currency": currency}
        return await self._ask(lambda api: api.payment.capture(payment_id, amount_minor, data), attempt_of)

    async def payments_between(self, from_ms: int, to_ms: int) -> Sequence[Attempt]:
        """Without the means of payment."""
        return await self._pages(
            lambda api, page: api.payment.all({**between(from_ms, to_ms), **page}), attempt_of
        )

    async def charge(self, body: Mapping[str, object]) -> str:
        """Begin a recurring payment; its id."""
        return await self._ask(
            lambda api: api.payment.createRecurring(dict(body)),
            lambda answer: name(answer, "razorpay_payment_id"),
        )

    # --- refunds ---

    async def refund(self, payment_id: str, body: Mapping[str, object], *, key: str) -> GatewayRefund:
        check_id(payment_id)
        return await self._ask(
            lambda api: api.payment.refund(payment_id, dict(body), headers={"X-Refund-Idempotency": key}),
            refund_of,
        )

    async def refunds_of(self, payment_id: str) -> Sequence[GatewayRefund]:
        check_id(payment_id)
        return await self._pages(
            lambda api, page: api.payment.fetch_multiple_refund(payment_id, page), refund_of
        )

    async def refunds_between(self, from_ms: int, to_ms: int) -> Sequence[GatewayRefund]:
        return await self._pages(
            lambda api, page: api.refund.all({**between(from_ms, to_ms), **page}), refund_of
        )

    # --- customers and their tokens ---

    async def create_customer(self, body: Mapping[str, object]) -> str:
        """The customer's id; with `fail_existing` "0" the one there is."""
        return await self._ask(
            lambda api: api.customer.create(dict(body)),
            lambda answer: name(entity(answer, "customer"), "id"),
        )

    async def customer(self, customer_id: str) -> Mapping[str, Any]:
        check_id(customer_id)
        return await self._ask(
            lambda api: api.customer.fetch(customer_id), lambda answer: entity(answer, "customer")
        )

    async def token(self, customer_id: str, token_id: str) -> Mapping[str, Any] | None:
        """The token's entity; None if it is gone."""
        check_id(customer_id)
        check_id(token_id)
        try:
            return await self._ask(
                lambda api: api.token.fetch(customer_id, token_id), lambda answer: entity(answer, "token")
            )
        except GatewayRefused:
            return None

    async def delete_token(self, customer_id: str, token_id: str) -> None:
        check_id(customer_id)
        check_id(token_id)

        def read(answer: Answer) -> None:
            # 204 is an empty answer.
            if answer and answer.get("deleted") is not True:
                raise ShapeError("deleted")

        await self._ask(lambda api: api.token.delete(customer_id, token_id), read)

    # --- below ---

    async def _ask(self, call: Call, read: Callable[[Answer], _T]) -> _T:
        """What is not what it should be leaves the outcome as unknown as silence does."""
        answer = await self._client.ask(call)
        with reading():
            return read(answer)

    async def _pages(
        self, call: Callable[[Any, Mapping[str, int]], object], read: Callable[[object], _Item]
    ) -> Sequence[_Item]:
        """A whole list. It is newest first: what comes in meanwhile moves the rest on, so something may be answered twice."""
        found: dict[str, _Item] = {}
        skip = 0
        while True:
            items = await self._ask(partial(_page, call, skip), items_of)
            with reading():
                for item in items:
                    one = read(item)
                    found[one.id] = one
            if len(items) < PAGE:
                return list(found.values())
            skip += len(items)

    async def _with_method(self, payment: object) -> Attempt:
        """The payment; once it has brought money, with the means of payment that it kept, if that may be charged again."""
        with reading():
            attempt = attempt_of(payment)
            found = entity(payment, "payment")
            token_id, customer_id = optional_name(found, "token_id"), optional_name(found, "customer_id")
        if attempt.status is not AttemptStatus.COLLECTED or token_id is None or customer_id is None:
            return attempt
        token = await self.token(customer_id, token_id)
        if token is None:
            return attempt
        with reading():
            method = method_of(token, customer_id) if is_chargeable(token) else None
        return replace(attempt, method=method)


def check_id(value: object) -> None:
    """Ids go into the paths of calls, and some come from payers: nothing else may be called by them."""
    if not is_id(value):
        raise GatewayRefused(gateway="razorpay", reason="not_an_id")


def between(from_ms: int, to_ms: int) -> Mapping[str, int]:
    """Whole seconds that hold [from, to), both ends included: what is beside it is left out by us."""
    return {
        "from": min(max(from_ms // 1000, FIRST_S), LAST_S),
        "to": min(max(-(-to_ms // 1000), FIRST_S), LAST_S),
    }


@contextmanager
def reading() -> Iterator[None]:
    try:
        yield
    except ShapeError as exc:
        raise GatewayUnavailable(gateway="razorpay", why="shape", what=str(exc)) from exc


def _page(call: Callable[[Any, Mapping[str, int]], object], skip: int, api: Any) -> object:
    return call(api, {"count": PAGE, "skip": skip})
