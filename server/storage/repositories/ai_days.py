"""`CallSums`: what AI calls used by day. A day that is over is added up once and kept: a look at two months reads one day's calls.

A day is final when nothing can be added to it any more: it has been over for an hour, by when every process's clock is past it, and no
call that began before then is open in the log. (A call is in the log, open, before its close can be in the ledger.)
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import date, timedelta
from typing import Final

from billing_engine.clock import Clock
from billing_engine.subscriptions.metrics import Used
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId
from server.storage.repositories.ai_calls import CollectionCalls

#: `_id` is the local day.
AI_DAYS: Final = CollectionSpec(name="ai_days")
_LATE_MS: Final = 3_600_000
#: How far back `keep` looks: two months, as metrics do.
_KEPT_DAYS: Final = 62

ByDay = dict[tuple[str, str, str], Used]


class CollectionDays:
    """One document a day that is final."""

    def __init__(
        self,
        collection: Collection,
        calls: CollectionCalls,
        clock: Clock,
        *,
        day_of: Callable[[int], str],
        bounds: Callable[[str], tuple[int, int]],
    ) -> None:
        self._days = collection
        self._calls = calls
        self._clock = clock
        self._day_of = day_of
        self._bounds = bounds

    @classmethod
    async def open(
        cls,
        collections: Collections,
        calls: CollectionCalls,
        clock: Clock,
        *,
        day_of: Callable[[int], str],
        bounds: Callable[[str], tuple[int, int]],
    ) -> "CollectionDays":
        return cls(await collections.open(AI_DAYS), calls, clock, day_of=day_of, bounds=bounds)

    async def used_between(self, first_day: str, last_day: str) -> ByDay:
        """What answered calls used, by day, provider and model, of these local days, both included."""
        wanted = _names(first_day, last_day)
        kept = await self._days.get_many(wanted)
        found = {(day, *model): used for day, doc in kept.items() for model, used in used_of(doc).items()}
        # Asked before the days are added up: what is closed by now is in the sums.
        final_ms = await self._final_ms()
        for run in _runs(wanted, kept):
            counted = await self._calls.used_between(run[0], run[-1])
            found |= counted
            for day in run:
                if self._bounds(day)[1] <= final_ms:
                    await self._keep(day, counted)
        return found

    async def keep(self) -> int:
        """Keep what is final and not kept; how many days that were."""
        today = date.fromisoformat(self._day_of(self._clock.now_ms()))
        names = _names((today - timedelta(days=_KEPT_DAYS)).isoformat(), today.isoformat())
        before = len(await self._days.get_many(names))
        await self.used_between(names[0], names[-1])
        return len(await self._days.get_many(names)) - before

    async def _final_ms(self) -> int:
        """The instant before which nothing changes."""
        until_ms = self._clock.now_ms() - _LATE_MS
        oldest = await self._calls.open_before(until_ms, limit=1)
        return oldest[0].started_at_ms if oldest else until_ms

    async def _keep(self, day: str, counted: ByDay) -> None:
        models = sorted(
            ((provider, model, used) for (on, provider, model), used in counted.items() if on == day),
            key=lambda item: item[:2],
        )
        rows = [
            [provider, model, used.requests, used.tokens, used.cost_minor, used.credits_milli]
            for provider, model, used in models
        ]
        with suppress(DuplicateId):
            await self._days.insert({"_id": day, "used": rows})


def used_of(doc: Doc) -> dict[tuple[str, str], Used]:
    """What a kept day says, by provider and model."""
    return {(provider, model): Used(*sums) for provider, model, *sums in doc["used"]}


def _names(first_day: str, last_day: str) -> list[str]:
    first, last = date.fromisoformat(first_day), date.fromisoformat(last_day)
    return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]


def _runs(wanted: Iterable[str], kept: Iterable[str]) -> list[list[str]]:
    """The days that are not kept, those in a row together."""
    runs: dict[int, list[str]] = defaultdict(list)
    known, number = set(kept), 0
    for day in wanted:
        if day in known:
            number += 1
        else:
            runs[number].append(day)
    return list(runs.values())
