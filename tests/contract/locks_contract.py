"""What every `Locks` must do. An engine's test supplies `locks`, `rival` (the same locks seen by another process, or the
same object), `age` (makes all locks older by so many milliseconds) and `TTL_MS`, the lifetime of a lock."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from billing_engine.consultations.ports import Locks

BOTH = ("lock:user:1", "lock:lawyer:1")
TTL_MS = 30_000
Age = Callable[[int], Awaitable[None]]


class LocksContract:
    """Subclasses supply `locks`, `rival` and `age`."""

    @pytest.fixture
    def let_expire(self, age: Age) -> Callable[[], Awaitable[None]]:
        return lambda: age(TTL_MS)

    async def test_free_names_are_taken_together(self, locks: Locks, rival: Locks) -> None:
        assert await locks.acquire(BOTH, "s1") is None
        assert await rival.acquire(BOTH[:1], "s2") == BOTH[0]
        assert await rival.acquire(BOTH[1:], "s2") == BOTH[1]

    async def test_a_held_name_is_refused_and_named(self, locks: Locks, rival: Locks) -> None:
        await locks.acquire(("lock:lawyer:1",), "s1")

        assert await rival.acquire(BOTH, "s2") == "lock:lawyer:1"

    async def test_the_first_held_name_is_the_answer(self, locks: Locks, rival: Locks) -> None:
        """USER_BUSY and LAWYER_BUSY are told apart by it."""
        await locks.acquire(BOTH, "s1")

        assert await rival.acquire(BOTH, "s2") == BOTH[0]
        assert await rival.acquire(BOTH[::-1], "s2") == BOTH[1]

    async def test_a_refused_pair_leaves_nothing_locked(self, locks: Locks, rival: Locks) -> None:
        """A user who met a busy lawyer would otherwise be busy for the lock's lifetime."""
        await locks.acquire(("lock:lawyer:1",), "s1")
        await rival.acquire(BOTH, "s2")

        assert await locks.acquire(("lock:user:1",), "s3") is None

    async def test_taking_ones_own_again_is_success(self, locks: Locks) -> None:
        """The reply to the first try was lost; its token is the session's id, so the retry meets itself."""
        await locks.acquire(BOTH, "s1")

        assert await locks.acquire(BOTH, "s1") is None

    async def test_half_of_the_pair_being_ours_is_success(self, locks: Locks, rival: Locks) -> None:
        await locks.acquire(BOTH[:1], "s1")

        assert await locks.acquire(BOTH, "s1") is None
        assert await rival.acquire(BOTH[1:], "s2") == BOTH[1]

    async def test_a_release_frees_all_names(self, locks: Locks, rival: Locks) -> None:
        await locks.acquire(BOTH, "s1")
        await locks.release(BOTH, "s1")

        assert await rival.acquire(BOTH, "s2") is None

    async def test_a_release_compares_the_token(self, locks: Locks, rival: Locks) -> None:
        """A late release of an ended session must not unlock the next one."""
        await locks.acquire(BOTH, "s2")
        await rival.release(BOTH, "s1")
        await rival.release(("lock:user:unknown",), "s1")

        assert await rival.acquire(BOTH, "s3") == BOTH[0]

    async def test_a_lock_expires(
        self, locks: Locks, rival: Locks, let_expire: Callable[[], Awaitable[None]]
    ) -> None:
        """A dead process holds nobody for ever."""
        await locks.acquire(BOTH, "s1")
        await let_expire()

        assert await rival.acquire(BOTH, "s2") is None

    async def test_an_expired_owner_cannot_release_the_next_one(
        self, locks: Locks, rival: Locks, let_expire: Callable[[], Awaitable[None]]
    ) -> None:
        await locks.acquire(BOTH, "s1")
        await let_expire()
        await rival.acquire(BOTH, "s2")
        await locks.release(BOTH, "s1")

        assert await locks.acquire(BOTH, "s3") == BOTH[0]

    async def test_a_renewal_lengthens_what_is_ours(self, locks: Locks, rival: Locks, age: Age) -> None:
        """A session of an hour renews with each tick and is never bookable in between."""
        await locks.acquire(BOTH, "s1")
        for _ in range(3):
            await age(TTL_MS - 1_000)
            await locks.renew(BOTH, "s1")

        assert await rival.acquire(BOTH, "s2") == BOTH[0]
        assert await rival.acquire(BOTH[1:], "s2") == BOTH[1]

    async def test_taking_ones_own_again_lengthens_it(self, locks: Locks, rival: Locks, age: Age) -> None:
        await locks.acquire(BOTH, "s1")
        await age(TTL_MS - 1_000)
        await locks.acquire(BOTH, "s1")
        await age(TTL_MS - 1_000)

        assert await rival.acquire(BOTH[1:], "s2") == BOTH[1]

    async def test_a_refusal_lengthens_nothing(self, locks: Locks, rival: Locks, age: Age) -> None:
        """Whoever keeps trying must not keep a dead process's lock alive."""
        await locks.acquire(BOTH, "s1")
        await age(TTL_MS - 1_000)
        assert await rival.acquire(BOTH, "s2") == BOTH[0]
        await rival.renew(BOTH, "s2")
        await age(1_000)

        assert await rival.acquire(BOTH, "s2") is None

    async def test_a_release_of_a_part_keeps_the_rest(self, locks: Locks, rival: Locks) -> None:
        await locks.acquire(BOTH, "s1")
        await locks.release(BOTH[:1], "s1")

        assert await rival.acquire(BOTH[:1], "s2") is None
        assert await rival.acquire(BOTH, "s2") == BOTH[1]

    async def test_a_repeated_release_is_harmless(self, locks: Locks, rival: Locks) -> None:
        await locks.acquire(BOTH, "s1")
        await locks.release(BOTH, "s1")
        await locks.release(BOTH, "s1")

        assert await rival.acquire(BOTH, "s2") is None

    async def test_a_renewal_after_expiry_takes_free_names_again(
        self, locks: Locks, rival: Locks, let_expire: Callable[[], Awaitable[None]]
    ) -> None:
        """The session lives, the locks forgot it (a restart, a stall): the next tick puts them back."""
        await locks.acquire(BOTH, "s1")
        await let_expire()
        await locks.renew(BOTH, "s1")

        assert await rival.acquire(BOTH, "s2") == BOTH[0]

    async def test_a_renewal_takes_nothing_from_another_token(
        self, locks: Locks, rival: Locks, let_expire: Callable[[], Awaitable[None]]
    ) -> None:
        await locks.acquire(BOTH, "s1")
        await let_expire()
        await rival.acquire(BOTH[:1], "s2")
        await locks.renew(BOTH, "s1")

        assert await rival.acquire(BOTH[:1], "s2") is None
        assert await locks.acquire(BOTH[:1], "s3") == BOTH[0]
        assert await rival.acquire(BOTH[1:], "s2") == BOTH[1]

    async def test_of_a_hundred_takers_one_wins(self, locks: Locks, rival: Locks) -> None:
        start = asyncio.Event()

        async def take(by: Locks, token: str) -> str | None:
            await start.wait()
            return await by.acquire(BOTH, token)

        takers = [asyncio.create_task(take((locks, rival)[n % 2], f"s{n}")) for n in range(100)]
        await asyncio.sleep(0)
        start.set()
        answers = await asyncio.gather(*takers)

        assert answers.count(None) == 1

    async def test_crossed_pairs_never_both_win_nor_block(self, locks: Locks, rival: Locks) -> None:
        """Two starts that name the same two people in opposite order."""
        for number in range(50):
            pair = (f"lock:user:{number}", f"lock:lawyer:{number}")
            answers = await asyncio.gather(
                locks.acquire(pair, f"a{number}"), rival.acquire(pair[::-1], f"b{number}")
            )
            assert answers.count(None) == 1

    async def test_who_holds_a_name_is_told(self, locks: Locks, rival: Locks) -> None:
        """A lock whose release was lost is told from one that is in use by the session that holds it."""
        assert await locks.holder(BOTH[0]) is None
        await locks.acquire(BOTH, "s1")
        assert [await rival.holder(name) for name in BOTH] == ["s1", "s1"]
        await locks.release(BOTH[:1], "s1")
        assert [await rival.holder(name) for name in BOTH] == [None, "s1"]

    async def test_it_says_that_it_is_there(self, locks: Locks) -> None:
        await locks.ping()
