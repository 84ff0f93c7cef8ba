"""AI calls: no text is counted for more than was held for it, and no stream depends on where its pieces end."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from billing_engine.subscriptions.model import Provider, Tokens
from server.ai.sse import Event, SseScanner
from tests.contract import test_ai_providers as contracts
from tests.support.fake_ai import Asked, Fault, Reply, events, pieces, worst_tokens

WORLDS = [
    contracts.TestOpenAi(),
    contracts.TestHuggingFace(),
    contracts.TestAnthropic(),
    contracts.TestGoogle(),
    contracts.TestAws(),
]
STREAMING = [world for world in WORLDS if world.name is not Provider.AWS]
BY_NAME = pytest.mark.parametrize("world", WORLDS, ids=lambda world: str(world.name))

#: Characters that grow when they are normalised, shrink when they are, or are several.
CROOKED = st.text('\ufdfa\ufdfb\u0958\ufb2c\uff21İﬁ\U0001d160e\u0301🌍👨‍👩‍👧\t\n"\\', max_size=30)
TEXTS = (st.text(max_size=60) | CROOKED).filter(lambda text: "\x00" not in text)


@BY_NAME
@example("\ufdfa" * 200, 5, 1, False, False)
# Longer in one normal form, shorter in another: the one must not pay for the other.
@example("\u0958" * 500 + "\uff21" * 900, 5, 1, False, False)
@given(TEXTS, st.none() | st.integers(1, 9_999), st.integers(1, 9), st.booleans(), st.booleans())
def test_the_most_is_never_less_than_what_is_counted(
    world: Any, text: str, limit: int | None, answers: int, has_tool: bool, escapes: bool
) -> None:
    """The operator pays what is counted beyond the hold."""
    more = {**(world.limited(limit, answers) if limit else {}), **(world.tool() if has_tool else {})}
    call = world.call(text, **more)
    body = json.dumps(call.body, ensure_ascii=escapes, separators=(",", ":")).encode()
    most = world.reader().most(world.reader().read(body, call.query), world.price(max_output_tokens=9_999))
    counted = worst_tokens(Asked(world.name, "", call.query, {}, body))
    assert most.input >= counted.input
    assert most.output >= counted.output


def cut(whole: bytes, ends: set[int]) -> list[bytes]:
    places = [0, *sorted(end for end in ends if end < len(whole)), len(whole)]
    return [whole[start:end] for start, end in pairwise(places)]


def tallied(world: Any, chunks: list[bytes]) -> tuple[Tokens | None, Tokens]:
    tally, scanner = world.reader()._tally(5), SseScanner()
    for chunk in chunks:
        for event in scanner.feed(chunk):
            tally.take(event)
    tally.end()
    return tally.counted, tally.produced


@pytest.mark.parametrize("world", STREAMING, ids=lambda world: str(world.name))
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=1, max_size=5
    ),
    st.integers(1, 10**6),
    st.integers(1, 10**6),
    st.sets(st.integers(1, 3_000), max_size=40),
    st.sampled_from([None, Fault.NO_USAGE, Fault.WRONG_USAGE]),
)
def test_counts_do_not_depend_on_the_pieces(
    world: Any, words: list[str], taken: int, put_out: int, ends: set[int], fault: Fault | None
) -> None:
    reply = Reply(Tokens(taken, put_out), words=tuple(words), fault=fault)
    call = world.streamed()
    said = b"".join(events(Asked(world.name, "", call.query, {}, call.raw), reply, Tokens(taken, put_out)))
    expected = tallied(world, [said])
    assert tallied(world, cut(said, ends)) == expected
    assert tallied(world, pieces([said], 1)) == expected
    assert expected[0] == (None if fault else Tokens(taken, put_out))


def test_who_leaves_after_openais_count_pays_the_count() -> None:
    told = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\n'
    said = b'data: {"choices": [{"delta": {"content": "%b"}}]}\n\n' % (b"x" * 400)
    tally = STREAMING[0].reader()._tally(5)
    for event in SseScanner().feed(said + told):
        tally.take(event)
    assert tally.counted == tally.produced == Tokens(3, 2)


def test_a_count_on_the_way_is_not_the_last() -> None:
    """Some behind Hugging Face tell with every chunk how far they are; who leaves then pays at least what has passed."""
    said = b'data: {"choices": [{"delta": {"content": "x"}}], "usage": {"prompt_tokens": 3, "completion_tokens": %d}}\n\n'
    tally = STREAMING[1].reader()._tally(5)
    for event in SseScanner().feed(said % 1 + said % 0):
        tally.take(event)
    assert tally.counted is None
    assert tally.produced == Tokens(3, 2)


LINES = st.lists(
    st.sampled_from(
        [b"data: a", b"data:b", b"data", b"data:  c ", b": a comment", b"event: e", b"id: 1", b"", b"", b"x"]
    ),
    max_size=20,
)
ENDINGS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(LINES, ENDINGS, st.booleans(), st.sets(st.integers(1, 300), max_size=60))
def test_events_are_what_the_standard_says(
    lines: list[bytes], ending: bytes, has_bom: bool, ends: set[int]
) -> None:
    expected, name, data = [], b"", []
    for line in lines:
        field, _, value = line.partition(b":")
        if not line:
            if data:
                expected.append(Event(name.decode() or "message", b"\n".join(data)))
            name, data = b"", []
        elif field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    whole = (b"\xef\xbb\xbf" if has_bom else b"") + b"".join(line + ending for line in lines)
    for chunks in ([whole], cut(whole, ends), pieces([whole], 1)):
        scanner = SseScanner()
        assert [event for chunk in chunks for event in scanner.feed(chunk)] == expected


@given(st.binary(max_size=300), st.sets(st.integers(1, 300), max_size=30))
def test_nothing_that_comes_is_too_much(noise: bytes, ends: set[int]) -> None:
    for world in STREAMING:
        tallied(
            world, cut(noise + b'\n\ndata: [1]\n\ndata: {"usage": 3, "choices": {}, "type": []}\n\n', ends)
        )


@given(st.integers(1, 60), st.integers(1, 7))
def test_an_event_beyond_the_limit_is_left_out_and_the_next_is_not(size: int, piece_bytes: int) -> None:
    scanner = SseScanner(max_event_bytes=20)
    whole = b"data: " + b"x" * size + b"\n\n" + b"data: a\ndata: " + b"y" * size + b"\n\ndata: ok\n\n"
    found = [event.data for piece in pieces([whole], piece_bytes) for event in scanner.feed(piece)]
    # Not in part either: half an event would be another one.
    whole_ones = [b"x" * size, b"a\n" + b"y" * size] if len(b"data: ") + size <= 20 else []
    assert found == [*whole_ones, b"ok"]
