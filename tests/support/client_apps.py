"""An app on top of `tarazu_client`, as small as one can be: it remembers what it was given."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from tarazu_client import Chat, Client, Draft, Mark, Refused, Storage
from tarazu_client.backoff import Backoff
from tarazu_client.wire import MessageView
from tests.e2e.people import Person

#: Only ends a test that hangs.
PATIENCE_S: Final = 60.0


class App:
    """One person's device in one session."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.log: list[MessageView] = []
        self.events: list[tuple[str, Any]] = []
        self.failed: list[tuple[Draft, Refused]] = []
        self.chat: Chat
        self._news = asyncio.Event()
        client.on_any(self._hear)
        #: Access tokens asked for: one a connection.
        self.connections = 0

    async def open(self, session_id: str, *, after_seq: int = 0) -> "App":
        self.chat = await self.client.open(
            session_id,
            on_message=self._take,
            on_marks=self._mark,
            on_failed=self._fail,
            after_seq=after_seq,
        )
        return self

    def _take(self, message: MessageView) -> None:
        self.log.append(message)
        self._news.set()

    def _hear(self, event: str, payload: Any) -> None:
        self.events.append((event, payload))
        self._news.set()

    def _mark(self, _user_id: str, _mark: Mark) -> None:
        self._news.set()

    def _fail(self, draft: Draft, error: Refused) -> None:
        self.failed.append((draft, error))
        self._news.set()

    async def until(self, true: Callable[[], bool]) -> None:
        """Return once it is true; looked at whenever something has come."""
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                self._news.clear()
                await self._news.wait()

    async def has(self, seq: int) -> None:
        await self.until(lambda: self.chat.last_seq >= seq)

    async def heard(self, event: str, *, after: int = 0) -> Any:
        """The first of these events, after the first `after` of all events."""
        found: list[Any] = []

        def came() -> bool:
            found[:] = [payload for name, payload in self.events[after:] if name == event]
            return bool(found)

        await self.until(came)
        return found[0]

    @property
    def bodies(self) -> list[str]:
        return [message["body"] for message in self.log]


@asynccontextmanager
async def app_of(
    person: Person,
    session_id: str,
    *,
    url: str | None = None,
    after_seq: int = 0,
    storage: Storage | None = None,
    token: Callable[[], Any] | None = None,
) -> AsyncIterator[App]:
    """A device of the person, at `url` or where the person's world is; closed at the end."""

    app: App | None = None

    async def counted() -> str:
        if app is not None:
            app.connections += 1
        return person.api.token or "" if token is None else str(await token())

    async with Client(
        url or person.world.server.url,
        token=counted,
        user_id=person.id,
        storage=storage,
        # As an app's, but a test does not want to wait for fifteen seconds.
        backoff=Backoff(0.05, 0.5),
    ) as client:
        app = App(client)
        yield await app.open(session_id, after_seq=after_seq)


def tear(client: Client) -> None:
    """Lose the connection as a phone does in a lift: nothing is said, nothing is flushed."""
    sio = client._connection._sio
    connection = None if sio is None else sio.eio.ws._response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
