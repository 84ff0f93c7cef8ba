"""A lawyer who wants to be asked, as app teams meet it: REST and real sockets, the clock moved by the test."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chat.events import SERVER_EVENTS
from tests.integration.socket_world import Client as Socket
from tests.support.api import Api, Person, open_api


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path) as api:
        yield api
        await api.books_are_clean()


async def asked_lawyer(api: Api, **more: Any) -> Person:
    lawyer = await api.a_lawyer(**more)
    changed = await lawyer.patch("/lawyer/profile", {"autoAccept": False})
    assert (changed.status, changed.json["autoAccept"]) == (200, False), changed.text
    return lawyer


async def hears(socket: Socket, event: str, count: int = 1) -> dict[str, Any]:
    """The newest payload of the event, as the table describes it."""
    payload = (await socket.hears(event, count))[-1]
    SERVER_EVENTS[event].payload.model_validate(payload)
    return dict(payload)


async def test_from_the_ring_to_the_bill_over_sockets(api: Api) -> None:
    user, lawyer = await api.a_user("500.00"), await asked_lawyer(api)
    phone, tablet = await api.connect(lawyer.token), await api.connect(lawyer.token)
    app = await api.connect(user.token)

    ack = await app.call("consult:request", {"lawyerId": lawyer.id})
    assert (ack["ok"], ack["status"], ack["requestState"]) == (True, "REQUESTED", "RINGING"), ack
    session_id = ack["sessionId"]
    for device in (phone, tablet):
        ring = await hears(device, "consult:ring")
        assert (ring["sessionId"], ring["userId"], ring["deadline"]) == (session_id, user.id, ack["deadline"])
        # Nothing of the user's money.
        assert set(ring) == {"sessionId", "userId", "lawyerId", "ratePerMinute", "currency", "deadline"}
    assert (await lawyer.get("/consult/request")).json["sessionId"] == session_id
    assert (await user.get("/consult/active")).json is None
    assert (await user.get(f"/lawyer/{lawyer.id}")).json["isBusy"] is True
    assert (await app.call("join_session", {"sessionId": session_id}))["billing"]["status"] == "REQUESTED"
    refused = await app.call("send_message", {"sessionId": session_id, "body": "Hello?"})
    assert refused["error"]["code"] == "SESSION_NOT_ACTIVE"

    accepted = await phone.call("consult:accept", {"sessionId": session_id})
    assert (accepted["ok"], accepted["requestState"]) == (True, "ACCEPTED")
    assert (await hears(tablet, "consult:state"))["state"] == "ANSWERED_ELSEWHERE"
    assert (await hears(app, "consult:state", 2))["state"] == "ACCEPTED"
    assert phone.told("consult:state") == []
    await api.advance(20)
    assert (await user.get("/wallet/balance")).json["held"] == "0.00"

    assert (await phone.call("join_session", {"sessionId": session_id}))["ok"]
    started = await hears(app, "session:started")
    assert started["status"] == "ACTIVE"
    assert (await hears(phone, "session:started"))["walletBalance"] is None
    assert (await app.call("send_message", {"sessionId": session_id, "body": "Hello!"}))["ok"]
    await api.advance(30)
    ended = (await user.end(session_id)).json
    assert (ended["durationSeconds"], ended["totalAmount"], ended["requestState"]) == (
        30,
        "30.00",
        "ACCEPTED",
    )
    assert (await user.get(f"/lawyer/{lawyer.id}")).json["isBusy"] is False


async def test_who_has_joined_and_left_again_is_waited_for(api: Api) -> None:
    """The user looks, goes, and is gone when the lawyer comes: nobody pays for that."""
    user, lawyer = await api.a_user("500.00"), await asked_lawyer(api)
    session_id = await user.start(lawyer.id)
    app, phone = await api.connect(user.token), await api.connect(lawyer.token)
    await app.call("join_session", {"sessionId": session_id})
    await app.call("leave_session", {"sessionId": session_id})
    presence = api.services.requests._attending._presence  # type: ignore[union-attr]
    presence._gone((f"s:{session_id}", user.id))
    await phone.call("consult:accept", {"sessionId": session_id})
    await phone.call("join_session", {"sessionId": session_id})
    await api.advance(30)
    assert (await user.get(f"/consult/{session_id}")).json["status"] == "REQUESTED"
    await app.call("join_session", {"sessionId": session_id})
    assert (await hears(app, "session:started"))["status"] == "ACTIVE"


async def test_every_answer_over_http(api: Api) -> None:
    user, lawyer = await api.a_user("500.00"), await asked_lawyer(api)
    app = await api.connect(user.token)
    for n, (who, word, status, reason) in enumerate(
        (
            (lawyer, "decline", "DECLINED", "LAWYER_DECLINED"),
            (user, "cancel", "CANCELLED", "USER_CANCELLED"),
            (user, "end", "CANCELLED", "USER_CANCELLED"),
        ),
        start=1,
    ):
        session_id = await user.start(lawyer.id)
        for _ in range(2):
            answer = await who.post(f"/consult/{session_id}/{word}")
            assert (answer.status, answer.json["status"], answer.json["endReason"]) == (200, status, reason)
        told = await hears(app, "consult:state", 2 * n)
        assert (told["sessionId"], told["state"], told["reason"]) == (session_id, status, reason)
        late = await lawyer.post(f"/consult/{session_id}/accept")
        assert (late.status, late.code) == (409, "REQUEST_CLOSED")
    assert (await lawyer.get("/consult/request")).json is None
    session_id = await user.start(lawyer.id)
    accepted = await lawyer.post(f"/consult/{session_id}/accept")
    assert (accepted.json["status"], accepted.json["requestState"]) == ("REQUESTED", "ACCEPTED")
    assert accepted.json["remainingBalance"] is None
    other_device = await api.log_in(lawyer.email)
    late = await other_device.post(f"/consult/{session_id}/accept")
    assert (late.status, late.code) == (409, "ANSWERED_ELSEWHERE")
    assert (await lawyer.post(f"/consult/{session_id}/accept")).status == 200
    listed = (await user.get("/consult")).json["items"]
    assert [row["status"] for row in listed] == ["REQUESTED", "CANCELLED", "CANCELLED", "DECLINED"]
    admin = await api.admin()
    shown = (await admin.get("/admin/sessions?status=REQUESTED")).json["items"]
    assert [row["sessionId"] for row in shown] == [session_id]
    assert (await user.post("/review", {"sessionId": listed[-1]["sessionId"], "rating": 1})).status == 404
    assert (await user.post("/review", {"sessionId": session_id, "rating": 1})).status == 409


async def test_missed_rings_take_the_lawyer_offline_and_a_closed_app_is_notified(api: Api) -> None:
    user, lawyer = await api.a_user("500.00"), await asked_lawyer(api)
    session_id = await user.start(lawyer.id)
    await api.idle()
    notice = next(row for row in api.everything()["c_notices"] if f"ring:{session_id}" in row)
    assert "CONSULT_RING" in notice
    await api.advance(45)
    assert (await user.get(f"/consult/{session_id}")).json["endReason"] == "NO_ANSWER"
    phone = await api.connect(lawyer.token)
    second = await user.start(lawyer.id)
    await hears(phone, "consult:ring")
    await api.advance(45)
    assert (await hears(phone, "consult:state"))["state"] == "MISSED"
    assert (await hears(phone, "consult:away"))["reason"] == "MISSED_RINGS"
    assert not any(f"ring:{second}" in row for row in api.everything()["c_notices"])
    refused = await user.post("/consult/start", {"lawyerId": lawyer.id})
    assert refused.code == "LAWYER_OFFLINE"
    assert (await lawyer.get("/lawyer/profile")).json["isOnline"] is False


async def test_a_restart_keeps_the_request_and_its_deadline(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        user, lawyer = await api.a_user("500.00"), await asked_lawyer(api)
        ringing = await user.start(lawyer.id)
        await api.advance(40)
        clock, tokens = api.clock, (user.token, lawyer.email)
    async with open_api(tmp_path, clock=clock) as api:
        lawyer = await api.log_in(tokens[1])
        found = await lawyer.get("/consult/request")
        assert found.json["sessionId"] == ringing
        await api.advance(4.999)
        assert (await lawyer.get("/consult/request")).json["sessionId"] == ringing
        await api.advance(0.001)
        assert (await lawyer.get("/consult/request")).json is None
        await api.books_are_clean()


async def test_a_waiting_list_from_the_app_to_the_lawyer(api: Api) -> None:
    first, second, third = [await api.a_user("500.00") for _ in range(3)]
    lawyer = await api.a_lawyer()
    assert (await lawyer.patch("/lawyer/profile", {"waitingList": True})).json["waitingList"] is True
    running = await first.start(lawyer.id)
    app = await api.connect(second.token)

    ack = await app.call("consult:queue", {"lawyerId": lawyer.id})
    assert (ack["ok"], ack["position"], ack["estimatedSeconds"], ack["turnUntil"]) == (True, 1, None, None)
    place = (await third.post("/consult/queue", {"lawyerId": lawyer.id})).json
    assert (place["position"], place["userId"]) == (2, third.id)
    listed = (await lawyer.get("/lawyer/queue")).json["items"]
    assert [row["userId"] for row in listed] == [second.id, third.id]
    assert (await first.post("/consult/queue", {"lawyerId": lawyer.id})).code == "USER_BUSY"

    await api.advance(60)
    await first.end(running)
    turn = await hears(app, "consult:turn")
    assert turn["lawyerId"] == lawyer.id
    assert (await third.post("/consult/start", {"lawyerId": lawyer.id})).code == "LAWYER_BUSY"
    assert (await first.post("/consult/start", {"lawyerId": lawyer.id})).code == "LAWYER_BUSY"
    shown = (await second.get("/consult/queue")).json["items"][0]
    assert (shown["turnUntil"], shown["estimatedSeconds"]) == (turn["deadline"], 0)
    other = await api.connect(third.token)
    began = await app.call("consult:request", {"lawyerId": lawyer.id, "maxAmount": "100.00"})
    assert (began["status"], began["requestState"]) == ("ACTIVE", None)
    told = await hears(other, "consult:position")
    assert (told["position"], told["estimatedSeconds"], told["reason"]) == (1, 60, None)
    # The lawyer goes: who waits is told, and free to look elsewhere.
    await lawyer.patch("/lawyer/availability", {"isOnline": False})
    assert (await hears(other, "consult:position", 2))["reason"] == "LAWYER_OFFLINE"
    assert (await third.get("/consult/queue")).json["items"] == []
    assert (await app.call("consult:unqueue", {"lawyerId": lawyer.id}))["error"]["code"] == "NOT_FOUND"
    await second.end(began["sessionId"])


async def test_a_closed_app_is_notified_of_its_turn_and_a_shut_account_waits_nowhere(api: Api) -> None:
    first, second, third = [await api.a_user("500.00") for _ in range(3)]
    lawyer = await api.a_lawyer()
    await lawyer.patch("/lawyer/profile", {"waitingList": True})
    running = await first.start(lawyer.id)
    for user in (second, third):
        assert (await user.post("/consult/queue", {"lawyerId": lawyer.id})).status == 200
    await api.disable(second)
    await first.end(running)
    await api.idle()
    listed = (await lawyer.get("/lawyer/queue")).json["items"]
    assert [row["userId"] for row in listed] == [third.id]
    assert listed[0]["turnUntil"] is not None
    assert [row for row in api.everything()["c_notices"] if "CONSULT_TURN" in row]
    assert (await third.call("DELETE", f"/consult/queue/{lawyer.id}")).status == 200
    assert (await first.get(f"/lawyer/{lawyer.id}")).json["isBusy"] is False


async def test_a_restart_keeps_places_and_turns(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        first, second = await api.a_user("500.00"), await api.a_user("500.00")
        lawyer = await api.a_lawyer()
        await lawyer.patch("/lawyer/profile", {"waitingList": True})
        running = await first.start(lawyer.id)
        assert (await second.post("/consult/queue", {"lawyerId": lawyer.id})).status == 200
        await first.end(running)
        await api.idle()
        turn = (await second.get("/consult/queue")).json["items"][0]["turnUntil"]
        clock, emails, lawyer_id = api.clock, (first.email, second.email), lawyer.id
        await api.advance(60)
    async with open_api(tmp_path, clock=clock) as api:
        first, second = [await api.log_in(email) for email in emails]
        assert (await first.post("/consult/start", {"lawyerId": lawyer_id})).code == "LAWYER_BUSY"
        assert (await second.get("/consult/queue")).json["items"][0]["turnUntil"] == turn
        await api.advance(59)
        await second.end(await second.start(lawyer_id))
        await api.books_are_clean()


async def test_what_was_never_served_has_an_empty_history(api: Api) -> None:
    user, lawyer = await api.a_user("500.00"), await asked_lawyer(api)
    admin = await api.admin()
    session_id = await user.start(lawyer.id)
    for status in ("REQUESTED", "DECLINED"):
        for who in (user, lawyer):
            assert (await who.get(f"/chat/{session_id}")).json["items"] == []
            for form in ("text", "json"):
                transcript = await who.get(f"/chat/{session_id}/transcript?format={form}")
                assert transcript.status == 200, transcript.text
        shown = (await admin.get(f"/admin/sessions/{session_id}")).json
        assert shown["status"] == status
        asked = await user.post(f"/consult/{session_id}/refund-request", {"reason": "Nobody came."})
        assert asked.status == (409 if status == "REQUESTED" else 404)
        if status == "REQUESTED":
            assert (await lawyer.post(f"/consult/{session_id}/decline")).status == 200
    assert (await lawyer.get("/lawyer/earnings")).json["items"] == []
    assert (await user.get("/wallet/transactions")).json["items"][0]["type"] == "CREDIT"


async def test_the_socket_refuses_as_the_route_does(api: Api) -> None:
    poor, user, lawyer = await api.register(), await api.a_user("500.00"), await asked_lawyer(api)
    offline = await api.a_lawyer(online=False)
    app, phone = await api.connect(user.token), await api.connect(lawyer.token)

    async def refused(socket: Socket, event: str, **payload: Any) -> dict[str, Any]:
        before = api.everything()
        ack = await socket.call(event, payload)
        assert ack["ok"] is False, ack
        assert api.everything() == before
        return dict(ack["error"])

    short = await refused(await api.connect(poor.token), "consult:request", lawyerId=lawyer.id)
    assert short["code"] == "INSUFFICIENT_BALANCE"
    for amount in ("0.001", "1.00"):
        error = await refused(app, "consult:request", lawyerId=lawyer.id, maxAmount=amount)
        assert error["code"] == "VALIDATION_FAILED"
        assert [problem["field"] for problem in error["fields"]] == ["maxAmount"]
    assert (await refused(app, "consult:request", lawyerId=offline.id))["code"] == "LAWYER_OFFLINE"
    assert (await refused(app, "consult:request", lawyerId="nobody"))["code"] == "NOT_FOUND"
    assert (await refused(phone, "consult:request", lawyerId=lawyer.id))["code"] == "FORBIDDEN"
    assert (await refused(app, "consult:queue", lawyerId=lawyer.id))["code"] == "WAITING_LIST_CLOSED"
    ack = await app.call("consult:request", {"lawyerId": lawyer.id, "maxAmount": "100.00"})
    assert (await user.get(f"/consult/{ack['sessionId']}")).json["maxAmount"] == "100.00"
    assert (await lawyer.get("/consult/request")).json["maxAmount"] is None
    await api.idle()
    assert (await refused(app, "consult:request", lawyerId=lawyer.id))["code"] == "USER_BUSY"
    tablet = await api.connect((await api.log_in(lawyer.email)).token)
    assert (await phone.call("consult:accept", {"sessionId": ack["sessionId"]}))["ok"]
    assert (await phone.call("consult:accept", {"sessionId": ack["sessionId"]}))["ok"]
    late = await refused(tablet, "consult:accept", sessionId=ack["sessionId"])
    assert late["code"] == "ANSWERED_ELSEWHERE"
    assert (await app.call("consult:cancel", {"sessionId": ack["sessionId"]}))["status"] == "CANCELLED"
    assert (await refused(phone, "consult:decline", sessionId=ack["sessionId"]))["code"] == "REQUEST_CLOSED"
