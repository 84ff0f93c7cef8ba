"""Tells both parties of a session's billing, with the chat's `lastSeq` beside it. Billing calls it and goes
on at once.

A tick that carries `lastSeq` lets a client notice a lost message within one tick. It is read from storage,
not from memory: the writer may have been another process.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from chat.errors import ChatError
from chat.ports import MessageStore
from chat.push import Push

log = structlog.get_logger(__name__)

#: A store that does not answer delays no news for longer than this; `lastSeq` is then left out.
PATIENCE_S: Final = 1.0
#: News that may wait. Beyond it the oldest ephemeral ones would be worthless anyway.
WAITING: Final = 50_000
#: News told in one go before other tasks get their turn.
_IN_ONE_GO: Final = 200


@dataclass(frozen=True, slots=True)
class _Item:
    session_id: str
    event: str
    payloads: Mapping[str, Mapping[str, Any]]


class SessionNews:
    """A queue between billing and the sockets: `tell` never waits and never raises; the order of news is
    kept.
    """

    def __init__(self, *, store: MessageStore, push: Push) -> None:
        self._store = store
        self._push = push
        self._waiting: deque[_Item] = deque(maxlen=WAITING)
        self._worker: asyncio.Task[None] | None = None

    def tell(self, session_id: str, event: str, payloads: Mapping[str, Mapping[str, Any]]) -> None:
        """Send `event` to each person in `payloads` (person → what that person may see), wherever they are
        connected.
        """
        self._waiting.append(_Item(session_id, event, payloads))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())

    async def flush(self) -> None:
        """Return once everything that was told is on its way."""
        while self._worker is not None:
            await asyncio.wait({self._worker})

    async def _work(self) -> None:
        told = 0
        try:
            while self._waiting:
                item = self._waiting.popleft()
                extra = await self._last_seq(item)
                for person_id, payload in item.payloads.items():
                    self._push.post_to_user(person_id, item.event, {**payload, **extra})
                told += 1
                if told % _IN_ONE_GO == 0:
                    await asyncio.sleep(0)
        finally:
            self._worker = None

    async def _last_seq(self, item: _Item) -> dict[str, int]:
        if not any(self._push.watching(person_id) for person_id in item.payloads):
            return {}
        try:
            async with asyncio.timeout(PATIENCE_S):
                return {"lastSeq": await self._store.last_seq(item.session_id)}
        except (ChatError, TimeoutError) as exc:
            log.warning("last_seq_unknown", error=repr(exc))
        except Exception:
            log.exception("last_seq_failed")
        return {}
