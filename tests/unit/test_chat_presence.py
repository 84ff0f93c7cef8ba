"""Presence: of people, with a grace, on a scheduler that the test turns by hand."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from chat.errors import Unavailable
from chat.presence import Presence
from chat.whereabouts import HERE, NO_TRACE, Whereabouts
from tests.support.manual_clock import turns


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
        if self.entry in self.later.pending:
            self.later.pending.remove(self.entry)


class Room:
    def __init__(self) -> None:
        self.heard: list[tuple[str, str, str]] = []

    def to_session(
        self,
        session_id: str,
        event: str,
        payload: Mapping[str, Any],
        *,
        skip: str | None,
        here_only: bool,
    ) -> None:
        assert event == "presence"
        assert not here_only
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


async def test_sessions_and_people_are_apart(presence: Presence, room: Room) -> None:
    presence.entered("s", "u", sid="sid")

    assert await presence.of("s", ["u", "l"]) == {"u": "ONLINE", "l": "OFFLINE"}
    assert await presence.of("t", ["u"]) == {"u": "OFFLINE"}


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


# --- with a store that other processes write into, too ---


class Store:
    """One process's view. `others` is what the others have written; `gates` hold back what is being written."""

    def __init__(self) -> None:
        self.others: dict[str, set[str]] = {}
        self.ours: set[tuple[str, str]] = set()
        self.signs: dict[tuple[str, str], int] = {}
        self.log: list[str] = []
        self.is_away = False
        self.is_complete = True
        self.gate: asyncio.Event | None = None

    async def _pass(self, what: str) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.is_away:
            raise Unavailable
        self.log.append(what)

    async def enter(self, room: str, person_id: str) -> None:
        await self._pass(f"enter {person_id}")
        self.ours.add((room, person_id))

    async def leave(self, room: str, person_id: str, *, sign_ms: int = 0) -> bool:
        await self._pass(f"leave {person_id}")
        if sign_ms:
            self.signs[room, person_id] = sign_ms
        self.ours.discard((room, person_id))
        return person_id not in self.others.get(room, ())

    async def whereabouts(self, rooms: Sequence[str]) -> list[dict[str, Whereabouts]]:
        await self._pass("whereabouts")
        return [
            {p: sign for (at, p), sign in self.signs.items() if at == room}
            | dict.fromkeys(self.others.get(room, ()), HERE)
            for room in rooms
        ]

    async def elsewhere(self, rooms: Sequence[str]) -> list[set[str]]:
        await self._pass("elsewhere")
        return [set(self.others.get(room, ())) for room in rooms]

    async def refresh(self) -> None:
        await self._pass("refresh")


class Push:
    def __init__(self) -> None:
        self.clients: list[tuple[str, str]] = []
        self.processes: list[tuple[str, str]] = []

    def to_session(
        self,
        session_id: str,
        event: str,
        payload: Mapping[str, Any],
        *,
        skip: str | None,
        here_only: bool,
    ) -> None:
        assert here_only, "the others tell their own"
        self.clients.append((payload["userId"], payload["state"]))

    def to_processes(self, session_id: str, facts: Mapping[str, Any]) -> None:
        self.processes.append((facts["person"], facts["state"]))

    def looked_at(self, room: str) -> bool:
        return True

    def watching(self, user_id: str) -> bool:
        return False


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def push() -> Push:
    return Push()


@pytest.fixture
def shared(push: Push, later: Later, store: Store) -> Presence:
    return Presence(push=push, grace_s=10, later=later, store=store)  # type: ignore[arg-type]


async def test_arrival_and_leaving_are_written_then_told(
    shared: Presence, push: Push, store: Store, later: Later
) -> None:
    shared.entered("s", "u")
    assert push.processes == []
    await turns()
    assert (store.log, push.processes) == (["enter u"], [("u", "ONLINE")])

    shared.left("s", "u")
    await turns()
    assert store.log == ["enter u"], "for the grace"
    later.run()
    await turns()
    assert store.log == ["enter u", "leave u"]
    assert push.clients == push.processes == [("u", "ONLINE"), ("u", "OFFLINE")]


async def test_who_comes_back_while_the_leaving_is_written_has_not_left(
    shared: Presence, push: Push, store: Store, later: Later
) -> None:
    """What is written last must be what is true last, whichever reply comes first."""
    shared.entered("s", "u")
    await turns()
    store.gate = asyncio.Event()
    shared.left("s", "u")
    later.run()
    await turns()
    shared.entered("s", "u")
    store.gate.set()
    await turns()

    assert store.log == ["enter u", "leave u", "enter u"]
    assert store.ours == {("s:s", "u")}
    assert push.clients == [("u", "ONLINE")]
    assert ("u", "OFFLINE") not in push.processes


async def test_who_leaves_while_the_arrival_is_written_has_left(
    shared: Presence, push: Push, store: Store, later: Later
) -> None:
    store.gate = asyncio.Event()
    shared.entered("s", "u")
    await turns()
    shared.left("s", "u")
    later.run()
    store.gate.set()
    await turns()

    assert store.log == ["enter u", "leave u"]
    assert store.ours == set()
    assert push.clients[-1] == push.processes[-1] == ("u", "OFFLINE")


async def test_listeners_hear_of_every_edge_at_once_and_of_no_second_device(shared: Presence) -> None:
    heard: list[tuple[str, str]] = []
    shared.listen(lambda session_id, person_id: heard.append((session_id, person_id)))
    shared.listen(lambda _session_id, _person_id: 1 // 0)
    shared.entered("s1", "u1")
    shared.entered("s1", "u1")
    shared.left("s1", "u1")
    assert heard == [("s1", "u1")]
    shared.left("s1", "u1")
    shared.heard("s:s1", {"person": "l1", "state": "ONLINE"})
    shared.heard("u:l1", {"person": "l1", "state": "ONLINE"})
    assert heard == [("s1", "u1"), ("s1", "u1"), ("s1", "l1")]
    await shared.stop()


async def test_what_others_tell_is_passed_on_when_it_is_news(shared: Presence, push: Push) -> None:
    shared.entered("s", "u")
    await turns()
    for state in ("ONLINE", "ONLINE", "OFFLINE", "OFFLINE", "ONLINE"):
        shared.heard("s:s", {"person": "l", "state": state})

    assert push.clients[1:] == [("l", "ONLINE"), ("l", "OFFLINE"), ("l", "ONLINE")]


async def test_who_is_here_is_not_offline_because_another_process_says_so(
    shared: Presence, push: Push
) -> None:
    """Both wrote at the same time; the others have heard the wrong one last."""
    shared.entered("s", "u")
    await turns()
    shared.heard("s:s", {"person": "u", "state": "OFFLINE"})

    assert push.clients == [("u", "ONLINE")]
    assert push.processes == [("u", "ONLINE"), ("u", "ONLINE")]


async def test_who_stays_at_another_process_has_not_left(
    shared: Presence, push: Push, store: Store, later: Later
) -> None:
    shared.entered("s", "u")
    await turns()
    store.others["s:s"] = {"u"}
    shared.left("s", "u")
    later.run()
    await turns()
    assert push.clients == [("u", "ONLINE")]
    assert ("u", "OFFLINE") not in push.processes

    shared.heard("s:s", {"person": "u", "state": "OFFLINE"})
    assert push.clients == [("u", "ONLINE"), ("u", "OFFLINE")]


async def test_nobody_is_offline_on_missing_data(shared: Presence, push: Push, store: Store) -> None:
    shared.entered("s", "u")
    store.others["s:s"] = {"l"}
    assert await shared.of("s", ["u", "l"]) == {"u": "ONLINE", "l": "ONLINE"}

    store.others, store.is_complete = {}, False
    await shared.sweep()
    assert await shared.of("s", ["l"]) == {"l": "ONLINE"}
    store.is_away = True
    with pytest.raises(Unavailable):
        await shared.sweep()
    assert await shared.of("s", ["l"]) == {"l": "ONLINE"}
    store.is_away, store.is_complete = False, True
    assert push.clients == [("u", "ONLINE")]
    await shared.sweep()
    await shared.sweep()
    assert push.clients == [("u", "ONLINE"), ("l", "OFFLINE")]


async def test_an_answer_that_is_older_than_the_news_changes_nothing(
    shared: Presence, push: Push, store: Store
) -> None:
    """The store is asked, the person arrives and says so, and only then comes the answer without them."""
    shared.entered("s", "u")
    await shared.of("s", ["u"])
    store.gate = asyncio.Event()
    sweep = asyncio.create_task(shared.sweep())
    await turns()
    shared.heard("s:s", {"person": "l", "state": "ONLINE"})
    store.gate.set()
    await sweep

    assert push.clients == [("u", "ONLINE"), ("l", "ONLINE")]


async def test_leaving_while_nobody_knows_is_told_once_it_is_known(
    shared: Presence, push: Push, store: Store, later: Later
) -> None:
    shared.entered("s", "l")
    shared.entered("s", "u")
    await turns()
    store.is_away = True
    shared.left("s", "u")
    later.run()
    await turns()
    assert ("u", "OFFLINE") not in push.clients

    store.is_away = False
    await shared.sweep()
    assert push.clients[-1] == ("u", "OFFLINE")


async def test_who_is_connected_blinks_for_the_grace(shared: Presence, later: Later, store: Store) -> None:
    shared.came("u")
    await turns()
    assert store.ours == {("u:u", "u")}
    shared.went("u")
    assert await shared.connected("u")
    later.run()
    await turns()

    assert store.ours == set()
    assert not await shared.connected("u")


async def test_nothing_is_written_after_the_end(shared: Presence, store: Store, later: Later) -> None:
    shared.entered("s", "u")
    await turns()
    shared.left("s", "u")
    await shared.stop()
    later.run()
    await turns()

    assert store.log == ["enter u"]


# --- where somebody is, with no grace: what billing asks ---


class Wall:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def watched(push: Push, later: Later, wall: Wall) -> Presence:
    """Alone: there is no other process."""
    return Presence(push=Silent(), grace_s=10, later=later, now_ms=wall, keep_s=60)  # type: ignore[arg-type]


@pytest.fixture
def beside(push: Push, later: Later, store: Store, wall: Wall) -> Presence:
    """Other processes write into the same store."""
    return Presence(push=push, grace_s=10, later=later, store=store, now_ms=wall, keep_s=60)  # type: ignore[arg-type]


class Silent(Push):
    def to_session(self, *_args: Any, **_more: Any) -> None: ...


async def test_who_is_gone_is_gone_since_his_last_sign_and_at_once(watched: Presence, wall: Wall) -> None:
    """No grace here: the one who asks has his own."""
    assert await watched.whereabouts("s", ["u", "l"]) == {"u": NO_TRACE, "l": NO_TRACE}
    watched.entered("s", "u")
    watched.entered("s", "u")
    assert await watched.whereabouts("s", ["u"]) == {"u": HERE}
    wall.ms += 5_000
    watched.left("s", "u")
    assert await watched.whereabouts("s", ["u"]) == {"u": HERE}
    wall.ms += 10_000
    # Silent for longer than the other socket, and found out only now.
    watched.left("s", "u", ago_s=12.5)
    assert watched.is_here("s", "u"), "for the others' screens"
    assert await watched.whereabouts("s", ["u"]) == {"u": 1_005_000}
    assert await watched.whereabouts("t", ["u"]) == {"u": NO_TRACE}
    watched.entered("s", "u")
    assert await watched.whereabouts("s", ["u"]) == {"u": HERE}
    await watched.stop()


async def test_a_sign_is_kept_as_long_as_it_may_be_asked_for_and_then_forgotten(
    watched: Presence, wall: Wall, later: Later
) -> None:
    for n in range(50):
        watched.entered(f"s{n}", "u")
        watched.left(f"s{n}", "u")
    wall.ms += 59_999
    assert await watched.whereabouts("s7", ["u"]) == {"u": 1_000_000}
    wall.ms += 1
    assert await watched.whereabouts("s7", ["u"]) == {"u": NO_TRACE}
    watched.entered("s", "u")
    watched.left("s", "u")
    assert len(watched._signs._signs) == 1


async def test_the_store_is_told_the_sign_and_tells_those_of_the_others(
    beside: Presence, store: Store, wall: Wall, later: Later
) -> None:
    beside.entered("s", "u")
    await turns()
    wall.ms += 8_000
    beside.left("s", "u", ago_s=3)
    later.run()
    await turns()
    assert store.signs == {("s:s", "u"): 1_005_000}
    store.signs["s:s", "l"] = 999
    assert await beside.whereabouts("s", ["u", "l", "x"]) == {"u": 1_005_000, "l": 999, "x": NO_TRACE}
    store.others["s:s"] = {"u"}
    assert (await beside.whereabouts("s", ["u"]))["u"] == HERE
    await beside.stop()


async def test_missing_data_is_no_absence(beside: Presence, store: Store) -> None:
    beside.entered("s", "u")
    store.others["s:s"] = {"l"}
    store.is_complete = False
    assert await beside.whereabouts("s", ["u", "l", "x"]) == {"u": HERE, "l": HERE, "x": None}
    store.is_complete, store.is_away = True, True
    assert await beside.whereabouts("s", ["u", "l", "x"]) == {"u": HERE, "l": None, "x": None}
    store.is_away = False
    assert (await beside.whereabouts("s", ["x"]))["x"] == NO_TRACE
    # A process that says goodbye to everybody has lost nobody.
    beside.closing()
    beside.left("s", "u")
    assert await beside.whereabouts("s", ["u", "l"]) == {"u": None, "l": HERE}
    await beside.stop()
    assert await beside.whereabouts("s", ["u", "l"]) == {"u": None, "l": None}


async def test_a_store_that_is_slow_is_not_waited_for(beside: Presence, store: Store) -> None:
    store.gate = asyncio.Event()
    assert await beside.whereabouts("s", ["u"]) == {"u": None}
    await beside.stop()


async def test_without_a_store_beside_others_nobody_is_known_to_be_gone(push: Push, later: Later) -> None:
    """Several processes and no Redis: who is not here may be anywhere."""
    apart = Presence(push=Silent(), later=later, is_alone=False)  # type: ignore[arg-type]
    apart.entered("s", "u")
    assert await apart.whereabouts("s", ["u", "l"]) == {"u": HERE, "l": None}
    apart.left("s", "u")
    assert await apart.whereabouts("s", ["u"]) == {"u": None}


async def test_many_who_ask_together_ask_the_store_once(beside: Presence, store: Store) -> None:
    store.signs = {(f"s:s{n}", "u"): n + 1 for n in range(40)}
    answers = await asyncio.gather(*(beside.whereabouts(f"s{n}", ["u"]) for n in range(40)))
    assert answers == [{"u": n + 1} for n in range(40)]
    assert store.log == ["whereabouts"]
    store.is_away = True
    answers = await asyncio.gather(*(beside.whereabouts(f"s{n}", ["u"]) for n in range(3)))
    assert answers == [{"u": None}] * 3
    store.is_away = False
    assert await beside.whereabouts("s1", ["u"]) == {"u": 2}
    await beside.stop()
