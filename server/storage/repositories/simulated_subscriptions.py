"""What simulated subscriptions were agreed on."""

from contextlib import suppress
from dataclasses import asdict
from typing import Final

from server.gateways.simulated_cycles import Agreement, Change, Terms
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

SIMULATED_SUBSCRIPTIONS: Final = CollectionSpec(name="simulated_subscriptions", integer=("revision",))


class CollectionAgreements:
    """One document a subscription, named after it. All methods raise `Unavailable`."""

    def __init__(self, collection: Collection) -> None:
        self._rows = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionAgreements":
        return cls(await collections.open(SIMULATED_SUBSCRIPTIONS))

    async def add(self, agreement: Agreement) -> None:
        """Store it; one that is there stays as it is."""
        with suppress(DuplicateId):
            await self._rows.insert({"_id": agreement.id, **_facts(agreement)})

    async def get(self, id_: str) -> Agreement | None:
        doc = await self._rows.get(id_)
        return None if doc is None else _agreement(doc)

    async def exchange(self, old: Agreement, new: Agreement) -> bool:
        """Store `new` if it is still as in `old`; `new` has a revision of its own."""
        where = {"revision": old.revision}
        return await self._rows.update(old.id, where=where, set_=_facts(new)) is not None


def _facts(agreement: Agreement) -> Doc:
    facts = asdict(agreement)
    del facts["id"]
    return {**facts, "changes": list(facts["changes"])}


def _agreement(doc: Doc) -> Agreement:
    return Agreement(
        id=doc["_id"],
        user_id=doc["user_id"],
        created_at_ms=doc["created_at_ms"],
        terms=Terms(**doc["terms"]),
        changes=tuple(Change(**{**change, "terms": Terms(**change["terms"])}) for change in doc["changes"]),
        cancelled_at_ms=doc["cancelled_at_ms"],
        revision=doc["revision"],
    )
