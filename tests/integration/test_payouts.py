"""Payouts over HTTP: what a lawyer may ask for, who decides it, and what everybody is shown (SPEC 4, 11)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Api, Person, open_api
from tests.support.http import Answer


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path, commission_percent="10", access_token_minutes=1_440) as api:
        yield api
        await api.books_are_clean()


async def a_lawyer_with(api: Api, seconds: int) -> Person:
    """A lawyer who has served so many seconds at a rupee each, of which 0.90 are theirs."""
    user, lawyer = await api.a_user("5000.00"), await api.a_lawyer()
    session_id = await user.start(lawyer.id)
    await api.advance(seconds)
    await user.end(session_id)
    return lawyer


async def ask(lawyer: Person, amount: str, **more: Any) -> Answer:
    return await lawyer.post("/lawyer/payouts", {"amount": amount}, **more)


async def available(lawyer: Person) -> str:
    return str((await lawyer.get("/lawyer/earnings/summary")).json["available"])


async def paid(api: Api, payout_id: str, reference: str = "UTR 1", **more: Any) -> Answer:
    admin = await api.admin()
    return await admin.post(f"/admin/payouts/{payout_id}/paid", {"reference": reference}, **more)


async def failed(api: Api, payout_id: str, reason: str = "The account is closed.") -> Answer:
    return await (await api.admin()).post(f"/admin/payouts/{payout_id}/failed", {"reason": reason})


async def test_a_request_sets_earnings_aside_and_paying_takes_them(api: Api) -> None:
    lawyer = await a_lawyer_with(api, 500)
    assert await available(lawyer) == "450.00"

    asked = await ask(lawyer, "300.00")
    assert asked.status == 201
    payout = asked.json
    assert payout | {"id": "", "createdAt": ""} == {
        "id": "",
        "amount": "300.00",
        "currency": "INR",
        "status": "REQUESTED",
        "createdAt": "",
        "decidedAt": None,
        "reference": None,
        "reason": None,
    }
    assert await available(lawyer) == "150.00"
    await api.books_are_clean()

    done = await paid(api, payout["id"], "UTR 77")
    assert (done.status, done.json["status"], done.json["reference"]) == (200, "PAID", "UTR 77")
    summary = (await lawyer.get("/lawyer/earnings/summary")).json
    assert (summary["available"], summary["totalEarnings"]) == ("150.00", "450.00"), (
        "a payout lowers available only"
    )
    shown = (await lawyer.get("/lawyer/payouts")).json["items"]
    assert [(one["id"], one["status"], one["reference"]) for one in shown] == [
        (payout["id"], "PAID", "UTR 77")
    ]


async def test_a_failed_payout_gives_the_earnings_back(api: Api) -> None:
    lawyer = await a_lawyer_with(api, 500)
    payout = (await ask(lawyer, "450.00")).json
    assert await available(lawyer) == "0.00"
    done = await failed(api, payout["id"])
    assert (done.json["status"], done.json["reason"]) == ("FAILED", "The account is closed.")
    assert await available(lawyer) == "450.00"
    assert (await ask(lawyer, "450.00")).status == 201


async def test_more_than_there_is_is_not_paid_out(api: Api) -> None:
    lawyer = await a_lawyer_with(api, 500)
    short = await ask(lawyer, "450.01")
    assert (short.status, short.code) == (402, "INSUFFICIENT_BALANCE")
    assert (short.json["required"], short.json["available"]) == ("450.01", "450.00")
    small = await ask(lawyer, "99.99")
    assert (small.status, small.json["errors"]) == (
        422,
        [{"field": "amount", "problem": "must be at least 100.00"}],
    )
    assert (await lawyer.get("/lawyer/payouts")).json["items"] == []


async def test_a_repeated_request_sets_nothing_aside_again(api: Api) -> None:
    lawyer = await a_lawyer_with(api, 500)
    first = await ask(lawyer, "200.00", key="k1")
    again = await ask(lawyer, "200.00", key="k1")
    assert (again.status, again.json) == (201, first.json)
    assert await available(lawyer) == "250.00"
    assert (await ask(lawyer, "201.00", key="k1")).code == "IDEMPOTENCY_KEY_REUSED"


async def test_the_first_decision_stands(api: Api) -> None:
    lawyer = await a_lawyer_with(api, 500)
    one, other = (await ask(lawyer, "100.00")).json["id"], (await ask(lawyer, "100.00")).json["id"]
    first = await paid(api, one, "UTR 1")
    again = await paid(api, one, "UTR 2")
    assert again.json == first.json
    assert ((await failed(api, one)).status, (await failed(api, one)).code) == (409, "PAYOUT_DECIDED")
    assert (await failed(api, other, "No account.")).json == (
        await failed(api, other, "Another reason.")
    ).json
    assert (await paid(api, other)).code == "PAYOUT_DECIDED"
    assert (await paid(api, "unknown")).status == 404


async def test_whoever_races_one_decision_wins(api: Api) -> None:
    lawyer = await a_lawyer_with(api, 500)
    for _ in range(4):
        payout_id = (await ask(lawyer, "100.00")).json["id"]
        answers = await asyncio.gather(
            *(
                paid(api, payout_id, f"UTR {n}") if n % 2 else failed(api, payout_id, f"No {n}.")
                for n in range(8)
            )
        )
        won = {answer.text for answer in answers if answer.status == 200}
        assert len(won) == 1
        assert all(answer.code == "PAYOUT_DECIDED" for answer in answers if answer.status != 200)


async def test_many_requests_at_once_never_take_more_than_there_is(api: Api) -> None:
    lawyer = await a_lawyer_with(api, 500)
    answers = await asyncio.gather(*(ask(lawyer, "100.00") for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [201] * 4 + [402] * 16
    assert await available(lawyer) == "50.00"


async def test_the_queue_is_oldest_first_and_says_what_is_open(api: Api) -> None:
    lawyer = await a_lawyer_with(api, 1000)
    ids = []
    for amount in ("100.00", "150.00", "200.50"):
        ids.append((await ask(lawyer, amount)).json["id"])
        await api.advance(1)
    admin = await api.admin()
    shown = (await admin.get("/admin/payouts?status=REQUESTED&limit=2")).json
    assert [one["id"] for one in shown["items"]] == ids[:2]
    assert shown["open"] == {"amount": "450.50", "count": 3, "currency": "INR"}
    rest = (await admin.get(f"/admin/payouts?status=REQUESTED&limit=2&cursor={shown['nextCursor']}")).json
    assert ([one["id"] for one in rest["items"]], rest["nextCursor"]) == (ids[2:], None)
    await paid(api, ids[0])
    await failed(api, ids[1])
    everything = (await admin.get("/admin/payouts")).json
    assert [(one["id"], one["status"]) for one in everything["items"]] == [
        (ids[2], "REQUESTED"),
        (ids[1], "FAILED"),
        (ids[0], "PAID"),
    ]
    assert everything["items"][0]["lawyerId"] == lawyer.id
    assert everything["open"] == {"amount": "200.50", "count": 1, "currency": "INR"}
    assert [one["id"] for one in (await admin.get("/admin/payouts?status=PAID")).json["items"]] == ids[:1]


async def test_nobody_sees_another_lawyers_payouts(api: Api) -> None:
    lawyer, other = await a_lawyer_with(api, 500), await a_lawyer_with(api, 500)
    await ask(lawyer, "100.00")
    assert (await other.get("/lawyer/payouts")).json["items"] == []


async def test_the_lawyer_is_told(api: Api) -> None:
    lawyer = await a_lawyer_with(api, 500)
    one, other = (await ask(lawyer, "100.00")).json["id"], (await ask(lawyer, "100.00")).json["id"]
    await paid(api, one)
    await paid(api, one)
    await failed(api, other)
    kinds = [(row[0], row[1]) for row in api.db.read(lambda c: c.execute(
        "SELECT _id, kind FROM c_notices WHERE user_id = ? ORDER BY kind", (lawyer.id,)).fetchall())]  # fmt: skip
    assert kinds == [(f"payout:{other}", "PAYOUT_FAILED"), (f"payout:{one}", "PAYOUT_PAID")]


async def test_an_admin_sees_what_is_set_aside_and_the_audit_log_who_decided(api: Api) -> None:
    lawyer = await a_lawyer_with(api, 500)
    payout_id = (await ask(lawyer, "100.00")).json["id"]
    admin = await api.admin()
    wallet = (await admin.get(f"/admin/users/{lawyer.id}/wallet")).json
    assert [(hold["payoutId"], hold["sessionId"], hold["amount"]) for hold in wallet["holds"]] == [
        (payout_id, None, "100.00")
    ]
    await api.advance(1)
    await paid(api, payout_id, "UTR 9")
    acts = (await admin.get(f"/admin/audit?subject={payout_id}")).json["items"]
    assert [(act["action"], act["before"]["status"], act["after"]["status"]) for act in acts] == [
        ("payout.paid", "REQUESTED", "PAID")
    ]
    assert acts[0]["asked"] == {"reference": "UTR 9"}
    ledger = (await admin.get(f"/admin/users/{lawyer.id}/ledger")).json["items"]
    assert [(one["kind"], one["change"]) for one in ledger][:1] == [("payout", "-100.00")]


async def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        lawyer = await a_lawyer_with(api, 500)
        payout_id = (await ask(lawyer, "500.00")).json["id"]
        email = lawyer.email
    async with open_api(tmp_path) as api:
        lawyer = await api.log_in(email)
        assert await available(lawyer) == "0.00"
        assert (await paid(api, payout_id)).json["status"] == "PAID"
        await api.books_are_clean()
