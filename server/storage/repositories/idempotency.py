"""`IdempotencyRows` over one collection."""

from typing import Final

from server.idempotency import IdempotencyRow, StoredAnswer
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

IDEMPOTENCY: Final = CollectionSpec(
    name="idempotency", text=("operation_id", "run"), integer=("created_at_ms",), boolean=("answered",)
)


class CollectionIdempotency:
    """One document for each use of a key; it is never removed once it has its answer."""

    def __init__(self, collection: Collection) -> None:
        self._rows = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionIdempotency":
        return cls(await collections.open(IDEMPOTENCY))

    async def add(self, row: IdempotencyRow) -> bool:
        try:
            await self._rows.insert(_doc(row))
        except DuplicateId:
            return False
        return True

    async def get(self, row_id: str) -> IdempotencyRow | None:
        doc = await self._rows.get(row_id)
        return None if doc is None else _row(doc)

    async def lease(self, row: IdempotencyRow, *, expect_run: str) -> bool:
        done = await self._rows.update(
            row.id,
            where={"run": expect_run, "answered": False},
            set_={"run": row.run, "lease_until_ms": row.lease_until_ms},
        )
        return done is not None

    async def answer(self, row_id: str, *, operation_id: str, answer: StoredAnswer) -> None:
        await self._rows.update(
            row_id,
            where={"operation_id": operation_id, "answered": False},
            set_={"answered": True, "status": answer.status, "body": answer.body},
        )

    async def drop(self, row_id: str, *, run: str) -> None:
        await self._rows.delete(row_id, where={"run": run, "answered": False})


def _doc(row: IdempotencyRow) -> Doc:
    return {
        "_id": row.id,
        "fingerprint": row.fingerprint,
        "operation_id": row.operation_id,
        "run": row.run,
        "lease_until_ms": row.lease_until_ms,
        "created_at_ms": row.created_at_ms,
        "answered": False,
    }


def _row(doc: Doc) -> IdempotencyRow:
    answer = StoredAnswer(doc["status"], doc["body"]) if doc["answered"] else None
    return IdempotencyRow(
        id=doc["_id"],
        fingerprint=doc["fingerprint"],
        operation_id=doc["operation_id"],
        run=doc["run"],
        lease_until_ms=doc["lease_until_ms"],
        created_at_ms=doc["created_at_ms"],
        answer=answer,
    )
