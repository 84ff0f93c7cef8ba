"""What `server.companies` stores: how companies are billed, and their API keys."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from billing_engine.errors import InvariantBroken
from billing_engine.usage.ports import ListChoice
from server.companies.model import ApiKey, CompanyRecord, Scope
from server.storage.collection import Collection, Collections, CollectionSpec, Doc
from server.storage.errors import DuplicateId

COMPANIES: Final = CollectionSpec(name="companies", integer=("version",))
API_KEYS: Final = CollectionSpec(
    name="api_keys",
    text=("company_id",),
    integer=("created_at_ms", "last_used_at_ms", "revoked_at_ms"),
    indexes=(("company_id", "created_at_ms"),),
)


class CollectionCompanies:
    """One document a company, each change of it under the version that it was read with."""

    def __init__(self, collection: Collection) -> None:
        self._companies = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionCompanies":
        return cls(await collections.open(COMPANIES))

    async def get(self, company_id: str) -> CompanyRecord | None:
        doc = await self._companies.get(company_id)
        return None if doc is None else _record(doc)

    async def put(self, record: CompanyRecord) -> bool:
        facts = _facts(record) | {"version": record.version + 1}
        if record.version == 0:
            with suppress(DuplicateId):
                await self._companies.insert({"_id": record.id, **facts})
                return True
            return False
        where = {"version": record.version}
        return await self._companies.update(record.id, where=where, set_=facts) is not None


class CollectionApiKeys:
    """One document a key, with its hash and never itself."""

    def __init__(self, collection: Collection) -> None:
        self._keys = collection

    @classmethod
    async def open(cls, collections: Collections) -> "CollectionApiKeys":
        return cls(await collections.open(API_KEYS))

    async def add(self, key: ApiKey) -> None:
        try:
            await self._keys.insert(_key_doc(key))
        except DuplicateId as exc:
            raise InvariantBroken(key=key.id, problem="a fresh id was used before") from exc

    async def drop(self, key_id: str) -> None:
        await self._keys.delete(key_id)

    async def get(self, key_id: str) -> ApiKey | None:
        doc = await self._keys.get(key_id)
        return None if doc is None else _key(doc)

    async def get_many(self, key_ids: Sequence[str]) -> dict[str, ApiKey]:
        return {id_: _key(doc) for id_, doc in (await self._keys.get_many(key_ids)).items()}

    async def revoke(self, key_id: str, *, at_ms: int) -> ApiKey | None:
        await self._keys.update(key_id, where={"revoked_at_ms": None}, set_={"revoked_at_ms": at_ms})
        return await self.get(key_id)

    async def used(self, key_id: str, *, at_ms: int) -> None:
        for earlier in (None, {"lt": at_ms}):
            where = {"last_used_at_ms": earlier}
            if await self._keys.update(key_id, where=where, set_={"last_used_at_ms": at_ms}) is not None:
                return

    async def newest(self, company_id: str, *, limit: int, before: tuple[int, str] | None) -> list[ApiKey]:
        docs = await self._keys.find(
            {"company_id": company_id}, sort=(("created_at_ms", "desc"),), limit=limit, after=before
        )
        return [_key(doc) for doc in docs]


def _facts(record: CompanyRecord) -> Doc:
    return {
        "time_zone": record.time_zone,
        "lists": [{"list": choice.list_name, "from_ms": choice.from_ms} for choice in record.lists],
        "created_at_ms": record.created_at_ms,
        "live_keys": list(record.live_keys),
    }


def _record(doc: Doc) -> CompanyRecord:
    return CompanyRecord(
        id=doc["_id"],
        time_zone=doc["time_zone"],
        lists=tuple(ListChoice(choice["list"], choice["from_ms"]) for choice in doc["lists"]),
        created_at_ms=doc["created_at_ms"],
        live_keys=tuple(doc["live_keys"]),
        version=doc["version"],
    )


def _key_doc(key: ApiKey) -> dict[str, Any]:
    return {
        "_id": key.id,
        "company_id": key.company_id,
        "name": key.name,
        "scopes": [scope.value for scope in key.scopes],
        "digest": key.digest,
        "created_by": key.created_by,
        "created_at_ms": key.created_at_ms,
        "last_used_at_ms": key.last_used_at_ms,
        "revoked_at_ms": key.revoked_at_ms,
    }


def _key(doc: Doc) -> ApiKey:
    return ApiKey(
        id=doc["_id"],
        company_id=doc["company_id"],
        name=doc["name"],
        scopes=tuple(Scope(scope) for scope in doc["scopes"]),
        digest=doc["digest"],
        created_by=doc["created_by"],
        created_at_ms=doc["created_at_ms"],
        last_used_at_ms=doc["last_used_at_ms"],
        revoked_at_ms=doc["revoked_at_ms"],
    )
