"""The price book: the documents' worked examples, the arithmetic, and prices that are facts about an instant."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_engine.errors import BillingError, Unavailable
from billing_engine.money import INR, USD, parse_minor
from billing_engine.usage.errors import (
    PriceChangeExists,
    PriceListUnknown,
    UsagePriceInvalid,
    UsageTypeFixed,
    UsageTypeUnknown,
)
from billing_engine.usage.model import Price, cost_of
from billing_engine.usage.ports import PriceSeed
from billing_engine.usage.price_seed import OtherCurrency, seed_prices
from billing_engine.usage.prices import CACHE_MS, PriceBook, WantedPrice, notice_ms
from billing_engine.usage.pricing import Book, ListedPrice, PriceRow
from server.price_file import OverridesInvalid, PriceFileInvalid, load_price_file, with_overrides
from tests.support.manual_clock import ManualClock

NOTICE_MS = notice_ms(1_000)
SHIPPED = load_price_file(USD)


class DictRows:
    """`PriceRows` in memory; `gate` holds a reading back, `fails` breaks it."""

    def __init__(self) -> None:
        self.rows: dict[str, PriceRow] = {}
        self.mark: PriceSeed | None = None
        self.read = 0
        self.fails = False
        self.before_add: Callable[[], Awaitable[None]] | None = None

    async def every(self) -> list[PriceRow]:
        self.read += 1
        rows = list(self.rows.values())
        await asyncio.sleep(0)
        if self.fails:
            raise Unavailable
        return rows

    async def add(self, row: PriceRow) -> bool:
        before, self.before_add = self.before_add, None
        if before is not None:
            await before()
        key = f"{row.list_name}|{row.type}|{'first' if row.is_first else row.from_ms}"
        return self.rows.setdefault(key, row) is row

    async def seed(self) -> PriceSeed | None:
        return self.mark

    async def mark_seeded(self, seed: PriceSeed) -> None:
        self.mark = self.mark or seed


async def seeded(rows: DictRows, clock: ManualClock, listed: Any = SHIPPED.prices, **more: Any) -> list[str]:
    facts = {"version": 1, "currency": "USD", "notice_ms": NOTICE_MS} | more
    return await seed_prices(rows, clock, listed, **facts)


async def a_book(clock: ManualClock | None = None) -> tuple[PriceBook, DictRows, ManualClock]:
    rows, clock = DictRows(), clock or ManualClock()
    await seeded(rows, clock)
    return PriceBook(rows, clock, USD, notice_ms=NOTICE_MS), rows, clock


def wanted(id_: str = "c1", price_minor: int = 600_000, **more: Any) -> WantedPrice:
    facts = {"list_name": "tokens", "type": "cv-parsing", "by": "admin", "reason": "Why"} | more
    return WantedPrice(id=id_, price_minor=price_minor, **facts)


def shipped(list_name: str, type_: str) -> Price:
    (listed,) = (one for one in SHIPPED.prices if one.pair == (list_name, type_))
    return Price(*listed.pair, listed.entry_type, listed.unit, listed.price_minor, listed.per, 0)


@pytest.mark.parametrize(
    ("list_name", "type_", "quantity", "cost"),
    [
        ("questions", "cv-parsing", 1, "0.50"),
        ("questions", "question-generation", 10, "0.10"),
        ("questions", "question-generation", 7, "0.07"),
        ("questions", "video-interview", 5, "2.50"),
        ("tokens", "question-generation", 5_000, "0.01"),
        ("tokens", "question-generation", 1, "0.000002"),
        ("tokens", "cv-parsing", 10, "5.00"),
        ("tokens", "video-interview", 5 * 15, "7.50"),
    ],
)
def test_the_documents_examples(list_name: str, type_: str, quantity: int, cost: str) -> None:
    assert cost_of(quantity, shipped(list_name, type_)) == parse_minor(cost, USD)


def test_the_ten_applicant_job_costs_12_51() -> None:
    job = [("question-generation", 5_000), ("cv-parsing", 10), *[("video-interview", 15)] * 5]
    assert sum(cost_of(count, shipped("tokens", type_)) for type_, count in job) == parse_minor("12.51", USD)


PRICES = st.builds(
    Price,
    *map(st.just, ("tokens", "x-y", "X_Y", "unit")),
    st.integers(0, 10**11),
    st.integers(1, 10**6),
    st.just(0),
)


@given(st.integers(0, 10**9), PRICES)
def test_a_cost_is_the_exact_one_rounded_half_up(quantity: int, price: Price) -> None:
    exact, cost = Fraction(quantity * price.price_minor, price.per), cost_of(quantity, price)
    assert -Fraction(1, 2) < cost - exact <= Fraction(1, 2)


@given(st.integers(0, 10**9), st.integers(0, 10**9), PRICES)
def test_more_never_costs_less(one: int, other: int, price: Price) -> None:
    assert cost_of(min(one, other), price) <= cost_of(max(one, other), price)


def row(from_ms: int, price_minor: int = 1, **more: Any) -> PriceRow:
    words = ("tokens", "cv-parsing", "CV_PARSE", "cv")
    return replace(PriceRow(*words, price_minor, 1, from_ms, None, "", 1, "", from_ms == 0), **more)


@given(st.sets(st.integers(1, 50), max_size=10), st.integers(0, 60), st.randoms())
def test_the_order_of_writing_is_no_matter(instants: set[int], at_ms: int, random: Any) -> None:
    rows = [row(from_ms, 100 + from_ms) for from_ms in {0, *instants}]
    random.shuffle(rows)
    expected = max(from_ms for from_ms in {0, *instants} if from_ms <= at_ms)
    assert Book(rows).price_at("tokens", "cv-parsing", at_ms).price_minor == 100 + expected


STEPS = st.lists(
    st.tuples(
        st.integers(0, 20_000),
        st.integers(0, 10**9),
        st.none() | st.integers(NOTICE_MS, 40_000),
        st.booleans(),
    ),
    max_size=12,
)


@given(STEPS)
def test_no_change_alters_an_instant_that_has_passed_in_any_process(steps: Any) -> None:
    """A usage that was charged would have another price in the report, and what one process charges another would not."""

    async def run() -> None:
        one, rows, clock = await a_book()
        other = PriceBook(rows, clock, USD, notice_ms=NOTICE_MS)
        seen: dict[int, Price] = {}
        for number, (pause_ms, price_minor, ahead_ms, first) in enumerate(steps):
            clock.jump_ms(pause_ms)
            from_ms = None if ahead_ms is None else clock.now_ms() + ahead_ms
            try:
                writer = one if first else other
                await writer.change(wanted(f"c{number}", price_minor, from_ms=from_ms))
            except PriceChangeExists:
                pass
            # Each goes by what it has in memory.
            for _ in range(8):
                clock.jump_ms(900)
                now_ms = clock.now_ms()
                prices = [await book.price_at("tokens", "cv-parsing", now_ms) for book in (one, other)]
                assert prices[0] == prices[1]
                seen[now_ms] = prices[0]
        for at_ms, price in seen.items():
            fresh = PriceBook(rows, clock, USD, notice_ms=NOTICE_MS)
            assert await fresh.price_at("tokens", "cv-parsing", at_ms) == price
            assert await one.price_at("tokens", "cv-parsing", at_ms) == price

    asyncio.run(run())


async def test_a_price_changes_at_its_instant_to_the_millisecond() -> None:
    book, _, clock = await a_book()
    made = await book.change(wanted())
    assert made.from_ms == clock.now_ms() + 5_000
    before, after = [
        await book.price_at("tokens", "cv-parsing", at_ms) for at_ms in (made.from_ms - 1, made.from_ms)
    ]
    assert (before.price_minor, after.price_minor, before.from_ms) == (500_000, 600_000, 0)
    assert (await book.price_at("tokens", "cv-parsing", 0)).price_minor == 500_000
    assert (await book.price_at("questions", "cv-parsing", made.from_ms)).price_minor == 500_000


@pytest.mark.parametrize(("timeout_ms", "expected"), [(100, 5_000), (1_000, 5_000), (30_000, 34_000)])
def test_a_slower_store_needs_a_longer_notice(timeout_ms: int, expected: int) -> None:
    assert notice_ms(timeout_ms) == expected


async def test_the_book_is_read_once_in_two_seconds_and_once_for_all_who_wait() -> None:
    book, rows, clock = await a_book()
    rows.read = 0
    ask = lambda at_ms: book.price_at("tokens", "cv-parsing", at_ms)  # noqa: E731
    began_ms = clock.now_ms()
    await asyncio.gather(*(ask(began_ms) for _ in range(100)))
    clock.jump_ms(CACHE_MS)
    await ask(clock.now_ms())
    assert rows.read == 1
    clock.jump_ms(1)
    # Of the past it knows enough.
    await ask(began_ms)
    assert rows.read == 1
    await ask(clock.now_ms())
    assert rows.read == 2


async def test_a_store_that_is_away_is_an_error_for_all_who_wait_and_no_price() -> None:
    book, rows, clock = await a_book()
    await book.current()
    clock.jump_ms(CACHE_MS + 1)
    rows.fails, rows.read = True, 0
    asked = [book.price_at("tokens", "cv-parsing", clock.now_ms()) for _ in range(20)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(one) for one in found} == {Unavailable}
    assert rows.read == 1
    rows.fails = False
    assert (await book.price_at("tokens", "cv-parsing", clock.now_ms())).price_minor == 500_000


async def test_a_repeat_is_the_first_change() -> None:
    book, rows, clock = await a_book()
    made = await book.change(wanted())
    clock.jump_ms(60_000)
    assert await book.change(wanted()) == made
    assert len(rows.rows) == len(SHIPPED.prices) + 1


async def test_two_admins_at_once_both_change_and_the_later_one_counts() -> None:
    book, rows, clock = await a_book()
    other = PriceBook(rows, clock, USD, notice_ms=NOTICE_MS)

    async def rival() -> None:
        await other.change(wanted("c2", 700_000))

    rows.before_add = rival
    made = await book.change(wanted("c1", 600_000))
    assert len(rows.rows) == len(SHIPPED.prices) + 2
    last = await book.price_at("tokens", "cv-parsing", made.from_ms)
    assert last.price_minor == 600_000


async def test_a_clock_that_is_behind_does_not_lose_the_later_change() -> None:
    book, rows, clock = await a_book()
    await book.change(wanted("c1", 600_000))
    behind = PriceBook(rows, ManualClock(clock.now_ms() - 900), USD, notice_ms=NOTICE_MS)
    made = await behind.change(wanted("c2", 700_000))
    clock.jump_ms(NOTICE_MS + 1_000)
    assert made.from_ms <= clock.now_ms()
    assert (await book.price_at("tokens", "cv-parsing", clock.now_ms())).price_minor == 700_000


async def test_two_admins_add_one_type_and_the_second_may_not_say_otherwise() -> None:
    book, rows, clock = await a_book()
    other = PriceBook(rows, clock, USD, notice_ms=NOTICE_MS)
    new = {"type": "transcript", "entry_type": "TRANSCRIPT", "unit": "page"}

    async def rival() -> None:
        await other.change(wanted("c2", 1, **new))

    rows.before_add = rival
    with pytest.raises(UsageTypeFixed):
        await book.change(wanted("c1", 2, **new | {"unit": "minute"}))
    made = await book.change(wanted("c3", 3, type="transcript"))
    assert (made.unit, made.is_first) == ("page", False)
    # It has no price before it begins.
    (first,) = (one for one in rows.rows.values() if one.change_id == "c2")
    with pytest.raises(UsageTypeUnknown):
        await book.price_at("tokens", "transcript", first.from_ms - 1)
    assert (await book.price_at("tokens", "transcript", first.from_ms)).price_minor == 1


NEW = {"type": "transcript", "entry_type": "TRANSCRIPT", "unit": "page"}


@pytest.mark.parametrize(
    ("facts", "error", "field"),
    [
        ({"list_name": "nothing"}, PriceListUnknown, "list"),
        ({"price_minor": -1}, UsagePriceInvalid, "price"),
        ({"price_minor": 10**11 + 1}, UsagePriceInvalid, "price"),
        ({"per": 0}, UsagePriceInvalid, "per"),
        ({"per": 10**6 + 1}, UsagePriceInvalid, "per"),
        ({"entry_type": "OTHER"}, UsageTypeFixed, None),
        ({"unit": "page"}, UsageTypeFixed, None),
        ({"from_ms": 0}, UsagePriceInvalid, "effectiveFrom"),
        ({"from_ms": ManualClock().now_ms() + 4_999}, UsagePriceInvalid, "effectiveFrom"),
        ({"from_ms": ManualClock().now_ms() + 4_000 * 86_400_000}, UsagePriceInvalid, "effectiveFrom"),
        (NEW | {"type": "batch"}, UsagePriceInvalid, "type"),
        (NEW | {"type": "Transcript"}, UsagePriceInvalid, "type"),
        (NEW | {"type": "a|b"}, UsagePriceInvalid, "type"),
        (NEW | {"entry_type": None}, UsagePriceInvalid, "entryType"),
        (NEW | {"unit": None}, UsagePriceInvalid, "unit"),
        (NEW | {"unit": ""}, UsagePriceInvalid, "unit"),
        (NEW | {"entry_type": "CV_PARSE"}, UsagePriceInvalid, "entryType"),
        *[
            (NEW | {"entry_type": word}, UsagePriceInvalid, "entryType")
            for word in ("RECHARGE", "AUTO_RECHARGE", "OWED_COLLECTED", "REFUND", "lower", "X")
        ],
    ],
)
async def test_what_the_book_refuses(facts: Any, error: type[BillingError], field: str | None) -> None:
    book, rows, _ = await a_book()
    with pytest.raises(error) as refused:
        await book.change(wanted(**facts))
    assert refused.value.facts.get("field") == field
    assert len(rows.rows) == len(SHIPPED.prices)


async def test_one_word_of_the_ledger_is_one_type() -> None:
    book, _, _ = await a_book()
    await book.change(wanted("c1", 1, **NEW))
    with pytest.raises(UsagePriceInvalid):
        await book.change(wanted("c2", 1, **NEW | {"type": "another"}))
    with pytest.raises(UsageTypeFixed):
        await book.change(wanted("c3", 1, **NEW | {"list_name": "questions", "entry_type": "OTHER"}))
    made = await book.change(wanted("c4", 0, list_name="questions", type="transcript", unit="minute", per=60))
    assert (made.entry_type, made.unit, made.price_minor, made.per) == ("TRANSCRIPT", "minute", 0, 60)


async def test_a_change_at_an_instant_that_is_taken_is_refused() -> None:
    book, _, clock = await a_book()
    at_ms = clock.now_ms() + 86_400_000
    await book.change(wanted("c1", 1, from_ms=at_ms))
    with pytest.raises(PriceChangeExists):
        await book.change(wanted("c2", 2, from_ms=at_ms))
    # A change of now leaves what is announced alone.
    await book.change(wanted("c3", 3))
    for ahead_ms, price_minor in ((5_000, 3), (86_399_999, 3), (86_400_000, 1)):
        price = await book.price_at("tokens", "cv-parsing", clock.now_ms() + ahead_ms)
        assert price.price_minor == price_minor


async def test_what_is_left_out_is_as_it_will_be_then() -> None:
    book, _, _ = await a_book()
    assert (await book.change(wanted("c1", 5, type="question-generation"))).per == 1_000
    assert (await book.change(wanted("c2", 5, type="question-generation", per=500))).per == 500
    assert (await book.change(wanted("c3", 6, type="question-generation"))).per == 500


# --- The beginning


def changed(pair: tuple[str, str], **facts: Any) -> list[ListedPrice]:
    return [replace(one, **facts) if one.pair == pair else one for one in SHIPPED.prices]


async def test_a_start_that_was_cut_short_is_still_the_first() -> None:
    rows, clock = DictRows(), ManualClock()
    for one in SHIPPED.prices[:2]:
        await rows.add(row(0, one.price_minor, list_name=one.list_name, type=one.type))
    clock.jump_ms(86_400_000)
    assert await seeded(rows, clock) == []
    assert {one.from_ms for one in rows.rows.values()} == {0}
    assert len(rows.rows) == len(SHIPPED.prices)


async def test_later_starts_change_no_price_and_say_so() -> None:
    book, rows, clock = await a_book()
    before = dict(rows.rows)
    assert await seeded(rows, clock) == []
    pair = ("tokens", "cv-parsing")
    (said,) = await seeded(rows, clock, changed(pair, price_minor=1), version=2)
    assert "tokens.cv-parsing" in said
    assert "PUT /admin/usage-prices" in said
    (said,) = await seeded(rows, clock, changed(pair, unit="page"))
    assert "never change" in said
    assert rows.rows == before
    # An admin's change is no difference to a file that is as it was, and the file's price is none once storage has it.
    await book.change(wanted("c1", 1))
    clock.jump_ms(NOTICE_MS)
    assert await seeded(rows, clock) == []
    assert await seeded(rows, clock, changed(pair, price_minor=1)) == []


async def test_a_type_that_a_newer_file_brings_begins_then() -> None:
    book, rows, clock = await a_book()
    clock.jump_ms(86_400_000)
    new = ListedPrice("tokens", "transcript", "TRANSCRIPT", "page", 7, 1)
    assert await seeded(rows, clock, [*SHIPPED.prices, new], version=2) == []
    began_ms = clock.now_ms() + NOTICE_MS
    clock.jump_ms(NOTICE_MS)
    assert (await book.price_at("tokens", "transcript", began_ms)).price_minor == 7
    with pytest.raises(UsageTypeUnknown):
        await book.price_at("tokens", "transcript", began_ms - 1)


async def test_a_book_in_another_currency_is_not_read_in_this_one() -> None:
    _, rows, clock = await a_book()
    with pytest.raises(OtherCurrency):
        await seeded(rows, clock, currency="INR")


def test_overrides_go_before_the_file() -> None:
    file = with_overrides(SHIPPED, " tokens.cv-parsing=0.55, questions.video-interview = 0.40 ,", USD)
    differ = {one.pair: one.price_minor for one in file.prices if one not in SHIPPED.prices}
    assert differ == {("tokens", "cv-parsing"): 550_000, ("questions", "video-interview"): 400_000}
    assert with_overrides(SHIPPED, "", USD) == SHIPPED


@pytest.mark.parametrize(
    "text",
    [
        "tokens.cv-parsing",
        "tokens.cv-parsing=",
        "tokens.cv-parsing=-1",
        "tokens.cv-parsing=1e3",
        "tokens.cv-parsing=0.0000001",
        "tokens.cv-parsing=100000.01",
        "tokens.cv-parsing=1,tokens.cv-parsing=2",
        "cv-parsing=1",
        "tokens.nothing=1",
    ],
)
def test_overrides_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(OverridesInvalid):
        with_overrides(SHIPPED, text, USD)


HEAD = 'version = 1\ncurrency = "USD"\n'
ONE = '[a.transcript]\nentry_type = "TRANSCRIPT"\nunit = "page"\nprice = "0.10"\n'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not toml",
        HEAD,
        ONE,
        HEAD.replace("1", "0") + ONE,
        HEAD.replace("1", "true") + ONE,
        HEAD.replace("USD", "INR") + ONE,
        HEAD + ONE + "colour = 1\n",
        HEAD + ONE + "per = 0\n",
        HEAD + ONE + "per = 1.5\n",
        HEAD + ONE.replace("0.10", "-0.10"),
        HEAD + ONE.replace("0.10", "0.0000001"),
        HEAD + ONE.replace('unit = "page"\n', ""),
        HEAD + ONE.replace("TRANSCRIPT", "REFUND"),
        HEAD + ONE.replace("TRANSCRIPT", "CV_PARSE"),
        HEAD + ONE.replace('"TRANSCRIPT"', "5"),
        HEAD + ONE.replace("transcript", "batch"),
        HEAD + ONE.replace("transcript", "cv-parsing"),
        HEAD + ONE + ONE.replace("a.transcript", "a.other"),
        HEAD + ONE + ONE.replace("a.", "b.").replace('"TRANSCRIPT"', '"OTHER"'),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(PriceFileInvalid, match=r"prices\.toml"):
        load_price_file(USD, file)


def test_a_file_of_one_s_own_is_read_exactly(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(HEAD.replace("USD", "INR") + ONE.replace('"0.10"', "0.10"))
    (price,) = load_price_file(INR, file).prices
    assert (price.pair, price.price_minor, price.per) == (("a", "transcript"), 10, 1)
    file.write_text(HEAD + ONE.replace('"0.10"', "0"))
    assert load_price_file(USD, file).prices[0].price_minor == 0
