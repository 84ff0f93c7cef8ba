"""A streamed answer that is counted while it passes."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from billing_engine.subscriptions.model import Tokens
from server.ai.http import OpenAnswer
from server.ai.reading import tokens_in
from server.ai.sse import Event, SseScanner


class Tally(ABC):
    """What the events of one stream have told so far. Subclasses read one provider's events; none of them raises for what is no event
    of that provider: the bytes are the caller's, whatever they are.
    """

    def __init__(self, estimated_input: int) -> None:
        self.counted: Tokens | None = None
        #: The provider's count as of the last event that had one.
        self._told: Tokens | None = None
        #: The provider has said that it has ended.
        self._is_finished = False
        self._estimated_input = estimated_input
        self._pieces = 0
        self._text_bytes = 0

    @property
    def produced(self) -> Tokens:
        """`counted`, or what is known and seen: what the provider told, and at least what has passed."""
        if self.counted is not None:
            return self.counted
        seen = tokens_in(self._text_bytes, self._pieces)
        if self._told is None:
            return Tokens(self._estimated_input, seen)
        return Tokens(self._told.input, max(self._told.output, seen))

    @abstractmethod
    def take(self, event: Event) -> None:
        """Look at one event."""

    def end(self) -> None:
        """The stream has come to its end; what was told of a finished answer is the count."""
        if self._is_finished and self.counted is None:
            self.counted = self._told

    def _see(self, *texts: object) -> None:
        for text in texts:
            if isinstance(text, str) and text:
                self._pieces += 1
                self._text_bytes += len(text.encode())


class MeteredStream:
    """`AiStream`: the bytes of `answer`, as they come, and what `tally` makes of them."""

    def __init__(self, answer: OpenAnswer, tally: Tally) -> None:
        self.content_type = answer.content_type
        self._answer = answer
        self._tally = tally
        self._scanner = SseScanner()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await anext(self._answer)
        except StopAsyncIteration:
            self._tally.end()
            raise
        for event in self._scanner.feed(chunk):
            self._tally.take(event)
        return chunk

    @property
    def counted(self) -> Tokens | None:
        return self._tally.counted

    @property
    def produced(self) -> Tokens:
        return self._tally.produced

    async def close(self) -> None:
        await self._answer.close()


def object_in(data: bytes) -> Mapping[str, Any] | None:
    """The JSON object in what a provider said; None: it is none."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def inner(holder: object, *names: str) -> Mapping[str, Any]:
    """The object that deep inside; empty where it is not there or is something else."""
    for name in names:
        holder = holder.get(name) if isinstance(holder, Mapping) else None
    return holder if isinstance(holder, Mapping) else {}


def items(holder: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The objects of a list; empty where it is none."""
    value = holder.get(name)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def counts(usage: Mapping[str, Any], needed: str, *more: str) -> int | None:
    """The sum of a provider's counts: `needed`, and those of `more` that are there. None: what is there is no count."""
    total = 0
    for name in (needed, *(name for name in more if usage.get(name) is not None)):
        number = usage.get(name)
        if type(number) is not int or number < 0:
            return None
        total += number
    return total


def tokens_of(taken: int | None, put_out: int | None) -> Tokens | None:
    """None unless both are known."""
    return None if taken is None or put_out is None else Tokens(taken, put_out)
