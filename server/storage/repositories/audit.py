"""`AuditRows` of the admin room, over one collection."""

from collections.abc import Mapping
from typing import Any, Final

from server.admin.model import AuditFilter, AuditRow, AuditState
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

#: Every filter of the list has an index that ends with the time, so that the newest page of it is read and nothing else.
AUDIT: Final = CollectionSpec(
    name="audit",
    text=("admin_id", "action", "subject", "state"),
    integer=("at_ms",),
    indexes=(
        ("at_ms",),
        ("admin_id", "at_ms"),
        ("action", "at_ms"),
        ("subject", "at_ms"),
        ("state", "at_ms"),
    ),
)


class CollectionAudit:
    """One document for each act. It is inserted, finished once, and never deleted."""

    def __init__(self, collection: Collection) -> None:
        self._rows = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionAudit":
        return cls(await collections.open(AUDIT))

    async def add(self, row: AuditRow) -> bool:
        try:
            await self._rows.insert(_doc(row))
        except DuplicateId:
            return False
        return True

    async def finish(
        self, row_id: str, *, state: AuditState, after: Mapping[str, Any] | None, code: str | None
    ) -> None:
        await self._rows.update(
            row_id,
            where={"state": AuditState.INTENDED.value},
            set_={"state": state.value, "after": None if after is None else dict(after), "code": code},
        )

    async def find(
        self, wanted: AuditFilter, *, limit: int, before: tuple[int, str] | None
    ) -> list[AuditRow]:
        equal = {
            "admin_id": wanted.admin_id,
            "action": wanted.action,
            "subject": wanted.subject,
            "state": None if wanted.state is None else wanted.state.value,
        }
        where: Doc = {field: value for field, value in equal.items() if value is not None}
        span = {"gte": wanted.from_ms, "lt": wanted.to_ms}
        if bounds := {operator: value for operator, value in span.items() if value is not None}:
            where["at_ms"] = bounds
        page = await self._rows.find(where, sort=(("at_ms", "desc"),), limit=limit, after=before)
        return [_row(doc) for doc in page]

    async def count_about(self, subject: str) -> int:
        return await self._rows.count({"subject": subject})


def _doc(row: AuditRow) -> Doc:
    return {
        "_id": row.id,
        "at_ms": row.at_ms,
        "admin_id": row.admin_id,
        "action": row.action,
        "subject": row.subject,
        "reason": row.reason,
        "asked": dict(row.asked),
        "before": dict(row.before),
        "request_id": row.request_id,
        "state": row.state.value,
        "after": None if row.after is None else dict(row.after),
        "code": row.code,
    }


def _row(doc: Doc) -> AuditRow:
    return AuditRow(
        id=doc["_id"],
        at_ms=doc["at_ms"],
        admin_id=doc["admin_id"],
        action=doc["action"],
        subject=doc["subject"],
        reason=doc["reason"],
        asked=doc["asked"],
        before=doc["before"],
        request_id=doc["request_id"],
        state=AuditState(doc["state"]),
        after=doc["after"],
        code=doc["code"],
    )
