"""Document 004 from its first line to its last, against the started server and with python-socketio's client."""

import asyncio
import base64
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import socketio

from tests.e2e.people import (
    PASSWORD,
    Device,
    Person,
    Talk,
    World,
    assert_bill,
    close,
    has,
    instant_ms,
    minor,
    people_of,
    wall_ms,
)
from tests.support.cluster import Cluster
from tests.support.server_process import QUICK, ServerProcess

#: How late a client on a busy machine may hear of the cut-off. The engine's own error is measured in `bench/cut_off.py`.
HEARD_LATE_MS = 1_500


def claims_of(token: str) -> dict[str, object]:
    body = token.split(".")[1]
    claims: dict[str, object] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims


async def test_document_004_from_its_first_line_to_its_last(
    world: World, server: ServerProcess | Cluster, tmp_path: Path
) -> None:
    # 1 Auth: registers, logs in, refreshes.
    user = await world.user()
    login = await world.anyone.post("/auth/login", {"email": user.email, "password": PASSWORD})
    assert login["user"] == {
        **login["user"],
        "id": user.id,
        "email": user.email,
        "name": "Asha",
        "role": "USER",
    }
    assert (claims_of(login["accessToken"])["sub"], claims_of(login["accessToken"])["role"]) == (
        user.id,
        "USER",
    )
    wrong = {"email": user.email, "password": "wrong horse"}
    await world.anyone.refused("POST", "/auth/login", wrong, status=401, code="INVALID_CREDENTIALS")
    refreshed = await world.anyone.post("/auth/refresh", {"refreshToken": login["refreshToken"]})
    assert refreshed["refreshToken"] != login["refreshToken"]
    user.api = world.anyone.as_(refreshed["accessToken"])
    assert (await user.api.get("/auth/me"))["id"] == user.id

    # 3 Lawyer: registers unverified, is verified, logs in, goes online. Each gate holds until its moment.
    papers: dict[str, Any] = {
        "email": f"rao-{user.id}@example.com",
        "password": PASSWORD,
        "name": "Adv. Rao",
        "ratePerMinute": "60.00",
        "specializations": ["Property"],
        "languages": ["English", "Hindi"],
        "barCouncilNumber": f"KAR/{user.id[-6:]}/2015",
        "bio": "Tenancy law.",
    }
    registered = await world.anyone.post("/lawyer/register", papers)
    lawyer_id = registered["user"]["id"]
    start = {"lawyerId": lawyer_id}
    await user.api.refused("POST", "/consult/start", start, status=402, code="INSUFFICIENT_BALANCE")

    # 2 Wallet: recharge and balance.
    recharge = await user.recharge("6.00")
    assert (recharge["status"], recharge["walletBalance"], recharge["currency"]) == ("PAID", "6.00", "INR")
    assert await user.api.get("/wallet/balance") == {
        "walletBalance": "6.00",
        "held": "0.00",
        "currency": "INR",
    }

    await user.api.refused("POST", "/consult/start", start, status=409, code="LAWYER_NOT_VERIFIED")
    admin = await world.admin()
    queue = await admin.get("/admin/lawyers?verified=false&limit=100")
    assert lawyer_id in [row["id"] for row in queue["items"]]
    verified = await admin.ok("PATCH", f"/lawyer/{lawyer_id}/verify", {})
    assert verified["isVerified"] is True
    await user.api.refused("POST", "/consult/start", start, status=409, code="LAWYER_OFFLINE")
    lawyer_login = await world.anyone.post("/auth/login", {"email": papers["email"], "password": PASSWORD})
    assert claims_of(lawyer_login["accessToken"])["role"] == "LAWYER"
    lawyer = Person(
        lawyer_id,
        papers["email"],
        "Adv. Rao",
        world.anyone.as_(lawyer_login["accessToken"]),
        lawyer_login["refreshToken"],
        world,
    )
    online = await lawyer.api.ok("PATCH", "/lawyer/availability", {"isOnline": True})
    assert online["isOnline"] is True
    found = await user.api.get("/lawyers?online=true&free=true&limit=100")
    assert lawyer_id in [row["id"] for row in found["items"]]

    # 4 Consultation.
    quote = await user.api.get(f"/consult/quote?lawyerId={lawyer_id}")
    assert (quote["affordableSeconds"], quote["canStart"]) == (6, True)
    user_device, lawyer_device = await asyncio.gather(user.device(), lawyer.device())
    session = await user.start(lawyer)
    assert session["status"] == "ACTIVE"
    assert session["ratePerMinute"] == "60.00"
    talk = Talk(session["sessionId"], session, user, lawyer, user_device, lawyer_device)
    for device in (user_device, lawyer_device):
        started = await device.heard("session:started")
        assert started.payload["sessionId"] == talk.id
    assert (await lawyer.api.get("/consult/active"))["sessionId"] == talk.id
    assert (await user.api.get(f"/lawyer/{lawyer_id}"))["isBusy"] is True

    # 6 Chat: join, send both ways, SENT, DELIVERED, SEEN.
    for device in (user_device, lawyer_device):
        joined = await device.ok("join_session", {"sessionId": talk.id})
        assert (joined["lastSeq"], joined["messages"], joined["billing"]["status"]) == (0, [], "ACTIVE")
    await converse(talk)

    # 5 Billing: ticks, low balance, forced end at zero.
    await assert_forced_end(talk, paid_s=6)

    # 7 History, for both, as it was left.
    for person in (user, lawyer):
        messages = await person.history(talk.id)
        assert [(m["seq"], m["body"], m["status"]) for m in messages] == [
            (1, "Hello.", "SEEN"),
            (2, "Good day.", "SEEN"),
            (3, "Bye.", "SENT"),
        ]
    await user_device.refused(
        "send_message", {"sessionId": talk.id, "body": "One more?"}, "SESSION_NOT_ACTIVE"
    )

    # 4 again: the DEBIT row, locks released.
    rows = (await user.api.get("/wallet/transactions"))["items"]
    assert [(r["type"], r["amount"], r["balanceBefore"], r["balanceAfter"]) for r in rows] == [
        ("DEBIT", "6.00", "6.00", "0.00"),
        ("CREDIT", "6.00", "0.00", "6.00"),
    ]
    assert rows[0]["referenceId"] == talk.id
    assert await user.api.get("/wallet/balance") == {
        "walletBalance": "0.00",
        "held": "0.00",
        "currency": "INR",
    }
    assert await user.api.get("/consult/active") is None
    assert (await user.api.get(f"/lawyer/{lawyer_id}"))["isBusy"] is False

    # 8 Review.
    review = {"sessionId": talk.id, "rating": 4, "comment": "Clear."}
    assert (await user.api.post("/review", review))["rating"] == 4
    await user.api.refused("POST", "/review", review, status=409, code="ALREADY_REVIEWED")
    profile = await user.api.get(f"/lawyer/{lawyer_id}")
    assert (profile["rating"], profile["reviewCount"]) == ("4.00", 1)

    # 9 Earnings.
    summary = await lawyer.api.get("/lawyer/earnings/summary")
    assert (summary["totalEarnings"], summary["todayEarnings"], summary["totalSessions"]) == (
        "6.00",
        "6.00",
        1,
    )
    (earning,) = (await lawyer.api.get("/lawyer/earnings"))["items"]
    assert (earning["gross"], earning["commission"], earning["net"]) == ("6.00", "0.00", "6.00")

    # Locks released: both can go into the next one at once.
    await user.recharge("2.00")
    await user.end((await user.start(lawyer))["sessionId"])

    # 1 again: no password lies in the database, only bcrypt's word for it.
    dump = all_that_is_stored(server, tmp_path / "copy.db")
    assert PASSWORD not in dump
    assert "$2b$04$" in dump
    for secret in (login["refreshToken"], login["accessToken"]):
        assert secret not in dump


def all_that_is_stored(server: ServerProcess | Cluster, copy: Path) -> str:
    """Every row of the database, as text."""
    if isinstance(server, Cluster):
        return server.mongo.dump(server.database)
    assert server.tarazu("backup", str(copy)).code == 0
    with closing(sqlite3.connect(copy)) as connection:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        return "\n".join(str(row) for name in tables for row in connection.execute(f'SELECT * FROM "{name}"'))


async def converse(talk: Talk) -> None:
    """Both ways, with all three states, as each side sees them."""
    hello = await talk.say(talk.user_device, "Hello.", "m-1")
    assert (hello["seq"], hello["status"], hello["duplicate"]) == (1, "SENT", False)
    for device in (talk.user_device, talk.lawyer_device):
        message = (await device.heard("new_message", has(seq=1))).payload
        assert (message["senderId"], message["body"], message["status"]) == (talk.user.id, "Hello.", "SENT")
    assert [m["status"] for m in await talk.user.history(talk.id)] == ["SENT"]

    delivered = await talk.lawyer_device.ok(
        "message_delivered", {"sessionId": talk.id, "messageId": hello["id"]}
    )
    assert (delivered["deliveredSeq"], delivered["seenSeq"]) == (1, 0)
    status = (await talk.user_device.heard("message_status", has(userId=talk.lawyer.id))).payload
    assert (status["deliveredSeq"], status["seenSeq"]) == (1, 0)
    assert [m["status"] for m in await talk.user.history(talk.id)] == ["DELIVERED"]

    reply = await talk.say(talk.lawyer_device, "Good day.", "m-1")
    assert reply["seq"] == 2, "the same clientMsgId of another sender is another message"
    seen = await talk.lawyer_device.ok("mark_seen", {"sessionId": talk.id})
    assert seen["updated"] == 1, "a sender's own messages do not count"
    await talk.user_device.heard(
        "message_status", lambda s: s["userId"] == talk.lawyer.id and s["seenSeq"] >= 1
    )
    first, second = await talk.user.history(talk.id)
    assert (first["status"], second["status"]) == ("SEEN", "SENT")
    assert first["createdAt"] <= first["deliveredAt"] <= first["seenAt"]

    # Seen without delivered: seen is proof enough.
    await talk.user_device.ok("mark_seen", {"sessionId": talk.id, "uptoSeq": 2})
    status = (await talk.lawyer_device.heard("message_status", has(userId=talk.user.id))).payload
    assert (status["deliveredSeq"], status["seenSeq"]) == (2, 2)
    await talk.say(talk.user_device, "Bye.")
    tick = await talk.user_device.heard("session:tick", has(lastSeq=3))
    assert tick.payload["sessionId"] == talk.id


async def assert_forced_end(talk: Talk, *, paid_s: int) -> None:
    """The session ends by force exactly when its money does, and both sides are told the same."""
    started_ms = instant_ms(talk.session["startedAt"])
    cost = f"{paid_s}.00"
    for device, is_user in ((talk.user_device, True), (talk.lawyer_device, False)):
        low = await device.heard("session:low_balance")
        assert low.payload["thresholdSeconds"] == 30
        ended = await device.heard("session:ended")
        final = ended.payload
        assert (final["status"], final["reason"], final["totalAmount"]) == (
            "FORCE_ENDED",
            "WALLET_EMPTY",
            cost,
        )
        assert final["lastSeq"] == 3
        assert 0 <= ended.at_ms - (started_ms + paid_s * 1000) < HEARD_LATE_MS
        assert final["walletBalance"] == ("0.00" if is_user else None)
        ticks = device.all("session:tick")
        assert len(ticks) >= paid_s - 2
        elapsed = [tick["elapsedSeconds"] for tick in ticks]
        assert elapsed == sorted(elapsed)
        for tick in ticks:
            assert minor(tick["totalAmount"]) == tick["elapsedSeconds"] * 100, "one rupee a second"
            assert tick["remainingSeconds"] + tick["elapsedSeconds"] == paid_s
            # What may still be spent; the held slice is shown as held.
            assert tick["walletBalance"] is None or is_user
    for person in (talk.user, talk.lawyer):
        session = await person.session(talk.id)
        assert (session["status"], session["endReason"]) == ("FORCE_ENDED", "WALLET_EMPTY")
        assert instant_ms(session["endedAt"]) == started_ms + paid_s * 1000, "not a millisecond more or less"
        assert (session["durationSeconds"], session["totalAmount"]) == (paid_s, cost)
        assert_bill(session)


async def test_the_lawyer_never_sees_the_balance_and_warnings_come_at_120_60_and_30_seconds(
    world: World,
) -> None:
    talks = await asyncio.gather(world.talk("122.00"), world.talk("62.00"), world.talk("32.00"))
    for talk, left_s, threshold in zip(talks, (122, 62, 32), (120, 60, 30), strict=True):
        for device in (talk.user_device, talk.lawyer_device):
            low = await device.heard("session:low_balance", has(thresholdSeconds=threshold))
            crossed_ms = instant_ms(talk.session["startedAt"]) + (left_s - threshold) * 1000
            assert -50 <= low.at_ms - crossed_ms < HEARD_LATE_MS
            assert low.payload["remainingSeconds"] == threshold
    rich = talks[0]
    early = (await rich.user_device.heard("session:tick", has(elapsedSeconds=1))).payload
    assert early["remainingSeconds"] == 121
    assert early["walletBalance"] is not None
    hidden = (await rich.lawyer_device.heard("session:tick", has(elapsedSeconds=1))).payload
    assert (hidden["remainingSeconds"], hidden["walletBalance"]) == (None, None), "121 would tell the balance"
    shown = await rich.lawyer_device.heard("session:tick", lambda t: t["remainingSeconds"] is not None)
    assert shown.payload["remainingSeconds"] <= 120
    joined = await rich.lawyer_device.ok("join_session", {"sessionId": rich.id})
    everything = [heard.payload for heard in rich.lawyer_device.events if heard.name.startswith("session:")]
    session = await rich.lawyer.session(rich.id)
    listed = (await rich.lawyer.api.get("/consult"))["items"]
    for told in (*everything, joined["billing"], session, *listed):
        assert told.get("walletBalance") is None
        assert told.get("remainingBalance") is None
        assert told["remainingSeconds"] is None or told["remainingSeconds"] <= 120
    await rich.lawyer.api.refused("GET", "/wallet/balance", status=403, code="FORBIDDEN")
    ended = await asyncio.gather(*(talk.lawyer.end(talk.id) for talk in talks))
    for end in ended:
        assert (end["status"], end["endReason"], end["remainingBalance"]) == ("ENDED", "LAWYER_ENDED", None)


@pytest.mark.parametrize("side", ["user", "lawyer"])
async def test_either_party_ends_it_and_a_repeat_answers_the_same(world: World, side: str) -> None:
    talk = await world.talk("30.00")
    first, second = (talk.user, talk.lawyer) if side == "user" else (talk.lawyer, talk.user)
    await talk.user_device.heard("session:tick", lambda t: t["elapsedSeconds"] >= 1)
    ended = await first.end(talk.id, key="end-1")
    assert (ended["status"], ended["endReason"]) == ("ENDED", f"{side.upper()}_ENDED")
    again, with_key, other = await asyncio.gather(
        first.end(talk.id), first.end(talk.id, key="end-1"), second.end(talk.id)
    )
    assert again == with_key == ended
    hers = ended if side == "user" else other
    assert minor(hers["totalAmount"]) + minor(hers["remainingBalance"]) == 3_000
    assert minor(hers["totalAmount"]) >= 100
    for field in ("status", "endReason", "totalAmount", "durationSeconds", "endedAt"):
        assert other[field] == ended[field]
    for device in (talk.user_device, talk.lawyer_device):
        told = (await device.heard("session:ended")).payload
        assert (told["totalAmount"], told["reason"]) == (ended["totalAmount"], ended["endReason"])
        assert len(device.all("session:ended")) == 1
    assert_bill(await talk.user.session(talk.id))
    debits = [r for r in (await talk.user.api.get("/wallet/transactions"))["items"] if r["type"] == "DEBIT"]
    assert [row["amount"] for row in debits] == [ended["totalAmount"]]


async def test_twenty_starts_at_once_make_one_session_and_a_second_one_is_refused(world: World) -> None:
    lawyer, other = await asyncio.gather(world.lawyer(), world.lawyer())
    users = await asyncio.gather(*(world.user("30.00") for _ in range(20)))
    answers = await asyncio.gather(
        *(user.api.call("POST", "/consult/start", {"lawyerId": lawyer.id}, key="start-1") for user in users)
    )
    assert sorted(answer.status for answer in answers) == [201, *[409] * 19]
    assert {answer.code for answer in answers if answer.status == 409} == {"LAWYER_BUSY"}
    won = next(k for k, answer in enumerate(answers) if answer.status == 201)
    winner, session = users[won], answers[won].json
    # Same key: the same session, not a second one. Another: busy.
    assert await winner.start(lawyer, key="start-1") == session
    for busy_lawyer in (lawyer, other):
        body = {"lawyerId": busy_lawyer.id}
        await winner.api.refused("POST", "/consult/start", body, status=409, code="USER_BUSY")
    await winner.end(session["sessionId"])
    losers = [user for user in users if user is not winner]
    balances = await asyncio.gather(*(user.api.get("/wallet/balance") for user in losers))
    assert {(b["walletBalance"], b["held"]) for b in balances} == {("30.00", "0.00")}, (
        "a refused start holds nothing"
    )
    # One who was refused comes next, with the same key as before.
    await losers[0].end((await losers[0].start(lawyer, key="start-1"))["sessionId"])


async def test_a_stranger_finds_nothing_and_hears_nothing(world: World) -> None:
    talk = await world.talk("30.00")
    strangers = await asyncio.gather(world.user("30.00"), world.lawyer())
    for stranger in strangers:
        device = await stranger.device()
        for event, more in (
            ("join_session", {}),
            ("send_message", {"body": "Let me in."}),
            ("message_delivered", {"uptoSeq": 1}),
            ("mark_seen", {}),
            ("typing", {"isTyping": True}),
            ("leave_session", {}),
        ):
            refused = await device.refused(event, {"sessionId": talk.id, **more}, "NOT_FOUND")
            unknown = await device.refused(event, {"sessionId": "no-such-session", **more}, "NOT_FOUND")
            assert refused == unknown, "somebody else's session looks like no session"
        for method, path in (
            ("GET", f"/consult/{talk.id}"),
            ("POST", f"/consult/{talk.id}/end"),
            ("GET", f"/chat/{talk.id}"),
        ):
            answer = await stranger.api.call(method, path)
            assert answer.status == 404, f"{method} {path}: {answer.json}"
        assert (await stranger.api.get("/consult"))["items"] == []
    review = {"sessionId": talk.id, "rating": 1}
    answer = await strangers[0].api.call("POST", "/review", review)
    assert answer.status == 404
    # All that the two of the session hear goes by them.
    await talk.say(talk.user_device, "In confidence.")
    await talk.lawyer_device.ok("mark_seen", {"sessionId": talk.id})
    await talk.user_device.heard("message_status")
    await talk.user_device.heard("session:tick", after=len(talk.user_device.events))
    await talk.user.end(talk.id)
    await talk.lawyer_device.heard("session:ended")
    for stranger in strangers:
        # An answer on the same connection: whatever was sent before it has come.
        await stranger.devices[0].refused("join_session", {"sessionId": talk.id}, "NOT_FOUND")
        assert stranger.devices[0].events == []


async def test_a_bad_token_is_refused_and_a_client_that_polls_first_is_told_so(world: World) -> None:
    user = await world.user()
    refresh_token, access = user.refresh_token, user.api.token or ""
    header, claims, _ = access.split(".")
    for auth in (
        None,
        {},
        {"token": ""},
        {"token": "x"},
        {"token": refresh_token},
        {"token": f"{header}.{claims}.AAAA"},
    ):
        refusal = await refusal_of(world.server.url, auth)
        assert (refusal["data"]["code"], refusal["data"]["retryable"]) == ("UNAUTHENTICATED", False)
        assert "A valid access token is needed" in refusal["message"]
    polling = socketio.AsyncClient(reconnection=False)
    with pytest.raises(socketio.exceptions.ConnectionError):
        await polling.connect(world.server.url, auth={"token": access})
    await close(polling)
    answer = await world.anyone.call("GET", "/socket.io/?EIO=4&transport=polling")
    assert (answer.status, answer.code) == (400, "WEBSOCKET_ONLY")
    assert "transports: ['websocket']" in answer.json["detail"]


async def refusal_of(url: str, auth: object) -> Any:
    """What a client is told whose connection is refused."""
    client = socketio.AsyncClient(reconnection=False)
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    client.on("connect_error", told.set_result)
    try:
        with pytest.raises(socketio.exceptions.ConnectionError):
            await client.connect(url, transports=["websocket"], auth=auth)
        return await asyncio.wait_for(told, 5)
    finally:
        await close(client)


async def test_both_devices_of_one_person_hear_everything(world: World) -> None:
    talk = await world.talk("30.00")
    tablet = await talk.user.device()
    await tablet.ok("join_session", {"sessionId": talk.id})
    idle = await talk.user.device()
    sent = await talk.say(talk.user_device, "From the phone.")
    await talk.say(talk.lawyer_device, "To both.")
    await talk.lawyer_device.ok("mark_seen", {"sessionId": talk.id})
    for device in (talk.user_device, tablet):
        for seq in (1, 2):
            await device.heard("new_message", has(seq=seq))
        await device.heard("message_status", has(seenSeq=2))
    # The bill goes to every device of a person, joined or not; messages only where the session is on screen.
    for device in (talk.user_device, tablet, idle):
        await device.heard("session:tick", has(lastSeq=2))
    # Read on the tablet: the phone hears it too.
    await tablet.ok("mark_seen", {"sessionId": talk.id})
    await talk.user_device.heard(
        "message_status", lambda s: s["userId"] == talk.user.id and s["seenSeq"] == 2
    )
    await talk.lawyer.end(talk.id)
    for device in (talk.user_device, tablet, idle):
        await device.heard("session:ended")
        assert len(device.all("session:ended")) == 1
    assert idle.all("new_message") == []
    assert tablet.all("new_message")[0]["id"] == sent["id"]


async def test_a_recharge_during_the_session_extends_it_without_a_gap(world: World) -> None:
    talk = await world.talk("3.00")
    await talk.user_device.heard("session:tick", lambda t: t["elapsedSeconds"] >= 1)
    await talk.user.recharge("2.00")
    for device in (talk.user_device, talk.lawyer_device):
        told = (await device.heard("session:recharged")).payload
        assert told["remainingSeconds"] + told["elapsedSeconds"] == 5
        ended = (await device.heard("session:ended")).payload
        assert (ended["reason"], ended["totalAmount"]) == ("WALLET_EMPTY", "5.00")
    session = await talk.user.session(talk.id)
    assert instant_ms(session["endedAt"]) - instant_ms(session["startedAt"]) == 5_000
    assert [row["event"] for row in session["timeline"]] == ["start", "end"]
    assert_bill(session)


async def test_a_device_that_comes_back_gets_what_it_missed_and_a_repeated_send_is_stored_once(
    world: World,
) -> None:
    talk = await world.talk("30.00")
    await talk.say(talk.user_device, "One.", "u-1")
    await talk.lawyer_device.heard("new_message")
    lost = await talk.say(talk.lawyer_device, "Two.", "l-1")
    await talk.lawyer_device.close()
    for n, body in enumerate(("Three.", "Four.", "Five."), start=2):
        await talk.say(talk.user_device, body, f"u-{n}")

    back = await talk.lawyer.device()
    joined = await back.ok(
        "join_session", {"sessionId": talk.id, "afterSeq": 2, "pendingIds": ["l-1", "l-2"]}
    )
    assert [(m["seq"], m["body"]) for m in joined["messages"]] == [(3, "Three."), (4, "Four."), (5, "Five.")]
    assert (joined["lastSeq"], joined["hasMore"]) == (5, False)
    assert joined["stored"].keys() == {"l-1"}, "l-2 never arrived, so it is sent again"
    # The answer to l-1 was lost, so to say: it is sent again.
    again = await talk.say(back, "Two.", "l-1")
    assert (again["id"], again["seq"], again["createdAt"], again["duplicate"]) == (
        lost["id"],
        2,
        lost["createdAt"],
        True,
    )
    mismatch = {"sessionId": talk.id, "clientMsgId": "l-1", "body": "Another."}
    await back.refused("send_message", mismatch, "IDEMPOTENCY_MISMATCH")
    assert (await talk.say(back, "Six.", "l-2"))["seq"] == 6
    await talk.user_device.heard("new_message", has(seq=6))
    assert [m["seq"] for m in talk.user_device.all("new_message")] == [1, 2, 3, 4, 5, 6], (
        "a repeat is not told again"
    )
    await talk.user.end(talk.id)
    # Also after the end the first answer stands.
    assert (await talk.say(back, "Two.", "l-1"))["duplicate"] is True
    assert [m["seq"] for m in await talk.lawyer.history(talk.id)] == [1, 2, 3, 4, 5, 6]


async def test_logging_out_closes_the_sockets_of_that_login_only(world: World) -> None:
    user = await world.user()
    device = await user.device()
    login = await world.anyone.post("/auth/login", {"email": user.email, "password": PASSWORD})
    user.api = world.anyone.as_(login["accessToken"])
    other_login = await user.device()
    await user.api.post("/auth/logout", {})
    bye = (await other_login.heard("server:bye")).payload
    assert (bye["code"], bye["reconnect"]) == (3500, False)
    await asyncio.wait_for(other_login.gone.wait(), 5)
    await user.api.refused("GET", "/auth/me", status=401, code="UNAUTHENTICATED")
    with pytest.raises(socketio.exceptions.ConnectionError):
        await Device.connect(world.server.url, login["accessToken"])
    await device.refused("join_session", {"sessionId": "none"}, "NOT_FOUND")
    assert not device.gone.is_set()
    assert device.events == []


async def test_sigterm_with_clients_connected_takes_under_five_seconds_and_sessions_go_on(
    tmp_path: Path,
) -> None:
    with ServerProcess(tmp_path, **QUICK) as server:
        async with people_of(server) as world:
            talk, poor = await asyncio.gather(world.talk("300.00"), world.talk("4.00"))
            await talk.say(talk.user_device, "Before.", "u-1")
            await talk.user_device.heard("session:tick", lambda t: t["elapsedSeconds"] >= 1)
            stopped_ms, stopped = wall_ms(), time.monotonic()
            server.terminate()
            for device in world.devices:
                bye = (await device.heard("server:bye")).payload
                assert (bye["code"], bye["reconnect"]) == (3001, True)
            assert await asyncio.to_thread(server.wait, 10) == 0
            assert time.monotonic() - stopped < 5
            for device in world.devices:
                await asyncio.wait_for(device.gone.wait(), 5)
            code, output = server.verify_ledger()
            assert code == 0, output

            server.start()
            back = await talk.user.device()
            joined = await back.ok("join_session", {"sessionId": talk.id})
            assert [m["body"] for m in joined["messages"]] == ["Before."]
            assert joined["billing"]["status"] == "ACTIVE"
            assert (await talk.say(back, "After.", "u-2"))["seq"] == 2
            assert (await talk.say(back, "Before.", "u-1"))["duplicate"] is True
            await back.heard("session:tick")
            ended = await talk.lawyer.end(talk.id)
            assert ended["status"] == "ENDED"
            session = await talk.user.session(talk.id)
            assert [(r["event"], r["reason"]) for r in session["timeline"][1:3]] == [
                ("pause", "SERVER"),
                ("resume", "SERVER"),
            ]
            paused_ms = instant_ms(session["timeline"][1]["at"])
            # The last write of the process that went proves the service until then: nothing served is lost.
            assert stopped_ms - 100 <= paused_ms <= stopped_ms + 5_000
            assert_bill(session)
            # The one with little money went on as well, and was cut off after its four seconds of service.
            short = await poor_end(poor)
            assert (short["durationSeconds"], short["totalAmount"], short["endReason"]) == (
                4,
                "4.00",
                "WALLET_EMPTY",
            )
            assert_bill(short)
        code, output = server.settled_books()
        assert code == 0, output


async def poor_end(talk: Talk) -> dict[str, object]:
    device = await talk.user.device()
    session: dict[str, object] = await talk.user.session(talk.id)
    if session["status"] == "ACTIVE":
        await device.heard("session:ended")
        session = await talk.user.session(talk.id)
    return session
