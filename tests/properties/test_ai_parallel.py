"""A thousand calls at once on what pays for k of them: exactly k reach the provider, nothing is taken beyond, no hold is left.

The providers answer over loopback HTTP; the store is a real SQLite file, atomic and step by step.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from billing_engine.subscriptions.calls import MeteredStream
from billing_engine.subscriptions.catalogue import ModelPrices, Tiers
from billing_engine.subscriptions.errors import LimitExceeded, NotEnoughCredits, TooManyCalls
from billing_engine.subscriptions.model import ModelPrice, Provider, Tokens
from server.ai.http import AiHttp
from server.ai.openai import OpenAiProvider
from tests.support.ai_stage import TIERS, USER, AiStage, an_ai_stage
from tests.support.fake_ai import FakeAi, Reply, fake_ai

CALLS = 1_000
BODY: dict[str, Any] = {"model": "gpt", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
STREAMED: dict[str, Any] = {**BODY, "stream": True, "stream_options": {"include_usage": True}}
ROOMY = replace(
    TIERS.free,
    monthly_tokens=10**9,
    monthly_requests=10**6,
    parallel_calls=10**6,
    credits_milli=0,
    credit_markup=Decimal(1),
)


@dataclass
class Crowd:
    """Whoever calls at once."""

    stage: AiStage
    fake: FakeAi
    provider: OpenAiProvider
    price: ModelPrice

    def most(self, streams: bool) -> Tokens:
        raw = json.dumps(STREAMED if streams else BODY).encode()
        return self.provider.most(self.provider.read(raw, {}), self.price)

    async def all_at_once(self, *, streams: bool = False) -> "Counter[str]":
        """How the calls ended, by name."""
        body = json.dumps(STREAMED if streams else BODY).encode()

        async def one() -> str:
            try:
                found = await self.stage.calls.call(USER, "openai", body=body, query={})
            except (NotEnoughCredits, LimitExceeded, TooManyCalls) as refused:
                return str(
                    refused.facts["limit"] if isinstance(refused, LimitExceeded) else type(refused).__name__
                )
            if isinstance(found, MeteredStream):
                async for _ in found.pieces():
                    pass
            return "served"

        return Counter(await asyncio.gather(*(one() for _ in range(CALLS))))


@asynccontextmanager
async def a_crowd(path: Path, *, atomic: bool, **limits: Any) -> AsyncIterator[Crowd]:
    async with (
        fake_ai() as fake,
        an_ai_stage(path, atomic=atomic, tiers=Tiers([replace(ROOMY, **limits)])) as stage,
    ):
        http = AiHttp(timeout_s=60)
        provider = OpenAiProvider(http, fake.key_of(Provider.OPENAI), fake.url_of(Provider.OPENAI))
        price = ModelPrice(Provider.OPENAI, "gpt", Decimal("0.01"), Decimal("0.03"), 10_000, 1_000)
        stage.calls._providers = {Provider.OPENAI: provider}
        stage.calls._prices = ModelPrices([price], version=1)
        try:
            yield Crowd(stage, fake, provider, price)
        finally:
            await http.close()


STORES = pytest.mark.parametrize(
    "atomic", [pytest.param(True, id="atomic"), pytest.param(False, id="stepwise")]
)
#: Of 10 output tokens and what an input can be at most.
K = 37


async def most_of(tmp_path: Path, *, streams: bool = False) -> tuple[Tokens, int]:
    async with a_crowd(tmp_path / "most.db", atomic=True) as crowd:
        most = crowd.most(streams)
        usd_milli = most.input * 1 + most.output * 3
        return most, usd_milli


@STORES
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streams"])
async def test_exactly_as_many_are_served_as_are_paid(atomic: bool, streams: bool, tmp_path: Path) -> None:
    most, cost_milli = await most_of(tmp_path, streams=streams)
    # One thousandth short of one more.
    credits_milli = cost_milli * (K + 1) - 1
    async with a_crowd(tmp_path / "t.db", atomic=atomic, credits_milli=credits_milli) as crowd:
        # All of what was held is used: nothing comes back in time for another.
        crowd.fake.default = Reply(most)
        ended = await crowd.all_at_once(streams=streams)
        assert ended == {"served": K, "NotEnoughCredits": CALLS - K}
        assert len(crowd.fake.asked) == len(crowd.fake.counted) == K
        await crowd.stage.check()
        account = await crowd.stage.account()
        assert account.spendable == credits_milli - K * cost_milli == cost_milli - 1


@STORES
async def test_what_comes_back_serves_others_and_never_more_than_there_is(
    atomic: bool, tmp_path: Path
) -> None:
    """Calls use half of what they hold: how many are served is the race's, what is taken is not."""
    most, cost_milli = await most_of(tmp_path, streams=True)
    half = Tokens(most.input // 2, most.output // 2)
    used_milli = half.input * 1 + half.output * 3
    credits_milli = cost_milli * K
    async with a_crowd(tmp_path / "t.db", atomic=atomic, credits_milli=credits_milli) as crowd:
        crowd.fake.default = Reply(half)
        ended = await crowd.all_at_once(streams=True)
        served = ended["served"]
        assert K <= served <= credits_milli // used_milli
        assert len(crowd.fake.asked) == served
        await crowd.stage.check()
        assert (await crowd.stage.account()).spendable == credits_milli - served * used_milli


@STORES
@pytest.mark.parametrize("limit", ["tokens", "requests", "parallel"])
async def test_a_limit_of_the_tier_is_passed_by_nobody(atomic: bool, limit: str, tmp_path: Path) -> None:
    most, cost_milli = await most_of(tmp_path)
    limits = {
        "tokens": {"monthly_tokens": most.total * (K + 1) - 1},
        "requests": {"monthly_requests": K},
        "parallel": {"parallel_calls": K},
    }[limit]
    async with a_crowd(
        tmp_path / "t.db", atomic=atomic, credits_milli=cost_milli * CALLS * 2, **limits
    ) as crowd:
        gate = asyncio.Event()
        crowd.fake.default = Reply(most, gate=gate)
        calling = asyncio.ensure_future(crowd.all_at_once())
        while crowd.fake.at_once < K:  # noqa: ASYNC110
            await asyncio.sleep(0)
        gate.set()
        ended = await calling
        refused = "TooManyCalls" if limit == "parallel" else limit
        assert ended == {"served": K, refused: CALLS - K}
        assert (len(crowd.fake.asked), crowd.fake.most_at_once) == (K, K)
        await crowd.stage.check()
        view = await crowd.stage.plans.view(USER)
        assert (view.plan.requests, view.plan.tokens) == (K, K * most.total)


async def test_a_thousand_of_whom_half_go_away(tmp_path: Path) -> None:
    most, cost_milli = await most_of(tmp_path, streams=True)
    async with a_crowd(tmp_path / "t.db", atomic=True, credits_milli=cost_milli * 400) as crowd:
        crowd.fake.default = Reply(most, words=("a", "b"))

        async def one(number: int) -> None:
            body = STREAMED if number % 3 else BODY
            try:
                found = await crowd.stage.calls.call(USER, "openai", body=json.dumps(body).encode(), query={})
            except NotEnoughCredits:
                return
            if isinstance(found, MeteredStream):
                async for _ in found.pieces():
                    if number % 5 == 0:
                        break

        tasks = [asyncio.ensure_future(one(number)) for number in range(CALLS)]
        for number, task in enumerate(tasks):
            if number % 2:
                for _ in range(number % 7):
                    await asyncio.sleep(0)
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await crowd.stage.calls.stop()
        await crowd.stage.check()
        called = await crowd.stage.called()
        assert sum(entry.facts["outcome"] == "OK" for entry in called) > 50
        # One that breaks off pays less than it held, and what comes back serves another: the credits are what nobody passes.
        assert len(crowd.fake.asked) <= len(called)
        taken_milli = sum(entry.facts["creditsMilli"] for entry in called)
        account = await crowd.stage.account()
        assert taken_milli == cost_milli * 400 - account.spendable <= cost_milli * 400
