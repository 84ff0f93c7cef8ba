"""Subscriptions over the fake Stripe: word of what happened comes at once, late, in any order and again; somebody looks meanwhile or not.

However it comes: one end state, each paid period granted once, each invoice booked once.
"""

import itertools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from billing_engine.subscriptions.account import GRACE_MS
from billing_engine.subscriptions.errors import CycleOver, NoUpgrade
from billing_engine.subscriptions.model import CYCLE_MS
from billing_engine.subscriptions.ports import SubscriptionStatus
from tests.support.ai_stage import USER
from tests.support.plan_stage import DAY_MS, HOUR_MS, Standing, Subscriber, a_subscriber

Step = Callable[[Subscriber], Awaitable[object]]


def waits(duration_ms: int) -> Step:
    async def step(one: Subscriber) -> None:
        one.passes(duration_ms)

    return step


def buys(tier: str = "starter") -> Step:
    return lambda one: one.buys(tier)


def only(one: Subscriber) -> str:
    return next(iter(one.stripe.books.subscriptions))


async def bank_declines(one: Subscriber) -> None:
    one.stripe.books.declining.add(only(one))


async def pays_invoice(one: Subscriber) -> None:
    one.stripe.pay_invoice(only(one))


def cancels(wish: bool) -> Step:
    """On Stripe's own page for customers."""

    async def step(one: Subscriber) -> None:
        await one.stage.plans._gateway.set_cancels(only(one), wish)

    return step


async def operator_has_it_unpaid(one: Subscriber) -> None:
    one.stripe.books.after_retries = "unpaid"


async def changes_down(one: Subscriber) -> None:
    await one.stage.plans._gateway.change_tier(
        only(one), tier="starter", amount_minor=19_000_000, currency="USD", cycle_ends_ms=None, key="down"
    )


RENEWED = CYCLE_MS + 2 * HOUR_MS


@dataclass(frozen=True)
class History:
    """What happens at Stripe. `tier` and `status` are how it ends."""

    name: str
    steps: tuple[Step, ...]
    tier: str
    status: SubscriptionStatus

    def __str__(self) -> str:
        return self.name


ACTIVE, PAST_DUE, ENDED = SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE, SubscriptionStatus.ENDED
HISTORIES = (
    History("renewed", (buys(), waits(RENEWED), waits(CYCLE_MS)), "starter", ACTIVE),
    History("three cycles on", (buys(), waits(3 * CYCLE_MS + 2 * HOUR_MS)), "starter", ACTIVE),
    History("a draft for an hour", (buys(), waits(CYCLE_MS + HOUR_MS // 2)), "starter", ACTIVE),
    History("paid within the grace", (buys(), bank_declines, waits(RENEWED), pays_invoice), "starter", ACTIVE),
    History(
        "paid after the grace",
        (buys(), bank_declines, waits(RENEWED), waits(GRACE_MS - HOUR_MS // 2), pays_invoice),
        "starter",
        ACTIVE,
    ),
    History("past due", (buys(), bank_declines, waits(RENEWED), waits(DAY_MS)), "starter", PAST_DUE),
    History("past due after the grace", (buys(), bank_declines, waits(RENEWED), waits(GRACE_MS)), "free", PAST_DUE),
    History("failed for good", (buys(), bank_declines, waits(RENEWED), waits(10 * DAY_MS)), "free", ENDED),
    History(
        "unpaid", (buys(), operator_has_it_unpaid, bank_declines, waits(RENEWED), waits(10 * DAY_MS)), "free", ENDED
    ),
    History("cancelled", (buys(), cancels(True), waits(10 * DAY_MS)), "starter", ACTIVE),
    History("cancelled and over", (buys(), cancels(True), waits(RENEWED)), "free", ENDED),
    History(
        "cancelled and taken back", (buys(), cancels(True), waits(DAY_MS), cancels(False), waits(CYCLE_MS)), "starter", ACTIVE
    ),
    History("cancelled while past due", (buys(), bank_declines, waits(RENEWED), cancels(True)), "free", PAST_DUE),
    History("downgraded", (buys("professional"), changes_down, waits(RENEWED)), "starter", ACTIVE),
    History("not yet downgraded", (buys("professional"), changes_down, waits(DAY_MS)), "professional", ACTIVE),
    History("ended and bought again", (buys(), cancels(True), waits(RENEWED), buys("professional"), waits(DAY_MS)), "professional", ACTIVE),
)  # fmt: skip


async def lived(
    history: History, path: Path, *, now: tuple[bool, ...], looks: bool, seed: int | None
) -> Standing:
    """`now` says after which steps word arrives. Who looks, has been heard of as a payer before a month has passed."""
    async with a_subscriber(path) as one:
        for step, is_heard in zip(history.steps, now, strict=True):
            await step(one)
            if is_heard or (looks and step is history.steps[0]):
                await one.hears()
            if looks:
                await one.stage.plans.view(USER)
        await one.hears_all(None if seed is None else random.Random(seed))
        found = await one.standing()
        await one.hears_all(None)
        assert await one.standing() == found, "a repeat changed something"
        await one.check()
        return found


def ways(history: History, *, exhaustive: bool) -> list[tuple[tuple[bool, ...], bool, int | None]]:
    n = len(history.steps)
    if exhaustive:
        return list(
            itertools.product(itertools.product((True, False), repeat=n), (True, False), (None, 1, 2))
        )
    return [
        ((True,) * n, True, None),
        ((False,) * n, False, 1),
        ((False,) * n, True, 2),
        *((tuple(i == late for i in range(n)), late % 2 == 0, late) for late in range(n)),
    ]


@pytest.mark.parametrize(
    "exhaustive", [False, pytest.param(True, marks=pytest.mark.exhaustive)], ids=["some", "all"]
)
@pytest.mark.parametrize("history", HISTORIES, ids=str)
async def test_word_in_any_order_comes_to_the_same(
    history: History, exhaustive: bool, tmp_path: Path
) -> None:
    first: Standing | None = None
    for number, (now, looks, seed) in enumerate(ways(history, exhaustive=exhaustive)):
        # To buy again is only possible for who knows that the first one is over.
        if history.name.startswith("ended and") and not (now[0] and now[2]):
            continue
        try:
            found = await lived(history, tmp_path / f"{number}.db", now=now, looks=looks, seed=seed)
            first = first or found
            assert found == first
            assert (found.tier, found.row[1]) == (history.tier, history.status)
        except BaseException as exc:
            exc.add_note(f"{history}: heard {now}, looks {looks}, seed {seed}")
            raise


async def test_a_lost_word_of_a_renewal_is_found(tmp_path: Path) -> None:
    """Stripe begins the period an hour before its invoice is paid; nobody tells us of either."""
    async with a_subscriber(tmp_path / "t.db") as one:
        await one.buys()
        await one.hears()
        one.passes(CYCLE_MS + 61_000)
        await one.chores()
        for _ in range(3):
            one.passes(HOUR_MS)
            await one.chores()
        found = await one.standing()
        assert (found.tier, found.credits) == ("starter", 1_900_000)
        assert found.ends_ms > one.stage.clock.now_ms() + 29 * DAY_MS
        one.passes(CYCLE_MS)
        assert (await one.stage.subscriptions.due(one.stage.clock.now_ms(), limit=1)) != []


# -- upgrades ----------------------------------------------------------------------------------------------------------------


async def half_way(one: Subscriber) -> None:
    await one.buys()
    await one.hears()
    one.passes(15 * DAY_MS)


async def test_an_upgrade_in_time(tmp_path: Path) -> None:
    async with a_subscriber(tmp_path / "t.db") as one:
        await half_way(one)
        quoted = await one.stage.plans.preview(USER, "professional", resets=False)
        payment = await one.upgrades()
        assert payment.amount_minor == quoted.amount_minor == 40_000_000
        assert (await one.standing()).tier == "starter"
        await one.hears()
        found = await one.standing()
        assert (found.tier, found.credits, found.allowance) == ("professional", 5_900_000, 5_900_000)
        one.passes(15 * DAY_MS + 2 * HOUR_MS)
        await one.hears_all(random.Random(1))
        found = await one.standing()
        assert (found.tier, found.credits, found.booked) == (
            "professional",
            9_900_000,
            (19 + 40 + 99) * 10**6,
        )
        await one.check()


async def test_an_upgrade_of_which_word_comes_in_the_next_cycle(tmp_path: Path) -> None:
    """It was paid and it comes: its tier for the cycle that runs, and its credits. The cycle after it is at its price."""
    async with a_subscriber(tmp_path / "t.db") as one:
        await half_way(one)
        await one.upgrades()
        one.passes(15 * DAY_MS + 2 * HOUR_MS)
        await one.hears_all(random.Random(3))
        await one.settles()
        found = await one.standing()
        assert (found.tier, found.credits, found.booked) == (
            "professional",
            5_900_000,
            (19 + 40 + 19) * 10**6,
        )
        one.passes(CYCLE_MS)
        await one.hears_all(random.Random(4))
        assert (await one.standing()).booked == (19 + 40 + 19 + 99) * 10**6
        await one.check()


@pytest.mark.parametrize("ended_first", [True, False])
async def test_an_upgrade_of_a_subscription_that_has_ended_meanwhile(
    ended_first: bool, tmp_path: Path
) -> None:
    async with a_subscriber(tmp_path / "t.db") as one:
        await half_way(one)
        payment = await one.orders()
        await one.stage.plans.cancel(USER)
        one.passes(15 * DAY_MS + HOUR_MS)
        if ended_first:
            await one.hears()
        one.stripe.pay(payment.order_id)
        await one.hears_all(random.Random(5))
        await one.settles()
        assert (await one.stage.payments.own(payment.id, payer_id=None)).check_at_ms is None, "settled"
        known = await one.stage.subscriptions.get(USER)
        assert known is not None
        assert (known.wanted_tier, known.check_at_ms) == (None, None)
        found = await one.standing()
        assert (found.tier, found.ends) == ("professional", True), "what was paid is had for the cycle"
        assert found.credits == 100_000 + 4_000_000
        one.passes(CYCLE_MS)
        found = await one.standing()
        assert (found.tier, found.credits) == ("free", 100_000), "and for no grace after it"
        await one.check()


async def test_a_quote_is_good_for_its_cycle_and_its_tier(tmp_path: Path) -> None:
    async with a_subscriber(tmp_path / "t.db") as one:
        await half_way(one)
        await one.stage.plans.preview(USER, "professional", resets=False)
        from_starter = await one.stage.plans.preview(USER, "enterprise", resets=False)
        await one.upgrades()
        await one.hears()
        with pytest.raises(NoUpgrade):
            await one.orders(key="again")
        assert (
            (await one.orders("enterprise", "unpaid")).amount_minor == 200_000_000 < from_starter.amount_minor
        )
        one.passes(15 * DAY_MS - 60_000)
        cheap = await one.stage.plans.preview(USER, "enterprise", resets=False)
        one.passes(60_000)
        with pytest.raises(CycleOver):
            await one.orders("enterprise", "late")
        with pytest.raises(CycleOver):
            await one.stage.plans.preview(USER, "enterprise", resets=True)
        # The next one is paid before ten minutes are over.
        await pays_invoice(one)
        await one.hears()
        dear = await one.orders("enterprise", "later")
        assert dear.amount_minor > 390_000_000 > cheap.amount_minor
        assert dear.item != cheap.id


async def test_a_quote_that_has_run_out_is_made_anew_and_a_repeat_keeps_its_own(tmp_path: Path) -> None:
    async with a_subscriber(tmp_path / "t.db") as one:
        await half_way(one)
        quoted = await one.stage.plans.preview(USER, "professional", resets=False)
        one.passes(9 * 60_000)
        first = await one.orders(key="a")
        one.passes(DAY_MS)
        again = await one.orders(key="a")
        other = await one.orders(key="b")
        assert first.item == again.item == quoted.id
        assert other.item != quoted.id
        assert other.amount_minor < first.amount_minor == quoted.amount_minor


async def test_a_downgrade_after_an_upgrade_is_not_undone_by_a_repeat(tmp_path: Path) -> None:
    async with a_subscriber(tmp_path / "t.db") as one:
        await half_way(one)
        payment = await one.upgrades()
        await one.hears()
        one.passes(DAY_MS)
        await one.stage.plans.downgrade(USER, "starter", operation_id="down")
        one.passes(2 * DAY_MS)
        await one.stage.plans.fulfil(await one.stage.payments.own(payment.id, payer_id=None))
        known = await one.stage.subscriptions.get(USER)
        assert known is not None
        assert (known.wanted_key, known.wanted_tier) == ("down", None)
        await one.settles()
        found = await one.standing()
        assert (found.tier, found.row[-1]) == ("professional", "starter")
        one.passes(12 * DAY_MS + 2 * HOUR_MS)
        await one.hears_all(random.Random(6))
        assert (await one.standing()).tier == "starter"
        await one.check()


@pytest.mark.parametrize("late", [False, True])
async def test_a_reset_begins_a_cycle_and_moves_the_invoice(late: bool, tmp_path: Path) -> None:
    async with a_subscriber(tmp_path / "t.db") as one:
        await half_way(one)
        await one.upgrades(resets=True)
        if late:
            one.passes(DAY_MS)
        await one.hears()
        await one.settles()
        found = await one.standing()
        assert (found.tier, found.credits, found.booked) == ("professional", 9_900_000, (19 + 89.5) * 10**6)
        assert found.ends_ms - found.starts_ms == CYCLE_MS
        changes = [doc["tier"] for doc in await one.stage.changes._changes.find({}, limit=100)]
        assert sorted(changes) == ["professional", "starter"], "counted once"
        one.passes(found.ends_ms - one.stage.clock.now_ms() + 2 * HOUR_MS)
        await one.hears_all(random.Random(7))
        found = await one.standing()
        assert (found.tier, found.credits, found.booked) == (
            "professional",
            9_900_000,
            (19 + 89.5 + 99) * 10**6,
        )
        await one.check()


async def test_a_reset_that_was_paid_is_not_cut_by_the_old_ones_end(tmp_path: Path) -> None:
    async with a_subscriber(tmp_path / "t.db") as one:
        await half_way(one)
        await one.upgrades(resets=True)
        await one.hears()
        one.stripe.end(only(one))
        await one.hears()
        found = await one.standing()
        assert (found.tier, found.ends) == ("professional", True)
        one.passes(CYCLE_MS)
        assert (await one.standing()).tier == "free"


# -- two pages ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
async def test_both_pages_paid(seed: int, tmp_path: Path) -> None:
    """The newer one is kept whichever is heard of first; the other ends with its cycle."""
    async with a_subscriber(tmp_path / "t.db") as one:
        old = await one.opens("starter")
        new = await one.opens("professional")
        one.stripe.pay(old)
        one.passes(60_000)
        one.stripe.pay(new)
        await one.hears_all(random.Random(seed) if seed else None)
        await one.settles()
        found = await one.standing()
        kept = one.stripe.subscription_at(new)
        assert (found.tier, found.row[2], found.row[3]) == ("professional", kept, False)
        books = one.stripe.books.subscriptions
        assert [books[one.stripe.subscription_at(page)]["cancel_at_period_end"] for page in (old, new)] == [
            True,
            False,
        ]
        one.passes(CYCLE_MS + 2 * HOUR_MS)
        await one.hears_all(random.Random(seed))
        found = await one.standing()
        assert (found.tier, found.row[1], found.booked) == ("professional", ACTIVE, (19 + 99 + 99) * 10**6)
        await one.check()


async def test_an_abandoned_page_and_another_one(tmp_path: Path) -> None:
    async with a_subscriber(tmp_path / "t.db") as one:
        await one.opens("professional")
        one.passes(HOUR_MS)
        await one.chores()
        await one.buys("starter")
        await one.hears()
        found = await one.standing()
        assert (found.tier, found.row[1]) == ("starter", ACTIVE)
        one.passes(2 * DAY_MS)
        await one.settles()
        assert (await one.standing()).tier == "starter"


async def test_late_word_of_an_old_one_does_not_take_a_new_page(tmp_path: Path) -> None:
    async with a_subscriber(tmp_path / "t.db") as one:
        old = await one.buys()
        await one.hears()
        one.stripe.end(old)
        await one.hears()
        one.passes(DAY_MS)
        page = await one.opens("professional")
        await one.stage.plans.take(old)
        one.stripe.pay(page)
        # The word of it is lost: the page is looked at.
        await one.settles()
        found = await one.standing()
        assert (found.tier, found.row[1]) == ("professional", ACTIVE)
        await one.check()


# -- a call across a boundary -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cycles", [1, 2, 3])
async def test_a_call_across_a_boundary_costs_once_and_its_rest_expires(cycles: int, tmp_path: Path) -> None:
    async with a_subscriber(tmp_path / "t.db") as one:
        await one.buys()
        await one.hears()

        async def meanwhile() -> None:
            one.passes(cycles * CYCLE_MS + 2 * HOUR_MS)
            await one.hears()

        one.stage.ai.script.then = meanwhile
        await one.stage.call()
        one.stage.ai.script.then = None
        view = await one.stage.plans.view(USER)
        assert (view.remaining_milli, view.plan.requests) == (1_900_000, 0)
        await one.stage.call()
        view = await one.stage.plans.view(USER)
        assert (view.remaining_milli, view.plan.requests) == (1_900_000 - 400, 1)
        assert sum(entry.facts["creditsMilli"] for entry in await one.stage.called()) == 800
        await one.check()


async def test_an_upgrade_while_a_call_runs(tmp_path: Path) -> None:
    async with a_subscriber(tmp_path / "t.db") as one:
        await half_way(one)

        async def meanwhile() -> None:
            await one.upgrades()
            await one.hears()

        one.stage.ai.script.then = meanwhile
        await one.stage.call()
        view = await one.stage.plans.view(USER)
        assert (view.remaining_milli, view.plan.requests, view.tier.name) == (
            5_900_000 - 400,
            1,
            "professional",
        )
        await one.check()
