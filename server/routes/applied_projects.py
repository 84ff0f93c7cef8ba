"""A freelancer applies for projects and withdraws (SPEC 8)."""

from typing import Any, Final, Self

from billing_engine.credits.errors import (
    AlreadyApplied,
    ApplicationNotFound,
    InsufficientCredits,
    ProjectClosed,
    ProjectNotFound,
    RefundNotEligible,
)
from billing_engine.credits.model import Application, ApplicationStatus, Project
from server.auth.model import Role
from server.routes.credits import room_of
from server.routing import Call, Route, only
from server.wire import Id, Instant, PageQuery, SnakeModel, SnakePage, encode_cursor, time_place


class ApplyIn(SnakeModel):
    """For which project."""

    project_id: Id


class ApplicationOut(SnakeModel):
    """My application: ACTIVE, or WITHDRAWN with its credit given back."""

    id: str
    project_id: str
    project_title: str | None
    status: ApplicationStatus
    applied_at: Instant
    withdrawn_at: Instant | None

    @classmethod
    def of(cls, application: Application, project: Project | None, **more: Any) -> Self:
        return cls(
            id=application.id,
            project_id=application.project_id,
            project_title=None if project is None else project.title,
            status=application.status,
            applied_at=application.applied_at_ms or application.created_at_ms,
            withdrawn_at=application.withdrawn_at_ms,
            **more,
        )


class ApplicationDoneOut(ApplicationOut):
    """The application, and the balance right after its credit was taken or given back."""

    credits_balance: int


class EligibilityOut(SnakeModel):
    """Whether withdrawing gives the credit back; if not, `reason` says why."""

    eligible: bool
    reason: str | None


async def _done(call: Call[Any, Any], application: Application, balance: int | None) -> ApplicationDoneOut:
    projects = await room_of(call).applications.projects_of([application])
    return ApplicationDoneOut.of(
        application, projects.get(application.project_id), credits_balance=balance or 0
    )


async def apply(call: Call[ApplyIn, None]) -> ApplicationDoneOut:
    application = await room_of(call).applications.apply(
        user_id=call.caller.user_id, project_id=call.body.project_id, operation_id=call.operation_id
    )
    return await _done(call, application, application.credits_left)


async def mine(call: Call[None, PageQuery]) -> SnakePage[ApplicationOut]:
    applications, limit = room_of(call).applications, call.query.limit
    found = await applications.list_for(
        call.caller.user_id, limit=limit + 1, before=time_place(call.query.cursor)
    )
    shown = found[:limit]
    projects = await applications.projects_of(shown)
    return SnakePage[ApplicationOut](
        items=[ApplicationOut.of(one, projects.get(one.project_id)) for one in shown],
        next_cursor=(encode_cursor(shown[-1].created_at_ms, shown[-1].id) if len(found) > limit else None),
    )


async def withdraw(call: Call[None, None]) -> ApplicationDoneOut:
    application = await room_of(call).applications.withdraw(
        call.path["app_id"], user_id=call.caller.user_id, operation_id=call.operation_id
    )
    return await _done(call, application, application.credits_after_refund)


async def eligibility(call: Call[None, None]) -> EligibilityOut:
    why = await room_of(call).applications.eligibility(call.path["app_id"], user_id=call.caller.user_id)
    return EligibilityOut(eligible=why is None, reason=None if why is None else why.value)


_FREELANCER: Final = only(Role.FREELANCER)
_TAGS: Final = ("projects",)
ROUTES: Final = (
    Route(
        method="POST",
        path="/applied-projects",
        handler=apply,
        summary="Apply for a project: one credit and the application together, or neither",
        access=_FREELANCER,
        body=ApplyIn,
        response=ApplicationDoneOut,
        status=201,
        errors=(ProjectNotFound, ProjectClosed, AlreadyApplied, InsufficientCredits),
        idempotent=True,
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/applied-projects",
        handler=mine,
        summary="My applications, newest first",
        access=_FREELANCER,
        query=PageQuery,
        response=SnakePage[ApplicationOut],
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/credits/refund-eligibility/{app_id}",
        handler=eligibility,
        summary="Whether withdrawing an application gives its credit back",
        access=_FREELANCER,
        response=EligibilityOut,
        errors=(ApplicationNotFound,),
        tags=_TAGS,
    ),
    Route(
        method="POST",
        path="/applied-projects/{app_id}/withdraw",
        handler=withdraw,
        summary="Withdraw an application of the last 24 hours; its credit comes back",
        access=_FREELANCER,
        response=ApplicationDoneOut,
        errors=(ApplicationNotFound, RefundNotEligible),
        idempotent=True,
        tags=_TAGS,
    ),
)
