"""A whole paid consultation, live in the terminal: the same HTTP and Socket.IO calls that an app makes.

Without `--url` it starts a server of its own on a throw-away database, with ticks of two seconds so that there is something
to watch. Nothing is faked: what is printed is what the server answered.
"""

import asyncio
import os
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import socketio
from rich.console import Console

#: 2.00 a second: 60.00 last half a minute.
RATE: Final = "120.00"
RECHARGE: Final = "60.00"
TALK: Final = (
    ("user", "Hello, I have a question about my rental agreement."),
    ("lawyer", "Good day. What does clause 7 say about the notice period?"),
    ("user", "One month, but the landlord asks for three."),
    ("lawyer", "Then one month it is. Send him a written notice today."),
)


class DemoFailed(Exception):
    """The server answered otherwise than the demo needs; says what."""


@dataclass(slots=True)
class Person:
    """One side of the consultation, as the server knows it."""

    name: str
    id: str
    token: str
    socket: Any = None


class Demo:
    """Plays both sides against a server, or each against a process of its own."""

    def __init__(self, http: aiohttp.ClientSession, urls: tuple[str, ...], console: Console) -> None:
        """The user calls the first address, the lawyer and the admin the last."""
        self._http = http
        self._urls = urls
        self._users_token: str | None = None
        self._console = console
        self._ended: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def run(self, *, admin_email: str, admin_password: str) -> None:
        """From registration to earnings. Raises `DemoFailed`."""
        say = self._console.print
        tag = secrets.token_hex(4)
        user = await self._register("/auth/register", "Asha", f"asha-{tag}@example.com", {})
        self._users_token = user.token
        lawyer = await self._register(
            "/lawyer/register",
            "Adv. Rao",
            f"rao-{tag}@example.com",
            {
                "ratePerMinute": RATE,
                "specializations": ["Property"],
                "languages": ["English", "Hindi"],
                "barCouncilNumber": f"KAR/{tag}/2015",
                "bio": "Twelve years of tenancy law.",
            },
        )
        say(f"[dim]registered[/]  {user.name} (USER) and {lawyer.name} (LAWYER, {RATE} a minute)")
        admin = await self._call(
            "POST", "/auth/login", None, {"email": admin_email, "password": admin_password}
        )
        await self._call("PATCH", f"/lawyer/{lawyer.id}/verify", admin["accessToken"], {})
        await self._call("PATCH", "/lawyer/availability", lawyer.token, {"isOnline": True})
        say("[dim]verified[/]    the admin has verified the lawyer, who is online now")
        recharge = await self._call("POST", "/wallet/recharge", user.token, {"amount": RECHARGE})
        say(f"[dim]recharged[/]   wallet: [bold green]{recharge['walletBalance']}[/] {recharge['currency']}")
        quote = await self._call("GET", f"/consult/quote?lawyerId={lawyer.id}", user.token)
        say(f"[dim]quote[/]       that is enough for {quote['affordableSeconds']} seconds\n")
        await self._connect(user)
        await self._connect(lawyer)
        session = await self._call("POST", "/consult/start", user.token, {"lawyerId": lawyer.id})
        for person in (user, lawyer):
            await self._emit(person, "join_session", {"sessionId": session["sessionId"]})
        talk = asyncio.create_task(self._talk(session["sessionId"], user, lawyer))
        ended = await self._ended
        heard_at = datetime.now().astimezone()
        talk.cancel()
        await asyncio.gather(talk, return_exceptions=True)
        await self._show_end(user, lawyer, session["sessionId"], ended, heard_at)
        for person in (user, lawyer):
            await person.socket.disconnect()

    async def _talk(self, session_id: str, user: Person, lawyer: Person) -> None:
        sides = {"user": (user, lawyer), "lawyer": (lawyer, user)}
        for side, body in TALK:
            await asyncio.sleep(2.5)
            sender, reader = sides[side]
            message = {"sessionId": session_id, "clientMsgId": secrets.token_hex(8), "body": body}
            ack = await self._emit(sender, "send_message", message)
            self._console.print(
                f"   [bold]{sender.name}[/]: {body}  [yellow]SENT[/] [dim]seq {ack['seq']}[/]"
            )
            await asyncio.sleep(0.6)
            await self._emit(reader, "message_delivered", {"sessionId": session_id, "uptoSeq": ack["seq"]})
            await asyncio.sleep(0.6)
            await self._emit(reader, "mark_seen", {"sessionId": session_id})

    async def _show_end(
        self, user: Person, lawyer: Person, session_id: str, ended: dict[str, Any], heard_at: datetime
    ) -> None:
        say = self._console.print
        final = await self._call("GET", f"/consult/{session_id}", user.token)
        ended_at = datetime.fromisoformat(final["endedAt"])
        late_ms = round((heard_at - ended_at).total_seconds() * 1000)
        say(
            f"\n[bold red]{ended['status']}[/] {ended['reason']}: {final['durationSeconds']} s cost {final['totalAmount']}"
        )
        say(f"[dim]cut-off[/]     the client heard of it {late_ms} ms after the last paid second")
        for row in final["timeline"]:
            say(f"[dim]timeline[/]    {row['at']}  {row['event']} {row['reason'] or ''}")
        balance = await self._call("GET", "/wallet/balance", user.token)
        rows = await self._call("GET", "/wallet/transactions", user.token)
        say(f"[dim]wallet[/]      {balance['walletBalance']} {balance['currency']}")
        for row in rows["items"]:
            say(
                f"[dim]ledger[/]      {row['type']:6} {row['amount']:>8}  {row['balanceBefore']} -> {row['balanceAfter']}"
            )
        history = await self._call("GET", f"/chat/{session_id}", lawyer.token)
        states = ", ".join(message["status"] for message in history["items"])
        say(f"[dim]history[/]     {len(history['items'])} messages: {states}")
        await self._call(
            "POST", "/review", user.token, {"sessionId": session_id, "rating": 5, "comment": "Clear."}
        )
        profile = await self._call("GET", f"/lawyer/{lawyer.id}", user.token)
        earnings = await self._call("GET", "/lawyer/earnings/summary", lawyer.token)
        say(
            f"[dim]review[/]      the lawyer's rating is {profile['rating']} ({profile['reviewCount']} review)"
        )
        say(
            f"[dim]earnings[/]    {earnings['totalEarnings']} {earnings['currency']} in {earnings['totalSessions']} session"
        )

    async def _register(self, path: str, name: str, email: str, more: dict[str, Any]) -> Person:
        body = {"email": email, "password": secrets.token_urlsafe(16), "name": name, **more}
        answer = await self._call("POST", path, None, body)
        return Person(name, answer["user"]["id"], answer["accessToken"])

    async def _call(
        self, method: str, path: str, token: str | None, body: dict[str, Any] | None = None
    ) -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = self._url_of(token) + path
        async with self._http.request(method, url, json=body, headers=headers) as response:
            answer = await response.json(content_type=None)
            if response.status >= 400:
                raise DemoFailed(f"{method} {path}: {response.status} {answer}")
            return answer

    def _url_of(self, token: str | None) -> str:
        return self._urls[0] if token == self._users_token else self._urls[-1]

    async def _connect(self, person: Person) -> None:
        socket = person.socket = socketio.AsyncClient(reconnection=False)
        socket.on("session:tick", self._tick)
        socket.on("session:low_balance", self._low)
        socket.on("session:ended", self._end)
        socket.on("message_status", lambda status: self._status(person, status))
        await socket.connect(
            self._url_of(person.token), transports=["websocket"], auth={"token": person.token}
        )

    async def _emit(self, person: Person, event: str, payload: dict[str, Any]) -> dict[str, Any]:
        ack: dict[str, Any] = await person.socket.call(event, payload, timeout=5)
        if not ack.get("ok"):
            raise DemoFailed(f"{event}: {ack}")
        return ack

    def _tick(self, tick: dict[str, Any]) -> None:
        if tick["walletBalance"] is not None:
            left = tick["remainingSeconds"]
            self._console.print(
                f"[cyan]tick[/] {tick['elapsedSeconds']:3d} s  cost {tick['totalAmount']:>6}"
                f"  wallet [green]{tick['walletBalance']:>6}[/]  {left:3d} s left"
            )

    def _low(self, tick: dict[str, Any]) -> None:
        if tick["walletBalance"] is not None:
            self._console.print(f"[magenta]low balance[/]: {tick['remainingSeconds']} s left")

    def _status(self, person: Person, status: dict[str, Any]) -> None:
        if status["userId"] != person.id:
            state = "SEEN" if status["seenSeq"] == status["deliveredSeq"] else "DELIVERED"
            self._console.print(f"   [dim]up to seq {status['deliveredSeq']}:[/] [green]{state}[/]")

    def _end(self, end: dict[str, Any]) -> None:
        if end["walletBalance"] is not None and not self._ended.done():
            self._ended.set_result(end)


async def run_demo(urls: tuple[str, ...], *, admin_email: str, admin_password: str) -> None:
    """Run the demo against `urls`, or against a server of its own where there are none. Raises `DemoFailed`."""
    console = Console(highlight=False, soft_wrap=True)
    async with aiohttp.ClientSession() as http:
        if urls:
            demo = Demo(http, tuple(url.rstrip("/") for url in urls), console)
            await demo.run(admin_email=admin_email, admin_password=admin_password)
            return
        async with own_server() as (own_url, email, password):
            await Demo(http, (own_url,), console).run(admin_email=email, admin_password=password)


@asynccontextmanager
async def own_server() -> AsyncIterator[tuple[str, str, str]]:
    """A real server process on a throw-away database: its address and its admin."""
    email, password = "admin@example.com", secrets.token_urlsafe(16)
    with tempfile.TemporaryDirectory(prefix="tarazu-demo-") as directory:
        environment = {
            **os.environ,
            "APP_ENV": "development",
            "HOST": "127.0.0.1",
            "PORT": "0",
            "DATABASE_URL": f"sqlite:///{Path(directory) / 'demo.db'}",
            "ADMIN_EMAIL": email,
            "ADMIN_PASSWORD": password,
            "TICK_SECONDS": "2",
            "MIN_SECONDS": "20",
            "LOG_LEVEL": "WARNING",
            "LOG_FORMAT": "json",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "server", "serve", "--announce-address",
            stdout=asyncio.subprocess.PIPE, env=environment,
        )  # fmt: skip
        try:
            address = await _address(process)
            yield address, email, password
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _address(process: asyncio.subprocess.Process) -> str:
    if process.stdout is None:
        raise DemoFailed("the server's output is not readable")
    line = (await asyncio.wait_for(process.stdout.readline(), timeout=60)).decode().strip()
    if not line.startswith("http://"):
        raise DemoFailed("the server did not start; its log above says why")
    return line
