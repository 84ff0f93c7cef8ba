"""Companies post projects, freelancers find them (SPEC 8)."""

from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, StringConstraints

from billing_engine.credits.errors import ProjectNotFound
from billing_engine.credits.model import Application, ApplicationStatus, Project, ProjectStatus
from server.auth.model import Profession, Role
from server.people.wire import PROSE_PATTERN, prose
from server.routes.credits import room_of
from server.routing import Call, Route, only
from server.wire import (
    Instant,
    Name,
    PageQuery,
    SnakeModel,
    SnakePage,
    described,
    encode_cursor,
    time_place,
)

#: Several lines, trimmed, not empty.
Description = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=5_000),
    AfterValidator(prose),
    described(pattern=PROSE_PATTERN),
]


class ProjectIn(SnakeModel):
    """What somebody is looked for."""

    title: Name
    description: Description


class ProjectOut(SnakeModel):
    """A project. Only an OPEN one takes applications."""

    id: str
    company_id: str
    title: str
    description: str
    status: ProjectStatus
    created_at: Instant
    closed_at: Instant | None

    @classmethod
    def of(cls, project: Project) -> Self:
        return cls(
            id=project.id,
            company_id=project.company_id,
            title=project.title,
            description=project.description,
            status=project.status,
            created_at=project.created_at_ms,
            closed_at=project.closed_at_ms,
        )


class CandidateOut(SnakeModel):
    """Who has applied, as the company sees it. `name` is null once the account is deleted."""

    application_id: str
    user_id: str
    name: str | None
    profession: Profession | None
    status: ApplicationStatus
    applied_at: Instant


async def post(call: Call[ProjectIn, None]) -> ProjectOut:
    project = await room_of(call).projects.post(
        company_id=call.caller.user_id,
        title=call.body.title,
        description=call.body.description,
        operation_id=call.operation_id,
    )
    return ProjectOut.of(project)


async def listed(call: Call[None, PageQuery]) -> SnakePage[ProjectOut]:
    projects, limit, before = room_of(call).projects, call.query.limit, time_place(call.query.cursor)
    if call.caller.role is Role.COMPANY:
        found = await projects.list_of(call.caller.user_id, limit=limit + 1, before=before)
    else:
        found = await projects.list_open(limit=limit + 1, before=before)
    shown = found[:limit]
    more = len(found) > limit
    return SnakePage[ProjectOut](
        items=[ProjectOut.of(project) for project in shown],
        next_cursor=encode_cursor(shown[-1].created_at_ms, shown[-1].id) if more else None,
    )


async def one(call: Call[None, None]) -> ProjectOut:
    projects, project_id = room_of(call).projects, call.path["project_id"]
    if call.caller.role is Role.COMPANY:
        return ProjectOut.of(await projects.own(project_id, company_id=call.caller.user_id))
    return ProjectOut.of(await projects.get(project_id))


async def close(call: Call[None, None]) -> ProjectOut:
    project = await room_of(call).projects.close(call.path["project_id"], company_id=call.caller.user_id)
    return ProjectOut.of(project)


async def applicants(call: Call[None, PageQuery]) -> SnakePage[CandidateOut]:
    limit = call.query.limit
    found = await room_of(call).applications.of_project(
        call.path["project_id"],
        company_id=call.caller.user_id,
        limit=limit + 1,
        before=time_place(call.query.cursor),
    )
    shown = found[:limit]
    people = await call.services.accounts.get_many([application.user_id for application in shown])
    return SnakePage[CandidateOut](
        items=[_candidate(application, people.get(application.user_id)) for application in shown],
        next_cursor=(encode_cursor(shown[-1].created_at_ms, shown[-1].id) if len(found) > limit else None),
    )


def _candidate(application: Application, account: Any) -> CandidateOut:
    known = account is not None and account.deleted_at_ms is None
    return CandidateOut(
        application_id=application.id,
        user_id=application.user_id,
        name=account.name if known else None,
        profession=account.profession if known else None,
        status=application.status,
        applied_at=application.applied_at_ms or application.created_at_ms,
    )


_COMPANY: Final = only(Role.COMPANY)
_EITHER: Final = only(Role.FREELANCER, Role.COMPANY)
_TAGS: Final = ("projects",)
ROUTES: Final = (
    Route(
        method="POST",
        path="/projects",
        handler=post,
        summary="Post a project",
        access=_COMPANY,
        body=ProjectIn,
        response=ProjectOut,
        status=201,
        idempotent=True,
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/projects",
        handler=listed,
        summary="Open projects, newest first; a company sees its own, closed ones too",
        access=_EITHER,
        query=PageQuery,
        response=SnakePage[ProjectOut],
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/projects/{project_id}",
        handler=one,
        summary="One project; a company sees its own only",
        access=_EITHER,
        response=ProjectOut,
        errors=(ProjectNotFound,),
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/projects/{project_id}/close",
        handler=close,
        summary="Take no more applications; repeated, the same answer",
        access=_COMPANY,
        response=ProjectOut,
        errors=(ProjectNotFound,),
        idempotent=True,
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/projects/{project_id}/applications",
        handler=applicants,
        summary="Who has applied for my project, newest first",
        access=_COMPANY,
        query=PageQuery,
        response=SnakePage[CandidateOut],
        errors=(ProjectNotFound,),
        tags=_TAGS,
    ),
)
