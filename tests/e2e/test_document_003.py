"""The cost document's flows, step by step, against the real server in its own process, with its published numbers.

The providers of AI and Stripe are ours, over loopback. Stripe's clock is half a cycle behind, so that a new subscription has 15 of its 30
days left, as the document's has. Where the document disagrees with itself, SPEC 13 decides.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from billing_engine.subscriptions.model import Tokens
from tests.e2e.people import PATIENCE_S, Api, World, people_of
from tests.support.fake_ai import FakeAi, Fault, Reply, fake_ai
from tests.support.fake_stripe import FakeStripe
from tests.support.server_process import QUICK, ServerProcess

Json = Any
#: 15 days ago, and a moment for the test itself.
BEHIND_S: Final = 15 * 86_400 - 5
#: The document's call.
CALL: Final = {
    "model": "gpt-4-turbo",
    "messages": [{"role": "user", "content": "Tell me about billing. " * 30}],
    "max_tokens": 2_000,
}
COUNTED: Final = Tokens(500, 2_000)


@dataclass
class Street:
    """The server, its people, the providers and Stripe."""

    server: ServerProcess
    world: World
    ai: FakeAi
    stripe: FakeStripe
    told: int = 0
    people: int = 0

    async def somebody(self) -> Api:
        self.people += 1
        form = {"email": f"u{self.people}@example.com", "password": "correct horse", "name": "Asha"}
        answer = await self.world.anyone.post("/auth/register", form)
        return self.world.anyone.as_(answer["accessToken"])

    async def subscriber(self, tier: str) -> Api:
        me = await self.somebody()
        asked = await me.post("/api/subscriptions/checkout", {"tier": tier})
        await self.paid(asked["checkoutUrl"])
        await until(me, lambda told: told["subscriptionTier"] == tier)
        return me

    async def paid(self, url: str) -> None:
        """The payer pays at the page, and Stripe tells of it."""
        self.stripe.pay(url.rpartition("/")[2])
        events = [self.stripe.sign(body, time.time()) for body, _ in self.stripe.events[self.told :]]
        self.told += len(events)
        statuses = await self.stripe.deliver_to(f"{self.server.url}/webhooks/stripe", events, times=2)
        assert set(statuses) == {200}


async def until(me: Api, seen: Any) -> Json:
    """`GET /api/credits` once it is as wanted: a webhook is worked off after it was answered."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            told = await me.get("/api/credits")
            if seen(told):
                return told
            await asyncio.sleep(0.05)


@asynccontextmanager
async def a_street(directory: Path) -> AsyncIterator[Street]:
    with FakeStripe.in_thread(lambda: time.time() - BEHIND_S) as stripe:
        async with fake_ai() as ai:
            settings = {
                **QUICK,
                **ai.settings(),
                "STRIPE_SECRET_KEY": stripe.key,
                "STRIPE_WEBHOOK_SECRET": stripe.webhook_secret,
                "STRIPE_URL": stripe.url,
                "CHECKOUT_SUCCESS_URL": "https://app.example/paid",
                "CHECKOUT_CANCEL_URL": "https://app.example/back",
            }
            with ServerProcess(directory, **settings) as server:
                # What a provider does wrong here is done on purpose, and said in the log.
                server.tolerated = lambda event: "provider" in str(event)
                async with people_of(server) as world:
                    yield Street(server, world, ai, stripe)
                code, output = server.settled_books()
                assert code == 0, output
                for secret in (stripe.key, stripe.webhook_secret, "key-of-ours"):
                    assert secret not in server.log


@pytest.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    async with a_street(tmp_path) as street:
        yield street


async def test_user_subscription_flow(street: Street) -> None:
    """Selects a tier, pays at Stripe's page, the webhook grants: ready to use."""
    me = await street.somebody()
    asked = await me.post("/api/subscriptions/checkout", {"tier": "starter"})
    assert asked["checkoutUrl"].startswith("https://checkout.stripe.com/")
    # Pending: nothing yet.
    before = await me.get("/api/credits")
    assert (before["subscriptionTier"], before["subscription"]["status"]) == ("free", "PENDING")
    await street.paid(asked["checkoutUrl"])
    told = await until(me, lambda told: told["subscriptionTier"] == "starter")
    assert (told["totalCredits"], told["remaining"], told["limits"]["tokens"]) == (
        "1900.00",
        "1900.00",
        500_000,
    )
    await me.refused(
        "POST", "/api/subscriptions/checkout", {"tier": "starter"}, status=409, code="ALREADY_SUBSCRIBED"
    )


async def test_api_request_cost_deduction_flow(street: Street) -> None:
    """The four boxes in their order, 0.065 dollars, 6.5 credits; fifty of them: 325 credits, 9,575 left, 16.55 of the budget."""
    me = await street.subscriber("professional")
    street.ai.default = Reply(COUNTED)
    first = await me.post("/api/ai/openai", CALL)
    assert first["credits"] == {
        "deducted": "6.50",
        "remaining": "9893.50",
        "monthlyUsage": {"tokens": 2_500, "requests": 1, "cost": "0.065"},
        "warnings": [],
    }
    for _ in range(49):
        last = await me.post("/api/ai/openai", CALL)
    assert (last["credits"]["remaining"], last["credits"]["monthlyUsage"]) == (
        "9575.00",
        {"tokens": 125_000, "requests": 50, "cost": "3.25"},
    )
    budget = Decimal(99) * Decimal("0.20")
    assert budget - Decimal(last["credits"]["monthlyUsage"]["cost"]) == Decimal("16.55")
    # Provider access: Starter has OpenAI's small models, Professional has Anthropic and Google.
    starter = await street.subscriber("starter")
    await starter.refused(
        "POST",
        "/api/ai/anthropic",
        CALL | {"model": "claude-haiku-4-5"},
        status=403,
        code="PROVIDER_NOT_AVAILABLE",
    )
    await starter.refused("POST", "/api/ai/openai", CALL, status=403, code="MODEL_NOT_AVAILABLE")
    assert (await me.post("/api/ai/anthropic", CALL | {"model": "claude-haiku-4-5"}))["type"] == "message"
    # Tier limits: nobody passes them.
    free = await street.somebody()
    street.ai.replies.append(Reply(Tokens(9_000, 900)))
    small = CALL | {"model": "gpt-4o-mini", "max_tokens": 100}
    warned = await free.post("/api/ai/openai", small)
    assert warned["credits"]["warnings"] == ["99 % of this cycle's tokens are used."]
    limited = await free.refused("POST", "/api/ai/openai", small, status=429, code="LIMIT_EXCEEDED")
    assert (limited.json["upgrade"], limited.json["allowed"]) == ("starter", 10_000)
    # Usage log.
    rows = (await me.get("/api/credits/usage?limit=100"))["items"]
    assert len(rows) == 51
    assert {(row["cost"], row["credits"]) for row in rows if row["provider"] == "openai"} == {
        ("0.065", "6.50")
    }
    # A provider that fails costs nothing.
    left = (await me.get("/api/credits"))["remaining"]
    street.ai.replies.append(Reply(COUNTED, fault=Fault.SERVER_ERROR))
    await me.refused("POST", "/api/ai/openai", CALL, status=502, code="PROVIDER_FAILED")
    assert (await me.get("/api/credits"))["remaining"] == left


async def test_a_stream_passes_through_and_tells_its_cost(street: Street) -> None:
    me = await street.subscriber("professional")
    street.ai.default = Reply(COUNTED)
    body = CALL | {"stream": True, "stream_options": {"include_usage": True}}
    async with aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {me.token}"}
        async with http.post(f"{street.server.url}/api/ai/openai", json=body, headers=headers) as response:
            assert response.status == 200
            text = await response.text()
    assert "data: [DONE]\n\nevent: credits\n" in text
    assert '"deducted":"6.50"' in text


async def test_tier_upgrade_flow(street: Street) -> None:
    """Starter with 15 days left to Professional: 40.00, nothing before the webhook, limits and providers at once."""
    me = await street.subscriber("starter")
    before = await me.get("/api/credits")
    preview = await me.get("/api/credits/upgrade/preview?tier=professional")
    assert preview["amount"] == "40.00"
    assert abs(Decimal(preview["credits"]) - 4_000) < Decimal("0.1")
    asked = await me.post("/api/credits/upgrade", {"tier": "professional"}, key="up")
    assert asked == await me.post("/api/credits/upgrade", {"tier": "professional"}, key="up")
    assert asked["quote"]["amount"] == "40.00"
    assert (await me.get("/api/credits"))["subscriptionTier"] == "starter"
    await street.paid(asked["checkoutUrl"])
    told = await until(me, lambda told: told["subscriptionTier"] == "professional")
    assert Decimal(told["remaining"]) == 1_900 + Decimal(preview["credits"])
    assert told["limits"]["tokens"] == 5_000_000
    assert told["billingCycleEnd"] == before["billingCycleEnd"]
    assert (await me.post("/api/ai/openai", CALL))["credits"]["monthlyUsage"]["requests"] == 1


async def test_a_server_that_is_killed_in_the_middle_of_calls_holds_nothing_afterwards(
    street: Street,
) -> None:
    me = await street.subscriber("professional")
    gate = asyncio.Event()
    street.ai.default = Reply(COUNTED, gate=gate)
    calls = [asyncio.create_task(me.call("POST", "/api/ai/openai", CALL)) for _ in range(5)]
    async with asyncio.timeout(PATIENCE_S):
        while street.ai.at_once < 5:
            street.ai.arrived.clear()
            await street.ai.arrived.wait()
    street.server.kill()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(one, aiohttp.ClientError | OSError) for one in ended), ended
    await asyncio.to_thread(street.server.start)
    told = await until(me, lambda told: told["remaining"] == "9900.00")
    assert told["usage"]["requests"] == 0
    gate.set()
    assert (await me.post("/api/ai/openai", CALL))["credits"]["remaining"] == "9893.50"
