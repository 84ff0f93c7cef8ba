"""Charging usages: company by company in the order in which they came, many in one write, a recharge in between where it is due.

A company's usages stand in one line of this process. What is decided about one is the ledger's, once per usage, so two processes that
charge for the same company only share its account; the line is there for the order, and so that a thousand usages that find the wallet
empty wait for one recharge and not for a thousand.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from billing_engine.clock import Clock, Moment
from billing_engine.errors import BillingError, Unavailable
from billing_engine.ledger.accounts import company_wallet_of
from billing_engine.ledger.model import Account, Entry
from billing_engine.ledger.service import Ledger
from billing_engine.usage.book import Short, charge
from billing_engine.usage.model import Usage
from billing_engine.usage.recharges import Recharges

#: Usages that are decided together; of a chunk that finds the wallet empty, this many are decided twice.
_CHUNK: Final = 200


@dataclass(slots=True)
class _Waiting:
    """A usage in its line, and whoever waits for its entry."""

    usage: Usage
    zone_day: Callable[[int], str]
    done: "asyncio.Future[Entry]"


class Charging:
    """The lines of all companies."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        clock: Clock,
        recharges: Recharges,
        asset: str,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._recharges = recharges
        self._asset = asset
        self._lines: dict[str, deque[_Waiting]] = {}
        self._workers: set[asyncio.Task[None]] = set()

    def charge(self, usage: Usage, zone_day: Callable[[int], str]) -> "asyncio.Future[Entry]":
        """Put the usage into its company's line; the future has its entry once it is durable. `zone_day` is the company's day of an
        instant.

        The future raises:
            Unavailable: the outcome is unknown; the same usage again is safe.
        """
        done: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        line = self._lines.get(usage.company_id)
        if line is None:
            line = self._lines[usage.company_id] = deque()
            worker = asyncio.create_task(self._work(usage.company_id, line), name="usages")
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        line.append(_Waiting(usage, zone_day, done))
        return done

    async def stop(self) -> None:
        """Wait until the lines are empty. What a gateway does not answer in time is owed, so this ends."""
        while self._workers:
            await asyncio.wait(set(self._workers))

    async def _work(self, company_id: str, line: deque[_Waiting]) -> None:
        try:
            while line:
                chunk = [line.popleft() for _ in range(min(len(line), _CHUNK))]
                if short := await self._decide(chunk, waits=True):
                    await self._recharged(company_id, line, short)
        except BaseException as end:
            for waiting in line:
                _fail(waiting, end)
            raise
        finally:
            # Nothing is awaited between the last look at the line and this: who comes next begins a new one.
            del self._lines[company_id]

    async def _recharged(self, company_id: str, line: deque[_Waiting], short: Sequence[_Waiting]) -> None:
        """Carry out the recharge that these wait for. Whatever comes of it, their next try decides: it is paid, or it is owed."""
        try:
            has_more = await self._recharges.pursue(company_id)
        except Unavailable as unknown:
            # Owed, they would leave a recharge open that nobody is at. Not charged, they come again, and it with them.
            for waiting in short:
                _fail(waiting, unknown)
            return
        if has_more:
            # They keep their place.
            line.extendleft(reversed(short))
        else:
            await self._decide(short, waits=False)

    async def _decide(self, chunk: Sequence[_Waiting], *, waits: bool) -> list[_Waiting]:
        """Decide these in order, in one write; those that wait for a recharge."""
        account_id = company_wallet_of(chunk[0].usage.company_id)
        asked: list[tuple[_Waiting, asyncio.Future[Entry | Short]]] = []
        for waiting in chunk:
            try:
                change = self._change_for(waiting, waits=waits)
                future = self._ledger.change(account_id, self._asset, change, source=waiting.usage.source)
            except BillingError as full:
                _fail(waiting, full)
            else:
                asked.append((waiting, future))
        await asyncio.gather(*(future for _, future in asked), return_exceptions=True)
        short = []
        for waiting, future in asked:
            if (error := future.exception()) is not None:
                _fail(waiting, error)
            elif isinstance(answer := future.result(), Short):
                short.append(waiting)
            elif not waiting.done.done():
                waiting.done.set_result(answer)
        return short

    def _change_for(
        self, waiting: _Waiting, *, waits: bool
    ) -> Callable[[Account, Entry | None], tuple[Account, Entry | Short]]:
        recharge_id = self._recharges.new_id()
        usage, zone_day = waiting.usage, waiting.zone_day

        def change(account: Account, known: Entry | None) -> tuple[Account, Entry | Short]:
            at_ms = self._clock.now_ms()
            return charge(
                account,
                known,
                usage=usage,
                moment=Moment(at_ms, zone_day(at_ms)),
                recharge_id=recharge_id,
                largest_recharge_minor=self._recharges.rules.max_minor,
                waits=waits,
            )

        return change


def _fail(waiting: _Waiting, error: BaseException) -> None:
    if waiting.done.done():
        return
    waiting.done.set_exception(error)
    # Whoever has stopped waiting does not ask: the usage is stored, and charged again by the worker.
    waiting.done.exception()
