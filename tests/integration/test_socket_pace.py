"""How fast clients may send, on real sockets: a refusal is one answer, leaves nothing behind, and says when to come again."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chat.buckets import Kind, Limits, Pace, limits
from chat.event_types import Failure
from chat.events import CLIENT_EVENTS, SERVER_EVENTS
from server.realtime import SocketOptions
from tests.integration.socket_world import (
    LAWYER,
    SESSION,
    STRANGER,
    USER,
    Raw,
    World,
    gone,
    raw,
    until,
    world,
)
from tests.integration.test_socket_input import VALID


def never_refilled(burst: int, *, refusals: int = 10_000) -> Limits:
    """Nothing comes back while a test runs."""
    table = limits(**{kind.value: Pace(burst, 3_600_000) for kind in Kind})
    return Limits(table.connection, table.person, Pace(refusals, 3_600_000))


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, SocketOptions(limits=never_refilled(5))) as the_world:
        yield the_world


def refusal(ack: Any) -> int:
    """When to come again."""
    failure = Failure.model_validate(ack)
    assert (failure.error.code, failure.error.retryable) == ("RATE_LIMITED", True)
    assert failure.error.retry_after_ms is not None
    return failure.error.retry_after_ms


async def test_what_is_too_much_is_answered_once_and_stored_nowhere(w: World) -> None:
    user, lawyer = await w.joined(USER), await w.joined(LAWYER)

    acks = await asyncio.gather(
        *(
            user.call("send_message", {"sessionId": SESSION, "clientMsgId": f"{k}", "body": "x"})
            for k in range(20)
        )
    )

    assert [ack["ok"] for ack in acks] == [True] * 5 + [False] * 15
    assert {refusal(ack) > 1_000_000 for ack in acks[5:]} == {True}
    assert await w.store.last_seq(SESSION) == 5
    await lawyer.call("send_message", {"sessionId": SESSION, "body": "and the other side goes on"})
    assert [m["seq"] for m in await lawyer.hears("new_message", 6)] == list(range(1, 7))
    assert (await user.call("mark_seen", {"sessionId": SESSION}))["ok"], "what is counted apart goes on too"


@pytest.mark.parametrize("event", sorted(VALID))
async def test_every_event_has_a_limit(w: World, event: str) -> None:
    """A new event that nobody counts would be the way around all others."""
    user = await w.connect(USER)
    for _ in range(5):
        ack = await user.call(event, VALID[event])
        assert ack["ok"] or ack["error"]["code"] != "RATE_LIMITED"

    assert refusal(await user.call(event, VALID[event]))


@pytest.mark.parametrize(
    "text", ['["no such event"]', '["typing",{"sessionId":', "[17,{}]", '["typing",null]']
)
async def test_what_means_nothing_is_counted_too(w: World, text: str) -> None:
    async with raw(w.port) as client:
        await client.login()
        acks = []
        for k in range(7):
            await client.ws.send_str(f"42{k}{text}")
            acks.append(json.loads((await client.until(f"43{k}"))[3:])[0])

    assert [ack["error"]["code"] == "RATE_LIMITED" for ack in acks] == [False] * 5 + [True] * 2
    assert refusal(acks[-1])


async def test_a_person_has_one_bucket_over_all_devices(w: World) -> None:
    phones = [await w.connect(USER) for _ in range(5)]
    acks = [
        await phone.call("send_message", {"sessionId": SESSION, "body": "x"})
        for _ in range(5)
        for phone in phones
    ]
    assert sum(ack["ok"] for ack in acks) == 15, "three devices' worth"
    again = await w.connect(USER)
    assert refusal(await again.call("send_message", {"sessionId": SESSION, "body": "x"}))
    lawyer = await w.connect(LAWYER)
    assert (await lawyer.call("send_message", {"sessionId": SESSION, "body": "x"}))["ok"]


async def test_after_the_wait_that_was_named_it_is_taken_and_the_order_holds(tmp_path: Path) -> None:
    """Sent in one go, refused from somewhere on, sent again in order after the wait: stored as they were said."""
    async with world(tmp_path, SocketOptions(limits=limits(message=Pace(20, 10)))) as w:
        user = await w.joined(USER)
        said = [f"{k}" for k in range(60)]
        left = list(said)
        async with asyncio.timeout(30):
            while left:
                acks = await asyncio.gather(
                    *(
                        user.call("send_message", {"sessionId": SESSION, "clientMsgId": k, "body": k})
                        for k in left
                    )
                )
                left = [k for k, ack in zip(left, acks, strict=True) if not ack["ok"]]
                if left:
                    await asyncio.sleep(max(refusal(ack) for ack in acks if not ack["ok"]) / 1_000)
        page = await w.store.page(SESSION, after_seq=0, limit=100)
        assert page is not None
        assert [message.body for message in page.messages] == said


async def test_who_never_listens_is_told_goodbye_and_closed_and_nobody_else(tmp_path: Path) -> None:
    async with world(tmp_path, SocketOptions(limits=never_refilled(5, refusals=30))) as w:
        laptop, lawyer = await w.joined(USER), await w.joined(LAWYER)
        async with raw(w.port) as hostile:
            await hostile.login()
            for k in range(500):
                await hostile.ws.send_str(f'42{k}["typing",{{"sessionId":"{SESSION}","isTyping":true}}]')
            answered, byes = await everything(hostile)

        assert sorted(answered) == list(range(len(answered))), "each once, none left out on the way"
        assert len(answered) >= 36
        (bye,) = byes
        SERVER_EVENTS["server:bye"].payload.model_validate(bye)
        assert (bye["code"], bye["reason"], bye["reconnect"]) == (3013, "RATE", True)
        assert 5_000 <= bye["retryAfterMs"] <= 10_000
        assert w.realtime.namespace is not None
        assert w.realtime.namespace.flooding == 1
        await gone(w, left=2)
        assert (await laptop.call("mark_seen", {"sessionId": SESSION}))["ok"]
        assert (await lawyer.call("send_message", {"sessionId": SESSION, "body": "still here"}))["ok"]
        assert lawyer.told("typing") == [], "what is refused is told to nobody"


async def test_a_flood_of_what_is_no_json_ends_the_same_way(tmp_path: Path) -> None:
    async with (
        world(tmp_path, SocketOptions(limits=never_refilled(5, refusals=10))) as w,
        raw(w.port) as hostile,
    ):
        await hostile.login()
        for k in range(100):
            await hostile.ws.send_str(f'42{k}["typing",{{')
        answered, byes = await everything(hostile)

        assert sorted(answered) == list(range(len(answered)))
        assert [bye["code"] for bye in byes] == [3013]


async def test_nothing_is_remembered_of_who_owes_nothing(tmp_path: Path) -> None:
    """Fifty thousand strangers a day must not be kept for ever."""
    async with world(tmp_path, SocketOptions(limits=limits())) as w:
        assert w.realtime.namespace is not None
        senders = w.realtime.namespace._senders
        assert senders is not None
        for k in range(10):
            client = await w.connect(f"many_{k}")
            await client.sio.disconnect()
        await until(lambda: len(senders) == 0)
        await w.connect(STRANGER)
        assert len(senders) == 1


def test_events_name_what_they_are_counted_with() -> None:
    """The dear ones apart from the cheap ones, or a burst of typing would stop the messages."""
    kinds = {
        name: CLIENT_EVENTS[name].kind for name in ("send_message", "typing", "mark_seen", "join_session")
    }
    assert len(set(kinds.values())) == 4
    assert Kind.OTHER not in kinds.values()
    # What makes somebody's device ring.
    assert {CLIENT_EVENTS[name].kind for name in ("consult:request", "rtc:invite")} == {Kind.RING}


async def everything(client: Raw) -> tuple[list[int], list[dict[str, Any]]]:
    """Until the end: the numbers that were answered, and the goodbyes."""
    answered: list[int] = []
    byes: list[dict[str, Any]] = []
    while frame := await client.frame():
        if frame.startswith("43"):
            answered.append(int(frame[2 : frame.index("[")]))
        elif frame.startswith('42["server:bye"'):
            byes.append(json.loads(frame[2:])[1])
    return answered, byes
