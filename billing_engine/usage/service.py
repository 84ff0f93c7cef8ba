"""Recording usages: stored first, charged then, told at once (SPEC 9).

The caller's work never waits for billing to be healthy. A usage that is stored will be charged, once: by the request that brought it,
by a repeat of its event, or by the worker (`drain`), whoever comes first; its ledger key makes the others harmless. Who dies before
the usage is stored has answered nothing, and the caller sends it again; after that it is QUEUED in storage until it is settled.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from billing_engine.clock import Clock
from billing_engine.errors import BillingError, InvariantBroken, NotFound, Unavailable
from billing_engine.ledger.model import Entry
from billing_engine.money import Asset, format_minor
from billing_engine.usage.book import is_owed
from billing_engine.usage.charging import Charging
from billing_engine.usage.days import day_in
from billing_engine.usage.errors import JobNotFound, UsageInvalid, UsageNotFound
from billing_engine.usage.model import Measured, Price, Usage, UsageStatus, cost_of
from billing_engine.usage.ports import (
    Companies,
    CompanyEvent,
    CompanyNews,
    CompanyTerms,
    EventKind,
    Job,
    Jobs,
    ListChoice,
    Prices,
    UsageFilter,
    Usages,
)
from billing_engine.usage.rollups import Rollups

log = logging.getLogger(__name__)

_DAY_MS: Final = 86_400_000
#: A caller that buffers may be this late; a clock that is ahead of ours may be this far ahead.
OLDEST_MS: Final = 35 * _DAY_MS
FUTURE_MS: Final = 5 * 60_000
#: So long a request is left to charge what it has stored, before the worker takes it.
_LEFT_ALONE_MS: Final = 15_000
_PER_ROUND: Final = 500
#: No amount of anything used is larger: beyond it somebody counts in another unit.
MAX_QUANTITY: Final = 10**12


@dataclass(frozen=True, slots=True)
class Report:
    """What a company's back end says that was used. `at_ms` None: now."""

    type: str
    measured: Measured
    event_id: str | None = None
    job_id: str | None = None
    at_ms: int | None = None
    is_draft: bool = False
    details: Mapping[str, Any] | None = None
    #: The usage's id where the request has a name of its own: run again, it finds what it stored.
    usage_id: str | None = None


@dataclass(slots=True)
class UsageTotals:
    """What this process has done since it began. `queued`: how many were QUEUED when it last looked, of all companies;
    `queued_since_ms`: when the oldest of them came.
    """

    recorded: int = 0
    charged: int = 0
    owed: int = 0
    queued: int = 0
    queued_since_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A usage as it stands; `is_repeat`: its event was known."""

    usage: Usage
    is_repeat: bool = False


class UsageService:
    """The use cases. `answer_within_s`: how long a caller waits for the charge before it hears QUEUED."""

    def __init__(
        self,
        *,
        rows: Usages,
        jobs: Jobs,
        companies: Companies,
        prices: Prices,
        charging: Charging,
        rollups: Rollups,
        news: CompanyNews,
        clock: Clock,
        asset: Asset,
        new_id: Callable[[], str],
        answer_within_s: float = 3,
    ) -> None:
        self._rows = rows
        self._jobs = jobs
        self._companies = companies
        self._prices = prices
        self._charging = charging
        self._rollups = rollups
        self._news = news
        self._clock = clock
        self._asset = asset
        self._new_id = new_id
        self._answer_within_s = answer_within_s
        self.totals = UsageTotals()
        self._tasks: set[asyncio.Task[Any]] = set()
        #: Companies whose charge failed, and how many usages were left to `drain` since: the next ones wait behind those.
        self._behind: dict[str, int] = {}
        #: Companies whose usages are being counted by us.
        self._counting: set[str] = set()
        self._known_jobs: dict[tuple[str, str], None] = {}

    # -- recording ---------------------------------------------------------------------------------------------------

    async def record(self, company_id: str, report: Report) -> Recorded:
        """Store and charge one usage. Raises what `record_all` raises."""
        (recorded,) = await self.record_all(company_id, [report])
        return recorded

    async def record_all(self, company_id: str, reports: Sequence[Report]) -> list[Recorded]:
        """Store and charge usages, in this order; for each the usage as it stands. One whose event is known answers as it was.

        Raises:
            NotFound: no such company.
            UsageTypeUnknown: nothing was stored.
            UsageInvalid: names the field, and the report by its `number`; nothing was stored.
            Unavailable: some may be stored; repeated with the same events, each is stored and charged once.
        """
        terms = await self._companies.terms(company_id)
        now_ms = self._clock.now_ms()
        usages = [
            await self._usage_of(terms, report, now_ms, number) for number, report in enumerate(reports)
        ]
        await self._make_jobs(usages)
        stored = await asyncio.gather(*map(self._store, usages))
        waiting = [
            asyncio.create_task(self._outcome(recorded, terms))
            if recorded.usage.status is UsageStatus.QUEUED
            else None
            for recorded in stored
        ]
        for task in waiting:
            if task is not None:
                self._keep(task)
        if pending := [task for task in waiting if task is not None]:
            # Who waits no longer has lost nothing: the tasks go on.
            await asyncio.wait(pending, timeout=self._answer_within_s)
        return [
            recorded if task is None or not task.done() else replace(recorded, usage=task.result())
            for recorded, task in zip(stored, waiting, strict=True)
        ]

    async def _usage_of(self, terms: CompanyTerms, report: Report, now_ms: int, number: int) -> Usage:
        at_ms = now_ms if report.at_ms is None else report.at_ms
        if not now_ms - OLDEST_MS <= at_ms <= now_ms + FUTURE_MS:
            problem = "must lie within the last 35 days, and not in the future"
            raise UsageInvalid(field="occurredAt", problem=problem, number=number)
        if report.is_draft and report.job_id is None:
            raise UsageInvalid(field="jobId", problem="a draft belongs to a job", number=number)
        list_name = terms.list_at(at_ms)
        price = await self._prices.price_at(list_name, report.type, at_ms)
        quantity = report.measured.in_unit(price.unit)
        cost_minor = cost_of(quantity, price)
        return Usage(
            id=report.usage_id or self._new_id(),
            company_id=terms.company_id,
            event_id=report.event_id,
            job_id=report.job_id,
            type=report.type,
            entry_type=price.entry_type,
            unit=price.unit,
            quantity=quantity,
            cost_minor=cost_minor,
            list_name=list_name,
            status=_first_status(report, cost_minor),
            at_ms=at_ms,
            created_at_ms=now_ms,
            details=_details(report, price),
        )

    async def _make_jobs(self, usages: Sequence[Usage]) -> None:
        """A job is made before its first usage is stored, so that every usage's job is in the list."""
        new = {(one.company_id, one.job_id): one for one in usages if one.job_id is not None}
        for key, usage in new.items():
            company_id, job_id = key
            if job_id is None or key in self._known_jobs:
                continue
            await self._jobs.make(Job(job_id, company_id, usage.created_at_ms))
            self._known_jobs[company_id, job_id] = None
            if len(self._known_jobs) > _KNOWN_JOBS:
                del self._known_jobs[next(iter(self._known_jobs))]

    async def _store(self, usage: Usage) -> Recorded:
        if await self._rows.add(usage):
            self.totals.recorded += 1
            return Recorded(usage)
        if usage.event_id is None:
            known = await self._rows.get(usage.id)
        else:
            known = await self._rows.of_event(usage.company_id, usage.event_id)
        if known is None:
            raise InvariantBroken(rule="a usage is never deleted", event=usage.event_id)
        return Recorded(known, is_repeat=True)

    async def _outcome(self, recorded: Recorded, terms: CompanyTerms) -> Usage:
        """The usage charged; or as it is stored, where the ledger does not answer."""
        usage = recorded.usage
        if usage.company_id in self._behind:
            self._leave(usage)
            return usage
        try:
            return await self._charge(usage, terms)
        except BillingError as exc:
            # Whatever it is, it is ours: the caller's usage is stored, and the worker tries again and says what stays wrong.
            self._leave(usage)
            log.warning("a usage is charged later: %r", exc, extra={"usage": usage.id})
            return usage

    def _leave(self, usage: Usage) -> None:
        self._behind[usage.company_id] = self._behind.get(usage.company_id, 0) + 1

    # -- charging ----------------------------------------------------------------------------------------------------

    async def _charge(self, usage: Usage, terms: CompanyTerms) -> Usage:
        entry = await self._charging.charge(usage, partial(day_in, terms.time_zone))
        settled = settled_by(usage, entry)
        # The news before the mark: who dies in between tells it again, by the same names.
        if events := self._events_of(settled, entry):
            await self._news.tell(events)
        try:
            if await self._rows.move(settled, expect=UsageStatus.QUEUED):
                self.totals.owed += settled.status is UsageStatus.OWED
                self.totals.charged += settled.status is UsageStatus.CHARGED
        except Unavailable as exc:
            # It is charged, and the answer may say so; the worker finds the entry and marks it.
            log.warning("a charged usage is marked later: %r", exc, extra={"usage": usage.id})
        self._news.changed(usage.company_id)
        if entry.seq % COUNT_EVERY == 0 and usage.company_id not in self._counting:
            # Whoever counts already goes on until little is left: a second one would only be in the way.
            self._counting.add(usage.company_id)
            self._keep(asyncio.create_task(self._count(usage.company_id), name="usage-rollups"))
        return settled

    async def _count(self, company_id: str) -> None:
        try:
            await self._rollups.count(company_id)
        except Unavailable as exc:
            # Whoever looks next counts.
            log.warning("usages are counted later: %r", exc, extra={"company": company_id})
        finally:
            self._counting.discard(company_id)

    def _keep(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _events_of(self, usage: Usage, entry: Entry) -> list[CompanyEvent]:
        balance = format_minor(usage.balance_minor or 0, self._asset)
        common = {"walletBalance": balance, "currency": self._asset.code, "usageId": usage.id}
        events = []
        if crossed := entry.facts.get("crossed"):
            # Of several at once the lowest says it all.
            threshold = min(crossed)
            events.append(
                CompanyEvent(
                    f"low-{usage.id}",
                    usage.company_id,
                    EventKind.LOW_BALANCE,
                    entry.at_ms,
                    {"threshold": format_minor(threshold, self._asset), **common},
                )
            )
        if entry.facts.get("owing"):
            events.append(
                CompanyEvent(
                    f"owed-{usage.id}",
                    usage.company_id,
                    EventKind.OWED,
                    entry.at_ms,
                    {"owed": format_minor(usage.cost_minor, self._asset), **common},
                )
            )
        return events

    async def drain(self, *, abandoned_after_ms: int = _LEFT_ALONE_MS) -> int:
        """Charge what is stored and not charged, in the order in which it came; how many there were. Harmless at any time."""
        try:
            return await self._drain(abandoned_after_ms)
        finally:
            # Also where nothing can be charged: then most of all.
            self.totals.queued = await self._rows.count_queued()
            oldest = await self._rows.queued(created_before_ms=self._clock.now_ms(), limit=1)
            self.totals.queued_since_ms = oldest[0].created_at_ms if oldest else None

    async def _drain(self, abandoned_after_ms: int) -> int:
        total, stuck, first = 0, set[str](), ""
        while True:
            behind = dict(self._behind)
            before_ms = self._clock.now_ms() - (0 if behind else abandoned_after_ms)
            found = await self._rows.queued(created_before_ms=before_ms, limit=_PER_ROUND)
            if found and found[0].id == first:
                # Charged, and the mark cannot be written: the next round tries again.
                return total
            first = found[0].id if found else ""
            backlog: dict[str, list[Usage]] = {}
            for usage in found:
                backlog.setdefault(usage.company_id, []).append(usage)
            # All companies at once: one that waits for its recharge must not hold up the others, nor one whose books are wrong.
            ends = await asyncio.gather(*map(self._charge_all, backlog.values()), return_exceptions=True)
            for company_id, end in zip(backlog, ends, strict=True):
                if isinstance(end, BillingError) and not isinstance(end, Unavailable):
                    stuck.add(company_id)
                    log.error("usages cannot be charged: %r", end, extra={"company": company_id})
                elif end is not None:
                    raise end
            total += len(found)
            if len(found) == _PER_ROUND and not stuck:
                continue
            self._caught_up(
                {company_id: left for company_id, left in behind.items() if company_id not in stuck}
            )
            if stuck or not self._behind:
                return total

    def _caught_up(self, behind: Mapping[str, int]) -> None:
        """Where more were left while we worked, these are next: who comes after them must not overtake them."""
        for company_id, left in behind.items():
            if self._behind.get(company_id) == left:
                del self._behind[company_id]

    async def catch_up(self) -> int:
        """Charge what was left, where this process has left something; how many there were. For a process that does not `drain`: who
        is behind leaves everything to whoever drains, and would do so for ever.
        """
        return await self.drain() if self._behind else 0

    async def _charge_all(self, usages: Sequence[Usage]) -> None:
        """Charge these of one company, in this order."""
        terms = await self._terms_of_gone(usages[0].company_id)
        await asyncio.gather(*(self._charge(usage, terms) for usage in usages))

    async def _terms_of_gone(self, company_id: str) -> CompanyTerms:
        """A company that is closed still owes what it has used."""
        try:
            return await self._companies.terms(company_id)
        except NotFound:
            return CompanyTerms(company_id, "", "UTC", (ListChoice("", 0),))

    # -- drafts ------------------------------------------------------------------------------------------------------

    async def publish(self, company_id: str, job_id: str) -> tuple[Job, list[Usage]]:
        """Charge the job's drafts, each at its own price; they and the job. Published again, it charges what came since.

        Raises:
            JobNotFound: no such job.
            Unavailable: some may be charged; a repeat goes on.
        """
        terms = await self._companies.terms(company_id)
        job = await self._jobs.mark_published(company_id, job_id, at_ms=self._clock.now_ms())
        if job is None:
            raise JobNotFound(job=job_id)
        published: list[Usage] = []
        while drafts := await self._rows.drafts(company_id, job_id, limit=_PER_ROUND):
            queued = [replace(usage, status=UsageStatus.QUEUED) for usage in drafts]
            moved = await asyncio.gather(*(self._rows.move(one, expect=UsageStatus.DRAFT) for one in queued))
            mine = [Recorded(one) for one, is_mine in zip(queued, moved, strict=True) if is_mine]
            tasks = [asyncio.create_task(self._outcome(one, terms)) for one in mine]
            for task in tasks:
                self._keep(task)
            if tasks:
                await asyncio.wait(tasks, timeout=self._answer_within_s)
            published += [
                task.result() if task.done() else one.usage for task, one in zip(tasks, mine, strict=True)
            ]
        return job, published

    # -- looking -----------------------------------------------------------------------------------------------------

    async def own(self, company_id: str, usage_id: str) -> Usage:
        """The company's usage. Raises `UsageNotFound`."""
        usage = await self._rows.get(usage_id)
        if usage is None or usage.company_id != company_id:
            raise UsageNotFound(usage=usage_id)
        return usage

    async def list_for(
        self, company_id: str, which: UsageFilter, *, limit: int, before: str | None
    ) -> list[Usage]:
        """The company's usages, newest first."""
        return await self._rows.list_for(company_id, which, limit=limit, before=before)

    async def stop(self) -> None:
        """Wait for what is being charged."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        await self._charging.stop()


_KNOWN_JOBS: Final = 10_000
#: Entries of a wallet between two countings that nobody asked for.
COUNT_EVERY: Final = 100


def _first_status(report: Report, cost_minor: int) -> UsageStatus:
    if cost_minor == 0:
        return UsageStatus.FREE
    return UsageStatus.DRAFT if report.is_draft else UsageStatus.QUEUED


def _details(report: Report, price: Price) -> dict[str, Any]:
    """What the company's people see beside the cost: what was said, and by which price it was reckoned."""
    details = {name: value for name, value in (report.details or {}).items() if value is not None}
    return {**details, "priceList": price.list_name, "priceMinor": price.price_minor, "per": price.per}


def settled_by(usage: Usage, entry: Entry) -> Usage:
    """The usage as its entry tells it."""
    return replace(
        usage,
        status=UsageStatus.OWED if is_owed(entry) else UsageStatus.CHARGED,
        charged_at_ms=entry.at_ms,
        balance_minor=entry.posted_after - int(entry.facts.get("held", 0)),
        owed_upto=entry.facts.get("owedUpto"),
    )
