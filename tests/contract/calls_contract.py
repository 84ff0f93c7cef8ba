"""What every `CallStore` must do. Subclasses supply `store`, and `rival`: the same store seen by another process."""

import asyncio
from dataclasses import replace

from chat.calls.model import Call, CallState, Device, EndedBy, Signal
from chat.calls.ports import CallStore

CALLER = Device("usr", "p1", "sid1")


def a_call(session_id: str = "s1", *, due_at_ms: int | None = 50) -> Call:
    return Call(
        session_id=session_id,
        id=f"call of {session_id}",
        state=CallState.RINGING,
        media="audio",
        caller=CALLER,
        callee_id="law",
        callee=None,
        invited_at_ms=5,
        expires_at_ms=50,
        due_at_ms=due_at_ms,
    )


def a_signal(n: int = 1, *, at_ms: int = 10, **facts: object) -> Signal:
    signal = Signal("s1", "c1", "usr", "p1", n, "offer", "v=0", None, at_ms, 9)
    return replace(signal, **facts)  # type: ignore[arg-type]


class CallStoreContract:
    async def test_a_call_comes_back_as_it_was(self, store: CallStore, rival: CallStore) -> None:
        call = a_call()
        ended = replace(
            call,
            state=CallState.ENDED,
            callee=Device("law", "p2", "sid2"),
            answered_at_ms=7,
            ended_at_ms=9,
            reason=EndedBy.HUNG_UP,
            due_at_ms=None,
            glare=True,
            revision=2,
        )

        assert await store.get("s1") is None
        assert await store.add(call)
        assert await rival.get("s1") == call
        assert await store.exchange(call, ended)
        assert await rival.get("s1") == ended

    async def test_a_session_has_one_call_and_the_first_one_stands(
        self, store: CallStore, rival: CallStore
    ) -> None:
        calls = [replace(a_call(), id=f"c{n}") for n in range(6)]

        won = await asyncio.gather(*((store, rival)[n % 2].add(call) for n, call in enumerate(calls)))

        assert sum(won) == 1
        assert await store.get("s1") == calls[won.index(True)]

    async def test_of_several_changes_to_one_state_one_is_made(
        self, store: CallStore, rival: CallStore
    ) -> None:
        call = a_call()
        await store.add(call)
        changes = [replace(call, callee=Device("law", f"p{n}", "sid"), revision=2) for n in range(6)]

        won = await asyncio.gather(
            *((store, rival)[n % 2].exchange(call, new) for n, new in enumerate(changes))
        )

        assert sum(won) == 1
        assert await store.get("s1") == changes[won.index(True)]

    async def test_what_is_due_is_found_and_what_is_done_is_not(self, store: CallStore) -> None:
        for name, due_at_ms in (("s1", 50), ("s2", 40), ("s3", 51), ("s4", None)):
            await store.add(a_call(name, due_at_ms=due_at_ms))

        assert [call.session_id for call in await store.due(50, limit=10)] == ["s2", "s1"]
        assert [call.session_id for call in await store.due(50, limit=1)] == ["s2"]
        assert await store.due(39, limit=10) == []

    async def test_an_n_is_used_once_and_the_first_signal_stands(
        self, store: CallStore, rival: CallStore
    ) -> None:
        first = a_signal()

        assert await store.tell(first) is None
        assert await rival.tell(a_signal(at_ms=11, sdp="another")) == first
        assert await rival.tell(a_signal(party_id="p2")) is None, "another device counts for itself"

    async def test_signals_come_in_order_and_whole(self, store: CallStore) -> None:
        candidates = [{"candidate": "a", "sdpMid": None, "sdpMLineIndex": 0, "usernameFragment": "x"}]
        told = [
            a_signal(10, at_ms=12),
            a_signal(2, at_ms=11, kind="candidates", sdp=None, candidates=candidates),
            a_signal(1, at_ms=9),
            a_signal(3, person_id="law"),
            a_signal(4, call_id="c2"),
        ]
        for signal in told:
            await store.tell(signal)

        assert await store.told_by("c1", "usr", since_ms=10) == [told[1], told[0]]
        assert await store.told_by("c1", "usr", since_ms=0) == [told[2], told[1], told[0]]

    async def test_a_call_s_signals_are_forgotten_and_no_other_s(self, store: CallStore) -> None:
        await store.tell(a_signal())
        await store.tell(a_signal(call_id="c2"))

        await store.forget("c1")
        await store.forget("c1")

        assert await store.told_by("c1", "usr", since_ms=0) == []
        assert len(await store.told_by("c2", "usr", since_ms=0)) == 1

    async def test_what_is_old_is_forgotten_whatever_its_call(self, store: CallStore) -> None:
        for n, at_ms in enumerate((8, 9, 10), start=1):
            await store.tell(a_signal(n, at_ms=at_ms))

        assert await store.forget_before(10, limit=1) == 1
        assert await store.forget_before(10, limit=9) == 1
        assert [signal.n for signal in await store.told_by("c1", "usr", since_ms=0)] == [3]
