"""What the two people of a session do with calls. Each use case: load, decide, store, and tell once the store has committed.

The store's document is the truth, one a session; what is told are hints. Whoever dies after a write and before the telling leaves a
call that is told by the repeated event, by the next join, or by `look` of any process; see `docs/calls.md`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from chat.calls import model
from chat.calls.errors import CallNotAnswered, SignalReused, TooManySignals
from chat.calls.ice import IceConfig, IceRules, ice_config
from chat.calls.model import Call, CallState, Device, EndedBy, Signal
from chat.calls.ports import CallStore, Devices
from chat.calls.wire import call_view, ended_view, signal_view
from chat.errors import ChatError, SessionNotActive, Unavailable
from chat.model import Conversation
from chat.ports import Clock, SessionGate
from chat.push import Push
from chat.service import ChatService

log = structlog.get_logger(__name__)

#: Rounds of reading again after somebody else's write: the two people and a few devices do not change one call more often at once.
_ROUNDS: Final = 20
#: Calls that one look takes care of.
_AT_ONCE: Final = 100
#: Signals older than this are of no use to anybody; those of a call are forgotten at its end.
_FORGET_MS: Final = 3_600_000
_TIDY_EVERY_MS: Final = 60_000

Change = Callable[[Call | None], Call | None]


class CallService:
    """The use cases of calls. `device` is always that of the authenticated caller."""

    def __init__(
        self,
        *,
        store: CallStore,
        chat: ChatService,
        gate: SessionGate,
        push: Push,
        devices: Devices,
        clock: Clock,
        new_id: Callable[[], str],
        ice: IceRules | None = None,
    ) -> None:
        self._store = store
        self._chat = chat
        self._gate = gate
        self._push = push
        self._devices = devices
        self._clock = clock
        self._new_id = new_id
        self._ice = ice or IceRules()
        self._ending: set[asyncio.Task[None]] = set()
        self._tidies_at_ms = 0

    # --- for the two participants ---

    async def invite(self, device: Device, session_id: str, *, media: str) -> dict[str, Any]:
        """Ring the other side; the call. The same device may ask again and gets the same one.

        Raises `NotFound`, `SessionNotActive`, `CallRunning`, `Unavailable`.
        """
        room = await self._served(device.person_id, session_id)
        await self._devices.bind(device.sid)
        call_id = self._new_id()
        now_ms = self._clock.now_ms()

        def ring(last: Call | None) -> Call:
            return model.invite(
                last,
                device,
                session_id=session_id,
                call_id=call_id,
                peer_id=room.peer_of(device.person_id),
                first_id=room.user_id,
                media=media,
                now_ms=now_ms,
            )

        call = await self._change(session_id, ring)
        await self._still_served(device.person_id, call)
        view = call_view(call, self._clock.now_ms())
        if call.state is CallState.RINGING:
            self._push.to_user(call.callee_id, "rtc:ring", view)
        else:
            self._tell_connected(call, by=device)
        return view

    async def accept(self, device: Device, session_id: str, call_id: str) -> dict[str, Any]:
        """Answer with this device; the call. The first one is selected, and may say so again.

        Raises `NotFound`, `SessionNotActive`, `CallOver`, `OwnCall`, `AnsweredElsewhere`, `Unavailable`.
        """
        await self._served(device.person_id, session_id)
        await self._devices.bind(device.sid)

        def answer(call: Call | None) -> Call:
            return model.accept(model.named(call, call_id), device, now_ms=self._clock.now_ms())

        call = await self._change(session_id, answer)
        # A session that ends meanwhile finds the call where it was before this write, and one of the two writes is refused.
        self._tell_connected(call, by=device)
        return call_view(call, self._clock.now_ms())

    async def reject(self, person_id: str, session_id: str, call_id: str) -> None:
        """Refuse a ringing call. Raises `NotFound`, `OwnCall`, `AnsweredElsewhere`, `Unavailable`."""
        await self._chat.membership(person_id, session_id)
        await self._end(
            session_id,
            lambda call: model.reject(model.named(call, call_id), person_id, now_ms=self._clock.now_ms()),
        )

    async def hang_up(self, person_id: str, session_id: str, call_id: str) -> None:
        """End the call. Raises `NotFound`, `Unavailable`."""
        await self._chat.membership(person_id, session_id)
        await self._end(
            session_id,
            lambda call: model.hang_up(model.named(call, call_id), person_id, now_ms=self._clock.now_ms()),
        )

    async def signal(
        self,
        person_id: str,
        sid: str,
        session_id: str,
        call_id: str,
        *,
        n: int,
        kind: str,
        sdp: str | None,
        candidates: Sequence[Mapping[str, Any]] | None,
        size_bytes: int,
    ) -> bool:
        """Tell the other side's device; whether it was told before. Works in a paused session.

        Raises `NotFound`, `SessionNotActive`, `CallOver`, `CallNotAnswered`, `NotBound`, `SignalReused`, `TooManySignals`,
        `Unavailable`.
        """
        await self._unclosed(person_id, session_id)
        call = model.named(await self._store.get(session_id), call_id)
        device = model.bound(call, person_id, sid)
        if call.state is not CallState.CONNECTED:
            raise CallNotAnswered(call_id=call_id)
        if n > model.MAX_SIGNALS:
            raise TooManySignals(call_id=call_id, n=n)
        signal = Signal(
            session_id=session_id,
            call_id=call_id,
            person_id=person_id,
            party_id=device.party_id,
            n=n,
            kind=kind,
            sdp=sdp,
            candidates=candidates,
            at_ms=self._clock.now_ms(),
            size_bytes=size_bytes,
        )
        before = await self._store.tell(signal)
        if before is not None and not before.says(signal):
            raise SignalReused(call_id=call_id, n=n)
        # Read after the write: a peer that has moved since then finds the signal when it reads what it missed, and one that
        # had moved before is found here.
        peer = model.named(await self._store.get(session_id), call_id).peer_of(person_id)
        if peer is not None:
            self._push.to_device(peer.sid, "rtc:signal", signal_view(before or signal))
        return before is not None

    async def rejoin(
        self, person_id: str, sid: str, room: Conversation, party_id: str | None
    ) -> dict[str, Any] | None:
        """The running call for somebody who has just joined the conversation, None when there is none. A device of the call that
        comes back with another socket is in it again, hears what it missed, and the other side hears that it is back.

        Raises `Unavailable`.
        """
        session_id = room.session_id
        if room.closed_at_ms is not None:
            return None
        call = await self._store.get(session_id)
        now_ms = self._clock.now_ms()
        if call is None or call.is_over or call.has_expired(now_ms):
            return None
        device = call.device_of(person_id)
        if party_id is None or device is None or device.party_id != party_id:
            return call_view(call, now_ms)
        await self._devices.bind(sid)
        mine = Device(person_id, party_id, sid)

        def come_back(last: Call | None) -> Call | None:
            # It may have ended meanwhile, and another one may ring.
            if last is None or last.is_over or not mine.is_same(last.device_of(person_id)):
                return last
            return model.moved(last, mine)

        now = await self._change(session_id, come_back)
        if now.is_over or now.id != call.id:
            return None if now.is_over else call_view(now, now_ms)
        peer = now.peer_of(person_id)
        if peer is not None:
            missed = await self._store.told_by(now.id, peer.person_id, since_ms=now_ms - model.REPLAY_MS)
            for signal in model.fitting(missed):
                self._push.to_device(sid, "rtc:signal", signal_view(signal))
            if mine != device and now.state is CallState.CONNECTED:
                self._push.to_device(peer.sid, "rtc:state", call_view(now, now_ms))
        return call_view(now, now_ms)

    async def ice_config(self, person_id: str, session_id: str) -> IceConfig:
        """What a peer connection is made with. Works in a paused session. Raises `NotFound`, `SessionNotActive`, `Unavailable`."""
        await self._unclosed(person_id, session_id)
        bill = await self._gate.state(session_id, person_id)
        return ice_config(
            self._ice,
            session_id=session_id,
            person_id=person_id,
            remaining_s=bill["remainingSeconds"],
            now_ms=self._clock.now_ms(),
        )

    # --- for the server ---

    def session_ended(self, session_id: str) -> None:
        """The session is over, and so is its call. Never waits and never fails; what goes wrong here is made good by `look`."""
        task = asyncio.get_running_loop().create_task(self._end_with_session(session_id))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def settled(self) -> None:
        """Return once everything that `session_ended` began is done."""
        while self._ending:
            await asyncio.gather(*self._ending)

    async def look(self) -> int:
        """Take care of calls whose time has come, whoever began them: rung for too long, left by their session, an end that perhaps
        nobody was told; how many. Any process may do it, and several at once. Raises `Unavailable`.
        """
        now_ms = self._clock.now_ms()
        calls = await self._store.due(now_ms, limit=_AT_ONCE)
        for call in calls:
            try:
                await self._look_at(call)
            except Unavailable:
                raise
            except Exception:
                # The next one is not to wait for ever for this one.
                log.exception("call_not_looked_at", session_id=call.session_id)
        if now_ms >= self._tidies_at_ms:
            self._tidies_at_ms = now_ms + _TIDY_EVERY_MS
            await self._store.forget_before(now_ms - _FORGET_MS, limit=_AT_ONCE)
        return len(calls)

    async def _look_at(self, call: Call) -> None:
        now_ms = self._clock.now_ms()
        if call.is_over:
            # Once more, for whoever's process died between the end and the telling; and what was said in it is nobody's business now.
            self._tell_ended(call)
            await self._store.forget(call.id)
            await self._store.exchange(call, model.looked_at(call, now_ms=now_ms))
            return
        try:
            room = await self._chat.membership(call.caller.person_id, call.session_id)
            is_closed = room.closed_at_ms is not None
        except ChatError as exc:
            if isinstance(exc, Unavailable):
                raise
            is_closed = True  # the conversation is gone
        if is_closed:
            after = model.ended(call, EndedBy.SESSION_ENDED, now_ms=now_ms)
        elif call.has_expired(now_ms):
            after = model.ended(call, EndedBy.MISSED, now_ms=now_ms)
        else:
            after = model.looked_at(call, now_ms=now_ms)
        if not await self._store.exchange(call, after):
            return  # somebody else was quicker
        if after.is_over:
            self._tell_ended(after)
        else:
            for device in (after.caller, after.callee):
                if device is not None:
                    self._push.to_device(device.sid, "rtc:state", call_view(after, now_ms))

    async def _end_with_session(self, session_id: str) -> None:
        try:
            await self._change(
                session_id,
                lambda call: call and model.ended(call, EndedBy.SESSION_ENDED, now_ms=self._clock.now_ms()),
                tell=True,
            )
        except _NoCall:
            return
        except Exception:
            log.exception("call_not_ended", session_id=session_id)

    # --- what they share ---

    async def _end(self, session_id: str, change: Change) -> None:
        """Apply an end and tell it; again if it was told before: whoever repeats the event may be doing so for a dead process."""
        call = await self._change(session_id, change)
        self._tell_ended(call)

    async def _change(self, session_id: str, change: Change, *, tell: bool = False) -> Call:
        """The session's call after `change`, which is asked again whenever somebody else has written in between. What rang for too
        long is ended first. Raises `_NoCall` when there is none before and after it; `Unavailable`.
        """
        for _ in range(_ROUNDS):
            old = await self._store.get(session_id)
            now_ms = self._clock.now_ms()
            if old is not None and old.has_expired(now_ms):
                missed = model.ended(old, EndedBy.MISSED, now_ms=now_ms)
                if await self._store.exchange(old, missed):
                    self._tell_ended(missed)
                continue
            new = change(old)
            if new is None:
                raise _NoCall
            if new == old:
                return new
            if old is not None and old.id != new.id:
                await self._store.forget(old.id)
            if await (self._store.add(new) if old is None else self._store.exchange(old, new)):
                if tell:
                    self._tell_ended(new)
                return new
        raise Unavailable(reason="the call changes all the time", session_id=session_id)

    async def _served(self, person_id: str, session_id: str) -> Conversation:
        """The conversation, if the person is in it and the session is served at this instant."""
        room = await self._unclosed(person_id, session_id)
        known = self._gate.is_open(session_id)
        if not (await self._gate.look(session_id) if known is None else known):
            raise SessionNotActive(session_id=session_id)
        return room

    async def _unclosed(self, person_id: str, session_id: str) -> Conversation:
        """The conversation, if the person is in it and the session goes on, paused or not."""
        room = await self._chat.membership(person_id, session_id)
        if room.closed_at_ms is not None:
            raise SessionNotActive(session_id=session_id)
        return room

    async def _still_served(self, person_id: str, call: Call) -> None:
        """A session that ended while the call was being written has perhaps not seen it: then it ends here."""
        room = await self._chat.membership(person_id, call.session_id)
        if room.closed_at_ms is not None:
            await self._end_with_session(call.session_id)
            raise SessionNotActive(session_id=call.session_id)

    def _tell_connected(self, call: Call, *, by: Device) -> None:
        """The other side's device hears that it is connected, and the other devices of whoever answered that they may stop ringing."""
        now_ms = self._clock.now_ms()
        peer = call.peer_of(by.person_id)
        if peer is not None:
            self._push.to_device(peer.sid, "rtc:state", call_view(call, now_ms))
        elsewhere = ended_view(call, model.ANSWERED_ELSEWHERE, now_ms)
        self._push.to_user(by.person_id, "rtc:ended", elsewhere, skip=by.sid)

    def _tell_ended(self, call: Call) -> None:
        if call.reason is not None and call.ended_at_ms is not None:
            view = ended_view(call, call.reason.value, call.ended_at_ms)
            for person_id in call.people:
                self._push.post_to_user(person_id, "rtc:ended", view)


class _NoCall(Exception):
    """There never was a call in this session."""
