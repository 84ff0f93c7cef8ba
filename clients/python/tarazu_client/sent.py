"""What the app holds of a message that it said."""

import asyncio
from typing import Any

from tarazu_client.errors import Refused
from tarazu_client.outbox import Draft


class Sent:
    """A message that was said. `await` it: its position, once it is stored for good. Raises `Refused` if it never will be."""

    def __init__(self, draft: Draft) -> None:
        self.client_msg_id = draft.client_msg_id
        self.body = draft.body
        self._seq: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        # The app need not ask.
        self._seq.add_done_callback(lambda future: future.cancelled() or future.exception())

    def __await__(self) -> Any:
        return asyncio.shield(self._seq).__await__()

    @property
    def seq(self) -> int | None:
        """None: not stored yet, or refused."""
        done = self._seq.done() and not self._seq.cancelled() and self._seq.exception() is None
        return self._seq.result() if done else None

    def stored(self, seq: int) -> None:
        if not self._seq.done():
            self._seq.set_result(seq)

    def failed(self, exc: Refused) -> None:
        if not self._seq.done():
            self._seq.set_exception(exc)
