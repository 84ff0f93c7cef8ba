"""AI calls over HTTP: what is checked in which order, what is passed on, what is charged. The providers are ours, over loopback."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web

from billing_engine.subscriptions.model import Tokens
from server.json_splice import with_last_field
from tests.support.api import Api, Person, open_api
from tests.support.fake_ai import FakeAi, Fault, Reply, answer, fake_ai
from tests.support.http import Answer

#: Longer than what the fake counts, as text is.
PROMPT: Final = "Why is the sky blue? " * 40
TURBO: Final = Tokens(500, 2_000)
#: A tier of 13 credits, two requests and 10,000 tokens, above it one with everything.
SMALL: Final = """
version = 1
currency = "USD"
[[tier]]
name = "free"
price = "0"
credits = "13"
monthly_tokens = 10_000
monthly_requests = 2
parallel_calls = 1
credit_markup = "1"
providers = ["openai", "google"]
models.openai = ["gpt-4-turbo"]
[[tier]]
name = "whole"
price = "19"
credits = "1900"
monthly_tokens = 500_000
monthly_requests = 1_000
parallel_calls = 2
credit_markup = "1"
providers = ["openai", "anthropic", "google", "huggingface", "aws"]
"""


@dataclass
class World:
    api: Api
    fake: FakeAi

    async def subscriber(self, tier: str = "professional") -> Person:
        person = await self.api.register()
        if tier != "free":
            bought = await person.post("/api/subscriptions/checkout", {"tier": tier})
            assert (bought.status, bought.json["status"]) == (201, "ACTIVE"), bought.text
        return person

    async def calls_of(self, person: Person) -> list[dict[str, Any]]:
        listed = await person.get("/api/credits/usage")
        found: list[dict[str, Any]] = listed.json["items"]
        return found

    async def nothing_is_held(self, person: Person) -> None:
        account = await self.api.services.ai.calls._ledger.account(f"ai_credits:{person.id}", "AI_CREDIT")
        assert account.holds == {}


@asynccontextmanager
async def a_world(directory: Path, **settings: Any) -> AsyncIterator[World]:
    async with fake_ai() as fake:
        keys = {name.lower(): value for name, value in fake.settings().items()}
        async with open_api(directory, access_token_minutes=1_440, **keys, **settings) as api:
            yield World(api, fake)
            await api.services.ai.calls.stop()
            await api.books_are_clean()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as world:
        yield world


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[World]:
    tiers = tmp_path / "tiers.toml"
    tiers.write_text(SMALL)
    async with a_world(tmp_path, ai_tiers_file=str(tiers)) as world:
        yield world


def chat(model: str = "gpt-4-turbo", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 2_000, **more}


STREAMED: Final = {"stream": True, "stream_options": {"include_usage": True}}


async def ask(person: Person, body: Any, provider: str = "openai", query: str = "", **more: Any) -> Answer:
    return await person.post(f"/api/ai/{provider}{query}", body, **more)


# -- what is charged -----------------------------------------------------------------------------------------------------


async def test_the_documents_call_costs_six_and_a_half_credits_and_fifty_cost_325(world: World) -> None:
    me = await world.subscriber()
    world.fake.default = Reply(TURBO)
    first = await ask(me, chat())
    assert first.status == 200
    assert first.json["credits"] == {
        "deducted": "6.50",
        "remaining": "9893.50",
        "monthlyUsage": {"tokens": 2_500, "requests": 1, "cost": "0.065"},
        "warnings": [],
    }
    for _ in range(48):
        await ask(me, chat())
    last = await ask(me, chat())
    assert last.json["credits"] == {
        "deducted": "6.50",
        "remaining": "9575.00",
        "monthlyUsage": {"tokens": 125_000, "requests": 50, "cost": "3.25"},
        "warnings": [],
    }
    credits_now = (await me.get("/api/credits")).json
    assert (credits_now["totalCredits"], credits_now["remaining"]) == ("9900.00", "9575.00")
    assert credits_now["usage"] == last.json["credits"]["monthlyUsage"]
    (logged, *_) = await world.calls_of(me)
    assert {name: logged[name] for name in ("model", "inputTokens", "outputTokens", "cost", "credits")} == {
        "model": "gpt-4-turbo",
        "inputTokens": 500,
        "outputTokens": 2_000,
        "cost": "0.065",
        "credits": "6.50",
    }
    await world.nothing_is_held(me)


# -- what is passed on ---------------------------------------------------------------------------------------------------


async def test_both_bodies_are_passed_on_byte_for_byte(world: World) -> None:
    me = await world.subscriber()
    world.fake.default = reply = Reply(Tokens(9, 9), words=("Grüße", " 🌍\u2028", '{"a": 1}'))
    raw = (
        '{ "messages" : [ {"content": "\\u00fc ü 🌍", "role":"user"} ],\n "seed": 12345678901234567890,'
        ' "max_tokens": 9, "temperature": 1.0, "model":"gpt-4-turbo" }'
    ).encode()
    async with me._http.post(
        f"{world.api.base_url}/api/ai/openai", data=raw, headers={"Authorization": f"Bearer {me.token}"}
    ) as response:
        got = await response.read()
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("application/json")
    (asked,) = world.fake.asked
    assert asked.body == raw
    theirs = json.dumps(answer(asked, reply, Tokens(9, 9)), ensure_ascii=False).encode()
    assert got.startswith(theirs[:-1] + b',"credits":{"deducted":')
    assert list(json.loads(got))[-1] == "credits"
    # What is ours with the provider, and what is the caller's with us, stay where they are.
    assert str(me.token) not in str(asked.headers)
    assert world.fake.key_of(asked.provider).encode() not in got


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (
            b'{"n": 123456789012345678901234567890, "a": 1.0}\n',
            b'{"n": 123456789012345678901234567890, "a": 1.0,"credits":{}}',
        ),
        (b"{ }", b'{ "credits":{}}'),
        (b"[1]", b"[1]"),
        (b"", b""),
    ],
)
def test_credits_are_the_last_field_of_an_object(theirs: bytes, ours: bytes) -> None:
    assert with_last_field(theirs, "credits", b"{}") == ours


@pytest.mark.parametrize(
    ("provider", "query", "body"),
    [
        ("anthropic", "", chat("claude-haiku-4-5")),
        (
            "google",
            "?model=gemini-2.5-flash",
            {"contents": [{"parts": [{"text": PROMPT}]}], "generationConfig": {"maxOutputTokens": 2_000}},
        ),
        ("huggingface", "", chat("Qwen/Qwen3-32B:groq")),
        (
            "aws",
            "?model=amazon.nova-lite-v1:0",
            {
                "messages": [{"role": "user", "content": [{"text": PROMPT}]}],
                "inferenceConfig": {"maxTokens": 2_000},
            },
        ),
    ],
)
async def test_every_provider_answers_and_is_counted(
    world: World, provider: str, query: str, body: Any
) -> None:
    me = await world.subscriber("enterprise")
    world.fake.default = Reply(TURBO)
    got = await ask(me, body, provider, query)
    assert got.status == 200, got.text
    assert got.json["credits"]["monthlyUsage"]["tokens"] == 2_500
    assert (await world.calls_of(me))[0]["provider"] == provider


# -- what is refused, in the document's order ----------------------------------------------------------------------------


async def test_the_checks_come_in_the_documents_order(small: World) -> None:
    """Whoever has nothing left hears that, whatever else is wrong; then the limits; then the provider; then the model; then the hold."""
    small.fake.default = Reply(TURBO)
    me = await small.subscriber("free")
    # 3: provider, model.
    foreign = await ask(me, chat("claude-haiku-4-5"), "anthropic")
    assert (foreign.status, foreign.code, foreign.json["upgrade"]) == (403, "PROVIDER_NOT_AVAILABLE", "whole")
    dear = await ask(me, chat("gpt-4o"))
    assert (dear.status, dear.code, dear.json["tier"]) == (403, "MODEL_NOT_AVAILABLE", "free")
    # Less left than this call can cost.
    much = await ask(me, chat(max_tokens=4_000))
    assert (much.status, much.code, much.json["available"]) == (403, "INSUFFICIENT_CREDITS", "13.00")
    assert 12 < float(much.json["required"]) - 1 < 13.5
    assert small.fake.asked == []
    # 2 before 3: all requests are used.
    small.fake.default = Reply(Tokens(1, 1))
    for _ in range(2):
        assert (await ask(me, chat(max_tokens=10))).status == 200
    over = await ask(me, chat("claude-haiku-4-5"), "anthropic")
    assert (over.status, over.code) == (429, "LIMIT_EXCEEDED")
    # 1 before 2 and 3: nothing left at all.
    other = await small.subscriber("free")
    for _ in range(2):
        small.fake.default = Reply(TURBO)
        assert (await ask(other, chat(max_tokens=1_000))).status == 200
    spent = await ask(other, chat("claude-haiku-4-5"), "anthropic")
    assert (spent.status, spent.code, spent.json["available"]) == (403, "INSUFFICIENT_CREDITS", "0.00")


async def test_a_limit_warns_from_80_percent_and_names_the_next_tier_at_its_end(world: World) -> None:
    me = await world.subscriber("free")
    small_one = chat("gpt-4o-mini", max_tokens=10)
    world.fake.replies.extend([Reply(Tokens(7_000, 999)), Reply(Tokens(1, 0)), Reply(Tokens(1_990, 0))])
    assert (await ask(me, small_one)).json["credits"]["warnings"] == []
    assert (await ask(me, small_one)).json["credits"]["warnings"] == ["80 % of this cycle's tokens are used."]
    assert (await ask(me, small_one)).json["credits"]["warnings"] == ["99 % of this cycle's tokens are used."]
    told = (await me.get("/api/credits")).json
    assert told["warnings"] == ["99 % of this cycle's tokens are used."]
    over = await ask(me, small_one)
    assert (over.status, over.code) == (429, "LIMIT_EXCEEDED")
    facts = {name: over.json[name] for name in ("limit", "used", "allowed", "tier", "upgrade", "resetsAt")}
    assert facts == {
        "limit": "tokens",
        "used": 9_990,
        "allowed": 10_000,
        "tier": "free",
        "upgrade": "starter",
        "resetsAt": told["billingCycleEnd"],
    }
    assert over.headers["Retry-After"] == str(30 * 86_400)
    assert len(world.fake.asked) == 3
    # The cycle after: all is as new.
    world.api.clock.jump_ms(30 * 86_400_000)
    again = await world.api.log_in(me.email)
    assert (await ask(again, small_one)).json["credits"]["monthlyUsage"]["requests"] == 1


async def test_calls_at_once_are_limited_by_the_tier(small: World) -> None:
    me = await small.subscriber("free")
    gate = asyncio.Event()
    small.fake.default = Reply(Tokens(1, 1), gate=gate)
    first = asyncio.create_task(ask(me, chat(max_tokens=10)))
    await small.fake.arrived.wait()
    second = await ask(me, chat(max_tokens=10))
    assert (second.status, second.code, second.json["limit"]) == (429, "TOO_MANY_CALLS", 1)
    assert second.headers["Retry-After"] == "1"
    gate.set()
    assert (await first).status == 200


@pytest.mark.parametrize(
    ("provider", "body", "status", "code", "field"),
    [
        ("openai", chat("gpt-99"), 422, "MODEL_WITHOUT_PRICE", "model"),
        ("mistral", chat(), 404, "PROVIDER_UNKNOWN", None),
        ("openai", {"messages": []}, 422, "VALIDATION_FAILED", "model"),
        ("openai", [1], 422, "VALIDATION_FAILED", "body"),
        ("openai", chat(max_tokens="many"), 422, "VALIDATION_FAILED", "max_tokens"),
        ("openai", chat(stream=True), 422, "VALIDATION_FAILED", "stream_options.include_usage"),
        ("google", {"contents": []}, 422, "VALIDATION_FAILED", "model"),
    ],
)
async def test_what_cannot_be_metered_is_refused_and_free(
    world: World, provider: str, body: Any, status: int, code: str, field: str | None
) -> None:
    me = await world.subscriber()
    refused = await ask(me, body, provider)
    assert (refused.status, refused.code) == (status, code), refused.text
    if field is not None:
        assert refused.fields == [field]
    assert world.fake.asked == []
    assert await world.calls_of(me) == []


async def test_a_body_that_is_no_json_or_too_long_is_refused(world: World) -> None:
    me = await world.subscriber()
    for raw in (b"", b"{", b"hello", b"\xff\xfe", b'{"model": NaN}'):
        refused = await me.call("POST", "/api/ai/openai", raw=raw)
        assert (refused.status, refused.code) == (400, "MALFORMED_JSON"), (raw, refused.text)
    async with me._http.post(
        f"{world.api.base_url}/api/ai/openai",
        data=io.BytesIO(b'{"model": "' + b"x" * (20 * 1024 * 1024) + b'"}'),
        headers={"Authorization": f"Bearer {me.token}"},
    ) as response:
        assert (response.status, (await response.json(content_type=None))["code"]) == (413, "BODY_TOO_LARGE")
    assert world.fake.asked == []


async def test_a_repeat_key_is_refused_rather_than_ignored(world: World) -> None:
    """Whoever sends one believes that a repeat is free."""
    me = await world.subscriber()
    refused = await ask(me, chat(), key="once")
    assert (refused.status, refused.fields) == (422, ["Idempotency-Key"])
    assert world.fake.asked == []


async def test_nobody_sees_anothers_calls(world: World) -> None:
    me, other = await world.subscriber(), await world.subscriber()
    await ask(me, chat(max_tokens=10))
    assert len(await world.calls_of(me)) == 1
    assert await world.calls_of(other) == []
    assert (await other.get("/api/credits")).json["remaining"] == "9900.00"


# -- providers that fail -------------------------------------------------------------------------------------------------


FAILURES: Final = (
    (Fault.SERVER_ERROR, 502, "PROVIDER_FAILED"),
    (Fault.TOO_MANY, 502, "PROVIDER_FAILED"),
    (Fault.OUR_KEY, 503, "PROVIDER_UNAVAILABLE"),
    (Fault.QUOTES_OUR_KEY, 503, "PROVIDER_UNAVAILABLE"),
    (Fault.REDIRECT, 503, "PROVIDER_UNAVAILABLE"),
    (Fault.RESET, 503, "PROVIDER_UNAVAILABLE"),
    (Fault.GARBAGE, 503, "PROVIDER_UNAVAILABLE"),
)


@pytest.mark.parametrize(
    ("fault", "status", "code", "streams"),
    [
        *((*failure, streams) for failure in FAILURES for streams in (False, True)),
        # A stream that breaks off has begun: see below.
        (Fault.CUT, 503, "PROVIDER_UNAVAILABLE", False),
    ],
)
async def test_a_provider_that_fails_costs_nothing(
    world: World, fault: Fault, status: int, code: str, streams: bool
) -> None:
    me = await world.subscriber()
    world.fake.default = Reply(TURBO, fault=fault)
    failed = await ask(me, chat(**(STREAMED if streams else {})))
    assert (failed.status, failed.code) == (status, code), failed.text
    assert world.fake.key_of(world.fake.asked[0].provider) not in failed.text
    told = (await me.get("/api/credits")).json
    assert (told["remaining"], told["usage"]) == ("9900.00", {"tokens": 0, "requests": 0, "cost": "0.00"})
    (row,) = await world.calls_of(me)
    assert (row["credits"], row["cost"]) == ("0.00", "0.00")
    await world.nothing_is_held(me)


async def test_what_the_provider_says_of_the_callers_request_is_passed_on_and_free(world: World) -> None:
    me = await world.subscriber()
    # A fake of the fake: OpenAI's own words for a bad parameter.
    said = (
        b'{"error": {"message": "n must be 1", "type": "invalid_request_error", "param": "n", "code": null}}'
    )

    async def refusing(request: Any) -> Any:
        del request
        return web.Response(status=400, body=said, content_type="application/json")

    app = web.Application()
    app.router.add_post("/{path:.*}", refusing)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    adapter = world.api.services.ai.calls._adapter("openai")
    adapter._base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        got = await ask(me, chat())
    finally:
        await runner.cleanup()
    assert got.status == 400
    assert got.text.encode().startswith(said[:-1] + b',"credits":')
    assert got.json["credits"]["deducted"] == "0.00"
    assert got.json["credits"]["monthlyUsage"]["requests"] == 0
    assert (await world.calls_of(me))[0]["outcome"] == "HTTP_400"


async def test_a_provider_that_says_nothing_in_time_costs_nothing(tmp_path: Path) -> None:
    async with a_world(tmp_path, ai_timeout_seconds=1) as world:
        me = await world.subscriber()
        world.fake.default = Reply(TURBO, gate=asyncio.Event())
        late = await ask(me, chat())
        assert (late.status, late.code) == (503, "PROVIDER_UNAVAILABLE")
        assert (await me.get("/api/credits")).json["remaining"] == "9900.00"
        assert (await world.calls_of(me))[0]["outcome"] == "UNAVAILABLE"


# -- streams -------------------------------------------------------------------------------------------------------------

STREAMS: Final = (
    ("openai", "", chat(**STREAMED)),
    ("anthropic", "", chat("claude-haiku-4-5", stream=True)),
    (
        "google",
        "?model=gemini-2.5-flash&stream=true",
        {"contents": [{"parts": [{"text": PROMPT}]}], "generationConfig": {"maxOutputTokens": 2_000}},
    ),
)


@asynccontextmanager
async def streamed(
    world: World, person: Person, provider: str, query: str, body: Any
) -> AsyncIterator[aiohttp.ClientResponse]:
    async with person._http.post(
        f"{world.api.base_url}/api/ai/{provider}{query}",
        json=body,
        headers={"Authorization": f"Bearer {person.token}"},
    ) as response:
        yield response


@pytest.mark.parametrize(("provider", "query", "body"), STREAMS, ids=lambda value: str(value)[:10])
async def test_a_stream_comes_as_it_is_made_and_tells_its_cost_at_the_end(
    world: World, provider: str, query: str, body: Any
) -> None:
    me = await world.subscriber()
    gate = asyncio.Event()
    world.fake.default = Reply(TURBO, gate=gate, sent_before_gate=2)
    async with streamed(world, me, provider, query, body) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        # The provider has not said the rest yet: this would hang if it were waited for.
        first = await response.content.readuntil(b"\n")
        assert first.startswith((b"data: ", b"event: message_start"))
        held = (await me.get("/api/credits")).json
        assert float(held["remaining"]) < 9_900
        gate.set()
        rest = await response.content.read()
    passed_on, mark, ours = (first + rest).partition(b"event: credits\ndata: ")
    assert mark
    assert b"credits" not in passed_on
    block = json.loads(ours)
    assert ours.endswith(b"}\n\n")
    assert block["monthlyUsage"]["tokens"] == 2_500
    if provider == "openai":
        assert (block["deducted"], block["remaining"]) == ("6.50", "9893.50")
    (row,) = await world.calls_of(me)
    assert (row["inputTokens"], row["outputTokens"], row["outcome"]) == (500, 2_000, "OK")
    await world.nothing_is_held(me)


async def test_who_leaves_in_the_middle_of_a_stream_pays_what_was_produced(world: World) -> None:
    me = await world.subscriber()
    gate = asyncio.Event()
    words = tuple(f"word{n} " for n in range(40))
    world.fake.default = Reply(TURBO, words=words, gate=gate, sent_before_gate=20)
    async with streamed(world, me, *STREAMS[0]) as response:
        seen = b""
        while b"word19" not in seen:
            seen += await response.content.readany()
        response.close()
    # Our side notices while the provider is silent, and hangs up there: nothing more is made, nothing more is paid.
    async with asyncio.timeout(10):
        await world.fake.left.wait()
        while (row := (await world.calls_of(me))[0])["outcome"] == "STARTED":
            await world.api.idle()
    assert row["outcome"] == "GONE"
    assert 20 <= row["outputTokens"] < 60
    assert 0 < row["inputTokens"] < 500
    assert 0 < float(row["credits"]) < 6.5
    assert (await me.get("/api/credits")).json["usage"]["requests"] == 1
    await world.nothing_is_held(me)


async def test_a_stream_that_breaks_off_is_cut_here_too_and_costs_what_was_produced(world: World) -> None:
    me = await world.subscriber()
    gate = asyncio.Event()
    world.fake.default = Reply(TURBO, fault=Fault.CUT, cut_after=2, gate=gate, sent_before_gate=2)
    async with streamed(world, me, *STREAMS[0]) as response:
        seen = b""
        while seen.count(b"\n\n") < 2:
            seen += await response.content.readany()
        gate.set()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    (row,) = await world.calls_of(me)
    assert (row["outcome"], row["outputTokens"]) == ("BROKEN_OFF", 2)
    await world.nothing_is_held(me)
