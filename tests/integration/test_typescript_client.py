"""The TypeScript client against a server that does what a test writes down, as the Python one in `test_python_client.py`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.scripted_socket import (
    ME,
    PEER,
    SESSION,
    SILENCE,
    Json,
    Script,
    bill,
    refusal,
    scripted,
)
from tests.support.typescript_client import NodeApp, needed, node_app

pytestmark = pytest.mark.node


@pytest.fixture(scope="module", autouse=True)
def _node() -> None:
    needed()


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    async with scripted() as running:
        yield running


@asynccontextmanager
async def app_at(script: Script, storage: Path | None = None) -> AsyncIterator[NodeApp]:
    tokens = [f"token {k}" for k in range(1, 20)]
    async with node_app(
        urls=[script.url], tokens=tokens, user_id=ME, session_id=SESSION, storage=storage
    ) as app:
        yield app


def bodies(app: NodeApp) -> list[str]:
    return [message["body"] for message in app.messages]


async def test_a_refusal_is_waited_for_and_nothing_overtakes_and_twenty_are_the_most(script: Script) -> None:
    at_s: list[float] = []
    wait_ms = 200

    def refuse(_payload: Json) -> Any:
        at_s.append(asyncio.get_running_loop().time())
        return refusal("RATE_LIMITED", retryable=True, retryAfterMs=wait_ms) if len(at_s) < 3 else None

    script.answers["send_message"] = refuse
    async with app_at(script) as app:
        for k in range(30):
            app.do("send", body=f"{k}", id=f"m{k}")
        await app.hears("stored", 30)
        assert script.bodies_asked()[:3] == ["0", "0", "0"], "one alone, until it is stored"
        assert min(at_s[1] - at_s[0], at_s[2] - at_s[1]) >= wait_ms / 1000
        assert [message["body"] for message in script.stored] == [f"{k}" for k in range(30)]
        await app.until(lambda: len(app.messages) == 30)
        asked = len(script.bodies_asked())
        script.answers["send_message"] = lambda _payload: SILENCE
        for k in range(50):
            app.do("send", body=f"more {k}", id=f"n{k}")
        await app.hears("outbox", 80)
        await script.until(lambda: len(script.bodies_asked()) == asked + 20)
        # The line breaks, and the first of them is asked about and goes alone.
        app.do("tear")
        await script.until(lambda: len(script.bodies_asked()) == asked + 21)
        joins = [payload for event, payload in script.asked if event == "join_session"]
        assert joins[-1]["pendingIds"] == [f"n{k}" for k in range(50)]
        assert script.bodies_asked()[-1] == "more 0"


async def test_what_is_stored_is_known_by_echo_or_by_join_and_not_sent_again(
    script: Script, tmp_path: Path
) -> None:
    script.answers["send_message"] = lambda payload: (
        script.store(ME, payload["clientMsgId"], payload["body"]),
        SILENCE,
    )[1]
    async with app_at(script, tmp_path / "outbox.json") as app:
        await app.hears("joined")
        app.do("send", body="echoed", id="a")
        assert (await app.hears("stored"))["seq"] == 1
        script.is_silent = True
        app.do("send", body="found", id="b")
        await script.until(lambda: len(script.stored) == 2)
        script.cut()
        assert (await app.hears("stored", 2))["seq"] == 2
        assert script.bodies_asked() == bodies(app) == ["echoed", "found"]
    assert (tmp_path / "outbox.json").read_text() == f'{{"tarazu:outbox:{SESSION}":"[]"}}'


async def test_a_session_that_is_not_served_for_a_moment_keeps_what_is_said(script: Script) -> None:
    refused = refusal("SESSION_NOT_ACTIVE", retryable=False)
    left = 3

    def now_and_then(_payload: Json) -> Any:
        nonlocal left
        left -= 1
        return refused if left >= 0 else None

    script.answers["send_message"] = now_and_then
    async with app_at(script) as app:
        app.do("send", body="one", id="a")
        assert (await app.hears("stored"))["seq"] == 1
        assert app.told["failed"] == []
        script.status = "ENDED"
        script.answers["send_message"] = lambda _payload: refused
        app.do("send", body="too late", id="b")
        assert (await app.hears("failed"))["code"] == "SESSION_NOT_ACTIVE"


async def test_order_gaps_pages_and_nonsense(script: Script) -> None:
    script.is_silent = True
    for k in range(5):
        script.store(PEER, f"p{k}", f"{k}")
    script.answers["join_session"] = lambda payload: script.joined(
        payload,
        messages=script.stored[payload["afterSeq"] : payload["afterSeq"] + 2],
        hasMore=payload["afterSeq"] + 2 < len(script.stored),
    )
    async with app_at(script) as app:
        await app.hears("joined")
        assert bodies(app) == [f"{k}" for k in range(5)]
        joins = [payload["afterSeq"] for event, payload in script.asked if event == "join_session"]
        assert joins == [0, 2, 4]
        for event, payload in (
            ("session:paused", {"sessionId": SESSION, "reason": "PEER_LOST"}),
            ("call:ring", {"sessionId": SESSION, "from": PEER}),
            ("new_message", {"sessionId": SESSION}),
            ("message_status", {"sessionId": SESSION, "userId": PEER}),
            ("session:tick", None),
            ("something", [1, 2]),
        ):
            script.tell(event, payload)
        # In the wrong order: put right without asking.
        for k in (5, 6, 7):
            script.store(PEER, f"p{k}", f"{k}")
        for k in (7, 6, 6, 5):
            script.tell("new_message", script.stored[k])
        await app.until(lambda: len(app.messages) == 8)
        assert [event for event, _ in script.asked].count("join_session") == 3
        # Lost: missed by the next tick.
        script.store(PEER, "lost", "8")
        script.tell("session:tick", bill("ACTIVE", None))
        script.tell("session:tick", bill("ACTIVE", 9))
        await app.until(lambda: len(app.messages) == 9)
        assert bodies(app) == [f"{k}" for k in range(9)]
        await script.until(lambda: script.marks[ME]["deliveredSeq"] == 9)
        app.do("seen")
        await script.until(lambda: script.marks[ME]["seenSeq"] == 9)


async def test_goodbyes_and_refused_connections(script: Script) -> None:
    wait_ms = 200
    script.refuses = [{"code": "DRAINING", "message": "not now", "retryable": True, "retryAfterMs": 10}] * 2
    async with app_at(script) as app:
        await app.hears("joined")
        assert script.tokens == ["token 1", "token 2", "token 3"]
        script.tell(
            "server:bye", {"code": 3001, "reason": "DRAIN", "reconnect": True, "retryAfterMs": wait_ms}
        )
        await app.event("server:bye")
        app.do("send", body="for the next one", id="a")
        await app.hears("outbox")
        left_at_s = asyncio.get_running_loop().time()
        script.cut()
        await app.hears("stored")
        assert asyncio.get_running_loop().time() - left_at_s >= wait_ms / 1000
        assert script.bodies_asked() == ["for the next one"]
        script.tell("server:bye", {"code": 3501, "reason": "DISABLED", "reconnect": False})
        stopped = await app.hears("stopped")
        assert (stopped["code"], stopped["is"]) == (3501, True)
        assert len(script.tokens) == 4


async def test_a_line_that_breaks_before_the_token_is_answered_is_only_another_attempt(
    script: Script,
) -> None:
    script.breaks_while_connecting = 3
    async with app_at(script) as app:
        await app.hears("joined")
        assert len(script.tokens) == 4
