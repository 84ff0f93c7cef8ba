"""What admins do is written down: the intent before the act, the outcome after it.

A row that came after the act would be missing where the process died in between, and that is the very act somebody asks
about later. So the row is durable before anything happens; what a crash can leave is an intent without an outcome, never
an act without a row. See docs/decisions/0006-audit-intent-first.md.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import structlog
from pydantic import BaseModel

from billing_engine.clock import Clock
from billing_engine.errors import InvariantBroken, Unavailable
from server.admin.model import AuditFilter, AuditRow, AuditState
from server.problems import status_of
from server.routing import Audited, Call

AnswerT = TypeVar("AnswerT")
_log = structlog.get_logger(__name__)


class AuditRows(Protocol):
    """The stored rows. None is ever deleted. All methods raise `StoreUnavailable`."""

    async def add(self, row: AuditRow) -> bool:
        """Insert; False if the id exists (a request that is run again): the first row stays as it is."""
        ...

    async def finish(
        self, row_id: str, *, state: AuditState, after: Mapping[str, Any] | None, code: str | None
    ) -> None:
        """Say how it ended, unless that has been said."""
        ...

    async def find(
        self, wanted: AuditFilter, *, limit: int, before: tuple[int, str] | None
    ) -> list[AuditRow]:
        """Newest first; `before` is (at_ms, id) of the last row of the previous page."""
        ...

    async def count_about(self, subject: str) -> int:
        """How many rows are about `subject`."""
        ...


class AuditLog:
    """Carries an admin's act out between its two writes."""

    def __init__(self, rows: AuditRows, clock: Clock) -> None:
        self._rows = rows
        self._clock = clock

    async def perform(
        self,
        audited: Audited,
        call: Call[Any, Any],
        act: Callable[[Call[Any, Any]], Awaitable[AnswerT]],
    ) -> AnswerT:
        """Do `act(call)`, written down.

        The row has the operation's id: a request that runs again after a crash finds the row that it began with.

        Raises:
            Exception: whatever `act` raises.
            NotFound: the subject does not exist; there is nothing to do, and nothing is written.
            StoreUnavailable: the intent could not be written; nothing was done.
        """
        row = AuditRow(
            id=call.operation_id,
            at_ms=self._clock.now_ms(),
            admin_id=call.caller.user_id,
            action=audited.action,
            subject=_subject(audited, call),
            reason=getattr(call.body, "reason", None),
            asked=_storable(_asked(call.body)),
            before=_storable(await audited.facts(call)),
            request_id=call.request_id,
        )
        await self._rows.add(row)
        try:
            answer = await act(call)
        except BaseException as exc:
            if status_of(type(exc)) < 500:
                code = str(getattr(exc, "code", type(exc).__name__))
                await self._finish(row, AuditState.REFUSED, code=code)
            raise
        await self._finish(row, AuditState.DONE, look=lambda: audited.facts(call))
        return answer

    async def find(
        self, wanted: AuditFilter, *, limit: int, before: tuple[int, str] | None
    ) -> list[AuditRow]:
        """The rows that match, newest first."""
        return await self._rows.find(wanted, limit=limit, before=before)

    async def count_about(self, subject: str) -> int:
        """How many acts are written down about `subject`."""
        return await self._rows.count_about(subject)

    async def _finish(
        self,
        row: AuditRow,
        state: AuditState,
        *,
        look: Callable[[], Awaitable[Mapping[str, Any]]] | None = None,
        code: str | None = None,
    ) -> None:
        try:
            after = None if look is None else _storable(await look())
            await self._rows.finish(row.id, state=state, after=after, code=code)
        except Unavailable:
            # What happened has happened, and its intent is written down: the admin hears the truth.
            _log.warning("the outcome of an admin's act was not written down", audit=row.id, exc_info=True)


def _subject(audited: Audited, call: Call[Any, Any]) -> str:
    if audited.subject in call.path:
        return call.path[audited.subject]
    return str(getattr(call.body, audited.subject, audited.subject))


def _asked(body: object) -> Mapping[str, Any]:
    return body.model_dump(by_alias=True) if isinstance(body, BaseModel) else {}


def _storable(facts: Mapping[str, Any]) -> dict[str, Any]:
    stored = _plain(dict(facts))
    if not isinstance(stored, dict):
        raise InvariantBroken(problem="facts are named", facts=facts)
    return stored


def _plain(value: Any) -> Any:
    """As a document can hold it. An amount stays as it was written, whatever its size."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, int):
        return value if abs(value) < 2**63 else str(value)
    return str(value)
