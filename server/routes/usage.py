"""What companies' back ends report (SPEC 9)."""

from dataclasses import replace
from typing import Annotated, Any, Final

from billing_engine.money import Asset, format_minor
from billing_engine.usage.errors import JobNotFound, UsageInvalid, UsageNotFound, UsageTypeUnknown
from billing_engine.usage.model import UsageStatus
from billing_engine.usage.ports import UsageFilter
from billing_engine.usage.service import Recorded, UsageService
from server.auth.model import CompanyRight
from server.companies.errors import CompanyNotFound
from server.routes.company_calls import company_of
from server.routing import Call, Reply, Route, company
from server.usage_wire import (
    BatchIn,
    BatchOut,
    CvParsingIn,
    OtherUsageIn,
    PublishedOut,
    QuestionGenerationIn,
    UsageDetailOut,
    UsageOut,
    VideoInterviewIn,
)
from server.wire import FromValue, Id, Page, PageQuery, decode_cursor, encode_cursor


class UsagesQuery(PageQuery):
    """Which usages; of one job, of one type (as in the URL), in one state."""

    company_id: Id | None = None
    job_id: Id | None = None
    type: Id | None = None
    status: Annotated[UsageStatus, FromValue] | None = None


async def _record(call: Call[Any, None], report: Any) -> Reply:
    meter: UsageService = call.services.usage.meter
    recorded = await meter.record(company_of(call), replace(report, usage_id=call.operation_id))
    return Reply(UsageOut.of(recorded, call.services.usage.asset))


async def cv_parsing(call: Call[CvParsingIn, None]) -> Reply:
    return await _record(call, call.body.as_report())


async def question_generation(call: Call[QuestionGenerationIn, None]) -> Reply:
    return await _record(call, call.body.as_report())


async def video_interview(call: Call[VideoInterviewIn, None]) -> Reply:
    return await _record(call, call.body.as_report())


async def other(call: Call[OtherUsageIn, None]) -> Reply:
    return await _record(call, call.body.as_report(call.path["type"]))


async def batch(call: Call[BatchIn, None]) -> BatchOut:
    meter: UsageService = call.services.usage.meter
    asset: Asset = call.services.usage.asset
    try:
        recorded = await meter.record_all(company_of(call), [event.as_report() for event in call.body.events])
    except UsageInvalid as exc:
        named = f"events.{exc.facts['number']}.{exc.facts['field']}"
        raise UsageInvalid(**{**exc.facts, "field": named}) from exc
    return BatchOut(items=[UsageOut.of(one, asset) for one in recorded])


async def publish(call: Call[None, None]) -> PublishedOut:
    meter: UsageService = call.services.usage.meter
    asset: Asset = call.services.usage.asset
    job, charged = await meter.publish(company_of(call), call.path["job_id"])
    return PublishedOut(
        job_id=job.id,
        published_at=job.published_at_ms or 0,
        cost=format_minor(sum(usage.cost_minor for usage in charged), asset),
        currency=asset.code,
        items=[UsageOut.of(Recorded(usage), asset) for usage in charged],
    )


async def one(call: Call[None, None]) -> UsageDetailOut:
    room = call.services.usage
    company_id = company_of(call)
    usage = await room.meter.own(company_id, call.path["usage_id"])
    book = await room.recharges.book(company_id)
    return UsageDetailOut.seen(usage, room.asset, collected_minor=book.collected_minor)


async def mine(call: Call[None, UsagesQuery]) -> Page[UsageDetailOut]:
    room = call.services.usage
    query = call.query
    company_id = company_of(call, query.company_id)
    await room.companies.terms(company_id)
    before = None if query.cursor is None else str(decode_cursor(query.cursor, str)[0])
    found = await room.meter.list_for(
        company_id,
        UsageFilter(query.job_id, query.type, query.status),
        limit=query.limit + 1,
        before=before,
    )
    shown = found[: query.limit]
    book = await room.recharges.book(company_id)
    return Page[UsageDetailOut](
        items=[
            UsageDetailOut.seen(usage, room.asset, collected_minor=book.collected_minor) for usage in shown
        ],
        next_cursor=encode_cursor(shown[-1].id) if len(found) > query.limit else None,
    )


#: Room for a job's description of which every character is escaped.
_BODY_LIMIT: Final = 1024 * 1024
_BATCH_BODY_LIMIT: Final = 4 * 1024 * 1024
_TAGS: Final = ("usage",)
_REPORT: Final[dict[str, Any]] = {
    "method": "POST",
    "access": company(CompanyRight.USAGE),
    "response": UsageOut,
    "status": 201,
    "errors": (UsageTypeUnknown, UsageInvalid, CompanyNotFound),
    "idempotent": True,
    "body_limit": _BODY_LIMIT,
    "tags": _TAGS,
}
ROUTES: Final = (
    Route(
        path="/api/usage/cv-parsing",
        handler=cv_parsing,
        body=CvParsingIn,
        summary="A CV was parsed",
        **_REPORT,
    ),
    Route(
        path="/api/usage/question-generation",
        handler=question_generation,
        body=QuestionGenerationIn,
        summary="Interview questions were made",
        **_REPORT,
    ),
    Route(
        path="/api/usage/video-interview",
        handler=video_interview,
        body=VideoInterviewIn,
        summary="A video interview was held",
        **_REPORT,
    ),
    Route(
        method="POST",
        path="/api/usage/batch",
        handler=batch,
        summary="Up to 500 usages at once",
        access=company(CompanyRight.USAGE),
        body=BatchIn,
        response=BatchOut,
        errors=(UsageTypeUnknown, UsageInvalid, CompanyNotFound),
        body_limit=_BATCH_BODY_LIMIT,
        tags=_TAGS,
    ),
    Route(
        path="/api/usage/{type}",
        handler=other,
        body=OtherUsageIn,
        summary="Another type of usage of the price book, by its quantity",
        **_REPORT,
    ),
    Route(
        method="GET",
        path="/api/usage",
        handler=mine,
        summary="Usages, newest first",
        access=company(CompanyRight.READ, admins=True),
        query=UsagesQuery,
        response=Page[UsageDetailOut],
        errors=(CompanyNotFound,),
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/api/usage/{usage_id}",
        handler=one,
        summary="A usage, and what became of it",
        access=company(CompanyRight.READ),
        response=UsageDetailOut,
        errors=(UsageNotFound,),
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/api/jobs/{job_id}/publish",
        handler=publish,
        summary="Publish a job: its drafts are charged, each at its own price",
        access=company(CompanyRight.USAGE),
        response=PublishedOut,
        errors=(JobNotFound,),
        idempotent=True,
        tags=_TAGS,
    ),
)
