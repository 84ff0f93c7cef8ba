"""The way of a message over real sockets: join, send, delivered, seen, and who hears of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chat.errors import NotFound, Unavailable
from chat.event_types import SessionPayload
from chat.events import CLIENT_EVENTS, SERVER_EVENTS
from chat.message_events import CLIENT_CHAT_EVENTS
from server.realtime import SocketOptions
from tests.integration.socket_world import LAWYER, SESSION, STRANGER, USER, World, until, world


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as the_world:
        yield the_world


async def test_a_message_travels_and_comes_back_delivered_and_seen(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)

    ack = await user.call("send_message", {"sessionId": SESSION, "clientMsgId": "c1", "body": "Hello"})
    assert ack["ok"]
    assert {key: ack[key] for key in ("seq", "status", "duplicate", "clientMsgId")} == {
        "seq": 1,
        "status": "SENT",
        "duplicate": False,
        "clientMsgId": "c1",
    }
    (message,) = await lawyer.hears("new_message")
    assert message == {
        "id": ack["id"],
        "sessionId": SESSION,
        "seq": 1,
        "senderId": USER,
        "clientMsgId": "c1",
        "body": "Hello",
        "status": "SENT",
        "createdAt": ack["createdAt"],
        "deliveredAt": None,
        "seenAt": None,
        "erasedAt": None,
    }

    ack = await lawyer.call("message_delivered", {"sessionId": SESSION, "messageId": message["id"]})
    assert ack == {"ok": True, "deliveredSeq": 1, "seenSeq": 0}
    ack = await lawyer.call("mark_seen", {"sessionId": SESSION})
    assert ack == {"ok": True, "deliveredSeq": 1, "seenSeq": 1, "updated": 1}
    assert await user.hears("message_status", 2) == [
        {"sessionId": SESSION, "userId": LAWYER, "deliveredSeq": 1, "seenSeq": 0},
        {"sessionId": SESSION, "userId": LAWYER, "deliveredSeq": 1, "seenSeq": 1},
    ]

    again = await user.call("join_session", {"sessionId": SESSION})
    (message,) = again["messages"]
    assert message["status"] == "SEEN"
    assert message["createdAt"] < message["deliveredAt"] < message["seenAt"]


async def test_every_ack_and_event_is_as_the_table_says(w: World) -> None:
    """The table becomes the documentation; it must not lie."""
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    calls = [
        ("send_message", {"sessionId": SESSION, "body": "one"}),
        ("message_delivered", {"sessionId": SESSION, "uptoSeq": 1}),
        ("mark_seen", {"sessionId": SESSION, "uptoSeq": 1}),
        ("typing", {"sessionId": SESSION, "isTyping": True}),
        ("join_session", {"sessionId": SESSION, "afterSeq": 0, "pendingIds": ["x"]}),
        ("leave_session", {"sessionId": SESSION}),
    ]
    assert {name for name, _ in calls} == {event.name for event in CLIENT_CHAT_EVENTS}

    for name, payload in calls:
        ack = await lawyer.call(name, payload)
        CLIENT_EVENTS[name].ack.model_validate(ack)

    for name in ("new_message", "message_status", "typing", "presence"):
        SERVER_EVENTS[name].payload.model_validate((await user.hears(name))[0])


async def test_the_whole_room_hears_a_message_the_senders_devices_included(w: World) -> None:
    phone, laptop, lawyer = await w.joined(USER), await w.joined(USER), await w.joined(LAWYER)

    await phone.call("send_message", {"sessionId": SESSION, "body": "Hello"})

    for client in (phone, laptop, lawyer):
        assert [m["body"] for m in await client.hears("new_message")] == ["Hello"]


async def test_who_has_not_joined_hears_nothing_of_the_room(w: World) -> None:
    lawyer, idle, stranger = await w.joined(LAWYER), await w.connect(USER), await w.connect(STRANGER)

    await lawyer.call("send_message", {"sessionId": SESSION, "body": "secret"})
    await lawyer.call("typing", {"sessionId": SESSION, "isTyping": True})
    w.realtime.push.to_user(USER, "session:tick", {"last": True})
    w.realtime.push.to_user(STRANGER, "session:tick", {"last": True})

    assert await idle.hears("session:tick")
    assert await stranger.hears("session:tick")
    assert idle.events == stranger.events == [("session:tick", {"last": True})]


@pytest.mark.parametrize(
    "event",
    sorted(name for name, event in CLIENT_EVENTS.items() if issubclass(event.payload, SessionPayload)),
)
async def test_a_stranger_is_told_that_there_is_no_such_session(w: World, event: str) -> None:
    """The same answer for somebody else's session and for none, or ids could be guessed."""
    lawyer, stranger = await w.joined(LAWYER), await w.connect(STRANGER)
    extra = {"body": "intruder", "isTyping": True, "uptoSeq": 1}
    extra |= {"partyId": "p", "callId": "c", "media": "audio", "n": 1, "kind": "offer", "sdp": "v=0"}

    theirs = await stranger.call(event, {"sessionId": SESSION, **extra})
    none = await stranger.call(event, {"sessionId": "ses_none", **extra})

    assert theirs == none
    assert (theirs["ok"], theirs["error"]["code"], theirs["error"]["retryable"]) == (
        False,
        "NOT_FOUND",
        False,
    )
    assert await w.store.last_seq(SESSION) == 0
    ack = await lawyer.call("send_message", {"sessionId": SESSION, "body": "still alone?"})
    assert ack["seq"] == 1
    assert "new_message" not in {name for name, _ in stranger.events}


async def test_after_leaving_the_room_is_silent(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)

    assert await user.call("leave_session", {"sessionId": SESSION}) == {"ok": True}
    assert await user.call("leave_session", {"sessionId": SESSION}) == {"ok": True}
    await lawyer.call("send_message", {"sessionId": SESSION, "body": "gone?"})
    w.realtime.push.to_user(USER, "session:tick", {})
    await user.hears("session:tick")

    assert user.told("new_message") == []


async def test_sending_needs_no_join_but_an_open_gate(w: World) -> None:
    user = await w.connect(USER)
    assert (await user.call("send_message", {"sessionId": SESSION, "body": "first"}))["ok"]

    w.gate.open.clear()
    ack = await user.call("send_message", {"sessionId": SESSION, "body": "second"})

    assert ack["error"]["code"] == "SESSION_NOT_ACTIVE"
    assert await w.store.last_seq(SESSION) == 1


async def test_after_the_end_one_can_read_and_report_but_not_send(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    await user.call("send_message", {"sessionId": SESSION, "body": "last words"})
    w.gate.open.clear()
    await w.chat.close(SESSION, at_ms=2_000_000)

    late = await w.joined(LAWYER)
    assert (await late.call("mark_seen", {"sessionId": SESSION}))["updated"] == 1
    assert (await user.hears("message_status"))[0]["seenSeq"] == 1
    for client in (user, lawyer):
        ack = await client.call("send_message", {"sessionId": SESSION, "body": "too late"})
        assert ack["error"]["code"] == "SESSION_NOT_ACTIVE"
        ack = await client.call("typing", {"sessionId": SESSION, "isTyping": True})
        assert ack["error"]["code"] == "SESSION_NOT_ACTIVE"


async def test_the_close_in_the_store_refuses_even_when_the_gate_is_late(w: World) -> None:
    """The gate is a fast answer; the conversation's own row is the guard."""
    user = await w.joined(USER)
    await w.store.close_conversation(SESSION, at_ms=2_000)

    ack = await user.call("send_message", {"sessionId": SESSION, "body": "slipped through?"})

    assert ack["error"]["code"] == "SESSION_NOT_ACTIVE"
    assert await w.store.last_seq(SESSION) == 0


async def test_a_repeat_gets_the_first_answer_also_after_the_end(w: World) -> None:
    """The answer was lost with the connection; the client must learn that the message is stored."""
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    payload = {"sessionId": SESSION, "clientMsgId": "c1", "body": "Hello"}
    first = await user.call("send_message", payload)

    again = await user.call("send_message", payload)
    w.gate.open.clear()
    await w.chat.close(SESSION, at_ms=2_000_000)
    after_the_end = await user.call("send_message", payload)

    assert again == after_the_end == {**first, "duplicate": True}
    mismatch = await user.call("send_message", {**payload, "body": "Bye"})
    assert mismatch["error"]["code"] == "IDEMPOTENCY_MISMATCH"
    w.realtime.push.to_user(LAWYER, "session:tick", {})
    await lawyer.hears("session:tick")
    assert len(lawyer.told("new_message")) == 1


async def test_without_an_id_the_server_makes_one(w: World) -> None:
    user = await w.joined(USER)

    acks = [await user.call("send_message", {"sessionId": SESSION, "body": "same"}) for _ in range(2)]

    assert [ack["seq"] for ack in acks] == [1, 2]
    assert acks[0]["clientMsgId"] != acks[1]["clientMsgId"]


async def test_a_join_tells_what_was_missed_and_which_sends_arrived(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    for k in range(5):
        await user.call("send_message", {"sessionId": SESSION, "clientMsgId": f"c{k}", "body": f"m{k}"})
    await lawyer.call("mark_seen", {"sessionId": SESSION, "uptoSeq": 2})

    back = await w.connect(USER)
    ack = await back.call(
        "join_session", {"sessionId": SESSION, "afterSeq": 3, "pendingIds": ["c4", "c9", "c0"]}
    )

    assert [(m["seq"], m["body"]) for m in ack["messages"]] == [(4, "m3"), (5, "m4")]
    assert (ack["lastSeq"], ack["hasMore"], ack["billing"]["status"]) == (5, False, "ACTIVE")
    assert ack["watermarks"] == {
        USER: {"deliveredSeq": 0, "seenSeq": 0},
        LAWYER: {"deliveredSeq": 2, "seenSeq": 2},
    }
    assert {key: stored["seq"] for key, stored in ack["stored"].items()} == {"c0": 1, "c4": 5}
    assert w.gate.asked[-1] == (SESSION, USER)


@pytest.mark.parametrize("character", ["न", "\x01"])
async def test_a_long_absence_is_caught_up_in_answers_that_fit(w: World, character: str) -> None:
    """600 messages, some of them 24 to 48 KB in JSON: each answer stays under 256 KB and says whether there
    is more.
    """
    for k in range(600):
        body = character * 8_000 if k % 10 == 0 else f"message {k}"
        await w.store.append(session_id=SESSION, sender_id=USER, client_msg_id=str(k), body=body, at_ms=1)
    lawyer = await w.connect(LAWYER)
    seqs: list[int] = []
    answers = 0
    while True:
        ack = await lawyer.call("join_session", {"sessionId": SESSION, "afterSeq": seqs[-1] if seqs else 0})
        seqs += [message["seq"] for message in ack["messages"]]
        answers += 1
        assert len(json.dumps(ack, ensure_ascii=False).encode()) < 256 * 1024
        if not ack["hasMore"]:
            break

    assert seqs == list(range(1, 601))
    assert answers < 24


async def test_a_stranger_is_not_in_the_room_even_for_a_moment(w: World) -> None:
    """Who enters first and is checked later hears what is said in between."""
    lawyer, stranger = await w.joined(LAWYER), await w.connect(STRANGER)
    resume = asyncio.Event()
    original = w.store.page

    async def slow(*args: Any, **fields: Any) -> Any:
        await resume.wait()
        return await original(*args, **fields)

    w.store.page = slow  # type: ignore[method-assign]
    join = asyncio.create_task(stranger.call("join_session", {"sessionId": SESSION}))
    for _ in range(3):
        await lawyer.call("send_message", {"sessionId": SESSION, "body": "secret"})
    resume.set()

    assert (await join)["error"]["code"] == "NOT_FOUND"
    w.realtime.push.to_user(STRANGER, "session:tick", {})
    await stranger.hears("session:tick")
    assert stranger.told("new_message") == []


async def test_a_receipt_while_nothing_is_served_is_no_evidence(w: World) -> None:
    """After a crash the bill runs to the last evidence: reading an old chat must not lengthen it."""
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    await user.call("send_message", {"sessionId": SESSION, "body": "one"})
    await lawyer.call("message_delivered", {"sessionId": SESSION, "uptoSeq": 1})
    in_service = (await w.chat.evidence_ms([SESSION]))[SESSION]

    w.gate.open.clear()
    assert (await lawyer.call("mark_seen", {"sessionId": SESSION}))["updated"] == 1

    assert (await w.chat.evidence_ms([SESSION]))[SESSION] == in_service > 0


async def test_history_is_for_the_two_and_for_ever(w: World) -> None:
    for k in range(5):
        await w.store.append(session_id=SESSION, sender_id=USER, client_msg_id=str(k), body=str(k), at_ms=1)
    await w.chat.close(SESSION, at_ms=2_000)

    for person in (USER, LAWYER):
        page = await w.chat.history(person, SESSION, limit=2)
        assert ([message.seq for message in page.messages], page.has_more) == ([4, 5], True)
        assert len((await w.chat.history(person, SESSION, limit=0)).messages) == 1
        assert (await w.chat.overview(person, [SESSION]))[SESSION].unread == (5 if person == LAWYER else 0)
    for person, session in ((STRANGER, SESSION), (USER, "ses_none")):
        with pytest.raises(NotFound):
            await w.chat.history(person, session)
        with pytest.raises(NotFound):
            await w.chat.join(person, session)
        assert await w.chat.overview(person, [session]) == {}


async def test_a_message_of_8000_emoji_passes(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)

    ack = await user.call("send_message", {"sessionId": SESSION, "body": "😀" * 8_000})

    assert ack["ok"]
    assert (await lawyer.hears("new_message"))[0]["body"] == "😀" * 8_000


async def test_presence_is_a_persons_not_a_sockets(tmp_path: Path) -> None:
    async with world(tmp_path, SocketOptions(presence_grace_s=0.05)) as w:
        lawyer = await w.joined(LAWYER)
        phone = await w.connect(USER)
        ack = await phone.call("join_session", {"sessionId": SESSION})
        assert ack["presence"] == {USER: "ONLINE", LAWYER: "ONLINE"}
        laptop = await w.joined(USER)
        await phone.sio.disconnect()
        await laptop.call("leave_session", {"sessionId": SESSION})

        assert await lawyer.hears("presence", 2) == [
            {"sessionId": SESSION, "userId": USER, "state": "ONLINE"},
            {"sessionId": SESSION, "userId": USER, "state": "OFFLINE"},
        ]
        assert laptop.sio.connected
        assert not w.realtime.presence.is_here(SESSION, USER)


async def test_a_failed_join_is_no_presence(w: World) -> None:
    user = await w.connect(USER)

    async def away(*_args: object, **_fields: object) -> None:
        raise Unavailable

    w.store.page = away  # type: ignore[method-assign]
    ack = await user.call("join_session", {"sessionId": SESSION})

    assert ack["error"]["code"] == "STORAGE_UNAVAILABLE"
    w.realtime.push.to_session(SESSION, "new_message", {})
    w.realtime.push.to_user(USER, "session:tick", {})
    await user.hears("session:tick")
    assert user.told("new_message") == []


async def test_typing_reaches_the_others_and_a_repeat_does_not(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)

    for is_typing in (True, True, True, False):
        assert await user.call("typing", {"sessionId": SESSION, "isTyping": is_typing}) == {"ok": True}

    assert await lawyer.hears("typing", 2) == [
        {"sessionId": SESSION, "userId": USER, "isTyping": True},
        {"sessionId": SESSION, "userId": USER, "isTyping": False},
    ]
    assert user.told("typing") == []


async def test_typing_from_outside_the_room_is_refused(w: World) -> None:
    user = await w.connect(USER)

    ack = await user.call("typing", {"sessionId": SESSION, "isTyping": True})

    assert ack["error"]["code"] == "NOT_JOINED"


async def test_a_receipt_that_changes_nothing_is_told_to_nobody(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)
    await user.call("send_message", {"sessionId": SESSION, "body": "one"})

    for _ in range(3):
        await lawyer.call("mark_seen", {"sessionId": SESSION})
    await lawyer.call("message_delivered", {"sessionId": SESSION, "uptoSeq": 1})
    w.realtime.push.to_user(USER, "session:tick", {})
    await user.hears("session:tick")

    assert len(user.told("message_status")) == 1


@pytest.mark.parametrize(
    "message_id", ["ses_1:000000002", "ses_2:000000001", "nonsense", "ses_1:1", "ses_1:00000000x"]
)
async def test_a_receipt_for_a_message_that_does_not_exist_is_refused(w: World, message_id: str) -> None:
    lawyer = await w.joined(LAWYER)
    await w.store.append(session_id=SESSION, sender_id=USER, client_msg_id="1", body="one", at_ms=1)

    ack = await lawyer.call("message_delivered", {"sessionId": SESSION, "messageId": message_id})

    assert ack["error"]["code"] == "NOT_FOUND"


async def test_billing_news_reach_a_person_wherever_they_are_and_in_order(w: World) -> None:
    phone, laptop, lawyer = await w.connect(USER), await w.joined(USER), await w.joined(LAWYER)

    for k in range(100):
        w.realtime.push.post_to_user(USER, "session:tick", {"k": k, "walletBalance": "9.00"})
    w.realtime.push.post_to_user(LAWYER, "session:tick", {"k": 0})

    for client in (phone, laptop):
        ticks = await client.hears("session:tick", 100)
        assert [tick["k"] for tick in ticks] == list(range(100))
    await lawyer.hears("session:tick")
    assert lawyer.events == [("session:tick", {"k": 0})]


async def test_a_client_that_wants_no_ack_is_fine(w: World) -> None:
    user = await w.joined(USER)

    await user.tell("send_message", {"sessionId": SESSION, "body": "no answer, please"})
    await user.tell("send_message", {"sessionId": SESSION, "body": ""})
    await user.tell("no_such_event")

    assert len(await user.hears("new_message")) == 1
    assert (await user.call("mark_seen", {"sessionId": SESSION}))["ok"]


async def test_watching_knows_who_is_connected(w: World) -> None:
    assert not w.realtime.push.watching(USER)
    user = await w.connect(USER)
    assert w.realtime.push.watching(USER)
    await user.sio.disconnect()
    await until(lambda: not w.realtime.push.watching(USER))
