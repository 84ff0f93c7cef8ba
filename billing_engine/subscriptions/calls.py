"""AI calls: checked and held before, passed on as they are, captured from the provider's own count after (SPEC 10).

The hold is the promise that the call is paid. It is closed by whoever gets to it: the request when the provider has answered, also
when its caller has gone; a stream's own watch, when nobody reads it; `heal`, as it ended, when the store failed then; after a crash,
recovery, from what the hold knows of the stream. A close decides once; the log copies it.
"""
# ruff: noqa: SLF001 - a call and its stream are one thing in two classes

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from billing_engine.clock import Clock, Moment, Timer
from billing_engine.errors import BillingError, InvariantBroken, Unavailable
from billing_engine.ledger.accounts import ai_credits_of
from billing_engine.ledger.model import Account, Entry, Hold, extend_hold
from billing_engine.ledger.ports import OpenHold
from billing_engine.ledger.service import Ledger
from billing_engine.money import AI_CREDIT
from billing_engine.subscriptions.account import (
    CALL_HOLDS,
    Outcome,
    Plan,
    Wanted,
    begin_call,
    end_call,
    hold_id_of,
    plan_of,
)
from billing_engine.subscriptions.catalogue import ModelPrices, Tiers
from billing_engine.subscriptions.errors import AiUnavailable, ModelWithoutPrice, ProviderUnknown
from billing_engine.subscriptions.model import ModelPrice, Provider, Tokens
from billing_engine.subscriptions.ports import (
    AiAnswer,
    AiProvider,
    AiRequest,
    AiStream,
    CallRow,
    CallRows,
)

log = logging.getLogger(__name__)

_ASSET: Final = AI_CREDIT.code
#: How often a stream's progress is written into its hold: what a crash can lose of it.
EVIDENCE_EVERY_MS: Final = 2_000
#: How long a stream waits to be read, first and between two pieces. A slower reader keeps credits held and a provider busy.
FIRST_READ_MS: Final = 5_000
NEXT_READ_MS: Final = 30_000
_OK: Final = range(200, 300)


@dataclass(frozen=True, slots=True)
class Settled:
    """A call that has ended: its log, and the account as it is then."""

    row: CallRow
    plan: Plan
    remaining_milli: int


@dataclass(slots=True)
class _Call:
    """A call under way."""

    id: str
    user_id: str
    request: AiRequest
    price: ModelPrice
    hold: Hold
    row: CallRow
    logged: "asyncio.Task[None]"
    evidence_at_ms: int


@dataclass(slots=True)
class _Caller:
    """Who waits for the answer."""

    is_gone: bool = False


@dataclass(frozen=True, slots=True)
class _Ended:
    """A call that has ended, and what is to be written of it."""

    call: _Call
    outcome: Outcome


class AiCalls:
    """The use cases. `owner` names this process in the holds."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Clock,
        rows: CallRows,
        tiers: Tiers,
        prices: ModelPrices,
        providers: Mapping[Provider, AiProvider],
        owner: str,
        new_id: Callable[[], str],
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._rows = rows
        self._tiers = tiers
        self._prices = prices
        self._providers = providers
        self._owner = owner
        self._new_id = new_id
        self._tasks: set[asyncio.Task[Any]] = set()
        self._under_way: set[str] = set()
        #: Ended, and the store would not have it: only this process knows how.
        self._unsettled: dict[str, _Ended] = {}
        self._streams: set[MeteredStream] = set()

    # -- calling -----------------------------------------------------------------------------------------------------

    async def call(
        self, user_id: str, provider: str, *, body: bytes, query: Mapping[str, str]
    ) -> "tuple[AiAnswer, Settled] | MeteredStream":
        """Make the call. A whole answer comes with what it cost; a stream is metered as it is read.

        Raises:
            ProviderUnknown, ModelWithoutPrice, AiRequestInvalid: nothing was asked of the provider.
            NotEnoughCredits, LimitExceeded, TooManyCalls, ProviderNotAvailable, ModelNotAvailable: the same.
            AiUnavailable: the provider did not answer; nothing was charged.
        """
        adapter = self._adapter(provider)
        request = adapter.read(body, query)
        price = self._prices.price_of(request.provider, request.model)
        if price is None:
            raise ModelWithoutPrice(field="model", problem="has no price here")
        most, caller = adapter.most(request, price), _Caller()
        # A hold that is being written cannot be taken back, and then somebody pays the provider: it goes on without its caller.
        task = asyncio.create_task(self._made(user_id, request, price, most, caller), name="ai-call")
        self._keep(task)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            caller.is_gone = True
            task.add_done_callback(self._nobody_reads)
            raise

    def _nobody_reads(self, task: "asyncio.Task[tuple[AiAnswer, Settled] | MeteredStream]") -> None:
        if (
            not task.cancelled()
            and task.exception() is None
            and isinstance(stream := task.result(), MeteredStream)
        ):
            stream.leave()

    def _adapter(self, name: str) -> AiProvider:
        try:
            return self._providers[Provider(name)]
        except (ValueError, KeyError):
            raise ProviderUnknown(provider=name) from None

    async def _begin(self, user_id: str, request: AiRequest, price: ModelPrice, most: Tokens) -> _Call:
        wanted = Wanted(self._new_id(), self._owner, price, most)
        # Before the hold can be seen: `heal` gives back those of ours that nobody knows here.
        self._under_way.add(wanted.call_id)

        def change(account: Account, known: Entry | None) -> tuple[Account, Hold]:
            return begin_call(account, known, wanted=wanted, tiers=self._tiers, moment=self._moment())

        try:
            hold: Hold = await self._ledger.change(
                ai_credits_of(user_id), _ASSET, change, source=hold_id_of(wanted.call_id)
            )
        except BaseException:
            self._under_way.discard(wanted.call_id)
            raise
        row = CallRow(
            id=wanted.call_id,
            user_id=user_id,
            provider=request.provider.value,
            model=request.model,
            tier=hold.facts["tier"],
            started_at_ms=hold.facts["startedAt"],
        )
        # While the provider thinks: it is in the log before the call can end.
        logged = asyncio.create_task(self._rows.add(row), name="ai-call-row")
        return _Call(
            wanted.call_id, user_id, request, price, hold, row, logged, evidence_at_ms=row.started_at_ms
        )

    async def _made(
        self, user_id: str, request: AiRequest, price: ModelPrice, most: Tokens, caller: _Caller
    ) -> "tuple[AiAnswer, Settled] | MeteredStream":
        call = await self._begin(user_id, request, price, most)
        if caller.is_gone:
            # Nothing has been asked of the provider yet, and nobody waits for it.
            await self._end(call, None, "GONE")
            raise AiUnavailable(provider=request.provider.value, why="the caller has gone")
        adapter = self._providers[request.provider]
        try:
            if call.request.is_stream:
                answer = await adapter.stream(call.request)
            else:
                answer = await adapter.call(call.request)
        except AiUnavailable:
            await self._end(call, None, "UNAVAILABLE")
            raise
        except BaseException:
            await self._end(call, None, "FAILED")
            raise
        if not isinstance(answer, AiAnswer):
            return MeteredStream(self, call, answer)
        if answer.status not in _OK:
            return answer, await self._end(call, None, f"HTTP_{answer.status}")
        if answer.tokens is None:
            log.error("a provider's answer has no count; nothing was charged", extra={"call": call.id})
            return answer, await self._end(call, None, "NOT_COUNTED")
        return answer, await self._end(call, answer.tokens, "OK")

    # -- ending ------------------------------------------------------------------------------------------------------

    async def _end(
        self, call: _Call, tokens: Tokens | None, outcome: str, *, is_counted: bool = True
    ) -> Settled:
        latency_ms = self._clock.now_ms() - call.row.started_at_ms
        facts = {"outcome": outcome, "latencyMs": latency_ms}
        ended = _Ended(call, Outcome(tokens, facts, is_counted))
        try:
            settled = await self._settle(ended)
        except BillingError:
            self._unsettled[call.id] = ended
            log.exception("a call is settled later", extra={"call": call.id})
            raise
        finally:
            self._under_way.discard(call.id)
        try:
            await self._rows.finish(settled.row)
        except BillingError:
            # It is paid: the answer is not kept back for its log.
            self._unsettled[call.id] = ended
            log.exception("a call's log is finished later", extra={"call": call.id})
        return settled

    async def _settle(self, ended: _Ended) -> Settled:
        """Its row first: what is charged is in the log. Repeating it changes nothing."""
        call = ended.call
        try:
            await call.logged
        except BillingError:
            await self._rows.add(call.row)
        entry, account = await self._closed(call.user_id, call.hold, ended.outcome)
        return Settled(row_of(call.row, entry), plan_of(account), account.spendable)

    async def _closed(self, user_id: str, hold: Hold, outcome: Outcome) -> tuple[Entry, Account]:
        """Close the hold by the prices that it was opened with."""
        facts = hold.facts
        price = ModelPrice(
            Provider(facts["provider"]),
            facts["model"],
            Decimal(facts["inputPrice"]),
            Decimal(facts["outputPrice"]),
            0,
            0,
        )

        def change(account: Account, known: Entry | None) -> tuple[Account, tuple[Entry, Account]]:
            open_now = account.holds.get(hold.id)
            if known is None and open_now is None:
                raise InvariantBroken(rule="a call's hold is there until its close", hold=hold.id)
            after, entry = end_call(
                account,
                known,
                hold=open_now or hold,
                outcome=outcome,
                price=price,
                markup=Decimal(facts["markup"]),
                moment=self._moment(),
            )
            return after, (entry, after)

        found: tuple[Entry, Account] = await self._ledger.change(
            ai_credits_of(user_id), _ASSET, change, source=hold.id
        )
        return found

    async def _note(self, call: _Call, produced: Tokens) -> None:
        """What a stream has produced so far, into its hold."""

        def change(account: Account, _known: Entry | None) -> tuple[Account, Hold | None]:
            hold = account.holds.get(call.hold.id)
            if hold is None:
                return account, None
            facts = {
                **hold.facts,
                "seen": [produced.input, produced.output],
                "evidenceAt": self._clock.now_ms(),
            }
            return extend_hold(account, hold, n=hold.n + 1, amount_minor=hold.amount_minor, facts=facts)

        await self._ledger.change(ai_credits_of(call.user_id), _ASSET, change)

    # -- recovery ----------------------------------------------------------------------------------------------------

    async def settle_own(self) -> int:
        """Settle what this process has begun and the store would not have: calls that have ended, as they ended, and holds of which
        nobody was told that they are there. Only this process can: the others see that it lives. Raises `Unavailable`.
        """
        settled = 0
        for call_id, ended in list(self._unsettled.items()):
            await self._rows.finish((await self._settle(ended)).row)
            self._unsettled.pop(call_id, None)
            settled += 1
        for found in await self._ledger.open_holds(CALL_HOLDS, owner=self._owner):
            call_id = found.hold_id.removeprefix(CALL_HOLDS)
            if call_id not in self._under_way and call_id not in self._unsettled:
                settled += await self._abandoned(found)
        return settled

    async def heal(self, *, may_live: Callable[[str], bool], abandoned_after_ms: int = 900_000) -> int:
        """Settle our own, and calls whose process is gone, from what their holds know; finish the log of those that are settled.
        Raises `Unavailable`.
        """
        settled = await self.settle_own()
        for found in await self._ledger.open_holds(CALL_HOLDS):
            if found.owner != self._owner and not may_live(found.owner):
                settled += await self._abandoned(found)
        before_ms = self._clock.now_ms() - abandoned_after_ms
        for row in await self._rows.open_before(before_ms, limit=500):
            if row.id in self._under_way:
                continue
            entry = await self._ledger.entry(ai_credits_of(row.user_id), hold_id_of(row.id))
            if entry is not None:
                await self._rows.finish(row_of(row, entry))
                settled += 1
        return settled

    async def _abandoned(self, found: OpenHold) -> bool:
        """Close a hold that nobody will close; whether it was still there."""
        account = await self._ledger.account(found.account_id, _ASSET)
        hold = account.holds.get(found.hold_id)
        if hold is None:
            return False
        user_id = found.account_id.partition(":")[2]
        row = _row_of_hold(user_id, hold)
        await self._rows.add(row)
        seen = Tokens(*hold.facts["seen"])
        latency_ms = int(hold.facts["evidenceAt"]) - row.started_at_ms
        outcome = Outcome(
            seen if seen.total else None,
            {"outcome": "ABANDONED", "latencyMs": max(0, latency_ms)},
            is_counted=False,
        )
        entry, _ = await self._closed(user_id, hold, outcome)
        await self._rows.finish(row_of(row, entry))
        return True

    async def stop(self) -> None:
        """End the streams that are still open; wait for the calls under way."""
        for stream in list(self._streams):
            stream.leave()
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def _keep(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._gone)

    def _gone(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Its caller may have gone: what it was told is in the log.
            task.exception()

    def _moment(self) -> Moment:
        at_ms = self._clock.now_ms()
        return Moment(at_ms, self._ledger.day_of(at_ms))


class MeteredStream:
    """A provider's stream, passed on chunk by chunk and metered: `pieces` is read once. The call ends with it, however it ends."""

    def __init__(self, calls: AiCalls, call: _Call, stream: AiStream) -> None:
        self._calls = calls
        self._call = call
        self._stream = stream
        self.content_type = stream.content_type
        #: What it cost, once it has ended.
        self.settled: Settled | None = None
        self._ending: asyncio.Task[None] | None = None
        #: Since when, and until when, it waits for its reader; None: it waits for the provider.
        self._reader_by_ms: int | None = calls._clock.now_ms() + FIRST_READ_MS
        self._watch: Timer = calls._clock.call_at_ms(self._reader_by_ms, self._look_for_reader)
        calls._streams.add(self)

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The bytes as they come. Closed early, the caller pays what was produced.

        Raises `AiUnavailable`: the provider broke off; what it has counted or produced is paid. The same where the reader was away for
        too long.
        """
        outcome = "GONE"
        self._reader_by_ms = None
        try:
            if self._ending is None:
                async for piece in self._stream:
                    self._reader_by_ms = self._calls._clock.now_ms() + NEXT_READ_MS
                    yield piece
                    self._reader_by_ms = None
                    if self._ending is not None:
                        break
                    await self._evidence()
            if self._ending is not None:
                raise AiUnavailable(provider=self._call.row.provider, why="it was not read in time")  # noqa: TRY301
            outcome = "OK"
        except AiUnavailable:
            outcome = "BROKEN_OFF"
            raise
        finally:
            await self._end(outcome)

    def leave(self) -> None:
        """Nobody will read it any more: end it, in the background."""
        self._begin_end("GONE")

    async def close(self) -> None:
        """The same, and wait for it."""
        await asyncio.shield(self._begin_end("GONE"))

    def _look_for_reader(self) -> None:
        clock = self._calls._clock
        now_ms, by_ms = clock.now_ms(), self._reader_by_ms
        if by_ms is not None and by_ms <= now_ms:
            log.warning("a stream is not read", extra={"call": self._call.id})
            self.leave()
            return
        self._watch = clock.call_at_ms(
            now_ms + NEXT_READ_MS if by_ms is None else by_ms, self._look_for_reader
        )

    async def _evidence(self) -> None:
        now_ms = self._calls._clock.now_ms()
        if now_ms - self._call.evidence_at_ms < EVIDENCE_EVERY_MS:
            return
        self._call.evidence_at_ms = now_ms
        try:
            await self._calls._note(self._call, self._stream.produced)
        except Unavailable as exc:
            # It is for a crash alone: the stream goes on.
            log.warning("a stream's progress is noted later: %r", exc, extra={"call": self._call.id})

    def _begin_end(self, outcome: str) -> "asyncio.Task[None]":
        if self._ending is None:
            self._watch.cancel()
            self._calls._streams.discard(self)
            self._ending = asyncio.create_task(self._ended(outcome), name="ai-stream-end")
            self._calls._keep(self._ending)
        return self._ending

    async def _end(self, outcome: str) -> None:
        await asyncio.shield(self._begin_end(outcome))

    async def _ended(self, outcome: str) -> None:
        try:
            await self._stream.close()
        finally:
            counted = self._stream.counted
            tokens = counted or self._stream.produced
            # What broke off before anything was produced has cost nothing.
            paid = tokens if outcome != "BROKEN_OFF" or tokens.output else None
            self.settled = await self._calls._end(self._call, paid, outcome, is_counted=counted is not None)


def row_of(row: CallRow, entry: Entry) -> CallRow:
    """The log's row as the entry tells it."""
    facts = entry.facts
    return replace(
        row,
        is_open=False,
        outcome=str(facts.get("outcome", "VOID")),
        day=entry.day,
        ended_at_ms=entry.at_ms,
        input_tokens=int(facts.get("input", 0)),
        output_tokens=int(facts.get("output", 0)),
        tokens=int(facts.get("input", 0)) + int(facts.get("output", 0)),
        cost_minor=int(facts.get("costMinor", 0)),
        credits_milli=int(facts.get("creditsMilli", 0)),
        loss_milli=int(facts.get("lossMilli", 0)),
        latency_ms=int(facts.get("latencyMs", 0)),
    )


def _row_of_hold(user_id: str, hold: Hold) -> CallRow:
    return CallRow(
        id=hold.id.removeprefix(CALL_HOLDS),
        user_id=user_id,
        provider=hold.facts["provider"],
        model=hold.facts["model"],
        tier=hold.facts["tier"],
        started_at_ms=hold.facts["startedAt"],
    )
