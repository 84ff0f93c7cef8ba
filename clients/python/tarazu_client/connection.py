"""One socket at a time, and another one whenever it is lost."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import aiohttp
import socketio

from tarazu_client.backoff import Backoff
from tarazu_client.errors import AckTimeout, ConnectionLost, Refused, SignedOut, retry_after_ms

log = logging.getLogger("tarazu_client")

Token = Callable[[], Awaitable[str]]
#: Of the server; or what is asked before every attempt, where there are several addresses and no balancer before them.
Url = str | Callable[[], str]
#: From here on a `server:bye` means: do not come back.
TERMINAL: Final = 3500
#: To open a connection, and to say goodbye to one.
_OPEN_S: Final = 10.0


class Socket(aiohttp.ClientWebSocketResponse):
    """Gives its connection back when it is lost; the library leaves that to the garbage collector."""

    def let_go(self) -> None:
        self._response.close()


def http_session() -> aiohttp.ClientSession:
    """What a `Connection` talks through."""
    return aiohttp.ClientSession(ws_response_class=Socket)


class Connection:
    """Connects, says what comes, and connects again. WebSocket only.

    Args:
        token: asked before every attempt for the access token of that moment. Raises `SignedOut` if there is none any more;
            anything else it raises is tried again.
        hears: every event, in the order of arrival.
        went_up, went_down: there is a connection now; there is none any more.
    """

    def __init__(
        self,
        url: Url,
        *,
        http: aiohttp.ClientSession,
        token: Token,
        hears: Callable[[str, Any], None],
        went_up: Callable[[], None],
        went_down: Callable[[], None],
        backoff: Backoff,
    ) -> None:
        self._url = url
        self._http = http
        self._token = token
        self._hears = hears
        self._went_up = went_up
        self._went_down = went_down
        self._backoff = backoff
        self._sio: Any = None
        self._asked: set[asyncio.Future[Any]] = set()
        self._bye: Mapping[str, Any] | None = None
        self._leave = asyncio.Event()
        self._refused_in_a_row = 0
        self._is_closing = False

    @property
    def is_up(self) -> bool:
        return self._sio is not None

    @property
    def is_leaving(self) -> bool:
        """The server has said that it is about to close this connection."""
        return self._bye is not None

    def close(self) -> None:
        """`run` returns soon."""
        self._is_closing = True
        self._leave.set()

    async def run(self) -> None:
        """Until it is closed. Raises `SignedOut`."""
        while not self._is_closing:
            wait_s = await self._one_life()
            if not self._is_closing:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._leave.wait()

    async def ask(self, event: str, payload: Any, *, timeout_s: float) -> "asyncio.Future[Any]":
        """Send now, after what was sent before; the future gets the acknowledgement. It raises `ConnectionLost`, `AckTimeout`
        or `Refused`.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_hear_of_it)
        if self._sio is None:
            answer.set_exception(ConnectionLost(f"{event}: there is no connection"))
            return answer
        self._asked.add(answer)
        timer = asyncio.get_running_loop().call_later(timeout_s, _fail, answer, AckTimeout(event))

        def done(_: object) -> None:
            timer.cancel()
            self._asked.discard(answer)

        answer.add_done_callback(done)
        try:
            await self._sio.emit(event, payload, callback=lambda *acks: self._take_ack(answer, *acks))
        except socketio.exceptions.SocketIOError as exc:
            _fail(answer, ConnectionLost(f"{event}: {exc}"))
        return answer

    def _take_ack(self, answer: "asyncio.Future[Any]", ack: Any = None, *_more: Any) -> None:
        if not isinstance(ack, dict) or not isinstance(ack.get("ok"), bool):
            _fail(answer, ConnectionLost("an acknowledgement that says nothing"))
        elif not ack["ok"]:
            _fail(answer, Refused(ack.get("error") or {}))
        elif not answer.done():
            self._backoff.reset()
            answer.set_result(ack)

    # -- one connection --------------------------------------------------------------------------------------------

    async def _one_life(self) -> float:
        """From the attempt to the loss; how long to wait before the next. Raises `SignedOut`."""
        refusals: list[Mapping[str, Any]] = []
        self._bye = None
        sio = socketio.AsyncClient(reconnection=False, handle_sigint=False, http_session=self._http)
        sio.on("*", self._take)
        answered = asyncio.Event()

        def refused(told: Any = None, *_: Any) -> None:
            refusals.append(_problem_of(told))
            answered.set()

        sio.on("connect", lambda *_: answered.set())
        sio.on("connect_error", refused)
        try:
            token = await self._token()
            url = self._url if isinstance(self._url, str) else self._url()
            await sio.connect(url, transports=["websocket"], auth={"token": token}, wait=False)
            # Never cancelled: it would take the library's reading along.
            lost = asyncio.create_task(sio.eio.wait())
            await _answer_or_loss(sio, answered, lost)
        except BaseException as exc:
            await self._leave_quietly(sio)
            if isinstance(exc, SignedOut) or not isinstance(exc, Exception):
                raise
            # Whatever it is, the next attempt may do better.
            log.info("no connection: %r %s", exc, refusals)
            return self._after_refusal(refusals[-1] if refusals else {})
        self._refused_in_a_row = 0
        self._sio = sio
        left = asyncio.create_task(self._leave.wait())
        try:
            self._went_up()
            await asyncio.wait({lost, left}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
            self._sio = None
            self._went_down()
            for answer in list(self._asked):
                _fail(answer, ConnectionLost("the connection is lost"))
            await self._leave_quietly(sio)
        return self._after_bye()

    def _take(self, event: str, payload: Any = None, *_more: Any) -> None:
        if event == "server:bye" and isinstance(payload, dict):
            self._bye = payload
            if _is_final(payload):
                self._leave.set()
        self._hears(event, payload)

    def _after_bye(self) -> float:
        bye = self._bye
        if bye is None:
            return self._backoff.next_s()
        if _is_final(bye):
            raise SignedOut(bye.get("code", TERMINAL), str(bye.get("reason", "")))
        return self._backoff.after_s(retry_after_ms(bye))

    def _after_refusal(self, problem: Mapping[str, Any]) -> float:
        """Refused for good is believed the second time: the token may have run out on its way."""
        if problem.get("retryable") is False:
            self._refused_in_a_row += 1
            if self._refused_in_a_row > 1:
                raise SignedOut(str(problem.get("code")), str(problem.get("message", "")))
        return self._backoff.after_s(retry_after_ms(problem))

    async def _leave_quietly(self, sio: Any) -> None:
        with suppress(Exception):
            async with asyncio.timeout(_OPEN_S):
                await sio.disconnect()
        if isinstance(socket := getattr(sio.eio, "ws", None), Socket):
            socket.let_go()


async def _answer_or_loss(sio: Any, answered: asyncio.Event, lost: "asyncio.Task[None]") -> None:
    """Until the server has taken the token. The library alone would wait for its whole patience though the line is lost.

    Raises `ConnectionError`.
    """
    answer = asyncio.create_task(answered.wait())
    try:
        await asyncio.wait({lost, answer}, timeout=_OPEN_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        answer.cancel()
    if "/" not in sio.namespaces:
        raise ConnectionError("refused, lost, or not answered")


def _is_final(bye: Mapping[str, Any]) -> bool:
    code = bye.get("code")
    return bye.get("reconnect") is False if not isinstance(code, int) else code >= TERMINAL


def _problem_of(told: Any) -> Mapping[str, Any]:
    """What a refused connection says; a server that could not be reached says a text, or nothing."""
    facts = told.get("data", told) if isinstance(told, dict) else {}
    return facts if isinstance(facts, dict) else {}


def _fail(answer: "asyncio.Future[Any]", exc: Exception) -> None:
    if not answer.done():
        answer.set_exception(exc)


def _hear_of_it(answer: "asyncio.Future[Any]") -> None:
    # Nobody may be waiting for it any more.
    if not answer.cancelled():
        answer.exception()
