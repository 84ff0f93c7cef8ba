"""`Claims` of the consultations room: one document for each claimed person, its `_id` is the guard."""

from typing import Final

from server.storage.collection import Collection, Collections, CollectionSpec
from server.storage.errors import DuplicateId

CLAIMS: Final = CollectionSpec(name="claims", text=("session_id",))

_PAGE: Final = 1_000


class CollectionClaims:
    """`user:ID` and `lawyer:ID` → the session that holds them. However many start at once, the unique
    `_id` lets one in.
    """

    def __init__(self, collection: Collection) -> None:
        self._claims = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionClaims":
        return cls(await collections.open(CLAIMS))

    async def take(self, person: str, session_id: str) -> str | None:
        while True:
            try:
                await self._claims.insert({"_id": person, "session_id": session_id})
            except DuplicateId:
                holder = await self.holder(person)
                if holder is None:
                    # Released between the two calls: somebody made progress, so trying again ends.
                    continue
                # Our own claim is what an insert with a lost reply, or a start that is run again, leaves
                # behind.
                return None if holder == session_id else holder
            return None

    async def replace(self, person: str, *, finished_session_id: str, session_id: str) -> bool:
        taken = await self._claims.update(
            person, where={"session_id": finished_session_id}, set_={"session_id": session_id}
        )
        return taken is not None or await self.holder(person) == session_id

    async def release(self, person: str, session_id: str) -> None:
        await self._claims.delete(person, where={"session_id": session_id})

    async def holder(self, person: str) -> str | None:
        claim = await self._claims.get(person)
        return None if claim is None else str(claim["session_id"])

    async def held(self, persons: list[str]) -> dict[str, str]:
        found = await self._claims.get_many(persons)
        return {person: str(claim["session_id"]) for person, claim in found.items()}

    async def everyone(self) -> dict[str, str]:
        found: dict[str, str] = {}
        after: tuple[str] | None = None
        while True:
            page = await self._claims.find({}, limit=_PAGE, after=after)
            found |= {claim["_id"]: str(claim["session_id"]) for claim in page}
            if len(page) < _PAGE:
                return found
            after = (page[-1]["_id"],)
