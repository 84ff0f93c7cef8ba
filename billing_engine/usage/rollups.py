"""What was used, by day, by type and by job: sums that are there before anybody asks (LEDGER 8).

The truth is the ledger's entries of the company's wallet, numbered without a gap. A counter adds up those of one month and one job (or
of the whole company) and says up to which number; it is raised by compare-and-set, so that no entry is counted twice, whoever
counts. Nobody waits for counting: a reader adds the entries that came after what is counted. So an answer has every usage that was
charged before the question, and costs the length of the answer.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from billing_engine.errors import Unavailable
from billing_engine.ledger.accounts import company_wallet_of
from billing_engine.ledger.model import Entry, KeyState, quantity_of
from billing_engine.ledger.rivals import ATTEMPTS, let_rivals_finish
from billing_engine.ledger.service import Ledger
from billing_engine.usage.model import is_usage_kind
from billing_engine.usage.series import Kind, Series, Spending

#: Entries that are counted in one go; a reader that finds more of them uncounted has them counted first.
CHUNK: Final = 500
#: The scope of the whole company. A job's id is never empty.
WHOLE: Final = ""


@dataclass(frozen=True, slots=True)
class Counter:
    """A month (YYYY-MM) of one scope of a company, with every entry up to number `seq`."""

    company_id: str
    month: str
    scope: str
    seq: int
    series: Mapping[Kind, Series]


@dataclass(frozen=True, slots=True)
class Spent:
    """What one scope used from the first day to the last, both included; `months` may know more than these days."""

    first_day: str
    last_day: str
    months: Mapping[str, Mapping[Kind, Series]]

    def by_kind(self, type_: str | None = None) -> dict[Kind, Spending]:
        """All days together; of one type, or of all. What was not used is left out."""
        sums: dict[Kind, Spending] = {}
        for month, kinds in self.months.items():
            first, last = self._days_of(month)
            for kind, series in kinds.items():
                if type_ in (None, kind.type) and (found := series.within(first, last)).uses:
                    sums[kind] = sums[kind].plus(found) if kind in sums else found
        return sums

    def by_day(self, type_: str | None = None) -> dict[str, dict[Kind, Spending]]:
        """By day (YYYY-MM-DD); a day on which nothing was used is left out."""
        days: dict[str, dict[Kind, Spending]] = {}
        for month, kinds in self.months.items():
            first, last = self._days_of(month)
            for kind, series in kinds.items():
                if type_ in (None, kind.type):
                    for day, spending in series.by_day().items():
                        if first <= day <= last:
                            days.setdefault(f"{month}-{day}", {})[kind] = spending
        return days

    def _days_of(self, month: str) -> tuple[str, str]:
        """The first and the last day of the month that are asked for."""
        first = self.first_day[_DAY:] if self.first_day[:_MONTH] == month else "01"
        last = self.last_day[_DAY:] if self.last_day[:_MONTH] == month else "31"
        return first, last


#: Of YYYY-MM-DD: where the month ends, and where the day begins.
_MONTH: Final = len("2026-01")
_DAY: Final = len("2026-01-")


class Counters(Protocol):
    """The stored counters. All methods raise `Unavailable`."""

    async def counted_upto(self, company_id: str) -> int:
        """Every counter of the company has its entries up to this number."""
        ...

    async def raise_upto(self, company_id: str, seq: int) -> None:
        """Never lowers it."""
        ...

    async def get_many(
        self, company_id: str, months: Sequence[str], scopes: Sequence[str]
    ) -> dict[tuple[str, str], Counter]:
        """Those that exist, by (month, scope)."""
        ...

    async def put(self, counter: Counter, *, expect_seq: int) -> bool:
        """Replace the one that counts up to `expect_seq` (0: there is none); whether it was."""
        ...


class Rollups:
    """Counting and asking."""

    def __init__(self, *, ledger: Ledger, counters: Counters, asset: str) -> None:
        self._ledger = ledger
        self._counters = counters
        self._asset = asset

    async def spent(
        self, company_id: str, *, first_day: str, last_day: str, scopes: Sequence[str]
    ) -> dict[str, Spent]:
        """By scope, what was used on these days (both included). Raises `Unavailable`."""
        await self._ledger.account(company_wallet_of(company_id), self._asset)
        months = months_between(first_day, last_day)
        for _ in range(ATTEMPTS):
            # The number first: what the counters say later can only be more.
            upto = await self._counters.counted_upto(company_id)
            counters = await self._counters.get_many(company_id, months, scopes)
            tail = await self._after(company_id, upto, CHUNK)
            if len(tail) < CHUNK:
                break
            await self.count(company_id)
        else:
            raise Unavailable(reason="usages come faster than they are counted", company=company_id)
        late = _by_counter(tail)
        return {
            scope: Spent(
                first_day,
                last_day,
                {
                    month: _upto_now(counters.get((month, scope)), late.get((month, scope), ()))
                    for month in months
                },
            )
            for scope in scopes
        }

    async def count(self, company_id: str) -> int:
        """Count what is not counted; how many entries there were. Harmless at any time, by anybody."""
        total = 0
        while True:
            upto = await self._counters.counted_upto(company_id)
            entries = await self._after(company_id, upto, CHUNK)
            if not entries:
                return total
            await self._add(company_id, _by_counter(entries))
            await self._counters.raise_upto(company_id, entries[-1].seq)
            total += len(entries)
            if len(entries) < CHUNK:
                return total

    async def _after(self, company_id: str, seq: int, limit: int) -> list[Entry]:
        """The entries that follow number `seq` without a gap: of several that are being copied out a later one may be there first."""
        found = await self._ledger.entries(company_wallet_of(company_id), above=seq, limit=limit)
        return [entry for number, entry in enumerate(found, seq + 1) if entry.seq == number]

    async def _add(self, company_id: str, by_counter: Mapping[tuple[str, str], Sequence[Entry]]) -> None:
        """Raise all these counters, side by side: a store that commits many writes together commits these together."""
        left = dict(by_counter)
        for attempt in range(ATTEMPTS):
            await let_rivals_finish(attempt)
            months, scopes = ({key[part] for key in left} for part in (0, 1))
            found = await self._counters.get_many(company_id, sorted(months), sorted(scopes))
            raised: dict[tuple[str, str], tuple[Counter, int]] = {}
            for (month, scope), entries in left.items():
                counter = found.get((month, scope)) or Counter(company_id, month, scope, 0, {})
                if new := [entry for entry in entries if entry.seq > counter.seq]:
                    series = added(counter.series, new)
                    raised[month, scope] = replace(counter, seq=new[-1].seq, series=series), counter.seq
            done = await asyncio.gather(
                *(self._counters.put(counter, expect_seq=seq) for counter, seq in raised.values())
            )
            left = {key: left[key] for key, is_done in zip(raised, done, strict=True) if not is_done}
            if not left:
                return
        raise Unavailable(reason="a counter is being raised by others", company=company_id)


def scopes_of(entry: Entry) -> tuple[str, ...]:
    """Where an entry is counted: nowhere, if it is no usage."""
    if entry.state is not KeyState.POSTED or not is_usage_kind(entry.kind):
        return ()
    job = entry.facts.get("job")
    return (WHOLE,) if job is None else (WHOLE, job)


def added(series: Mapping[Kind, Series], entries: Iterable[Entry]) -> dict[Kind, Series]:
    """A month's series with these usages of the month."""
    news: dict[Kind, dict[str, list[int]]] = {}
    for entry in entries:
        days = news.setdefault(Kind(entry.facts["type"], entry.facts["unit"]), {})
        sums = days.setdefault(entry.day[_DAY:], [0, 0, 0])
        sums[0] += 1
        sums[1] += quantity_of(entry)
        sums[2] += sum([transfer.amount_minor for transfer in entry.transfers])
    changed = {
        kind: series.get(kind, Series()).plus({day: Spending(*sums) for day, sums in days.items()})
        for kind, days in news.items()
    }
    return {**series, **changed}


def months_between(first_day: str, last_day: str) -> list[str]:
    """The months (YYYY-MM) of these days, oldest first."""
    year, month = int(first_day[:4]), int(first_day[5:7])
    months = []
    while f"{year:04}-{month:02}" <= last_day[:7]:
        months.append(f"{year:04}-{month:02}")
        year, month = (year, month + 1) if month < _MONTHS else (year + 1, 1)
    return months


_MONTHS: Final = 12


def _by_counter(entries: Iterable[Entry]) -> defaultdict[tuple[str, str], list[Entry]]:
    """By (month, scope) where they are counted."""
    found: defaultdict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        for scope in scopes_of(entry):
            found[entry.day[:_MONTH], scope].append(entry)
    return found


def _upto_now(counter: Counter | None, late: Sequence[Entry]) -> Mapping[Kind, Series]:
    """What is counted, and what came after."""
    if counter is None:
        return added({}, late)
    new = [entry for entry in late if entry.seq > counter.seq]
    return added(counter.series, new) if new else counter.series
