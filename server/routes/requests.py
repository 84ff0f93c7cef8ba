"""A lawyer who wants to be asked: accept, decline, cancel (SPEC 5). `POST /consult/start` rings."""

from pydantic import RootModel

from billing_engine.consultations.errors import AnsweredElsewhere, RequestClosed, SessionNotFound
from server.auth.model import Role
from server.routing import Call, Route, only
from server.session_views import SessionOut, session_out


class RequestOut(RootModel[SessionOut | None]):
    """The open request, or null."""


async def accept(call: Call[None, None]) -> SessionOut:
    await call.services.requests.accept(
        call.path["session_id"], lawyer_id=call.caller.user_id, device=call.caller.family_id
    )
    return await _now(call)


async def decline(call: Call[None, None]) -> SessionOut:
    await call.services.requests.decline(call.path["session_id"], lawyer_id=call.caller.user_id)
    return await _now(call)


async def cancel(call: Call[None, None]) -> SessionOut:
    await call.services.requests.cancel(call.path["session_id"], user_id=call.caller.user_id)
    return await _now(call)


async def _now(call: Call[None, None]) -> SessionOut:
    view = await call.services.consultations.get(call.path["session_id"], caller_id=call.caller.user_id)
    return session_out(view, call.caller.user_id)


async def open_request(call: Call[None, None]) -> RequestOut:
    view = await call.services.consultations.request_of(call.caller.user_id)
    return RequestOut(None if view is None else session_out(view, call.caller.user_id))


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/consult/request",
        handler=open_request,
        summary="The caller's open request, or null: the user's own, or the one that rings the lawyer",
        access=only(Role.USER, Role.LAWYER),
        response=RequestOut,
        tags=("requests",),
    ),
    Route(
        method="POST",
        path="/consult/{session_id}/accept",
        handler=accept,
        summary="Accept a request; the first device wins",
        access=only(Role.LAWYER),
        response=SessionOut,
        errors=(SessionNotFound, RequestClosed, AnsweredElsewhere),
        tags=("requests",),
    ),
    Route(
        method="POST",
        path="/consult/{session_id}/decline",
        handler=decline,
        summary="Decline a request; repeated, the same answer",
        access=only(Role.LAWYER),
        response=SessionOut,
        errors=(SessionNotFound, RequestClosed),
        tags=("requests",),
    ),
    Route(
        method="POST",
        path="/consult/{session_id}/cancel",
        handler=cancel,
        summary="Take a request back; repeated, the same answer",
        access=only(Role.USER),
        response=SessionOut,
        errors=(SessionNotFound, RequestClosed),
        tags=("requests",),
    ),
)
