"""`LawyerProfiles` of the people room, over one collection."""

from typing import Any, Final

from billing_engine.errors import InvariantBroken
from server.people.model import (
    LawyerFilter,
    LawyerProfile,
    LawyerSort,
    Place,
    ProfileChange,
    Rating,
    Verification,
    search_key,
)
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

LAWYERS: Final = CollectionSpec(
    name="lawyers",
    text=("name", "bar_council_number"),
    integer=("rate_minor_per_min", "rating_centi", "rating_version", "created_at_ms", "online_at_ms"),
    boolean=("is_verified", "is_online", "is_decided", "is_suspended"),
    lists=("specialization_keys", "language_keys"),
    indexes=(
        ("is_verified", "is_suspended", "rating_centi"),
        ("is_verified", "is_suspended", "rate_minor_per_min"),
        ("is_verified", "created_at_ms"),
        ("created_at_ms",),
    ),
)

_ORDER: Final[dict[LawyerSort, tuple[str, Any]]] = {
    LawyerSort.RATING: ("rating_centi", "desc"),
    LawyerSort.RATE: ("rate_minor_per_min", "asc"),
}


class CollectionLawyers:
    """Profiles with the fields a search needs beside them: the rating in hundredths, labels in one
    spelling.
    """

    def __init__(self, collection: Collection) -> None:
        self._lawyers = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionLawyers":
        lawyers = await collections.open(LAWYERS)
        # Profiles from before there was the word: a search asks for the false ones.
        while silent := await lawyers.find({"is_suspended": None}):
            for doc in silent:
                await lawyers.update(doc["_id"], where={"is_suspended": None}, set_={"is_suspended": False})
        return cls(lawyers)

    async def add(self, profile: LawyerProfile) -> None:
        try:
            await self._lawyers.insert(_doc(profile))
        except DuplicateId as exc:
            raise InvariantBroken(lawyer=profile.id, problem="a fresh id was used before") from exc

    async def drop(self, lawyer_id: str) -> None:
        await self._lawyers.delete(lawyer_id)

    async def get(self, lawyer_id: str) -> LawyerProfile | None:
        return _maybe(await self._lawyers.get(lawyer_id))

    async def set_verification(
        self,
        lawyer_id: str,
        *,
        is_verified: bool,
        verification: Verification | None,
        expect_number: str | None = None,
    ) -> LawyerProfile | None:
        where = {} if expect_number is None else {"bar_council_number": expect_number}
        verdict = _verification_doc(verification, is_verified=is_verified)
        return _maybe(await self._lawyers.update(lawyer_id, where=where, set_=verdict))

    async def set_online(self, lawyer_id: str, *, is_online: bool, at_ms: int) -> LawyerProfile | None:
        said = {"is_online": is_online} | ({"online_at_ms": at_ms} if is_online else {})
        return _maybe(await self._lawyers.update(lawyer_id, set_=said))

    async def set_away(self, lawyer_id: str, *, online_at_ms: int) -> bool:
        # Old records say nothing of when, which is 0 to who reads them.
        seen = online_at_ms or None
        where = {"is_online": True, "online_at_ms": seen}
        return await self._lawyers.update(lawyer_id, where=where, set_={"is_online": False}) is not None

    async def set_suspended(self, lawyer_id: str, *, is_suspended: bool) -> None:
        await self._lawyers.update(lawyer_id, set_={"is_suspended": is_suspended, "is_online": False})

    async def erase(self, lawyer_id: str, *, name: str) -> None:
        nothing = ProfileChange(name=name, specializations=(), languages=(), bar_council_number="", bio="")
        await self._lawyers.update(
            lawyer_id,
            set_={
                **_change_doc(nothing),
                **_verification_doc(None, is_verified=False),
                "is_suspended": True,
                "is_online": False,
            },
        )

    async def change(
        self, lawyer_id: str, change: ProfileChange, *, drop_verification: bool, expect: LawyerProfile
    ) -> LawyerProfile | None:
        changed = _change_doc(change)
        if drop_verification:
            changed |= _verification_doc(None, is_verified=False)
        # Not suspended either: a request that was under way must not write a name back into an erased profile.
        identity = {
            "name": expect.name,
            "bar_council_number": expect.bar_council_number,
            "is_suspended": False,
        }
        return _maybe(await self._lawyers.update(lawyer_id, where=identity, set_=changed))

    async def set_rating(self, lawyer_id: str, rating: Rating, *, expect_version: int) -> bool:
        written = await self._lawyers.update(
            lawyer_id,
            where={"rating_version": expect_version},
            set_={**_rating_doc(rating), "rating_version": expect_version + 1},
        )
        return written is not None

    async def search(
        self, wanted: LawyerFilter, *, sort: LawyerSort, limit: int, after: Place | None
    ) -> list[LawyerProfile]:
        where: Doc = {"is_verified": True, "is_suspended": False}
        if wanted.online is not None:
            where["is_online"] = wanted.online
        if wanted.specialization is not None:
            where["specialization_keys"] = {"has": search_key(wanted.specialization)}
        if wanted.language is not None:
            where["language_keys"] = {"has": search_key(wanted.language)}
        if wanted.max_rate_minor_per_min is not None:
            where["rate_minor_per_min"] = {"lte": wanted.max_rate_minor_per_min}
        if wanted.min_rating_centi is not None:
            where["rating_centi"] = {"gte": wanted.min_rating_centi}
        return await self._page(where, _ORDER[sort], limit, after)

    async def queue(
        self, *, is_verified: bool | None, is_decided: bool | None, limit: int, after: Place | None
    ) -> list[LawyerProfile]:
        where: Doc = {}
        if is_verified is not None:
            where["is_verified"] = is_verified
        if is_decided is not None:
            where["is_decided"] = is_decided
        return await self._page(where, ("created_at_ms", "asc"), limit, after)

    async def _page(
        self, where: Doc, order: tuple[str, Any], limit: int, after: Place | None
    ) -> list[LawyerProfile]:
        key = None if after is None else (after.value, after.id)
        return [
            _profile(doc) for doc in await self._lawyers.find(where, sort=(order,), limit=limit, after=key)
        ]


def _maybe(doc: Doc | None) -> LawyerProfile | None:
    return None if doc is None else _profile(doc)


def _doc(profile: LawyerProfile) -> Doc:
    return {
        "_id": profile.id,
        "created_at_ms": profile.created_at_ms,
        "is_online": profile.is_online,
        "online_at_ms": profile.online_at_ms or None,
        "is_suspended": profile.is_suspended,
        "rating_version": profile.rating_version,
        **_change_doc(
            ProfileChange(
                name=profile.name,
                rate_minor_per_min=profile.rate_minor_per_min,
                specializations=profile.specializations,
                languages=profile.languages,
                bar_council_number=profile.bar_council_number,
                bio=profile.bio,
                auto_accept=profile.auto_accept,
                waiting_list=profile.waiting_list,
            )
        ),
        **_verification_doc(profile.verification, is_verified=profile.is_verified),
        **_rating_doc(profile.rating),
    }


def _change_doc(change: ProfileChange) -> Doc:
    """The fields that `change` names, and what follows from them."""
    named: Doc = {
        "name": change.name,
        "rate_minor_per_min": change.rate_minor_per_min,
        "bar_council_number": change.bar_council_number,
        "bio": change.bio,
        "auto_accept": change.auto_accept,
        "waiting_list": change.waiting_list,
    }
    doc = {field: value for field, value in named.items() if value is not None}
    for field, labels, keys in (
        ("specializations", change.specializations, "specialization_keys"),
        ("languages", change.languages, "language_keys"),
    ):
        if labels is not None:
            doc[field] = list(labels)
            doc[keys] = [search_key(label) for label in labels]
    return doc


def _verification_doc(verification: Verification | None, *, is_verified: bool) -> Doc:
    verdict = verification and {
        "by": verification.by,
        "at_ms": verification.at_ms,
        "reason": verification.reason,
    }
    return {"is_verified": is_verified, "verification": verdict, "is_decided": verification is not None}


def _rating_doc(rating: Rating) -> Doc:
    # Unrated counts as 0 in the sort and the filter; the lowest true rating is 100.
    return {"rating_sum": rating.stars_sum, "rating_count": rating.count, "rating_centi": rating.centi or 0}


def _profile(doc: Doc) -> LawyerProfile:
    verdict = doc["verification"]
    return LawyerProfile(
        id=doc["_id"],
        name=doc["name"],
        rate_minor_per_min=doc["rate_minor_per_min"],
        specializations=tuple(doc["specializations"]),
        languages=tuple(doc["languages"]),
        bar_council_number=doc["bar_council_number"],
        bio=doc["bio"],
        created_at_ms=doc["created_at_ms"],
        is_verified=doc["is_verified"],
        verification=None if verdict is None else Verification(**verdict),
        is_online=doc["is_online"],
        online_at_ms=doc.get("online_at_ms") or 0,
        # No engine promises to keep a boolean that is not declared apart from 0 and 1.
        auto_accept=bool(doc.get("auto_accept", True)),
        waiting_list=bool(doc.get("waiting_list", False)),
        is_suspended=doc["is_suspended"],
        rating=Rating(doc["rating_sum"], doc["rating_count"]),
        rating_version=doc["rating_version"],
    )
