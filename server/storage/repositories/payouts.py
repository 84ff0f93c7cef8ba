"""`PayoutRows` of the payouts room, over one collection."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Final

from billing_engine.payouts.model import Payout, PayoutStatus
from billing_engine.payouts.ports import OpenPayouts
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

PAYOUTS: Final = CollectionSpec(
    name="payouts",
    text=("lawyer_id", "status"),
    integer=("created_at_ms", "amount_minor"),
    indexes=(("lawyer_id", "created_at_ms"), ("status", "created_at_ms"), ("created_at_ms",)),
)
_REQUESTED: Final = PayoutStatus.REQUESTED.value
_FIELDS: Final = tuple(field.name for field in fields(Payout) if field.name != "id")


class CollectionPayouts:
    """One document a payout; only a requested one changes, once."""

    def __init__(self, collection: Collection) -> None:
        self._payouts = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionPayouts":
        return cls(await collections.open(PAYOUTS))

    async def add(self, payout: Payout) -> None:
        with suppress(DuplicateId):
            await self._payouts.insert({"_id": payout.id, **_facts(payout)})

    async def get(self, payout_id: str) -> Payout | None:
        doc = await self._payouts.get(payout_id)
        return None if doc is None else payout_of(doc)

    async def get_many(self, payout_ids: Sequence[str]) -> dict[str, Payout]:
        found = await self._payouts.get_many(payout_ids)
        return {id_: payout_of(doc) for id_, doc in found.items()}

    async def settle(self, payout: Payout) -> None:
        await self._payouts.update(payout.id, where={"status": _REQUESTED}, set_=_facts(payout))

    async def list_for(self, lawyer_id: str, *, limit: int, before: tuple[int, str] | None) -> list[Payout]:
        page = await self._payouts.find(
            {"lawyer_id": lawyer_id}, sort=(("created_at_ms", "desc"),), limit=limit, after=before
        )
        return [payout_of(doc) for doc in page]

    async def queue(
        self, status: PayoutStatus | None, *, limit: int, after: tuple[int, str] | None
    ) -> list[Payout]:
        waiting = status is PayoutStatus.REQUESTED
        page = await self._payouts.find(
            {} if status is None else {"status": status.value},
            sort=(("created_at_ms", "asc" if waiting else "desc"),),
            limit=limit,
            after=after,
        )
        return [payout_of(doc) for doc in page]

    async def open_total(self) -> OpenPayouts:
        sums = await self._payouts.sum_by("amount_minor", where={"status": _REQUESTED})
        return OpenPayouts(*sums.get(None, (0, 0)))


def _facts(payout: Payout) -> Doc:
    facts = {name: getattr(payout, name) for name in _FIELDS}
    return facts | {"status": payout.status.value}


def payout_of(doc: Doc) -> Payout:
    """The stored document as the domain knows it."""
    facts = {name: doc[name] for name in _FIELDS}
    return Payout(id=doc["_id"], **facts | {"status": PayoutStatus(doc["status"])})
