"""`WaitingRows` of the waiting lists, over one collection."""

from typing import Final

from billing_engine.consultations.waiting_model import Waiting, waiting_id
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

WAITING: Final = CollectionSpec(
    name="consult_waiting",
    text=("lawyer_id", "user_id", "turn_id"),
    integer=("since_ms",),
    indexes=(("lawyer_id", "since_ms"), ("user_id", "since_ms")),
)
_PAGE: Final = 1_000
_ORDER: Final = (("since_ms", "asc"),)


class CollectionWaiting:
    """One document a place; its `_id` lets a user wait once for a lawyer, its `turn_id` moves by compare-and-set."""

    def __init__(self, collection: Collection) -> None:
        self._waiting = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionWaiting":
        return cls(await collections.open(WAITING))

    async def add(self, waiting: Waiting) -> Waiting:
        while True:
            try:
                await self._waiting.insert(_doc(waiting))
            except DuplicateId:
                known = await self.get(waiting.lawyer_id, waiting.user_id)
                if known is not None:
                    return known
                # Gone between the two calls: somebody made progress, so trying again ends.
            else:
                return waiting

    async def get(self, lawyer_id: str, user_id: str) -> Waiting | None:
        doc = await self._waiting.get(waiting_id(lawyer_id, user_id))
        return None if doc is None else _of(doc)

    async def of_lawyer(self, lawyer_id: str) -> list[Waiting]:
        found = await self._waiting.find({"lawyer_id": lawyer_id}, sort=_ORDER, limit=_PAGE)
        return [_of(doc) for doc in found]

    async def of_user(self, user_id: str) -> list[Waiting]:
        found = await self._waiting.find({"user_id": user_id}, sort=_ORDER, limit=_PAGE)
        return [_of(doc) for doc in found]

    async def lawyers(self) -> list[str]:
        found: dict[str, None] = {}
        after: tuple[str] | None = None
        while True:
            page = await self._waiting.find({}, limit=_PAGE, after=after)
            found |= dict.fromkeys(str(doc["lawyer_id"]) for doc in page)
            if len(page) < _PAGE:
                return list(found)
            after = (page[-1]["_id"],)

    async def give_turn(self, waiting: Waiting, *, turn_id: str, until_ms: int) -> Waiting | None:
        given = await self._waiting.update(
            waiting.id, where={"turn_id": ""}, set_={"turn_id": turn_id, "turn_until_ms": until_ms}
        )
        return None if given is None else _of(given)

    async def take_turn_back(self, waiting: Waiting) -> None:
        await self._waiting.update(
            waiting.id, where={"turn_id": waiting.turn_id}, set_={"turn_id": "", "turn_until_ms": 0}
        )

    async def drop(self, waiting: Waiting) -> bool:
        return await self._waiting.delete(waiting.id, where={"turn_id": waiting.turn_id})


def _doc(waiting: Waiting) -> Doc:
    return {
        "_id": waiting.id,
        "lawyer_id": waiting.lawyer_id,
        "user_id": waiting.user_id,
        "since_ms": waiting.since_ms,
        "turn_id": waiting.turn_id,
        "turn_until_ms": waiting.turn_until_ms,
    }


def _of(doc: Doc) -> Waiting:
    return Waiting(doc["lawyer_id"], doc["user_id"], doc["since_ms"], doc["turn_id"], doc["turn_until_ms"])
