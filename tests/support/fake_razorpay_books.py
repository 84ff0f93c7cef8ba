"""What a Razorpay keeps: orders, payments, refunds, tokens, disputes, and the events that it tells of them. No network here.

Objects have the full field set of the recorded payloads in `payloads/razorpay`. Events are signed by the rule that the `razorpay`
package checks.
"""

import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from razorpay.utility import Utility

PAYLOADS = Path(__file__).parent / "payloads" / "razorpay"
MIN_ORDER_PAISE = 100
_ORDER_FIELDS = {
    *("amount", "currency", "receipt", "unique_receipt", "notes", "payment", "payment_capture"),
    *("customer_id", "method", "token", "partial_payment"),
}
_REFUND_FIELDS = {"amount", "speed", "notes", "receipt"}
_KEY = re.compile(r"[A-Za-z0-9_-]{10,}")
_ALPHABET = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

Entity = dict[str, Any]


def recorded(name: str) -> Any:
    """A recorded payload."""
    return json.loads((PAYLOADS / f"{name}.json").read_text(encoding="utf-8"))


def recorded_entity(event: str, kind: str) -> Entity:
    """An object out of a recorded event."""
    found: Entity = recorded(event)["payload"][kind]["entity"]
    return found


class Refusal(Exception):
    """It will not: a 400 with a reason."""

    def __init__(self, reason: str, description: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status
        self.body = deepcopy(recorded("error"))
        self.body["error"] |= {"reason": reason, "description": description}


@dataclass(frozen=True, slots=True)
class Signed:
    """An event as it is delivered. Header names are in lower case."""

    body: bytes
    headers: dict[str, str]


def sign(message: str, secret: str) -> str:
    """Signed as the gateway signs, and found good by its own package."""
    signature = hmac.new(secret.encode(), message.encode(), hashlib.sha256).hexdigest()
    assert Utility().verify_signature(message, signature, secret)
    return signature


class Books:
    """One merchant's account."""

    def __init__(self, key_secret: str, webhook_secret: str, now_s: Callable[[], float] = time.time) -> None:
        self.key_secret = key_secret
        self.webhook_secret = webhook_secret
        self.now_s = now_s
        self.orders: dict[str, Entity] = {}
        self.payments: dict[str, Entity] = {}
        self.refunds: dict[str, Entity] = {}
        self.customers: dict[str, Entity] = {}
        self.tokens: dict[str, Entity] = {}
        self.disputes: dict[str, Entity] = {}
        self.events: list[Signed] = []
        #: Whether a known receipt with `unique_receipt` answers its order (as documented) or is refused, as some accounts do.
        self.repeats_receipts = True
        #: What a charge of a saved means of payment comes to: captured, created (its owner is told first), or the reason that it fails.
        self.charges_end = "captured"
        self._keys: dict[str, tuple[str, Mapping[str, Any], Entity]] = {}
        self._mandates: dict[str, Mapping[str, Any]] = {}
        self._numbers = count(1)

    # --- what merchants ask for ---

    def create_order(self, body: Mapping[str, Any]) -> Entity:
        unknown = body.keys() - _ORDER_FIELDS
        if unknown:
            raise Refusal("extra_field_sent", f"{min(unknown)} is/are not required and should not be sent")
        amount, receipt = body.get("amount"), body.get("receipt")
        if not isinstance(amount, int) or isinstance(amount, bool):
            raise Refusal("input_validation_failed", "The amount must be an integer.")
        if amount < MIN_ORDER_PAISE:
            raise Refusal("amount_less_than_minimum_amount", "Order amount less than minimum amount allowed")
        if body.get("currency") != "INR":
            raise Refusal("input_validation_failed", "Currency is not supported")
        if receipt is not None and (not isinstance(receipt, str) or len(receipt) > 40):
            raise Refusal("input_validation_failed", "The receipt may not be greater than 40 characters.")
        if body.get("unique_receipt"):
            known = next((order for order in self.orders.values() if order["receipt"] == receipt), None)
            if known is not None:
                if not self.repeats_receipts:
                    raise Refusal("input_validation_failed", "Order receipt should be unique.")
                return known
        order: Entity = recorded("order") | {
            "id": self._id("order"),
            "amount": amount,
            "amount_due": amount,
            "receipt": receipt,
            "notes": body.get("notes") or [],
            "created_at": self._now(),
        }
        if "token" in body:
            if body.get("customer_id") not in self.customers:
                raise Refusal("input_validation_failed", "The id provided does not exist")
            order |= {
                "customer_id": body["customer_id"],
                "method": body.get("method"),
                "token": dict(body["token"]),
            }
            self._mandates[order["id"]] = body
        self.orders[order["id"]] = order
        return order

    def capture(self, payment_id: str, body: Mapping[str, Any]) -> Entity:
        payment = self.payment(payment_id)
        if payment["status"] in {"captured", "refunded"}:
            raise Refusal("payment_already_captured", "This payment has already been captured")
        if payment["status"] != "authorized":
            raise Refusal(
                "input_validation_failed", "The payment status should be authorized for action to be taken"
            )
        if (body.get("amount"), body.get("currency", "INR")) != (payment["amount"], payment["currency"]):
            raise Refusal("input_validation_failed", "Capture amount must be equal to the amount authorized")
        self._capture(payment)
        return payment

    def refund(self, payment_id: str, body: Mapping[str, Any], key: str | None) -> Entity:
        if key is not None:
            if not _KEY.fullmatch(key):
                raise Refusal(
                    "input_validation_failed", "The idempotency key must be at least 10 characters."
                )
            if key in self._keys:
                known_payment, known_body, known = self._keys[key]
                if (known_payment, known_body) != (payment_id, body):
                    raise Refusal(
                        "NA", "Different request with the same idempotency key has already been processed."
                    )
                return known
        unknown = body.keys() - _REFUND_FIELDS
        if unknown:
            raise Refusal("extra_field_sent", f"{min(unknown)} is/are not required and should not be sent")
        payment = self.payment(payment_id)
        left = payment["amount"] - payment["amount_refunded"]
        amount = body.get("amount", left)
        if payment["status"] not in {"captured", "refunded"} or left == 0:
            raise Refusal("input_validation_failed", "The payment has been fully refunded already")
        if not isinstance(amount, int) or isinstance(amount, bool) or not 0 < amount <= left:
            raise Refusal(
                "input_validation_failed", "The total refund amount is greater than the refund payment amount"
            )
        refund = recorded_entity("refund.created", "refund") | {
            "id": self._id("rfnd"),
            "payment_id": payment_id,
            "amount": amount,
            "currency": payment["currency"],
            "notes": body.get("notes") or [],
            "receipt": body.get("receipt"),
            "created_at": self._now(),
        }
        self.refunds[refund["id"]] = refund
        self._count_refunded(payment, amount)
        if key is not None:
            self._keys[key] = (payment_id, dict(body), refund)
        self._tell("refund.created", refund=refund, payment=payment)
        return refund

    def create_customer(self, body: Mapping[str, Any]) -> Entity:
        email, contact = body.get("email"), body.get("contact")
        for customer in self.customers.values():
            if (customer["email"], customer["contact"]) == (email, contact):
                if str(body.get("fail_existing", "1")) != "0":
                    raise Refusal("input_validation_failed", "Customer already exists for the merchant")
                return customer
        name = body.get("name")
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9.'/@() ]{3,50}", name):
            raise Refusal("input_validation_failed", "The name format is invalid.")
        customer = recorded("customer") | {
            "id": self._id("cust"),
            "name": name,
            "email": email,
            "contact": contact,
            "created_at": self._now(),
        }
        self.customers[customer["id"]] = customer
        return customer

    def charge(self, body: Mapping[str, Any]) -> Entity:
        """A recurring payment; ids and a signature."""
        order = self.order(str(body.get("order_id")))
        token = self.token(str(body.get("customer_id")), str(body.get("token")))
        if not token["recurring"]:
            raise Refusal("input_validation_failed", "The token is not enabled for recurring payments")
        if not body.get("email") or not body.get("contact"):
            raise Refusal("input_validation_failed", "The contact field is required.")
        if (body.get("amount"), body.get("currency")) != (order["amount"], order["currency"]):
            raise Refusal(
                "input_validation_failed", "Your payment amount is different from your order amount."
            )
        self._may_be_paid(order)
        facts = {
            "email": body["email"],
            "contact": body["contact"],
            "customer_id": token["customer_id"],
            "token_id": token["id"],
            "notes": body.get("notes") or [],
        }
        if self.charges_end not in {"captured", "created"}:
            self._failed(order, self.charges_end, facts)
            raise Refusal(self.charges_end, "Your payment has been declined.")
        payment = self._new_payment(order, "created", facts)
        if self.charges_end == "captured":
            self._authorize(payment)
            self._capture(payment)
        return {
            "razorpay_payment_id": payment["id"],
            "razorpay_order_id": order["id"],
            "razorpay_signature": sign(f"{order['id']}|{payment['id']}", self.key_secret),
        }

    def delete_token(self, customer_id: str, token_id: str) -> Entity:
        del self.tokens[self.token(customer_id, token_id)["id"]]
        return {"deleted": True}

    def order(self, order_id: str) -> Entity:
        return self._known(self.orders, order_id)

    def payment(self, payment_id: str) -> Entity:
        return self._known(self.payments, payment_id)

    def token(self, customer_id: str, token_id: str) -> Entity:
        token = self._known(self.tokens, token_id)
        if token["customer_id"] != customer_id:
            raise Refusal("input_validation_failed", "The id provided does not exist")
        return token

    # --- what payers, banks and time do ---

    def pay(self, order_id: str, *, save_method: bool = False) -> dict[str, str]:
        """A payer pays the order; what Checkout hands to the page."""
        order = self.order(order_id)
        payment = self.begin(order_id, save_method=save_method)
        self._authorize(payment)
        self._capture(payment)
        return self.callback(order["id"], payment["id"])

    def begin(self, order_id: str, *, save_method: bool = False) -> Entity:
        """A payer has sent the form; the bank has not said anything."""
        order = self.order(order_id)
        self._may_be_paid(order)
        facts: Entity = {}
        if save_method:
            token = recorded("token") | {
                "id": self._id("token"),
                "customer_id": self._mandates[order_id]["customer_id"],
                "created_at": self._now(),
                "used_at": self._now(),
            }
            self.tokens[token["id"]] = token
            customer = self.customers[token["customer_id"]]
            # A payer tells Checkout the number.
            customer["contact"] = customer["contact"] or "+919900112233"
            facts = {"token_id": token["id"], "customer_id": token["customer_id"]}
        return self._new_payment(order, "created", facts)

    def authorize(self, order_id: str) -> str:
        """The bank agrees, too late for the gateway to capture by itself; the payment's id."""
        payment = self.begin(order_id)
        self._authorize(payment)
        return str(payment["id"])

    def fail(self, order_id: str, reason: str = "insufficient_funds") -> str:
        """A payer tries and fails; the payment's id."""
        return str(self._failed(self.order(order_id), reason, {})["id"])

    def authorize_late(self, payment_id: str, *, capture: bool = False) -> None:
        """What failed has been paid after all, says the bank."""
        payment = self.payment(payment_id)
        assert payment["status"] in {"failed", "created"}
        self._authorize(payment)
        if capture:
            self._capture(payment)

    def give_up(self, payment_id: str) -> None:
        """Nobody has captured it for days: the gateway sends it back by itself."""
        payment = self.payment(payment_id)
        assert payment["status"] == "authorized"
        payment |= {"status": "refunded", "amount_refunded": payment["amount"], "refund_status": "full"}
        refund = recorded_entity("refund.created", "refund") | {
            "id": self._id("rfnd"),
            "payment_id": payment_id,
            "amount": payment["amount"],
            "notes": [],
            "receipt": None,
            "status": "processed",
            "created_at": self._now(),
        }
        self.refunds[refund["id"]] = refund
        self._tell("refund.created", refund=refund, payment=payment)
        self._tell("refund.processed", refund=refund, payment=payment)

    def finish_refund(self, refund_id: str, *, succeeds: bool = True) -> None:
        refund = self._known(self.refunds, refund_id)
        payment = self.payment(refund["payment_id"])
        refund["status"] = "processed" if succeeds else "failed"
        if succeeds:
            refund["acquirer_data"] = {"arn": "74332744331330112345678"}
        else:
            self._count_refunded(payment, -refund["amount"])
        self._tell(f"refund.{refund['status']}", refund=refund, payment=payment)

    def dispute(self, payment_id: str, *, amount: int | None = None) -> str:
        """The payer's bank asks for the money back; the dispute's id."""
        payment = self.payment(payment_id)
        dispute = recorded_entity("payment.dispute.created", "dispute") | {
            "id": self._id("disp"),
            "payment_id": payment_id,
            "amount": amount or payment["amount"],
            "created_at": self._now(),
        }
        self.disputes[dispute["id"]] = dispute
        self._tell("payment.dispute.created", payment=payment, dispute=dispute)
        return str(dispute["id"])

    def move_dispute(self, dispute_id: str, step: str) -> None:
        """`under_review`, `action_required`, `won`, `lost` or `closed`."""
        dispute = self._known(self.disputes, dispute_id)
        dispute["status"] = "open" if step == "action_required" else step
        dispute["amount_deducted"] = dispute["amount"] if step == "lost" else 0
        self._tell(f"payment.dispute.{step}", payment=self.payment(dispute["payment_id"]), dispute=dispute)

    def move_token(self, token_id: str, step: str) -> None:
        """`confirmed`, `paused`, `cancelled` or `rejected`."""
        token = self._known(self.tokens, token_id)
        token["recurring_details"] = {"status": step, "failure_reason": None}
        self._tell(f"token.{step}", token=token)

    def callback(self, order_id: str, payment_id: str) -> dict[str, str]:
        """What Checkout hands to the page of a paid order."""
        return {
            "razorpay_order_id": order_id,
            "razorpay_payment_id": payment_id,
            "razorpay_signature": sign(f"{order_id}|{payment_id}", self.key_secret),
        }

    def signed(self, body: bytes, *, event_id: str | None = None) -> Signed:
        """Any body, signed as an event."""
        digest = hmac.new(self.webhook_secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json", "x-razorpay-signature": digest}
        return Signed(body, headers | {"x-razorpay-event-id": event_id or self._event_id()})

    # --- inside ---

    def _new_payment(self, order: Entity, status: str, facts: Mapping[str, Any]) -> Entity:
        payment = recorded_entity("payment.captured", "payment") | {
            "id": self._id("pay"),
            "amount": order["amount"],
            "base_amount": order["amount"],
            "order_id": order["id"],
            "status": status,
            "captured": False,
            "fee": None,
            "tax": None,
            "created_at": self._now(),
            **facts,
        }
        self.payments[payment["id"]] = payment
        order["attempts"] += 1
        order["status"] = "attempted"
        return payment

    def _failed(self, order: Entity, reason: str, facts: Mapping[str, Any]) -> Entity:
        self._may_be_paid(order)
        failure = recorded_entity("payment.failed", "payment")
        said = {name: failure[name] for name in failure if name.startswith("error_")}
        payment = self._new_payment(order, "failed", {**facts, **said, "error_reason": reason})
        self._tell("payment.failed", payment=payment)
        return payment

    def _authorize(self, payment: Entity) -> None:
        payment |= {name: None for name in payment if name.startswith("error_")}
        payment["status"] = "authorized"
        self._tell("payment.authorized", payment=payment)

    def _capture(self, payment: Entity) -> None:
        fee = payment["amount"] * 236 // 10_000
        payment |= {"status": "captured", "captured": True, "fee": fee, "tax": fee * 18 // 118}
        order = self.orders[payment["order_id"]]
        order |= {"status": "paid", "amount_paid": order["amount"], "amount_due": 0}
        self._tell("payment.captured", payment=payment)
        self._tell("order.paid", payment=payment, order=order)

    def _count_refunded(self, payment: Entity, amount: int) -> None:
        refunded = payment["amount_refunded"] + amount
        whole = refunded == payment["amount"]
        payment["amount_refunded"] = refunded
        payment["refund_status"] = "full" if whole else "partial" if refunded else None
        payment["status"] = "refunded" if whole else "captured"

    def _may_be_paid(self, order: Entity) -> None:
        if order["status"] == "paid":
            raise Refusal("order_already_paid", "Order already paid")
        for payment in self.payments.values():
            if payment["order_id"] == order["id"] and payment["status"] == "authorized":
                raise Refusal("order_already_paid", "A payment of this order is authorized")

    def _tell(self, event: str, **parts: Entity) -> None:
        body = {
            "entity": "event",
            "account_id": "acc_Q1b2C3d4E5f6G7",
            "event": event,
            "contains": list(parts),
            "payload": {kind: {"entity": part} for kind, part in parts.items()},
            "created_at": self._now(),
        }
        # A snapshot, escaped as PHP does it.
        text = json.dumps(body, separators=(",", ":")).replace("/", "\\/")
        self.events.append(self.signed(text.encode()))

    def _known(self, things: Mapping[str, Entity], thing_id: str) -> Entity:
        if thing_id not in things:
            raise Refusal("input_validation_failed", "The id provided does not exist")
        return things[thing_id]

    def _now(self) -> int:
        return int(self.now_s())

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._characters()}"

    def _event_id(self) -> str:
        return self._characters()

    def _characters(self) -> str:
        """Fourteen, as the gateway's are: eight of this account, so that two fakes share none, and a number."""
        number, digits = next(self._numbers), ""
        for _ in range(6):
            number, digit = divmod(number, len(_ALPHABET))
            digits = _ALPHABET[digit] + digits
        account = hashlib.sha256(f"{self.webhook_secret}:{id(self)}".encode()).hexdigest()[:8]
        return account + digits
