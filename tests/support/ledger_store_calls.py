"""A ledger store whose every call can be seen, made to fail, or be the last thing that a process did."""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

from billing_engine.ledger.ports import LedgerStore
from server.storage.errors import StoreUnavailable


class Died(BaseException):
    """The process is gone. No `except Exception` may outlive it."""


class How(StrEnum):
    """What goes wrong at a store call."""

    DIES_BEFORE = "dies before the call reaches the store"
    DIES_AFTER = "dies after the call was durable, before its answer"
    FAILS_BEFORE = "the call never reaches the store"
    FAILS_AFTER = "the call was durable, its answer is lost"

    @property
    def kills(self) -> bool:
        """Whether the process is gone after it; else it lives on and may try again."""
        return self in (How.DIES_BEFORE, How.DIES_AFTER)


#: Called with a call's name and how to carry it out; what it returns is the call's answer.
Around = Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]]


class WatchedStore:
    """A `LedgerStore` that passes every call through `around`."""

    def __init__(self, store: LedgerStore, around: Around) -> None:
        self._store = store
        self._around = around
        self.atomic = store.atomic

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._around(name, lambda: method(*args, **kwargs))

        return call


class Trouble:
    """Counts calls and goes wrong at the chosen one. Without a chosen one it only takes notes."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._at: int | None = None
        self._how = How.DIES_BEFORE
        self.dead = False

    def plan(self, at: int, how: How) -> None:
        """Go wrong at call number `at` from now."""
        self.calls.clear()
        self._at, self._how = at, how

    def clear(self) -> None:
        """Nothing goes wrong from now on; counting starts again."""
        self.calls.clear()
        self._at = None

    async def around(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if self.dead:
            raise Died
        number = len(self.calls)
        self.calls.append(name)
        if number != self._at:
            return await call()
        if self._how is How.DIES_AFTER or self._how is How.FAILS_AFTER:
            await call()
        if self._how.kills:
            self.dead = True
            raise Died
        raise StoreUnavailable(reason="as planned")
