"""The news of an outage must not queue behind it."""

import asyncio
from types import SimpleNamespace
from typing import Any

from chat.errors import ChatError
from server.announcer import SocketAnnouncer


class Told:
    """`Push`: who was told what."""

    reaches_beyond = True

    def __init__(self) -> None:
        self.payloads: list[tuple[str, Any]] = []

    def post_to_user(self, _person: str, name: str, payload: Any) -> None:
        self.payloads.append((name, payload))


class SilentStore:
    """`ChatService` whose store answers nobody."""

    def __init__(self) -> None:
        self.asked = 0

    async def last_seq(self, _session_id: str) -> int:
        self.asked += 1
        await asyncio.sleep(0)
        raise ChatError(reason="silent")


async def test_a_stop_in_an_outage_tells_all_and_waits_for_one(monkeypatch: Any) -> None:
    """Else each of hundreds of ends waits for a store timeout of its own, and a deploy for all of them."""
    monkeypatch.setattr(
        "server.announcer.event_payload", lambda event, person, last_seq: (event.name, last_seq)
    )
    announcer, push, chat = SocketAnnouncer(), Told(), SilentStore()
    for number in range(500):
        session = SimpleNamespace(id=f"s{number}", user_id="u", lawyer_id="l")
        announcer.announce(SimpleNamespace(name="session:ended", view=SimpleNamespace(session=session)))  # type: ignore[arg-type]
    announcer.start(push, chat)  # type: ignore[arg-type]
    await announcer.stop()
    assert len(push.payloads) == 2 * 500
    assert chat.asked <= 2
    assert {payload for _, payload in push.payloads} == {("session:ended", None)}
