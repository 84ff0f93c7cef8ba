"""Stripe's subscriptions and their invoices in our words: pure functions, of the newest API and of those before 2025-03-31 alike. A
field that is missing or something else is a KeyError, TypeError or ValueError.

An invoice's tier is told by its line's product, whose id we choose (`tarazu_starter`): the line names the product that it was made
for, whatever the subscription has become since. The line's own metadata would not do: it repeats what the subscription's says now.
Source: https://docs.stripe.com/api/invoice-line-item/object
"""

from collections.abc import Mapping
from typing import Final

from billing_engine.subscriptions.ports import GatewayInvoice, GatewaySubscription, SubscriptionStatus
from server.gateways.stripe_fields import Json, id_of, instant_ms, number, text
from server.gateways.stripe_money import from_stripe

#: Where our words stand in the metadata of what we make at Stripe.
USER: Final = "tarazu_user"
TIER: Final = "tarazu_tier"
REFERENCE: Final = "tarazu_payment"
#: The key of the last change of tier.
CHANGE: Final = "tarazu_change"
_PRODUCT: Final = "tarazu_"

_STATUS: Final[Mapping[str, SubscriptionStatus]] = {
    "incomplete": SubscriptionStatus.PENDING,
    # A cycle whose end was moved is a trial at Stripe.
    "trialing": SubscriptionStatus.ACTIVE,
    "active": SubscriptionStatus.ACTIVE,
    "past_due": SubscriptionStatus.PAST_DUE,
    # The moved cycle is over and there is no card to charge; it goes on when there is one.
    "paused": SubscriptionStatus.PAST_DUE,
    "incomplete_expired": SubscriptionStatus.ENDED,
    "canceled": SubscriptionStatus.ENDED,
    "unpaid": SubscriptionStatus.ENDED,
}


def product_of(tier: str) -> str:
    """The id of a tier's product."""
    return f"{_PRODUCT}{tier}"


def subscription_of(found: Json) -> GatewaySubscription | None:
    """None: it is none of ours."""
    metadata = found.get("metadata") or {}
    user_id = metadata.get(USER)
    if not isinstance(user_id, str) or not user_id:
        return None
    item = only_item(found)
    tier = metadata.get(TIER) or _tier_of(id_of((item.get("price") or {}).get("product")))
    if not isinstance(tier, str):
        raise TypeError(TIER)
    start_s, end_s = _period(found, item)
    return GatewaySubscription(
        id=text(found, "id"),
        user_id=user_id,
        tier=tier,
        status=_STATUS[text(found, "status")],
        period_start_ms=1000 * start_s,
        period_end_ms=1000 * end_s,
        cancels=found.get("cancel_at_period_end") is True or _is_by(found.get("cancel_at"), end_s),
        created_at_ms=instant_ms(found),
    )


def only_item(subscription: Json) -> Json:
    """What is subscribed to: ours have one item."""
    items: list[Json] = subscription["items"]["data"]
    if not items:
        raise ValueError("items")
    return items[0]


def last_change(subscription: Json) -> str | None:
    """The key of the last change of tier."""
    key = (subscription.get("metadata") or {}).get(CHANGE)
    return key if isinstance(key, str) else None


def subscription_id_of_session(session: Json) -> str | None:
    """The subscription that a Checkout session led to. None: nobody has finished there, or it sells something else."""
    return id_of(session.get("subscription")) if session.get("mode") == "subscription" else None


def subscription_id_of_invoice(invoice: Json) -> str | None:
    """None: it is for something else."""
    parent = invoice.get("parent")
    details = parent.get("subscription_details") if isinstance(parent, Mapping) else None
    if isinstance(details, Mapping):
        return id_of(details.get("subscription"))
    return id_of(invoice.get("subscription"))


def invoice_of(invoice: Json) -> GatewayInvoice | None:
    """None: it is for no period. A cycle whose end is moved brings an invoice of nothing for a trial; what is void, nobody owes."""
    subscription_id = subscription_id_of_invoice(invoice)
    line = _line_of_period(invoice["lines"]["data"])
    status = text(invoice, "status")
    if subscription_id is None or line is None or status == "void":
        return None
    is_paid = status == "paid"
    amount_minor, currency = from_stripe(
        number(invoice, "amount_paid" if is_paid else "amount_due"), text(invoice, "currency")
    )
    paid_at_s = (invoice.get("status_transitions") or {}).get("paid_at") if is_paid else None
    return GatewayInvoice(
        id=text(invoice, "id"),
        subscription_id=subscription_id,
        tier=_tier_of_line(line, invoice),
        period_start_ms=1000 * number(line["period"], "start"),
        period_end_ms=1000 * number(line["period"], "end"),
        amount_minor=amount_minor,
        currency=currency,
        is_paid=is_paid,
        at_ms=instant_ms(invoice) if paid_at_s is None else 1000 * int(paid_at_s),
    )


def _line_of_period(lines: list[Json]) -> Json | None:
    """The line that sells a whole period: of the subscription itself, at a price, and no correction of an earlier one."""
    sold = [line for line in lines if _sells_period(line) and line["amount"] > 0]
    return max(sold, key=lambda line: number(line["period"], "end"), default=None)


def _sells_period(line: Json) -> bool:
    parent = line.get("parent")
    if isinstance(parent, Mapping):
        details = parent.get("subscription_item_details")
        return isinstance(details, Mapping) and details.get("proration") is not True
    return line.get("type") == "subscription" and line.get("proration") is not True


def _tier_of_line(line: Json, invoice: Json) -> str:
    """Its product's. Where somebody has put another product there by hand: what the subscription's metadata said when the invoice was
    made, which the invoice keeps.
    """
    pricing = line.get("pricing")
    if isinstance(pricing, Mapping):
        product = id_of((pricing.get("price_details") or {}).get("product"))
    else:
        product = id_of((line.get("price") or {}).get("product"))
    details = (invoice.get("parent") or invoice).get("subscription_details") or {}
    tier = _tier_of(product) or (details.get("metadata") or {}).get(TIER)
    if not isinstance(tier, str) or not tier:
        raise TypeError(TIER)
    return tier


def _tier_of(product: str | None) -> str | None:
    if product is None or not product.startswith(_PRODUCT):
        return None
    return product.removeprefix(_PRODUCT)


def _period(found: Json, item: Json) -> tuple[int, int]:
    """Start and end of the running period, whole seconds: the item's, or the subscription's own before 2025-03-31."""
    where = item if "current_period_end" in item else found
    return number(where, "current_period_start"), number(where, "current_period_end")


def _is_by(cancel_at: object, end_s: int) -> bool:
    """Stripe's own page for customers ends a subscription by a date instead of by a word."""
    return isinstance(cancel_at, int) and cancel_at <= end_s
