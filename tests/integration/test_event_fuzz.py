"""Whatever clients send over the socket: exactly one acknowledgement each, as the document has it, and the server is well after it.

`make fuzz` runs it for longer, with new data each time.
"""

import asyncio
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat.events import CLIENT_EVENTS, SERVER_EVENTS
from server.api_docs.asyncapi import asyncapi_document
from tests.integration.socket_world import raw
from tests.support.fuzz import FuzzedServer, budget_s, fuzzed_server
from tests.support.schemas import DocumentSchemas

pytestmark = pytest.mark.slow
DOCUMENT: Final = asyncapi_document(version="1")
SCHEMAS: Final = DocumentSchemas(DOCUMENT)
MESSAGES: Final = DOCUMENT["components"]["messages"]
#: Stands for the session of the run, which exists only once the server does.
SESSION: Final = "the session"
#: The same of its lawyer.
LAWYER_ID: Final = "the lawyer"
#: A run of one session has no request that could be answered, and its user is with the lawyer already.
NEVER_GRANTED: Final = frozenset(name for name in CLIENT_EVENTS if name.startswith("consult:"))
#: Stands for the access token of whoever sends.
TOKEN: Final = "the token"
#: Stands for the last call that anybody was told of.
CALL: Final = "the call"
#: Batches a second that two shared cores manage with ease.
_BATCHES_A_SECOND: Final = 4

PEOPLE: Final = ("USER", "LAWYER", "COMPANY")
#: Names of no table: some that mean something to the library, and the server's own.
STRANGE: Final = (
    st.sampled_from(["connect", "disconnect", "connect_error", "message", "*", "__disconnect_final", ""])
    | st.sampled_from([name for name in SERVER_EVENTS if name not in CLIENT_EVENTS])
    | st.text(max_size=40).filter(lambda name: name not in CLIENT_EVENTS)
)
JUNK: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
_IDS: Final = [f"c{number}" for number in range(8)]
SOUND: Final[dict[str, st.SearchStrategy[Any]]] = {
    "sessionId": st.just(SESSION),
    "body": st.sampled_from(["Hello", "Namaste \U0001f64f", "a\nb", "x" * 8_000, "x" * 8_001, " "]),
    "clientMsgId": st.sampled_from(_IDS),
    "afterSeq": st.integers(0, 50),
    "uptoSeq": st.integers(0, 50),
    "messageId": st.integers(0, 20).map(lambda seq: f"{SESSION}:{seq:09d}"),
    "pendingIds": st.lists(st.sampled_from(_IDS), max_size=4),
    "isTyping": st.booleans(),
    "lawyerId": st.just(LAWYER_ID),
    "maxAmount": st.sampled_from(["100.00", "1", "0.001", "-1"]),
    "token": st.just(TOKEN),
    "partyId": st.sampled_from(["p1", "p1", "p2"]),
    "callId": st.just(CALL),
    "media": st.sampled_from(["audio", "video"]),
    "n": st.integers(1, 300),
    "kind": st.sampled_from(["offer", "answer", "candidates", "restart"]),
    "sdp": st.sampled_from(["v=0", "v=0\r\n" * 1_000, "x" * 32_768]),
    "candidates": st.lists(st.just({"candidate": ""}), max_size=3),
}


#: By turns, each person over a connection of their own.
_OF_CALL: Final = {"sessionId": SESSION, "callId": CALL}
_OFFER: Final = {**_OF_CALL, "n": 1, "kind": "offer", "sdp": "v=0"}
A_CALL: Final[list[tuple[str, list[tuple[str, list[Any]]]]]] = [
    ("USER", [("rtc:invite", [{"sessionId": SESSION, "partyId": "p1", "media": "audio"}])]),
    ("LAWYER", [("rtc:accept", [{**_OF_CALL, "partyId": "p2"}]), ("rtc:signal", [_OFFER])]),
    ("USER", [("rtc:hangup", [_OF_CALL]), ("rtc:reject", [_OF_CALL])]),
]
#: Only who has joined may type, and chance seldom has one of both after the other.
A_TALK: Final[list[tuple[str, list[tuple[str, list[Any]]]]]] = [
    (
        "USER",
        [
            ("join_session", [{"sessionId": SESSION}]),
            ("typing", [{"sessionId": SESSION, "isTyping": True}]),
        ],
    )
]


def once_in(times: int) -> st.SearchStrategy[bool]:
    """Spread evenly: hypothesis would try the ends of a range far more often."""
    return st.sampled_from([*[False] * (times - 1), True])


@st.composite
def events(draw: st.DrawFn) -> tuple[str, list[Any]]:
    """Mostly nearly right: the table's events with their fields, some missing, some of another type, some that are none."""
    if draw(once_in(10)):
        return draw(STRANGE), draw(st.lists(JUNK, max_size=2))
    event = draw(st.sampled_from(list(CLIENT_EVENTS.values())))
    if draw(once_in(12)):
        return event.name, draw(st.lists(JUNK, max_size=2))
    payload: dict[str, Any] = {}
    for field in event.payload.model_fields.values():
        if not draw(once_in(12 if field.is_required() else 2)):
            payload[str(field.alias)] = draw(JUNK if draw(once_in(15)) else SOUND[str(field.alias)])
    if draw(once_in(10)):
        payload |= draw(st.dictionaries(st.text(max_size=8), JUNK, max_size=2))
    return event.name, [payload]


class Run:
    """One batch of one person: what was sent, and every acknowledgement by its number."""

    def __init__(
        self, server: FuzzedServer, session_id: str, lawyer_id: str, token: str, call_id: str = "none"
    ) -> None:
        self._port = int(urlsplit(server.process.url).port or 0)
        self._session_id = session_id
        self._lawyer_id = lawyer_id
        self._token = token
        self.call_id = call_id
        self.answers: Counter[int] = Counter()
        self.acks: dict[int, Any] = {}
        self.told: list[tuple[str, Any]] = []

    async def send(self, sent: list[tuple[str, list[Any]]]) -> None:
        """Send all, wait for every answer, then ask once more: an answer too many would come before that one's."""
        async with raw(self._port) as client:
            await client.login(self._token)
            for number, (name, arguments) in enumerate(sent):
                text = (
                    json.dumps([name, *arguments])
                    .replace(SESSION, self._session_id)
                    .replace(LAWYER_ID, self._lawyer_id)
                    .replace(TOKEN, self._token)
                    .replace(CALL, self.call_id)
                )
                await client.ws.send_str(f"42{number}{text}")
            await self._wait(client, len(sent))
            await client.ws.send_str(f'42{len(sent)}["are you well"]')
            await self._wait(client, len(sent) + 1)

    async def _wait(self, client: Any, count: int) -> None:
        while len(self.acks) < count:
            frame = await client.frame()
            assert frame, f"the connection ended before {count - len(self.acks)} answers"
            head, bracket, rest = frame.partition("[")
            if head.startswith("43"):
                self.answers[int(head[2:])] += 1
                (ack,) = json.loads(bracket + rest)
                self.acks[int(head[2:])] = ack
                self.call_id = (ack.get("call") or {}).get("callId", self.call_id)
            elif head == "42":
                self.told.append(tuple(json.loads(bracket + rest)))


def assert_answered_as_documented(sent: list[tuple[str, list[Any]]], run: Run) -> None:
    assert run.answers == Counter(range(len(sent) + 1)), "each exactly once"
    for number, (name, _) in enumerate(sent):
        ack = run.acks[number]
        if name in CLIENT_EVENTS:
            assert SCHEMAS.problems(ack, MESSAGES[f"client.{name}.ack"]["payload"]) == [], (name, ack)
        else:
            assert (ack["ok"], ack["error"]["code"]) == (False, "UNKNOWN_EVENT"), (name, ack)
        assert ack["ok"] or ack["error"]["code"] != "INTERNAL", (name, ack)
    for name, payload in run.told:
        schema = MESSAGES[f"server.{name.replace(':', '.')}"]["payload"]
        assert SCHEMAS.problems(payload, schema) == [], (name, payload)


def test_every_event_is_answered_once_and_as_documented(tmp_path: Path) -> None:
    """The server's log and books are looked at in the end."""
    in_ci = "FUZZ_SECONDS" not in os.environ
    with fuzzed_server(tmp_path) as server, asyncio.Runner() as runner:
        tokens = {role: server.token(role) for role in PEOPLE}
        lawyer_id = server.call("GET", "/auth/me", token=tokens["LAWYER"])["id"]
        outcomes: Counter[tuple[str, bool]] = Counter()
        calls = ["none"]
        started = server.call("POST", "/consult/start", {"lawyerId": lawyer_id}, tokens["USER"])
        server.call("PATCH", "/lawyer/profile", {"waitingList": True}, tokens["LAWYER"])

        @settings(
            max_examples=budget_s(12) * _BATCHES_A_SECOND,
            deadline=None,
            database=None,
            derandomize=in_ci,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.sampled_from(PEOPLE), st.lists(events(), min_size=10, max_size=30))
        def batch(role: str, sent: list[tuple[str, list[Any]]]) -> None:
            carry_out(role, sent)

        def carry_out(role: str, sent: list[tuple[str, list[Any]]]) -> None:
            run = Run(server, started["sessionId"], lawyer_id, tokens[role], calls[-1])
            runner.run(run.send(sent))
            calls.append(run.call_id)
            assert_answered_as_documented(sent, run)
            outcomes.update((name, run.acks[number]["ok"]) for number, (name, _) in enumerate(sent))

        # Chance alone would hardly bring two people into one call.
        for role, sent in (*A_CALL, *A_TALK):
            carry_out(role, sent)
        batch()

        both_ways = {(name, ok) for name in CLIENT_EVENTS for ok in (True, False)}
        assert outcomes.keys() >= both_ways - {(name, True) for name in NEVER_GRANTED}
        path = f"/consult/{started['sessionId']}"
        assert server.call("GET", path, token=tokens["USER"])["status"] == "ACTIVE", "no event ends a session"
        assert server.call("GET", "/readyz")["status"] == "ready"
        assert server.call("POST", f"{path}/end", token=tokens["USER"])["status"] == "ENDED"
