"""When a channel is heard: what was asked for last counts, and only once it was answered."""

import asyncio

from server.realtime.redis_listener import Listener
from tests.support.manual_clock import turns


class Connection:
    """Remembers what was sent."""

    is_connected = True

    def __init__(self) -> None:
        self.sent: list[tuple[str | bytes, ...]] = []

    async def send_command(self, *words: str | bytes, check_health: bool) -> None:
        self.sent.append(words)


def listener() -> Listener:
    return Listener(None, take=lambda _channel, _message: None, back=lambda: None)  # type: ignore[arg-type]


async def test_a_channel_that_was_left_and_entered_again_is_heard_after_its_last_answer() -> None:
    """Whoever joins in between would read history too early, and miss what is said before the subscription."""
    hearing, connection = listener(), Connection()
    for change in (hearing.subscribe, hearing.unsubscribe, hearing.subscribe):
        change("c")
        await hearing._send_changes(connection)
    assert connection.sent == [("SUBSCRIBE", b"c"), ("UNSUBSCRIBE", b"c"), ("SUBSCRIBE", b"c")]

    asked = asyncio.create_task(hearing.subscribed("c", patience_s=5))
    for kind in (b"subscribe", b"unsubscribe"):
        hearing._hear([kind, b"c", 1])
        await turns()
        assert not asked.done()
    hearing._hear([b"subscribe", b"c", 1])

    assert await asked
    assert await hearing.subscribed("c", patience_s=0)


async def test_what_is_left_and_entered_before_anybody_looked_costs_nothing() -> None:
    hearing, connection = listener(), Connection()
    hearing.subscribe("c")
    await hearing._send_changes(connection)
    hearing.unsubscribe("c")
    hearing.subscribe("c")
    hearing.subscribe("d")
    hearing.unsubscribe("d")
    await hearing._send_changes(connection)

    assert connection.sent == [("SUBSCRIBE", b"c")]


async def test_many_channels_go_out_in_several_commands() -> None:
    """Ten thousand rooms after a restart of Redis, and no command of a megabyte."""
    hearing, connection = listener(), Connection()
    for n in range(1_000):
        hearing.subscribe(f"s:{n}")
    await hearing._send_changes(connection)

    assert [len(words) - 1 for words in connection.sent] == [256, 256, 256, 232]


async def test_who_waits_is_told_when_the_connection_is_lost() -> None:
    hearing, connection = listener(), Connection()
    hearing.subscribe("c")
    await hearing._send_changes(connection)
    asked = asyncio.create_task(hearing.subscribed("c", patience_s=5))
    await turns()
    hearing._lost(ConnectionError())
    hearing._forget()

    assert not await asked
    assert not await hearing.subscribed("c", patience_s=5), "at once, while it is known to be away"
    assert (hearing._waiting, hearing._due) == ({}, {})
