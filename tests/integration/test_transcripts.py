"""A consultation as a document (SPEC 14): complete, in order, for its two parties, and nobody can forge a line of it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp
import pytest

from billing_engine.errors import Unavailable
from server.transcripts.service import PAGE
from server.transcripts.wire import TranscriptOut
from tests.support.api import Api, ApiClock, Person, open_api


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path) as api:
        yield api


async def say(api: Api, person: Person, session_id: str, *bodies: str) -> None:
    socket = await api.connect(person.token)
    for body in bodies:
        ack = await socket.call("send_message", {"sessionId": session_id, "body": body})
        assert ack["ok"], ack


async def text_of(person: Person, session_id: str) -> str:
    answer = await person.get(f"/chat/{session_id}/transcript?format=text")
    assert answer.status == 200, answer.text
    return str(answer.text)


async def json_of(person: Person, session_id: str) -> Any:
    answer = await person.get(f"/chat/{session_id}/transcript")
    assert answer.status == 200, answer.text
    return answer.json


async def test_a_transcript_tells_what_was_said_and_paid_in_order(api: Api) -> None:
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer(rate="60.00")
    session_id = await user.start(lawyer.id)
    await say(api, user, session_id, "Good morning.\nI have a question.")
    await api.advance(5)
    await say(api, lawyer, session_id, "Please.")
    await api.advance(60)
    await user.end(session_id)

    assert await text_of(lawyer, session_id) == (
        f"Consultation {session_id}\n"
        "between Asha (user) and Adv. 2 (lawyer)\n"
        "Rate: 60.00 INR a minute. Times: Asia/Kolkata.\n"
        "\n"
        "[2026-01-01 05:30:00 +0530] * The consultation began.\n"
        "\n"
        "[2026-01-01 05:30:00 +0530] Asha (user):\n"
        "    Good morning.\n"
        "    I have a question.\n"
        "\n"
        "[2026-01-01 05:30:05 +0530] Adv. 2 (lawyer):\n"
        "    Please.\n"
        "\n"
        "[2026-01-01 05:31:05 +0530] * The consultation ended: USER_ENDED.\n"
        "\n"
        "Total: 65.00 INR for 65 seconds.\n"
        "End of the transcript. Messages: 2.\n"
    )
    told = await json_of(user, session_id)
    assert told == await json_of(lawyer, session_id), "it is one document for both"
    assert set(told) == {field.alias for field in TranscriptOut.model_fields.values()}
    assert [(entry["type"], entry.get("event", entry.get("body"))) for entry in told["entries"]] == [
        ("event", "start"),
        ("message", "Good morning.\nI have a question."),
        ("message", "Please."),
        ("event", "end"),
    ]
    assert told["entries"][1]["sender"] == {"id": user.id, "role": "USER", "name": "Asha"}
    assert told["total"] == {
        "totalAmount": "65.00",
        "durationSeconds": 65,
        "status": "ENDED",
        "endReason": "USER_ENDED",
        "isFinal": True,
        "messageCount": 2,
    }


async def test_it_is_saved_under_a_name_and_never_kept_by_a_cache(api: Api) -> None:
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    session_id = await user.start(lawyer.id)
    for form, ending, media_type in (("json", "json", "application/json"), ("text", "txt", "text/plain")):
        for method in ("GET", "HEAD"):
            answer = await user.call(method, f"/chat/{session_id}/transcript?format={form}")
            assert answer.status == 200
            assert (
                answer.headers["Content-Disposition"]
                == f'attachment; filename="consultation-{session_id}.{ending}"'
            )
            assert answer.headers["Content-Type"] == f"{media_type}; charset=utf-8"
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Request-Id"]
            assert (answer.text == "") == (method == "HEAD")


async def test_a_running_consultation_has_a_transcript_so_far(api: Api) -> None:
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    session_id = await user.start(lawyer.id)
    await api.advance(7)
    assert "Total so far: 7.00 INR for 7 seconds.\nEnd of the transcript. Messages: 0.\n" in await text_of(
        user, session_id
    )
    told = await json_of(user, session_id)
    assert (told["total"]["isFinal"], told["total"]["endReason"]) == (False, None)


async def test_a_restart_is_on_it_as_a_pause(tmp_path: Path) -> None:
    clock = ApiClock()
    async with open_api(tmp_path, clock=clock) as api:
        user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
        session_id = await user.start(lawyer.id)
        await say(api, user, session_id, "before")
        await api.advance(10)
    clock.jump_ms(30_000)
    async with open_api(tmp_path, clock=clock) as api:
        user = await api.log_in(user.email)
        await say(api, user, session_id, "after")
        await user.end(session_id)
        told = await json_of(user, session_id)
        shown = [
            (e.get("event"), e.get("reason")) if e["type"] == "event" else e["body"] for e in told["entries"]
        ]
        assert shown == [
            ("start", None),
            "before",
            ("pause", "SERVER"),
            ("resume", "SERVER"),
            "after",
            ("end", "USER_ENDED"),
        ]
        assert told["total"]["durationSeconds"] == 10
        text = await text_of(user, session_id)
        assert "] * Paused: SERVER.\n" in text
        assert "] * Resumed: SERVER.\n" in text


@pytest.mark.parametrize("form", ["json", "text"])
async def test_strangers_learn_nothing_from_it(api: Api, form: str) -> None:
    """`test_authorisation` has every role; here: the answer is that of a consultation that does not exist."""
    user, lawyer, stranger = await api.a_user("500.00"), await api.a_lawyer(), await api.a_user()
    session_id = await user.start(lawyer.id)
    answer = await stranger.get(f"/chat/{session_id}/transcript?format={form}")
    assert (answer.status, answer.code) == (404, "NOT_FOUND")
    assert "Content-Disposition" not in answer.headers


FORGERIES = [
    f"Yes.{newline}{newline}[2026-01-01 05:30:09 +0530] Adv. 2 (lawyer):{newline}    It is all free of charge."
    for newline in ("\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029")
] + ["\x1b[2J\x1b[HNothing was said.", "\u202eeslaf\u202c", "\u2067x\u2069", "a\x08b\x7f"]


@pytest.mark.parametrize("forgery", FORGERIES, ids=[f"{body[4:8]!r}" for body in FORGERIES])
async def test_nobody_writes_into_somebody_elses_mouth(api: Api, forgery: str) -> None:
    """The lawyer's words would be evidence against the lawyer."""
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    session_id = await user.start(lawyer.id)
    await say(api, user, session_id, forgery, "End of the transcript. Messages: 0.")
    text = await text_of(user, session_id)
    at_the_margin = [line for line in text.splitlines() if line and not line.startswith("    ")]
    assert [line.partition("] ")[2] for line in at_the_margin if line.startswith("[")] == [
        "* The consultation began.",
        "Asha (user):",
        "Asha (user):",
    ]
    assert len(at_the_margin) == 3 + 3 + 2
    assert not set(text) & set("\x1b\x08\x7f\u202e\u202c\u2067\u2069\v\f\r\x85\u2028\u2029")
    # Programs get it as it was said.
    entries = (await json_of(user, session_id))["entries"]
    assert next(entry["body"] for entry in entries if entry["type"] == "message") == forgery


async def test_times_are_those_of_the_place_also_when_its_clock_is_turned(tmp_path: Path) -> None:
    zone = ZoneInfo("Europe/Berlin")
    clock = ApiClock(int(datetime(2026, 10, 25, 0, 59, 50, tzinfo=UTC).timestamp()) * 1000)
    async with open_api(tmp_path, clock=clock, timezone=zone.key) as api:
        user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
        session_id = await user.start(lawyer.id)
        await api.advance(20)
        await user.end(session_id)
        text = await text_of(user, session_id)
    assert "[2026-10-25 02:59:50 +0200] * The consultation began.\n" in text
    assert "[2026-10-25 02:00:10 +0100] * The consultation ended: USER_ENDED.\n" in text


async def long_chat(api: Api, count: int) -> tuple[Person, str]:
    user, lawyer = await api.a_user("500.00"), await api.a_lawyer()
    session_id = await user.start(lawyer.id)
    socket = await api.connect(user.token)
    await asyncio.gather(
        *(
            socket.call("send_message", {"sessionId": session_id, "body": f"{k:05d}" + "x" * 2_000})
            for k in range(count)
        )
    )
    return user, session_id


async def test_a_long_chat_comes_in_pieces_and_others_have_their_turn_in_between(api: Api) -> None:
    """Written in one go, the transcript of a long chat would delay every tick and every cut-off."""
    count = 10 * PAGE + 1
    user, session_id = await long_chat(api, count)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    for form in (api.services.transcripts.text, api.services.transcripts.json):
        pieces: list[bytes] = []
        task = asyncio.create_task(others())
        before = None
        async for piece in await form(session_id, caller_id=user.id):
            if before is not None and len(pieces) > 1:
                assert turns > before, "nobody else had a turn between two pages"
            before = turns
            pieces.append(piece)
        task.cancel()
        assert len(pieces) > count / PAGE
        assert max(len(piece) for piece in pieces) < PAGE * 3_000
    told = await json_of(user, session_id)
    said = [entry["body"][:5] for entry in told["entries"] if entry["type"] == "message"]
    assert said == [f"{k:05d}" for k in range(count)]


async def test_what_is_said_meanwhile_stays_out(api: Api) -> None:
    user, session_id = await long_chat(api, PAGE + 10)
    pieces = await api.services.transcripts.json(session_id, caller_id=user.id)
    written = await anext(pieces)
    await say(api, user, session_id, "too late")
    written += b"".join([piece async for piece in pieces])
    told = json.loads(written)
    assert told["total"]["messageCount"] == PAGE + 10
    assert "too late" not in {entry.get("body") for entry in told["entries"]}


@pytest.mark.parametrize("form", ["json", "text"])
async def test_a_transcript_that_breaks_off_does_not_look_complete(
    api: Api, form: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Half of a conversation, taken for the whole, would be worse than none."""
    user, session_id = await long_chat(api, 3 * PAGE)
    whole = api.services.chat.history

    async def breaks(*args: Any, after_seq: int, **more: Any) -> Any:
        if after_seq >= PAGE:
            raise Unavailable(reason="a test")
        return await whole(*args, after_seq=after_seq, **more)

    monkeypatch.setattr(api.services.chat, "history", breaks)
    with caplog.at_level(logging.ERROR), pytest.raises(aiohttp.ClientPayloadError):
        await user.get(f"/chat/{session_id}/transcript?format={form}")
    assert caplog.records == []
    monkeypatch.undo()
    assert (await user.get(f"/chat/{session_id}/transcript?format={form}")).status == 200
