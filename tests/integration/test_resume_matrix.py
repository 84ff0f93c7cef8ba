"""Whoever comes back has everything: after a second, three minutes or a day, with nothing missed or a thousand messages,
with or without a restart in between, over the socket as well as over HTTP.

Time is the server's clock, moved by the test; nobody waits.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.socket_world import Client as SocketClient
from tests.support.api import Api, ApiClock, Person, open_api
from tests.support.http import PASSWORD

SECOND: Final = 1
MINUTES: Final = 180
DAY: Final = 86_400
#: An absence of a day is not played in ticks of ten seconds; and the session is kept alive for it, so that there is something to miss.
SETTINGS: Final[Mapping[str, Any]] = {"tick_seconds": 600, "min_balance": "1.00", "fair_metering": "off"}
#: Under Engine.IO's limit and under the 256 KB that a join's answer may have, in all widths of a character.
ALPHABETS: Final = ("x", "\n", "ä", "ऄ", "😀")

Json = dict[str, Any]


@dataclass
class Said:
    """What everybody must end up with, by `seq`."""

    bodies: list[str] = field(default_factory=list)

    async def say(self, socket: SocketClient, session_id: str, bodies: list[str]) -> None:
        """All at once, as quick as the socket takes them; each stored."""
        first = len(self.bodies)
        sends = [
            socket.call(
                "send_message", {"sessionId": session_id, "clientMsgId": f"m{first + k}", "body": body}
            )
            for k, body in enumerate(bodies)
        ]
        acks = await asyncio.gather(*sends)
        assert [(ack["ok"], ack["seq"]) for ack in acks] == [
            (True, first + k + 1) for k in range(len(bodies))
        ]
        self.bodies += bodies


class App:
    """The away person's app: the messages it has, in order."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.messages: list[Json] = []
        self.answers = 0

    @property
    def last_seq(self) -> int:
        return len(self.messages)

    def take(self, messages: list[Json]) -> None:
        """As they come: what is known is dropped, a gap is a failure."""
        for message in messages:
            if message["seq"] <= self.last_seq:
                assert self.messages[message["seq"] - 1]["body"] == message["body"]
                continue
            assert message["seq"] == self.last_seq + 1, "a gap"
            self.messages.append(message)

    async def catch_up(self, socket: SocketClient, **more: Any) -> Json:
        """Join until there is no more; the first answer."""
        first: Json | None = None
        while True:
            request = {"sessionId": self.session_id, "afterSeq": self.last_seq, **more}
            ack: Json = await socket.call("join_session", request)
            assert ack["ok"], ack
            self.answers += 1
            first = first or ack
            before = self.last_seq
            self.take(ack["messages"])
            if not ack["hasMore"]:
                assert self.last_seq >= ack["lastSeq"]
                return first
            assert self.last_seq > before, "more is promised, nothing is given"

    async def catch_up_over_http(self, person: Person, limit: int) -> None:
        path = f"/chat/{self.session_id}?afterSeq={self.last_seq}&limit={limit}"
        while True:
            answer = await person.get(path)
            assert answer.status == 200, answer.text
            self.answers += 1
            self.take(answer.json["items"])
            if answer.json["nextCursor"] is None:
                assert self.last_seq == answer.json["lastSeq"]
                return
            path = f"/chat/{self.session_id}?cursor={answer.json['nextCursor']}&limit={limit}"


def bodies_of(count: int, rng: random.Random) -> list[str]:
    """One character to 8,000; when there are many, few of them are pages."""
    lengths = [
        rng.choice((1, 8_000)) if count <= 200 and rng.random() < 0.3 else rng.randint(1, 200)
        for _ in range(count)
    ]
    for k in rng.sample(range(count), k=min(count, 40)):
        lengths[k] = rng.randint(7_000, 8_000)
    return ["m" + rng.choice(ALPHABETS) * (length - 2) + "m" if length > 1 else "m" for length in lengths]


class World:
    """A server that can be started again on the same file, under one clock."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.clock = ApiClock()
        self.api: Api

    async def start(self) -> None:
        opened = open_api(self._directory, clock=self.clock, **SETTINGS)
        self._server = AsyncExitStack()
        self.api = await self._server.enter_async_context(opened)

    async def stop(self) -> None:
        await self._server.aclose()


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[World]:
    town = World(tmp_path)
    await town.start()
    yield town
    await town.stop()


@pytest.mark.parametrize("missed", [0, 1, 200, 1_000])
@pytest.mark.parametrize("restart", [False, True], ids=["same_server", "restart"])
@pytest.mark.parametrize("away_s", [SECOND, MINUTES, DAY], ids=["1s", "3min", "24h"])
async def test_who_comes_back_has_everything(town: World, away_s: int, restart: bool, missed: int) -> None:
    rng = random.Random(f"{away_s} {restart} {missed}")
    api = town.api
    user = await api.a_user("90000.00")
    lawyer = await api.a_lawyer(rate="1.00")
    session_id = await user.start(lawyer.id)
    said = Said()
    app, other_app = App(session_id), App(session_id)

    phone, desk = await api.connect(user.token), await api.connect(lawyer.token)
    for socket in (phone, desk):
        await socket.call("join_session", {"sessionId": session_id})
    await said.say(phone, session_id, ["before"])
    app.take(await phone.hears("new_message", 1))
    other_app.take(app.messages)

    # The last send of a person whose line breaks: it is stored, and nobody tells them.
    await phone.tell("send_message", {"sessionId": session_id, "clientMsgId": "unheard", "body": "unheard"})
    await desk.hears("new_message", 2)
    said.bodies.append("unheard")
    await phone.sio.disconnect()

    # Away: a part is said at once, a part in the middle, a part just before the return.
    bodies = bodies_of(missed, rng)
    parts = [bodies[: missed // 3], bodies[missed // 3 : 2 * missed // 3], bodies[2 * missed // 3 :]]
    if restart:
        await said.say(desk, session_id, parts[0])
        await town.stop()
        town.clock.jump_ms(away_s * 1000)
        await town.start()
        api = town.api
    else:
        await said.say(desk, session_id, parts[0])
        await api.advance(away_s / 2)
        await said.say(desk, session_id, parts[1])
        await api.advance(away_s / 2)
        await said.say(desk, session_id, parts[2])
    is_over = restart and away_s > 120  # nobody took the session up in time: ABANDONED
    if restart and not is_over:
        lawyer = await api.log_in(lawyer.email)
        desk = await api.connect(lawyer.token)
        await desk.call("join_session", {"sessionId": session_id})
        await said.say(desk, session_id, parts[1] + parts[2])

    # Back. The token of before is good for a quarter of an hour.
    user = await api.log_in(user.email, PASSWORD)
    phone = await api.connect(user.token)
    first = await app.catch_up(phone, pendingIds=["unheard", "never sent"])
    assert list(first["stored"]) == ["unheard"]
    assert first["stored"]["unheard"]["seq"] == 2
    assert first["billing"]["status"] == ("FORCE_ENDED" if is_over else "ACTIVE")
    assert [message["body"] for message in app.messages] == said.bodies
    await other_app.catch_up_over_http(user, limit=rng.choice((7, 50, 100)))
    assert [message["body"] for message in other_app.messages] == said.bodies
    keys = ("id", "seq", "senderId", "clientMsgId", "createdAt")
    assert [[m[key] for key in keys] for m in app.messages] == [
        [m[key] for key in keys] for m in other_app.messages
    ]
    if missed >= 200:
        assert app.answers > 1, "one answer took it all: nothing was proved of `hasMore`"

    # And from here on nothing is missed either.
    ack = await phone.call(
        "send_message", {"sessionId": session_id, "clientMsgId": "never sent", "body": "at last"}
    )
    if is_over:
        assert ack["error"]["code"] == "SESSION_NOT_ACTIVE"
    else:
        assert ack["seq"] == len(said.bodies) + 1
        app.take(await phone.hears("new_message", 1))
        assert app.messages[-1]["body"] == "at last"


async def test_what_is_said_while_one_catches_up_is_not_missed(town: World) -> None:
    """The other side does not stop talking only because somebody reads a thousand messages."""
    user = await town.api.a_user("90000.00")
    lawyer = await town.api.a_lawyer(rate="1.00")
    session_id = await user.start(lawyer.id)
    desk = await town.api.connect(lawyer.token)
    said = Said()
    await said.say(desk, session_id, ["m" * 2_000] * 500)

    phone = await town.api.connect(user.token)
    app = App(session_id)
    talking = asyncio.create_task(said.say(desk, session_id, [f"later {k}" for k in range(300)]))
    await app.catch_up(phone)
    await talking
    while len(said.bodies) > app.last_seq:
        live = [message for message in phone.told("new_message") if message["seq"] > app.last_seq]
        app.take(sorted(live, key=lambda message: int(message["seq"])))
        if len(said.bodies) > app.last_seq:
            await phone.hears("new_message", len(phone.told("new_message")) + 1)
    assert [message["body"] for message in app.messages] == said.bodies
