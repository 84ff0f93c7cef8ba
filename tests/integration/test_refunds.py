"""Refunds to the wallet over HTTP: who pays which share, what everybody is shown, and the users' requests (SPEC 4, 11, 14)."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Api, Person, open_api
from tests.support.http import Answer


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(
        tmp_path, commission_percent="12.5", access_token_minutes=1_440, payout_min="1.00"
    ) as api:
        yield api
        await api.books_are_clean()


@dataclass
class Served:
    """A consultation that has ended: 67.00, of which 8.37 are commission and 58.63 the lawyer's."""

    user: Person
    lawyer: Person
    id: str


async def served(
    api: Api, *, user: Person | None = None, lawyer: Person | None = None, s: int = 67
) -> Served:
    user, lawyer = user or await api.a_user("500.00"), lawyer or await api.a_lawyer()
    session_id = await user.start(lawyer.id)
    await api.advance(s)
    await user.end(session_id)
    return Served(user, lawyer, session_id)


async def give_back(api: Api, session_id: str, amount: str, reason: str = "Bad line.", **more: Any) -> Answer:
    body = {"amount": amount, "reason": reason}
    return await (await api.admin()).post(f"/admin/consult/{session_id}/refund", body, **more)


async def summary(lawyer: Person) -> dict[str, Any]:
    return dict((await lawyer.get("/lawyer/earnings/summary")).json)


async def balance(user: Person) -> str:
    return str((await user.get("/wallet/balance")).json["walletBalance"])


async def decide(api: Api, request_id: str, verb: str, body: dict[str, Any] | None = None) -> Answer:
    return await (await api.admin()).post(f"/admin/refund-requests/{request_id}/{verb}", body or {})


async def test_a_refund_takes_from_lawyer_and_platform_in_proportion(api: Api) -> None:
    one = await served(api)
    assert await balance(one.user) == "433.00"
    done = await give_back(api, one.id, "20.00")
    assert done.status == 201
    assert done.json | {"id": "", "createdAt": ""} == {
        "id": "",
        "sessionId": one.id,
        "amount": "20.00",
        "lawyerShare": "17.51",
        "commissionShare": "2.49",
        "currency": "INR",
        "reason": "Bad line.",
        "totalAmount": "67.00",
        "refundedAmount": "20.00",
        "createdAt": "",
    }
    assert await balance(one.user) == "453.00"
    shown = await summary(one.lawyer)
    assert (shown["totalEarnings"], shown["todayEarnings"], shown["monthEarnings"]) == ("41.12",) * 3
    assert (shown["available"], shown["receivable"], shown["totalSessions"]) == ("41.12", "0.00", 1)


async def test_a_whole_refund_in_parts_gives_exactly_everything_back(api: Api) -> None:
    one = await served(api)
    shares = []
    for amount in ("0.01", "33.33", "0.02", "33.64"):
        done = (await give_back(api, one.id, amount)).json
        shares.append((Decimal(done["lawyerShare"]), Decimal(done["commissionShare"])))
    assert [sum(column) for column in zip(*shares, strict=True)] == [Decimal("58.63"), Decimal("8.37")]
    assert await balance(one.user) == "500.00"
    assert (await summary(one.lawyer))["totalEarnings"] == "0.00"
    revenue = (await (await api.admin()).get("/admin/revenue")).json["total"]
    assert {
        name: revenue[name] for name in ("gross", "commission", "net", "refunded", "refunds", "sessions")
    } == {
        "gross": "0.00",
        "commission": "0.00",
        "net": "0.00",
        "refunded": "67.00",
        "refunds": 4,
        "sessions": 1,
    }
    more = await give_back(api, one.id, "0.01")
    assert (more.status, more.code, more.json["available"]) == (409, "REFUND_TOO_LARGE", "0.00")


async def test_a_share_of_nothing_moves_nothing(api: Api) -> None:
    """Every transfer is positive: the lawyer's paisa alone, then the platform's alone."""
    one = await served(api)
    parts = [(await give_back(api, one.id, "0.01")).json for _ in range(9)]
    assert {(part["lawyerShare"], part["commissionShare"]) for part in parts} == {
        ("0.01", "0.00"),
        ("0.00", "0.01"),
    }


@pytest.mark.parametrize(("percent", "lawyer_share"), [("0", "10.00"), ("100", "0.00")])
async def test_whoever_earned_all_gives_all_back(tmp_path: Path, percent: str, lawyer_share: str) -> None:
    async with open_api(tmp_path, commission_percent=percent) as api:
        one = await served(api, s=10)
        assert (await give_back(api, one.id, "10.00")).json["lawyerShare"] == lawyer_share
        assert await balance(one.user) == "500.00"
        await api.books_are_clean()


async def test_more_than_was_paid_is_never_given_back(api: Api) -> None:
    one = await served(api)
    assert (await give_back(api, one.id, "67.01")).code == "REFUND_TOO_LARGE"
    await give_back(api, one.id, "60.00")
    too_much = await give_back(api, one.id, "7.01")
    assert (too_much.code, too_much.json["available"]) == ("REFUND_TOO_LARGE", "7.00")
    for amount in ("0", "0.00"):
        nothing = await give_back(api, one.id, amount)
        assert (nothing.status, nothing.json["errors"][0]["field"]) == (422, "amount")
    assert (await give_back(api, "unknown", "1.00")).status == 404


async def test_only_what_has_ended_is_given_back(api: Api) -> None:
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    running = await user.start(lawyer.id)
    await api.advance(10)
    assert (await give_back(api, running, "1.00")).code == "SESSION_NOT_ENDED"
    assert (
        await user.post(f"/consult/{running}/refund-request", {"reason": "Bad line."})
    ).code == "SESSION_NOT_ENDED"
    await user.end(running)


async def test_a_repeated_refund_gives_nothing_back_again(api: Api) -> None:
    one = await served(api)
    first = await give_back(api, one.id, "20.00", key="k1")
    await give_back(api, one.id, "5.00", key="k2")
    again = await give_back(api, one.id, "20.00", key="k1")
    assert again.json == first.json
    assert await balance(one.user) == "458.00"
    assert (await give_back(api, one.id, "21.00", key="k1")).code == "IDEMPOTENCY_KEY_REUSED"


async def test_everybody_is_shown_what_was_given_back(api: Api) -> None:
    one = await served(api)
    await api.advance(1)
    refund = (await give_back(api, one.id, "20.00")).json
    newest = (await one.user.get("/wallet/transactions")).json["items"][0]
    assert newest | {"createdAt": ""} == {
        "id": f"refund:{refund['id']}",
        "type": "CREDIT",
        "kind": "CONSULTATION_REFUND",
        "amount": "20.00",
        "currency": "INR",
        "balanceBefore": "433.00",
        "balanceAfter": "453.00",
        "referenceId": one.id,
        "status": "COMPLETED",
        "createdAt": "",
    }
    for person in (one.user, one.lawyer, await api.admin()):
        shown = (await person.get(f"/consult/{one.id}")).json
        assert (shown["totalAmount"], shown["refundedAmount"]) == ("67.00", "20.00")
    assert (await one.user.get("/consult")).json["items"][0]["refundedAmount"] == "20.00"
    admins = (await (await api.admin()).get(f"/admin/sessions/{one.id}")).json
    assert (admins["refundedAmount"], admins["lawyerNet"]) == ("20.00", "58.63")
    rows = (await one.lawyer.get("/lawyer/earnings")).json["items"]
    assert [(row["gross"], row["commission"], row["net"], row["refunded"]) for row in rows] == [
        ("67.00", "8.37", "58.63", "17.51")
    ]
    acts = (await (await api.admin()).get(f"/admin/audit?subject={one.id}")).json["items"]
    assert [
        (act["action"], act["reason"], act["before"]["refundedAmount"], act["after"]["refundedAmount"])
        for act in acts
    ] == [("session.refund", "Bad line.", "0.00", "20.00")]


async def test_a_refund_extends_the_users_running_session_at_once(api: Api) -> None:
    one = await served(api, user=await api.a_user("130.00"))
    running = await one.user.start((await api.a_lawyer()).id)
    await api.advance(60)
    shown = (await one.user.get(f"/consult/{running}")).json
    assert (shown["status"], shown["remainingSeconds"]) == ("ACTIVE", 3)
    socket = await api.connect(one.user.token)
    await give_back(api, one.id, "20.00")
    # Not at the next tick, and not when the money would have ended: now.
    (told,) = await socket.hears("session:recharged")
    assert (told["sessionId"], told["remainingSeconds"], told["walletBalance"]) == (running, 23, "10.00")
    assert (await one.user.get(f"/consult/{running}")).json["remainingSeconds"] == 23
    await api.advance(22)
    assert (await one.user.get(f"/consult/{running}")).json["status"] == "ACTIVE"
    await api.advance(2)
    ended = (await one.user.get(f"/consult/{running}")).json
    assert (ended["endReason"], ended["totalAmount"]) == ("WALLET_EMPTY", "83.00")


async def test_after_a_payout_it_is_a_receivable_that_later_earnings_repay(api: Api) -> None:
    one = await served(api)
    payout = (await one.lawyer.post("/lawyer/payouts", {"amount": "58.63"})).json
    assert (
        await (await api.admin()).post(f"/admin/payouts/{payout['id']}/paid", {"reference": "U"})
    ).status == 200
    await give_back(api, one.id, "67.00")
    owing = await summary(one.lawyer)
    assert (owing["available"], owing["receivable"], owing["totalEarnings"]) == ("0.00", "58.63", "0.00")
    assert (await one.lawyer.post("/lawyer/payouts", {"amount": "1.00"})).status == 402
    await served(api, lawyer=one.lawyer, s=40)
    owing = await summary(one.lawyer)
    assert (owing["available"], owing["receivable"], owing["totalEarnings"]) == ("0.00", "23.63", "35.00")
    await served(api, lawyer=one.lawyer, s=40)
    owing = await summary(one.lawyer)
    assert (owing["available"], owing["receivable"], owing["totalEarnings"]) == ("11.37", "0.00", "70.00")


async def test_a_refund_while_a_payout_is_open_leaves_it_open(api: Api) -> None:
    one = await served(api)
    payout = (await one.lawyer.post("/lawyer/payouts", {"amount": "50.00"})).json
    await give_back(api, one.id, "67.00")
    owing = await summary(one.lawyer)
    assert (owing["available"], owing["receivable"]) == ("0.00", "50.00")
    await api.books_are_clean()
    await (await api.admin()).post(f"/admin/payouts/{payout['id']}/failed", {"reason": "Refunded."})
    assert (await summary(one.lawyer))["receivable"] == "0.00"


async def test_a_request_is_approved_once_however_many_admins_race(api: Api) -> None:
    one = await served(api)
    asked = await one.user.post(
        f"/consult/{one.id}/refund-request", {"reason": "No sound.", "amount": "30.00"}
    )
    assert (asked.status, asked.json["status"], asked.json["amount"]) == (201, "OPEN", "30.00")
    request_id = asked.json["id"]
    answers = await asyncio.gather(
        *(
            decide(
                api,
                request_id,
                *(("approve", {"amount": f"{10 + n}.00"}) if n % 3 else ("reject", {"reason": "No."})),
            )
            for n in range(9)
        )
    )
    won = {answer.text for answer in answers if answer.status == 200}
    assert len(won) == 1
    assert {answer.code for answer in answers if answer.status != 200} == {"REFUND_REQUEST_DECIDED"}
    shown = (await one.user.get("/refund-requests")).json["items"][0]
    assert Decimal(await balance(one.user)) == 433 + Decimal(shown["refunded"])


async def test_a_request_without_an_amount_is_for_all_that_is_left(api: Api) -> None:
    one = await served(api)
    request = (await one.user.post(f"/consult/{one.id}/refund-request", {"reason": "No sound."})).json
    assert request["amount"] is None
    await give_back(api, one.id, "7.00")
    approved = (await decide(api, request["id"], "approve", {"reason": "You are right."})).json
    assert (approved["status"], approved["refunded"], approved["answer"]) == (
        "APPROVED",
        "60.00",
        "You are right.",
    )
    assert (await decide(api, request["id"], "approve")).json == approved
    assert (await decide(api, request["id"], "reject", {"reason": "No."})).code == "REFUND_REQUEST_DECIDED"
    assert await balance(one.user) == "500.00"
    nothing_left = await one.user.post(f"/consult/{one.id}/refund-request", {"reason": "Again."})
    assert (nothing_left.code, nothing_left.json["available"]) == ("REFUND_TOO_LARGE", "0.00")


async def test_an_approval_above_what_is_left_leaves_the_request_open(api: Api) -> None:
    one = await served(api)
    request = (
        await one.user.post(f"/consult/{one.id}/refund-request", {"reason": "x", "amount": "40.00"})
    ).json
    await give_back(api, one.id, "30.00")
    assert (await decide(api, request["id"], "approve")).code == "REFUND_TOO_LARGE"
    approved = await decide(api, request["id"], "approve", {"amount": "37.00"})
    assert (approved.json["refunded"], await balance(one.user)) == ("37.00", "500.00")


async def test_one_open_request_a_session(api: Api) -> None:
    one = await served(api)
    path, body = f"/consult/{one.id}/refund-request", {"reason": "No sound."}
    answers = await asyncio.gather(*(one.user.post(path, body) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [201] + [409] * 7
    assert {answer.code for answer in answers if answer.status == 409} == {"REFUND_REQUEST_OPEN"}
    first = next(answer.json["id"] for answer in answers if answer.status == 201)
    rejected = (await decide(api, first, "reject", {"reason": "The line was fine."})).json
    assert (rejected["status"], rejected["answer"], rejected["refunded"]) == (
        "REJECTED",
        "The line was fine.",
        "0.00",
    )
    assert (await decide(api, first, "approve")).code == "REFUND_REQUEST_DECIDED"
    second = await one.user.post(path, body, key="k1")
    assert second.status == 201
    assert (await one.user.post(path, body, key="k1")).json == second.json
    assert (await one.user.post(path, {"reason": "x", "amount": "67.01"})).code == "REFUND_REQUEST_OPEN"
    await decide(api, second.json["id"], "reject", {"reason": "Again no."})
    assert (await one.user.post(path, {"reason": "x", "amount": "67.01"})).code == "REFUND_TOO_LARGE"


async def test_the_queue_is_oldest_first_and_nobody_sees_anothers_requests(api: Api) -> None:
    one = await served(api)
    other = await served(api)
    ids = []
    for each in (one, other):
        ids.append((await each.user.post(f"/consult/{each.id}/refund-request", {"reason": "x"})).json["id"])
        await api.advance(1)
    admin = await api.admin()
    queue = (await admin.get("/admin/refund-requests?status=OPEN")).json["items"]
    assert [(row["id"], row["userId"]) for row in queue] == [(ids[0], one.user.id), (ids[1], other.user.id)]
    assert [row["id"] for row in (await other.user.get("/refund-requests")).json["items"]] == ids[1:]
    assert (await other.user.post(f"/consult/{one.id}/refund-request", {"reason": "x"})).status == 404
    await decide(api, ids[0], "approve")
    assert [
        row["id"] for row in (await admin.get("/admin/refund-requests?status=OPEN")).json["items"]
    ] == ids[1:]
    assert [row["id"] for row in (await admin.get("/admin/refund-requests")).json["items"]] == ids[::-1]


async def test_the_user_is_told(api: Api) -> None:
    one = await served(api)
    refund = (await give_back(api, one.id, "1.00")).json
    path = f"/consult/{one.id}/refund-request"
    first = (await one.user.post(path, {"reason": "x"})).json["id"]
    await decide(api, first, "reject", {"reason": "No."})
    second = (await one.user.post(path, {"reason": "x"})).json["id"]
    await decide(api, second, "approve")
    await decide(api, second, "approve")
    told = api.db.read(
        lambda c: c.execute("SELECT _id, kind FROM c_notices WHERE user_id = ?", (one.user.id,)).fetchall()
    )
    assert sorted(map(tuple, told)) == sorted(
        [
            (f"refund:{refund['id']}", "CONSULTATION_REFUNDED"),
            (f"refund:{first}", "REFUND_REJECTED"),
            (f"refund:{second}", "CONSULTATION_REFUNDED"),
        ]
    )


async def test_many_admins_at_once_never_give_back_more_than_was_paid(api: Api) -> None:
    one = await served(api)
    answers = await asyncio.gather(*(give_back(api, one.id, "10.00") for _ in range(12)))
    assert sorted(answer.status for answer in answers) == [201] * 6 + [409] * 6
    assert await balance(one.user) == "493.00"
