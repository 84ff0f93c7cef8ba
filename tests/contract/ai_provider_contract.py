"""What an adapter of a provider of AI promises, whichever it is. Subclass and supply `Call`s of that provider."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
import structlog

from billing_engine.subscriptions.errors import AiRequestInvalid, AiUnavailable
from billing_engine.subscriptions.model import ModelPrice, Provider, Tokens
from billing_engine.subscriptions.ports import AiAnswer, AiProvider, AiRequest, AiStream
from server.ai.adapter import Adapter
from server.ai.http import AiHttp
from server.errors import MalformedJson
from tests.support.fake_ai import FakeAi, Fault, Reply, fake_ai

UNAVAILABLE = (
    Fault.OUR_KEY,
    Fault.QUOTES_OUR_KEY,
    Fault.REDIRECT,
    Fault.RESET,
    Fault.CUT,
    Fault.GARBAGE,
    Fault.LIST,
)
COUNT = Tokens(501, 2_003)


@dataclass(frozen=True)
class Call:
    """What a caller sends."""

    body: dict[str, Any]
    query: dict[str, str] = field(default_factory=dict)

    @property
    def raw(self) -> bytes:
        # Spaces and escapes as no encoder of ours would put them: the body goes on as it came.
        return json.dumps(self.body, indent=3).encode()


async def drained(stream: AiStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


class AiProviderContract:
    kind: type[Adapter]
    name: Provider
    model: str
    path: str
    stream_path: str = ""
    streams = True
    #: (call, field): refused, and why.
    refused: tuple[tuple[Mapping[str, Any], str], ...] = ()
    #: What makes a call one of more than text.
    others: tuple[Mapping[str, Any], ...] = ()

    # -- supplied ------------------------------------------------------------------------------------------------------

    def call(self, text: str = "Hello", **more: Any) -> Call:
        raise NotImplementedError

    def streamed(self, text: str = "Hello", **more: Any) -> Call:
        raise NotImplementedError

    def limited(self, limit: Any, answers: Any = None) -> Mapping[str, Any]:
        """What a body says for at most so many tokens out, and so many answers."""
        raise NotImplementedError

    def tool(self) -> Mapping[str, Any]:
        """What a body says for a tool of the caller's."""
        raise NotImplementedError

    # -- the world -----------------------------------------------------------------------------------------------------

    @pytest.fixture
    async def fake(self) -> AsyncIterator[FakeAi]:
        async with fake_ai() as fake:
            yield fake

    @pytest.fixture
    async def provider(self, fake: FakeAi) -> AsyncIterator[AiProvider]:
        http = AiHttp(timeout_s=30, chunk_timeout_s=30)
        yield self.kind(http, fake.key_of(self.name), fake.url_of(self.name))
        await http.close()

    def price(self, **more: int) -> ModelPrice:
        facts = {"context_tokens": 10**6, "max_output_tokens": 4_096} | more
        return ModelPrice(self.name, self.model, Decimal("0.01"), Decimal("0.03"), **facts)

    def reader(self) -> AiProvider:
        return self.kind(AiHttp(timeout_s=1), "key", "http://127.0.0.1:1")

    def read(self, call: Call) -> AiRequest:
        return self.reader().read(call.raw, call.query)

    async def opened(self, provider: AiProvider, call: Call | None = None) -> AiStream:
        call = call or self.streamed()
        stream = await provider.stream(provider.read(call.raw, call.query))
        assert not isinstance(stream, AiAnswer)
        return stream

    # -- reading -------------------------------------------------------------------------------------------------------

    def test_it_says_what_is_asked_for(self) -> None:
        call = self.call()
        request = self.read(call)
        assert (request.provider, request.model, request.is_stream) == (self.name, self.model, False)
        assert request.body == call.raw
        assert request.parsed == call.body

    @pytest.mark.parametrize("body", [b"[]", b'"x"', b"1", b"null"])
    def test_what_is_no_object_is_refused(self, body: bytes) -> None:
        with pytest.raises(AiRequestInvalid) as caught:
            self.reader().read(body, self.call().query)
        assert caught.value.facts["field"] == "body"

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"a":1,"a":2}', b"[" * 100_000])
    def test_what_is_no_json_is_refused_as_everywhere(self, body: bytes) -> None:
        with pytest.raises(MalformedJson):
            self.reader().read(body, self.call().query)

    @pytest.mark.parametrize("model", ["", "../x", "a b", "a?b", "a#b", "ä", "a\n", "x" * 201, None, 1])
    def test_a_model_is_a_name(self, model: Any) -> None:
        call = self.call()
        if "model" in call.query:
            query, body = call.query | {"model": str(model or "")}, call.body
            if model == 1:
                pytest.skip("a query has only texts")
        else:
            query, body = call.query, call.body | {"model": model}
        with pytest.raises(AiRequestInvalid) as caught:
            self.reader().read(json.dumps(body).encode(), query)
        assert caught.value.facts["field"] == "model"

    @pytest.mark.parametrize("limit", ["8", 0, -1, 1.5, True, [8], {}, 10**10])
    def test_a_limit_is_a_whole_number(self, limit: Any) -> None:
        with pytest.raises(AiRequestInvalid) as caught:
            self.read(self.call(**self.limited(limit)))
        assert "max" in caught.value.facts["field"]

    def test_what_cannot_be_metered_is_refused_and_named(self) -> None:
        assert self.refused
        for more, name in self.refused:
            with pytest.raises(AiRequestInvalid) as caught:
                self.read(self.call(**more))
            assert caught.value.facts["field"] == name, more

    # -- the most ------------------------------------------------------------------------------------------------------

    def most(self, more: Mapping[str, Any] | None = None, **facts: int) -> Tokens:
        return self.reader().most(self.read(self.call(**(more or {}))), self.price(**facts))

    def test_the_most_out_is_what_the_caller_allows(self) -> None:
        assert self.most(self.limited(100)).output == 100
        assert self.most(self.limited(5_000)).output == 4_096
        assert self.most().output == 4_096

    def test_text_takes_at_most_its_bytes_and_the_context(self) -> None:
        size = len(self.call().raw)
        assert size < self.most().input <= size + 256
        assert self.most(context_tokens=10).input == 10

    def test_what_is_no_text_may_fill_the_context(self) -> None:
        assert self.others
        for more in self.others:
            assert self.most(more).input == 10**6, more

    def test_a_callers_tool_is_text(self) -> None:
        assert self.most().input < self.most(self.tool()).input < 10**4

    # -- asking --------------------------------------------------------------------------------------------------------

    async def test_the_body_goes_on_as_it_came_and_the_answer_as_it_came(
        self, fake: FakeAi, provider: AiProvider
    ) -> None:
        fake.default = Reply(COUNT)
        call = self.call()
        answer = await provider.call(provider.read(call.raw, call.query))

        assert (answer.status, answer.content_type.partition(";")[0]) == (200, "application/json")
        assert answer.tokens == COUNT
        assert "wörld 🌍".encode() in answer.body
        (asked,) = fake.asked
        assert (asked.body, asked.path) == (call.raw, self.path)

    @pytest.mark.parametrize("count", [Tokens(1, 0), Tokens(1, 1), Tokens(7, 3), Tokens(199_999, 64_000)])
    async def test_counts_are_the_providers(self, fake: FakeAi, provider: AiProvider, count: Tokens) -> None:
        fake.default = Reply(count)
        call = self.call()
        assert (await provider.call(provider.read(call.raw, call.query))).tokens == count

    @pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.TOO_MANY])
    async def test_an_error_is_an_answer_that_counts_nothing(
        self, fake: FakeAi, provider: AiProvider, fault: Fault
    ) -> None:
        fake.default = Reply(fault=fault)
        call = self.call()
        answer = await provider.call(provider.read(call.raw, call.query))
        assert (answer.status, answer.tokens) == (int(fault), None)
        assert f"it is {fault} here" in answer.body.decode()
        assert len(fake.asked) == 1

    @pytest.mark.parametrize("fault", [Fault.NO_USAGE, Fault.WRONG_USAGE])
    async def test_an_answer_without_counts_has_none(
        self, fake: FakeAi, provider: AiProvider, fault: Fault
    ) -> None:
        fake.default = Reply(fault=fault)
        call = self.call()
        answer = await provider.call(provider.read(call.raw, call.query))
        assert (answer.status, answer.tokens) == (200, None)

    @pytest.mark.parametrize("fault", UNAVAILABLE)
    async def test_no_answer_is_said_so_and_asked_once(
        self, fake: FakeAi, provider: AiProvider, fault: Fault
    ) -> None:
        fake.default = Reply(fault=fault)
        call = self.call()
        with pytest.raises(AiUnavailable):
            await provider.call(provider.read(call.raw, call.query))
        assert len(fake.asked) == 1

    async def test_nobody_there_is_no_answer(self) -> None:
        http = AiHttp(timeout_s=5)
        provider = self.kind(http, "key", "http://127.0.0.1:1")
        call = self.call()
        with pytest.raises(AiUnavailable):
            await provider.call(provider.read(call.raw, call.query))
        await http.close()

    async def test_too_slow_is_no_answer(self, fake: FakeAi) -> None:
        fake.default = Reply(gate=asyncio.Event())
        http = AiHttp(timeout_s=0.05)
        provider = self.kind(http, fake.key_of(self.name), fake.url_of(self.name))
        call = self.call()
        with pytest.raises(AiUnavailable):
            await provider.call(provider.read(call.raw, call.query))
        await asyncio.wait_for(fake.left.wait(), 5)
        await http.close()

    async def test_an_answer_too_long_for_a_model_is_none(self, fake: FakeAi, provider: AiProvider) -> None:
        fake.default = Reply(fault=Fault.TOO_LONG)
        call = self.call()
        with pytest.raises(AiUnavailable):
            await provider.call(provider.read(call.raw, call.query))

    async def test_who_goes_away_leaves_the_provider_too(self, fake: FakeAi, provider: AiProvider) -> None:
        fake.default = Reply(gate=asyncio.Event())
        call = self.call()
        asking = asyncio.create_task(provider.call(provider.read(call.raw, call.query)))
        await fake.arrived.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(fake.left.wait(), 5)

    async def test_nothing_of_a_key_or_a_prompt_is_logged_or_raised(
        self, fake: FakeAi, provider: AiProvider
    ) -> None:
        call = self.call("a secret of mine")
        said: list[str] = []
        with structlog.testing.capture_logs() as logged:
            for fault in UNAVAILABLE:
                fake.replies.append(Reply(fault=fault))
                with pytest.raises(AiUnavailable) as caught:
                    await provider.call(provider.read(call.raw, call.query))
                said += [repr(caught.value.facts), repr(caught.value.__cause__)]
        assert len(logged) >= len(UNAVAILABLE)
        for secret in (fake.key_of(self.name), "secret of mine"):
            assert secret not in repr(logged) + "".join(said)


class StreamingContract(AiProviderContract):
    """For those that stream."""

    @pytest.mark.parametrize("piece_bytes", [None, 1, 7, 64, 10**6])
    async def test_a_stream_passes_unchanged_and_is_counted(
        self, fake: FakeAi, provider: AiProvider, piece_bytes: int | None
    ) -> None:
        fake.default = Reply(COUNT)
        whole = await drained(await self.opened(provider))
        fake.default = Reply(COUNT, piece_bytes=piece_bytes)
        stream = await self.opened(provider)

        assert await drained(stream) == whole
        assert stream.counted == stream.produced == COUNT
        assert stream.content_type.startswith("text/event-stream")
        assert fake.asked[-1].body == self.streamed().raw
        assert fake.asked[-1].path == (self.stream_path or self.path)

    async def test_bytes_come_as_they_are_sent(self, fake: FakeAi, provider: AiProvider) -> None:
        gate = asyncio.Event()
        fake.default = Reply(COUNT, gate=gate, sent_before_gate=2)
        stream = await self.opened(provider)
        chunks = aiter(stream)
        assert await asyncio.wait_for(anext(chunks), 5)
        assert stream.counted is None
        gate.set()
        await drained(stream)
        assert stream.counted == COUNT

    async def test_who_closes_ends_it_at_the_provider(self, fake: FakeAi, provider: AiProvider) -> None:
        fake.default = Reply(Tokens(9, 7), words=("word ",) * 50, gate=asyncio.Event(), sent_before_gate=40)
        stream = await self.opened(provider)
        passed = b""
        while passed.count(b"word ") < 30:
            passed += await asyncio.wait_for(anext(aiter(stream)), 5)
        await stream.close()
        assert stream.counted is None
        assert stream.produced.input > 0
        assert 30 <= stream.produced.output <= 60
        await asyncio.wait_for(fake.left.wait(), 5)

    async def test_a_stream_that_breaks_off_says_so_and_what_it_had(
        self, fake: FakeAi, provider: AiProvider
    ) -> None:
        fake.default = Reply(COUNT, words=("word ",) * 9, fault=Fault.CUT, cut_after=6)
        stream = await self.opened(provider)
        with pytest.raises(AiUnavailable):
            await drained(stream)
        assert stream.counted is None
        assert stream.produced.output >= 3

    async def test_silence_in_the_middle_ends_it(self, fake: FakeAi) -> None:
        fake.default = Reply(COUNT, gate=asyncio.Event(), sent_before_gate=2)
        http = AiHttp(timeout_s=30, chunk_timeout_s=0.05)
        provider = self.kind(http, fake.key_of(self.name), fake.url_of(self.name))
        with pytest.raises(AiUnavailable):
            await asyncio.wait_for(drained(await self.opened(provider)), 5)
        await http.close()

    @pytest.mark.parametrize("fault", [Fault.NO_USAGE, Fault.WRONG_USAGE])
    async def test_a_stream_without_counts_has_an_estimate(
        self, fake: FakeAi, provider: AiProvider, fault: Fault
    ) -> None:
        fake.default = Reply(fault=fault)
        stream = await self.opened(provider)
        assert await drained(stream)
        assert stream.counted is None
        assert 0 < stream.produced.input <= len(self.streamed().raw)
        assert stream.produced.output >= 3

    @pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.TOO_MANY])
    async def test_an_error_in_a_streams_place_is_a_whole_answer(
        self, fake: FakeAi, provider: AiProvider, fault: Fault
    ) -> None:
        fake.default = Reply(fault=fault)
        call = self.streamed()
        answer = await provider.stream(provider.read(call.raw, call.query))
        assert isinstance(answer, AiAnswer)
        assert (answer.status, answer.tokens) == (int(fault), None)

    @pytest.mark.parametrize("fault", [Fault.OUR_KEY, Fault.REDIRECT, Fault.RESET, Fault.GARBAGE])
    async def test_no_stream_is_said_so(self, fake: FakeAi, provider: AiProvider, fault: Fault) -> None:
        fake.default = Reply(fault=fault)
        call = self.streamed()
        with pytest.raises(AiUnavailable):
            await provider.stream(provider.read(call.raw, call.query))
        assert len(fake.asked) == 1
