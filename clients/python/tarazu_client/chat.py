"""One session's conversation on one device, through lost connections."""

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol, cast

from tarazu_client.backoff import Backoff
from tarazu_client.errors import AckTimeout, ConnectionLost, Refused
from tarazu_client.marks import Mark, Marks, State
from tarazu_client.outbox import WINDOW, Draft, Outbox
from tarazu_client.receipts import Receipts
from tarazu_client.sent import Sent
from tarazu_client.sequence import Sequence
from tarazu_client.storage import Storage
from tarazu_client.wire import BillView, JoinAck, MessageView

log = logging.getLogger("tarazu_client")

#: An acknowledgement that takes longer is not waited for; the event is sent again.
ACK_S: Final = 5.0
#: Of one join; the server takes no more.
_PENDING_IDS: Final = 50
#: What is missing may be on its way: two processes tell in no common order. After this it is asked for.
_GRACE_S: Final = 0.5
#: Receipts of this long are one event.
_COALESCE_S: Final = 0.3
#: The same news of typing is told once in so long.
_TYPING_S: Final = 2.0
_OVER: Final = frozenset({"ENDED", "FORCE_ENDED"})

OnMessage = Callable[[MessageView], object]
Json = dict[str, Any]


class Wire(Protocol):
    """What a chat needs of the connection."""

    @property
    def is_up(self) -> bool: ...
    @property
    def is_leaving(self) -> bool: ...
    async def ask(self, event: str, payload: Any, *, timeout_s: float) -> "asyncio.Future[Any]": ...


class Chat:
    """Messages go to `on_message` exactly once and in the order of their `seq`, one's own included; what is said is stored exactly
    once. `bill` is the last that was told of the session's bill.

    Made by `Client.open`. `after_seq`: the last message that the app has already.
    """

    def __init__(
        self,
        wire: Wire,
        session_id: str,
        *,
        user_id: str,
        storage: Storage,
        on_message: OnMessage,
        on_marks: Callable[[str, Mark], object],
        on_failed: Callable[[Draft, Refused], object],
        after_seq: int,
        window: int = WINDOW,
    ) -> None:
        self.session_id = session_id
        self.bill: BillView | None = None
        self._wire = wire
        self._me = user_id
        self._storage = storage
        self._on_message = on_message
        self._on_marks = on_marks
        self._on_failed = on_failed
        self._sequence = Sequence(after_seq)
        self._outbox = Outbox(window=window)
        self._marks = Marks()
        self._receipts = Receipts()
        self._sent: dict[str, Sent] = {}
        self._backoff = Backoff()
        self._saying = asyncio.Lock()
        self._joined = asyncio.Event()
        self._stale = asyncio.Event()
        self._more = asyncio.Event()
        self._to_tell = asyncio.Event()
        self._forgettable: list[str] = []
        self._to_forget = asyncio.Event()
        self._empty = asyncio.Event()
        self._behind: asyncio.TimerHandle | None = None
        self._behind_seq = 0
        self._typed: tuple[bool, float] = (False, 0.0)
        self._tasks: list[asyncio.Task[None]] = []
        self._refused: Refused | None = None
        #: Another one with every connection: an answer of the last one says nothing about this one.
        self._life = 0

    # -- what the app does -----------------------------------------------------------------------------------------

    @property
    def last_seq(self) -> int:
        """The last message that the app was given."""
        return self._sequence.last_seq

    @property
    def waiting(self) -> int:
        """How many messages are not known to be stored."""
        return len(self._outbox)

    async def joined(self) -> None:
        """Return once everything that was missed is here. Raises `Refused`: the server does not let this person in."""
        await self._joined.wait()
        if self._refused is not None:
            raise self._refused

    async def send(self, body: str, *, client_msg_id: str | None = None) -> Sent:
        """Say it: returns once it is in the outbox, with or without a connection. Await what is returned to know it is stored.

        Raises `ValueError`: a message of that `client_msg_id` is waiting already.
        """
        draft = Draft(self.session_id, client_msg_id or str(uuid.uuid4()), body)
        async with self._saying:
            if draft.client_msg_id in self._outbox:
                raise ValueError(f"clientMsgId {draft.client_msg_id!r} is waiting already")
            await self._storage.put(draft)
            sent = self._sent[draft.client_msg_id] = Sent(draft)
            self._outbox.add(draft)
        self._more.set()
        return sent

    async def flushed(self) -> None:
        """Return once nothing waits in the outbox."""
        while self._outbox:
            self._empty.clear()
            await self._empty.wait()

    def drafts(self) -> list[Draft]:
        """What waits, in the order in which it was said."""
        return list(self._outbox)

    def seen(self, upto_seq: int | None = None) -> None:
        """The person has read everything up to it (default: all that the app was given)."""
        self._receipts.seen(self.last_seq if upto_seq is None else upto_seq)
        self._to_tell.set()

    async def typing(self, *, is_typing: bool = True) -> None:
        """Tell the other side, if there is a connection. Call it at every key; it is told now and then."""
        now_s = asyncio.get_running_loop().time()
        was, at_s = self._typed
        if self._joined.is_set() and (is_typing != was or now_s - at_s >= _TYPING_S):
            self._typed = (is_typing, now_s)
            await self._ask("typing", {"isTyping": is_typing})

    def state(self, message: MessageView) -> State:
        """Of a message, as of now."""
        return self._marks.state(message["seq"], message["senderId"])

    def mark(self, user_id: str) -> Mark:
        """How far a person has received and read."""
        return self._marks.of(user_id)

    # -- what the client does --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the outbox and go to work."""
        for draft in await self._storage.load(self.session_id):
            self._outbox.add(draft)
            self._sent[draft.client_msg_id] = Sent(draft)
        works = (self._keep_up(), self._post(), self._report(), self._forget())
        self._tasks = [asyncio.create_task(self._unless_it_fails(work)) for work in works]
        self._stale.set()

    async def close(self) -> None:
        """Stop; what waits in the outbox stays in the storage."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._behind is not None:
            self._behind.cancel()
        if self._forgettable:
            await self._storage.drop(self.session_id, self._forgettable)

    def went_up(self) -> None:
        self._life += 1
        self._stale.set()

    def went_down(self) -> None:
        self._life += 1
        if self._refused is None:
            self._joined.clear()
        self._outbox.lost()

    def hear(self, event: str, payload: Json) -> None:
        """An event that names this session."""
        if event == "new_message":
            self._take(cast("MessageView", payload))
        elif event == "message_status":
            self._take_marks(payload["userId"], payload)
        elif event.startswith("session:") and "totalAmount" in payload:
            self._take_bill(cast("BillView", payload))

    # -- catching up -----------------------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        """Join when there is a connection, and again whenever something is missing."""
        while True:
            await self._stale.wait()
            self._stale.clear()
            if not self._wire.is_up:
                continue  # the next connection asks again
            try:
                await self._catch_up()
            except ConnectionLost:
                continue
            except AckTimeout:
                self._stale.set()
            except Refused as exc:
                if not exc.retryable:
                    log.warning("%s cannot be joined: %s", self.session_id, exc)
                    self._refused = exc
                    self._joined.set()
                    return
                await asyncio.sleep(self._backoff.after_s(exc.retry_after_ms))
                self._stale.set()

    async def _catch_up(self) -> None:
        life = self._life
        has_more = True
        while has_more:
            pending = [] if self._joined.is_set() else self._outbox.first_ids(_PENDING_IDS)
            payload = {"afterSeq": self.last_seq, "pendingIds": pending}
            before = self.last_seq
            ack: JoinAck = await (await self._ask("join_session", payload))
            for message in ack["messages"]:
                self._take(message)
            for client_msg_id, stored in ack["stored"].items():
                self._stored(client_msg_id, stored["seq"])
            for user_id, told in ack["watermarks"].items():
                self._take_marks(user_id, told)
            self._take_bill(ack["billing"])
            # More is promised and nothing came: the rest will be asked for when it is missed.
            has_more = ack["hasMore"] and self.last_seq > before
        if life != self._life:
            return  # the connection was lost while we read; the next one joins
        self._joined.set()
        self._more.set()
        self._to_tell.set()

    def _miss(self, seq: int) -> None:
        """There is a message `seq`; unless it comes by itself it will be asked for."""
        self._behind_seq = max(self._behind_seq, seq)
        if self._behind is None and seq > self.last_seq:
            self._behind = asyncio.get_running_loop().call_later(_GRACE_S, self._look_behind)

    def _look_behind(self) -> None:
        self._behind = None
        if self.last_seq < self._behind_seq:
            self._stale.set()

    # -- what comes ------------------------------------------------------------------------------------------------

    def _take(self, message: MessageView) -> None:
        for ready in self._sequence.take(message):
            if ready["senderId"] == self._me:
                # It came back: it is stored, whether or not the acknowledgement comes.
                self._stored(ready["clientMsgId"], ready["seq"])
            else:
                self._receipts.arrived(ready["seq"])
                self._to_tell.set()
            _give(self._on_message, ready)
        if self._sequence.is_waiting:
            self._miss(message["seq"])

    def _take_marks(self, user_id: str, told: Any) -> None:
        if self._marks.take(user_id, told):
            _give(self._on_marks, user_id, self._marks.of(user_id))

    def _take_bill(self, bill: BillView) -> None:
        if self.bill is not None and self.bill["status"] in _OVER and bill["status"] not in _OVER:
            return  # a late word; what is over stays over
        self.bill = bill
        last_seq = bill.get("lastSeq")
        if isinstance(last_seq, int) and last_seq > self.last_seq:
            self._miss(last_seq)
        if bill["status"] == "ACTIVE" and self._outbox.wait_s(self._now_s()) is not None:
            # It may have been refused because the session was not served just then.
            self._outbox.now()
            self._more.set()

    # -- the outbox ------------------------------------------------------------------------------------------------

    async def _post(self) -> None:
        while True:
            wait_s = self._outbox.wait_s(self._now_s())
            try:
                async with asyncio.timeout(wait_s):
                    await self._more.wait()
            except TimeoutError:
                pass
            self._more.clear()
            while self._joined.is_set() and self._wire.is_up and not self._wire.is_leaving:
                draft = self._outbox.next(self._now_s())
                if draft is None:
                    break
                payload = {"clientMsgId": draft.client_msg_id, "body": draft.body}
                answer = await self._ask("send_message", payload)
                answer.add_done_callback(partial(self._answered, draft))

    def _answered(self, draft: Draft, answer: "asyncio.Future[Any]") -> None:
        exc = None if answer.cancelled() else answer.exception()
        if exc is None:
            self._backoff.reset()
            self._stored(draft.client_msg_id, answer.result()["seq"])
        elif isinstance(exc, ConnectionLost):
            return  # the next connection asks about it
        elif isinstance(exc, AckTimeout):
            self._outbox.again(draft.client_msg_id)
        elif isinstance(exc, Refused):
            self._was_refused(draft, exc)
        self._more.set()

    def _was_refused(self, draft: Draft, exc: Refused) -> None:
        over = self.bill is not None and self.bill["status"] in _OVER
        if exc.retryable or (exc.code == "SESSION_NOT_ACTIVE" and not over):
            wait_s = self._backoff.after_s(exc.retry_after_ms)
            self._outbox.again(draft.client_msg_id, not_before_s=self._now_s() + wait_s)
            if not exc.retryable:
                self._stale.set()  # is it over, or not served for the moment? The next join says so.
        elif self._outbox.failed(draft.client_msg_id) is not None:
            self._sent.pop(draft.client_msg_id).failed(exc)
            self._done_with(draft.client_msg_id)
            _give(self._on_failed, draft, exc)

    def _stored(self, client_msg_id: str, seq: int) -> None:
        if self._outbox.stored(client_msg_id) is not None:
            self._sent.pop(client_msg_id).stored(seq)
            self._done_with(client_msg_id)
            self._more.set()

    def _done_with(self, client_msg_id: str) -> None:
        self._forgettable.append(client_msg_id)
        self._to_forget.set()
        if not self._outbox:
            self._empty.set()

    async def _forget(self) -> None:
        """Out of the storage, as many at once as there are."""
        while True:
            await self._to_forget.wait()
            self._to_forget.clear()
            # They stay in the list until it is done: `close` may come between.
            done = list(self._forgettable)
            await self._storage.drop(self.session_id, done)
            del self._forgettable[: len(done)]

    # -- receipts --------------------------------------------------------------------------------------------------

    async def _report(self) -> None:
        while True:
            await self._to_tell.wait()
            await asyncio.sleep(_COALESCE_S)
            self._to_tell.clear()
            while self._joined.is_set() and (report := self._receipts.due(self._marks.of(self._me))):
                try:
                    ack = await (await self._ask(report.event, {"uptoSeq": report.upto_seq}))
                except ConnectionLost:
                    break
                except (AckTimeout, Refused) as exc:
                    if isinstance(exc, Refused) and not exc.retryable:
                        log.warning("%s was refused: %s", report.event, exc)
                        break
                    self._to_tell.set()
                    break
                before = self._marks.of(self._me)
                self._take_marks(self._me, ack)
                if self._marks.of(self._me) == before:
                    break  # it does not know the message yet; the next one says it again

    # -- small ones ------------------------------------------------------------------------------------------------

    async def _ask(self, event: str, payload: Json) -> "asyncio.Future[Any]":
        return await self._wire.ask(event, {"sessionId": self.session_id, **payload}, timeout_s=ACK_S)

    async def _unless_it_fails(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            log.exception("the chat of %s has stopped working", self.session_id)
            raise

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()


def _give(callback: Callable[..., object], *facts: Any) -> None:
    """The app's trouble is not the chat's."""
    try:
        callback(*facts)
    except Exception:
        log.exception("the app's handler failed")
