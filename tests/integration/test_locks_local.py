"""The locks of one process keep the contract of all locks."""

import pytest

from server.locks.local import LocalLocks
from tests.contract.locks_contract import TTL_MS, Age, LocksContract
from tests.support.manual_clock import ManualClock


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
    def age(self, clock: ManualClock) -> Age:
        async def older(by_ms: int) -> None:
            clock.jump_ms(by_ms)

        return older
