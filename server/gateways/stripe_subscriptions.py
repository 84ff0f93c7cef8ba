"""Subscriptions at Stripe: `SubscriptionGateway` over the `stripe` package. Stripe charges every 30 days and tells us.

Every tier is a product at Stripe with an id of ours, made when it is first sold; its price is told with every sale, so a new price in
the file of tiers is a new price at Stripe, and who has subscribed keeps the old one.

Once per reference: a page is asked for under a key made of our reference, which Stripe keeps for 24 hours; a page that is older
cannot be paid any more. A change of tier is made under its key, which the subscription remembers: repeated later it is not made again,
unless another change was made in between.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from stripe.params import InvoiceListParams, SubscriptionUpdateParams
from stripe.params.checkout import SessionCreateParams

from billing_engine.payments.errors import GatewayRefused
from billing_engine.subscriptions.model import CYCLE_MS
from billing_engine.subscriptions.ports import (
    CheckoutPage,
    GatewayInvoice,
    GatewaySubscription,
    SubscriptionWish,
)
from server.gateways.stripe_client import PAGE, StripeConnection, checked_id, read
from server.gateways.stripe_money import to_stripe
from server.gateways.stripe_subscription_shapes import (
    CHANGE,
    REFERENCE,
    TIER,
    USER,
    invoice_of,
    last_change,
    only_item,
    product_of,
    subscription_id_of_session,
    subscription_of,
)

_SUBSCRIPTION: Final = "subscription"
_SESSION: Final = "checkout.session"
_MISSING: Final = "resource_missing"
_CYCLE_DAYS: Final = CYCLE_MS // 86_400_000


class StripeSubscriptions:
    """A page is a Checkout session (`cs_…`), a subscription a Subscription (`sub_…`) with one item. The connection is its owner's."""

    name = "stripe"

    def __init__(self, connection: StripeConnection, *, success_url: str, cancel_url: str) -> None:
        self._stripe = connection
        self._success_url = success_url
        self._cancel_url = cancel_url
        #: Tiers that Stripe is known to have a product for.
        self._sold: set[str] = set()

    async def checkout(self, wish: SubscriptionWish) -> CheckoutPage:
        amount = to_stripe(wish.amount_minor, wish.currency)
        product = await self._product(wish.tier)
        ours = {USER: wish.user_id, TIER: wish.tier, REFERENCE: wish.reference}
        params: SessionCreateParams = {
            "mode": "subscription",
            "line_items": [
                {
                    "price_data": {
                        "currency": wish.currency.lower(),
                        "unit_amount": amount,
                        "product": product,
                        "recurring": {"interval": "day", "interval_count": _CYCLE_DAYS},
                    },
                    "quantity": 1,
                }
            ],
            "client_reference_id": wish.reference,
            "metadata": ours,
            "subscription_data": {"metadata": ours},
            # The tier is sold at this price, in this currency.
            "adaptive_pricing": {"enabled": False},
            "success_url": self._success_url,
            "cancel_url": self._cancel_url,
        }
        if wish.customer_id is not None:
            params["customer"] = checked_id(wish.customer_id)
        elif wish.email:
            params["customer_email"] = wish.email
        session = await self._stripe.ask(
            _SESSION,
            lambda it: it.v1.checkout.sessions.create_async(
                params, {"idempotency_key": f"subscription:{wish.reference}"}
            ),
        )
        return read(_page_of, session)

    async def subscription_of(self, checkout_id: str) -> str | None:
        name = checked_id(checkout_id)
        session = await self._stripe.ask(_SESSION, lambda it: it.v1.checkout.sessions.retrieve_async(name))
        return read(subscription_id_of_session, session)

    async def subscription(self, subscription_id: str) -> GatewaySubscription | None:
        """`tier` is what its next invoice will be for."""
        try:
            found = await self._found(subscription_id)
        except GatewayRefused as refused:
            if _is_missing(refused):
                return None
            raise
        return read(subscription_of, found)

    async def invoices(self, subscription_id: str) -> Sequence[GatewayInvoice]:
        """What is due, too. None for a subscription that there is not."""
        params: InvoiceListParams = {"subscription": checked_id(subscription_id), "limit": PAGE}
        try:
            found = await self._stripe.ask_all(
                lambda it, after: it.v1.invoices.list_async(
                    params if after is None else {**params, "starting_after": after}
                )
            )
        except GatewayRefused as refused:
            if _is_missing(refused):
                return []
            raise
        invoices = [read(invoice_of, invoice) for invoice in found]
        return sorted(
            (invoice for invoice in invoices if invoice is not None),
            key=lambda invoice: (invoice.period_start_ms, invoice.id),
        )

    async def set_cancels(self, subscription_id: str, cancels: bool) -> None:
        found = await self._found(subscription_id)
        params: SubscriptionUpdateParams = {"cancel_at_period_end": cancels}
        if not cancels and found.get("cancel_at") and found.get("cancel_at_period_end") is not True:
            # Ended by a date, on Stripe's own page for customers: that word would leave the date.
            params = {"cancel_at": ""}
        await self._update(found, params)

    async def change_tier(
        self,
        subscription_id: str,
        *,
        tier: str,
        amount_minor: int,
        currency: str,
        cycle_ends_ms: int | None,
        key: str,
    ) -> None:
        """The end of a cycle is moved by a trial until there: Stripe has no other way that charges nothing."""
        amount = to_stripe(amount_minor, currency)
        found = await self._found(subscription_id)
        if read(last_change, found) == key:
            return
        product = await self._product(tier)
        params: SubscriptionUpdateParams = {
            "items": [
                {
                    "id": read(lambda it: str(only_item(it)["id"]), found),
                    "price_data": {
                        "currency": currency.lower(),
                        "unit_amount": amount,
                        "product": product,
                        "recurring": {"interval": "day", "interval_count": _CYCLE_DAYS},
                    },
                }
            ],
            "proration_behavior": "none",
            "metadata": {TIER: tier, CHANGE: key},
        }
        if cycle_ends_ms is not None:
            # Whole seconds, and never before: an end that has passed would charge at once.
            params["trial_end"] = -(-cycle_ends_ms // 1000)
        await self._update(found, params, key=f"tier:{key}")

    # -- what it asks for --------------------------------------------------------------------------------------------

    async def _found(self, subscription_id: str) -> dict[str, Any]:
        name = checked_id(subscription_id)
        return await self._stripe.ask(_SUBSCRIPTION, lambda it: it.v1.subscriptions.retrieve_async(name))

    async def _update(
        self, found: Mapping[str, Any], params: SubscriptionUpdateParams, key: str | None = None
    ) -> None:
        name = read(lambda it: checked_id(it["id"]), found)
        await self._stripe.ask(
            _SUBSCRIPTION,
            lambda it: it.v1.subscriptions.update_async(
                name, params, {} if key is None else {"idempotency_key": key}
            ),
        )

    async def _product(self, tier: str) -> str:
        """The id of the tier's product, which is made if there is none. Without a key: of one id there can be one product only."""
        name = checked_id(product_of(tier))
        if tier not in self._sold:
            try:
                await self._stripe.ask(
                    "product",
                    lambda it: it.v1.products.create_async(
                        {"id": name, "name": f"{tier.capitalize()} subscription", "metadata": {TIER: tier}}
                    ),
                )
            except GatewayRefused as refused:
                if refused.facts.get("reason") != "resource_already_exists":
                    raise
            self._sold.add(tier)
        return name


def _is_missing(refused: GatewayRefused) -> bool:
    return refused.facts.get("reason") == _MISSING


def _page_of(session: Mapping[str, Any]) -> CheckoutPage:
    # Without a page there is nothing to subscribe at.
    if not isinstance(session["url"], str) or not isinstance(session["id"], str):
        raise TypeError("url")
    return CheckoutPage(session["id"], session["url"])
