"""`AiMetrics`: counts what there is, and has it reckoned. docs/admin-metrics.md says what each figure means.

Everything is counted by local day over indexes, and what was made of it is shown to all who ask within five seconds.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, Protocol

from billing_engine.clock import Clock
from billing_engine.ledger.accounts import REVENUE_SUBSCRIPTIONS
from billing_engine.ledger.ports import Total
from billing_engine.money import Asset
from billing_engine.stopping import stop_tasks
from billing_engine.subscriptions.metrics import (
    AVERAGE_DAYS,
    FIGURES,
    UNITS,
    Against,
    Facts,
    Heads,
    ProviderShare,
    Rules,
    Used,
    Value,
    added,
    against,
    daily_average,
    figures,
    monthly,
    provider_shares,
    run_rate,
)
from billing_engine.subscriptions.model import FREE
from billing_engine.subscriptions.plans import SALE

#: So old a report may be when it is shown.
FRESH_MS: Final = 5_000


class CallSums(Protocol):
    """The log of AI calls, added up."""

    async def used_between(self, first_day: str, last_day: str) -> dict[tuple[str, str, str], Used]: ...


class TierLog(Protocol):
    """The log of changed tiers, counted."""

    async def counted_until(self, last_day: str) -> dict[tuple[str, str, str], int]: ...


class LiveSubscriptions(Protocol):
    """The subscriptions that run."""

    async def live_by_tier(self) -> dict[str, int]: ...


class Headcount(Protocol):
    """The USER accounts."""

    async def signups(self, from_ms: int, until_ms: int) -> int: ...

    async def users_before(self, at_ms: int) -> int: ...


class Sales(Protocol):
    """The ledger's word on what was sold."""

    async def total_credited(
        self, account_id: str, *, kinds: Sequence[str], day_prefix: str = ""
    ) -> Total: ...


@dataclass(frozen=True, slots=True)
class Figure:
    """A value and what it is compared with, by what that is called. `run_rate`: what a month comes to if it goes on like this."""

    value: Value
    compared: Mapping[str, Against | None]
    run_rate: Value = None


@dataclass(frozen=True, slots=True)
class AiReport:
    """All of it, of one moment. `today` and `month` are by the figure's name."""

    computed_at_ms: int
    day: str
    today: Mapping[str, Figure]
    month: Mapping[str, Figure]
    tiers: Mapping[str, int]
    users: int
    paying: int
    paying_before: int
    providers_today: list[ProviderShare]
    providers_month: list[ProviderShare]


class AiMetrics:
    """One instance a process. `bounds` gives the instants at which a local day begins and the next one does."""

    def __init__(
        self,
        *,
        calls: CallSums,
        changes: TierLog,
        subscriptions: LiveSubscriptions,
        heads: Headcount,
        sales: Sales,
        clock: Clock,
        day_of: Callable[[int], str],
        bounds: Callable[[str], tuple[int, int]],
        rules: Rules,
        targets: Mapping[tuple[str, str], Value],
        asset: Asset,
        timezone: str,
    ) -> None:
        self._calls = calls
        self._changes = changes
        self._subscriptions = subscriptions
        self._heads = heads
        self._sales = sales
        self._clock = clock
        self._day_of = day_of
        self._bounds = bounds
        self._rules = rules
        self._targets = targets
        self.asset = asset
        self.timezone = timezone
        self._newest: AiReport | None = None
        self._under_way: asyncio.Task[AiReport] | None = None

    async def report(self) -> AiReport:
        """The figures, at most `FRESH_MS` old and of today. Whoever asks while they are counted waits for the same ones.

        Raises `Unavailable`: the store does not answer.
        """
        now_ms = self._clock.now_ms()
        newest = self._newest
        if (
            newest is not None
            and 0 <= now_ms - newest.computed_at_ms < FRESH_MS
            and newest.day == self._day_of(now_ms)
        ):
            return newest
        if self._under_way is None:
            self._under_way = asyncio.create_task(self._counted(), name="ai-metrics")
            self._under_way.add_done_callback(self._done)
        # One caller who goes away must not take it from the others.
        return await asyncio.shield(self._under_way)

    async def stop(self) -> None:
        """Nobody will read it."""
        await stop_tasks((self._under_way,))

    def _done(self, task: "asyncio.Task[AiReport]") -> None:
        self._under_way = None
        if not task.cancelled() and task.exception() is None:
            self._newest = task.result()

    async def _counted(self) -> AiReport:
        now_ms = self._clock.now_ms()
        today = date.fromisoformat(self._day_of(now_ms))
        month = _Month.of(today)
        before = _Month.of(month.first - timedelta(days=1))
        so_far = before.until(today.day)
        first = min(before.first, today - timedelta(days=AVERAGE_DAYS))
        # What has already been here: tiers until now, and users, whose log begins with the first day.
        changes = await self._changes.counted_until(today.isoformat())
        days = await self._days(_days(first, today), changes)

        def of(period: Iterable[date]) -> Facts:
            return added(days[day.isoformat()] for day in period)

        async def heads(first_day: date, last_day: date) -> Heads:
            end_ms = min(now_ms + 1, self._bounds(last_day.isoformat())[1])
            return Heads(
                await self._heads.users_before(end_ms),
                _paying(changes, last_day.isoformat()),
                _paying(changes, (first_day - timedelta(days=1)).isoformat()),
            )

        now = of([today])
        this_month = of(month.until(today.day))
        heads_now = await heads(month.first, today)
        known = monthly(this_month, heads_now, self._rules)
        then = monthly(of(so_far), await heads(before.first, so_far[-1]), self._rules)
        whole = monthly(of(before.all), await heads(before.first, before.all[-1]), self._rules)
        day_figures = figures(now, self._rules)
        yesterday = figures(of([today - timedelta(days=1)]), self._rules)
        average = daily_average(
            (days[(today - timedelta(days=n)).isoformat()] for n in range(1, AVERAGE_DAYS + 1)), self._rules
        )
        begin_ms = self._bounds(month.first.isoformat())[0]
        whole_ms = self._bounds(month.all[-1].isoformat())[1] - begin_ms
        live = await self._subscriptions.live_by_tier()
        return AiReport(
            computed_at_ms=now_ms,
            day=today.isoformat(),
            today={
                name: Figure(
                    value,
                    {
                        "yesterday": against(value, yesterday[name], FIGURES[name]),
                        "daily_average": against(value, average[name], FIGURES[name]),
                        "target": self._target("today", name, value),
                    },
                )
                for name, value in day_figures.items()
            },
            month={
                name: Figure(
                    value,
                    {
                        "previous_to_date": against(value, then[name], UNITS[name]),
                        "previous_month": against(value, whole[name], UNITS[name]),
                        "target": self._target("month", name, value),
                    },
                    run_rate(name, value, elapsed_ms=now_ms - begin_ms, whole_ms=whole_ms),
                )
                for name, value in known.items()
            },
            tiers=self._by_tier(live, heads_now.users),
            users=heads_now.users,
            paying=heads_now.paying,
            paying_before=heads_now.paying_before,
            providers_today=provider_shares(now),
            providers_month=provider_shares(this_month),
        )

    def _by_tier(self, live: Mapping[str, int], users: int) -> dict[str, int]:
        """From the free tier up; everybody without a subscription is free."""
        names = sorted(self._rules.ranks, key=self._rules.ranks.__getitem__)
        counted = {name: live.get(name, 0) for name in names} | dict(live)
        return {**counted, FREE: max(0, users - sum(live.values()))}

    def _target(self, period: str, name: str, value: Value) -> Against | None:
        target = self._targets.get((period, name))
        return None if target is None else against(value, target, UNITS[name])

    async def _days(
        self, wanted: list[date], changes: Mapping[tuple[str, str, str], int]
    ) -> dict[str, Facts]:
        """What was counted of each of these days."""
        names = [day.isoformat() for day in wanted]
        used: dict[str, dict[tuple[str, str], Used]] = defaultdict(dict)
        for (day, provider, model), sums in (await self._calls.used_between(names[0], names[-1])).items():
            used[day][provider, model] = sums
        changed: dict[str, dict[tuple[str, str], int]] = defaultdict(dict)
        for (day, was, tier), number in changes.items():
            changed[day][was, tier] = number
        signups, sales = await asyncio.gather(self._signups(names), self._sold(names))
        return {
            day: Facts(signups[day], sales[day].amount_minor, sales[day].rows, used[day], changed[day])
            for day in names
        }

    async def _signups(self, names: list[str]) -> dict[str, int]:
        return {day: await self._heads.signups(*self._bounds(day)) for day in names}

    async def _sold(self, names: list[str]) -> dict[str, Total]:
        return {
            day: await self._sales.total_credited(REVENUE_SUBSCRIPTIONS, kinds=[SALE], day_prefix=day)
            for day in names
        }


def _paying(changes: Mapping[tuple[str, str, str], int], last_day: str) -> int:
    """How many had a paid tier at the end of that day: who had come, less who had gone."""
    return sum(
        ((was == FREE) - (tier == FREE)) * number
        for (day, was, tier), number in changes.items()
        if day <= last_day
    )


@dataclass(frozen=True, slots=True)
class _Month:
    """A month of the calendar, by its days."""

    all: list[date]

    @classmethod
    def of(cls, day: date) -> "_Month":
        first = day.replace(day=1)
        return cls(_days(first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)))

    @property
    def first(self) -> date:
        return self.all[0]

    def until(self, number: int) -> list[date]:
        """The days up to that one; the whole month if it is shorter."""
        return self.all[:number]


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]
