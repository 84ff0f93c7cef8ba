"""The five providers against the contract, over loopback."""

from collections.abc import Mapping
from typing import Any

import pytest

from billing_engine.subscriptions.errors import AiRequestInvalid, AiUnavailable
from billing_engine.subscriptions.model import Provider
from billing_engine.subscriptions.ports import AiProvider
from server.ai.anthropic import AnthropicProvider
from server.ai.aws import AwsProvider
from server.ai.google import GoogleProvider
from server.ai.huggingface import HuggingFaceProvider
from server.ai.openai import OpenAiProvider
from tests.contract.ai_provider_contract import AiProviderContract, Call, StreamingContract
from tests.support.fake_ai import FakeAi, Fault, Reply

SCHEMA = {"type": "object", "properties": {"städte": {"type": "string"}}}


def of_user(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


class OpenAiContract(StreamingContract):
    name = Provider.OPENAI
    model = "gpt-4-turbo"
    path = "/v1/chat/completions"
    refused = (
        ({"web_search_options": {}}, "web_search_options"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"audio": {"voice": "alloy", "format": "mp3"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": ["x"]}, "tools"),
        (of_user([{"type": "input_audio", "input_audio": {}}]), "messages.content.input_audio"),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages.audio"),
        ({"n": 0}, "n"),
        ({"n": "2"}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stream": True}, "stream_options.include_usage"),
        ({"stream": True, "stream_options": {"include_usage": False}}, "stream_options.include_usage"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"stream": True, "stream_options": 1}, "stream_options"),
    )
    others = (
        of_user([{"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}]),
        of_user([{"type": "text", "text": "x"}, {"type": "file", "file": {"file_id": "f"}}]),
        of_user([{"type": "new"}]),
        {"messages": ["x"]},
    )

    def call(self, text: str = "Hello", **more: Any) -> Call:
        return Call({"model": self.model, **of_user(text), **more})

    def streamed(self, text: str = "Hello", **more: Any) -> Call:
        return self.call(text, stream=True, stream_options={"include_usage": True}, **more)

    def limited(self, limit: Any, answers: Any = None) -> Mapping[str, Any]:
        return {"max_tokens": limit} | ({"n": answers} if answers else {})

    def tool(self) -> Mapping[str, Any]:
        return {"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]}

    def test_every_answer_may_be_as_long(self) -> None:
        assert self.most(self.limited(100, 3)).output == 300
        assert self.most({"n": 2, "best_of": 4}).output == 4 * 4_096

    def test_null_is_as_good_as_nothing(self) -> None:
        nothing = {
            "n": None,
            "max_tokens": None,
            "tools": None,
            "service_tier": None,
            "stream": None,
            "audio": None,
        }
        assert self.most(nothing).output == 4_096


class TestOpenAi(OpenAiContract):
    kind = OpenAiProvider

    def test_the_newer_name_of_the_limit(self) -> None:
        assert self.most({"max_completion_tokens": 50}).output == 50
        assert self.most({"max_completion_tokens": 50, "max_tokens": 70}).output == 70


class TestHuggingFace(OpenAiContract):
    kind = HuggingFaceProvider
    name = Provider.HUGGINGFACE
    model = "openai/gpt-oss-20b:groq"

    def test_a_limit_that_not_everybody_there_knows_is_none(self) -> None:
        assert self.most({"max_completion_tokens": 50}).output == 4_096


class TestAnthropic(StreamingContract):
    kind = AnthropicProvider
    name = Provider.ANTHROPIC
    model = "claude-haiku-4-5"
    path = "/v1/messages"
    refused = (
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools"),
        ({"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]}, "tools"),
        ({"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}, "tools"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"context_management": {}}, "context_management"),
        ({"speed": "fast"}, "speed"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"service_tier": "batch"}, "service_tier"),
        ({"cache_control": {"type": "ephemeral"}}, "cache_control"),
        (
            {"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
            "cache_control",
        ),
        ({"stream": 1}, "stream"),
    )
    others = (
        of_user([{"type": "image", "source": {"type": "url", "url": "https://example.com/x.png"}}]),
        of_user([{"type": "document", "source": {"type": "file", "file_id": "f"}}]),
        of_user([{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": {}}]}]),
        of_user([{"type": "thinking", "thinking": "", "signature": "x"}]),
        {"tools": [{"type": "bash_20250124", "name": "bash"}]},
        {"messages": ["x"]},
    )

    def call(self, text: str = "Hello", **more: Any) -> Call:
        return Call(
            {"model": self.model, **of_user([{"type": "text", "text": text}]), "system": "Be kind", **more}
        )

    def streamed(self, text: str = "Hello", **more: Any) -> Call:
        return self.call(text, stream=True, **more)

    def limited(self, limit: Any, answers: Any = None) -> Mapping[str, Any]:
        return {"max_tokens": limit}

    def tool(self) -> Mapping[str, Any]:
        return {"tools": [{"name": "f", "input_schema": SCHEMA}]}


class TestGoogle(StreamingContract):
    kind = GoogleProvider
    name = Provider.GOOGLE
    model = "gemini-2.5-flash"
    path = "/v1beta/models/gemini-2.5-flash:generateContent"
    stream_path = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"
    refused = (
        ({"tools": [{"googleSearch": {}}]}, "tools"),
        ({"tools": [{"google_search": {}}]}, "tools"),
        ({"tools": [{"functionDeclarations": [], "codeExecution": {}}]}, "tools"),
        ({"tools": {"urlContext": {}}}, "tools"),
        ({"serviceTier": "priority"}, "serviceTier"),
        ({"service_tier": "flex"}, "serviceTier"),
        (
            {"generationConfig": {"responseModalities": ["TEXT", "IMAGE"]}},
            "generationConfig.responseModalities",
        ),
        ({"generation_config": {"response_modalities": ["AUDIO"]}}, "generationConfig.responseModalities"),
        ({"generationConfig": {"speechConfig": {}}}, "generationConfig.speechConfig"),
        ({"generationConfig": {"candidateCount": "2"}}, "generationConfig.candidateCount"),
        ({"generationConfig": 1}, "generationConfig"),
        ({"generationConfig": {}, "generation_config": {}}, "body"),
        (
            {"contents": [{"parts": [{"inlineData": {"mimeType": "audio/mp3", "data": ""}}]}]},
            "contents.parts.mimeType",
        ),
        ({"contents": [{"parts": [{"file_data": {"file_uri": "x"}}]}]}, "contents.parts.mimeType"),
        ({"model": "models/gemini-2.5-pro"}, "model"),
    )
    others = (
        {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": ""}}]}]},
        {"contents": {"parts": {"file_data": {"mime_type": "video/mp4", "file_uri": "x"}}}},
        {"systemInstruction": {"parts": [{"text": "x", "thoughtSignature": "x"}]}},
        {"cachedContent": "cachedContents/x"},
        {"cached_content": "cachedContents/x"},
    )

    def call(self, text: str = "Hello", **more: Any) -> Call:
        return Call(
            {"contents": [{"role": "user", "parts": [{"text": text}]}], **more}, {"model": self.model}
        )

    def streamed(self, text: str = "Hello", **more: Any) -> Call:
        call = self.call(text, **more)
        return Call(call.body, call.query | {"stream": "true"})

    def limited(self, limit: Any, answers: Any = None) -> Mapping[str, Any]:
        return {
            "generationConfig": {"maxOutputTokens": limit} | ({"candidateCount": answers} if answers else {})
        }

    def tool(self) -> Mapping[str, Any]:
        return {"tools": [{"functionDeclarations": [{"name": "f", "parameters": SCHEMA}]}]}

    def test_both_spellings_of_a_limit_count(self) -> None:
        assert self.most({"generation_config": {"max_output_tokens": 7, "candidate_count": 3}}).output == 21

    @pytest.mark.parametrize("said", ["yes", "1", "True"])
    def test_streaming_is_wanted_or_not(self, said: str) -> None:
        with pytest.raises(AiRequestInvalid) as caught:
            self.reader().read(b"{}", {"model": self.model, "stream": said})
        assert caught.value.facts["field"] == "stream"

    async def test_a_wrong_key_is_not_the_callers_business(self, fake: FakeAi, provider: AiProvider) -> None:
        class Wrong(GoogleProvider):
            about_our_key = (b"it is 500 here",)

        fake.default = Reply(fault=Fault.SERVER_ERROR)
        wrong = Wrong(provider._http, fake.key_of(self.name), fake.url_of(self.name))  # type: ignore[attr-defined]
        with pytest.raises(AiUnavailable):
            await wrong.call(wrong.read(b"{}", {"model": self.model}))


class TestAws(AiProviderContract):
    kind = AwsProvider
    name = Provider.AWS
    model = "anthropic.claude-3-haiku-20240307-v1:0"
    path = "/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse"
    refused = (
        ({"guardrailConfig": {}}, "guardrailConfig"),
        ({"promptVariables": {}}, "promptVariables"),
        ({"performanceConfig": {"latency": "optimized"}}, "performanceConfig.latency"),
        ({"serviceTier": {"type": "priority"}}, "serviceTier.type"),
        ({"additionalModelRequestFields": {"max_tokens": 9}}, "additionalModelRequestFields.max_tokens"),
        ({"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}}, "toolConfig.tools"),
        ({"system": [{"cachePoint": {"type": "default"}}]}, "cachePoint"),
        (of_user([{"audio": {}}]), "messages.content.audio"),
        ({"inferenceConfig": []}, "inferenceConfig"),
    )
    others = (
        of_user([{"image": {"format": "png", "source": {"bytes": ""}}}]),
        of_user([{"document": {}}]),
        of_user([{"toolResult": {"toolUseId": "t", "content": [{"image": {}}]}}]),
        of_user([{"reasoningContent": {}}]),
        {"messages": ["x"]},
    )

    def call(self, text: str = "Hello", **more: Any) -> Call:
        return Call(
            {**of_user([{"text": text}]), "system": [{"text": "Be kind"}], **more}, {"model": self.model}
        )

    def limited(self, limit: Any, answers: Any = None) -> Mapping[str, Any]:
        return {"inferenceConfig": {"maxTokens": limit}}

    def tool(self) -> Mapping[str, Any]:
        return {"toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": SCHEMA}}}]}}

    def test_it_is_not_streamed(self) -> None:
        with pytest.raises(AiRequestInvalid) as caught:
            self.reader().read(b"{}", {"model": self.model, "stream": "true"})
        assert caught.value.facts["field"] == "stream"

    async def test_a_model_is_one_segment_of_the_path(self, fake: FakeAi, provider: AiProvider) -> None:
        arn = "arn:aws:bedrock:us-east-1:1:inference-profile/x"
        await provider.call(provider.read(self.call().raw, {"model": arn}))
        assert (
            fake.asked[-1].path
            == "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fx/converse"
        )
