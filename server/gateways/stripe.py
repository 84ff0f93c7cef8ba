"""Stripe: payers pay at its Checkout page, and it tells us in signed events. `MethodGateway` over the `stripe` package.

Once per reference: every request that makes something carries an Idempotency-Key made of our reference. Stripe keeps a key for
24 hours and answers a repeat what it answered first, a 500 too. What happens after that:

- an order: a repeat makes a second session. The first one cannot be paid any more (a session ends after 24 hours, too), or has been
  paid and told under our reference. So an order is not asked for again after a day.
- a refund: the payment's refunds are looked through for our reference before one is made, so it stays one for ever, unless just
  this look-up fails; then the key alone protects.
- a saved method's charge: the customer's last hundred payments are looked through for our reference; while that cannot be done,
  nothing is charged.

The same key with other words (another `success_url` after a deploy) is refused by Stripe and told as `GatewayUnavailable`:
something was asked for under this reference before, and what became of it is not known here.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from stripe.params import PaymentIntentListParams, RefundListParams
from stripe.params.checkout import SessionCreateParams

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
from server.gateways.stripe_client import PAGE, StripeConnection, checked_id, read
from server.gateways.stripe_money import CURRENCIES, to_stripe
from server.gateways.stripe_shapes import (
    PAYMENT,
    REFUND,
    attempt_of_intent,
    kept_by_setup,
    refund_of,
    was_tried,
)
from server.gateways.stripe_webhooks import StripeWebhooks

_INTENT: Final = "payment_intent"
_SESSION: Final = "checkout.session"
_METHOD: Final = "payment_method"
_MISSING: Final = "resource_missing"


class StripeGateway:
    """An attempt is a PaymentIntent (`pi_…`), an order a Checkout session (`cs_…`). See the module for what is done once."""

    name = "stripe"
    currencies = CURRENCIES
    is_instant = False

    def __init__(
        self,
        secret_key: str,
        webhook_secret: str,
        *,
        success_url: str,
        cancel_url: str,
        base_url: str | None = None,
        timeout_s: float = 10.0,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.connection = StripeConnection(secret_key, base_url=base_url, timeout_s=timeout_s)
        self._webhooks = StripeWebhooks(webhook_secret, now_s)
        self._success_url = success_url
        self._cancel_url = cancel_url

    async def close(self) -> None:
        await self.connection.close()

    # -- orders ------------------------------------------------------------------------------------------------------

    async def create_order(self, wish: Wish) -> Order:
        amount = to_stripe(wish.amount_minor, wish.currency)
        params = self._page(wish)
        params["mode"] = "payment"
        params["line_items"] = [
            {
                "price_data": {
                    "currency": wish.currency.lower(),
                    "unit_amount": amount,
                    "product_data": {"name": wish.description},
                },
                "quantity": 1,
            }
        ]
        params["payment_intent_data"] = {
            "description": wish.description,
            "metadata": {PAYMENT: wish.reference},
        }
        # The payer pays what was ordered, in the currency that it was ordered in: the credit is that amount.
        params["adaptive_pricing"] = {"enabled": False}
        if wish.save_method:
            params["payment_intent_data"]["setup_future_usage"] = "off_session"
            self._keep(params, wish)
        return await self._order(params, f"order:{wish.reference}")

    async def setup_order(self, wish: Wish) -> Order:
        params = self._page(wish)
        params["mode"] = "setup"
        params["currency"] = wish.currency.lower()
        params["setup_intent_data"] = {"description": wish.description, "metadata": {PAYMENT: wish.reference}}
        self._keep(params, wish)
        return await self._order(params, f"setup:{wish.reference}")

    def _page(self, wish: Wish) -> SessionCreateParams:
        params: SessionCreateParams = {
            "client_reference_id": wish.reference,
            "metadata": {PAYMENT: wish.reference},
            "success_url": self._success_url,
            "cancel_url": self._cancel_url,
        }
        if wish.customer_id is not None:
            params["customer"] = checked_id(wish.customer_id)
        elif wish.payer_email:
            params["customer_email"] = wish.payer_email
        return params

    def _keep(self, params: SessionCreateParams, wish: Wish) -> None:
        """A means of payment is kept for a customer. The session makes a new one itself when the payer is done: had we made it before,
        every repeat of the order would have to name the same one, or be another request under the same key.
        """
        if wish.customer_id is None:
            params["customer_creation"] = "always"

    async def _order(self, params: SessionCreateParams, key: str) -> Order:
        session = await self.connection.ask(
            _SESSION, lambda it: it.v1.checkout.sessions.create_async(params, {"idempotency_key": key})
        )
        return read(_order_of, session)

    async def kept_method(self, order_id: str) -> SavedMethod | None:
        session = await self._session(order_id, "setup_intent.payment_method")
        setup = session.get("setup_intent")
        news = read(kept_by_setup, setup) if isinstance(setup, Mapping) else None
        return None if news is None else news.method

    async def _session(self, order_id: str, expanded: str) -> dict[str, Any]:
        name = checked_id(order_id)
        return await self.connection.ask(
            _SESSION, lambda it: it.v1.checkout.sessions.retrieve_async(name, {"expand": [expanded]})
        )

    # -- attempts ----------------------------------------------------------------------------------------------------

    async def attempts(self, order_id: str) -> Sequence[Attempt]:
        """One at most: a session has one PaymentIntent, however many cards were tried, and none before the first."""
        session = await self._session(order_id, "payment_intent.latest_charge")
        intent = session.get(_INTENT)
        if not isinstance(intent, Mapping) or not read(was_tried, intent):
            return []
        return [replace(read(attempt_of_intent, intent), order_id=order_id)]

    async def attempt(self, attempt_id: str) -> Attempt:
        name = checked_id(attempt_id)
        intent = await self.connection.ask(
            _INTENT, lambda it: it.v1.payment_intents.retrieve_async(name, {"expand": ["latest_charge"]})
        )
        return read(attempt_of_intent, intent)

    async def capture(self, attempt: Attempt) -> Attempt:
        name = checked_id(attempt.id)
        try:
            intent = await self.connection.ask(
                _INTENT,
                lambda it: it.v1.payment_intents.capture_async(
                    name, {"expand": ["latest_charge"]}, {"idempotency_key": f"capture:{name}"}
                ),
            )
        except GatewayRefused:
            known = await self.attempt(name)
            if known.status is AttemptStatus.COLLECTED:
                return replace(known, order_id=attempt.order_id)
            raise
        return replace(read(attempt_of_intent, intent), order_id=attempt.order_id)

    async def attempts_between(self, from_ms: int, to_ms: int) -> Sequence[Attempt]:
        params: PaymentIntentListParams = {
            "created": {"gte": _seconds(from_ms), "lt": _seconds(to_ms)},
            "expand": ["data.latest_charge"],
            "limit": PAGE,
        }
        intents = await self.connection.ask_all(
            lambda it, after: it.v1.payment_intents.list_async(
                params if after is None else {**params, "starting_after": after}
            )
        )
        return [read(attempt_of_intent, intent) for intent in intents if read(was_tried, intent)]

    # -- refunds -----------------------------------------------------------------------------------------------------

    async def refund(
        self, attempt_id: str, *, amount_minor: int, currency: str, reference: str
    ) -> GatewayRefund:
        name, amount = checked_id(attempt_id), to_stripe(amount_minor, currency)
        try:
            known = [one for one in await self.refunds(name) if one.reference == reference]
        except GatewayUnavailable:
            known = []
        if known:
            return known[0]
        refund = await self.connection.ask(
            "refund",
            lambda it: it.v1.refunds.create_async(
                {"payment_intent": name, "amount": amount, "metadata": {REFUND: reference}},
                {"idempotency_key": f"refund:{reference}"},
            ),
        )
        return read(_refund_of, refund)

    async def refunds(self, attempt_id: str) -> Sequence[GatewayRefund]:
        return await self._refunds({"payment_intent": checked_id(attempt_id), "limit": PAGE})

    async def refunds_between(self, from_ms: int, to_ms: int) -> Sequence[GatewayRefund]:
        return await self._refunds(
            {"created": {"gte": _seconds(from_ms), "lt": _seconds(to_ms)}, "limit": PAGE}
        )

    async def _refunds(self, params: RefundListParams) -> list[GatewayRefund]:
        found = await self.connection.ask_all(
            lambda it, after: it.v1.refunds.list_async(
                params if after is None else {**params, "starting_after": after}
            )
        )
        refunds = [read(refund_of, refund) for refund in found]
        return [refund for refund in refunds if refund is not None]

    # -- saved methods -----------------------------------------------------------------------------------------------

    async def charge_saved(self, wish: Wish, method: SavedMethod) -> Attempt:
        amount = to_stripe(wish.amount_minor, wish.currency)
        customer, name = checked_id(method.customer_id), checked_id(method.id)
        intent = await self._charged_before(customer, wish.reference)
        if intent is None:
            intent = await self.connection.ask(
                _INTENT,
                lambda it: it.v1.payment_intents.create_async(
                    {
                        "amount": amount,
                        "currency": wish.currency.lower(),
                        "customer": customer,
                        "payment_method": name,
                        "off_session": True,
                        "confirm": True,
                        "description": wish.description,
                        "metadata": {PAYMENT: wish.reference},
                        "expand": ["latest_charge"],
                    },
                    {"idempotency_key": f"charge:{wish.reference}"},
                ),
            )
        attempt = read(attempt_of_intent, intent)
        if attempt.status is AttemptStatus.FAILED:
            raise GatewayRefused(gateway=self.name, reason=attempt.failure)
        return replace(attempt, method=method)

    async def find_charge(self, wish: Wish, method: SavedMethod) -> Attempt | None:
        """Among the customer's last hundred payments, failed ones too."""
        intent = await self._charged_before(checked_id(method.customer_id), wish.reference)
        return None if intent is None else read(attempt_of_intent, intent)

    async def _charged_before(self, customer: str, reference: str) -> Mapping[str, Any] | None:
        """What was made of this reference, if it was longer ago than Stripe remembers our keys."""
        page = await self.connection.ask(
            "list",
            lambda it: it.v1.payment_intents.list_async(
                {"customer": customer, "limit": PAGE, "expand": ["data.latest_charge"]}
            ),
        )
        return read(lambda found: _of_reference(found, reference), page)

    async def forget_method(self, method: SavedMethod) -> None:
        name = checked_id(method.id)
        try:
            await self.connection.ask(_METHOD, lambda it: it.v1.payment_methods.detach_async(name))
        except GatewayRefused:
            if await self._is_kept(name):
                raise

    async def _is_kept(self, name: str) -> bool:
        """Stripe refuses to detach what is detached, with no code of its own for it."""
        try:
            found = await self.connection.ask(_METHOD, lambda it: it.v1.payment_methods.retrieve_async(name))
        except GatewayRefused as refused:
            if refused.facts.get("reason") == _MISSING:
                return False
            raise
        return found.get("customer") is not None

    # -- what comes by itself ----------------------------------------------------------------------------------------

    def verify_callback(self, order_id: str, attempt_id: str, signature: str) -> bool:
        """Never: Stripe signs nothing that a payer brings back. A payment is believed when Stripe is asked, or tells."""
        del order_id, attempt_id, signature
        return False

    def read_webhook(self, body: bytes, headers: Mapping[str, str]) -> GatewayEvent:
        return self._webhooks.read(body, headers)


def _order_of(session: Mapping[str, Any]) -> Order:
    # What `shown` is given to a payer's client; without a page there is nothing to pay at.
    if not isinstance(session["url"], str) or not isinstance(session["id"], str):
        raise TypeError("url")
    return Order(id=session["id"], shown={"checkoutUrl": session["url"], "sessionId": session["id"]})


def _refund_of(refund: Mapping[str, Any]) -> GatewayRefund:
    found = refund_of(refund)
    if found is None:
        raise ValueError(_INTENT)
    return found


def _of_reference(page: Mapping[str, Any], reference: str) -> Mapping[str, Any] | None:
    for intent in page["data"]:
        if (intent.get("metadata") or {}).get(PAYMENT) == reference:
            return dict(intent)
    return None


def _seconds(at_ms: int) -> int:
    """The first whole second that is not before: Stripe's instants are whole seconds."""
    return -(-at_ms // 1000)
