"""The admins' figures over HTTP and over a real store: equal to plain sums, of the right day, never older than they say."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from billing_engine.ledger.accounts import REVENUE_SUBSCRIPTIONS, gateway_of, plan_sales_of
from billing_engine.ledger.model import Movement, Transfer
from billing_engine.ledger.service import Ledger
from billing_engine.money import AI_CREDIT, USD
from billing_engine.subscriptions.account import ADJUSTED, CALLED
from billing_engine.subscriptions.model import Tokens
from billing_engine.subscriptions.plans import SALE
from billing_engine.subscriptions.ports import CallRow, TierChange
from server.admin.ai_metrics import AiMetrics, AiReport
from server.payment_reports import day_bounds
from server.people.model import local_day
from server.settings import Settings
from server.storage.repositories.ai_calls import CollectionCalls
from server.storage.repositories.ai_days import CollectionDays
from server.storage.repositories.headcount import CollectionHeadcount
from server.storage.repositories.subscriptions import CollectionSubscriptions, CollectionTierChanges
from server.storage.repositories.users import USERS
from server.storage.sqlite.collection import SqliteCollections
from server.storage.sqlite.engine import SqliteOptions, open_database
from server.storage.sqlite.ledger import SqliteLedgerStore
from tests.support.api import Api, open_api
from tests.support.fake_ai import FakeAi, Reply, fake_ai
from tests.support.manual_clock import ManualClock

DAY_MS = 86_400_000
KOLKATA = ZoneInfo("Asia/Kolkata")
RULES = Settings(_env_file=None).metric_rules()


# -- the whole server


@pytest.fixture
async def fake() -> AsyncIterator[FakeAi]:
    async with fake_ai() as fake:
        fake.default = Reply(Tokens(500, 2_000))
        yield fake


@pytest.fixture
async def api(tmp_path: Path, fake: FakeAi) -> AsyncIterator[Api]:
    keys = {name.lower(): value for name, value in fake.settings().items()}
    async with open_api(tmp_path, metrics_targets="today.revenue=100.00,month.margin=80", **keys) as api:
        yield api


async def shown(api: Api) -> Any:
    answer = await (await api.admin()).get("/admin/metrics")
    assert answer.status == 200, answer.text
    return answer.json


async def call(person: Any, model: str = "gpt-4-turbo", provider: str = "openai") -> Any:
    body = {"model": model, "max_tokens": 2_000, "messages": [{"role": "user", "content": "x" * 600}]}
    answer = await person.post(f"/api/ai/{provider}", body)
    assert answer.status == 200, answer.text
    return answer.json


async def pass_days(api: Api, days: int) -> None:
    """Day by day, each with a look at the subscriptions that are due: not every second of a month."""
    for _ in range(days):
        api.clock.jump_ms(DAY_MS)
        await api.services.ai.plans.work_off()
        await api.services.outbox.drop_settled(older_than_ms=DAY_MS)
    await api.idle()


def values(part: Any, *names: str) -> list[Any]:
    return [part[name]["value"] for name in names]


async def test_a_day_of_a_subscriber(api: Api) -> None:
    user = await api.register()
    assert (await user.post("/api/subscriptions/checkout", {"tier": "professional"})).status == 201
    await api.idle()
    for _ in range(2):
        await call(user)
    await api.idle()
    found = await shown(api)
    today, month = found["today"], found["month"]
    assert (found["timezone"], found["currency"], today["day"]) == ("Asia/Kolkata", "USD", "2026-01-01")
    assert values(today, "signups", "upgrades", "downgrades", "requests", "tokens") == [
        "1",
        "1",
        "0",
        "2",
        "5000",
    ]
    assert values(today, "revenue", "providerCost", "profit", "margin", "credits") == [
        "99.00",
        "0.13",
        "98.87",
        "99.9",
        "13.00",
    ]
    assert values(month, "gatewayFees", "netRevenue", "providerBudget") == ["3.17", "95.83", "19.17"]
    assert today["revenue"]["target"] == {"value": "100.00", "difference": "-1.00", "percent": "-1.0"}
    assert month["margin"]["target"] == {"value": "80.0", "difference": "19.9", "percent": None}
    assert today["revenue"]["yesterday"] == {"value": "0.00", "difference": "99.00", "percent": None}
    assert month["tiers"][0] == {"tier": "free", "users": 0}
    assert month["tiers"][2] == {"tier": "professional", "users": 1}
    assert (month["users"], month["payingUsers"], month["payingUsersAtBegin"]) == (1, 1, 0)
    first = found["providers"]["today"][0]
    assert (first["provider"], first["costShare"], first["topModel"]["model"]) == (
        "openai",
        "100.0",
        "gpt-4-turbo",
    )
    await api.books_are_clean()


async def test_the_end_of_a_subscription_is_churn_of_its_month(api: Api) -> None:
    leaver, stayer = await api.register(), await api.register()
    for person in (leaver, stayer):
        assert (await person.post("/api/subscriptions/checkout", {"tier": "starter"})).status == 201
    await leaver.post("/api/subscriptions/cancel", {})
    await pass_days(api, 32)
    found = await shown(api)
    month = found["month"]
    assert month["month"] == "2026-02"
    assert (month["payingUsersAtBegin"], month["payingUsers"]) in {(2, 1), (1, 1)}
    before = month["churn"]["previousMonth"]["value"]
    assert {month["churn"]["value"], before} & {"50.0", "100.0"}, month["churn"]
    assert month["tiers"][0]["users"] == 1
    await api.books_are_clean()


async def test_a_subscriber_is_written_to(api: Api) -> None:
    user = await api.register()
    await user.post("/api/subscriptions/checkout", {"tier": "starter"})
    await user.post("/api/credits/upgrade", {"tier": "professional"})
    await pass_days(api, 40)
    notices = api.db.read(
        lambda connection: [
            (kind, number)
            for kind, number in connection.execute(
                "SELECT json_extract(_body, '$.kind'), count(*) FROM c_notices GROUP BY 1"
            ).fetchall()
            if kind.startswith("SUBSCRIPTION")
        ]
    )
    # Two cycles have begun: a receipt each, and none of the first one again when notices are forgotten.
    assert dict(notices).get("SUBSCRIPTION_BEGAN", 0) <= 2
    assert "SUBSCRIPTION_ENDED" not in dict(notices)


async def test_figures_are_at_most_five_seconds_old_and_of_today(api: Api) -> None:
    first = await shown(api)
    await api.register()
    assert (await shown(api))["today"]["signups"] == first["today"]["signups"]
    api.clock.jump_ms(5_000)
    assert (await shown(api))["today"]["signups"]["value"] == "1"
    api.clock.jump_ms(18 * 3_600_000 + 29 * 60_000 + 52_000)  # 23:59:57 in Kolkata
    assert (await shown(api))["today"]["day"] == "2026-01-01"
    api.clock.jump_ms(3_000)
    assert (await shown(api))["today"]["day"] == "2026-01-02"


# -- over a store, with histories that nobody thought of


class World:
    """Metrics over a real store, and all that was put into it."""

    def __init__(self, db: Any, clock: ManualClock) -> None:
        self.collections = SqliteCollections(db)
        self.clock = clock
        self.store = SqliteLedgerStore(db)
        self.ledger = Ledger(self.store, clock, lambda at_ms: local_day(at_ms, KOLKATA))
        self.calls: list[CallRow] = []
        self.sales: list[tuple[str, int]] = []
        self.signups: list[str] = []
        self.changes: list[TierChange] = []

    @property
    def today(self) -> str:
        return local_day(self.clock.now_ms(), KOLKATA)

    async def open(self) -> None:
        bounds = partial(day_bounds, zone=KOLKATA)
        await self.store.prepare()
        await self.ledger.start()
        self.rows = await CollectionCalls.open(self.collections)
        self.tiers = await CollectionTierChanges.open(self.collections)
        self.users = await self.collections.open(USERS)
        self.days = await CollectionDays.open(
            self.collections, self.rows, self.clock, day_of=self.ledger.day_of, bounds=bounds
        )
        self.metrics = AiMetrics(
            calls=self.days,
            changes=self.tiers,
            subscriptions=await CollectionSubscriptions.open(self.collections),
            heads=await CollectionHeadcount.open(self.collections),
            sales=self.ledger,
            clock=self.clock,
            day_of=self.ledger.day_of,
            bounds=bounds,
            rules=RULES,
            targets={},
            asset=USD,
            timezone="Asia/Kolkata",
        )

    async def begin(self, rng: random.Random, number: int) -> CallRow:
        provider, model = rng.choice(
            (("openai", "a"), ("openai", "b|c"), ("anthropic", "a"), ("huggingface", "x/y:z"))
        )
        row = CallRow(f"c{number}", "u1", provider, model, "starter", self.clock.now_ms())
        await self.rows.add(row)
        return row

    async def end(self, row: CallRow, rng: random.Random) -> None:
        tokens = rng.choice((0, 1, 999, 10**6))
        ended = CallRow(
            row.id,
            row.user_id,
            row.provider,
            row.model,
            row.tier,
            row.started_at_ms,
            is_open=False,
            outcome="OK" if tokens else "HTTP_500",
            day=self.today,
            ended_at_ms=self.clock.now_ms(),
            tokens=tokens,
            cost_minor=tokens * rng.randrange(1, 90),
            credits_milli=tokens * rng.randrange(1, 9),
        )
        await self.rows.finish(ended)
        self.calls.append(ended)

    async def sell(self, number: int, amount_minor: int) -> None:
        sale = Transfer(gateway_of("stripe"), REVENUE_SUBSCRIPTIONS, amount_minor, SALE)
        await self.ledger.post(
            Movement(plan_sales_of("u1"), f"invoice:stripe:in_{number}", SALE, "USD", "in", (sale,))
        )
        self.sales.append((self.today, amount_minor))

    async def sign_up(self, number: int, role: str) -> None:
        await self.users.insert(
            {"_id": f"u{number}", "role": role, "created_at_ms": self.clock.now_ms(), "is_disabled": False}
        )
        if role == "USER":
            self.signups.append(self.today)

    async def change(self, number: int, was: str, tier: str) -> None:
        change = TierChange(f"t{number}", "u1", was, tier, self.clock.now_ms(), self.today)
        await self.tiers.add(change)
        self.changes.append(change)


@asynccontextmanager
async def a_world(path: Path) -> AsyncIterator[World]:
    async with open_database(path / "m.db", SqliteOptions(synchronous="OFF")) as db:
        world = World(db, ManualClock())
        await world.open()
        yield world
        await world.ledger.stop()


def check(world: World, report: AiReport) -> None:
    """The report's figures are plain sums over all that happened."""
    ranks = RULES.ranks
    today = world.today
    periods = {"today": today, "month": today[:7]}
    for name, prefix in periods.items():
        said = {key: figure.value for key, figure in getattr(report, name).items()}
        calls = [row for row in world.calls if row.day.startswith(prefix)]
        sales = [amount for day, amount in world.sales if day.startswith(prefix)]
        changes = [change for change in world.changes if change.day.startswith(prefix)]
        assert said["requests"] == sum(row.tokens > 0 for row in calls)
        assert said["tokens"] == sum(row.tokens for row in calls)
        assert said["provider_cost"] == sum(row.cost_minor for row in calls)
        assert said["credits"] == sum(row.credits_milli for row in calls)
        assert (said["revenue"], said["payments"]) == (sum(sales), len(sales))
        assert said["signups"] == sum(day.startswith(prefix) for day in world.signups)
        assert said["upgrades"] == sum(ranks[change.tier] > ranks[change.was] for change in changes)
        assert said["downgrades"] == sum(ranks[change.tier] < ranks[change.was] for change in changes)
        assert said["subscriptions_ended"] == sum(change.tier == "free" for change in changes)
        shares = getattr(report, f"providers_{name}")
        for share in shares:
            assert share.used.cost_minor == sum(
                row.cost_minor for row in calls if row.provider == share.provider
            )
    last = local_day(day_bounds(f"{today[:7]}-01", KOLKATA)[0] - 1, KOLKATA)[:7]
    whole = report.month["revenue"].compared["previous_month"]
    assert whole is not None
    assert whole.value == sum(amount for day, amount in world.sales if day.startswith(last))
    to_date = report.month["tokens"].compared["previous_to_date"]
    assert to_date is not None
    assert to_date.value == sum(row.tokens for row in world.calls if last <= row.day <= f"{last}-{today[8:]}")
    recent = {local_day(world.clock.now_ms() - n * DAY_MS, KOLKATA) for n in range(1, 31)}
    average = report.today["provider_cost"].compared["daily_average"]
    assert average is not None
    assert average.value * 30 == sum(row.cost_minor for row in world.calls if row.day in recent)


@pytest.mark.parametrize("seed", range(6))
async def test_figures_are_plain_sums_whatever_happened(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    async with a_world(tmp_path) as world:
        under_way: list[CallRow] = []
        for number in range(160):
            match rng.randrange(8):
                case 0 | 1:
                    under_way.append(await world.begin(rng, number))
                case 2 | 3 if under_way:
                    await world.end(under_way.pop(rng.randrange(len(under_way))), rng)
                case 4:
                    await world.sell(number, rng.choice((19_000_000, 99_000_000, 1)))
                case 5:
                    await world.sign_up(number, rng.choice(("USER", "USER", "LAWYER")))
                case 6:
                    await world.change(number, *rng.sample(("free", "starter", "enterprise"), 2))
                case _:
                    world.clock.jump_ms(rng.choice((1, 3_600_000, DAY_MS, 3 * DAY_MS)))
            if rng.random() < 0.2:
                world.clock.jump_ms(5_000)
                check(world, await world.metrics.report())
        world.clock.jump_ms(5_000)
        check(world, await world.metrics.report())


async def test_a_call_that_ends_late_is_in_its_day_although_the_days_before_are_kept(tmp_path: Path) -> None:
    """A day that was kept too early would miss it for ever."""
    rng = random.Random(1)
    async with a_world(tmp_path) as world:
        early, late = await world.begin(rng, 1), await world.begin(rng, 2)
        await world.end(early, rng)
        # Its entry is of this day, and its row is not finished before a crash is healed.
        world.clock.jump_ms(3 * DAY_MS)
        await world.metrics.report()
        await world.days.keep()
        ended_at_ms = world.clock.now_ms()
        world.clock.jump_ms(-3 * DAY_MS)
        await world.end(late, random.Random(2))
        world.clock.jump_ms(ended_at_ms - world.clock.now_ms() + 5_000)
        day = world.calls[-1].day
        assert not await world.days._days.get(day)
        await world.days.keep()
        assert await world.days._days.get(day)
        used = await world.days.used_between(day, day)
        assert sum(one.tokens for one in used.values()) == sum(row.tokens for row in world.calls)


async def test_those_who_ask_at_once_are_answered_by_one_count(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        counted = 0
        inner = world.days.used_between

        async def counting(first_day: str, last_day: str) -> Any:
            nonlocal counted
            counted += 1
            return await inner(first_day, last_day)

        world.days.used_between = counting  # type: ignore[method-assign]
        impatient = asyncio.create_task(world.metrics.report())
        await asyncio.sleep(0)
        impatient.cancel()
        reports = await asyncio.gather(*(world.metrics.report() for _ in range(20)))
        assert counted == 1
        assert all(report is reports[0] for report in reports)


async def test_credits_of_the_log_are_those_of_the_ledger(api: Api, fake: FakeAi) -> None:
    user = await api.register()
    await user.post("/api/subscriptions/checkout", {"tier": "enterprise"})
    rng = random.Random(5)
    for _ in range(15):
        fake.replies.append(Reply(Tokens(rng.randrange(1, 900), rng.randrange(1, 9_000))))
        await call(user, rng.choice(("gpt-4-turbo", "gpt-4o-mini")))
        api.clock.jump_ms(rng.choice((1, 7 * 3_600_000)))
        user = await api.log_in(user.email)
    await api.idle()
    days = api.db.read(
        lambda connection: connection.execute(
            "SELECT json_extract(_body, '$.day'), sum(credits_milli) FROM c_ai_calls GROUP BY 1"
        ).fetchall()
    )
    activity = await api.services.admin._books.activity(
        AI_CREDIT.code, first_day="2026-01-01", last_day="2026-12-31"
    )
    booked: dict[str, int] = {}
    for moved in activity.moved:
        if moved.kind in (CALLED, ADJUSTED):
            booked[moved.day] = booked.get(moved.day, 0) + moved.amount_minor
    assert dict(days) == booked
    assert len(booked) > 1
    await api.books_are_clean()
