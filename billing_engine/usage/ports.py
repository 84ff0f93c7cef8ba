"""What metered usage needs from the outside, in its own words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from billing_engine.usage.model import Price, Usage, UsageStatus
from billing_engine.usage.pricing import PriceRow


@dataclass(frozen=True, slots=True)
class ListChoice:
    """From `from_ms` on the company pays by this list of the price book."""

    list_name: str
    from_ms: int


@dataclass(frozen=True, slots=True)
class CompanyTerms:
    """How a company is billed: where its months begin, and by which price list since when (oldest first, never empty)."""

    company_id: str
    name: str
    time_zone: str
    lists: tuple[ListChoice, ...]

    def list_at(self, at_ms: int) -> str:
        """The price list of that instant; before the first choice, the first."""
        chosen = [choice.list_name for choice in self.lists if choice.from_ms <= at_ms]
        return chosen[-1] if chosen else self.lists[0].list_name


class Companies(Protocol):
    """The companies' terms. All methods raise `Unavailable`."""

    async def terms(self, company_id: str) -> CompanyTerms:
        """Raises `NotFound`: there is no such company."""
        ...


class Prices(Protocol):
    """The price book. All methods raise `Unavailable`."""

    async def price_at(self, list_name: str, type_: str, at_ms: int) -> Price:
        """What a type of usage costs by that list at that instant. Raises `UsageTypeUnknown`.

        The answer for an instant that has passed is the same for ever and in every process; for one to come it may still change.
        """
        ...


@dataclass(frozen=True, slots=True)
class PriceSeed:
    """The price book has begun: with which version of the file, in which currency, and when."""

    version: int
    currency: str
    at_ms: int


class PriceRows(Protocol):
    """The stored price book; a row is never changed. All methods raise `Unavailable`."""

    async def every(self) -> list[PriceRow]:
        """All rows, in any order: every row whose `add` had returned when this was called is among them."""
        ...

    async def add(self, row: PriceRow) -> bool:
        """Insert. False, and nothing is stored, where there is a first row of the list and type and this is one, too, or where a
        change of the same list and type has the same `from_ms`.
        """
        ...

    async def seed(self) -> PriceSeed | None:
        """None while no start has written all that the book begins with."""
        ...

    async def mark_seeded(self, seed: PriceSeed) -> None:
        """Harmless where it is marked: the first mark stays."""
        ...


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which of a company's usages; None is any."""

    job_id: str | None = None
    type: str | None = None
    status: UsageStatus | None = None


class Usages(Protocol):
    """The stored usages. All methods raise `Unavailable`."""

    async def add(self, usage: Usage) -> bool:
        """Insert; False if the company's event was seen before."""
        ...

    async def of_event(self, company_id: str, event_id: str) -> Usage | None: ...

    async def get(self, usage_id: str) -> Usage | None: ...

    async def move(self, usage: Usage, *, expect: UsageStatus) -> bool:
        """Replace what follows the status, if the status is still that; whether it was."""
        ...

    async def queued(self, *, created_before_ms: int, limit: int) -> list[Usage]:
        """Those that are QUEUED, of all companies, in the order in which they came."""
        ...

    async def count_queued(self) -> int:
        """How many are QUEUED, of all companies."""
        ...

    async def drafts(self, company_id: str, job_id: str, *, limit: int) -> list[Usage]:
        """The job's drafts, in the order in which they came."""
        ...

    async def list_for(
        self, company_id: str, which: UsageFilter, *, limit: int, before: str | None
    ) -> list[Usage]:
        """The company's, newest first; `before` is the id of the last one of the previous page."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """A company's job: made with its first usage. `id` is the caller's."""

    id: str
    company_id: str
    created_at_ms: int
    published_at_ms: int | None = None


class Jobs(Protocol):
    """The companies' jobs. All methods raise `Unavailable`."""

    async def make(self, job: Job) -> None:
        """Insert, unless it is there."""
        ...

    async def get(self, company_id: str, job_id: str) -> Job | None: ...

    async def mark_published(self, company_id: str, job_id: str, *, at_ms: int) -> Job | None:
        """The job, published: the first time counts. None: there is no such job."""
        ...

    async def list_for(self, company_id: str, *, limit: int, before: tuple[int, str] | None) -> list[Job]:
        """The company's, newest first; `before` is (created_at_ms, id) of the last one of the previous page."""
        ...


class EventKind(StrEnum):
    """What a company's people and back end are told of."""

    LOW_BALANCE = "billing.low_balance"
    OWED = "billing.owed"
    RECHARGED = "billing.recharged"
    RECHARGE_FAILED = "billing.recharge_failed"
    AUTO_RECHARGE_STOPPED = "billing.auto_recharge_stopped"


@dataclass(frozen=True, slots=True)
class CompanyEvent:
    """One piece of news; `id` is the same when it is told again. `facts` are JSON in the words of the wire."""

    id: str
    company_id: str
    kind: EventKind
    at_ms: int
    facts: Mapping[str, Any]


class CompanyNews(Protocol):
    """Carries news to a company: its webhook, its members' sockets, its mailbox."""

    async def tell(self, events: Sequence[CompanyEvent]) -> None:
        """Durably queued once it returns; telling again changes nothing. Raises `Unavailable`: some may be queued."""
        ...

    def changed(self, company_id: str) -> None:
        """Balance or usage is another than before: dashboards look again. Never raises, never waits; may be told often."""
        ...
