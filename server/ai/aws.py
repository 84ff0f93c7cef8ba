"""AWS Bedrock's Converse with a Bedrock API key; the model is in the query, as AWS has it in the path.

Not streamed: `converse-stream` speaks Amazon's binary event stream and not server-sent events. Refused, since it is billed apart, at
other prices, or takes in more than the body has: guardrails, optimized latency, other service tiers, tools that run at AWS, prompts
that are stored there, cache writes, sound, and model fields of which it is not known what they cost. Reasoning is within `maxTokens`.
Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from billing_engine.subscriptions.errors import AiRequestInvalid
from billing_engine.subscriptions.model import Provider, Tokens
from billing_engine.subscriptions.ports import AiRequest
from server.ai.adapter import Adapter, in_path, stream_of
from server.ai.metered import counts, inner, tokens_of
from server.ai.reading import (
    NOT_METERED,
    Bounds,
    listed,
    model_of,
    object_at,
    only,
    refuse,
    refuse_keys,
    whole_of,
)

_REFUSED: Final = ("guardrailConfig", "promptVariables")
_REFUSED_ANYWHERE: Final = frozenset({"cachePoint"})
_MODEL_FIELDS: Final = frozenset({"thinking", "reasoning_config", "reasoningConfig", "top_k"})
_TOOLS: Final = frozenset({"toolSpec"})
_TEXTS: Final = frozenset({"text", "json", "toolUse", "toolResult"})
_FORMS: Final = ("toolConfig", "outputConfig")


class AwsProvider(Adapter):
    """`AiProvider` of AWS Bedrock."""

    name = Provider.AWS

    def _asked(self, parsed: Mapping[str, Any], query: Mapping[str, str]) -> tuple[str, bool]:
        del parsed
        model = model_of(query.get("model"))
        if stream_of(query):
            raise AiRequestInvalid(field="stream", problem="must not be true: aws is not streamed here")
        return model, False

    def _bounds(self, parsed: Mapping[str, Any]) -> Bounds:
        refuse(parsed, _REFUSED)
        only(object_at(parsed, "performanceConfig"), "latency", ("standard",), prefix="performanceConfig.")
        only(object_at(parsed, "serviceTier"), "type", ("default",), prefix="serviceTier.")
        refuse_keys(parsed, _REFUSED_ANYWHERE)
        if unknown := object_at(parsed, "additionalModelRequestFields").keys() - _MODEL_FIELDS:
            field = f"additionalModelRequestFields.{min(unknown)}"
            raise AiRequestInvalid(field=field, problem=NOT_METERED)
        for tool in listed(object_at(parsed, "toolConfig"), "tools"):
            if not isinstance(tool, dict) or tool.keys() - _TOOLS:
                raise AiRequestInvalid(field="toolConfig.tools", problem=NOT_METERED)
        limits = object_at(parsed, "inferenceConfig")
        return Bounds(
            others=tuple(_others(parsed)),
            output=whole_of(limits, "maxTokens", field="inferenceConfig.maxTokens"),
            has_tools=any(parsed.get(name) is not None for name in _FORMS),
        )

    def _path(self, request: AiRequest) -> str:
        return f"/model/{in_path(request.model)}/converse"

    def _headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self._key}"}

    def _tokens(self, answer: Mapping[str, Any]) -> Tokens | None:
        usage = inner(answer, "usage")
        taken = counts(usage, "inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
        return tokens_of(taken, counts(usage, "outputTokens"))


def _others(parsed: Mapping[str, Any]) -> Iterator[Any]:
    """What is no text. Raises `AiRequestInvalid` for sound, which has prices of its own."""
    yield from _others_in(listed(parsed, "system"))
    for message in listed(parsed, "messages"):
        if isinstance(message, dict):
            yield from _others_in(listed(message, "content"))
        else:
            yield message


def _others_in(blocks: list[Any]) -> Iterator[Any]:
    for block in blocks:
        if not isinstance(block, dict):
            yield block
            continue
        refuse(block, ("audio",), prefix="messages.content.")
        if block.keys() - _TEXTS:
            yield block
        result = block.get("toolResult")
        if isinstance(result, dict):
            yield from _others_in(listed(result, "content"))
