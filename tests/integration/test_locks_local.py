"""The locks of one process keep the contract of all locks."""

from collections.abc import Awaitable, Callable

import pytest

from server.locks.local import LocalLocks
from tests.contract.locks_contract import LocksContract
from tests.support.manual_clock import ManualClock

TTL_MS = 30_000


class TestLocalLocks(LocksContract):
    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def locks(self, clock: ManualClock) -> LocalLocks:
        return LocalLocks(clock, ttl_ms=TTL_MS)

    @pytest.fixture
    def rival(self, locks: LocalLocks) -> LocalLocks:
        return locks

    @pytest.fixture
    def let_expire(self, clock: ManualClock) -> Callable[[], Awaitable[None]]:
        async def expire() -> None:
            clock.jump_ms(TTL_MS)

        return expire
