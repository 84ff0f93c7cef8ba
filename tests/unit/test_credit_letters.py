"""What buyers of credits are told: the receipt, and nothing of a wallet that they do not have."""

from types import SimpleNamespace
from typing import Any

import pytest

from server.notifications.model import Kind
from server.notifications.payment_letters import BOUGHT_CREDITS, payment_letter

ACCOUNT: Any = SimpleNamespace(name="Ravi")
FACTS = {"amount": "1250.00", "currency": "INR", "paymentId": "p1", "refundId": "r1", "failure": ""}


@pytest.mark.parametrize(
    "kind", [Kind.PAYMENT_REFUNDED, Kind.PAYMENT_REFUND_RETURNED, Kind.DISPUTE_WON, Kind.DISPUTE_LOST]
)
def test_money_that_went_back_is_in_no_wallet_where_credits_were_bought(kind: Kind) -> None:
    _, text = payment_letter(kind, ACCOUNT, FACTS | {BOUGHT_CREDITS: True})
    assert "1250.00 INR" in text
    assert "p1" in text
    assert "wallet" not in text
    assert "wallet" in payment_letter(kind, ACCOUNT, FACTS)[1]


def test_a_receipt_says_what_was_bought_and_what_is_there() -> None:
    facts = FACTS | {"credits": 25, "package": "Pro", "creditsBalance": 30}
    subject, text = payment_letter(Kind.CREDITS_PURCHASED, ACCOUNT, facts)
    assert subject == "Your receipt for application credits"
    assert "25 application credits (Pro) for 1250.00 INR" in text
    assert "30 credits" in text
