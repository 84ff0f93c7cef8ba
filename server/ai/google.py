"""Google's Gemini API: the model and `stream=true` are in the query, as Google has them in the path.

Refused, since it is billed apart, at other prices, or takes in more than the body has: tools that run at Google (search, maps, URL
context, file search, code execution, …), sound in, anything but text out, other service tiers. Thoughts are within `maxOutputTokens`.
Google takes every name in two spellings (`maxOutputTokens`, `max_output_tokens`), so they are compared without their differences.
Source: https://ai.google.dev/api/generate-content, https://ai.google.dev/gemini-api/docs/pricing
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from billing_engine.subscriptions.errors import AiRequestInvalid
from billing_engine.subscriptions.model import Provider, Tokens
from billing_engine.subscriptions.ports import AiRequest
from server.ai.adapter import Adapter, in_path, stream_of
from server.ai.metered import Tally, counts, inner, items, object_in, tokens_of
from server.ai.reading import NOT_METERED, Bounds, answers_of, listed, model_of, whole_of
from server.ai.sse import Event

_STANDARD: Final = ("standard", "STANDARD", "SERVICE_TIER_STANDARD")
_TOOLS: Final = frozenset({"functiondeclarations"})
_TEXTS: Final = frozenset({"text", "functioncall", "functionresponse", "thought"})
_MEDIA: Final = ("inlinedata", "filedata")
_NO_SOUND: Final = ("image/", "video/", "text/", "application/")
_OTHER_OUTPUT: Final = ("speechConfig", "imageConfig")
_FORMS: Final = ("responseschema", "responsejsonschema", "responsemimetype")


class GoogleProvider(Adapter):
    """`AiProvider` of Google."""

    name = Provider.GOOGLE
    #: A wrong key is a 400 here.
    about_our_key = (b"API_KEY_INVALID",)

    def _asked(self, parsed: Mapping[str, Any], query: Mapping[str, str]) -> tuple[str, bool]:
        model = model_of(query.get("model"))
        said = parsed.get("model")
        if said is not None and said not in (model, f"models/{model}"):
            raise AiRequestInvalid(field="model", problem="must be the model of the query, or be left out")
        return model, stream_of(query)

    def _bounds(self, parsed: Mapping[str, Any]) -> Bounds:
        top = _plain(parsed, "body")
        config = _plain(top.get("generationconfig"), "generationConfig")
        if top.get("servicetier") is not None and top["servicetier"] not in _STANDARD:
            raise AiRequestInvalid(field="serviceTier", problem=NOT_METERED)
        for tool in listed(top, "tools"):
            if _plain(tool, "tools").keys() - _TOOLS:
                raise AiRequestInvalid(field="tools", problem=NOT_METERED)
        for name in _OTHER_OUTPUT:
            if config.get(name.lower()) is not None:
                raise AiRequestInvalid(field=f"generationConfig.{name}", problem=NOT_METERED)
        if config.get("responsemodalities") not in (None, [], ["TEXT"]):
            raise AiRequestInvalid(field="generationConfig.responseModalities", problem=NOT_METERED)
        return Bounds(
            others=tuple(_others(top)),
            output=whole_of(config, "maxoutputtokens", field="generationConfig.maxOutputTokens"),
            answers=answers_of(config, "candidatecount", field="generationConfig.candidateCount"),
            has_tools=top.get("tools") is not None or any(config.get(name) is not None for name in _FORMS),
        )

    def _path(self, request: AiRequest) -> str:
        verb = "streamGenerateContent?alt=sse" if request.is_stream else "generateContent"
        return f"/v1beta/models/{in_path(request.model)}:{verb}"

    def _headers(self) -> Mapping[str, str]:
        return {"x-goog-api-key": self._key}

    def _tokens(self, answer: Mapping[str, Any]) -> Tokens | None:
        return _usage(answer)

    def _tally(self, guess: int) -> Tally:
        return _GoogleTally(guess)


class _GoogleTally(Tally):
    """Every chunk tells how far it is; the last one of a finished answer is the count."""

    def take(self, event: Event) -> None:
        chunk = object_in(event.data) or {}
        self._told = _usage(chunk) or self._told
        if inner(chunk, "promptFeedback").get("blockReason") is not None:
            self._is_finished = True
        for candidate in items(chunk, "candidates"):
            self._is_finished = self._is_finished or candidate.get("finishReason") is not None
            for part in items(inner(candidate, "content"), "parts"):
                self._see(part.get("text"))


def _usage(holder: Mapping[str, Any]) -> Tokens | None:
    """Counts that are 0 are left out there, except that every request takes something in."""
    usage = inner(holder, "usageMetadata")
    put_out = {"": 0, **usage}
    return tokens_of(
        counts(usage, "promptTokenCount", "toolUsePromptTokenCount"),
        counts(put_out, "", "candidatesTokenCount", "thoughtsTokenCount"),
    )


def _plain(holder: Any, field: str) -> Mapping[str, Any]:
    """The object with its names as both spellings have them. Raises `AiRequestInvalid`: none, or a name in both spellings."""
    if holder is None:
        return {}
    if not isinstance(holder, dict):
        raise AiRequestInvalid(field=field, problem="must be an object")
    plain = {name.replace("_", "").lower(): value for name, value in holder.items()}
    if len(plain) < len(holder):
        raise AiRequestInvalid(field=field, problem="has a name twice, in two spellings")
    return plain


def _others(top: Mapping[str, Any]) -> Iterator[Any]:
    """What is no text. Raises `AiRequestInvalid` for sound, which costs more."""
    if top.get("cachedcontent") is not None:
        yield top["cachedcontent"]
    for content in (*listed(top, "contents"), *listed(top, "systeminstruction")):
        for part in listed(_plain(content, "contents"), "parts"):
            plain = _plain(part, "contents.parts")
            _refuse_sound(plain)
            answer = plain.get("functionresponse")
            if plain.keys() - _TEXTS or (isinstance(answer, dict) and "parts" in answer):
                yield part
            for nested in listed(answer, "parts") if isinstance(answer, dict) else []:
                _refuse_sound(_plain(nested, "contents.parts"))


def _refuse_sound(part: Mapping[str, Any]) -> None:
    for name in _MEDIA:
        if part.get(name) is None:
            continue
        kind = _plain(part[name], "contents.parts").get("mimetype")
        if not isinstance(kind, str) or not kind.lower().startswith(_NO_SOUND):
            raise AiRequestInvalid(
                field="contents.parts.mimeType", problem="must be there and no sound, which " + NOT_METERED
            )
