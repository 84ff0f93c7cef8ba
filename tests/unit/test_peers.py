"""What one process tells the others of its sessions arrives as what billing understands."""

from collections.abc import Callable, Mapping
from typing import Any

from server.peers import BusPeers, hear_peers


class Bus:
    """Everybody's, so that one hears what one says."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[Mapping[str, Any]], None]] = {}

    def tell(self, kind: str, facts: Mapping[str, Any]) -> None:
        self.handlers[kind](facts)

    def on(self, kind: str, handler: Callable[[Mapping[str, Any]], None]) -> None:
        self.handlers[kind] = handler


class Billing:
    """The engine and what it knows of others' sessions, as far as hints go."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def heard_recharged(self, user_id: str) -> bool:
        self.heard.append(("recharged", user_id))
        return True

    def heard_ended(self, session_id: str) -> None:
        self.heard.append(("ended", session_id))

    def forget(self, session_id: str) -> None:
        self.heard.append(("forget", session_id))


def test_each_hint_reaches_billing() -> None:
    """Lost, each costs somebody a few seconds; told wrongly, each makes a process guess."""
    bus, billing = Bus(), Billing()
    hear_peers(bus, billing, billing)  # type: ignore[arg-type]  # the hints' part of them
    peers = BusPeers(bus)  # type: ignore[arg-type]
    peers.recharged("u")
    peers.ended("s")
    peers.paused_or_resumed("t")
    assert billing.heard == [("recharged", "u"), ("ended", "s"), ("forget", "s"), ("forget", "t")]
