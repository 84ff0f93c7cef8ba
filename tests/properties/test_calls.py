"""Calls under every order of two people with several devices, and with a death at any await.

Whatever happens: at most one device a side is in a call, nobody else hears what is said in it, and no call outlives its session.
"""

import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.calls.model import LIFETIME_MS, CallState, Device, EndedBy
from chat.errors import ChatError
from tests.support.call_turns import DEAD, LAWYER, SESSION, USER, Stage, looked, run

PARTIES = {"u1": USER, "u2": USER, "l1": LAWYER, "l2": LAWYER}
OPS = ("invite", "accept", "reject", "hang_up", "signal", "back")


@dataclass
class Play:
    """Who did what, and what came of it."""

    stage: Stage
    sids: dict[str, str]
    n: int = 0

    def device(self, party: str) -> Device:
        return Device(PARTIES[party], party, self.sids[party])

    async def do(self, party: str, op: str) -> Any:
        calls, device = self.stage.calls, self.device(party)
        known = self.stage.store.calls.get(SESSION)
        call_id = "none" if known is None else known.id
        if op == "invite":
            return await calls.invite(device, SESSION, media="audio")
        if op == "accept":
            return await calls.accept(device, SESSION, call_id)
        if op in ("reject", "hang_up"):
            return await getattr(calls, op)(device.person_id, SESSION, call_id)
        if op == "back":
            room = await self.stage.membership(device.person_id, SESSION)
            self.sids[party] = f"{self.sids[party]}+"
            return await calls.rejoin(device.person_id, self.sids[party], room, party)
        self.n += 1
        return await calls.signal(
            device.person_id, device.sid, SESSION, call_id,
            n=self.n, kind="offer", sdp=f"from {party}", candidates=None, size_bytes=10,
        )  # fmt: skip

    def owner(self, room: str) -> str:
        """Whose device the room `p:<sid>` is."""
        assert room.startswith("p:"), room
        return room.removeprefix("p:").rstrip("+")


def choosing(data: st.DataObject) -> Callable[[int], int]:
    return lambda waiting: data.draw(st.integers(0, waiting - 1))


def assert_confidential(play: Play, acks: list[tuple[str, str, Any]]) -> None:
    """One device a side in each call, and nothing said to anybody else."""
    sides: dict[tuple[str, str], set[str]] = {}
    for party, op, ack in acks:
        if op in ("invite", "accept") and isinstance(ack, dict):
            sides.setdefault((ack["callId"], PARTIES[party]), set()).add(party)
    for (call_id, person_id), parties in sides.items():
        assert len(parties) == 1, (call_id, person_id, parties)
    for room, signal in play.stage.wire.told("rtc:signal"):
        hearer = play.owner(room)
        assert PARTIES[hearer] != PARTIES[signal["partyId"]], signal
        assert signal["sdp"] == f"from {signal['partyId']}"
        assert sides[signal["callId"], PARTIES[hearer]] == {hearer}, "a third device heard it"
        assert sides[signal["callId"], PARTIES[signal["partyId"]]] == {signal["partyId"]}


def assert_expected(result: Any) -> None:
    if isinstance(result, BaseException):
        assert isinstance(result, ChatError), result


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(sorted(PARTIES)), st.sampled_from(OPS)), min_size=1, max_size=4),
        min_size=1,
        max_size=5,
    ),
    st.data(),
)
def test_whatever_devices_do_at_once_one_a_side_is_in_the_call(
    rounds: list[list[tuple[str, str]]], data: st.DataObject
) -> None:
    async def main() -> None:
        play = Play(Stage(), {party: party for party in PARTIES})
        acks: list[tuple[str, str, Any]] = []
        for steps in [[("u1", "invite")], *rounds]:
            results = await play.stage.turns.run([play.do(*step) for step in steps], choosing(data))
            for (party, op), result in zip(steps, results, strict=True):
                assert_expected(result)
                acks.append((party, op, result))
        assert_confidential(play, acks)

    run(main())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["audio", "video"]), st.sampled_from(["audio", "video"]), st.data())
def test_two_who_call_each_other_at_once_are_connected_in_one_way(
    hers: str, his: str, data: st.DataObject
) -> None:
    async def main() -> None:
        stage = Stage()
        results = await stage.turns.run(
            [
                stage.calls.invite(Device(USER, "u1", "u1"), SESSION, media=hers),
                stage.calls.invite(Device(LAWYER, "l1", "l1"), SESSION, media=his),
            ],
            choosing(data),
        )
        call = stage.call
        assert {result["callId"] for result in results} == {call.id}
        assert (call.state, call.glare) == (CallState.CONNECTED, True)
        assert (call.caller.party_id, call.callee and call.callee.party_id) == ("u1", "l1")
        assert call.media == ("video" if hers == his == "video" else "audio")
        assert [payload["state"] for _, payload in stage.wire.told("rtc:state")] == ["CONNECTED"], (
            "the first one is told"
        )

    run(main())


@settings(max_examples=60, deadline=None)
@given(st.permutations(["l1", "l2"]), st.data())
def test_of_two_devices_that_answer_one_is_selected(order: list[str], data: st.DataObject) -> None:
    async def main() -> None:
        play = Play(Stage(), {party: party for party in PARTIES})
        await play.stage.turns.run([play.do("u1", "invite")], choosing(data))
        results = await play.stage.turns.run([play.do(party, "accept") for party in order], choosing(data))
        selected = play.stage.call.callee
        assert selected is not None
        won = [party for party, result in zip(order, results, strict=True) if isinstance(result, dict)]
        assert won == [selected.party_id]
        ((room, _, _, skip),) = [sent for sent in play.stage.wire.sent if sent[1] == "rtc:ended"]
        assert (room, skip) == (f"u:{LAWYER}", selected.sid)

    run(main())


def _scenes() -> list[Callable[[Play], Coroutine[Any, Any, Any]]]:
    return [
        lambda play: play.do("u1", "invite"),
        lambda play: play.do("l1", "accept"),
        lambda play: play.do("l1", "invite"),
        lambda play: play.do("u1", "signal"),
        lambda play: play.do("l1", "back"),
        lambda play: play.do("l1", "hang_up"),
        lambda play: play.stage.ends(),
    ]


@pytest.mark.parametrize("scene", range(len(_scenes())))
@pytest.mark.parametrize("before", ["nothing", "ringing", "talking"])
def test_a_death_at_any_await_leaves_no_call_for_ever(scene: int, before: str) -> None:
    """The process dies at each await of each use case in turn, also at those of the session's end; another one looks later."""

    async def main(dies_at: int) -> bool:
        play = Play(Stage(), {party: party for party in PARTIES})
        stage = play.stage
        for step in {
            "nothing": [],
            "ringing": [("u1", "invite")],
            "talking": [("u1", "invite"), ("l1", "accept")],
        }[before]:
            await stage.turns.run([play.do(*step)], lambda _: 0)
        (result,) = await stage.turns.run([_scenes()[scene](play)], lambda _: 0, dies_at=dies_at)
        assert_expected(result)
        # The session goes on: whoever repeats what they have done gets through, and a ringing call ends by itself.
        (again,) = await stage.turns.run([_scenes()[scene](play)], lambda _: 0)
        assert_expected(again)
        stage.is_served, stage.is_closed = False, True
        await looked(stage)
        call = stage.store.calls.get(SESSION)
        if call is not None:
            assert call.is_over
            assert call.due_at_ms is None, "and nobody looks at it any more"
            told = [(room, payload["callId"]) for room, payload in stage.wire.told("rtc:ended")]
            assert {(f"u:{USER}", call.id), (f"u:{LAWYER}", call.id)} <= set(told)
            assert stage.store.signals == {}
        return result is not DEAD

    for dies_at in itertools.count():
        if run(main(dies_at)):
            break
        assert dies_at < 40


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["invite", "accept"]), st.data())
def test_a_call_that_begins_while_its_session_ends_does_not_outlive_it(op: str, data: st.DataObject) -> None:
    async def main() -> None:
        play = Play(Stage(), {party: party for party in PARTIES})
        if op == "accept":
            await play.stage.turns.run([play.do("u1", "invite")], choosing(data))
        party = "u1" if op == "invite" else "l1"
        result, _ = await play.stage.turns.run([play.do(party, op), play.stage.ends()], choosing(data))
        assert_expected(result)
        call = play.stage.store.calls.get(SESSION)
        assert call is None or (call.state, call.reason) == (CallState.ENDED, EndedBy.SESSION_ENDED)

    run(main())


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_of_processes_that_look_at_once_one_ends_a_call(data: st.DataObject) -> None:
    async def main() -> None:
        play = Play(Stage(), {party: party for party in PARTIES})
        await play.stage.turns.run([play.do("u1", "invite")], choosing(data))
        play.stage.clock.ms += LIFETIME_MS
        await play.stage.turns.run([play.stage.calls.look() for _ in range(3)], choosing(data))
        told = [(room, payload["reason"]) for room, payload in play.stage.wire.told("rtc:ended")]
        assert sorted(told) == [(f"u:{LAWYER}", "MISSED"), (f"u:{USER}", "MISSED")]

    run(main())


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.data())
def test_a_device_that_comes_back_misses_nothing_that_was_acknowledged(
    count: int, data: st.DataObject
) -> None:
    """It moves while the other side talks: each signal comes to the old socket, to the new one, or to both; never to neither."""

    async def main() -> None:
        play = Play(Stage(), {party: party for party in PARTIES})
        for step in [("u1", "invite"), ("l1", "accept")]:
            await play.stage.turns.run([play.do(*step)], choosing(data))
        play.stage.wire.sent.clear()

        async def talk() -> None:
            for _ in range(count):
                await play.do("u1", "signal")

        # The old socket is dead from the start: what comes there is lost.
        await play.stage.turns.run([talk(), play.do("l1", "back")], choosing(data))
        heard = {payload["n"] for room, payload in play.stage.wire.told("rtc:signal") if room == "p:l1+"}
        assert heard == set(range(1, count + 1))
        assert replace(play.stage.call.callee, sid="") == Device(LAWYER, "l1", "")  # type: ignore[type-var]

    run(main())
