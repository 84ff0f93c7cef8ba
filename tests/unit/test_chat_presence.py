"""Presence: of people, with a grace, on a scheduler that the test turns by hand."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from chat.presence import Presence


class Later:
    def __init__(self) -> None:
        self.pending: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, delay_s: float, callback: Callable[[], None]) -> "Handle":
        entry = (delay_s, callback)
        self.pending.append(entry)
        return Handle(self, entry)

    def run(self) -> None:
        pending, self.pending = self.pending, []
        for _, callback in pending:
            callback()


class Handle:
    def __init__(self, later: Later, entry: tuple[float, Callable[[], None]]) -> None:
        self.later, self.entry = later, entry

    def cancel(self) -> None:
        self.later.pending.remove(self.entry)


class Room:
    def __init__(self) -> None:
        self.heard: list[tuple[str, str, str]] = []

    def to_session(
        self, session_id: str, event: str, payload: Mapping[str, Any], *, skip: str | None
    ) -> None:
        assert event == "presence"
        assert skip == ("sid" if payload["state"] == "ONLINE" else None)
        self.heard.append((session_id, payload["userId"], payload["state"]))


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def later() -> Later:
    return Later()


@pytest.fixture
def presence(room: Room, later: Later) -> Presence:
    return Presence(push=room, grace_s=10, later=later)  # type: ignore[arg-type]


def test_the_first_socket_comes_and_the_last_one_goes(presence: Presence, room: Room, later: Later) -> None:
    presence.entered("s", "u", sid="sid")
    presence.entered("s", "u", sid="sid")
    presence.left("s", "u")
    assert later.pending == []
    presence.left("s", "u")
    assert presence.is_here("s", "u"), "for the grace"
    assert [delay for delay, _ in later.pending] == [10]

    later.run()

    assert room.heard == [("s", "u", "ONLINE"), ("s", "u", "OFFLINE")]
    assert not presence.is_here("s", "u")


def test_a_reconnect_within_the_grace_is_no_news(presence: Presence, room: Room, later: Later) -> None:
    presence.entered("s", "u", sid="sid")
    presence.left("s", "u")
    presence.entered("s", "u", sid="sid")
    later.run()

    assert room.heard == [("s", "u", "ONLINE")]
    presence.left("s", "u")
    later.run()
    assert room.heard[1:] == [("s", "u", "OFFLINE")]


def test_sessions_and_people_are_apart(presence: Presence, room: Room) -> None:
    presence.entered("s", "u", sid="sid")

    assert presence.of("s", ["u", "l"]) == {"u": "ONLINE", "l": "OFFLINE"}
    assert presence.of("t", ["u"]) == {"u": "OFFLINE"}


def test_leaving_without_having_entered_is_harmless(presence: Presence, room: Room, later: Later) -> None:
    presence.left("s", "u")
    later.run()

    assert room.heard == []
    assert not presence.is_here("s", "u")


def test_nothing_is_kept_of_who_is_gone(presence: Presence, later: Later) -> None:
    for k in range(100):
        presence.entered(f"s{k}", "u", sid="sid")
        presence.left(f"s{k}", "u")
    later.run()

    assert (presence._sockets, presence._leaving) == ({}, {})
