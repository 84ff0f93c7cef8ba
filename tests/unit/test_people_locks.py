"""`LocalLocks`: what the shared contract leaves to a clock that can be moved exactly."""

from server.locks.local import LocalLocks
from tests.support.manual_clock import ManualClock

BOTH = ("lock:user:1", "lock:lawyer:1")


async def test_a_lock_holds_to_its_last_millisecond_and_not_longer() -> None:
    clock = ManualClock()
    locks = LocalLocks(clock, ttl_ms=30_000)
    await locks.acquire(BOTH, "s1")

    clock.jump_ms(29_999)
    assert await locks.acquire(BOTH, "s2") == BOTH[0]
    clock.jump_ms(1)
    assert await locks.acquire(BOTH, "s2") is None


async def test_a_renewal_counts_from_now() -> None:
    clock = ManualClock()
    locks = LocalLocks(clock, ttl_ms=30_000)
    await locks.acquire(BOTH, "s1")
    clock.jump_ms(20_000)
    await locks.renew(BOTH, "s1")

    clock.jump_ms(29_999)
    assert await locks.acquire(BOTH, "s2") == BOTH[0]
    clock.jump_ms(1)
    assert await locks.acquire(BOTH, "s2") is None


async def test_a_refused_try_lengthens_nothing() -> None:
    clock = ManualClock()
    locks = LocalLocks(clock, ttl_ms=30_000)
    await locks.acquire(BOTH, "s1")
    clock.jump_ms(29_999)
    await locks.acquire(BOTH, "s2")
    clock.jump_ms(1)

    assert await locks.acquire(BOTH, "s3") is None
