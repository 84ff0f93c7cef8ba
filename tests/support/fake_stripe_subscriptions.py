"""What a Stripe account knows of subscriptions, beside its payments: products, subscriptions, invoices, and the renewals by its own clock.

Nothing renews by itself: after the clock has moved, `advance` does what has become due since, each at its own instant.
"""

import copy
import heapq
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from stripe.params import InvoiceListParams, ProductCreateParams, SubscriptionUpdateParams
from stripe.params.checkout import SessionCreateParams

from tests.support.fake_stripe_books import LEAST, StripeBooks, payload
from tests.support.fake_stripe_wire import Refusal, missing, only_known, page_of

Json = dict[str, Any]

_DAY_S: Final = 86_400
#: A renewal's invoice is a draft for an hour. Source: https://docs.stripe.com/billing/invoices/subscription
DRAFT_S: Final = 3_600
#: How long a first payment may wait for the payer. Source: https://docs.stripe.com/billing/subscriptions/overview
INCOMPLETE_S: Final = 23 * 3_600
#: After how long a payment that has failed is tried again each time.
RETRIES_S: Final = (3 * _DAY_S, 2 * _DAY_S, 2 * _DAY_S)
_OVER: Final = {"canceled", "incomplete_expired"}


class StripeAccount(StripeBooks):
    """Payments and subscriptions."""

    def __init__(self, *args: Any, **facts: Any) -> None:
        super().__init__(*args, **facts)
        self.products: dict[str, Json] = {}
        self.subscriptions: dict[str, Json] = {}
        self.invoices: dict[str, Json] = {}
        #: Subscriptions whose payments the bank declines.
        self.declining: set[str] = set()
        #: What becomes of a subscription whose last retry has failed, as the dashboard is set: `canceled` or `unpaid`.
        self.after_retries = "canceled"
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._at: int | None = None
        #: The subscription that was begun at a page; Stripe shows it there only when it is complete.
        self._begun_at: dict[str, str] = {}

    # -- what can be asked for ---------------------------------------------------------------------------------------

    def create_product(self, form: Json) -> Json:
        only_known(form, ProductCreateParams.__annotations__)
        name = form.get("id") or self._id("prod_")
        if name in self.products:
            raise Refusal(400, "Product already exists.", code="resource_already_exists", param="id")
        self.products[name] = payload(
            "product",
            id=name,
            created=self._now(),
            metadata=form.get("metadata", {}),
            name=form["name"],
            updated=self._now(),
        )
        return self.products[name]

    def create_session(self, form: Json) -> Json:
        if form.get("mode") != "subscription":
            return super().create_session(form)
        only_known(form, SessionCreateParams.__annotations__)
        for wrong in ("customer_creation", "payment_intent_data", "setup_intent_data"):
            if wrong in form:
                raise Refusal(400, f"You can not pass `{wrong}` in `subscription` mode.", param=wrong)
        if "customer" in form and "customer_email" in form:
            raise Refusal(400, "You may only specify one of these parameters: customer, customer_email.")
        if "customer" in form and form["customer"] not in self.customers:
            raise missing("customer", form["customer"], "customer")
        (line,) = form["line_items"]
        price = self._price(line["price_data"])
        if price["unit_amount"] < LEAST:
            raise Refusal(
                400, "The total amount due must add up to at least $0.50 usd", code="amount_too_small"
            )
        name = self._id("cs_test_a1")
        session = payload(
            "checkout_session",
            id=name,
            amount_subtotal=price["unit_amount"],
            amount_total=price["unit_amount"],
            cancel_url=form.get("cancel_url"),
            client_reference_id=form.get("client_reference_id"),
            created=self._now(),
            currency=price["currency"],
            customer=form.get("customer"),
            customer_creation=None if "customer" in form else "always",
            customer_email=form.get("customer_email"),
            expires_at=self._now() + _DAY_S,
            metadata=form.get("metadata", {}),
            mode="subscription",
            payment_status="unpaid",
            success_url=form["success_url"],
            url=f"https://checkout.stripe.com/c/pay/{name}",
        )
        self.sessions[name] = session
        self._asked[name] = {**form, "price": price}
        return session

    def subscription(self, name: str) -> Json:
        return self._found("subscriptions", "subscription", name, "id")

    def list_invoices(self, form: Json) -> Json:
        only_known(form, InvoiceListParams.__annotations__)
        name = form.get("subscription")
        if name is not None:
            self._found("subscriptions", "subscription", name, "subscription")
        chosen = [copy.deepcopy(one) for one in self.invoices.values() if name in {None, _owner(one)}]
        for invoice in chosen:
            for line in invoice["lines"]["data"]:
                # As Stripe has it: what the subscription says now, whenever the invoice was made.
                line["metadata"] = dict(self.subscriptions[_owner(invoice)]["metadata"])
        return page_of(chosen, form, "/v1/invoices")

    def update_subscription(self, name: str, form: Json) -> Json:
        only_known(form, SubscriptionUpdateParams.__annotations__)
        found = self.subscription(name)
        if found["status"] in _OVER:
            raise Refusal(
                400, "A canceled subscription can only update its cancellation_details and metadata."
            )
        if "cancel_at" in form and "cancel_at_period_end" in form:
            raise Refusal(400, "You cannot pass both cancel_at and cancel_at_period_end.")
        if "trial_end" in form and int(form["trial_end"]) <= self._now():
            raise Refusal(400, "Invalid timestamp: must be an integer Unix timestamp in the future.")
        item = _item(found)
        for change in form.get("items", []):
            if change.get("id") != item["id"]:
                raise missing("subscription_item", change.get("id"), "items[0][id]")
            # What a proration would come to, is not in these books.
            assert form.get("proration_behavior") == "none"
            item["price"] = self._price(change["price_data"])
        found["metadata"] |= form.get("metadata") or {}
        if "trial_end" in form:
            assert form.get("proration_behavior") == "none"
            self._try_until(found, int(form["trial_end"]))
        if "cancel_at_period_end" in form:
            ends = form["cancel_at_period_end"] == "true"
            # A date that somebody has set stays, unless it is this word's own.
            if ends or found["cancel_at_period_end"]:
                found["cancel_at"] = item["current_period_end"] if ends else None
            found |= {"cancel_at_period_end": ends, "canceled_at": self._now() if ends else None}
        if "cancel_at" in form:
            found["cancel_at"] = int(form["cancel_at"]) if form["cancel_at"] else None
        self._tell("customer.subscription.updated", found, {})
        return found

    # -- what payers, banks and Stripe do ----------------------------------------------------------------------------

    def pay(self, session_id: str) -> str:
        """A payer pays at the page; the PaymentIntent's id. The events come in one of the orders that Stripe sends them in."""
        session = self.sessions[session_id]
        if session["mode"] != "subscription":
            return super().pay(session_id)
        found, invoice = self._begun(session)
        return self._completed(session, found, invoice)

    def begin(self, session_id: str) -> str:
        """A payer's bank wants the payer to confirm; the subscription's id. Without `confirm` it expires within a day."""
        session = self.sessions[session_id]
        found, invoice = self._begun(session)
        invoice["status"] = "open"
        self._tell("invoice.payment_action_required", invoice)
        self._plan(self._now() + INCOMPLETE_S, lambda: self._expire_first(found, invoice))
        return str(found["id"])

    def confirm(self, session_id: str) -> None:
        """The payer confirms what was begun there."""
        session = self.sessions[session_id]
        found = self.subscriptions[self._begun_at[session_id]]
        self._completed(session, found, self.invoices[found["latest_invoice"]])

    def pay_invoice(self, subscription_id: str) -> None:
        """The customer pays the last invoice on Stripe's page for it, with another card."""
        found = self.subscriptions[subscription_id]
        self.declining.discard(subscription_id)
        self._pay_invoice(found, self.invoices[found["latest_invoice"]])

    def end(self, subscription_id: str) -> None:
        """Somebody ends it at once, in the dashboard."""
        self._end(self.subscriptions[subscription_id])

    def subscription_at(self, session_id: str) -> str:
        """The subscription that a page led to."""
        return str(self.sessions[session_id]["subscription"])

    def advance(self) -> None:
        """What has become due by now: renewals, payments, retries, ends."""
        while self._due and self._due[0][0] <= self.now_s():
            self._at, _, act = heapq.heappop(self._due)
            act()
        self._at = None

    # -- how it comes about ------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return super()._now() if self._at is None else self._at

    def _plan(self, at_s: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (at_s, next(self._order), act))

    def _price(self, asked: Json) -> Json:
        only_known(asked, {"currency", "product", "recurring", "unit_amount"})
        if asked.get("product") not in self.products:
            raise missing("product", asked.get("product"), "product")
        interval = asked["recurring"]
        return payload(
            "price",
            id=self._id("price_"),
            created=self._now(),
            currency=asked["currency"],
            product=asked["product"],
            recurring={
                "interval": interval["interval"],
                "interval_count": int(interval["interval_count"]),
                "meter": None,
                "trial_period_days": None,
                "usage_type": "licensed",
            },
            unit_amount=int(asked["unit_amount"]),
            unit_amount_decimal=asked["unit_amount"],
        )

    def _begun(self, session: Json) -> tuple[Json, Json]:
        assert (session["mode"], session["status"]) == ("subscription", "open"), session["status"]
        asked = self._asked[session["id"]]
        customer = self._customer(session)
        name = self._id("sub_")
        found = payload(
            "subscription",
            id=name,
            billing_cycle_anchor=self._now(),
            created=self._now(),
            currency=session["currency"],
            customer=customer,
            default_payment_method=self._attached(customer)["id"],
            metadata=dict(asked.get("subscription_data", {}).get("metadata", {})),
            start_date=self._now(),
        )
        item = _item(found)
        item |= {"id": self._id("si_"), "price": asked["price"], "subscription": name}
        item |= {"created": self._now(), "current_period_start": self._now()}
        item["current_period_end"] = self._now() + _cycle_s(item)
        self.subscriptions[name] = found
        self._begun_at[session["id"]] = name
        self._tell("customer.subscription.created", found)
        invoice = self._invoice(found, "subscription_create")
        self._plan(item["current_period_end"], lambda: self._roll(found))
        return found, invoice

    def _completed(self, session: Json, found: Json, invoice: Json) -> str:
        intent = self._pay_invoice(found, invoice)
        session |= {"subscription": found["id"], "invoice": invoice["id"]}
        self._complete(session, "paid")
        return intent

    def _invoice(self, found: Json, reason: str, *, amount: int | None = None) -> Json:
        """The invoice of the running period; a draft."""
        item = _item(found)
        price = item["price"]
        amount = price["unit_amount"] if amount is None else amount
        name = self._id("in_")
        invoice = payload(
            "invoice",
            id=name,
            amount_due=amount,
            amount_remaining=amount,
            billing_reason=reason,
            created=self._now(),
            currency=price["currency"],
            customer=found["customer"],
            # Of what came before, for a renewal: not the period that is sold. The line tells that.
            period_end=self._now(),
            period_start=found["billing_cycle_anchor"],
            subtotal=amount,
            total=amount,
        )
        invoice["parent"]["subscription_details"] = {
            "metadata": dict(found["metadata"]),
            "subscription": found["id"],
        }
        (line,) = invoice["lines"]["data"]
        line |= {"id": self._id("il_"), "amount": amount, "invoice": name, "subtotal": amount}
        line["period"] = {"start": item["current_period_start"], "end": item["current_period_end"]}
        line["parent"]["subscription_item_details"] |= {
            "subscription": found["id"],
            "subscription_item": item["id"],
        }
        line["pricing"]["price_details"] = {"price": price["id"], "product": price["product"]}
        self.invoices[name] = invoice
        found["latest_invoice"] = name
        self._tell("invoice.created", invoice)
        return invoice

    def _pay_invoice(self, found: Json, invoice: Json) -> str:
        """The PaymentIntent's id. Its metadata is its own: Stripe copies none of the subscription's."""
        intent = self._intent_of(found, invoice)
        self._collect(intent, self.methods[found["default_payment_method"]])
        previous = found["status"]
        if found["latest_invoice"] == invoice["id"]:
            found["status"] = "active"
        self._settled(invoice)
        if previous != found["status"]:
            self._tell("customer.subscription.updated", found, {"status": previous})
        return str(intent["id"])

    def _settled(self, invoice: Json) -> None:
        invoice |= {
            "amount_paid": invoice["amount_due"],
            "amount_remaining": 0,
            "attempted": True,
            "next_payment_attempt": None,
            "status": "paid",
        }
        invoice["status_transitions"] |= {"finalized_at": self._now(), "paid_at": self._now()}
        self._tell("invoice.paid", invoice)
        self._tell("invoice.payment_succeeded", invoice)

    def _intent_of(self, found: Json, invoice: Json) -> Json:
        intent = payload(
            "payment_intent",
            id=self._id("pi_"),
            amount=invoice["amount_due"],
            created=self._now(),
            currency=invoice["currency"],
            customer=found["customer"],
            description="Subscription update",
            metadata={},
            setup_future_usage="off_session",
        )
        self.intents[intent["id"]] = intent
        self._tell("payment_intent.created", intent)
        return intent

    def _try_until(self, found: Json, trial_end: int) -> None:
        """A trial in the midst of a period: the end moves there, and an invoice of nothing says so."""
        item = _item(found)
        found |= {"trial_start": self._now(), "trial_end": trial_end, "billing_cycle_anchor": trial_end}
        found["status"] = "trialing"
        item |= {"current_period_start": self._now(), "current_period_end": trial_end}
        if found["cancel_at_period_end"]:
            found["cancel_at"] = trial_end
        self._settled(self._invoice(found, "subscription_update", amount=0))
        self._plan(trial_end, lambda: self._roll(found))

    def _roll(self, found: Json) -> None:
        """The period is over, unless its end was moved or all is over."""
        item = _item(found)
        if found["status"] in _OVER or item["current_period_end"] != self._now():
            return
        if found["cancel_at"] is not None and found["cancel_at"] <= self._now():
            self._end(found)
            return
        item |= {
            "current_period_start": self._now(),
            "current_period_end": self._now() + _cycle_s(item),
        }
        if found["status"] == "trialing":
            found["status"] = "active"
        invoice = self._invoice(found, "subscription_cycle")
        self._tell("customer.subscription.updated", found, {})
        if found["status"] != "unpaid":
            self._plan(self._now() + DRAFT_S, lambda: self._finalise(found, invoice))
        self._plan(item["current_period_end"], lambda: self._roll(found))

    def _finalise(self, found: Json, invoice: Json) -> None:
        if found["status"] in _OVER or invoice["status"] != "draft":
            return
        invoice["status"] = "open"
        invoice["status_transitions"]["finalized_at"] = self._now()
        invoice["parent"]["subscription_details"]["metadata"] = dict(found["metadata"])
        self._tell("invoice.finalized", invoice)
        self._charge_renewal(found, invoice, RETRIES_S)

    def _charge_renewal(self, found: Json, invoice: Json, retries_s: tuple[int, ...]) -> None:
        if found["status"] in _OVER or invoice["status"] != "open":
            return
        invoice |= {"attempted": True, "attempt_count": invoice["attempt_count"] + 1}
        if found["id"] not in self.declining:
            self._pay_invoice(found, invoice)
            return
        intent = self._intent_of(found, invoice)
        self._decline(intent, "card_declined", "insufficient_funds")
        invoice["next_payment_attempt"] = self._now() + retries_s[0] if retries_s else None
        if found["status"] == "active":
            found["status"] = "past_due"
            self._tell("customer.subscription.updated", found, {"status": "active"})
        self._tell("invoice.payment_failed", invoice)
        if retries_s:
            at_s = self._now() + retries_s[0]
            self._plan(at_s, lambda: self._charge_renewal(found, invoice, retries_s[1:]))
        elif self.after_retries == "canceled":
            self._end(found)
        else:
            found["status"] = "unpaid"
            self._tell("customer.subscription.updated", found, {"status": "past_due"})

    def _expire_first(self, found: Json, invoice: Json) -> None:
        if found["status"] != "incomplete":
            return
        found |= {"status": "incomplete_expired", "ended_at": self._now()}
        invoice["status"] = "void"
        self._tell("invoice.voided", invoice)
        self._tell("customer.subscription.updated", found, {"status": "incomplete"})

    def _end(self, found: Json) -> None:
        found |= {"status": "canceled", "ended_at": self._now()}
        found["canceled_at"] = found["canceled_at"] or self._now()
        self._tell("customer.subscription.deleted", found)


def _item(found: Json) -> Json:
    item: Json = found["items"]["data"][0]
    return item


def _owner(invoice: Json) -> str:
    return str(invoice["parent"]["subscription_details"]["subscription"])


def _cycle_s(item: Json) -> int:
    recurring = item["price"]["recurring"]
    assert recurring["interval"] == "day"
    return int(recurring["interval_count"]) * _DAY_S
