"""`Usages` and `Jobs` of the usage meter, over a collection each."""

from contextlib import suppress
from dataclasses import fields, replace
from typing import Any, Final

from billing_engine.usage.model import Usage, UsageStatus
from billing_engine.usage.ports import Job, UsageFilter
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

#: `_id` is the caller's event where there is one: the same event again finds itself. Ids of usages sort by creation.
USAGES: Final = CollectionSpec(
    name="usages",
    text=("usage_id", "company_id", "job_id", "type", "status"),
    indexes=(
        ("usage_id",),
        ("company_id", "usage_id"),
        ("company_id", "job_id", "usage_id"),
        ("status", "usage_id"),
    ),
)
#: `_id` is `company|job`.
JOBS: Final = CollectionSpec(
    name="company_jobs",
    text=("company_id",),
    integer=("created_at_ms",),
    indexes=(("company_id", "created_at_ms"),),
)
_FIELDS: Final = tuple(field.name for field in fields(Usage) if field.name not in ("id", "status"))
#: What a usage learns after it was stored.
_LEARNED: Final = ("charged_at_ms", "balance_minor", "owed_upto")


class CollectionUsages:
    """One document a usage."""

    def __init__(self, collection: Collection) -> None:
        self._usages = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionUsages":
        return cls(await collections.open(USAGES))

    async def add(self, usage: Usage) -> bool:
        try:
            await self._usages.insert(_doc(usage))
        except DuplicateId:
            return False
        return True

    async def of_event(self, company_id: str, event_id: str) -> Usage | None:
        doc = await self._usages.get(_event_row(company_id, event_id))
        return None if doc is None else usage_of(doc)

    async def get(self, usage_id: str) -> Usage | None:
        found = await self._usages.find({"usage_id": usage_id}, limit=1)
        return usage_of(found[0]) if found else None

    async def move(self, usage: Usage, *, expect: UsageStatus) -> bool:
        learned = {name: getattr(usage, name) for name in _LEARNED}
        changed = await self._usages.update(
            _row_of(usage),
            where={"status": expect.value},
            set_={"status": usage.status.value, **learned},
        )
        return changed is not None

    async def queued(self, *, created_before_ms: int, limit: int) -> list[Usage]:
        found = await self._usages.find(
            {"status": UsageStatus.QUEUED.value}, sort=(("usage_id", "asc"),), limit=limit
        )
        return [usage for usage in map(usage_of, found) if usage.created_at_ms <= created_before_ms]

    async def count_queued(self) -> int:
        return await self._usages.count({"status": UsageStatus.QUEUED.value})

    async def drafts(self, company_id: str, job_id: str, *, limit: int) -> list[Usage]:
        where = {"company_id": company_id, "job_id": job_id, "status": UsageStatus.DRAFT.value}
        found = await self._usages.find(where, sort=(("usage_id", "asc"),), limit=limit)
        return [usage_of(doc) for doc in found]

    async def list_for(
        self, company_id: str, which: UsageFilter, *, limit: int, before: str | None
    ) -> list[Usage]:
        where: dict[str, Any] = {"company_id": company_id}
        if which.job_id is not None:
            where["job_id"] = which.job_id
        if which.type is not None:
            where["type"] = which.type
        if which.status is not None:
            where["status"] = which.status.value
        if before is not None:
            where["usage_id"] = {"lt": before}
        found = await self._usages.find(where, sort=(("usage_id", "desc"),), limit=limit)
        return [usage_of(doc) for doc in found]


class CollectionJobs:
    """One document a job."""

    def __init__(self, collection: Collection) -> None:
        self._jobs = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionJobs":
        return cls(await collections.open(JOBS))

    async def make(self, job: Job) -> None:
        row = _job_row(job.company_id, job.id)
        if await self._jobs.get(row) is None:
            with suppress(DuplicateId):
                await self._jobs.insert(
                    {
                        "_id": row,
                        "job_id": job.id,
                        "company_id": job.company_id,
                        "created_at_ms": job.created_at_ms,
                        "published_at_ms": None,
                    }
                )

    async def get(self, company_id: str, job_id: str) -> Job | None:
        doc = await self._jobs.get(_job_row(company_id, job_id))
        return None if doc is None else _job_of(doc)

    async def mark_published(self, company_id: str, job_id: str, *, at_ms: int) -> Job | None:
        job = await self.get(company_id, job_id)
        if job is None or job.published_at_ms is not None:
            return job
        await self._jobs.update(_job_row(company_id, job_id), set_={"published_at_ms": at_ms})
        return replace(job, published_at_ms=at_ms)

    async def list_for(self, company_id: str, *, limit: int, before: tuple[int, str] | None) -> list[Job]:
        found = await self._jobs.find(
            {"company_id": company_id},
            sort=(("created_at_ms", "desc"),),
            limit=limit,
            after=None if before is None else (before[0], _job_row(company_id, before[1])),
        )
        return [_job_of(doc) for doc in found]


def _job_row(company_id: str, job_id: str) -> str:
    return f"{company_id}|{job_id}"


def _job_of(doc: Doc) -> Job:
    return Job(doc["job_id"], doc["company_id"], doc["created_at_ms"], doc["published_at_ms"])


def _event_row(company_id: str, event_id: str) -> str:
    return f"{company_id}|event|{event_id}"


def _row_of(usage: Usage) -> str:
    if usage.event_id is not None:
        return _event_row(usage.company_id, usage.event_id)
    return f"{usage.company_id}|usage|{usage.id}"


def _doc(usage: Usage) -> Doc:
    doc = {name: getattr(usage, name) for name in _FIELDS}
    return {
        "_id": _row_of(usage),
        "usage_id": usage.id,
        **doc,
        "details": dict(usage.details),
        "status": usage.status.value,
    }


def usage_of(doc: Doc) -> Usage:
    """The stored usage."""
    return Usage(
        id=doc["usage_id"],
        status=UsageStatus(doc["status"]),
        **{name: doc[name] for name in _FIELDS},
    )
