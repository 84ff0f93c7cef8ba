"""Tells people of requests: over the sockets, and by a notification to a lawyer whose app is closed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from billing_engine.consultations.model import Session
from billing_engine.consultations.request_model import (
    LawyerAway,
    RequestChanged,
    RequestEvent,
    RequestState,
    state_of,
)
from billing_engine.consultations.waiting_model import PlaceChanged, TurnGiven
from billing_engine.errors import Unavailable
from billing_engine.money import ASSETS, format_minor
from chat.push import Push
from server.notifications.model import Kind
from server.notifications.outbox import Outbox
from server.wire import rfc3339

log = logging.getLogger(__name__)
MISSED_RINGS: Final = "MISSED_RINGS"


class SocketRequestNews:
    """Billing's `RequestNews` port. Nothing here waits; what has to be stored is stored by tasks, which `stop` waits for."""

    def __init__(
        self,
        *,
        push: Push,
        outbox: Outbox,
        is_connected: Callable[[str], Awaitable[bool]],
        now_ms: Callable[[], int],
    ) -> None:
        self._push = push
        self._outbox = outbox
        self._is_connected = is_connected
        self._now_ms = now_ms
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, event: RequestEvent) -> None:
        match event:
            case RequestChanged():
                self._changed(event)
            case LawyerAway(lawyer_id):
                self._push.post_to_user(
                    lawyer_id, "consult:away", {"lawyerId": lawyer_id, "reason": MISSED_RINGS}
                )
            case PlaceChanged(place, over):
                waiting = place.waiting
                self._push.post_to_user(
                    waiting.user_id,
                    "consult:position",
                    {
                        "lawyerId": waiting.lawyer_id,
                        "position": place.position,
                        "estimatedSeconds": place.estimated_s,
                        "reason": None if over is None else over.value,
                    },
                )
            case TurnGiven(waiting):
                deadline = rfc3339(waiting.turn_until_ms)
                turn = {"lawyerId": waiting.lawyer_id, "deadline": deadline}
                self._push.post_to_user(waiting.user_id, "consult:turn", turn)
                facts = {"lawyerId": waiting.lawyer_id}
                self._notify_if_away(
                    waiting.user_id,
                    Kind.CONSULT_TURN,
                    f"turn:{waiting.turn_id}",
                    waiting.turn_until_ms,
                    facts,
                )

    async def stop(self) -> None:
        """Wait until what was begun is stored."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _changed(self, event: RequestChanged) -> None:
        session, state = event.session, state_of(event.session)
        if state is None:
            return
        payload = state_payload(session, state)
        self._push.post_to_user(session.user_id, "consult:state", payload)
        if state is RequestState.RINGING:
            self._push.post_to_user(session.lawyer_id, "consult:ring", ring_payload(session))
            self._notify_if_away(
                session.lawyer_id,
                Kind.CONSULT_RING,
                f"ring:{session.id}",
                session.deadline_ms or 0,
                {"sessionId": session.id, "userId": session.user_id},
            )
        elif state is RequestState.ACCEPTED:
            elsewhere = state_payload(session, RequestState.ANSWERED_ELSEWHERE)
            self._push.post_to_user(session.lawyer_id, "consult:state", elsewhere, skip=event.socket)
        else:
            self._push.post_to_user(session.lawyer_id, "consult:state", payload)

    def _notify_if_away(
        self, person_id: str, kind: Kind, id_: str, until_ms: int, facts: Mapping[str, Any]
    ) -> None:
        task = asyncio.create_task(self._notify(person_id, kind, id_, until_ms, facts))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(
        self, person_id: str, kind: Kind, id_: str, until_ms: int, facts: Mapping[str, Any]
    ) -> None:
        if await self._is_connected(person_id):
            return
        try:
            await self._outbox.post(
                kind,
                id_=id_,
                user_id=person_id,
                facts={**facts, "deadline": rfc3339(until_ms)},
                # Later it would only confuse.
                lifetime_ms=max(1, until_ms - self._now_ms()),
            )
        except Unavailable as exc:
            log.warning("whoever has the app closed is not told: %r", exc, extra={"notice": id_})


def ring_payload(session: Session) -> dict[str, Any]:
    """`consult:ring`: nothing of the user's money is in it."""
    return {
        "sessionId": session.id,
        "userId": session.user_id,
        "lawyerId": session.lawyer_id,
        "ratePerMinute": format_minor(session.rate_minor_per_min, ASSETS[session.currency]),
        "currency": session.currency,
        "deadline": rfc3339(session.deadline_ms or 0),
    }


def state_payload(session: Session, state: RequestState) -> dict[str, Any]:
    """`consult:state`."""
    return {
        "sessionId": session.id,
        "userId": session.user_id,
        "lawyerId": session.lawyer_id,
        "state": state.value,
        "reason": None if session.end_reason is None else session.end_reason.value,
        "deadline": None if session.deadline_ms is None else rfc3339(session.deadline_ms),
    }
