"""The payment desk over HTTP: what admins see and send back, what the payer is shown, and who hears of it (SPEC 3, 11, 14)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.storage.repositories.notices import NOTICES
from server.storage.sqlite.tables import table_of
from tests.support.api import Api, Person, open_api
from tests.support.http import Answer


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path, access_token_minutes=1_440) as api:
        yield api
        await api.books_are_clean()


async def a_payment(user: Person, amount: str = "500.00") -> str:
    return str((await user.recharge(amount)).json["paymentId"])


async def refund(
    admin: Person, payment_id: str, amount: Any, reason: str = "Paid twice.", **more: Any
) -> Answer:
    body = {"amount": amount, "reason": reason}
    return await admin.post(f"/admin/payments/{payment_id}/refund", body, **more)


async def balance(user: Person) -> tuple[str, str]:
    found = (await user.get("/wallet/balance")).json
    return found["walletBalance"], found["held"]


async def test_a_refund_takes_the_money_out_of_the_wallet_and_is_shown_everywhere(api: Api) -> None:
    user, admin = await api.a_user(), await api.admin()
    payment_id = await a_payment(user)
    await api.advance(1)
    answer = await refund(admin, payment_id, "200.00")
    assert answer.status == 201
    made = answer.json
    assert made | {"refundId": "", "createdAt": "", "gatewayRefundId": ""} == {
        "refundId": "",
        "paymentId": payment_id,
        "amount": "200.00",
        "currency": "INR",
        "status": "DONE",
        "reason": "Paid twice.",
        "failure": None,
        "gatewayRefundId": "",
        "requestedBy": admin.id,
        "createdAt": "",
    }
    assert await balance(user) == ("300.00", "0.00")
    row = (await user.get("/wallet/transactions")).json["items"][0]
    assert (row["kind"], row["type"], row["amount"]) == ("PAYER_REFUND", "DEBIT", "200.00")
    assert row["referenceId"] == made["refundId"]
    assert (row["balanceBefore"], row["balanceAfter"]) == ("500.00", "300.00")
    shown = (await user.get(f"/payments/{payment_id}")).json
    assert (shown["status"], shown["refundedAmount"]) == ("PAID", "200.00")

    detail = (await admin.get(f"/admin/payments/{payment_id}")).json
    assert (detail["userId"], detail["refundableAmount"], detail["gateway"]) == (
        user.id,
        "300.00",
        "simulated",
    )
    assert [one["refundId"] for one in detail["refunds"]] == [made["refundId"]]
    assert detail["disputes"] == []

    assert (await refund(admin, payment_id, "300.00")).status == 201
    shown = (await user.get(f"/payments/{payment_id}")).json
    assert (shown["status"], shown["refundedAmount"]) == ("REFUNDED", "500.00")
    assert await balance(user) == ("0.00", "0.00")


async def test_more_than_is_left_of_a_payment_is_not_refunded(api: Api) -> None:
    user, admin = await api.a_user("1000.00"), await api.admin()
    payment_id = await a_payment(user)
    assert (await refund(admin, payment_id, "400.00")).status == 201
    over = await refund(admin, payment_id, "100.01")
    assert (over.status, over.code) == (409, "REFUND_EXCEEDS_PAYMENT")
    assert (over.json["required"], over.json["available"]) == ("100.01", "100.00")
    assert await balance(user) == ("1100.00", "0.00")


async def test_what_the_payer_has_spent_is_not_refunded(api: Api) -> None:
    user, admin = await api.a_user(), await api.admin()
    lawyer = await api.a_lawyer()
    payment_id = await a_payment(user)
    session_id = await user.start(lawyer.id)
    await api.advance(100)
    await user.end(session_id)
    short = await refund(admin, payment_id, "500.00", key="k")
    assert (short.status, short.code) == (402, "INSUFFICIENT_BALANCE")
    assert (short.json["required"], short.json["available"]) == ("500.00", "400.00")
    assert await balance(user) == ("400.00", "0.00")
    assert (await user.get(f"/payments/{payment_id}")).json["refundedAmount"] == "0.00"
    detail = (await admin.get(f"/admin/payments/{payment_id}")).json
    assert [(one["status"], one["failure"]) for one in detail["refunds"]] == [
        ("FAILED", "INSUFFICIENT_BALANCE")
    ]
    await user.recharge("100.00")
    assert (await refund(admin, payment_id, "500.00", key="k")).json["status"] == "DONE"


async def test_a_refund_while_a_consultation_runs_takes_only_what_is_not_set_aside_for_it(api: Api) -> None:
    user, admin = await api.a_user(), await api.admin()
    lawyer = await api.a_lawyer()
    payment_id = await a_payment(user)
    session_id = await user.start(lawyer.id)
    spendable, held = await balance(user)
    assert (await refund(admin, payment_id, "500.00")).status == 402
    assert (await refund(admin, payment_id, spendable)).status == 201
    assert await balance(user) == ("0.00", held)
    await api.advance(400)
    ended = (await user.get(f"/consult/{session_id}")).json
    assert (ended["status"], ended["endReason"], ended["totalAmount"]) == (
        "FORCE_ENDED",
        "WALLET_EMPTY",
        held,
    )


async def test_a_repeated_refund_is_one(api: Api) -> None:
    user, admin = await api.a_user(), await api.admin()
    payment_id = await a_payment(user)
    first = await refund(admin, payment_id, "100.00", key="k1")
    again = await refund(admin, payment_id, "100.00", key="k1")
    assert (again.status, again.json) == (201, first.json)
    assert (await refund(admin, payment_id, "101.00", key="k1")).code == "IDEMPOTENCY_KEY_REUSED"
    assert await balance(user) == ("400.00", "0.00")


async def test_of_many_refunds_at_once_only_what_was_paid_goes_back(api: Api) -> None:
    user, admin = await api.a_user("1000.00"), await api.admin()
    payment_id = await a_payment(user)
    answers = await asyncio.gather(*(refund(admin, payment_id, "100.00") for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [201] * 5 + [409] * 15
    assert await balance(user) == ("1000.00", "0.00")


async def test_bad_amounts_and_strange_payments(api: Api) -> None:
    user, admin = await api.a_user(), await api.admin()
    payment_id = await a_payment(user)
    nothing = await refund(admin, payment_id, "0")
    assert (nothing.status, nothing.json["errors"]) == (
        422,
        [{"field": "amount", "problem": "must be more than nothing"}],
    )
    assert (await refund(admin, payment_id, "1.001")).status == 422
    assert (await refund(admin, payment_id, "1.00", reason=" ")).status == 422
    assert (await refund(admin, "unknown", "1.00")).code == "PAYMENT_NOT_FOUND"
    assert (await admin.get("/admin/payments/unknown")).status == 404


async def test_the_list_finds_by_status_and_user_and_pages(api: Api) -> None:
    user, other, admin = await api.a_user(), await api.a_user(), await api.admin()
    first, second = await a_payment(user), await a_payment(user)
    theirs = await a_payment(other)
    assert (await refund(admin, first, "500.00")).status == 201

    async def ids(query: str) -> list[str]:
        found = (await admin.get(f"/admin/payments{query}")).json
        return [one["paymentId"] for one in found["items"]]

    assert await ids("") == [theirs, second, first]
    assert await ids(f"?userId={user.id}") == [second, first]
    assert await ids("?status=REFUNDED") == [first]
    assert await ids(f"?status=PAID&userId={user.id}") == [second]
    assert await ids("?status=PENDING") == []
    assert (await admin.get("/admin/payments?status=COLLECTED")).status == 422
    page = (await admin.get("/admin/payments?limit=2")).json
    rest = (await admin.get(f"/admin/payments?limit=2&cursor={page['nextCursor']}")).json
    assert [one["paymentId"] for one in (*page["items"], *rest["items"])] == [theirs, second, first]
    assert rest["nextCursor"] is None


async def test_a_refund_is_in_the_audit_log(api: Api) -> None:
    user, admin = await api.a_user(), await api.admin()
    payment_id = await a_payment(user)
    await refund(admin, payment_id, "200.00", reason="Asked for.")
    (row,) = (await admin.get("/admin/audit?action=payment.refund")).json["items"]
    assert (row["adminId"], row["subject"], row["reason"]) == (admin.id, payment_id, "Asked for.")
    assert (row["before"]["refundedAmount"], row["after"]["refundedAmount"]) == ("0.00", "200.00")


async def test_the_payer_is_told(api: Api) -> None:
    user, admin = await api.a_user(), await api.admin()
    payment_id = await a_payment(user)
    await refund(admin, payment_id, "200.00")
    await api.idle()
    (told,) = (row for row in api.everything()[table_of(NOTICES)] if "PAYMENT_REFUNDED" in str(row))
    assert user.id in str(told)
