"""What a Stripe account knows and what happens in it: sessions, payments, charges, refunds, disputes, saved cards, and the events of all.

The objects are the files in `payloads/stripe`, with Stripe's whole set of fields.
"""

import copy
import json
import time
from collections.abc import Callable, Mapping
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from stripe.params import (
    PaymentIntentCreateParams,
    PaymentIntentListParams,
    RefundCreateParams,
    RefundListParams,
)
from stripe.params.checkout import SessionCreateParams

from tests.support.fake_stripe_wire import Refusal, missing, only_known, page_of

Json = dict[str, Any]

_PAYLOADS = Path(__file__).parent / "payloads" / "stripe"
#: Of a charge in Stripe's smallest units of USD. Source: https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts
LEAST = 50
#: Fields that another object stands behind, and where it is found.
_EXPANDABLE = {
    "payment_intent": "intents",
    "latest_charge": "charges",
    "setup_intent": "setups",
    "payment_method": "methods",
    "customer": "customers",
    "charge": "charges",
}


@cache
def _payload(kind: str) -> str:
    return (_PAYLOADS / f"{kind}.json").read_text()


def payload(kind: str, **changes: Any) -> Json:
    """An object as Stripe writes it, with these fields changed."""
    found: Json = json.loads(_payload(kind))
    assert changes.keys() <= found.keys(), changes.keys() - found.keys()
    return found | changes


class StripeBooks:
    """One account. `now_s` is Stripe's clock; tell `happened` to hear of events as they happen."""

    def __init__(self, now_s: Callable[[], float] = time.time) -> None:
        self.now_s = now_s
        self.sessions: dict[str, Json] = {}
        self.intents: dict[str, Json] = {}
        self.charges: dict[str, Json] = {}
        self.refunds: dict[str, Json] = {}
        self.disputes: dict[str, Json] = {}
        self.methods: dict[str, Json] = {}
        self.setups: dict[str, Json] = {}
        self.customers: dict[str, Json] = {}
        #: The events in the order of happening, as they were then.
        self.happened: list[str] = []
        #: What the bank says of charges of a saved card, by payment method.
        self.declines: dict[str, tuple[str, str | None]] = {}
        #: What a new refund says of itself: most cards' `succeeded`, others' `pending`.
        self.refunds_begin_as = "succeeded"
        #: What the session asked for, which the payment that the payer begins takes over.
        self._asked: dict[str, Json] = {}
        self._numbers = count(1)

    # -- what can be asked for ---------------------------------------------------------------------------------------

    def create_session(self, form: Json) -> Json:
        only_known(form, SessionCreateParams.__annotations__)
        if form.get("mode") not in {"payment", "setup"}:
            raise Refusal(400, "Missing required param: mode.", code="parameter_missing", param="mode")
        if not form.get("success_url"):
            raise Refusal(400, "Missing required param: success_url.", code="parameter_missing")
        if "customer" in form and "customer_email" in form:
            raise Refusal(400, "You may only specify one of these parameters: customer, customer_email.")
        if "customer" in form and "customer_creation" in form:
            raise Refusal(400, "You may only specify one of these parameters: customer, customer_creation.")
        if "customer" in form and form["customer"] not in self.customers:
            raise missing("customer", form["customer"], "customer")
        is_payment = form["mode"] == "payment"
        amount, currency = _priced(form) if is_payment else (None, form["currency"])
        now = self._now()
        name = self._id("cs_test_a1")
        session = payload(
            "checkout_session",
            id=name,
            adaptive_pricing={"enabled": form.get("adaptive_pricing", {}).get("enabled") == "true"},
            amount_subtotal=amount,
            amount_total=amount,
            cancel_url=form.get("cancel_url"),
            client_reference_id=form.get("client_reference_id"),
            created=now,
            currency=currency,
            customer=form.get("customer"),
            customer_creation=None if "customer" in form else form.get("customer_creation", "if_required"),
            customer_email=form.get("customer_email"),
            expires_at=now + 86_400,
            metadata=form.get("metadata", {}),
            mode=form["mode"],
            payment_status="unpaid" if is_payment else "no_payment_required",
            success_url=form["success_url"],
            url=f"https://checkout.stripe.com/c/pay/{name}",
        )
        session["customer_details"]["email"] = form.get("customer_email")
        if not is_payment:
            setup = payload(
                "setup_intent",
                id=self._id("seti_"),
                created=now,
                customer=form.get("customer"),
                metadata=form.get("setup_intent_data", {}).get("metadata", {}),
            )
            self.setups[setup["id"]] = setup
            session["setup_intent"] = setup["id"]
        self.sessions[name] = session
        self._asked[name] = form
        return session

    def create_refund(self, form: Json) -> Json:
        only_known(form, RefundCreateParams.__annotations__)
        intent = self._found("intents", "payment_intent", form["payment_intent"], "payment_intent")
        charge = self.charges.get(intent["latest_charge"] or "")
        if charge is None or intent["status"] != "succeeded":
            raise Refusal(
                400,
                f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.",
                code="payment_intent_unexpected_state",
            )
        left = charge["amount_captured"] - charge["amount_refunded"]
        amount = int(form.get("amount", left))
        if left == 0:
            raise Refusal(
                400,
                f"Charge {charge['id']} has already been refunded.",
                code="charge_already_refunded",
            )
        if amount > left:
            raise Refusal(
                400,
                f"Refund amount (${amount / 100}) is greater than unrefunded amount on charge",
                param="amount",
            )
        refund = payload(
            "refund",
            id=self._id("re_"),
            amount=amount,
            charge=charge["id"],
            created=self._now(),
            currency=intent["currency"],
            metadata=form.get("metadata", {}),
            payment_intent=intent["id"],
            payment_method=intent["payment_method"],
            status=self.refunds_begin_as,
        )
        self.refunds[refund["id"]] = refund
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount_captured"]
        self._tell("refund.created", refund)
        self._tell("charge.refunded", charge)
        return refund

    def create_intent(self, form: Json) -> Json:
        """A charge of a saved card, confirmed at once."""
        only_known(form, PaymentIntentCreateParams.__annotations__)
        customer = self._found("customers", "customer", form["customer"], "customer")["id"]
        method = self._found("methods", "PaymentMethod", form["payment_method"], "payment_method")
        if method["customer"] != customer:
            raise Refusal(
                400,
                f"The provided PaymentMethod ({method['id']}) does not belong to this customer.",
                code="payment_method_unexpected_state",
            )
        if int(form["amount"]) < LEAST:
            raise Refusal(400, "Amount must be at least $0.50 usd", code="amount_too_small", param="amount")
        assert (form["confirm"], form["off_session"]) == ("true", "true")
        intent = payload(
            "payment_intent",
            id=self._id("pi_"),
            amount=int(form["amount"]),
            created=self._now(),
            currency=form["currency"],
            customer=customer,
            description=form.get("description"),
            metadata=form.get("metadata", {}),
        )
        self.intents[intent["id"]] = intent
        self._tell("payment_intent.created", intent)
        if (declined := self.declines.get(method["id"])) is not None:
            self._decline(intent, *declined)
            # Stripe answers with the whole payment in the error, beside what the bank said.
            raise Refusal(
                402,
                "Your card was declined.",
                kind="card_error",
                **{k: v for k, v in intent["last_payment_error"].items() if k not in {"message", "type"}},
                payment_intent=copy.deepcopy(intent),
            )
        self._collect(intent, method)
        return intent

    def capture_intent(self, name: str) -> Json:
        intent = self.intent(name)
        if intent["status"] != "requires_capture":
            raise Refusal(
                400,
                f"This PaymentIntent could not be captured because it has a status of {intent['status']}.",
                code="payment_intent_unexpected_state",
            )
        charge = self.charges[intent["latest_charge"]]
        charge |= {"captured": True, "amount_captured": charge["amount"]}
        self._succeed(intent)
        return intent

    def detach_method(self, name: str) -> Json:
        method = self.method(name)
        if method["customer"] is None:
            raise Refusal(
                400,
                "The payment method you provided is not attached to a customer so detachment is impossible.",
            )
        previous, method["customer"] = method["customer"], None
        self._tell("payment_method.detached", method, {"customer": previous})
        return method

    def session(self, name: str) -> Json:
        return self._found("sessions", "checkout.session", name, "session")

    def intent(self, name: str) -> Json:
        return self._found("intents", "payment_intent", name, "intent")

    def method(self, name: str) -> Json:
        return self._found("methods", "PaymentMethod", name, "payment_method")

    def list_intents(self, form: Json) -> Json:
        only_known(form, PaymentIntentListParams.__annotations__)
        if (customer := form.get("customer")) is not None:
            self._found("customers", "customer", customer, "customer")
        items = [item for item in self.intents.values() if customer in {None, item["customer"]}]
        return page_of(items, form, "/v1/payment_intents")

    def list_refunds(self, form: Json) -> Json:
        only_known(form, RefundListParams.__annotations__)
        if (intent := form.get("payment_intent")) is not None:
            self._found("intents", "payment_intent", intent, "payment_intent")
        items = [item for item in self.refunds.values() if intent in {None, item["payment_intent"]}]
        return page_of(items, form, "/v1/refunds")

    def expanded(self, found: Json, paths: list[str]) -> Json:
        """A copy with the objects of these paths in their ids' places."""
        found = copy.deepcopy(found)
        for path in paths:
            self._expand(found, path.split("."))
        return found

    def _expand(self, found: Any, parts: list[str]) -> None:
        if isinstance(found, list):
            for item in found:
                self._expand(item, parts)
        elif isinstance(found, dict) and parts:
            name, *rest = parts
            if name not in found:
                raise Refusal(400, f"This property cannot be expanded ({name}).")
            if isinstance(found[name], str):
                found[name] = copy.deepcopy(getattr(self, _EXPANDABLE[name])[found[name]])
            self._expand(found[name], rest)

    # -- what payers, banks and Stripe do ----------------------------------------------------------------------------

    def pay(self, session_id: str) -> str:
        """A payer pays at the page; the PaymentIntent's id."""
        session, intent = self._tried(session_id)
        method = self._card(session, intent)
        self._collect(intent, method)
        self._complete(session, "paid")
        return str(intent["id"])

    def fail(
        self, session_id: str, code: str = "card_declined", decline_code: str | None = "insufficient_funds"
    ) -> str:
        """A payer's card is declined; the page stays open."""
        _session, intent = self._tried(session_id)
        self._decline(intent, code, decline_code)
        return str(intent["id"])

    def authorise(self, session_id: str) -> str:
        """The bank agrees and nothing is captured."""
        session, intent = self._tried(session_id)
        method = self._card(session, intent)
        charge = self._charge(intent, method["id"], captured=False, amount_captured=0)
        intent |= {
            "amount_capturable": intent["amount"],
            "capture_method": "manual",
            "last_payment_error": None,
            "latest_charge": charge["id"],
            "payment_method": method["id"],
            "status": "requires_capture",
        }
        self._tell("payment_intent.amount_capturable_updated", intent)
        self._complete(session, "unpaid")
        return str(intent["id"])

    def begin_slowly(self, session_id: str) -> str:
        """A payer pays by a bank debit, which takes days."""
        session, intent = self._tried(session_id)
        intent |= {"payment_method": self._card(session, intent)["id"], "status": "processing"}
        self._tell("payment_intent.processing", intent)
        self._complete(session, "unpaid")
        return str(intent["id"])

    def end_slowly(self, session_id: str, *, succeeds: bool = True) -> None:
        """The days are over."""
        session = self.sessions[session_id]
        intent = self.intents[session["payment_intent"]]
        if succeeds:
            self._collect(intent, self.methods[intent["payment_method"]])
            session["payment_status"] = "paid"
            self._tell("checkout.session.async_payment_succeeded", session)
        else:
            self._decline(intent, "payment_intent_payment_attempt_failed", None)
            self._tell("checkout.session.async_payment_failed", session)

    def keep(self, session_id: str) -> str:
        """A payer leaves a card at a page where nothing is paid; the PaymentMethod's id."""
        session = self.sessions[session_id]
        assert (session["mode"], session["status"]) == ("setup", "open")
        setup = self.setups[session["setup_intent"]]
        setup["customer"] = self._customer(session)
        method = self._attached(setup["customer"])
        setup |= {"payment_method": method["id"], "status": "succeeded"}
        self._tell("setup_intent.succeeded", setup)
        self._complete(session, "no_payment_required")
        return str(method["id"])

    def expire(self, session_id: str) -> None:
        """Nobody has paid for a day."""
        session = self.sessions[session_id]
        assert session["status"] == "open"
        session |= {"status": "expired", "url": None}
        self._tell("checkout.session.expired", session)

    def cancel(self, intent_id: str, reason: str = "abandoned") -> None:
        intent = self.intents[intent_id]
        intent |= {"status": "canceled", "cancellation_reason": reason, "canceled_at": self._now()}
        self._tell("payment_intent.canceled", intent)

    def finish_refund(self, refund_id: str, *, succeeds: bool = True) -> None:
        refund = self.refunds[refund_id]
        if succeeds:
            refund["status"] = "succeeded"
            self._tell("refund.updated", refund)
            return
        refund |= {"status": "failed", "failure_reason": "lost_or_stolen_card"}
        charge = self.charges[refund["charge"]]
        charge |= {"amount_refunded": charge["amount_refunded"] - refund["amount"], "refunded": False}
        self._tell("refund.failed", refund)

    def dispute(self, intent_id: str, outcome: str | None = None) -> str:
        """The payer's bank asks for the money back, and decides when there is an outcome: `won`, `lost`, `warning_closed`, …"""
        intent = self.intents[intent_id]
        charge = self.charges[intent["latest_charge"]]
        charge["disputed"] = True
        dispute = payload(
            "dispute",
            id=self._id("du_"),
            amount=charge["amount_captured"],
            charge=charge["id"],
            created=self._now(),
            currency=intent["currency"],
            payment_intent=intent_id,
        )
        self.disputes[dispute["id"]] = dispute
        self._tell("charge.dispute.created", dispute)
        self._tell("charge.dispute.funds_withdrawn", dispute)
        if outcome is not None:
            dispute["status"] = "under_review"
            self._tell("charge.dispute.updated", dispute)
            dispute["status"] = outcome
            self._tell("charge.dispute.closed", dispute)
            if outcome == "won":
                self._tell("charge.dispute.funds_reinstated", dispute)
        return str(dispute["id"])

    # -- how it comes about ------------------------------------------------------------------------------------------

    def _tried(self, session_id: str) -> tuple[Json, Json]:
        """The session and its payment, which is made at the first try."""
        session = self.sessions[session_id]
        assert (session["mode"], session["status"]) == ("payment", "open"), session["status"]
        if session["payment_intent"] is None:
            asked = self._asked[session_id].get("payment_intent_data", {})
            intent = payload(
                "payment_intent",
                id=self._id("pi_"),
                amount=session["amount_total"],
                created=self._now(),
                currency=session["currency"],
                customer=session["customer"],
                description=asked.get("description"),
                metadata=asked.get("metadata", {}),
                setup_future_usage=asked.get("setup_future_usage"),
            )
            self.intents[intent["id"]] = intent
            session["payment_intent"] = intent["id"]
            self._tell("payment_intent.created", intent)
        return session, self.intents[session["payment_intent"]]

    def _card(self, session: Json, intent: Json) -> Json:
        """A new card, kept for a customer if the session says so."""
        if session["customer_creation"] == "always":
            intent["customer"] = self._customer(session)
        kept_for = intent["customer"] if intent["setup_future_usage"] else None
        return self._attached(kept_for)

    def _customer(self, session: Json) -> str:
        if session["customer"] is None:
            customer = payload(
                "customer", id=self._id("cus_"), created=self._now(), email=session["customer_email"]
            )
            self.customers[customer["id"]] = customer
            session["customer"] = customer["id"]
            self._tell("customer.created", customer)
        return str(session["customer"])

    def _attached(self, customer: str | None) -> Json:
        method = payload("payment_method", id=self._id("pm_"), created=self._now(), customer=customer)
        self.methods[method["id"]] = method
        if customer is not None:
            self._tell("payment_method.attached", method)
        return method

    def _charge(self, intent: Json, method_id: str | None, **changes: Any) -> Json:
        charge = payload(
            "charge",
            id=self._id("ch_"),
            amount=intent["amount"],
            amount_captured=intent["amount"],
            created=self._now(),
            currency=intent["currency"],
            customer=intent["customer"],
            description=intent["description"],
            metadata=dict(intent["metadata"]),
            payment_intent=intent["id"],
            payment_method=method_id,
        )
        charge |= changes
        self.charges[charge["id"]] = charge
        return charge

    def _collect(self, intent: Json, method: Json) -> None:
        charge = self._charge(intent, method["id"])
        intent |= {"last_payment_error": None, "latest_charge": charge["id"], "payment_method": method["id"]}
        self._tell("charge.succeeded", charge)
        self._succeed(intent)

    def _succeed(self, intent: Json) -> None:
        intent |= {"amount_capturable": 0, "amount_received": intent["amount"], "status": "succeeded"}
        self._tell("payment_intent.succeeded", intent)

    def _decline(self, intent: Json, code: str, decline_code: str | None) -> None:
        charge = self._charge(
            intent,
            None,
            amount_captured=0,
            captured=False,
            failure_code=code,
            failure_message="Your card was declined.",
            paid=False,
            status="failed",
        )
        error = payload("card_error", charge=charge["id"], code=code, decline_code=decline_code)
        if decline_code is None:
            del error["decline_code"]
        intent |= {
            "last_payment_error": error,
            "latest_charge": charge["id"],
            "payment_method": None,
            "status": "requires_payment_method",
        }
        self._tell("charge.failed", charge)
        self._tell("payment_intent.payment_failed", intent)

    def _complete(self, session: Json, payment_status: str) -> None:
        session |= {"payment_status": payment_status, "status": "complete", "url": None}
        self._tell("checkout.session.completed", session)

    def _tell(self, kind: str, found: Json, previous: Mapping[str, Any] | None = None) -> None:
        event = payload("event", id=self._id("evt_"), created=self._now(), type=kind)
        event["data"] = {"object": found}
        if previous is not None:
            event["data"]["previous_attributes"] = previous
        # Stripe sends it indented, and as the object was at that moment.
        self.happened.append(json.dumps(event, indent=2))

    def _found(self, where: str, kind: str, name: str, param: str) -> Json:
        found: Json | None = getattr(self, where).get(name)
        if found is None:
            raise missing(kind, name, param)
        return found

    def _id(self, prefix: str) -> str:
        return f"{prefix}{next(self._numbers):024d}"

    def _now(self) -> int:
        return int(self.now_s())


def _priced(form: Json) -> tuple[int, str]:
    """What the session's one line costs."""
    (line,) = form["line_items"]
    price = line["price_data"]
    if not price["product_data"]["name"]:
        raise Refusal(400, "You passed an empty string for 'name'.", code="parameter_invalid_empty")
    amount = int(price["unit_amount"]) * int(line["quantity"])
    if amount < LEAST:
        raise Refusal(
            400,
            "The Checkout Session's total amount due must add up to at least $0.50 usd",
            code="amount_too_small",
        )
    return amount, price["currency"]
