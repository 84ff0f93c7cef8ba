"""`TokenRows` over two collections: families, and the hashes of refresh tokens."""

from typing import Final

from billing_engine.errors import InvariantBroken
from server.auth.model import Family, RefreshToken
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

FAMILIES: Final = CollectionSpec(
    name="token_families",
    text=("user_id",),
    integer=("ended_at_ms",),
    indexes=(("user_id", "ended_at_ms"), ("ended_at_ms",)),
)
REFRESH_TOKENS: Final = CollectionSpec(
    name="refresh_tokens",
    text=("family_id",),
    integer=("expires_at_ms", "used_at_ms"),
    indexes=(("expires_at_ms",), ("family_id",)),
)
_PAGE: Final = 500


class CollectionTokens:
    """One document a log-in, one a refresh token."""

    def __init__(self, families: Collection, tokens: Collection) -> None:
        self._families = families
        self._tokens = tokens

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionTokens":
        return cls(await collections.open(FAMILIES), await collections.open(REFRESH_TOKENS))

    async def add_family(self, family: Family) -> None:
        try:
            await self._families.insert(
                {
                    "_id": family.id,
                    "user_id": family.user_id,
                    "created_at_ms": family.created_at_ms,
                    "ended_at_ms": family.ended_at_ms,
                }
            )
        except DuplicateId as exc:
            raise InvariantBroken(family=family.id, problem="a fresh id was used before") from exc

    async def get_family(self, family_id: str) -> Family | None:
        doc = await self._families.get(family_id)
        return None if doc is None else _family(doc)

    async def live_families(self, user_id: str) -> list[Family]:
        found: list[Family] = []
        while True:
            page = await self._families.find(
                {"user_id": user_id, "ended_at_ms": None},
                limit=_PAGE,
                after=(found[-1].id,) if found else None,
            )
            found.extend(map(_family, page))
            if len(page) < _PAGE:
                return found

    async def end_family(self, family_id: str, *, at_ms: int) -> None:
        await self._families.update(family_id, where={"ended_at_ms": None}, set_={"ended_at_ms": at_ms})

    async def ended_since(self, at_ms: int) -> list[Family]:
        found: list[Family] = []
        while True:
            page = await self._families.find(
                {"ended_at_ms": {"gte": at_ms}},
                sort=(("ended_at_ms", "asc"),),
                limit=_PAGE,
                after=(found[-1].ended_at_ms, found[-1].id) if found else None,
            )
            found.extend(map(_family, page))
            if len(page) < _PAGE:
                return found

    async def add_token(self, token: RefreshToken) -> None:
        try:
            await self._tokens.insert(
                {
                    "_id": token.digest,
                    "family_id": token.family_id,
                    "expires_at_ms": token.expires_at_ms,
                    "used_at_ms": token.used_at_ms,
                }
            )
        except DuplicateId as exc:
            raise InvariantBroken(problem="a random token was drawn twice") from exc

    async def get_token(self, digest: str) -> RefreshToken | None:
        doc = await self._tokens.get(digest)
        if doc is None:
            return None
        return RefreshToken(doc["_id"], doc["family_id"], doc["expires_at_ms"], doc["used_at_ms"])

    async def use_token(self, digest: str, *, at_ms: int) -> bool:
        return (
            await self._tokens.update(digest, where={"used_at_ms": None}, set_={"used_at_ms": at_ms})
            is not None
        )

    async def drop_expired(self, *, before_ms: int, limit: int) -> int:
        expired = await self._tokens.find(
            {"expires_at_ms": {"lt": before_ms}}, sort=(("expires_at_ms", "asc"),), limit=limit
        )
        for doc in expired:
            await self._tokens.delete(doc["_id"])
        for family_id in {str(doc["family_id"]) for doc in expired}:
            # Its last access token, which no refresh token outlives, has expired too: nobody can ask for this family any more.
            if not await self._tokens.find({"family_id": family_id}, limit=1):
                await self._families.delete(family_id)
        return len(expired)


def _family(doc: Doc) -> Family:
    return Family(doc["_id"], doc["user_id"], doc["created_at_ms"], doc["ended_at_ms"])
