"""Consultations under way, everybody busy, and a memory of what the server has acknowledged.

After a fault each pair repeats what it has no answer for, as a good client does, and then compares: nothing acknowledged may be
gone, nothing may be there twice, and every bill must follow from its public timeline.
"""

import asyncio
import itertools
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import socketio

from tests.e2e.people import Answer, Device, Json, Person, World, assert_bill, instant_ms, minor

#: What a dying server does to its clients.
GONE: Final = (aiohttp.ClientError, OSError, socketio.exceptions.SocketIOError)
_RATES: Final = ("60.00", "37.77", "120.00", "1.00")
#: Statuses of a session that goes on.
LIVE: Final = ("ACTIVE", "PAUSED")
#: Acknowledgements that say: nothing was done, or nobody knows; send it again.
AGAIN: Final = frozenset({"RATE_LIMITED", "STORAGE_UNAVAILABLE", "DRAINING"})


class ConnectionGone(OSError):
    """The socket broke before the acknowledgement came."""


@dataclass
class Sent:
    """One message as its sender remembers it."""

    session_id: str
    sender_id: str
    client_msg_id: str
    body: str
    ack: Json = None
    #: The server said that it is not stored, and no earlier try can still be under way.
    refused: bool = False
    tries: int = 0
    #: A try ended without a word on whether it was stored.
    in_doubt: bool = False
    #: By the sender's own clock, which only rises: the first try, and the first acknowledgement.
    sent_at_s: float = math.inf
    acked_at_s: float = math.inf


@dataclass
class Posted:
    """One POST with its key; `answer` is None while it is in doubt."""

    path: str
    body: Json
    key: str
    answer: Json = None
    refused: str | None = None
    #: A try ended without an answer.
    in_doubt: bool = False

    @property
    def is_open(self) -> bool:
        """Whether nobody knows what became of it."""
        return self.answer is None and self.refused is None


@dataclass
class Pair:
    """A user and a lawyer who consult each other again and again."""

    user: Person
    lawyer: Person
    rng: random.Random
    session_id: str | None = None
    sessions: list[str] = field(default_factory=list)
    messages: list[Sent] = field(default_factory=list)
    #: (session, person) → the highest marks that were acknowledged.
    marks: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    recharges: list[Posted] = field(default_factory=list)
    starts: list[Posted] = field(default_factory=list)
    #: By session.
    ends: dict[str, Posted] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    count: int = 0
    #: Nothing is under way: a refusal is the last word.
    at_rest: bool = False

    def name(self, what: str) -> str:
        self.count += 1
        return f"{what}-{self.count}-{self.user.id[-6:]}"

    @property
    def people(self) -> tuple[Person, Person]:
        return (self.user, self.lawyer)

    async def begin(self, money: str) -> None:
        """Recharge, connect, start."""
        await self._recharge(money)
        await self.connect()
        await self._start()
        assert self.session_id is not None, self.starts

    # -- while the server runs -------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """A device each; in the session's room, if there is one."""
        for person in self.people:
            self.devices[person.id] = await person.device()
        await self.join()

    async def join(self) -> None:
        if self.session_id is not None:
            for device in self.devices.values():
                await acked(device, "join_session", {"sessionId": self.session_id})

    async def live(self, stop: asyncio.Event) -> None:
        """Talk and pay until told to stop or until the server is gone."""
        self.at_rest = False
        results = await asyncio.gather(
            *(
                self._until(stop, work)
                for work in (self._chat_of(self.user), self._chat_of(self.lawyer), self._pay)
            ),
            return_exceptions=True,
        )
        for result in results:
            # A server that is killed resets its connections; one that lets a client wait is another matter.
            if isinstance(result, TimeoutError) or (
                isinstance(result, BaseException) and not isinstance(result, GONE)
            ):
                raise result

    async def _until(self, stop: asyncio.Event, work: Callable[[], Awaitable[None]]) -> None:
        while not stop.is_set():
            await work()
            # People think between two messages; how long is theirs.
            await asyncio.sleep(self.rng.random() * 0.1)

    def _chat_of(self, person: Person) -> Callable[[], Awaitable[None]]:
        async def chat() -> None:
            session_id = self.session_id
            if session_id is None:
                return
            device = self.devices[person.id]
            dice = self.rng.random()
            if dice < 0.65:
                # Pipelined, as an app does that has a queue: what is acknowledged must keep this order.
                burst = [self._message(session_id, person) for _ in range(self.rng.randint(1, 3))]
                results = await asyncio.gather(
                    *(self.send(device, sent) for sent in burst), return_exceptions=True
                )
                for result in results:
                    if isinstance(result, BaseException):
                        raise result
            elif dice < 0.8:
                await self._receipt(
                    device, person, "message_delivered", {"sessionId": session_id, "uptoSeq": 10**6}
                )
            else:
                await self._receipt(device, person, "mark_seen", {"sessionId": session_id})

        return chat

    def _message(self, session_id: str, person: Person) -> Sent:
        sent = Sent(session_id, person.id, self.name("m"), f"{self.rng.getrandbits(64):x} तराज़ू")
        self.messages.append(sent)
        return sent

    async def send(self, device: Device, sent: Sent) -> None:
        payload = {"sessionId": sent.session_id, "clientMsgId": sent.client_msg_id, "body": sent.body}
        sent.tries += 1
        sent.sent_at_s = min(sent.sent_at_s, time.monotonic())
        try:
            ack = await acked(device, "send_message", payload)
        except GONE:
            sent.in_doubt = True
            raise
        if ack["ok"]:
            sent.ack = ack
            sent.acked_at_s = min(sent.acked_at_s, time.monotonic())
        elif ack["error"]["code"] in AGAIN:
            sent.in_doubt = True
        else:
            assert ack["error"]["code"] == "SESSION_NOT_ACTIVE", ack
            sent.refused = self.at_rest or not sent.in_doubt

    async def _receipt(self, device: Device, person: Person, event: str, payload: Json) -> None:
        ack = await acked(device, event, payload)
        if ack["ok"]:
            key = (payload["sessionId"], person.id)
            delivered, seen = self.marks.get(key, (0, 0))
            self.marks[key] = (max(delivered, ack["deliveredSeq"]), max(seen, ack["seenSeq"]))
        else:
            assert ack["error"]["code"] in AGAIN, ack

    async def _pay(self) -> None:
        dice = self.rng.random()
        if self.session_id is None:
            await self._start()
        elif dice < 0.12:
            await self._end(self.session_id)
        elif dice < 0.5:
            await self._recharge()
        elif (await self.user.session(self.session_id))["status"] not in LIVE:
            # Cut off for want of money.
            self.session_id = None

    async def _recharge(self, money: str | None = None) -> None:
        amount = money or f"{self.rng.randint(100, 900) / 100:.2f}"
        recharge = Posted("/wallet/recharge", {"amount": amount}, self.name("r"))
        self.recharges.append(recharge)
        await self._post(self.user, recharge)

    async def _start(self) -> None:
        start = Posted("/consult/start", {"lawyerId": self.lawyer.id}, self.name("s"))
        self.starts.append(start)
        await self._post(self.user, start)
        if start.answer is not None:
            self._started(start)
            await self.join()
        elif start.refused == "INSUFFICIENT_BALANCE":
            await self._recharge()

    def _started(self, start: Posted) -> None:
        self.session_id = start.answer["sessionId"]
        if self.session_id not in self.sessions:
            self.sessions.append(self.session_id)

    async def _end(self, session_id: str) -> None:
        end = self.ends.setdefault(session_id, Posted(f"/consult/{session_id}/end", None, f"e-{session_id}"))
        await self._post(self.user, end)
        if end.answer is not None:
            self.session_id = None

    async def _post(self, person: Person, posted: Posted) -> Answer:
        try:
            answer = await person.api.call("POST", posted.path, posted.body, key=posted.key)
        except GONE:
            posted.in_doubt = True
            raise
        self._take(posted, answer)
        return answer

    def _take(self, posted: Posted, answer: Answer) -> None:
        """Remember what was answered."""
        if answer.status in (200, 201):
            posted.answer = answer.json
        elif answer.status < 500 and answer.code != "IDEMPOTENCY_IN_PROGRESS":
            posted.refused = answer.code
        else:
            posted.in_doubt = True

    # -- after the restart -----------------------------------------------------------------------------------------

    async def reconcile(self) -> None:
        """Ask again for every answer that is missing, and for some that are not: they must be the same."""
        self.at_rest = True
        for recharge in self.recharges[-8:]:
            await self._again(recharge)
        assert all(recharge.answer is not None for recharge in self.recharges)
        for start in self.starts[-2:]:
            known = start.answer is not None
            await self._again(start)
            if start.answer is not None and not known:
                self._started(start)
        await self._reconcile_end()
        await self.connect()
        await self._reconcile_messages()

    async def _again(self, posted: Posted) -> None:
        first, refused = posted.answer, posted.refused
        if refused is not None:
            return
        answer = await self._post(self.user, posted)
        if first is not None:
            assert (answer.json, answer.headers.get("Idempotency-Replayed")) == (first, "true"), (
                first,
                answer,
            )
        else:
            assert posted.answer is not None or posted.refused in NOT_STARTED, f"{posted}: {answer}"

    async def _reconcile_end(self) -> None:
        if self.session_id is None:
            assert await self.user.api.get("/consult/active") is None
            return
        end = self.ends.get(self.session_id)
        if end is not None:
            await self._again(end)
            assert end.answer is not None
        session = await self.user.session(self.session_id)
        active = await self.user.api.get("/consult/active")
        if session["status"] in LIVE:
            assert end is None, "it was ended, and the end did not stay"
            assert active is not None
            assert active["sessionId"] == self.session_id
        else:
            assert active is None
            assert end is not None or session["endReason"] == "WALLET_EMPTY", session
            self.session_id = None

    async def _reconcile_messages(self) -> None:
        """Join with what is pending; what the join says is stored must be stored, and only that."""
        for session_id in {
            sent.session_id for sent in self.messages if sent.ack is None and not sent.refused
        }:
            for person in self.people:
                pending = [
                    sent
                    for sent in self.messages
                    if (sent.session_id, sent.sender_id) == (session_id, person.id)
                    and sent.ack is None
                    and not sent.refused
                ]
                device = self.devices[person.id]
                ids = [sent.client_msg_id for sent in pending][:50]
                joined = await acked(device, "join_session", {"sessionId": session_id, "pendingIds": ids})
                assert joined["ok"], joined
                for sent in pending:
                    await self.send(device, sent)
                    stored = joined["stored"].get(sent.client_msg_id)
                    if stored is not None:
                        assert sent.ack["duplicate"] is True
                        assert (sent.ack["id"], sent.ack["seq"]) == (stored["id"], stored["seq"])
                    elif sent.ack is not None:
                        assert sent.ack["duplicate"] is False

    # -- what must hold --------------------------------------------------------------------------------------------

    async def check(self, kills: list[tuple[int, int]]) -> None:
        """Everything that was acknowledged, against what the server tells now. `kills`: (killed, serving again)."""
        paid_minor = 0
        ticks = [tick for device in self.user.devices for tick in device.all("session:tick")]
        for session_id in self.sessions:
            await self.check_messages(session_id)
            session = await self.user.session(session_id)
            served = [tick["elapsedSeconds"] for tick in ticks if tick["sessionId"] == session_id]
            # A tick tells the time of its own commit, its evidence that of its beginning: a second may turn in between.
            assert session["durationSeconds"] >= max(served, default=0) - 1, (
                f"a tick was taken back: {session}"
            )
            self.check_session(session)
            self._check_kills(session, kills)
            if session["status"] not in LIVE:
                paid_minor += minor(session["totalAmount"])
        await self.check_wallet(paid_minor)

    async def check_messages(self, session_id: str) -> list[Json]:
        """No gap, no double, nothing lost that was acknowledged, nothing stored that was refused; the history."""
        where = f"session {session_id}"
        history = await self.user.history(session_id)
        assert [m["seq"] for m in history] == list(range(1, len(history) + 1)), f"{where}: a gap or a double"
        assert history == await self.lawyer.history(session_id)
        found = {(m["senderId"], m["clientMsgId"]): m for m in history}
        assert len(found) == len(history), f"{where}: a message is there twice"
        sent_here = [sent for sent in self.messages if sent.session_id == session_id]
        last_seq: dict[str, int] = {}
        for sent in sent_here:
            message = found.pop((sent.sender_id, sent.client_msg_id), None)
            if sent.refused:
                assert message is None, f"{where}: {sent} was refused and is stored"
            elif sent.ack is not None:
                assert message is not None, f"{where}: {sent} was acknowledged and is gone"
                told = (sent.ack["id"], sent.ack["seq"], sent.ack["createdAt"], sent.body)
                assert (message["id"], message["seq"], message["createdAt"], message["body"]) == told
                if not self.keeps_its_place(sent):
                    continue
                if not sent.ack["duplicate"]:
                    assert last_seq.get(sent.sender_id, 0) < message["seq"], (
                        f"{where}: the sender's order is lost"
                    )
                last_seq[sent.sender_id] = max(last_seq.get(sent.sender_id, 0), message["seq"])
        assert not found, f"{where}: nobody sent {found}"
        assert_real_time_order(where, sent_here)
        page = await self.user.api.get(f"/chat/{session_id}?limit=1")
        for person in self.people:
            delivered, seen = self.marks.get((session_id, person.id), (0, 0))
            marks = page["watermarks"][person.id]
            assert marks["deliveredSeq"] >= delivered, f"{where}: a receipt is gone"
            assert marks["seenSeq"] >= seen, f"{where}: a receipt is gone"
        return history

    def keeps_its_place(self, _sent: Sent) -> bool:
        """Whether it was stored after everything that its sender had sent before it."""
        return True

    def check_session(self, session: Json) -> None:
        """An end that was told stays, and an ended session costs what its timeline says."""
        end = self.ends.get(session["sessionId"])
        if end is not None and end.answer is not None:
            for name in ("status", "endReason", "endedAt", "durationSeconds", "totalAmount"):
                assert session[name] == end.answer[name], (
                    f"an acknowledged end did not stay: {session}, {end.answer}"
                )
        if session["status"] not in LIVE:
            assert_bill(session)

    def _check_kills(self, session: Json, kills: list[tuple[int, int]]) -> None:
        started_ms = instant_ms(session["startedAt"])
        ended_ms = instant_ms(session["endedAt"]) if session["endedAt"] else None
        pauses = pauses_of(session)
        for killed_ms, serving_ms in kills:
            if started_ms < killed_ms and (ended_ms is None or ended_ms > serving_ms):
                # Not a moment without a server is billed. (The next process takes over before it says that it serves.)
                assert any(a <= killed_ms + 1 and killed_ms <= b <= serving_ms for a, b in pauses), (
                    killed_ms,
                    session,
                )

    async def check_wallet(self, paid_minor: int) -> None:
        """The balance, with what is held, is what was recharged less what ended sessions have cost."""
        balance = await self.user.api.get("/wallet/balance")
        has_minor = minor(balance["walletBalance"]) + minor(balance["held"])
        recharged = sum(minor(recharge.body["amount"]) for recharge in self.recharges)
        assert has_minor == recharged - paid_minor, (
            f"has {has_minor}, recharged {recharged}, paid {paid_minor}"
        )
        await self._check_rows()

    async def _check_rows(self) -> None:
        """The wallet's history: one CREDIT a recharge, one DEBIT a session that cost something, and no row more."""
        rows: list[Json] = []
        path = "/wallet/transactions?limit=100"
        while True:
            page = await self.user.api.get(path)
            rows += page["items"]
            if page["nextCursor"] is None:
                break
            path = f"/wallet/transactions?limit=100&cursor={page['nextCursor']}"
        credited = sorted(minor(row["amount"]) for row in rows if row["type"] == "CREDIT")
        assert credited == sorted(minor(recharge.body["amount"]) for recharge in self.recharges)
        debits = [row["referenceId"] for row in rows if row["type"] == "DEBIT"]
        assert len(debits) == len(set(debits)), "a session was charged twice"
        assert set(debits) <= set(self.sessions)
        for later, earlier in itertools.pairwise(rows):
            assert later["balanceBefore"] == earlier["balanceAfter"], "a row is missing between two rows"


#: A start that the crash cut short was given back, or meets what the crash has left of another.
NOT_STARTED: Final = ("START_ABORTED", "INSUFFICIENT_BALANCE", "USER_BUSY", "LAWYER_BUSY")


def pauses_of(session: Json) -> list[tuple[int, int]]:
    """From and to, in epoch milliseconds, of each pause of a public timeline that is over."""
    return [
        (instant_ms(pause["at"]), instant_ms(resume["at"]))
        for pause, resume in itertools.pairwise(session["timeline"])
        if pause["event"] == "pause" and resume["event"] == "resume"
    ]


def assert_real_time_order(where: str, messages: list[Sent]) -> None:
    """What was acknowledged before another one was first sent, by whomever, stands before it."""
    first_ack_s = math.inf
    for sent in sorted((sent for sent in messages if sent.ack), key=lambda sent: -int(sent.ack["seq"])):
        assert sent.sent_at_s <= first_ack_s, f"{where}: {sent} was sent later than one that stands after it"
        first_ack_s = min(first_ack_s, sent.acked_at_s)


async def acked(device: Device, event: str, payload: Json) -> Json:
    """The acknowledgement. Raises `ConnectionGone` as soon as it can no longer come (the library would wait)."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()

    def take(ack: Json = None) -> None:
        if not answer.done():
            answer.set_result(ack)

    await device.sio.emit(event, payload, callback=take)
    gone = asyncio.create_task(device.gone.wait())
    try:
        await asyncio.wait({answer, gone}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    if not answer.done():
        assert device.gone.is_set(), f"{event} was never acknowledged"
        raise ConnectionGone
    ack: Json = answer.result()
    assert ack is not None, f"an empty acknowledgement of {event}"
    assert ack["ok"] or ack["error"]["code"] != "INTERNAL", ack
    return ack


@asynccontextmanager
async def living(pairs: list[Pair]) -> AsyncIterator[asyncio.Event]:
    """Everybody lives while the block runs; afterwards all have stopped, or have seen the server go."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(pair.live(stop)) for pair in pairs]
    try:
        yield stop
    finally:
        stop.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def pairs_of(world: World, rng: random.Random, count: int) -> list[Pair]:
    """`count` pairs, each with a session under way. Every sixth has money for a few seconds only."""

    async def pair_of(number: int, own: random.Random) -> Pair:
        user, lawyer = await asyncio.gather(world.user(), world.lawyer(own.choice(_RATES)))
        pair = Pair(user, lawyer, own)
        await pair.begin("5.00" if number % 6 == 0 else "500.00")
        return pair

    # Drawn in order: the seed alone says who does what.
    return await asyncio.gather(*(pair_of(n, random.Random(rng.random())) for n in range(count)))
