"""Many clients of several sessions send whatever they like at once: exactly one answer each, and no word of one session in another.

Every client says its own session's canary in all that it sends, wherever it sends it. `make fuzz` runs 100,000 events
(`FUZZ_EVENTS`), with new ones each time (`FUZZ_SEED`).
"""

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from chat.events import CLIENT_EVENTS
from server.api_docs.asyncapi import asyncapi_document
from tests.integration.socket_world import raw
from tests.support.fuzz import FuzzedServer
from tests.support.fuzzed_events import Fuzzer, Known
from tests.support.schemas import DocumentSchemas
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.slow
SESSIONS: Final = 3
BATCH: Final = 40
#: What is granted only after another event, if ever in a session that runs: `test_event_fuzz.py` goes through a call.
OF_A_STORY: Final = ("consult:", "rtc:")
#: One acknowledgement in so many is compared with the document: each takes as long as the event itself.
_COMPARED: Final = 10
DOCUMENT: Final = asyncapi_document(version="1")
SCHEMAS: Final = DocumentSchemas(DOCUMENT)
MESSAGES: Final = DOCUMENT["components"]["messages"]


@dataclass(frozen=True)
class Pair:
    """The people of one consultation. `secrets`: what nobody else may ever hear."""

    session_id: str
    canary: str
    user: str
    lawyer: str
    secrets: tuple[str, ...]
    lawyer_id: str
    #: Those that anybody was told of.
    calls: list[str] = field(default_factory=list)


class Listener:
    """One client: what it sent, how often each was answered, and every word that came."""

    def __init__(
        self, name: str, port: int, token: str, fuzzer: Fuzzer, forbidden: tuple[str, ...], calls: list[str]
    ) -> None:
        self.name = name
        self._calls = calls
        self._port = port
        self._token = token
        self._fuzzer = fuzzer
        self._forbidden = forbidden
        self.sent = 0
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.told: Counter[str] = Counter()

    async def go_on(self, events: int) -> None:
        while events > 0:
            async with raw(self._port) as client:
                await client.login(self._token)
                for _ in range(4):
                    if events > 0:
                        await self._batch(client, min(BATCH, events))
                        events -= BATCH

    async def _batch(self, client: Any, count: int) -> None:
        texts = [self._fuzzer.event() for _ in range(count)]
        first = self.sent
        for number, text in enumerate(texts, start=first):
            await client.ws.send_str(f"42{number}{text}")
        # An answer too many would come before this one's, or be found at the next batch.
        texts.append('["are you well"]')
        await client.ws.send_str(f"42{first + count}{texts[-1]}")
        self.sent += count + 1
        answers: Counter[int] = Counter()
        while len(answers) < len(texts):
            frame = await client.frame()
            assert frame, (
                f"{self.name}: the connection ended before {set(range(first, self.sent)) - set(answers)} were answered"
            )
            for word in self._forbidden:
                assert word not in frame, f"{self.name} heard {word!r} of another session: {frame[:500]}"
            head, bracket, rest = frame.partition("[")
            if head.startswith("43"):
                number = int(head[2:])
                answers[number] += 1
                self._answered(number, texts[number - first], json.loads(bracket + rest)[0])
            else:
                self.told[json.loads(bracket + rest)[0]] += 1
        assert answers == Counter(range(first, self.sent)), f"{self.name}: each exactly once"

    def _answered(self, number: int, text: str, ack: Any) -> None:
        try:
            name = json.loads(text)[0]
        except ValueError:
            name = "no JSON"
        outcome = "ok" if ack["ok"] else ack["error"]["code"]
        if call := ack.get("call"):
            self._calls.append(call["callId"])
        assert outcome not in {"INTERNAL", "RATE_LIMITED", "DRAINING"}, (text[:500], ack)
        if isinstance(name, str) and name in CLIENT_EVENTS:
            self.outcomes[name, outcome] += 1
            if number % _COMPARED == 0:
                problems = SCHEMAS.problems(ack, MESSAGES[f"client.{name}.ack"]["payload"])
                assert problems == [], (text[:500], ack)
        else:
            assert outcome == ("VALIDATION_FAILED" if name == "no JSON" else "UNKNOWN_EVENT"), (
                text[:500],
                ack,
            )


def _pair(server: FuzzedServer, number: int) -> Pair:
    who = {"password": "known to nobody but the fuzzer"}
    canary = f"canary{number}-{os.urandom(4).hex()}"
    user = server.call(
        "POST", "/auth/register", {**who, "name": f"U {canary}", "email": f"u{number}@example.com"}
    )
    lawyer = server.call(
        "POST",
        "/lawyer/register",
        {
            **who,
            "name": f"L {canary}",
            "email": f"l{number}@example.com",
            "ratePerMinute": "30.00",
            "barCouncilNumber": f"KAR/{number}/2015",
        },
    )
    lawyer_id = lawyer["user"]["id"]
    server.call("PATCH", f"/lawyer/{lawyer_id}/verify", {}, server.token("ADMIN"))
    server.call("PATCH", "/lawyer/availability", {"isOnline": True}, lawyer["accessToken"])
    server.call("POST", "/wallet/recharge", {"amount": "90000.00"}, user["accessToken"])
    session = server.call("POST", "/consult/start", {"lawyerId": lawyer_id}, user["accessToken"])
    secrets = (canary, session["sessionId"], user["user"]["id"], lawyer_id)
    return Pair(
        session["sessionId"], canary, user["accessToken"], lawyer["accessToken"], secrets, lawyer_id, ["none"]
    )


class _AllCalls(Sequence[str]):
    """The calls of these sessions so far."""

    def __init__(self, pairs: list[Pair]) -> None:
        self._pairs = pairs

    def _now(self) -> list[str]:
        return [call for pair in self._pairs for call in pair.calls]

    def __len__(self) -> int:
        return len(self._now())

    def __getitem__(self, at: Any) -> Any:
        return self._now()[at]


def _listeners(port: int, pairs: list[Pair], stranger: str, seed: int) -> list[Listener]:
    def listener(name: str, token: str, mine: Pair | None) -> Listener:
        others = [pair for pair in pairs if pair is not mine]
        sessions = [pair.session_id for pair in others]
        tokens = [t for pair in pairs for t in (pair.user, pair.lawyer) if t != token]
        messages = [f"{session}:{seq:09d}" for session in sessions for seq in range(1, 6)]
        own = {"sessionId": [mine.session_id]} if mine is not None else {"sessionId": ["none"]}
        if mine is not None:
            own["lawyerId"] = [mine.lawyer_id]
            own["callId"] = mine.calls
            own["messageId"] = [f"{mine.session_id}:{seq:09d}" for seq in range(1, 40)]
        known = Known(
            canary=mine.canary if mine is not None else "stranger",
            own={**own, "token": [token]},
            foreign={
                "sessionId": sessions,
                "messageId": messages,
                "token": tokens,
                "callId": _AllCalls(others),
            },
        )
        forbidden = tuple(word for pair in others for word in pair.secrets)
        calls = mine.calls if mine is not None else []
        return Listener(name, port, token, Fuzzer(random.Random(f"{seed}/{name}"), known), forbidden, calls)

    people = [
        listener(f"{role} {n} on device {device}", token, pair)
        for n, pair in enumerate(pairs)
        for role, token, devices in (("user", pair.user, 2), ("lawyer", pair.lawyer, 1))
        for device in range(devices)
    ]
    return [*people, listener("stranger", stranger, None)]


async def test_no_word_of_one_session_is_ever_heard_in_another(tmp_path: Path) -> None:
    events = int(os.environ.get("FUZZ_EVENTS", "") or 4_000)
    seed = int(os.environ.get("FUZZ_SEED", "1") or random.SystemRandom().randrange(10**9))
    print(f"FUZZ_EVENTS={events} FUZZ_SEED={seed}")
    with ServerProcess(tmp_path, ACCESS_TOKEN_MINUTES="1440", LOG_LEVEL="WARNING") as process:
        server = FuzzedServer(
            process, {"ADMIN": {"email": "admin@example.com", "password": "an admin of the tests"}}
        )
        pairs = [_pair(server, number) for number in range(SESSIONS)]
        form = {"password": "known to nobody but the fuzzer", "name": "S", "email": "s@example.com"}
        stranger = server.call("POST", "/auth/register", form)["accessToken"]
        listeners = _listeners(int(urlsplit(process.url).port or 0), pairs, stranger, seed)

        await asyncio.gather(*(listener.go_on(events // len(listeners) + 1) for listener in listeners))

        assert sum(listener.sent for listener in listeners) >= events
        outcomes = sum((listener.outcomes for listener in listeners), Counter())
        both_ways = {(name, ok) for name in CLIENT_EVENTS for ok in (True, False)}
        missing = both_ways - {(name, outcome == "ok") for name, outcome in outcomes}
        missing -= {(name, True) for name in CLIENT_EVENTS if name.startswith(OF_A_STORY)}
        assert missing == set(), "every event, both ways"
        assert listeners[-1].told == Counter(), "whoever has no session hears nothing"
        assert all(listener.told["new_message"] for listener in listeners[:-1]), "and everybody else does"
        for pair in pairs:
            told = json.dumps(server.call("GET", f"/chat/{pair.session_id}?limit=100", token=pair.user))
            assert not [
                word for other in pairs if other is not pair for word in other.secrets if word in told
            ]
            assert server.call("GET", f"/consult/{pair.session_id}", token=pair.user)["status"] == "ACTIVE"
            assert (
                server.call("POST", f"/consult/{pair.session_id}/end", token=pair.user)["status"] == "ENDED"
            )
        code, output = process.settled_books()
        assert code == 0, output
