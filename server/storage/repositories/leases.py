"""`Leases` of the consultations room: one document a process."""

from typing import Final

from billing_engine.consultations.ports import Lease
from server.storage.collection import Collection, Collections, CollectionSpec

LEASES: Final = CollectionSpec(name="leases", text=("role",), integer=("beat",))
#: Nobody runs so many processes; whoever does sees the first thousand.
_MOST: Final = 1_000


class CollectionLeases:
    """A process writes its own document and reads all."""

    def __init__(self, collection: Collection) -> None:
        self._leases = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionLeases":
        return cls(await collections.open(LEASES))

    async def beat(self, lease: Lease) -> bool:
        if await self._leases.update(lease.owner, set_={"beat": lease.beat, "role": lease.role}) is not None:
            return True
        await self._leases.upsert({"_id": lease.owner, "beat": lease.beat, "role": lease.role})
        return False

    async def all(self) -> list[Lease]:
        return [
            Lease(doc["_id"], doc["beat"], doc["role"]) for doc in await self._leases.find({}, limit=_MOST)
        ]

    async def drop(self, owner: str, *, beat: int | None = None) -> None:
        await self._leases.delete(owner, where=None if beat is None else {"beat": beat})
