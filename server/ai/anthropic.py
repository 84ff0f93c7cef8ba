"""Anthropic's messages.

Refused, since it is billed apart, at other prices, or takes in more than the body has: tools that run on Anthropic's servers (web
search and fetch, code execution, tool search), MCP servers, containers, context editing, cache writes (1.25 to 2 times the price),
fast mode, a fixed geography. Thinking is within `max_tokens`.
Source: https://docs.anthropic.com/en/docs/about-claude/pricing, https://docs.anthropic.com/en/api/messages
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from billing_engine.subscriptions.errors import AiRequestInvalid
from billing_engine.subscriptions.model import Provider, Tokens
from billing_engine.subscriptions.ports import AiRequest
from server.ai.adapter import Adapter
from server.ai.metered import Tally, counts, inner, object_in, tokens_of
from server.ai.reading import NOT_METERED, Bounds, listed, only, refuse, refuse_keys, whole_of
from server.ai.sse import Event

VERSION: Final = "2023-06-01"
_REFUSED: Final = ("mcp_servers", "container", "context_management")
_REFUSED_ANYWHERE: Final = frozenset({"cache_control"})
#: Tools of Anthropic's that the caller runs. What Anthropic tells the model about them counts, and is not in the body.
_CALLERS_TOOLS: Final = ("bash_", "text_editor_", "computer_", "memory_")
_TEXTS: Final = frozenset({"text", "tool_use", "search_result"})
_INPUTS: Final = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_FORMS: Final = ("tools", "output_config", "output_format")


class AnthropicProvider(Adapter):
    """`AiProvider` of Anthropic."""

    name = Provider.ANTHROPIC

    def _bounds(self, parsed: Mapping[str, Any]) -> Bounds:
        refuse(parsed, _REFUSED)
        only(parsed, "speed", ("standard",))
        only(parsed, "inference_geo", ("global",))
        only(parsed, "service_tier", ("auto", "standard_only"))
        refuse_keys(parsed, _REFUSED_ANYWHERE)
        return Bounds(
            others=(*_tools(parsed), *_others(parsed)),
            output=whole_of(parsed, "max_tokens"),
            has_tools=any(parsed.get(name) is not None for name in _FORMS),
        )

    def _path(self, request: AiRequest) -> str:
        del request
        return "/v1/messages"

    def _headers(self) -> Mapping[str, str]:
        return {"x-api-key": self._key, "anthropic-version": VERSION}

    def _tokens(self, answer: Mapping[str, Any]) -> Tokens | None:
        usage = inner(answer, "usage")
        return tokens_of(counts(usage, *_INPUTS), counts(usage, "output_tokens"))

    def _tally(self, guess: int) -> Tally:
        return _AnthropicTally(guess)


class _AnthropicTally(Tally):
    """What was taken in comes first, in `message_start`; what was put out in `message_delta`, a running total, final with a reason."""

    def take(self, event: Event) -> None:
        said = object_in(event.data) or {}
        match said.get("type"):
            case "message_start":
                usage = inner(said, "message", "usage")
                self._told = tokens_of(counts(usage, *_INPUTS), counts(usage, "output_tokens")) or self._told
            case "content_block_delta":
                delta = inner(said, "delta")
                self._see(*(delta.get(name) for name in ("text", "thinking", "partial_json")))
            case "message_delta":
                self._told = self._total(inner(said, "usage")) or self._told
                if inner(said, "delta").get("stop_reason") is not None:
                    self.counted = self._told
            case _:
                pass

    def _total(self, usage: Mapping[str, Any]) -> Tokens | None:
        taken = counts(usage, *_INPUTS) if usage.get("input_tokens") is not None else None
        if taken is None and self._told is not None:
            taken = self._told.input
        return tokens_of(taken, counts(usage, "output_tokens"))


def _tools(parsed: Mapping[str, Any]) -> Iterator[Any]:
    for tool in listed(parsed, "tools"):
        kind = tool.get("type") if isinstance(tool, dict) else tool
        if kind is None or kind == "custom":
            continue
        if not isinstance(kind, str) or not kind.startswith(_CALLERS_TOOLS):
            raise AiRequestInvalid(field="tools", problem=NOT_METERED)
        yield tool


def _others(parsed: Mapping[str, Any]) -> Iterator[Any]:
    """What is no text. Earlier thinking is none: it comes encrypted, and may be longer than it looks."""
    yield from _others_in(parsed.get("system"))
    for message in listed(parsed, "messages"):
        if isinstance(message, dict):
            yield from _others_in(message.get("content"))
        else:
            yield message


def _others_in(content: Any) -> Iterator[Any]:
    for block in content if isinstance(content, list) else [content]:
        if block is None or isinstance(block, str):
            continue
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "tool_result":
            yield from _others_in(block.get("content"))
        elif kind not in _TEXTS:
            yield block
