"""OpenAI, Anthropic, Google, Hugging Face and AWS Bedrock on one loopback port, in the shapes in which each answers.

A call is answered by the next of `replies`, or by `default`. What is not scripted is counted as the worst tokenizer would: a token for
every byte of the normalised texts, what a provider's templates may add, and all the output that was asked for. Nothing sleeps: a reply
with a `gate` waits for it.
"""

import asyncio
import json
import unicodedata
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from aiohttp import web

from billing_engine.subscriptions.model import Provider, Tokens
from server.ai.http import MAX_ANSWER_BYTES

#: What the setting's variable is called.
PREFIX = {
    Provider.OPENAI: "OPENAI",
    Provider.ANTHROPIC: "ANTHROPIC",
    Provider.GOOGLE: "GOOGLE_AI",
    Provider.HUGGINGFACE: "HUGGINGFACE",
    Provider.AWS: "AWS_BEDROCK",
}


class Fault(StrEnum):
    """What goes wrong, in the reply's stead or in its course."""

    SERVER_ERROR = "500"
    TOO_MANY = "429"
    OUR_KEY = "401"
    QUOTES_OUR_KEY = "400 with the key in it"
    REDIRECT = "302"
    RESET = "the connection is reset before an answer"
    CUT = "the answer breaks off in its middle"
    NO_USAGE = "no counts"
    WRONG_USAGE = "counts that are none"
    GARBAGE = "200, HTML"
    LIST = "200, JSON, no object"
    TOO_LONG = "200, longer than any answer"


@dataclass
class Reply:
    """How one call is answered. `tokens` None: counted as the worst tokenizer would. `words` are streamed one by one. The bytes of a stream
    are sent in pieces of `piece_bytes` (None: an event at a time). `gate`: waited for before anything is sent, or, with `sent_before_gate`,
    after so many pieces.
    """

    tokens: Tokens | None = None
    words: tuple[str, ...] = ("Hello", ", ", "wörld 🌍")
    fault: Fault | None = None
    piece_bytes: int | None = None
    gate: asyncio.Event | None = None
    sent_before_gate: int = 0
    #: With `Fault.CUT`: so many pieces of a stream are sent first.
    cut_after: int = 2


@dataclass(frozen=True)
class Asked:
    """One call, as it arrived."""

    provider: Provider
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FakeAi:
    """The providers. `asked` are all calls so far; `arrived` is set when one has come in, `left` when a caller has gone before the end."""

    url: str = ""
    default: Reply = field(default_factory=Reply)
    replies: deque[Reply] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: int = 0
    most_at_once: int = 0
    #: What was counted, call by call.
    counted: list[Tokens] = field(default_factory=list)

    def url_of(self, provider: Provider) -> str:
        return f"{self.url}/{provider}"

    @staticmethod
    def key_of(provider: Provider) -> str:
        return f"key-of-ours-at-{provider}"

    def settings(self) -> dict[str, str]:
        """The environment that leads to here."""
        return {
            name: value
            for provider, prefix in PREFIX.items()
            for name, value in (
                (f"{prefix}_API_KEY", self.key_of(provider)),
                (f"{prefix}_BASE_URL", self.url_of(provider)),
            )
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        provider = Provider(request.match_info["provider"])
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        path = request.raw_path.partition("?")[0].removeprefix(f"/{provider}")
        self.asked.append(Asked(provider, path, dict(request.query), headers, body))
        reply = self.replies.popleft() if self.replies else self.default
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.arrived.set()
        try:
            return await self._answer(request, self.asked[-1], reply)
        except (ConnectionError, asyncio.CancelledError):
            self.left.set()
            raise
        finally:
            self.at_once -= 1

    async def _answer(self, request: web.Request, asked: Asked, reply: Reply) -> web.StreamResponse:
        if reply.gate is not None and not reply.sent_before_gate:
            await reply.gate.wait()
        if not self._has_key(asked):
            return _error(asked.provider, 401, "the key is wrong")
        match reply.fault:
            case Fault.SERVER_ERROR | Fault.TOO_MANY | Fault.OUR_KEY:
                return _error(asked.provider, int(reply.fault), f"it is {reply.fault} here")
            case Fault.QUOTES_OUR_KEY:
                return _error(asked.provider, 400, f"who is {self.key_of(asked.provider)}?")
            case Fault.REDIRECT:
                return web.Response(status=302, headers={"Location": f"{self.url}/elsewhere"})
            case Fault.RESET:
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            case Fault.GARBAGE:
                return web.Response(text="<html>busy</html>", content_type="text/html")
            case Fault.LIST:
                return web.json_response([1, 2])
            case Fault.TOO_LONG:
                return web.Response(
                    body=b"{" + b" " * MAX_ANSWER_BYTES + b"}", content_type="application/json"
                )
        tokens = reply.tokens or worst_tokens(asked)
        self.counted.append(tokens)
        if _is_stream(asked):
            return await self._stream(request, reply, list(events(asked, reply, tokens)))
        whole = json.dumps(answer(asked, reply, tokens), ensure_ascii=False).encode()
        if reply.fault is not Fault.CUT:
            return web.Response(body=whole, content_type="application/json")
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Content-Length": str(len(whole))}
        )
        await response.prepare(request)
        await response.write(whole[: len(whole) // 2])
        assert request.transport is not None
        request.transport.close()
        return response

    async def _stream(self, request: web.Request, reply: Reply, said: list[bytes]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for number, piece in enumerate(pieces(said, reply.piece_bytes)):
            if reply.gate is not None and number == reply.sent_before_gate:
                await reply.gate.wait()
            if reply.fault is Fault.CUT and number == reply.cut_after:
                assert request.transport is not None
                request.transport.close()
                return response
            await response.write(piece)
        await response.write_eof()
        return response

    def _has_key(self, asked: Asked) -> bool:
        key = self.key_of(asked.provider)
        match asked.provider:
            case Provider.ANTHROPIC:
                return asked.headers.get("x-api-key") == key and "anthropic-version" in asked.headers
            case Provider.GOOGLE:
                return asked.headers.get("x-goog-api-key") == key
            case _:
                return asked.headers.get("authorization") == f"Bearer {key}"


@asynccontextmanager
async def fake_ai() -> AsyncIterator[FakeAi]:
    """Serves until the end of the block."""
    fake = FakeAi()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    for path in (
        "/{provider}/v1/chat/completions",
        "/{provider}/v1/messages",
        "/{provider}/v1beta/models/{call}",
        "/{provider}/model/{model}/converse",
    ):
        app.router.add_post(path, fake.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        with suppress(asyncio.CancelledError):
            await runner.cleanup()


def pieces(said: list[bytes], piece_bytes: int | None) -> list[bytes]:
    """What is sent, cut as is wanted."""
    if piece_bytes is None:
        return said
    whole = b"".join(said)
    return [whole[start : start + piece_bytes] for start in range(0, len(whole), piece_bytes)]


# -- what each says -----------------------------------------------------------------------------------------------------


def answer(asked: Asked, reply: Reply, tokens: Tokens) -> dict[str, Any]:
    """A whole answer."""
    text = "".join(reply.words)
    match asked.provider:
        case Provider.OPENAI | Provider.HUGGINGFACE:
            said: dict[str, Any] = {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1_760_000_000,
                "model": asked.json["model"],
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": text},
                        "logprobs": None,
                        "finish_reason": "stop",
                    }
                ],
            }
        case Provider.ANTHROPIC:
            said = {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": asked.json["model"],
                "content": [{"type": "text", "text": text}],
                "stop_reason": "end_turn",
                "stop_sequence": None,
            }
        case Provider.GOOGLE:
            said = _gemini(text, "STOP")
        case Provider.AWS:
            said = {
                "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
                "stopReason": "end_turn",
                "metrics": {"latencyMs": 12},
            }
    return said | _usage(asked.provider, reply, tokens)


def events(asked: Asked, reply: Reply, tokens: Tokens) -> Iterator[bytes]:
    """A streamed answer, an event at a time."""
    usage = _usage(asked.provider, reply, tokens)
    match asked.provider:
        case Provider.OPENAI | Provider.HUGGINGFACE:
            head = {
                "id": "chatcmpl-1",
                "object": "chat.completion.chunk",
                "created": 1_760_000_000,
                "model": asked.json["model"],
            }
            for word in reply.words:
                yield _data(
                    head
                    | {
                        "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}],
                        "usage": None,
                    }
                )
            yield _data(
                head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None}
            )
            if usage and (asked.json.get("stream_options") or {}).get("include_usage"):
                yield _data(head | {"choices": []} | usage)
            yield b"data: [DONE]\n\n"
        case Provider.ANTHROPIC:
            first = {**usage.get("usage", {}), "output_tokens": 1} if usage else {}
            message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "usage": first}
            yield _event("message_start", {"message": message})
            yield _event("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}})
            yield _event("ping", {})
            for word in reply.words:
                yield _event(
                    "content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": word}}
                )
            yield _event("content_block_stop", {"index": 0})
            last = {"usage": {"output_tokens": usage["usage"]["output_tokens"]}} if usage else {}
            yield _event(
                "message_delta", {"delta": {"stop_reason": "end_turn", "stop_sequence": None}} | last
            )
            yield _event("message_stop", {})
        case Provider.GOOGLE:
            for number, word in enumerate(reply.words, 1):
                is_last = number == len(reply.words)
                so_far = Tokens(tokens.input, tokens.output if is_last else min(number, tokens.output))
                chunk = _gemini(word, "STOP" if is_last else None) | _usage(asked.provider, reply, so_far)
                yield _data(chunk, ending=b"\r\n\r\n")
        case Provider.AWS:
            raise AssertionError("Bedrock does not stream server-sent events")


def _gemini(text: str, reason: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    if reason:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], "modelVersion": "gemini-2.5-flash", "responseId": "r1"}


def _usage(provider: Provider, reply: Reply, tokens: Tokens) -> dict[str, Any]:
    """The counts, split over the fields that each has for them."""
    taken, put_out = tokens.input, tokens.output
    if reply.fault is Fault.NO_USAGE:
        return {}
    match provider:
        case Provider.OPENAI | Provider.HUGGINGFACE:
            name, usage = (
                "usage",
                {
                    "prompt_tokens": taken,
                    "completion_tokens": put_out,
                    "total_tokens": taken + put_out,
                    "prompt_tokens_details": {"cached_tokens": taken // 2},
                },
            )
        case Provider.ANTHROPIC:
            name, usage = (
                "usage",
                {
                    "input_tokens": taken - taken // 2 - taken // 4,
                    "cache_creation_input_tokens": taken // 4,
                    "cache_read_input_tokens": taken // 2,
                    "output_tokens": put_out,
                    "service_tier": "standard",
                },
            )
        case Provider.GOOGLE:
            name, usage = (
                "usageMetadata",
                {
                    "promptTokenCount": taken,
                    "thoughtsTokenCount": put_out // 2,
                    "candidatesTokenCount": put_out - put_out // 2,
                    "totalTokenCount": taken + put_out,
                },
            )
            # As protobuf has it: what is 0 is not there.
            usage = {key: value for key, value in usage.items() if value}
        case Provider.AWS:
            name, usage = (
                "usage",
                {
                    "inputTokens": taken - taken // 2 - taken // 4,
                    "cacheReadInputTokens": taken // 2,
                    "cacheWriteInputTokens": taken // 4,
                    "outputTokens": put_out,
                    "totalTokens": taken + put_out,
                },
            )
    if reply.fault is Fault.WRONG_USAGE:
        usage = dict.fromkeys(usage, "many")
    return {name: usage}


def _data(value: object, ending: bytes = b"\n\n") -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + ending


def _event(kind: str, value: dict[str, Any]) -> bytes:
    return f"event: {kind}\n".encode() + _data({"type": kind, **value})


def _error(provider: Provider, status: int, message: str) -> web.Response:
    match provider:
        case Provider.ANTHROPIC:
            body: dict[str, Any] = {"type": "error", "error": {"type": "api_error", "message": message}}
        case Provider.GOOGLE:
            body = {"error": {"code": status, "message": message, "status": "INTERNAL"}}
        case Provider.AWS:
            body = {"message": message}
        case _:
            body = {"error": {"message": message, "type": "server_error", "param": None, "code": None}}
    return web.json_response(body, status=status)


def _is_stream(asked: Asked) -> bool:
    if asked.provider is Provider.GOOGLE:
        return asked.path.endswith(":streamGenerateContent") and asked.query.get("alt") == "sse"
    return asked.provider is not Provider.AWS and asked.json.get("stream") is True


# -- the worst tokenizer ------------------------------------------------------------------------------------------------

#: What a template and a tool's preamble add, unseen.
_TEMPLATE, _PREAMBLE = 100, 600
_TOOLS = ("tools", "functions", "toolConfig")


def worst_tokens(asked: Asked) -> Tokens:
    """A token a byte of whatever the model may be shown, in the form that is longest; as much out as was asked for, or 16."""
    parsed = asked.json
    shown = sum(
        max(len(unicodedata.normalize(form, text).encode()) for form in ("NFC", "NFKC"))
        for text in _texts(parsed)
    )
    extra = _TEMPLATE + (_PREAMBLE if any(parsed.get(name) for name in _TOOLS) else 0)
    holder = parsed.get("generationConfig") or parsed.get("inferenceConfig") or parsed
    names = ("max_tokens", "max_completion_tokens", "maxOutputTokens", "maxTokens")
    limit = max((holder[name] for name in names if holder.get(name)), default=16)
    return Tokens(shown + extra, limit * (holder.get("n") or holder.get("candidateCount") or 1))


def _texts(value: Any) -> Iterator[str]:
    """Texts, and the names of fields, which a tool's schema shows to the model too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
