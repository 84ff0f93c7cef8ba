"""One person's connection, and the conversations on it."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from tarazu_client.backoff import Backoff
from tarazu_client.chat import ACK_S, Chat, OnMessage
from tarazu_client.connection import Connection, Token, Url, http_session
from tarazu_client.errors import Refused
from tarazu_client.marks import Mark
from tarazu_client.outbox import WINDOW, Draft
from tarazu_client.storage import MemoryStorage, Storage
from tarazu_client.wire import Calls, Listens

log = logging.getLogger("tarazu_client")

_CLOSES_WITHIN_S = 15.0


class Client(Calls, Listens):
    """A context manager: connects, and connects again whenever it has to, until it is closed.

    Args:
        url: of the server, as `https://host`; or a function that names one of several, called before every connection.
        token: called before every connection for the access token of that moment. Raise `SignedOut` when there is none.
        user_id: whose login it is.
        storage: keeps what was said and not yet stored; by default for as long as the process lives.
        window: how many messages of a chat may be without an answer.
    """

    def __init__(
        self,
        url: Url,
        *,
        token: Token,
        user_id: str,
        storage: Storage | None = None,
        window: int = WINDOW,
        backoff: Backoff | None = None,
    ) -> None:
        self.user_id = user_id
        self._url = url
        self._token = token
        self._storage = storage or MemoryStorage()
        self._window = window
        self._backoff = backoff or Backoff()
        self._handlers: dict[str, list[Callable[[Any], object]]] = {}
        self._any: list[Callable[[str, Any], object]] = []
        self._chats: dict[str, Chat] = {}
        self._up = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._http = http_session()
        self._connection = Connection(
            self._url,
            http=self._http,
            token=self._token,
            hears=self._hear,
            went_up=self._went_up,
            went_down=self._went_down,
            backoff=self._backoff,
        )
        self._running = asyncio.create_task(self._connection.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Say goodbye. What waits in the outboxes stays in the storage."""
        self._connection.close()
        for chat in list(self._chats.values()):
            await chat.close()
        self._chats.clear()
        await asyncio.wait({self._running}, timeout=_CLOSES_WITHIN_S)
        self._running.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await self._running
        await self._http.close()

    @property
    def is_connected(self) -> bool:
        return self._connection.is_up

    async def connected(self) -> None:
        """Return once there is a connection. Raises `SignedOut`: there will be none."""
        up = asyncio.create_task(self._up.wait())
        try:
            await asyncio.wait({up, self._running}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
        if self._running.done():
            self._running.result()

    async def stopped(self) -> None:
        """Return when it is closed. Raises `SignedOut`: the server will not have this login back."""
        await asyncio.shield(self._running)

    # -- events ----------------------------------------------------------------------------------------------------

    async def call(self, event: str, payload: Any, *, timeout_s: float = ACK_S) -> Any:
        """Send an event on the present connection; its acknowledgement. Raises `ConnectionLost`, `AckTimeout`, `Refused`."""
        return await (await self._connection.ask(event, payload, timeout_s=timeout_s))

    def on(self, event: str, handler: Callable[[Any], object]) -> Callable[[], None]:
        """Hear every such event, of any session; what is returned ends it. A handler is a plain function and must not wait."""
        handlers = self._handlers.setdefault(event, [])
        handlers.append(handler)
        return lambda: handlers.remove(handler) if handler in handlers else None

    def on_any(self, handler: Callable[[str, Any], object]) -> None:
        """Hear everything, also what this version has no name for."""
        self._any.append(handler)

    def _hear(self, event: str, payload: Any) -> None:
        session_id = payload.get("sessionId") if isinstance(payload, dict) else None
        chat = self._chats.get(session_id) if isinstance(session_id, str) else None
        try:
            if chat is not None:
                chat.hear(event, payload)
        except (KeyError, TypeError, ValueError):
            log.exception("%s is not what it should be", event)
        for handler in (*self._handlers.get(event, ()), *(_with(event, any_) for any_ in self._any)):
            try:
                handler(payload)
            except Exception:
                log.exception("the app's handler of %s failed", event)

    # -- conversations ---------------------------------------------------------------------------------------------

    async def open(
        self,
        session_id: str,
        *,
        on_message: OnMessage,
        after_seq: int = 0,
        on_marks: Callable[[str, Mark], object] = lambda _user_id, _mark: None,
        on_failed: Callable[[Draft, Refused], object] = lambda _draft, _error: None,
    ) -> Chat:
        """Take part in a session's conversation from now on, with what an earlier run has left in the outbox.

        Args:
            session_id: whose.
            on_message: is given every message after `after_seq` exactly once and in order, one's own as well.
            after_seq: the last one that the app has already; from an app's own store after a restart.
            on_marks: how far somebody has received and read, when it changes.
            on_failed: a message will never be stored (the session is over, or its text is not allowed).

        Raises `ValueError`: it is open already.
        """
        if session_id in self._chats:
            raise ValueError(f"session {session_id} is open already")
        chat = self._chats[session_id] = Chat(
            self._connection,
            session_id,
            user_id=self.user_id,
            storage=self._storage,
            on_message=on_message,
            on_marks=on_marks,
            on_failed=on_failed,
            after_seq=after_seq,
            window=self._window,
        )
        await chat.start()
        return chat

    async def leave(self, chat: Chat) -> None:
        """Hear nothing more of it. What waits in its outbox stays in the storage."""
        self._chats.pop(chat.session_id, None)
        await chat.close()
        await self._connection.ask("leave_session", {"sessionId": chat.session_id}, timeout_s=ACK_S)

    def _went_up(self) -> None:
        self._up.set()
        for chat in self._chats.values():
            chat.went_up()

    def _went_down(self) -> None:
        self._up.clear()
        for chat in self._chats.values():
            chat.went_down()


def _with(event: str, handler: Callable[[str, Any], object]) -> Callable[[Any], object]:
    return lambda payload: handler(event, payload)
