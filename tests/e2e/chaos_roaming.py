"""A pair whose two people go to whichever process is open: they come back elsewhere, repeat there what has no answer, and compare."""

import asyncio
import itertools
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from tests.e2e.chaos import (
    AGAIN,
    GONE,
    LIVE,
    NOT_STARTED,
    Pair,
    Posted,
    Sent,
    acked,
    pauses_of,
)
from tests.e2e.chaos_doors import PATIENCE_S, UNSURE, RoamingWorld
from tests.e2e.people import Answer, Device, Json, Person, instant_ms, minor, wall_ms

T = TypeVar("T")

#: How often a person moves to another process for no reason, a request is sent to two at once, is repeated though it
#: was answered, and a start is tried twice at once under two keys.
_MOVES: Final = 0.04
_TWICE: Final = 0.12
_REPEATED: Final = 0.15
_RIVALS: Final = 0.2
#: What a user who is in a session does with his money: these parts, and else he looks.
_ENDS: Final = 0.25
_RECHARGES: Final = 0.35
#: By what an answer names what was done.
_BEGUN: Final = ("sessionId", "startedAt")
_DONE: Final = ("paymentId", "amount", "transaction", *_BEGUN, "endedAt", "totalAmount")
#: A join may ask for so many.
_MOST_PENDING: Final = 50
_TICK_S: Final = 1
#: Two processes' clocks on one machine.
_CLOCKS_MS: Final = 20


@dataclass(frozen=True)
class Orphaned:
    """These sessions were billed by a process that was killed at this instant."""

    killed_ms: int
    session_ids: frozenset[str]


@dataclass
class Outages:
    """What the campaign has done that a timeline must show."""

    orphaned: list[Orphaned] = field(default_factory=list)
    #: (killed, serving again): no web process lived in between.
    dark: list[tuple[int, int]] = field(default_factory=list)
    #: (broken, mended): the store answered nobody in between.
    storeless: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class RoamingPair(Pair):
    """Like `Pair`, with any number of processes and none that must live."""

    #: Ended sessions as they were when they were first looked at in full: nothing of them may change any more.
    settled: dict[str, tuple[Json, list[Json]]] = field(default_factory=dict)
    #: When receipts were acknowledged, by session: they are evidence of service as messages are.
    receipts_ms: dict[str, list[int]] = field(default_factory=dict)
    #: Starts of an earlier try that took effect after a later one was refused.
    late_starts: int = 0
    #: No store has failed anybody lately, so that an answer could not be kept for repeats.
    answers_are_kept: bool = True
    #: The longest that a commit may take.
    commit_s: int = 3
    #: The lawyer also talks with another pair's user.
    shares_lawyer: bool = False

    @property
    def world(self) -> RoamingWorld:
        assert isinstance(self.user.world, RoamingWorld)
        return self.user.world

    async def begin(self, money: str) -> None:
        await self._recharge(money)
        await self.connect()
        await self._start()
        assert self.session_id is not None or self.shares_lawyer, self.starts

    async def connect(self) -> None:
        for person in self.people:
            if person.id not in self.devices or self.devices[person.id].gone.is_set():
                await self._patiently(lambda person=person: self._come_back(person))
        await self.join()

    async def join(self) -> None:
        for person in self.people:
            if self.session_id is not None and person.id in self.devices:
                await acked(self.devices[person.id], "join_session", {"sessionId": self.session_id})

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """For times when everything works, but may have broken a moment ago."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await work()
            except GONE:
                assert time.monotonic() < deadline_s, "no process lets anybody in"
                await asyncio.sleep(0.1)

    # -- while things break ----------------------------------------------------------------------------------------

    async def _until(self, stop: asyncio.Event, work: Callable[[], Awaitable[None]]) -> None:
        think_s = 0.6 if work == self._pay else 0.4
        while not stop.is_set():
            try:
                await work()
            except GONE as exc:
                if isinstance(exc, TimeoutError):
                    raise
            await asyncio.sleep(self.rng.random() * think_s)

    def _chat_of(self, person: Person) -> Callable[[], Awaitable[None]]:
        talk = super()._chat_of(person)

        async def chat() -> None:
            if self.devices[person.id].gone.is_set() or self.rng.random() < _MOVES:
                await self._come_back(person)
            else:
                await talk()

        return chat

    async def _come_back(self, person: Person) -> None:
        """Connect to any process, and send again what has no acknowledgement, before anything new."""
        if person.id in self.devices:
            await self.world.forget(self.devices[person.id])
        device = self.devices[person.id] = await person.device()
        await self._resume(device, person)

    async def _resume(self, device: Device, person: Person) -> None:
        pending: dict[str, list[Sent]] = {} if self.session_id is None else {self.session_id: []}
        for sent in self.messages:
            if sent.sender_id == person.id and sent.ack is None and not sent.refused:
                pending.setdefault(sent.session_id, []).append(sent)
        for session_id, messages in pending.items():
            ids = [sent.client_msg_id for sent in messages][:_MOST_PENDING]
            joined = await acked(device, "join_session", {"sessionId": session_id, "pendingIds": ids})
            if not joined["ok"]:
                assert joined["error"]["code"] in AGAIN, joined
                continue
            for sent in messages:
                await self.send(device, sent)
                stored = joined["stored"].get(sent.client_msg_id)
                if stored is not None and sent.ack is not None:
                    assert sent.ack["duplicate"] is True, (sent, stored)
                    assert (sent.ack["id"], sent.ack["seq"]) == (stored["id"], stored["seq"])

    async def _receipt(self, device: Device, person: Person, event: str, payload: Json) -> None:
        await super()._receipt(device, person, event, payload)
        self.receipts_ms.setdefault(payload["sessionId"], []).append(wall_ms())

    def keeps_its_place(self, sent: Sent) -> bool:
        return not sent.in_doubt

    async def _pay(self) -> None:
        unanswered = [posted for posted in (*self.starts[-4:], *self.recharges[-8:]) if posted.is_open]
        if unanswered:
            await self._repeat(unanswered[0])
        elif self.session_id is None:
            await self._start()
        elif (dice := self.rng.random()) < _ENDS:
            await self._end(self.session_id)
        elif dice < _ENDS + _RECHARGES:
            await self._recharge()
        else:
            # Cut off for want of money, or ended by an end whose answer was lost.
            answer = await self.user.api.call("GET", f"/consult/{self.session_id}")
            if answer.status == 200 and answer.json["status"] not in LIVE:
                self.session_id = None

    async def _repeat(self, posted: Posted) -> None:
        await self._post(self.user, posted)
        if posted in self.starts and posted.answer is not None:
            self._started(posted)
            await self.join()

    async def _start(self) -> None:
        if self.rng.random() >= _RIVALS:
            await super()._start()
            return
        rivals = [Posted("/consult/start", {"lawyerId": self.lawyer.id}, self.name("s")) for _ in range(2)]
        self.starts += rivals
        results = await asyncio.gather(
            *(self._post(self.user, start) for start in rivals), return_exceptions=True
        )
        for start in rivals:
            if start.answer is not None:
                self._started(start)
        await self.join()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _started(self, start: Posted) -> None:
        session_id = start.answer["sessionId"]
        if session_id not in self.sessions:
            self.sessions.append(session_id)
            self.session_id = session_id

    async def _post(self, person: Person, posted: Posted) -> Answer:
        dice = self.rng.random()
        if dice > _TWICE:
            answer = await super()._post(person, posted)
            if dice > 1 - _REPEATED and answer.status in (200, 201):
                # It must be the same answer, wherever it is asked for.
                answer = await super()._post(person, posted)
            return answer
        # A client that loses its patience: the same request at two processes at once.
        both = await asyncio.gather(
            *(super(RoamingPair, self)._post(person, posted) for _ in range(2)), return_exceptions=True
        )
        for one in both:
            if isinstance(one, BaseException) and not isinstance(one, GONE):
                raise one
        answers = [one for one in both if isinstance(one, Answer)]
        if not answers:
            raise next(one for one in both if isinstance(one, BaseException))
        return min(answers, key=lambda answer: answer.status)

    def _take(self, posted: Posted, answer: Answer) -> None:
        if answer.status in (200, 201):
            if posted.answer is None:
                posted.answer, posted.refused = answer.json, None
            told, now = posted.answer, answer.json
            if posted.path == "/consult/start":
                # At once: a repeat of it may be cut off before anybody looks at the answer.
                self._started(posted)
            if self.answers_are_kept:
                assert told == now, f"two answers: {posted}, {now}"
            # An answer that the store could not keep is made again: of the same deed, as it stands by then.
            names = _BEGUN if posted.path == "/consult/start" else _DONE
            assert [told.get(name) for name in names] == [now.get(name) for name in names], (
                f"done twice: {posted}, {now}"
            )
            return
        if answer.status >= 500:
            assert answer.code in UNSURE, answer
        if answer.status >= 500 or answer.code in UNSURE:
            posted.in_doubt = True
            return
        assert posted.answer is None, f"refused after it was done: {posted}, {answer}"
        # An earlier try may still be under way in a process that is frozen.
        if self.at_rest or not posted.in_doubt:
            posted.refused = answer.code

    # -- at rest ---------------------------------------------------------------------------------------------------

    async def reconcile(self) -> None:
        self.at_rest = True
        for recharge in {
            id(one): one for one in (*self.recharges[-2:], *self._open(self.recharges))
        }.values():
            await self._again(recharge)
        assert all(recharge.answer is not None for recharge in self.recharges)
        for start in {id(one): one for one in (*self.starts[-2:], *self._open(self.starts))}.values():
            known = start.answer is not None
            await self._again(start)
            if start.answer is not None and not known:
                self._started(start)
        await self._reconcile_end()
        await self._patiently(self._reconcile_chat)

    @staticmethod
    def _open(posted: list[Posted]) -> list[Posted]:
        return [one for one in posted if one.is_open]

    async def _again(self, posted: Posted) -> None:
        """Until there is an answer; if there was one, it is the same."""
        if posted.refused is not None:
            return
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            answer = await self._patiently(lambda: self._post(self.user, posted))
            if answer.status in (200, 201) or posted.refused is not None:
                break
            assert time.monotonic() < deadline_s, f"{posted} stays open: {answer}"
            await asyncio.sleep(0.2)
        if posted.answer is None:
            assert posted.refused in NOT_STARTED, f"{posted}: {answer}"

    async def _reconcile_end(self) -> None:
        for session_id, end in self.ends.items():
            if end.is_open and session_id not in self.settled:
                await self._again(end)
                assert end.answer is not None, end
        active = await self.user.api.get("/consult/active")
        if self.session_id is not None and (active is None or active["sessionId"] != self.session_id):
            session = await self.user.session(self.session_id)
            assert session["status"] not in LIVE, (session, active)
            assert self.session_id in self.ends or session["endReason"] == "WALLET_EMPTY", session
            self.session_id = None
        if active is not None and active["sessionId"] not in self.sessions:
            # Told "busy" by one process while an earlier try was still under way at another, which then found both free.
            assert any(start.in_doubt for start in self.starts), f"nobody has started {active}"
            self.late_starts += 1
            self.sessions.append(active["sessionId"])
        self.session_id = active and active["sessionId"]
        end = self.ends.get(self.session_id or "")
        assert end is None or end.answer is None, "it was ended, and the end did not stay"

    async def _reconcile_chat(self) -> None:
        await self.connect()
        for person in self.people:
            deadline_s = time.monotonic() + PATIENCE_S
            while True:
                await self._resume(self.devices[person.id], person)
                left = [
                    sent
                    for sent in self.messages
                    if sent.sender_id == person.id and sent.ack is None and not sent.refused
                ]
                if not left:
                    break
                assert time.monotonic() < deadline_s, f"no word on {left[:3]}"
                await asyncio.sleep(0.1)

    # -- in the end ------------------------------------------------------------------------------------------------

    async def end(self) -> None:
        """The lawyer ends what is under way."""
        if self.session_id is not None:
            await self.lawyer.end(self.session_id)
            self.session_id = None

    async def consult_once_more(self) -> None:
        recharge = Posted("/wallet/recharge", {"amount": "20.00"}, self.name("r"))
        self.recharges.append(recharge)
        await self._again(recharge)
        start = Posted("/consult/start", {"lawyerId": self.lawyer.id}, self.name("s"))
        self.starts.append(start)
        await self._again(start)
        assert start.answer is not None, f"somebody is still busy: {start}"
        self._started(start)
        await self.end()

    # -- what must hold --------------------------------------------------------------------------------------------

    async def check_all(self, outages: Outages) -> None:
        """Everything that was acknowledged. A session may end for want of money while we look: then look again."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            for session_id in self.sessions:
                if session_id not in self.settled:
                    await self._check_one(session_id, outages)
            live = [session_id for session_id in self.sessions if session_id not in self.settled]
            paid_minor = sum(minor(session["totalAmount"]) for session, _ in self.settled.values())
            try:
                await self.check_wallet(paid_minor)
            except AssertionError:
                still = [(await self.user.session(id_))["status"] in LIVE for id_ in live]
                if all(still) or time.monotonic() > deadline_s:
                    raise
                continue
            return

    async def _check_one(self, session_id: str, outages: Outages) -> None:
        session = await self.user.session(session_id)
        self._check_ticks(session)
        self.check_session(session)
        history = await self.check_messages(session_id)
        self._check_outages(session, history, outages)
        if session["status"] not in LIVE:
            self.settled[session_id] = (_lasting(session), list(map(_written, history)))

    def _check_ticks(self, session: Json) -> None:
        """What was told is billed. A tick tells the time at which it is told, after two writes; the evidence is of before them. One
        that is on its way while the session ends elsewhere tells of what will not be.
        """
        ended_ms = instant_ms(session["endedAt"]) if session["endedAt"] else math.inf
        told_s = max(
            (
                heard.payload["elapsedSeconds"]
                for device in self.user.devices
                for heard in device.events
                if heard.name == "session:tick"
                and heard.payload["sessionId"] == session["sessionId"]
                and heard.at_ms < ended_ms
            ),
            default=0,
        )
        assert session["durationSeconds"] >= told_s - 1 - 2 * self.commit_s, (
            f"a tick was taken back: {session}"
        )

    def _check_outages(self, session: Json, history: list[Json], outages: Outages) -> None:
        started_ms = instant_ms(session["startedAt"])
        ended_ms = instant_ms(session["endedAt"]) if session["endedAt"] else math.inf
        pauses = pauses_of(session)
        evidence_ms = [instant_ms(message["createdAt"]) for message in history]
        evidence_ms += self.receipts_ms.get(session["sessionId"], [])
        for killed_ms, serving_ms in outages.dark:
            if started_ms < killed_ms and ended_ms > serving_ms:
                # Whoever serves first has taken everything up before: nothing that comes later proves service before.
                assert any(a <= killed_ms + 1 and killed_ms <= b for a, b in pauses), (
                    f"time without any process is billed, after {killed_ms}: {session}"
                )
        # Time is paid for up to the next tick, and the lead, which is two store timeouts; and a commit was under way.
        paid_ms = (_TICK_S + 3 * self.commit_s) * 1000
        for broken_ms, mended_ms in outages.storeless:
            if mended_ms - broken_ms > paid_ms and started_ms < broken_ms and ended_ms > mended_ms:
                paused = [instant_ms(row["at"]) for row in session["timeline"] if row["event"] == "pause"]
                assert any(broken_ms <= at <= mended_ms for at in paused), (
                    f"time without a store is billed, from {broken_ms} to {mended_ms}: {session}"
                )
        killed = [one.killed_ms for one in outages.orphaned if session["sessionId"] in one.session_ids]
        for killed_ms in killed:
            # One that is ended before anybody took it up has no pause: the end came through a process that serves.
            if not started_ms < killed_ms < ended_ms or session["status"] not in LIVE:
                continue
            # Whoever took it up has recorded a pause since the last proof of service.
            after = [(a, b) for a, b in pauses if b >= killed_ms]
            assert after, f"its process was killed at {killed_ms}, and nothing was paused: {session}"
            a, b = after[0]
            proven_ms = max((at for at in evidence_ms if at <= b + _CLOCKS_MS), default=0)
            assert a <= max(killed_ms, proven_ms) + _CLOCKS_MS, (
                f"billed from {killed_ms} to {a} without proof of service: {session}"
            )

    def intervals(self) -> list[tuple[float, float, str, str]]:
        """From, to, lawyer and id of each ended session."""
        return [
            (
                instant_ms(session["startedAt"]),
                instant_ms(session["endedAt"]),
                self.lawyer.id,
                session["sessionId"],
            )
            for session, _ in self.settled.values()
        ]

    async def check_settled(self) -> None:
        """Nothing of an ended session has changed since it was first looked at."""
        for session_id, (session, history) in self.settled.items():
            now = _lasting(await self.user.session(session_id))
            assert now == session, f"{session_id} has changed since it ended: {session} is {now}"
            messages = list(map(_written, await self.user.history(session_id)))
            changed = [pair for pair in itertools.zip_longest(history, messages) if pair[0] != pair[1]]
            assert not changed, f"{session_id}: messages have changed since it ended: {changed}"


def _lasting(session: Json) -> Json:
    """All but the wallet, which is that of today."""
    return {name: value for name, value in session.items() if name != "remainingBalance"}


def _written(message: Json) -> Json:
    """All but the receipts, which go on after the end."""
    return {name: value for name, value in message.items() if name not in ("status", "deliveredAt", "seenAt")}


def assert_one_at_a_time(pairs: list[RoamingPair]) -> None:
    """Nobody was ever in two sessions at once, whoever let them start."""
    by_person: dict[str, list[tuple[float, float, str]]] = {}
    for pair in pairs:
        for start, end, lawyer_id, session_id in pair.intervals():
            for person_id in (lawyer_id, pair.user.id):
                by_person.setdefault(person_id, []).append((start, end, session_id))
    for person_id, sessions in by_person.items():
        for earlier, later in itertools.pairwise(sorted(sessions)):
            assert earlier[1] <= later[0] + _CLOCKS_MS, f"{person_id} was in two at once: {earlier}, {later}"
