"""Random months of a subscriber: calls, streams, upgrades, renewals, failures, cancellations, deaths, against a plain model.

Granted less captured less expired is the balance, never below nothing; no hold stays; the tier is what is paid for.
"""

import random
from pathlib import Path

import pytest

from billing_engine.errors import BillingError
from billing_engine.subscriptions.account import GRACE_MS
from billing_engine.subscriptions.model import CYCLE_MS, Tokens, cost_of
from billing_engine.subscriptions.ports import SubscriptionStatus
from tests.support.ai_stage import PRICE, TIERS, USER, Script
from tests.support.plan_stage import DAY_MS, HOUR_MS, Subscriber, a_subscriber

EVENTS = 60


class Months:
    """What is done, and what the subscriber must have by it: computed from what Stripe has collected, not from our books."""

    def __init__(self, one: Subscriber, rng: random.Random) -> None:
        self.one = one
        self.rng = rng
        self.spent: list[tuple[int, int]] = []
        #: Paid upgrades: when they came, which tier, which credits.
        self.done: list[str] = []
        self.upgraded: list[tuple[int, str, int]] = []

    async def step(self) -> None:
        acts = (self.calls, self.calls, self.streams, self.waits, self.waits, self.waits, self.buys)
        act = self.rng.choice(
            (*acts, self.cancels, self.bank, self.upgrades, self.downgrades, self.dies, self.fails)
        )
        # Whatever is done has an instant of its own, in the whole seconds of Stripe.
        self.one.passes(1_000)
        self.done.append(act.__name__)
        try:
            await act()
        except BillingError as refused:
            self.done.append(refused.code)
        self.one.stage.ai.script = Script()
        await self.one.hears()

    async def _costs(self, tokens: Tokens) -> None:
        self.spent.append(
            (self.one.stage.clock.now_ms(), cost_of(tokens, PRICE, TIERS.free.credit_markup).credits_milli)
        )

    async def calls(self) -> None:
        tokens = Tokens(self.rng.randint(1, 5_000), self.rng.randint(0, 5_000))
        self.one.stage.ai.script = Script(tokens=tokens)
        self.one.stage.ai.most_tokens = Tokens(5_000, 5_000)
        if self.rng.random() < 0.2:
            self.one.stage.ai.script.status = 500
            tokens = Tokens(0, 0)
        await self.one.stage.call()
        await self._costs(tokens)

    async def streams(self) -> None:
        until = self.rng.choice([1, 3, 99])
        self.one.stage.ai.most_tokens = Tokens(200, 200)
        await self.one.stage.stream(until=until)
        await self._costs(Tokens(100, 25 * min(4, until)))

    async def fails(self) -> None:
        self.one.stage.ai.script = Script(unavailable=True)
        await self.one.stage.call()

    async def waits(self) -> None:
        self.one.passes(self.rng.choice([HOUR_MS, DAY_MS, 4 * DAY_MS, 11 * DAY_MS]))

    async def buys(self) -> None:
        await self.one.buys(self.rng.choice(["starter", "professional"]))

    async def cancels(self) -> None:
        await self.one.stage.plans.cancel(USER, cancels=self.rng.random() < 0.6)

    async def bank(self) -> None:
        books = self.one.stripe.books
        names = set(books.subscriptions)
        books.declining = names if self.rng.random() < 0.5 else set()

    async def upgrades(self) -> None:
        tier = self.rng.choice(["professional", "enterprise"])
        payment = await self.one.upgrades(tier, key=self.one.stage.new_id())
        quoted = await self.one.stage.plans._quote(payment.item)
        await self.one.hears()
        self.upgraded.append((self.one.stage.clock.now_ms(), tier, quoted.credits_milli))

    async def downgrades(self) -> None:
        await self.one.stage.plans.downgrade(USER, "starter", operation_id=self.one.stage.new_id())

    async def dies(self) -> None:
        stream = await self.one.stage.calls.call(USER, "openai", body=b'{"stream": true}', query={})
        await anext(stream.pieces())
        await self.one.stage.die()
        await self.one.stage.reborn()
        assert len((await self.one.stage.account()).holds) == 1
        await self.one.stage.heal()

    def paid_now(self) -> tuple[str, int, int] | None:
        """The tier, start and end of the newest period that Stripe has been paid for."""
        books = self.one.stripe.books
        found = []
        for invoice in books.invoices.values():
            (line,) = invoice["lines"]["data"]
            if invoice["status"] == "paid" and line["amount"] > 0:
                product = line["pricing"]["price_details"]["product"].removeprefix("tarazu_")
                found.append((line["period"]["start"] * 1000, line["period"]["end"] * 1000, product))
        if not found:
            return None
        start_ms, end_ms, tier = max(found)
        return tier, start_ms, end_ms

    async def check(self) -> None:
        stage, now_ms = self.one.stage, self.one.stage.clock.now_ms()
        view = await stage.plans.view(USER)
        await stage.check(audits=False)
        paid = self.paid_now()
        plan = view.plan
        if paid is not None and paid[1] <= now_ms < paid[2] and plan.is_paid and plan.start_ms == paid[1]:
            tier, start_ms, _ = paid
            more = [one for one in self.upgraded if one[0] >= start_ms]
            tier = max([tier, *(one[1] for one in more)], key=lambda name: TIERS.get(name).rank)
            assert plan.tier == tier
            allowance = TIERS.get(paid[0]).credits_milli + sum(one[2] for one in more)
            assert plan.allowance_milli == allowance
            # In a grace, calls are the old cycle's until the new one is paid.
            (begun,) = [one for one in await stage.entries() if one.reference == f"grant:{plan.cycle}"]
            spent = sum(cost for at_ms, cost in self.spent if at_ms >= begun.at_ms)
            assert view.remaining_milli == allowance - spent
        elif paid is None or now_ms >= paid[2] + GRACE_MS:
            assert plan.tier == "free", (paid, plan)
        known = await stage.subscriptions.get(USER)
        if (
            known is not None
            and known.status is SubscriptionStatus.ACTIVE
            and paid is not None
            and now_ms < paid[2]
        ):
            assert plan.tier != "free", (known, paid, plan)
        assert now_ms < plan.end_ms + GRACE_MS
        assert plan.end_ms - plan.start_ms <= CYCLE_MS


@pytest.mark.parametrize(
    "seeds", [range(6), pytest.param(range(6, 120), marks=pytest.mark.exhaustive)], ids=["some", "many"]
)
async def test_random_months(seeds: range, tmp_path: Path) -> None:
    for seed in seeds:
        async with a_subscriber(tmp_path / f"{seed}.db", atomic=seed % 2 == 0) as one:
            months = Months(one, random.Random(seed))
            try:
                for _ in range(EVENTS):
                    await months.step()
                    await months.check()
                await one.hears_all(random.Random(seed))
                await months.check()
                await one.check()
            except BaseException as exc:
                exc.add_note(f"seed {seed}: {months.done}")
                raise
