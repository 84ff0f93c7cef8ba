"""bcrypt off the event loop, in its own two threads, with a bound on how many may wait."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import bcrypt

from server.auth.errors import PasswordsBusy
from server.auth.model import PASSWORD_BYTES

_THREADS: Final = 2
#: At cost 12 (0.24 s each) the last of these waits about eight seconds.
_WAITING_LIMIT: Final = 64
T = TypeVar("T")


class Passwords:
    """Hashes and checks passwords. `close` when done."""

    def __init__(self, *, cost: int, waiting_limit: int = _WAITING_LIMIT) -> None:
        self._cost = cost
        self._waiting_limit = waiting_limit
        self._waiting = 0
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="bcrypt")
        # Shaped like a hash and nobody's: checking against it takes as long as against a real one.
        self._nobody = bcrypt.gensalt(cost) + b"." * 31

    async def hash(self, password: str) -> str:
        """The bcrypt hash of a password that `password_problem` accepts. Raises `PasswordsBusy`."""
        return await self._run(lambda: bcrypt.hashpw(password.encode(), bcrypt.gensalt(self._cost)).decode())

    async def matches(self, password: str, hashed: str | None) -> bool:
        """Whether the password made the hash. Without a hash, or with a password that can be nobody's, it takes as long and is
        False. Raises `PasswordsBusy`.
        """
        tried = password.encode(errors="replace")
        possible = hashed is not None and len(tried) in PASSWORD_BYTES and b"\x00" not in tried
        wanted = hashed.encode() if hashed is not None and possible else self._nobody
        if not possible:
            tried = tried.replace(b"\x00", b"")[: PASSWORD_BYTES.stop - 1]
        return await self._run(lambda: bcrypt.checkpw(tried, wanted))

    def close(self) -> None:
        """Let the threads go once they have finished what they do."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= self._waiting_limit:
            raise PasswordsBusy(retry_after_s=5)
        self._waiting += 1
        # Counted until the thread is done with it, not until the caller has stopped waiting.
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, future: "asyncio.Future[T]") -> None:
        self._waiting -= 1
        if not future.cancelled():
            future.exception()
