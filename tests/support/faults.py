"""Ports that die, refuse or hang on command: between the engine and the real adapters, for tests of crashes and outages."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Died(BaseException):
    """The process ended here. No `except Exception` and no `except BillingError` may survive it."""


class Moment(StrEnum):
    """Where, relative to a call's effect, something goes wrong."""

    BEFORE = "before"
    AFTER = "after"


@dataclass
class Fuse:
    """Counts the async calls of every wrapped port and burns at the one that it is set to.

    Once it is burnt, every call dies: nothing that the dead process still has on its stack reaches the store.
    """

    at: int | None = None
    moment: Moment = Moment.BEFORE
    calls: list[str] = field(default_factory=list)
    #: Whether calls count now; one that does not count cannot burn.
    counting: bool = True
    #: What the call raises instead of dying; then the process lives on.
    error: Callable[[], Exception] | None = None
    burnt: bool = False
    #: Set by `die_at`.
    label: str | None = None
    burning: asyncio.Event = field(default_factory=asyncio.Event)

    def die_at(self, label: str, moment: Moment) -> None:
        """Burn at the next call of this name, whichever number it has."""
        self.label, self.moment = label, moment

    def wrap(self, name: str, port: Any) -> Any:
        """`port` with every async method under watch."""
        return _Watched(name, port, self._around)

    async def _around(self, label: str, call: Callable[[], Any]) -> Any:
        if self.burnt:
            raise Died(label)
        if label == self.label:
            return await self._burn(label, call)
        if not self.counting:
            return await call()
        here = len(self.calls)
        self.calls.append(label)
        if here != self.at:
            return await call()
        return await self._burn(label, call)

    async def _burn(self, label: str, call: Callable[[], Any]) -> Any:
        if self.moment is Moment.AFTER:
            await call()
        if self.error is not None:
            raise self.error()
        self.burnt = True
        self.burning.set()
        raise Died(f"{self.moment} {label}")


@dataclass
class Outage:
    """Ports whose calls fail, or hang until they are let go, while it is on. `only` says which calls it concerns."""

    error: Callable[[], Exception]
    only: Callable[[str], bool] = lambda _: True
    failing: bool = False
    #: While `failing`: this many of the calls still take effect, only their answers are lost; then the whole port is gone, its
    #: reads included.
    lost_answers: int = 0
    gone: str | None = None
    hanging: bool = False
    seen: list[str] = field(default_factory=list)
    _gate: asyncio.Event = field(default_factory=asyncio.Event)

    def wrap(self, name: str, port: Any) -> Any:
        """`port` with every async method under this outage."""
        return _Watched(name, port, self._around)

    def hang(self) -> None:
        """From now on calls wait."""
        self.hanging = True
        self._gate.clear()

    def over(self) -> None:
        """Calls succeed again, and those that wait go on."""
        self.failing = self.hanging = False
        self.lost_answers, self.gone = 0, None
        self._gate.set()

    async def _around(self, label: str, call: Callable[[], Any]) -> Any:
        port = label.partition(".")[0]
        if not self.only(label) and port != self.gone:
            return await call()
        if self.hanging:
            self.seen.append(label)
            await self._gate.wait()
        if self.failing:
            self.seen.append(label)
            if self.lost_answers > 0:
                self.lost_answers -= 1
                self.gone = port
                await call()
            raise self.error()
        return await call()


class _Watched:
    """Everything of the port, its coroutine functions wrapped."""

    def __init__(self, name: str, port: Any, around: Callable[[str, Callable[[], Any]], Any]) -> None:
        self._name = name
        self._port = port
        self._around = around

    def __getattr__(self, method: str) -> Any:
        found = getattr(self._port, method)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def watched(*args: Any, **more: Any) -> Any:
            return await self._around(f"{self._name}.{method}", lambda: found(*args, **more))

        return watched


@dataclass
class Interruption:
    """Lets something else happen, whole, in the middle of an act: before or after the effect of call number `at` of the wrapped ports."""

    at: int | None = None
    moment: Moment = Moment.BEFORE
    then: Callable[[], Any] | None = None
    calls: list[str] = field(default_factory=list)
    counting: bool = False
    burnt: bool = False

    def wrap(self, name: str, port: Any) -> Any:
        """`port` with every async method under watch."""
        return _Watched(name, port, self._around)

    async def _around(self, label: str, call: Callable[[], Any]) -> Any:
        if not self.counting:
            return await call()
        here = len(self.calls)
        self.calls.append(label)
        if here != self.at or self.then is None:
            return await call()
        self.counting = False
        if self.moment is Moment.BEFORE:
            await self.then()
            return await call()
        answer = await call()
        await self.then()
        return answer
