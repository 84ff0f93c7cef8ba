"""What every `Buckets` must do. An engine's test supplies `buckets`, `rival` (the same counts seen by another process, or the
same object) and `passes` (makes so many milliseconds pass)."""

import asyncio
from collections.abc import Awaitable, Callable

from server.rate_limits.model import Allowance
from server.rate_limits.ports import Buckets

#: Slow, so that what really passes while a test runs gives nothing back.
TEN = Allowance(10, 600_000)
INTERVAL_MS = 60_000
Passes = Callable[[int], Awaitable[None]]


class BucketsContract:
    """Subclasses supply `buckets`, `rival` and `passes`."""

    async def test_so_many_at_once_and_then_a_wait(self, buckets: Buckets, rival: Buckets) -> None:
        """Ten wrong passwords on two processes are ten, not twenty."""
        granted = [await (buckets, rival)[n % 2].take("a", TEN) for n in range(10)]
        refused = [await buckets.take("a", TEN), await rival.take("a", TEN)]

        assert granted == [0] * 10
        assert all(INTERVAL_MS - 5_000 < wait_ms <= INTERVAL_MS for wait_ms in refused)

    async def test_who_waits_as_told_is_granted_one(self, buckets: Buckets, passes: Passes) -> None:
        for _ in range(10):
            await buckets.take("a", TEN)
        await passes(await buckets.take("a", TEN))

        assert await buckets.take("a", TEN) == 0
        assert await buckets.take("a", TEN) > 0

    async def test_who_comes_too_early_waits_for_the_rest(self, buckets: Buckets, passes: Passes) -> None:
        for _ in range(10):
            await buckets.take("a", TEN)
        await passes(20_000)

        assert 0 < await buckets.take("a", TEN) <= INTERVAL_MS - 20_000

    async def test_after_the_whole_period_it_is_whole(self, buckets: Buckets, passes: Passes) -> None:
        for _ in range(10):
            await buckets.take("a", TEN)
        await passes(TEN.period_ms)

        assert [await buckets.take("a", TEN) for _ in range(11)].count(0) == 10

    async def test_a_refusal_uses_nothing(self, buckets: Buckets, passes: Passes) -> None:
        for _ in range(50):
            await buckets.take("a", TEN)
        await passes(2 * INTERVAL_MS)

        assert [await buckets.take("a", TEN) for _ in range(3)].count(0) == 2

    async def test_keys_are_apart(self, buckets: Buckets) -> None:
        for _ in range(10):
            await buckets.take("login|account|a@example.com", TEN)

        assert await buckets.take("login|account|b@example.com", TEN) == 0

    async def test_a_use_that_is_given_back_does_not_count(self, buckets: Buckets) -> None:
        for _ in range(30):
            assert await buckets.take("a", TEN) == 0
            await buckets.give_back("a", TEN)
        await buckets.give_back("unknown", TEN)

        assert [await buckets.take("a", TEN) for _ in range(11)].count(0) == 10

    async def test_giving_back_makes_room_for_one(self, buckets: Buckets) -> None:
        for _ in range(10):
            await buckets.take("a", TEN)
        await buckets.give_back("a", TEN)

        assert [await buckets.take("a", TEN) for _ in range(2)].count(0) == 1

    async def test_giving_back_more_than_was_used_saves_nothing_up(self, buckets: Buckets) -> None:
        await buckets.take("a", TEN)
        for _ in range(5):
            await buckets.give_back("a", TEN)

        assert [await buckets.take("a", TEN) for _ in range(11)].count(0) == 10

    async def test_a_cleared_key_is_whole(self, buckets: Buckets) -> None:
        for _ in range(10):
            await buckets.take("a", TEN)
        await buckets.clear("a")
        await buckets.clear("unknown")

        assert await buckets.take("a", TEN) == 0

    async def test_of_a_hundred_at_once_ten_are_granted(self, buckets: Buckets, rival: Buckets) -> None:
        answers = await asyncio.gather(*((buckets, rival)[n % 2].take("a", TEN) for n in range(100)))

        assert answers.count(0) == 10

    async def test_names_of_any_kind_are_keys(self, buckets: Buckets) -> None:
        for key in ("", "a b", "ä|\n\r{x}*", "x" * 1_000):
            assert await buckets.take(key, Allowance(1, 600_000)) == 0
            assert await buckets.take(key, Allowance(1, 600_000)) > 0
