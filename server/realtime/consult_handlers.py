"""The socket's events about requests: parse, call one use case, acknowledge. The use cases are those of the routes."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import chat.errors as chat
from billing_engine import errors as billing
from billing_engine.consultations.model import SessionView
from billing_engine.consultations.requests import Requests
from billing_engine.consultations.service import Consultations
from billing_engine.consultations.waiting import WaitingLists
from billing_engine.money import Asset, parse_minor
from chat import wire
from chat.connections import Connection
from chat.consult_errors import BY_CODE
from chat.consult_events import LawyerPayload, RequestConsultation
from chat.event_types import SessionPayload
from chat.namespace import Ack, Handler
from server.auth.model import Role
from server.ids import new_id
from server.session_views import session_out

#: What an acknowledgement tells of the session.
_TOLD: Final = ("sessionId", "status", "requestState", "deadline")


class ConsultHandlers:
    """One method an event."""

    def __init__(
        self, *, consultations: Consultations, requests: Requests, waiting: WaitingLists, asset: Asset
    ) -> None:
        self._consultations = consultations
        self._requests = requests
        self._waiting = waiting
        self._asset = asset

    def by_event(self) -> dict[str, Handler]:
        return {
            "consult:request": guarded(Role.USER, self.request),
            "consult:accept": guarded(Role.LAWYER, self.accept),
            "consult:decline": guarded(Role.LAWYER, self.decline),
            "consult:cancel": guarded(Role.USER, self.cancel),
            "consult:queue": guarded(Role.USER, self.queue),
            "consult:unqueue": guarded(Role.USER, self.unqueue),
        }

    async def request(self, connection: Connection, request: RequestConsultation) -> Ack:
        most = request.max_amount
        view = await self._consultations.start(
            user_id=connection.user_id,
            lawyer_id=request.lawyer_id,
            operation_id=new_id(),
            max_minor=None if most is None else parse_minor(most, self._asset, field="maxAmount"),
        )
        return _told(view, connection.user_id)

    async def accept(self, connection: Connection, request: SessionPayload) -> Ack:
        await self._requests.accept(
            request.session_id,
            lawyer_id=connection.user_id,
            device=connection.principal.family or connection.sid,
            socket=connection.sid,
        )
        return await self._now(request.session_id, connection.user_id)

    async def decline(self, connection: Connection, request: SessionPayload) -> Ack:
        await self._requests.decline(request.session_id, lawyer_id=connection.user_id)
        return await self._now(request.session_id, connection.user_id)

    async def cancel(self, connection: Connection, request: SessionPayload) -> Ack:
        await self._requests.cancel(request.session_id, user_id=connection.user_id)
        return await self._now(request.session_id, connection.user_id)

    async def queue(self, connection: Connection, request: LawyerPayload) -> Ack:
        place = await self._waiting.join(user_id=connection.user_id, lawyer_id=request.lawyer_id)
        waiting = place.waiting
        return wire.ok(
            {
                "lawyerId": waiting.lawyer_id,
                "position": place.position,
                "estimatedSeconds": place.estimated_s,
                "turnUntil": wire.instant(waiting.turn_until_ms) if waiting.turn_id else None,
            }
        )

    async def unqueue(self, connection: Connection, request: LawyerPayload) -> Ack:
        await self._waiting.leave(user_id=connection.user_id, lawyer_id=request.lawyer_id)
        return wire.ok()

    async def _now(self, session_id: str, viewer_id: str) -> Ack:
        return _told(await self._consultations.get(session_id, caller_id=viewer_id), viewer_id)


def guarded(role: Role, handle: Callable[[Connection, Any], Awaitable[Ack]]) -> Handler:
    """For this role alone, and with billing's refusals in the words of the socket."""

    async def run(connection: Connection, request: Any) -> Ack:
        if connection.principal.role != role.value:
            raise chat.Refused
        try:
            return await handle(connection, request)
        except chat.ChatError:
            raise
        except billing.BillingError as exc:
            raise translated(exc) from exc

    return run


def translated(error: billing.BillingError) -> Exception:
    """The same refusal as the socket says it; what is nobody's input stays what it is."""
    match error:
        case billing.Unavailable():
            return chat.Unavailable(**error.facts)
        case billing.NotFound():
            return chat.NotFound(**error.facts)
        case billing.Invalid():
            field = (str(error.facts.get("field", "payload")), str(error.facts.get("problem", error.detail)))
            return chat.Invalid(fields=[field])
        case _ if error.code in BY_CODE:
            return BY_CODE[error.code](**error.facts)
    return error


def _told(view: SessionView, viewer_id: str) -> Ack:
    shown = session_out(view, viewer_id).model_dump(mode="json", by_alias=True)
    return wire.ok({name: shown[name] for name in _TOLD})
