"""What is made of Stripe's subscriptions and invoices, as the newest API writes them and as older ones did."""

import copy
from typing import Any

import pytest

from billing_engine.subscriptions.ports import SubscriptionStatus
from server.gateways.stripe_subscription_shapes import (
    invoice_of,
    subscription_id_of_invoice,
    subscription_id_of_session,
    subscription_of,
)
from tests.support.fake_stripe_books import payload

DAY_S = 86_400
OURS = {"tarazu_user": "u1", "tarazu_tier": "starter"}


def subscription(**changes: Any) -> dict[str, Any]:
    return payload("subscription", **{"metadata": OURS, "status": "active", **changes})


def invoice(**changes: Any) -> dict[str, Any]:
    return payload("invoice", **{"status": "paid", "amount_paid": 1_900, **changes})


def line_of(found: dict[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = found["lines"]["data"][0]
    return line


def old_subscription() -> dict[str, Any]:
    """As before 2025-03-31: the period stands on the subscription."""
    found = subscription()
    item = found["items"]["data"][0]
    for name in ("current_period_start", "current_period_end"):
        found[name] = item.pop(name)
    return found


def old_invoice() -> dict[str, Any]:
    """As before 2025-03-31: no parents, the line's price in full."""
    found = invoice()
    parent = found.pop("parent")
    found["subscription"] = parent["subscription_details"]["subscription"]
    found["subscription_details"] = {"metadata": OURS}
    line = line_of(found)
    pricing = line.pop("pricing")
    del line["parent"]
    line |= {"type": "subscription", "proration": False, "subscription": found["subscription"]}
    line["price"] = payload("price", product=pricing["price_details"]["product"])
    return found


def test_old_and_new_subscriptions_say_the_same() -> None:
    assert subscription_of(old_subscription()) == subscription_of(subscription())


def test_old_and_new_invoices_say_the_same() -> None:
    found = invoice_of(invoice())

    assert invoice_of(old_invoice()) == found
    assert found is not None
    assert (found.tier, found.amount_minor, found.currency, found.is_paid) == (
        "starter",
        19_000_000,
        "USD",
        True,
    )
    assert found.period_end_ms - found.period_start_ms == 30 * DAY_S * 1000


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("incomplete", SubscriptionStatus.PENDING),
        ("trialing", SubscriptionStatus.ACTIVE),
        ("active", SubscriptionStatus.ACTIVE),
        ("past_due", SubscriptionStatus.PAST_DUE),
        ("paused", SubscriptionStatus.PAST_DUE),
        ("unpaid", SubscriptionStatus.ENDED),
        ("canceled", SubscriptionStatus.ENDED),
        ("incomplete_expired", SubscriptionStatus.ENDED),
    ],
)
def test_each_status_has_its_word(word: str, status: SubscriptionStatus) -> None:
    found = subscription_of(subscription(status=word))

    assert found is not None
    assert found.status is status


def test_a_status_of_tomorrow_is_not_guessed() -> None:
    with pytest.raises(KeyError):
        subscription_of(subscription(status="of_tomorrow"))


@pytest.mark.parametrize(
    ("changes", "cancels"),
    [
        ({}, False),
        ({"cancel_at_period_end": True}, True),
        ({"cancel_at": 1_795_000_000 + 30 * DAY_S}, True),
        ({"cancel_at": 1_795_000_000 + 31 * DAY_S}, False),
    ],
)
def test_an_end_may_be_a_word_or_a_date(changes: dict[str, Any], cancels: bool) -> None:
    """Stripe's own page for customers sets the date."""
    found = subscription_of(subscription(**changes))

    assert found is not None
    assert found.cancels is cancels


@pytest.mark.parametrize("metadata", [{}, None, {"tarazu_user": ""}, {"tarazu_tier": "starter"}])
def test_without_a_user_it_is_none_of_ours(metadata: Any) -> None:
    assert subscription_of(subscription(metadata=metadata)) is None


def test_without_a_tier_its_product_tells() -> None:
    found = subscription_of(subscription(metadata={"tarazu_user": "u1"}))

    assert found is not None
    assert found.tier == "starter"


def test_the_lines_product_tells_the_tier_and_no_later_metadata() -> None:
    found = invoice()
    line_of(found)["metadata"] = {"tarazu_tier": "enterprise"}
    found["parent"]["subscription_details"]["metadata"] = {"tarazu_tier": "professional"}

    told = invoice_of(found)
    line_of(found)["pricing"]["price_details"]["product"] = "prod_by_hand"
    by_hand = invoice_of(found)

    assert told is not None
    assert by_hand is not None
    assert (told.tier, by_hand.tier) == ("starter", "professional")


def test_a_tier_that_nothing_tells_is_not_guessed() -> None:
    found = invoice()
    line_of(found)["pricing"]["price_details"]["product"] = "prod_by_hand"

    with pytest.raises(TypeError):
        invoice_of(found)


def test_an_invoice_of_nothing_is_for_no_period() -> None:
    found = invoice(amount_paid=0)
    line_of(found)["amount"] = 0

    assert invoice_of(found) is None


def test_a_period_that_a_voucher_paid_is_one() -> None:
    found = invoice_of(invoice(amount_paid=0, amount_due=0, total=0))

    assert found is not None
    assert (found.amount_minor, found.is_paid) == (0, True)


def test_corrections_beside_the_period_are_not_it() -> None:
    """A change by hand in the dashboard may prorate: the lines of that come first, and are of other times and tiers."""
    found = invoice()
    sold = line_of(found)
    correction = copy.deepcopy(sold)
    correction["parent"]["subscription_item_details"]["proration"] = True
    correction["pricing"]["price_details"]["product"] = "tarazu_enterprise"
    correction["period"] = {"start": 1, "end": sold["period"]["end"] + 1}
    extra = copy.deepcopy(sold)
    extra["parent"] = {"type": "invoice_item_details", "invoice_item_details": {"proration": False}}
    extra["parent"]["subscription_item_details"] = None
    extra["period"] = correction["period"]
    found["lines"]["data"] = [correction, extra, sold]

    told = invoice_of(found)

    assert told is not None
    assert (told.tier, told.period_start_ms) == ("starter", 1000 * sold["period"]["start"])
    found["lines"]["data"] = [correction, extra]
    assert invoice_of(found) is None


@pytest.mark.parametrize("status", ["draft", "open", "uncollectible"])
def test_what_is_not_paid_says_so(status: str) -> None:
    found = invoice_of(invoice(status=status, amount_paid=0))

    assert found is not None
    assert (found.is_paid, found.amount_minor) == (False, 19_000_000)


def test_what_is_void_nobody_owes() -> None:
    assert invoice_of(invoice(status="void")) is None


def test_invoices_of_something_else_name_no_subscription() -> None:
    assert subscription_id_of_invoice(invoice(parent=None)) is None
    assert subscription_id_of_invoice(old_invoice() | {"subscription": None}) is None
    assert subscription_id_of_invoice(old_invoice()) == subscription_id_of_invoice(invoice())


def test_a_session_names_one_only_if_it_sells_one() -> None:
    sold = payload("checkout_session", mode="subscription", subscription="sub_1")

    assert subscription_id_of_session(sold) == "sub_1"
    assert subscription_id_of_session(sold | {"subscription": {"id": "sub_1"}}) == "sub_1"
    assert subscription_id_of_session(sold | {"subscription": None}) is None
    assert subscription_id_of_session(sold | {"mode": "payment"}) is None
