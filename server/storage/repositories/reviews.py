"""`Reviews` of the people room, over one collection."""

from typing import Final

from server.people.model import Place, Rating, Review
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

REVIEWS: Final = CollectionSpec(
    name="reviews",
    text=("lawyer_id",),
    integer=("stars", "created_at_ms"),
    boolean=("is_counted",),
    indexes=(("lawyer_id", "created_at_ms"), ("is_counted", "lawyer_id")),
)


class CollectionReviews:
    """One review a session: the session's id is the document's, so a second one cannot be stored."""

    def __init__(self, collection: Collection) -> None:
        self._reviews = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionReviews":
        return cls(await collections.open(REVIEWS))

    async def add(self, review: Review) -> bool:
        try:
            await self._reviews.insert(
                {
                    "_id": review.session_id,
                    "lawyer_id": review.lawyer_id,
                    "user_id": review.user_id,
                    "stars": review.stars,
                    "comment": review.comment,
                    "created_at_ms": review.created_at_ms,
                    "is_counted": False,
                }
            )
        except DuplicateId:
            return False
        return True

    async def list_of(self, lawyer_id: str, *, limit: int, after: Place | None) -> list[Review]:
        page = await self._reviews.find(
            {"lawyer_id": lawyer_id},
            sort=(("created_at_ms", "desc"),),
            limit=limit,
            after=None if after is None else (after.value, after.id),
        )
        return [_review(doc) for doc in page]

    async def total_of(self, lawyer_id: str) -> Rating:
        sums = await self._reviews.sum_by("stars", where={"lawyer_id": lawyer_id})
        return Rating(*sums.get(None, (0, 0)))

    async def uncounted(self, lawyer_id: str | None, *, limit: int) -> list[Review]:
        where: Doc = {"is_counted": False}
        if lawyer_id is not None:
            where["lawyer_id"] = lawyer_id
        # In the order of the index, so that the usual answer, none, costs one look.
        page = await self._reviews.find(where, sort=(("lawyer_id", "asc"),), limit=limit)
        return [_review(doc) for doc in page]

    async def mark_counted(self, session_id: str) -> None:
        await self._reviews.update(session_id, where={"is_counted": False}, set_={"is_counted": True})


def _review(doc: Doc) -> Review:
    return Review(
        session_id=doc["_id"],
        lawyer_id=doc["lawyer_id"],
        user_id=doc["user_id"],
        stars=doc["stars"],
        comment=doc["comment"],
        created_at_ms=doc["created_at_ms"],
    )
