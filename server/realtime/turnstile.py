"""A few at a time: when thousands come back in one instant, the loop must get round to what is due between them."""

import asyncio
from collections import deque


class Turnstile:
    """Lets `per_turn` through in each turn of the event loop, in the order in which they came; the others wait for a later one."""

    def __init__(self, per_turn: int) -> None:
        self._per_turn = per_turn
        self._left = per_turn
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_turning = False

    async def enter(self) -> None:
        """Return when it is one's turn."""
        if self._left and not self._waiting:
            self._left -= 1
            self._turn_soon()
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._turn_soon()
        await future

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def _turn_soon(self) -> None:
        if not self._is_turning:
            self._is_turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_turning = False
        self._left = self._per_turn
        while self._waiting and self._left:
            future = self._waiting.popleft()
            if not future.done():  # who was cancelled waits no more
                future.set_result(None)
                self._left -= 1
        if self._waiting:
            self._turn_soon()
