"""Allowances, buckets and addresses: how often, for whom, and whose word counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_engine.errors import Unavailable
from server.auth.login_guard import LoginGuard
from server.errors import RateLimited
from server.http.address import address_of, network_of
from server.rate_limits.memory import MemoryBuckets
from server.rate_limits.model import Allowance, parse_allowance
from server.rate_limits.service import Allowances, Limited, RateLimits
from tests.support.manual_clock import ManualClock

TEN = Allowance(10, 60_000)


@pytest.mark.parametrize(
    ("text", "allowance"),
    [
        ("10/minute", TEN),
        ("10/minutes", TEN),
        ("1/second", Allowance(1, 1_000)),
        ("100/2hours", Allowance(100, 7_200_000)),
        ("3/day", Allowance(3, 86_400_000)),
        ("off", None),
    ],
)
def test_a_rate_is_read(text, allowance):
    assert parse_allowance(text) == allowance


@pytest.mark.parametrize(
    "text",
    ["", "10", "0/minute", "10/0minutes", "-1/minute", "1.5/hour", "10/week", "ten/day", "10 / minute"],
)
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(ValueError, match="no rate"):
        parse_allowance(text)


async def test_so_many_at_once_and_then_one_by_one():
    clock = ManualClock()
    buckets = MemoryBuckets(clock)

    assert [await buckets.take("a", TEN) for _ in range(12)] == [0] * 10 + [6_000] * 2
    assert await buckets.take("b", TEN) == 0
    clock.jump_ms(5_999)
    assert await buckets.take("a", TEN) == 1
    clock.jump_ms(1)
    assert [await buckets.take("a", TEN) for _ in range(2)] == [0, 6_000]


@given(
    count=st.integers(1, 50),
    period_ms=st.integers(50, 100_000),
    gaps=st.lists(st.integers(0, 30_000), max_size=60),
)
async def test_what_is_granted_never_passes_the_allowance_and_the_wait_is_true(count, period_ms, gaps):
    """In any stretch of time: `count`, and what came back meanwhile."""
    clock, allowance = ManualClock(), Allowance(count, period_ms)
    buckets = MemoryBuckets(clock)
    granted: list[int] = []
    for gap in gaps:
        clock.jump_ms(gap)
        wait_ms = await buckets.take("a", allowance)
        if wait_ms:
            clock.jump_ms(wait_ms)
            assert await buckets.take("a", allowance) == 0
        granted.append(clock.now_ms())
    for first, start_ms in enumerate(granted):
        for last in range(first, len(granted)):
            stretch_ms = granted[last] - start_ms
            assert last - first + 1 <= count + stretch_ms // allowance.interval_ms


async def test_a_use_that_is_given_back_does_not_count():
    buckets = MemoryBuckets(ManualClock())
    for _ in range(100):
        assert await buckets.take("a", TEN) == 0
        await buckets.give_back("a", TEN)
    await buckets.give_back("unknown", TEN)
    assert [await buckets.take("a", TEN) for _ in range(11)].count(0) == 10


async def test_made_up_keys_do_not_fill_the_memory():
    clock = ManualClock()
    buckets = MemoryBuckets(clock, max_keys=100)
    for n in range(5_000):
        await buckets.take(f"key {n}", TEN)
    assert len(buckets) <= 101
    clock.jump_ms(60_000)
    for _ in range(200):
        await buckets.take("one", Allowance(1_000, 1_000))
    assert len(buckets) == 1


async def test_a_limit_counts_the_address_and_the_account_apart():
    limits = RateLimits(
        MemoryBuckets(ManualClock()),
        {Limited.REGISTER: Allowances(Allowance(3, 60_000), Allowance(2, 60_000))},
    )
    await limits.check(Limited.REGISTER, address="1.1.1.1", account="a")
    await limits.check(Limited.REGISTER, address="2.2.2.2", account="a")
    with pytest.raises(RateLimited) as refused:
        await limits.check(Limited.REGISTER, address="3.3.3.3", account="a")
    assert refused.value.facts == {"retry_after_s": 30.0}
    await limits.check(Limited.REGISTER, address="1.1.1.1", account="b")
    await limits.check(Limited.REGISTER, address="1.1.1.1", account=None)
    with pytest.raises(RateLimited):
        await limits.check(Limited.REGISTER, address="1.1.1.1", account="c")
    for _ in range(100):
        await limits.check(Limited.RECHARGE, address="1.1.1.1", account="a")


class _Gone:
    async def take(self, key: str, allowance: Allowance) -> int:
        raise Unavailable

    async def give_back(self, key: str, allowance: Allowance) -> None:
        raise Unavailable

    async def clear(self, key: str) -> None:
        raise Unavailable


async def test_counts_that_do_not_answer_shut_nobody_out():
    """The store of counts may be away for an hour; nobody could log in or pay."""
    await RateLimits(_Gone(), {Limited.LOGIN: Allowances(TEN, TEN)}).check(
        Limited.LOGIN, address="1.1.1.1", account="a"
    )
    guard = LoginGuard(_Gone(), here=TEN, strangers=TEN, key=b"k")
    attempt = await guard.begin("a@example.com", "1.1.1.1", ())
    await guard.forgive(attempt)
    await guard.proved("a@example.com")


@pytest.mark.parametrize(
    ("forwarded", "proxies", "address"),
    [
        ([], 0, "10.0.0.1"),
        (["6.6.6.6"], 0, "10.0.0.1"),
        ([], 1, "10.0.0.1"),
        (["6.6.6.6"], 1, "6.6.6.6"),
        # What the client wrote itself stands left of what our proxy appended.
        (["1.2.3.4, 6.6.6.6"], 1, "6.6.6.6"),
        (["1.2.3.4", "6.6.6.6"], 1, "6.6.6.6"),
        (["1.2.3.4, 6.6.6.6, 10.0.0.9"], 2, "6.6.6.6"),
        (["6.6.6.6"], 2, "10.0.0.1"),
        (["garbage"], 1, "10.0.0.1"),
        (["6.6.6.6:51234"], 1, "6.6.6.6"),
        (["[2001:db8::1]:51234"], 1, "2001:db8::1"),
        (["2001:db8::1"], 1, "2001:db8::1"),
    ],
)
def test_the_address_is_what_our_outermost_proxy_saw(forwarded, proxies, address):
    """Whoever chooses their own address is never limited."""
    assert address_of("10.0.0.1", forwarded, proxies) == address


def test_an_ipv6_household_is_one_address():
    assert (
        network_of("2001:db8:1:2:aaaa::1")
        == network_of("2001:db8:1:2:bbbb::2")
        != network_of("2001:db8:1:3::1")
    )
    assert network_of("::ffff:1.2.3.4") == network_of("1.2.3.4") == "1.2.3.4"
    assert network_of("fe80::1%eth0") == network_of("fe80::1")
    assert network_of("") == ""
