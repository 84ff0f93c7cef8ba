"""What all adapters share: a call is read, bounded, sent as it came, and counted."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Final
from urllib.parse import quote

import structlog
from yarl import URL

from billing_engine.subscriptions.errors import AiRequestInvalid, AiUnavailable
from billing_engine.subscriptions.model import ModelPrice, Provider, Tokens
from billing_engine.subscriptions.ports import AiAnswer, AiRequest
from server.ai.http import AiHttp, Target, WholeAnswer
from server.ai.metered import MeteredStream, Tally, object_in
from server.ai.reading import Bounds, estimated, flag_of, model_of, object_of

_EVENT_STREAM: Final = "text/event-stream"
_TRUTHS: Final[Mapping[str, bool]] = {"": False, "false": False, "true": True}

_log = structlog.get_logger(__name__)


class Adapter(ABC):
    """`AiProvider`. A subclass says where a call goes, what bounds it, and where the counts stand.

    `call` and `stream` answer with `tokens` None where the provider counted nothing: its 4xx and 5xx, and a 2xx without counts. What a
    2xx without counts costs is for the caller of this to decide: the provider may well bill it.
    401, 402 and 403 are about the operator's key and are `AiUnavailable`.
    """

    name: Provider
    #: An error with one of these in it is about the operator's key, whatever its status.
    about_our_key: ClassVar[tuple[bytes, ...]] = ()

    def __init__(self, http: AiHttp, key: str, base_url: str) -> None:
        self._http = http
        self._key = key
        # Other software's variables of the same name end in the version.
        self._base = base_url.rstrip("/").removesuffix("/v1")

    def read(self, body: bytes, query: Mapping[str, str]) -> AiRequest:
        """As `AiProvider.read`; also raises what `parse_json` raises: `MalformedJson`, `ValidationFailed`."""
        parsed = object_of(body)
        model, is_stream = self._asked(parsed, query)
        self._bounds(parsed)
        return AiRequest(self.name, model, body, parsed, is_stream)

    def most(self, request: AiRequest, price: ModelPrice) -> Tokens:
        return self._bounds(request.parsed).most(request.body, request.parsed, price)

    async def call(self, request: AiRequest) -> AiAnswer:
        return self._answered(await self._http.ask(self._target(request), request.body))

    async def stream(self, request: AiRequest) -> MeteredStream | AiAnswer:
        opened = await self._http.open(self._target(request), request.body, content_type=_EVENT_STREAM)
        if isinstance(opened, WholeAnswer):
            return self._answered(opened)
        guess = estimated(request.parsed, self._bounds(request.parsed).others)
        return MeteredStream(opened, self._tally(guess))

    def _asked(self, parsed: Mapping[str, Any], query: Mapping[str, str]) -> tuple[str, bool]:
        """The model, and whether a stream is wanted. Raises `AiRequestInvalid`."""
        del query
        return model_of(parsed.get("model")), flag_of(parsed, "stream")

    @abstractmethod
    def _bounds(self, parsed: Mapping[str, Any]) -> Bounds:
        """What the request says of its size. Raises `AiRequestInvalid`, also for what cannot be metered."""

    @abstractmethod
    def _path(self, request: AiRequest) -> str:
        """Below the base URL, percent-encoded."""

    @abstractmethod
    def _headers(self) -> Mapping[str, str]:
        """What carries the key."""

    @abstractmethod
    def _tokens(self, answer: Mapping[str, Any]) -> Tokens | None:
        """The counts in a whole answer."""

    def _tally(self, guess: int) -> Tally:
        """The counting of a stream. `guess` is what is taken to have been taken in until the provider tells."""
        raise NotImplementedError

    def _target(self, request: AiRequest) -> Target:
        return Target(self.name, URL(self._base + self._path(request), encoded=True), self._headers())

    def _answered(self, answer: WholeAnswer) -> AiAnswer:
        if not answer.is_ok:
            if any(word in answer.body for word in (self._key.encode(), *self.about_our_key)):
                _log.error(
                    "an AI provider does not accept our key",
                    provider=str(self.name),
                    http_status=answer.status,
                )
                raise AiUnavailable(provider=str(self.name), why="the key is not accepted")
            return AiAnswer(answer.status, answer.content_type, answer.body, None)
        parsed = object_in(answer.body)
        if parsed is None:
            _log.warning("an AI provider answered what is no answer", provider=str(self.name))
            raise AiUnavailable(provider=str(self.name), why="no answer of a model")
        return AiAnswer(answer.status, answer.content_type, answer.body, self._tokens(parsed))


def in_path(model: str) -> str:
    """A model's name as one segment of a path."""
    return quote(model, safe="")


def stream_of(query: Mapping[str, str]) -> bool:
    """Whether the query says `stream=true`. Raises `AiRequestInvalid`."""
    value = query.get("stream", "")
    if value not in _TRUTHS:
        raise AiRequestInvalid(field="stream", problem="must be true or false")
    return _TRUTHS[value]
