"""Razorpay: `Gateway` for rupees, over its own package.

Source: https://razorpay.com/docs/api
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final

from billing_engine.payments.errors import GatewayRefused, GatewayUnavailable
from billing_engine.payments.model import (
    Attempt,
    AttemptStatus,
    GatewayEvent,
    GatewayRefund,
    Order,
    SavedMethod,
    Wish,
)
from server.gateways.razorpay_api import RazorpayApi
from server.gateways.razorpay_client import RazorpayClient
from server.gateways.razorpay_shapes import (
    NOTE_CHARACTERS,
    PAYMENT_NOTE,
    REFUND_NOTE,
    receipt_of,
)
from server.gateways.razorpay_webhooks import is_signed_callback, read_event

#: Minutes: what is authorised sooner is captured by the gateway; later, and until five days are over, by us, when we hear of it.
#: Source: https://razorpay.com/docs/payments/payments/capture-settings/api
_CAPTURE: Final = {
    "capture": "automatic",
    "capture_options": {
        "automatic_expiry_period": 12,
        "manual_expiry_period": 7200,
        "refund_speed": "normal",
    },
}
#: The most that a card may be charged at once without its owner's code, in paise: the Reserve Bank's limit of 15,000 rupees.
_MANDATE_PAISE: Final = 1_500_000
_NAME_CHARACTERS: Final = 50
#: What a customer's name may not hold.
_NOT_OF_NAMES: Final = re.compile(r"[^A-Za-z0-9.'/@() ]", re.ASCII)


class RazorpayGateway:
    """`Gateway` over Razorpay's API."""

    name = "razorpay"
    currencies = frozenset({"INR"})
    is_instant = False

    def __init__(
        self,
        key_id: str,
        key_secret: str,
        webhook_secret: str,
        *,
        base_url: str = "https://api.razorpay.com",
        timeout_s: float = 10.0,
    ) -> None:
        if not (key_id and key_secret and webhook_secret):
            # With an empty secret everybody could sign.
            raise ValueError("Razorpay needs a key id, a key secret and a webhook secret")
        self._key_id = key_id
        self._key_secret = key_secret
        self._webhook_secret = webhook_secret
        self._client = RazorpayClient(key_id, key_secret, base_url=base_url, timeout_s=timeout_s)
        self._api = RazorpayApi(self._client)

    async def close(self) -> None:
        await self._client.close()

    # --- orders ---

    async def create_order(self, wish: Wish) -> Order:
        """The receipt is our reference (above 40 characters a hash of it). A repeat answers the order that there is.

        With `save_method` only cards are taken, since the order registers a mandate; `shown` then also has what Checkout needs for it.
        """
        self._check(wish.amount_minor, wish.currency, wish.reference)
        shown = {
            "keyId": self._key_id,
            "amount": str(wish.amount_minor),
            "currency": wish.currency,
        }
        mandate: dict[str, object] = {}
        if wish.save_method:
            customer_id = wish.customer_id or await self._customer_of(wish)
            mandate = {
                "customer_id": customer_id,
                "method": "card",
                "token": {"max_amount": _MANDATE_PAISE, "frequency": "as_presented"},
            }
            shown |= {"customerId": customer_id, "recurring": "1"}
        order_id = await self._order_of(wish, mandate)
        return Order(order_id, shown | {"orderId": order_id})

    async def attempts(self, order_id: str) -> Sequence[Attempt]:
        return await self._api.payments_of(order_id)

    async def attempt(self, attempt_id: str) -> Attempt:
        return await self._api.payment(attempt_id)

    async def capture(self, attempt: Attempt) -> Attempt:
        """The gateway refuses to capture twice: that it is captured is what was asked for."""
        try:
            return await self._api.capture(attempt.id, attempt.amount_minor, attempt.currency)
        except GatewayRefused:
            known = await self._api.payment(attempt.id)
            if known.status is not AttemptStatus.COLLECTED:
                raise
            return known

    # --- refunds ---

    async def refund(
        self, attempt_id: str, *, amount_minor: int, currency: str, reference: str
    ) -> GatewayRefund:
        """Looked for first, then asked for under a key: nobody says for how long the gateway remembers a key."""
        self._check(amount_minor, currency, reference)
        known = await self._refund_of(attempt_id, reference)
        if known is None:
            known = await self._new_refund(attempt_id, amount_minor, reference)
        if (known.amount_minor, known.currency) != (amount_minor, currency):
            raise GatewayRefused(gateway=self.name, reason="reference_reused")
        return known

    async def refunds(self, attempt_id: str) -> Sequence[GatewayRefund]:
        return await self._api.refunds_of(attempt_id)

    async def _new_refund(self, attempt_id: str, amount_minor: int, reference: str) -> GatewayRefund:
        body = {
            "amount": amount_minor,
            "speed": "normal",
            "receipt": receipt_of(reference),
            "notes": {REFUND_NOTE: reference},
        }
        try:
            return await self._api.refund(attempt_id, body, key=_key_of(reference))
        except GatewayRefused:
            # Another of us may have been faster, and nothing be left to refund: what counts is whether this one is there.
            known = await self._refund_of(attempt_id, reference)
            if known is None:
                raise
            return known

    async def _refund_of(self, attempt_id: str, reference: str) -> GatewayRefund | None:
        """By the note, which holds it whole, or by the receipt: notes can be edited by people, receipts cannot."""
        wanted = {reference, receipt_of(reference)}
        refunds = await self._api.refunds_of(attempt_id)
        found = next((one for one in refunds if one.reference in wanted), None)
        return None if found is None else replace(found, reference=reference)

    # --- saved means of payment ---

    async def charge_saved(self, wish: Wish, method: SavedMethod) -> Attempt:
        """An order for the reference, and one payment of it. A card's may be PENDING for a day and a half: its owner is told first.

        A repeat answers the payment that the order has; if that failed it is refused with its reason, and nothing is tried again.
        """
        self._check(wish.amount_minor, wish.currency, wish.reference)
        order_id = await self._order_of(wish, {})
        known = await self._charge_of(order_id)
        if known is not None:
            return self._unless_failed(known)
        customer = await self._api.customer(method.customer_id)
        body: dict[str, object] = {
            "email": customer.get("email") or wish.payer_email,
            "amount": wish.amount_minor,
            "currency": wish.currency,
            "order_id": order_id,
            "customer_id": method.customer_id,
            "token": method.id,
            "recurring": "1",
            "description": wish.description,
            "notes": {PAYMENT_NOTE: wish.reference},
        }
        if customer.get("contact"):
            body["contact"] = customer["contact"]
        try:
            payment_id = await self._api.charge(body)
        except GatewayRefused:
            # Another of us may have been faster: an order that is paid takes no second payment.
            known = await self._charge_of(order_id)
            if known is None or known.status is AttemptStatus.FAILED:
                raise
            return known
        return self._unless_failed(await self._api.payment(payment_id))

    async def find_charge(self, wish: Wish, method: SavedMethod) -> Attempt | None:
        """By the receipt of the reference's order, however old it is. An order alone has charged nothing."""
        del method
        order = await self._api.order_with_receipt(receipt_of(wish.reference))
        return None if order is None else await self._charge_of(str(order["id"]))

    async def forget_method(self, method: SavedMethod) -> None:
        try:
            await self._api.delete_token(method.customer_id, method.id)
        except GatewayRefused:
            if await self._api.token(method.customer_id, method.id) is not None:
                raise

    async def _charge_of(self, order_id: str) -> Attempt | None:
        """The payment of an order for a saved means of payment: the one that brings the money, if several were begun."""
        payments = await self._api.payments_of(order_id)
        alive = [one for one in payments if one.status is not AttemptStatus.FAILED]
        return next(iter((*alive, *payments)), None)

    def _unless_failed(self, attempt: Attempt) -> Attempt:
        if attempt.status is AttemptStatus.FAILED:
            raise GatewayRefused(gateway=self.name, reason=attempt.failure)
        return attempt

    # --- lists ---

    async def attempts_between(self, from_ms: int, to_ms: int) -> Sequence[Attempt]:
        """Without the means of payment."""
        return [
            one for one in await self._api.payments_between(from_ms, to_ms) if from_ms <= one.at_ms < to_ms
        ]

    async def refunds_between(self, from_ms: int, to_ms: int) -> Sequence[GatewayRefund]:
        return [
            one for one in await self._api.refunds_between(from_ms, to_ms) if from_ms <= one.at_ms < to_ms
        ]

    # --- signatures ---

    def verify_callback(self, order_id: str, attempt_id: str, signature: str) -> bool:
        return is_signed_callback(order_id, attempt_id, signature, self._key_secret)

    def read_webhook(self, body: bytes, headers: Mapping[str, str]) -> GatewayEvent:
        """Its attempts have no means of payment: whether a card may be charged again stands in a token, which is asked for."""
        return read_event(body, headers, self._webhook_secret)

    # --- below ---

    def _check(self, amount_minor: int, currency: str, reference: str) -> None:
        """Refuse here what the gateway cannot hold."""
        if currency not in self.currencies:
            raise GatewayRefused(gateway=self.name, reason="currency")
        if amount_minor <= 0:
            raise GatewayRefused(gateway=self.name, reason="amount")
        if not 0 < len(reference) <= NOTE_CHARACTERS:
            raise GatewayRefused(gateway=self.name, reason="reference")

    async def _order_of(self, wish: Wish, mandate: Mapping[str, object]) -> str:
        """The one order of the wish's reference.

        `unique_receipt` makes a repeat answer the first order; an account that refuses a known receipt instead is asked for its order.
        Source: https://razorpay.com/docs/payments/payment-gateway/s2s-integration/test-s2s/best-practices/retries-and-idempotency
        """
        receipt = receipt_of(wish.reference)
        body = {
            "amount": wish.amount_minor,
            "currency": wish.currency,
            "receipt": receipt,
            "unique_receipt": True,
            "notes": {PAYMENT_NOTE: wish.reference},
            "payment": _CAPTURE,
            **mandate,
        }
        order: Mapping[str, Any] | None
        try:
            order = await self._api.create_order(body)
        except GatewayRefused:
            order = await self._api.order_with_receipt(receipt)
            if order is None:
                raise
        if order.get("receipt") != receipt:
            raise GatewayUnavailable(gateway=self.name, why="shape", what="receipt")
        if (order["amount"], order["currency"]) != (wish.amount_minor, wish.currency):
            raise GatewayRefused(gateway=self.name, reason="reference_reused")
        return str(order["id"])

    async def _customer_of(self, wish: Wish) -> str:
        """The customer with the payer's address: a new one, or the one there is."""
        name = _NOT_OF_NAMES.sub(" ", wish.payer_email)[:_NAME_CHARACTERS]
        return await self._api.create_customer(
            {"name": name, "email": wish.payer_email, "fail_existing": "0"}
        )


def _key_of(reference: str) -> str:
    """The key of a refund: at least ten letters, digits, hyphens and underscores, whatever the reference holds."""
    return "refund_" + sha256(reference.encode()).hexdigest()[:32]
