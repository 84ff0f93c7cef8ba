"""API keys: made, listed, revoked, and asked for their company (SPEC 9).

A key's row says whether it works; the company's record says which keys live, so that two with one name, or one too many, are
refused by one conditional write. The row comes first and the record second: a crash between them leaves a row whose secret
nobody was given, and which no list shows.
"""

import asyncio
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final

import structlog

from billing_engine.clock import Clock
from server.companies.errors import ApiKeyNameTaken, ApiKeyNotFound, TooManyApiKeys
from server.companies.key_text import digest_of, is_key_of, key_id_of, new_key
from server.companies.model import KEYS_MAX, ApiKey, CompanyRecord, Scope
from server.companies.ports import ApiKeyRows
from server.companies.records import CompanyRecords
from server.errors import Unauthenticated

_log = structlog.get_logger(__name__)
_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A new key, and the only time its text is known."""

    key: ApiKey
    text: str


class ApiKeys:
    """All use cases of keys. `drain` before the store closes."""

    def __init__(
        self, *, rows: ApiKeyRows, records: CompanyRecords, clock: Clock, new_id: Callable[[], str]
    ) -> None:
        self._rows = rows
        self._records = records
        self._clock = clock
        self._new_id = new_id
        #: Key -> the write of its last use that is under way.
        self._noting: dict[str, asyncio.Task[None]] = {}

    async def make(self, company_id: str, *, name: str, scopes: Collection[Scope], by: str) -> MadeKey:
        """A new key. Not idempotent: an answer that is kept for repeats would keep the key. The name is unique instead, so a
        repeat is refused, and whoever lost the answer revokes and makes another.

        Raises:
            ApiKeyNameTaken: a live key has this name, in any case of its letters.
            TooManyApiKeys: there are `KEYS_MAX` live ones.
            CompanyNotFound: there is no such company.
            StoreUnavailable: the key may exist, and nobody has it: revoke it by its name.
        """
        key_id = self._new_id()
        text = new_key(key_id)
        key = ApiKey(
            id=key_id,
            company_id=company_id,
            name=name,
            scopes=tuple(sorted(set(scopes))),
            digest=digest_of(text),
            created_by=by,
            created_at_ms=self._clock.now_ms(),
        )
        await self._rows.add(key)
        try:
            await self._join(key)
        except (ApiKeyNameTaken, TooManyApiKeys):
            await self._rows.drop(key_id)
            raise
        return MadeKey(key, text)

    async def listed(
        self, company_id: str, *, limit: int, before: tuple[int, str] | None
    ) -> tuple[list[ApiKey], tuple[int, str] | None]:
        """The company's keys, newest first, revoked ones too, and the place of the next page. A page may be short."""
        record = (await self._records.get(company_id)).record
        found = await self._rows.newest(company_id, limit=limit + 1, before=before)
        shown = found[:limit]
        place = (shown[-1].created_at_ms, shown[-1].id) if len(found) > limit else None
        live = set(record.live_keys)
        return [key for key in shown if key.revoked_at_ms is not None or key.id in live], place

    async def revoke(self, company_id: str, key_id: str) -> ApiKey:
        """The key, which is refused from the next request on. Repeated, the same answer.

        Raises:
            ApiKeyNotFound: the company has no such key.
        """
        key = await self._rows.get(key_id)
        if key is None or key.company_id != company_id:
            raise ApiKeyNotFound(key=key_id)
        revoked = await self._rows.revoke(key_id, at_ms=self._clock.now_ms())
        await self._records.change(company_id, lambda record: _without(record, {key_id}))
        return revoked or key

    async def revoke_all(self, company_id: str) -> None:
        """For a company that is gone. Harmless when repeated."""
        before: tuple[int, str] | None = None
        while page := await self._rows.newest(company_id, limit=_PAGE, before=before):
            for key in page:
                if key.revoked_at_ms is None:
                    await self._rows.revoke(key.id, at_ms=self._clock.now_ms())
            before = page[-1].created_at_ms, page[-1].id

    async def authenticate(self, text: str) -> ApiKey:
        """The key that this is the text of. The store is asked each time, so that a revoked one stops at once.

        Raises:
            Unauthenticated: no such key, or a revoked one: one answer for all.
            StoreUnavailable: nobody knows.
        """
        key_id = key_id_of(text)
        key = await self._rows.get(key_id) if key_id is not None else None
        if key is None or not is_key_of(text, key.digest) or key.revoked_at_ms is not None:
            raise Unauthenticated(presented=True)
        return key

    def note_use(self, key: ApiKey) -> None:
        """Remember that the key was used, about once a minute. Nobody waits for it, and nothing is lost if it fails."""
        if key.is_used_news(self._clock.now_ms()) and key.id not in self._noting:
            self._noting[key.id] = asyncio.create_task(self._note(key.id), name="api key used")

    async def drain(self) -> None:
        """Wait for what `note_use` began."""
        while self._noting:
            await asyncio.wait(set(self._noting.values()))

    async def _note(self, key_id: str) -> None:
        try:
            await self._rows.used(key_id, at_ms=self._clock.now_ms())
        except Exception as exc:  # noqa: BLE001 (the caller's work must not know of it)
            _log.warning("the use of a key was not written down", key_id=key_id, error=repr(exc))
        finally:
            self._noting.pop(key_id, None)

    async def _join(self, key: ApiKey) -> None:
        """Among the company's live keys. Raises `ApiKeyNameTaken`, `TooManyApiKeys`."""
        while True:
            seen = (await self._records.get(key.company_id)).record
            rows = await self._rows.get_many(seen.live_keys)
            # A revocation that a crash cut short has left its id in the record.
            live = {id_: row for id_, row in rows.items() if row.revoked_at_ms is None}
            if any(_folded(other.name) == _folded(key.name) for other in live.values()):
                raise ApiKeyNameTaken
            if len(live) >= KEYS_MAX:
                raise TooManyApiKeys(limit=KEYS_MAX)
            wanted = replace(seen, live_keys=(*live, key.id))
            if await self._records.put(wanted):
                return


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _without(record: CompanyRecord, key_ids: Collection[str]) -> CompanyRecord:
    return replace(record, live_keys=tuple(id_ for id_ in record.live_keys if id_ not in key_ids))
