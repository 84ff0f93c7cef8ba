"""A Socket.IO server that does what a test writes down: what the real one does rarely, or only when it is broken.

The protocol is real; only the answers are made up.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import socketio
from aiohttp import web

SESSION: Final = "ses_1"
ME: Final = "usr_1"
PEER: Final = "law_1"
#: Only ends a test that hangs.
PATIENCE_S: Final = 30.0

Json = dict[str, Any]
SILENCE: Final = object()


def refusal(code: str, *, retryable: bool, **more: Any) -> Json:
    return {"ok": False, "error": {"code": code, "message": code, "retryable": retryable, **more}}


def bill(status: str = "ACTIVE", last_seq: int | None = 0) -> Json:
    return {
        "sessionId": SESSION, "elapsedSeconds": 5, "totalAmount": "5.00", "walletBalance": "95.00", "currency": "INR",
        "ratePerMinute": "60.00", "remainingSeconds": 95, "paidUntil": None, "status": status, "reason": None, "lastSeq": last_seq,
    }  # fmt: skip


class Script:
    """One conversation. `answers[event]` is asked for each such event before anything is done; None: do as the real one does."""

    def __init__(self) -> None:
        self.stored: list[Json] = []
        self.asked: list[tuple[str, Json]] = []
        self.answers: dict[str, Callable[[Json], Any]] = {}
        self.status = "ACTIVE"
        self.marks = {ME: {"deliveredSeq": 0, "seenSeq": 0}, PEER: {"deliveredSeq": 0, "seenSeq": 0}}
        self.refuses: list[Json] = []
        self.tokens: list[Any] = []
        #: So many of the next connections break between the token and its answer.
        self.breaks_while_connecting = 0
        self.url = ""
        self.sids: list[str] = []
        self.lines: list[asyncio.Transport] = []
        #: The next messages are stored and not told.
        self.is_silent = False
        self._news = asyncio.Event()
        self._tasks: set[Any] = set()
        self.sio = socketio.AsyncServer(async_mode="aiohttp", transports=["websocket"])
        self.sio.on("connect", self._connect)
        self.sio.on("*", self._take)

    async def _connect(self, sid: str, _environ: Any, auth: Json) -> None:
        self.tokens.append(auth["token"])
        self._news.set()
        if self.breaks_while_connecting:
            self.breaks_while_connecting -= 1
            self.cut()
        if self.refuses:
            facts = self.refuses.pop(0)
            raise socketio.exceptions.ConnectionRefusedError(facts.get("code", ""), facts)
        self.sids.append(sid)

    async def _take(self, event: str, _sid: str, payload: Json) -> Any:
        self.asked.append((event, payload))
        self._news.set()
        answer = self.answers.get(event, lambda _payload: None)(payload)
        if answer is SILENCE:
            await asyncio.get_running_loop().create_future()
        return self._do(event, payload) if answer is None else answer

    def _do(self, event: str, payload: Json) -> Json:
        if event == "join_session":
            return self.joined(payload)
        if event == "send_message":
            return self.store(ME, payload["clientMsgId"], payload["body"])
        if event in ("message_delivered", "mark_seen"):
            mark = self.marks[ME]
            mark["deliveredSeq"] = max(mark["deliveredSeq"], payload["uptoSeq"])
            if event == "mark_seen":
                mark["seenSeq"] = max(mark["seenSeq"], payload["uptoSeq"])
            return {"ok": True, **mark, "updated": 1}
        return {"ok": True}

    def joined(self, payload: Json, **other: Any) -> Json:
        mine = {m["clientMsgId"]: m for m in self.stored if m["senderId"] == ME}
        return {
            "ok": True,
            "sessionId": SESSION,
            "lastSeq": len(self.stored),
            "messages": self.stored[payload["afterSeq"] :],
            "hasMore": False,
            "watermarks": self.marks,
            "presence": {ME: "ONLINE", PEER: "ONLINE"},
            "billing": bill(self.status, len(self.stored)),
            "stored": {k: {"id": m["id"], "seq": m["seq"], "createdAt": ""} for k, m in mine.items() if k in payload["pendingIds"]},
            **other,
        }  # fmt: skip

    def store(self, sender: str, client_msg_id: str, body: str) -> Json:
        known = [m for m in self.stored if (m["senderId"], m["clientMsgId"]) == (sender, client_msg_id)]
        if not known:
            seq = len(self.stored) + 1
            message = {
                "id": f"{SESSION}:{seq}", "sessionId": SESSION, "seq": seq, "senderId": sender, "clientMsgId": client_msg_id,
                "body": body, "status": "SENT", "createdAt": "", "deliveredAt": None, "seenAt": None, "erasedAt": None,
            }  # fmt: skip
            self.stored.append(message)
            if not self.is_silent:
                self.tell("new_message", message)
        message = (known or self.stored)[-1]
        return {"ok": True, "seq": message["seq"], "id": message["id"], "status": "SENT", "createdAt": "",
                "clientMsgId": client_msg_id, "duplicate": bool(known)}  # fmt: skip

    def tell(self, event: str, payload: Any) -> None:
        for sid in self.sids[-1:]:
            self._tasks.add(asyncio.ensure_future(self.sio.emit(event, payload, to=sid)))

    def cut(self) -> None:
        """The newest connection breaks."""
        self.lines[-1].abort()

    def bodies_asked(self) -> list[str]:
        return [payload["body"] for event, payload in self.asked if event == "send_message"]

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def scripted() -> AsyncIterator[Script]:
    script = Script()

    @web.middleware
    async def remember_the_line(request: web.Request, handler: Any) -> Any:
        assert isinstance(request.transport, asyncio.Transport)
        script.lines.append(request.transport)
        return await handler(request)

    app = web.Application(middlewares=[remember_the_line])
    script.sio.attach(app)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    script.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield script
    finally:
        await script.sio.shutdown()
        await runner.cleanup()
