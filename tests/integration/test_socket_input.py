"""Whatever a client sends: exactly one acknowledgement that names what is wrong, and nothing changed."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chat.byes import BAD_PACKET, TOO_LARGE, Bye
from chat.event_types import Failure, SessionPayload
from chat.events import CLIENT_EVENTS
from tests.integration.socket_world import LAWYER, SESSION, USER, Raw, World, gone, raw, world


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as the_world:
        yield the_world


VALID: dict[str, dict[str, Any]] = {
    "join_session": {"sessionId": SESSION, "afterSeq": 0, "pendingIds": ["a"]},
    "send_message": {"sessionId": SESSION, "clientMsgId": "a", "body": "Hello"},
    "message_delivered": {"sessionId": SESSION, "uptoSeq": 1},
    "mark_seen": {"sessionId": SESSION, "uptoSeq": 1},
    "typing": {"sessionId": SESSION, "isTyping": True},
    "leave_session": {"sessionId": SESSION},
    "consult:request": {"lawyerId": LAWYER},
    "consult:accept": {"sessionId": SESSION},
    "consult:decline": {"sessionId": SESSION},
    "consult:cancel": {"sessionId": SESSION},
    "consult:queue": {"lawyerId": LAWYER},
    "consult:unqueue": {"lawyerId": LAWYER},
    "auth:refresh": {"token": USER},
    "rtc:invite": {"sessionId": SESSION, "partyId": "p", "media": "audio"},
    "rtc:accept": {"sessionId": SESSION, "callId": "c", "partyId": "p"},
    "rtc:reject": {"sessionId": SESSION, "callId": "c"},
    "rtc:hangup": {"sessionId": SESSION, "callId": "c"},
    "rtc:signal": {"sessionId": SESSION, "callId": "c", "n": 1, "kind": "offer", "sdp": "v=0"},
    "rtc:ice_config": {"sessionId": SESSION},
}
#: Events that concern one session.
OF_A_SESSION = [name for name, event in CLIENT_EVENTS.items() if issubclass(event.payload, SessionPayload)]
#: The name of a device or a call is shorter than that of a session.
CALL_EVENTS = ("rtc:accept", "rtc:reject", "rtc:hangup", "rtc:signal")
#: Sent as JSON text, since a proper JSON library would not write all of it.
NO_ID = ["null", "17", "true", "[]", "{}", '""', '"\\u0000"', '"नमस्ते"', '"a\\nb"', f'"{"x" * 129}"']
NO_SEQ = [
    '"1"', "1.5", "-1", "true", "false", "[]", "{}", "NaN", "Infinity", "-Infinity", "1e400", "1e3",
    "9007199254740992", "99999999999999999999999999", f"{'9' * 4000}", '"\\u0000"',
]  # fmt: skip
NO_BODY = [
    "null", "17", "true", "[]", "{}", '""', '"   \\n\\t "', '"\\u2003"', f'"{"x" * 8001}"', '"a\\u0000b"',
    '"\\ud83d"', '"half \\udc00 pair"', "NaN",
]  # fmt: skip
NO_BOOL = ["null", '"true"', "0", "1", "[]", "{}", '"\\u0000"', "NaN"]
NO_AMOUNT = [
    "17",
    "true",
    "[]",
    "{}",
    '""',
    '"-1"',
    '"1e3"',
    '"1,50"',
    '" 1"',
    '"\\u0967"',
    '"NaN"',
    f'"{"9" * 13}"',
]
NO_IDS = [
    "null", '"a"', "17", "{}", "true", "[17]", "[null]", '[["a"]]', '[""]', '["\\u0000"]', f'["{"x" * 129}"]',
    json.dumps([str(k) for k in range(51)]),
]  # fmt: skip
NO_NAME = [bad for bad in NO_ID if len(bad) < 100] + [f'"{"x" * 65}"']
NO_WORD = ["null", "17", "true", "[]", "{}", '""', '"AUDIO"', '"\\u0000"', "NaN"]
NO_SDP = [
    "null",
    "17",
    "true",
    "[]",
    "{}",
    '""',
    '"a\\u0000b"',
    '"\\ud83d"',
    f'"{"x" * 32_767}"',
    f'"{chr(10) * 0}{"é" * 17_000}"',
]
NO_CANDIDATES = [
    "null",
    '"a"',
    "{}",
    "[]",
    "[17]",
    "[null]",
    "[{}]",
    '[{"candidate":null}]',
    '[{"candidate":"a\\u0000"}]',
    '[{"candidate":"","sdpMLineIndex":-1}]',
    '[{"candidate":"","sdpMLineIndex":"0"}]',
    '[{"candidate":"","sdpMid":0}]',
    f'[{{"candidate":"{"x" * 2_049}"}}]',
    json.dumps([{"candidate": ""}] * 65),
    json.dumps([{"candidate": "x" * 2_000}] * 17),
]
NO_MESSAGE_ID = ["17", "true", "[]", "{}", '""', f'"{"x" * 257}"', '"\\ud83d"']

NO_TOKEN = ["null", "17", "true", "[]", "{}", '""', '"\\u0000"', '"नमस्ते"', '"a\\nb"', f'"{"x" * 8193}"']

CASES = [
    *((event, "sessionId", bad) for event in OF_A_SESSION for bad in NO_ID),
    *((event, "lawyerId", bad) for event in VALID if "lawyerId" in VALID[event] for bad in NO_ID),
    *(("consult:request", "maxAmount", bad) for bad in NO_AMOUNT),
    *(("join_session", "afterSeq", bad) for bad in ["null", *NO_SEQ]),
    *(("join_session", "pendingIds", bad) for bad in NO_IDS),
    *(("send_message", "body", bad) for bad in NO_BODY),
    *(("send_message", "clientMsgId", bad) for bad in NO_ID if bad != "null"),
    *(("message_delivered", "uptoSeq", bad) for bad in ["null", *NO_SEQ]),
    *(("message_delivered", "messageId", bad) for bad in NO_MESSAGE_ID),
    *(("mark_seen", "uptoSeq", bad) for bad in NO_SEQ),
    *(("typing", "isTyping", bad) for bad in NO_BOOL),
    *(("auth:refresh", "token", bad) for bad in NO_TOKEN),
    *(("join_session", "partyId", bad) for bad in NO_NAME if bad != "null"),
    *((event, "partyId", bad) for event in ("rtc:invite", "rtc:accept") for bad in NO_NAME),
    *((event, "callId", bad) for event in CALL_EVENTS for bad in NO_NAME),
    *(("rtc:invite", "media", bad) for bad in NO_WORD),
    *(("rtc:signal", "n", bad) for bad in ["null", "0", *NO_SEQ]),
    *(("rtc:signal", "kind", bad) for bad in NO_WORD),
    *(("rtc:signal", "sdp", bad) for bad in NO_SDP),
    *(("rtc:signal", "candidates", bad) for bad in NO_CANDIDATES),
]


def test_the_matrix_covers_every_event_of_the_table() -> None:
    assert set(VALID) == set(CLIENT_EVENTS)


async def test_every_bad_field_is_named_in_exactly_one_ack_and_changes_nothing(w: World) -> None:
    """All cases over one connection: none of them may break it for the next."""
    await w.store.append(session_id=SESSION, sender_id=USER, client_msg_id="0", body="zero", at_ms=1)
    before = await w.store.page(SESSION, limit=100)
    async with raw(w.port) as client:
        await client.login()
        await client.ws.send_str('420["join_session",{"sessionId":"ses_1"}]')
        assert json.loads((await client.until("430"))[3:])[0]["ok"]

        for n, (event, name, bad) in enumerate(CASES, start=1):
            fields = {key: json.dumps(value) for key, value in VALID[event].items()} | {name: bad}
            if name == "messageId":
                fields.pop("uptoSeq")
            if name == "candidates":
                fields["kind"] = '"candidates"'
                fields.pop("sdp")
            text = ",".join(f'"{key}":{value}' for key, value in fields.items())
            await client.ws.send_str(f'42{n}["{event}",{{{text}}}]')

            frame = await client.frame()

            assert frame.startswith(f"43{n}["), (event, name, bad, frame)
            (ack,) = json.loads(frame.removeprefix(f"43{n}"))
            Failure.model_validate(ack)
            assert ack["error"]["code"] == "VALIDATION_FAILED", (event, name, bad, ack)
            named = {problem["field"].partition(".")[0] for problem in ack["error"]["fields"]}
            assert named == {name}, (event, name, bad, ack)
            assert len(frame) < 1_000, "what was wrong is not repeated to the sender"

        # Exactly one each: the next frame is the answer to the next event.
        await client.ws.send_str('429999["typing",{"sessionId":"ses_1","isTyping":false}]')
        assert await client.frame() == '439999[{"ok":true}]'
    assert await w.store.page(SESSION, limit=100) == before


@pytest.mark.parametrize("event", sorted(VALID))
@pytest.mark.parametrize(
    "payload", ["", ",null", ",[]", ',"x"', ",17", ",true", ',[{"sessionId":"ses_1"}]', ",NaN"]
)
async def test_a_payload_that_is_no_object_is_named_so(w: World, event: str, payload: str) -> None:
    async with raw(w.port) as client:
        await client.login()
        await client.ws.send_str(f'427["{event}"{payload}]')

        (ack,) = json.loads((await client.frame()).removeprefix("437"))

    assert ack["error"]["fields"] == [{"field": "payload", "message": "the payload must be an object"}]


@pytest.mark.parametrize(
    ("event", "missing"), [(event, name) for event, fields in VALID.items() for name in fields]
)
async def test_a_missing_field_is_named_or_has_its_default(w: World, event: str, missing: str) -> None:
    optional = {"afterSeq", "pendingIds", "clientMsgId"} | ({"uptoSeq"} if event == "mark_seen" else set())
    user = await w.joined(USER)

    ack = await user.call(event, {key: value for key, value in VALID[event].items() if key != missing})

    if missing in optional:
        assert ack["ok"]
    else:
        assert [problem["field"] for problem in ack["error"]["fields"]] == [missing]


async def test_a_receipt_names_one_position_not_two(w: World) -> None:
    user = await w.joined(USER)

    ack = await user.call("message_delivered", {"sessionId": SESSION, "messageId": "m", "uptoSeq": 1})

    assert [problem["field"] for problem in ack["error"]["fields"]] == ["uptoSeq"]


async def test_unknown_fields_are_ignored_and_both_spellings_read(w: World) -> None:
    user = await w.joined(USER)

    ack = await user.call(
        "send_message", {"session_id": SESSION, "client_msg_id": "c", "body": "x", "future": {}}
    )

    assert (ack["ok"], ack["clientMsgId"]) == (True, "c")


@pytest.mark.parametrize(
    "event",
    [
        '"no_such_event"',
        '"connect"',
        '"disconnect"',
        '"__init__"',
        '"handle"',
        '""',
        "17",
        "null",
        "{}",
        "[]",
        "true",
    ],
)
async def test_an_unknown_event_is_answered_and_the_connection_stays(w: World, event: str) -> None:
    """A client's own event named "disconnect" must not pass for the real thing."""
    async with raw(w.port) as client:
        await client.login()
        await client.ws.send_str(f'428[{event},{{"sessionId":"ses_1"}}]')

        (ack,) = json.loads((await client.frame()).removeprefix("438"))

        assert ack["error"]["code"] == "UNKNOWN_EVENT"
        assert w.realtime.push.watching(USER)
        await client.ws.send_str('429["join_session",{"sessionId":"ses_1"}]')
        assert (await client.frame()).startswith('439[{"ok":true')


@pytest.mark.parametrize(
    "text", ['["send_message",{"sessionId":', '["send_message",{]', "[" * 50_000, '["x",{"a":"\\q"}]']
)
async def test_an_event_that_is_no_json_is_still_answered(w: World, text: str) -> None:
    async with raw(w.port) as client:
        await client.login()
        await client.ws.send_str("425" + text)

        (ack,) = json.loads((await client.frame()).removeprefix("435"))

        assert ack["error"]["fields"][0]["field"] == "payload"
        Failure.model_validate(ack)


@pytest.mark.parametrize(
    "frame",
    [
        "x", "9", "42", "42{}", "42[]", "4", '4{"a":1}', "47", "4x", "42/admin,[]", '42["unfinished"', "44", "45",
        "4512-[]", "4599999999999-[1]", "452-", b"\x00\x01", b"", "🎈", "4" + "9" * 300,
    ],
)  # fmt: skip
async def test_a_frame_that_means_nothing_costs_only_its_own_connection(
    w: World, frame: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    user = await w.joined(USER)
    async with raw(w.port) as client:
        await client.login()
        if isinstance(frame, bytes):
            await client.ws.send_bytes(frame)
        else:
            await client.ws.send_str(frame)
        await client.ws.send_str('421["typing",{"sessionId":"ses_1","isTyping":true}]')

        answer = await client.until("431")

        # Either it was ignored and the next event is answered, or the connection is closed. Nothing hangs.
        assert answer.startswith('431[{"ok":false') or not answer
    assert (await user.call("send_message", {"sessionId": SESSION, "body": "still fine"}))["ok"]
    assert not [record for record in caplog.records if record.exc_info], "clients must not fill the log"
    await gone(w, left=1)


async def test_a_binary_payload_is_answered(w: World) -> None:
    user = await w.joined(USER)

    ack = await user.call("send_message", {"sessionId": SESSION, "body": b"bytes"})

    assert [problem["field"] for problem in ack["error"]["fields"]] == ["body"]


async def test_attachments_cannot_be_piled_up(w: World) -> None:
    """Announced by the million and kept in memory while they come (CVE-2026-48804)."""
    async with raw(w.port) as client:
        await client.login()
        await client.ws.send_str('451000000-1["send_message",{}]')

        await says_goodbye(client, BAD_PACKET)


async def test_a_frame_too_large_is_not_read(w: World) -> None:
    async with raw(w.port) as client:
        await client.login()
        await client.ws.send_str('421["send_message",{"sessionId":"ses_1","body":"' + "x" * 200_000 + '"}]')

        await says_goodbye(client, TOO_LARGE)
    assert await w.store.last_seq(SESSION) == 0


async def says_goodbye(client: Raw, bye: Bye) -> None:
    """Why, how long to stay away, and the end."""
    name, view = json.loads((await client.until("42"))[2:])
    least_ms, most_ms = bye.wait_ms or (0, 0)
    assert (name, view["code"], view["reason"], view["reconnect"]) == (
        "server:bye",
        bye.code,
        bye.reason,
        True,
    )
    assert least_ms <= view["retryAfterMs"] <= most_ms
    assert await client.frame() == ""
