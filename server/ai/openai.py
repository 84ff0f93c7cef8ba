"""OpenAI's chat completions.

Refused, since it is billed apart or at other prices: web search, predicted output, sound in and out, other service tiers. Tokens of
reasoning are within `max_completion_tokens`. Source: https://platform.openai.com/docs/api-reference/chat/create, .../docs/pricing
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from billing_engine.subscriptions.errors import AiRequestInvalid
from billing_engine.subscriptions.model import Provider, Tokens
from billing_engine.subscriptions.ports import AiRequest
from server.ai.adapter import Adapter
from server.ai.metered import Tally, counts, inner, items, object_in, tokens_of
from server.ai.reading import (
    NOT_METERED,
    Bounds,
    answers_of,
    flag_of,
    listed,
    object_at,
    only,
    refuse,
    whole_of,
)
from server.ai.sse import Event

_REFUSED: Final = ("web_search_options", "prediction", "audio")
#: Both are what a project has by default.
_SERVICE_TIERS: Final = ("auto", "default")
_TEXTS: Final = frozenset({"text", "refusal"})
_TOOLS: Final = frozenset({"function", "custom"})
_FORMS: Final = ("tools", "functions", "response_format")


class OpenAiProvider(Adapter):
    """`AiProvider` of OpenAI, and of whoever speaks like it."""

    name = Provider.OPENAI
    #: Where a request may say how long an answer may be.
    limits: ClassVar[tuple[str, ...]] = ("max_tokens", "max_completion_tokens")

    def _asked(self, parsed: Mapping[str, Any], query: Mapping[str, str]) -> tuple[str, bool]:
        model, is_stream = super()._asked(parsed, query)
        if is_stream and not flag_of(
            object_at(parsed, "stream_options"), "include_usage", field="stream_options.include_usage"
        ):
            # The body goes on as it came, and without this the stream ends without a count.
            raise AiRequestInvalid(
                field="stream_options.include_usage", problem="must be true when stream is true"
            )
        return model, is_stream

    def _bounds(self, parsed: Mapping[str, Any]) -> Bounds:
        refuse(parsed, _REFUSED)
        only(parsed, "service_tier", _SERVICE_TIERS)
        only(parsed, "modalities", (["text"],))
        for tool in listed(parsed, "tools"):
            if not isinstance(tool, dict) or tool.get("type") not in _TOOLS:
                raise AiRequestInvalid(field="tools", problem=NOT_METERED)
        limits = [limit for name in self.limits if (limit := whole_of(parsed, name)) is not None]
        return Bounds(
            others=tuple(_others(parsed)),
            output=max(limits, default=None),
            answers=answers_of(parsed, "n", "best_of"),
            has_tools=any(parsed.get(name) is not None for name in _FORMS),
        )

    def _path(self, request: AiRequest) -> str:
        del request
        return "/v1/chat/completions"

    def _headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self._key}"}

    def _tokens(self, answer: Mapping[str, Any]) -> Tokens | None:
        return _usage(answer)

    def _tally(self, guess: int) -> Tally:
        return _OpenAiTally(guess)


class _OpenAiTally(Tally):
    """The count comes in a chunk without choices, at the end. Reasoning that is not shown is seen by nobody until then."""

    def take(self, event: Event) -> None:
        if event.data.strip() == b"[DONE]":
            self._is_finished = True
            self.end()
            return
        chunk = object_in(event.data) or {}
        choices = items(chunk, "choices")
        for choice in choices:
            self._is_finished = self._is_finished or choice.get("finish_reason") is not None
            delta = inner(choice, "delta")
            self._see(*(delta.get(name) for name in ("content", "refusal", "reasoning_content", "reasoning")))
            for call in items(delta, "tool_calls"):
                self._see(inner(call, "function").get("name"), inner(call, "function").get("arguments"))
        usage = _usage(chunk)
        if usage is not None:
            # Some tell how far they are with every chunk.
            self._told = usage
            if not choices:
                self.counted = usage


def _usage(holder: Mapping[str, Any]) -> Tokens | None:
    usage = inner(holder, "usage")
    return tokens_of(counts(usage, "prompt_tokens"), counts(usage, "completion_tokens"))


def _others(parsed: Mapping[str, Any]) -> Iterator[Any]:
    """What is no text in the conversation. Raises `AiRequestInvalid` for sound, which has prices of its own."""
    for message in listed(parsed, "messages"):
        if not isinstance(message, dict):
            yield message
            continue
        refuse(message, ("audio",), prefix="messages.")
        for part in listed(message, "content"):
            kind = part.get("type") if isinstance(part, dict) else "text" if isinstance(part, str) else None
            if kind == "input_audio":
                raise AiRequestInvalid(field="messages.content.input_audio", problem=NOT_METERED)
            if kind not in _TEXTS:
                yield part
