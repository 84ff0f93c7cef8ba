"""The small collection port that every domain except ledger and messages stands on.

A document is a JSON object with a string `_id` (unique, immutable). Integers are 64 bit, instants are epoch
milliseconds, money is in smallest units: no floats. Fields that are filtered or sorted on are declared in the
collection's `CollectionSpec`, so that both engines can index them. Uniqueness is the `_id` and nothing else: another
unique value gets a claim document of its own (LEDGER 8).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Doc = dict[str, Any]
#: field -> value (equality; `None` matches null and missing) or field -> {operator: value}. Operators: `ne`, `lt`, `lte`, `gt`,
#: `gte`, `in` (a list), `has` (a list field contains the value; allowed on any list field named in `lists`). All terms must hold.
Where = Mapping[str, Any]
#: Field and direction, most significant first; `_id` breaks ties in the direction of the last field.
Sort = Sequence[tuple[str, Literal["asc", "desc"]]]


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """Shape of a collection: its name, typed filterable fields, list fields and indexes."""

    name: str
    text: tuple[str, ...] = ()
    integer: tuple[str, ...] = ()
    boolean: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    indexes: tuple[tuple[str, ...], ...] = field(default=())


class Collection(Protocol):
    """One collection of documents. Every adapter passes `tests/contract/collection_contract.py`.

    All methods raise `StoreUnavailable` when the store does not answer. A write has happened durably when its
    method returns. Callers own the documents they pass and get: adapters copy.
    """

    async def insert(self, doc: Doc) -> None:
        """Store a new document. Raises `DuplicateId` when its `_id` exists; nothing is changed then."""
        ...

    async def get(self, id_: str) -> Doc | None:
        """The document with this `_id`, as last committed."""
        ...

    async def get_many(self, ids: Sequence[str]) -> dict[str, Doc]:
        """The documents that exist among `ids`, by `_id`."""
        ...

    async def find(
        self,
        where: Where,
        *,
        sort: Sort = (("_id", "asc"),),
        limit: int = 100,
        after: Sequence[Any] | None = None,
    ) -> list[Doc]:
        """Up to `limit` documents that match, in order. `after` is the sort key of the last document of the previous page, followed by
        its `_id` (keyset paging: a page neither skips nor repeats when rows arrive meanwhile).
        """
        ...

    async def update(
        self,
        id_: str,
        *,
        where: Where | None = None,
        set_: Mapping[str, Any] | None = None,
        inc: Mapping[str, int] | None = None,
    ) -> Doc | None:
        """Conditional update in one atomic step: the new document, or None if no document with `_id` matches `where`."""
        ...

    async def upsert(self, doc: Doc) -> None:
        """Insert or replace whole. Only for documents with a single writer."""
        ...

    async def delete(self, id_: str, *, where: Where | None = None) -> bool:
        """Delete if it exists and matches; whether it did."""
        ...

    async def count(self, where: Where) -> int: ...

    async def sum_by(
        self, field_name: str, *, group_by: str | None = None, where: Where | None = None
    ) -> dict[Any, tuple[int, int]]:
        """(sum of `field_name`, number of documents) by group; without `group_by` the one group is None. Empty groups are absent."""
        ...


class Collections(Protocol):
    """Hands out collections; makes missing tables and indexes at start-up."""

    async def open(self, spec: CollectionSpec) -> Collection: ...
