"""Counts in one process keep the contract of all."""

import pytest

from server.rate_limits.memory import MemoryBuckets
from tests.contract.buckets_contract import BucketsContract, Passes
from tests.support.manual_clock import ManualClock


class TestMemoryBuckets(BucketsContract):
    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def buckets(self, clock: ManualClock) -> MemoryBuckets:
        return MemoryBuckets(clock)

    @pytest.fixture
    def rival(self, buckets: MemoryBuckets) -> MemoryBuckets:
        return buckets

    @pytest.fixture
    def passes(self, clock: ManualClock) -> Passes:
        async def later(by_ms: int) -> None:
            clock.jump_ms(by_ms)

        return later
