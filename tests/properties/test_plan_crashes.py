"""Death at every await of what Stripe's word brings, and of a paid upgrade: the next process comes to the same end by itself."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from billing_engine.errors import BillingError
from billing_engine.subscriptions.model import CYCLE_MS
from tests.support.faults import Died, Moment
from tests.support.plan_stage import DAY_MS, HOUR_MS, Standing, Subscriber, a_subscriber

Step = Callable[[Subscriber], Awaitable[object]]


@dataclass(frozen=True)
class PlanPath:
    """What comes before, and what is disturbed."""

    name: str
    before: Step
    act: Step
    touches: frozenset[str]

    def __str__(self) -> str:
        return self.name


async def bought(one: Subscriber) -> None:
    await one.buys()


async def renewed(one: Subscriber) -> None:
    await one.buys()
    await one.hears()
    one.passes(CYCLE_MS + 2 * HOUR_MS)


async def failed(one: Subscriber) -> None:
    await one.buys()
    await one.hears()
    one.stripe.books.declining.add(next(iter(one.stripe.books.subscriptions)))
    one.passes(CYCLE_MS + 2 * HOUR_MS)


async def over(one: Subscriber) -> None:
    await failed(one)
    one.passes(10 * DAY_MS)


async def upgraded(one: Subscriber) -> None:
    await one.buys()
    await one.hears()
    one.passes(15 * DAY_MS)
    await one.upgrades()


async def reset(one: Subscriber) -> None:
    await one.buys()
    await one.hears()
    one.passes(15 * DAY_MS)
    await one.upgrades(resets=True)


async def two(one: Subscriber) -> None:
    old, new = await one.opens(), await one.opens("professional")
    one.stripe.pay(old)
    await one.hears()
    one.passes(60_000)
    one.stripe.pay(new)


async def looks(one: Subscriber) -> None:
    """Without any word: the worker's own look."""
    await one.stage.plans.work_off()


APPLIED = frozenset({"stripe.subscription", "stripe.invoices", "subscriptions.put"})
PATHS = (
    PlanPath("first payment", bought, Subscriber.hears, APPLIED | {"changes.add", "news.began"}),
    PlanPath("renewal", renewed, Subscriber.hears, APPLIED | {"news.began"}),
    PlanPath("renewal found", renewed, looks, APPLIED | {"news.began"}),
    PlanPath("failure", failed, Subscriber.hears, APPLIED | {"news.payment_failed"}),
    PlanPath("end", over, Subscriber.hears, APPLIED | {"news.ended", "changes.add"}),
    PlanPath("upgrade", upgraded, Subscriber.hears, frozenset({"stripe.change_tier", "changes.add", "news.upgraded"})),
    PlanPath("reset", reset, Subscriber.hears, frozenset({"stripe.change_tier", "changes.add", "news.upgraded"})),
    PlanPath("a second one", two, Subscriber.hears, APPLIED | {"stripe.set_cancels"}),
)  # fmt: skip


async def comes_to_its_end(one: Subscriber) -> tuple[Standing, set[str], int]:
    """What Stripe repeats, and the chores; what stands then, what was told, how often the tier has changed."""
    await one.hears_all(None)
    await one.settles()
    await one.check()
    changes = await one.stage.changes._changes.find({}, limit=100)
    found = await one.standing()
    if any(entry.reference.startswith("grant:upgrade-") for entry in await one.stage.entries()):
        # A cycle that begins when its upgrade is fulfilled, and that is a little later then.
        found = found._replace(starts_ms=0, ends_ms=found.ends_ms - found.starts_ms)
    return found, set(one.stage.news.told), len(changes)


async def undisturbed(path: PlanPath, file: Path, *, atomic: bool) -> tuple[list[str], object]:
    async with a_subscriber(file, atomic=atomic) as one:
        await path.before(one)
        one.stage.fuse.counting = True
        await path.act(one)
        one.stage.fuse.counting = False
        calls = list(one.stage.fuse.calls)
        assert path.touches <= set(calls), path.touches - set(calls)
        return calls, await comes_to_its_end(one)


@pytest.mark.parametrize(
    ("atomic", "whole"),
    [
        pytest.param(True, True, id="atomic", marks=pytest.mark.exhaustive),
        pytest.param(False, True, id="stepwise", marks=pytest.mark.exhaustive),
        pytest.param(False, False, id="some"),
    ],
)
@pytest.mark.parametrize("path", PATHS, ids=str)
async def test_death_at_every_await(path: PlanPath, atomic: bool, whole: bool, tmp_path: Path) -> None:
    calls, end = await undisturbed(path, tmp_path / "whole.db", atomic=atomic)
    seen: set[tuple[str, ...]] = set()
    for at, label in enumerate(calls):
        # Of an event's second reading, which dies as its first did, and of deaths before what another dies after: `whole` alone.
        around = tuple(calls[at : at + 2])
        if not whole and around in seen:
            continue
        seen.add(around)
        for moment in Moment if whole or at == 0 else (Moment.AFTER,):
            async with a_subscriber(tmp_path / f"{at}{moment}.db", atomic=atomic) as one:
                await path.before(one)
                fuse = one.stage.fuse
                fuse.at, fuse.moment, fuse.counting, fuse.calls = at, moment, True, []
                task = asyncio.ensure_future(path.act(one))
                burning = asyncio.ensure_future(fuse.burning.wait())
                await asyncio.wait({task, burning}, return_when=asyncio.FIRST_COMPLETED)
                burning.cancel()
                task.cancel()
                with suppress(asyncio.CancelledError, Died, BillingError):
                    await task
                assert fuse.burnt
                await one.stage.die()
                await one.stage.reborn()
                try:
                    # What was stored of the word is worked off by itself.
                    one.stage.clock.jump_ms(6_000)
                    await one.chores()
                    assert await comes_to_its_end(one) == end
                except BaseException as exc:
                    exc.add_note(f"died {moment} call {at}, {label}")
                    raise


async def test_a_look_alone_finds_what_a_death_has_left(tmp_path: Path) -> None:
    """Stripe says nothing again: the paid upgrade whose fulfilment died is carried on by the payment's own question."""
    async with a_subscriber(tmp_path / "t.db") as one:
        await upgraded(one)
        one.stage.fuse.die_at("subscriptions.put", Moment.BEFORE)
        with suppress(Died, BillingError):
            await one.hears()
        await one.stage.die()
        await one.stage.reborn()
        for _ in range(20):
            one.stage.clock.jump_ms(61_000)
            await one.chores()
        found = await one.standing()
        assert (found.tier, found.credits, found.row[-1]) == ("professional", 5_900_000, "professional")
        assert (await one.stage.plans._gateway.subscription(found.row[2])).tier == "professional"
        assert "upgraded-upgrade1" in one.stage.news.told
