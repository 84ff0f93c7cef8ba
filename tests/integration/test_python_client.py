"""The Python client against a server that does what a test writes down: refusals, silence, gaps, goodbyes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tarazu_client import Client, Draft, MemoryStorage, Refused, SignedOut, chat
from tarazu_client.backoff import Backoff
from tests.integration.scripted_socket import (
    ME,
    PATIENCE_S,
    PEER,
    SESSION,
    SILENCE,
    Json,
    Script,
    bill,
    refusal,
    scripted,
)
from tests.support.client_apps import App


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    async with scripted() as running:
        yield running


@asynccontextmanager
async def app_at(script: Script, *, after_seq: int = 0, **more: Any) -> AsyncIterator[App]:
    """A device whose tokens are numbered."""
    count = 0

    async def token() -> str:
        nonlocal count
        count += 1
        return f"token {count}"

    async with Client(script.url, token=token, user_id=ME, backoff=Backoff(0.02, 0.1), **more) as client:
        yield await App(client).open(SESSION, after_seq=after_seq)


def first_times(answer: Any, times: int, then: Any = None) -> Callable[[Json], Any]:
    """Answer so the first few times, then otherwise (None: as the real one does)."""
    left = times

    def asked(_payload: Json) -> Any:
        nonlocal left
        left -= 1
        return answer if left >= 0 else then

    return asked


# -- the outbox ----------------------------------------------------------------------------------------------------


async def test_nothing_is_sent_before_the_join_is_answered(script: Script) -> None:
    script.answers["join_session"] = first_times(SILENCE, 1)
    async with app_at(script) as app:
        await app.chat.send("one")
        await script.until(lambda: script.asked != [])
        await app.chat.send("two")
        # Another event of this connection is answered, so a send would have been here by now.
        await app.client.call("typing", {"sessionId": SESSION, "isTyping": True})
        assert [event for event, _ in script.asked] == ["join_session", "typing"]
        script.cut()
        await app.has(2)
        assert [event for event, _ in script.asked][2:4] == ["join_session", "send_message"]


async def test_what_the_join_says_is_stored_is_not_sent_again(script: Script) -> None:
    script.answers["send_message"] = lambda payload: (
        script.store(ME, payload["clientMsgId"], payload["body"]),
        SILENCE,
    )[1]
    script.is_silent = True
    async with app_at(script) as app:
        await app.chat.joined()
        sent = await app.chat.send("one")
        await script.until(lambda: len(script.stored) == 1)
        script.cut()
        assert await sent == 1
        assert app.bodies == ["one"]
        joins = [payload for event, payload in script.asked if event == "join_session"]
        assert [payload["pendingIds"] for payload in joins] == [[], [sent.client_msg_id]]
        assert script.bodies_asked() == ["one"]


async def test_what_an_app_knows_to_be_stored_after_its_death_is_not_sent_again(script: Script) -> None:
    """It was killed after it had stored the message and before it had forgotten the draft."""
    script.store(ME, "a", "one")
    storage = MemoryStorage()
    for draft in (Draft(SESSION, "a", "one"), Draft(SESSION, "b", "two")):
        await storage.put(draft)
    async with app_at(script, after_seq=1, storage=storage) as app:
        await app.has(2)
        await app.chat.flushed()
        assert script.bodies_asked() == app.bodies == ["two"]
    assert await storage.load(SESSION) == []


class SlowStorage(MemoryStorage):
    """The first that is to be forgotten takes until somebody gives up."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def drop(self, session_id: str, client_msg_ids: Sequence[str]) -> None:
        if not self.asked.is_set():
            self.asked.set()
            await asyncio.Event().wait()
        await super().drop(session_id, client_msg_ids)


async def test_what_was_being_forgotten_when_the_app_was_closed_is_forgotten(script: Script) -> None:
    storage = SlowStorage()
    async with app_at(script, storage=storage) as app:
        await app.chat.send("one")
        await asyncio.wait_for(storage.asked.wait(), PATIENCE_S)
    assert await storage.load(SESSION) == []


async def test_an_echo_is_as_good_as_an_acknowledgement(script: Script) -> None:
    script.answers["send_message"] = lambda payload: (
        script.store(ME, payload["clientMsgId"], payload["body"]),
        SILENCE,
    )[1]
    async with app_at(script) as app:
        assert await (await app.chat.send("one")) == 1
        assert await (await app.chat.send("two")) == 2
        assert script.bodies_asked() == ["one", "two"]
        assert app.chat.waiting == 0


async def test_at_most_twenty_are_without_an_answer(script: Script) -> None:
    async with app_at(script) as app:
        await (await app.chat.send("first"))
        script.answers["send_message"] = lambda _payload: SILENCE
        for k in range(50):
            await app.chat.send(f"{k}")
        await script.until(lambda: len(script.bodies_asked()) == 21)
        await app.client.call("typing", {"sessionId": SESSION, "isTyping": True})
        assert script.bodies_asked()[1:] == [f"{k}" for k in range(20)]


async def test_a_silent_server_is_asked_again_under_the_same_name(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "ACK_S", 0.1)
    script.answers["send_message"] = first_times(SILENCE, 2)
    async with app_at(script) as app:
        sent = await app.chat.send("one")
        assert await sent == 1
        assert {payload["clientMsgId"] for event, payload in script.asked if event == "send_message"} == {
            sent.client_msg_id
        }
        assert script.bodies_asked() == ["one"] * 3


async def test_a_refusal_is_waited_for_as_long_as_it_says_and_nothing_overtakes(script: Script) -> None:
    at_s: list[float] = []
    wait_ms = 300

    def refuse(_payload: Json) -> Any:
        at_s.append(asyncio.get_running_loop().time())
        return refusal("RATE_LIMITED", retryable=True, retryAfterMs=wait_ms) if len(at_s) < 3 else None

    script.answers["send_message"] = refuse
    async with app_at(script) as app:
        sents = [await app.chat.send(f"{k}") for k in range(30)]
        await app.chat.flushed()
        assert [await sent for sent in sents] == list(range(1, 31))
        assert script.bodies_asked()[:3] == ["0", "0", "0"], "one alone, until it is stored"
        assert at_s[1] - at_s[0] >= wait_ms / 1000
        assert at_s[2] - at_s[1] >= wait_ms / 1000
        assert [message["body"] for message in script.stored] == [f"{k}" for k in range(30)]


async def test_what_is_refused_for_good_is_told_and_does_not_hold_up_the_rest(script: Script) -> None:
    script.answers["send_message"] = lambda payload: (
        refusal("VALIDATION_FAILED", retryable=False, fields=[{"field": "body", "message": "no"}])
        if payload["body"] == "bad"
        else None
    )
    async with app_at(script) as app:
        good, bad, last = [await app.chat.send(body) for body in ("good", "bad", "last")]
        with pytest.raises(Refused) as refused:
            await bad
        assert (refused.value.code, refused.value.fields) == (
            "VALIDATION_FAILED",
            [{"field": "body", "message": "no"}],
        )
        assert (await good, await last, bad.seq) == (1, 2, None)
        assert [draft.body for draft, _ in app.failed] == ["bad"]


async def test_a_session_that_is_not_served_for_a_moment_keeps_what_is_said(script: Script) -> None:
    """After a process has died its sessions are not served until another one takes them up; what was said then is no loss."""
    script.answers["send_message"] = first_times(refusal("SESSION_NOT_ACTIVE", retryable=False), 3)
    async with app_at(script) as app:
        assert await (await app.chat.send("one")) == 1
        assert app.failed == []
        script.status = "ENDED"
        script.answers["send_message"] = lambda _payload: refusal("SESSION_NOT_ACTIVE", retryable=False)
        with pytest.raises(Refused, match="SESSION_NOT_ACTIVE"):
            await (await app.chat.send("too late"))


async def test_a_tick_of_an_active_session_ends_the_wait(script: Script) -> None:
    script.answers["send_message"] = first_times(
        refusal("SESSION_PAUSED", retryable=True, retryAfterMs=3_600_000), 1
    )
    async with app_at(script) as app:
        sent = await app.chat.send("one")
        await script.until(lambda: script.bodies_asked() == ["one"])
        await app.client.call("typing", {"sessionId": SESSION, "isTyping": True})
        script.tell("session:resumed", bill("ACTIVE", 0))
        assert await sent == 1


# -- what comes ----------------------------------------------------------------------------------------------------


async def test_pages_are_asked_for_until_there_is_no_more(script: Script) -> None:
    for k in range(7):
        script.store(PEER, f"p{k}", f"{k}")
    script.answers["join_session"] = lambda payload: script.joined(
        payload,
        messages=script.stored[payload["afterSeq"] : payload["afterSeq"] + 3],
        hasMore=payload["afterSeq"] + 3 < 7,
    )
    async with app_at(script) as app:
        await app.chat.joined()
        assert app.bodies == [f"{k}" for k in range(7)]
        joins = [payload["afterSeq"] for event, payload in script.asked if event == "join_session"]
        assert joins == [0, 3, 6]


async def test_messages_in_the_wrong_order_are_put_right_without_asking(script: Script) -> None:
    """Two processes tell in no common order, so this is daily business."""
    async with app_at(script) as app:
        await app.chat.joined()
        script.is_silent = True
        for k in range(3):
            script.store(PEER, f"p{k}", f"{k}")
        for k in (2, 1, 1, 0, 2):
            script.tell("new_message", script.stored[k])
        await app.has(3)
        assert app.bodies == ["0", "1", "2"]
        assert [event for event, _ in script.asked].count("join_session") == 1


async def test_a_lost_message_is_missed_by_the_next_one(script: Script) -> None:
    async with app_at(script) as app:
        await app.chat.joined()
        script.is_silent = True
        script.store(PEER, "lost", "lost")
        script.is_silent = False
        script.store(PEER, "told", "told")
        await app.has(2)
        assert app.bodies == ["lost", "told"]


async def test_a_lost_message_is_missed_by_the_next_tick(script: Script) -> None:
    async with app_at(script) as app:
        await app.chat.joined()
        script.is_silent = True
        script.store(PEER, "lost", "lost")
        script.tell("session:tick", bill("ACTIVE", None))
        script.tell("session:tick", bill("ACTIVE", 1))
        await app.has(1)
        assert app.bodies == ["lost"]


async def test_events_of_a_later_server_and_nonsense_break_nothing(script: Script) -> None:
    async with app_at(script) as app:
        await app.chat.joined()
        app.client.on("typing", lambda _payload: 1 // 0)
        for event, payload in (
            ("session:paused", {"sessionId": SESSION, "reason": "PEER_LOST"}),
            ("session:paused", {**bill("PAUSED"), "graceUntil": "2026-11-28T00:00:00.000Z", "more": 1}),
            ("call:ring", {"sessionId": SESSION, "from": PEER}),
            ("new_message", {"sessionId": SESSION}),
            ("new_message", {"sessionId": SESSION, "seq": "1"}),
            ("message_status", {"sessionId": SESSION, "userId": PEER}),
            ("typing", {"sessionId": SESSION, "userId": PEER, "isTyping": True}),
            ("session:tick", None),
            ("something", [1, 2]),
        ):
            script.tell(event, payload)
        script.store(PEER, "p", "still here")
        await app.has(1)
        assert app.bodies == ["still here"]
        assert len(app.events) == 10, "and the app was given all of them"
        assert app.chat.bill is not None
        assert app.chat.bill["status"] == "PAUSED"


async def test_what_is_over_stays_over(script: Script) -> None:
    async with app_at(script) as app:
        await app.chat.joined()
        script.tell("session:ended", bill("ENDED"))
        script.tell("session:tick", bill("ACTIVE"))
        await app.heard("session:tick")
        assert app.chat.bill is not None
        assert app.chat.bill["status"] == "ENDED"


async def test_an_app_that_fails_on_a_message_gets_the_next_one(script: Script) -> None:
    async with Client(script.url, token=_token, user_id=ME) as client:
        got: list[str] = []
        both = asyncio.Event()

        def take(message: Any) -> None:
            got.append(message["body"])
            if len(got) == 2:
                both.set()
            if len(got) == 1:
                raise RuntimeError("the app's own mistake")

        opened = await client.open(SESSION, on_message=take)
        assert await (await opened.send("one")) == 1
        assert await (await opened.send("two")) == 2
        async with asyncio.timeout(PATIENCE_S):
            await both.wait()
        assert got == ["one", "two"]


async def test_receipts_of_many_messages_are_one_event(script: Script) -> None:
    async with app_at(script) as app:
        await app.chat.joined()
        began_s = asyncio.get_running_loop().time()
        for k in range(50):
            script.store(PEER, f"p{k}", f"{k}")
            await app.has(k + 1)
        await script.until(lambda: script.marks[ME]["deliveredSeq"] == 50)
        took_s = asyncio.get_running_loop().time() - began_s
        app.chat.seen(30)
        app.chat.seen()
        await script.until(lambda: script.marks[ME]["seenSeq"] == 50)
        told = [event for event, _ in script.asked if event in ("message_delivered", "mark_seen")]
        assert told.count("mark_seen") == 1
        assert told.count("message_delivered") <= took_s / 0.3 + 1
        # One's own messages are not delivered to oneself.
        asked = len(script.asked)
        await (await app.chat.send("mine"))
        await app.client.call("typing", {"sessionId": SESSION, "isTyping": True})
        assert [event for event, _ in script.asked[asked:]] == ["send_message", "typing"]


async def test_a_receipt_that_the_line_has_swallowed_is_told_on_the_next_one(script: Script) -> None:
    script.answers["message_delivered"] = first_times(SILENCE, 1)
    async with app_at(script) as app:
        await app.chat.joined()
        script.store(PEER, "p", "hello")
        await script.until(
            lambda: ("message_delivered", {"sessionId": SESSION, "uptoSeq": 1}) in script.asked
        )
        script.cut()
        await script.until(lambda: script.marks[ME]["deliveredSeq"] == 1)


# -- the connection ------------------------------------------------------------------------------------------------


async def test_a_goodbye_below_3500_is_a_return_after_as_long_as_it_says(script: Script) -> None:
    async with app_at(script) as app:
        await app.chat.joined()
        wait_ms = 300
        script.tell(
            "server:bye", {"code": 3001, "reason": "DRAIN", "reconnect": True, "retryAfterMs": wait_ms}
        )
        await app.heard("server:bye")
        await app.chat.send("for the next one")
        await app.client.call("typing", {"sessionId": SESSION, "isTyping": True})
        assert script.bodies_asked() == [], "who is leaving is given nothing more"
        left_at_s = asyncio.get_running_loop().time()
        script.cut()
        await app.has(1)
        assert asyncio.get_running_loop().time() - left_at_s >= wait_ms / 1000
        assert script.tokens == ["token 1", "token 2"]


@pytest.mark.parametrize("code", [3500, 3501, 4999])
async def test_a_goodbye_from_3500_on_is_the_last_word(script: Script, code: int) -> None:
    async with app_at(script) as app:
        await app.chat.joined()
        script.tell("server:bye", {"code": code, "reason": "GONE", "reconnect": False})
        with pytest.raises(SignedOut, match="GONE") as stopped:
            async with asyncio.timeout(PATIENCE_S):
                await app.client.stopped()
        assert stopped.value.code == code
        assert script.tokens == ["token 1"]


async def test_a_server_that_is_busy_is_asked_again_with_a_new_token(script: Script) -> None:
    busy = {"code": "DRAINING", "message": "not now", "retryable": True, "retryAfterMs": 10}
    script.refuses = [busy] * 3
    async with app_at(script) as app:
        await app.chat.joined()
        assert script.tokens == [f"token {k}" for k in range(1, 5)]


async def test_a_token_provider_that_fails_is_asked_again_and_one_that_gives_up_stops_it(
    script: Script,
) -> None:
    asked = 0

    async def token() -> str:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise OSError("the login service does not answer")
        raise SignedOut("EXPIRED", "log in again")

    async with Client(script.url, token=token, user_id=ME, backoff=Backoff(0.01, 0.02)) as client:
        with pytest.raises(SignedOut, match="log in again"):
            async with asyncio.timeout(PATIENCE_S):
                await client.connected()
        assert asked == 3


async def _token() -> str:
    return "token"


async def test_a_line_that_breaks_before_the_token_is_answered_is_only_another_attempt(
    script: Script,
) -> None:
    script.breaks_while_connecting = 3
    async with app_at(script) as app:
        await app.chat.joined()
        assert len(script.tokens) == 4
