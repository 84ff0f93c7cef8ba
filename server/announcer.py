"""Tells both parties of a session what billing has done: `session:*` events to every device they are connected with."""

import asyncio
import logging
from typing import Final

from billing_engine.consultations.model import SessionEvent
from billing_engine.stopping import stop_tasks
from chat.errors import ChatError
from chat.push import Push
from chat.service import ChatService
from server.session_views import event_payload

log = logging.getLogger(__name__)

#: So many events may wait; beyond it ticks are dropped first, they come again in ten seconds.
_WAITING: Final = 10_000
#: How long a store that did not answer is left alone.
_REST_S: Final = 1.0


class SocketAnnouncer:
    """`Announcer` over the sockets. `announce` only queues: one worker reads `lastSeq` from storage and sends, in order."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[SessionEvent] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None
        self._push: Push | None = None
        self._chat: ChatService | None = None
        self._rest_until_s = 0.0

    def start(self, push: Push, chat: ChatService) -> None:
        """Begin to send; what was announced before this waits."""
        self._push, self._chat = push, chat
        self._worker = asyncio.create_task(self._run(push, chat), name="announcer")

    async def stop(self) -> None:
        """Send what waits, then stop."""
        if self._worker is not None and self._push is not None and self._chat is not None:
            await stop_tasks((self._worker,))
            while not self._queue.empty():
                await self._tell(self._queue.get_nowait(), self._push, self._chat)

    def announce(self, event: SessionEvent) -> None:
        session = event.view.session
        push = self._push
        if push is not None and not (
            push.reaches_beyond or push.watching(session.user_id) or push.watching(session.lawyer_id)
        ):
            return
        if self._queue.qsize() >= _WAITING and event.name == "session:tick":
            return
        self._queue.put_nowait(event)

    async def _run(self, push: Push, chat: ChatService) -> None:
        while True:
            await self._tell(await self._queue.get(), push, chat)

    async def _tell(self, event: SessionEvent, push: Push, chat: ChatService) -> None:
        session = event.view.session
        last_seq = await self._last_seq(event, chat)
        for person in (session.user_id, session.lawyer_id):
            push.post_to_user(person, event.name, event_payload(event, person, last_seq=last_seq))

    async def _last_seq(self, event: SessionEvent, chat: ChatService) -> int | None:
        """None: nobody knows whether a message was missed, and the news goes out all the same. A store that has just not answered is
        not asked again for a moment, or all the news of an outage would queue behind its timeouts.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._rest_until_s:
            return None
        try:
            return await chat.last_seq(event.view.session.id)
        except ChatError as exc:
            self._rest_until_s = loop.time() + _REST_S
            extra = {"session_id": event.view.session.id}
            log.warning("%s is told without lastSeq: %r", event.name, exc, extra=extra)
            return None
