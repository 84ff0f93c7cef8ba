"""People with apps: what they send over HTTP and sockets, and what their devices have heard."""

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import aiohttp
import socketio

from tests.support.server_process import ADMIN_EMAIL, ADMIN_PASSWORD, ServerProcess

PASSWORD: Final = "correct horse"
#: Nothing waited for takes this long; it only ends a test that would hang.
PATIENCE_S: Final = 15.0
_numbers = itertools.count()

Json = Any


def wall_ms() -> int:
    """The server runs on this machine, so its wall is ours."""
    return time.time_ns() // 1_000_000


def instant_ms(text: str) -> int:
    """Epoch milliseconds of `2026-11-21T02:17:05.123Z`, exactly."""
    at = datetime.fromisoformat(text)
    return int(at.timestamp()) * 1000 + at.microsecond // 1000


def minor(amount: str) -> int:
    """`"12.34"` → 1234."""
    scaled = Decimal(amount) * 100
    assert scaled == int(scaled), amount
    return int(scaled)


def bill_of_timeline(session: Json) -> tuple[int, int]:
    """Seconds and paise of an ended session, by nothing but its public timeline and rate: what a client's auditor would do."""
    rows = session["timeline"]
    assert rows[0]["event"] == "start", rows
    assert rows[-1]["event"] == "end", rows
    served_ms = 0
    since: int | None = None
    last_ms = 0
    for row in rows:
        at_ms = instant_ms(row["at"])
        assert at_ms >= last_ms, f"the timeline goes back: {rows}"
        last_ms = at_ms
        if row["event"] in ("start", "resume"):
            assert since is None, rows
            since = at_ms
        elif since is not None:
            served_ms += at_ms - since
            since = None
    seconds = served_ms // 1000
    return seconds, minor(session["ratePerMinute"]) * seconds // 60


def assert_bill(session: Json) -> None:
    """An ended session costs what its timeline says, to the paisa."""
    seconds, paise = bill_of_timeline(session)
    told = (session["durationSeconds"], minor(session["totalAmount"]))
    assert told == (seconds, paise), (
        f"{session['sessionId']}: told {told}, recomputed {(seconds, paise)}: {session}"
    )


@dataclass(frozen=True)
class Answer:
    """A response, read."""

    status: int
    json: Json
    headers: Mapping[str, str]

    @property
    def code(self) -> str:
        return str(self.json["code"])


class Api:
    """HTTP as one person."""

    def __init__(self, http: aiohttp.ClientSession, url: Callable[[], str], token: str | None = None) -> None:
        self._http = http
        self._url = url
        self.token = token

    def as_(self, token: str | None) -> "Api":
        return Api(self._http, self._url, token)

    async def call(self, method: str, path: str, body: Json = None, *, key: str | None = None) -> Answer:
        return await self.call_at(self._url(), method, path, body, key=key)

    async def call_at(
        self, url: str, method: str, path: str, body: Json = None, *, key: str | None = None
    ) -> Answer:
        """The same, to the server at `url`."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if key is not None:
            headers["Idempotency-Key"] = key
        async with self._http.request(method, url + path, json=body, headers=headers) as response:
            return Answer(response.status, await response.json(content_type=None), response.headers)

    async def get(self, path: str) -> Json:
        return await self.ok("GET", path)

    async def post(self, path: str, body: Json = None, *, key: str | None = None) -> Json:
        return await self.ok("POST", path, body, key=key)

    async def ok(self, method: str, path: str, body: Json = None, *, key: str | None = None) -> Json:
        """The answer's body; anything but success fails the test."""
        answer = await self.call(method, path, body, key=key)
        assert answer.status in (200, 201), f"{method} {path}: {answer.status} {answer.json}"
        return answer.json

    async def refused(self, method: str, path: str, body: Json = None, *, status: int, code: str) -> Answer:
        answer = await self.call(method, path, body)
        assert (answer.status, answer.json.get("code")) == (status, code), f"{method} {path}: {answer}"
        assert answer.headers["Content-Type"].startswith("application/problem+json")
        return answer


def has(**fields: Any) -> Callable[[Json], bool]:
    """Whether an event carries these values."""
    return lambda payload: all(payload[name] == value for name, value in fields.items())


@dataclass(frozen=True)
class Heard:
    """One event, and when it came."""

    name: str
    payload: Json
    at_ms: int


class Device:
    """One Socket.IO connection that remembers all it was told."""

    def __init__(self, sio: socketio.AsyncClient) -> None:
        self.sio = sio
        self.events: list[Heard] = []
        self.gone = asyncio.Event()
        self._news = asyncio.Event()
        sio.on("*", self._take)
        sio.on("disconnect", self._left)

    @classmethod
    async def connect(cls, url: str, token: str, *, patience_s: float = 1) -> "Device":
        device = cls(socketio.AsyncClient(reconnection=False))
        try:
            await device.sio.connect(
                url, transports=["websocket"], auth={"token": token}, wait_timeout=patience_s
            )
        except BaseException:
            await device.close()
            raise
        return device

    async def _take(self, event: str, payload: Json = None) -> None:
        self.events.append(Heard(event, payload, wall_ms()))
        self._news.set()

    async def _left(self, _reason: Any = None) -> None:
        self.gone.set()
        self._news.set()

    def cut_off(self) -> None:
        """Its network is gone; nothing more comes of it."""
        self.gone.set()
        self._news.set()

    async def call(self, event: str, payload: Json = None) -> Json:
        """Send and wait for the acknowledgement."""
        return await self.sio.call(event, payload, timeout=PATIENCE_S)

    async def ok(self, event: str, payload: Json) -> Json:
        ack = await self.call(event, payload)
        assert ack["ok"] is True, f"{event}: {ack}"
        return ack

    async def refused(self, event: str, payload: Json, code: str) -> Json:
        ack = await self.call(event, payload)
        assert ack["ok"] is False, f"{event}: {ack}"
        assert ack["error"]["code"] == code, f"{event}: {ack}"
        return ack

    async def heard(
        self,
        name: str,
        where: Callable[[Json], bool] = lambda _: True,
        *,
        after: int = 0,
        patience_s: float = PATIENCE_S,
    ) -> Heard:
        """The first such event, of those that came already (after the first `after` ones) or of those that will."""
        deadline = time.monotonic() + patience_s
        looked_at = after
        while True:
            self._news.clear()
            for event in self.events[looked_at:]:
                if event.name == name and where(event.payload):
                    return event
            looked_at = max(after, len(self.events))
            if self.gone.is_set():
                raise AssertionError(f"{name} never came, the connection is gone: {self._names}")
            try:
                await asyncio.wait_for(self._news.wait(), deadline - time.monotonic())
            except TimeoutError:
                raise AssertionError(f"{name} never came: {self._names}") from None

    @property
    def _names(self) -> list[str]:
        return [event.name for event in self.events]

    def all(self, name: str) -> list[Json]:
        return [event.payload for event in self.events if event.name == name]

    async def close(self) -> None:
        await close(self.sio)


async def close(client: socketio.AsyncClient) -> None:
    """Whatever state it is in. The library leaves its HTTP session open when a connection fails or breaks."""
    try:
        await client.disconnect()
    finally:
        if client.eio.http is not None and not client.eio.http.closed:
            await client.eio.http.close()


@dataclass
class Person:
    """An account and its devices."""

    id: str
    email: str
    name: str
    api: Api
    refresh_token: str
    world: "World"
    devices: list[Device] = field(default_factory=list)

    async def device(self) -> Device:
        """One more connection."""
        device = await self.world.connect(self.api.token or "")
        self.devices.append(device)
        return device

    async def recharge(self, amount: str, *, key: str | None = None) -> Json:
        return await self.api.post("/wallet/recharge", {"amount": amount}, key=key)

    async def start(self, lawyer: "Person", *, key: str | None = None, **more: Any) -> Json:
        return await self.api.post("/consult/start", {"lawyerId": lawyer.id, **more}, key=key)

    async def end(self, session_id: str, *, key: str | None = None) -> Json:
        return await self.api.post(f"/consult/{session_id}/end", key=key)

    async def session(self, session_id: str) -> Json:
        return await self.api.get(f"/consult/{session_id}")

    async def history(self, session_id: str, *, after_seq: int = 0, most: int | None = None) -> list[Json]:
        """All messages after `after_seq`, or the first `most` of them, page by page."""
        found: list[Json] = []
        path = f"/chat/{session_id}?afterSeq={after_seq}&limit=100"
        while True:
            page = await self.api.get(path)
            found += page["items"]
            if page["nextCursor"] is None or (most is not None and len(found) >= most):
                return found[:most]
            path = f"/chat/{session_id}?cursor={page['nextCursor']}&limit=100"


class World:
    """The people of one server."""

    def __init__(self, server: ServerProcess, http: aiohttp.ClientSession) -> None:
        self.server = server
        self.devices: list[Device] = []
        self.anyone = Api(http, lambda: self.server.url)
        self._admin: Api | None = None
        #: The server hashes a few passwords at a time and sends a crowd away.
        self._door = asyncio.Semaphore(16)

    async def connect(self, token: str) -> Device:
        """A device of whoever has the token; closed with the world."""
        device = await Device.connect(self.server.url, token)
        self.devices.append(device)
        return device

    async def admin(self) -> Api:
        if self._admin is None:
            answer = await self.anyone.post("/auth/login", {"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD})
            self._admin = self.anyone.as_(answer["accessToken"])
        return self._admin

    async def user(self, recharge: str | None = None) -> Person:
        """A registered user, with money."""
        person = await self._register("/auth/register", "Asha", {})
        if recharge is not None:
            await person.recharge(recharge)
        return person

    async def lawyer(self, rate: str = "60.00") -> Person:
        """A registered, verified lawyer who is online; 60.00 a minute is one rupee a second."""
        person = await self._register(
            "/lawyer/register",
            "Adv. Rao",
            {"ratePerMinute": rate, "barCouncilNumber": f"KAR/{secrets.token_hex(4)}/2015"},
        )
        await (await self.admin()).ok("PATCH", f"/lawyer/{person.id}/verify", {})
        await person.api.ok("PATCH", "/lawyer/availability", {"isOnline": True})
        return person

    async def _register(self, path: str, name: str, more: Json) -> Person:
        email = f"{next(_numbers)}-{secrets.token_hex(6)}@example.com"
        body = {"email": email, "password": PASSWORD, "name": name, **more}
        async with self._door:
            answer = await self.anyone.post(path, body)
        return Person(
            id=answer["user"]["id"],
            email=email,
            name=name,
            api=self.anyone.as_(answer["accessToken"]),
            refresh_token=answer["refreshToken"],
            world=self,
        )

    async def pair(self, recharge: str, rate: str = "60.00") -> tuple[Person, Person]:
        return tuple(await asyncio.gather(self.user(recharge), self.lawyer(rate)))  # type: ignore[return-value]

    async def talk(self, recharge: str, rate: str = "60.00") -> "Talk":
        """A session under way, both people in its room with a device each."""
        user, lawyer = await self.pair(recharge, rate)
        devices = await asyncio.gather(user.device(), lawyer.device())
        session = await user.start(lawyer)
        talk = Talk(session["sessionId"], session, user, lawyer, *devices)
        for device in devices:
            await device.ok("join_session", {"sessionId": talk.id})
        return talk


@dataclass
class Talk:
    """A consultation and its two sides."""

    id: str
    session: Json
    user: Person
    lawyer: Person
    user_device: Device
    lawyer_device: Device

    async def say(self, device: Device, body: str, client_msg_id: str | None = None) -> Json:
        message = {"sessionId": self.id, "body": body, "clientMsgId": client_msg_id or secrets.token_hex(8)}
        return await device.ok("send_message", message)


@asynccontextmanager
async def people_of(server: ServerProcess) -> AsyncIterator[World]:
    """People who can call `server`; their connections are closed at the end."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        world = World(server, http)
        try:
            yield world
        finally:
            await asyncio.gather(*(device.close() for device in world.devices), return_exceptions=True)
